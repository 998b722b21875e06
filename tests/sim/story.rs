//! What happened in a simulation, for the engineer who has to find out why it failed.

use std::fmt::Write as _;
use std::time::Duration;

use kvs::model::Key;
use tokio::time::Instant;

/// The most lines that are printed: the last ones, which say most.
const LINES_MAX: usize = 120;

struct Line {
    at: Duration,
    /// The key that the line is about; `None` when it is about a node or the network.
    key: Option<Key>,
    text: String,
}

/// All lines, in order.
pub struct Story {
    start: Instant,
    lines: Vec<Line>,
}

impl Story {
    pub fn new(start: Instant) -> Self {
        Self { start, lines: Vec::new() }
    }

    pub fn add(&mut self, key: Option<&Key>, text: String) {
        self.lines.push(Line { at: self.start.elapsed(), key: key.cloned(), text });
    }

    /// The lines about a key, with those about nodes and the network.
    pub fn about(&self, key: Option<&Key>) -> String {
        let matters = |line: &&Line| line.key.is_none() || line.key.as_ref() == key;
        let lines: Vec<_> = self.lines.iter().filter(matters).collect();
        let printed = &lines[lines.len().saturating_sub(LINES_MAX)..];
        let mut text = String::new();
        if printed.len() < lines.len() {
            let _ =
                writeln!(text, "  ({} earlier lines are left out)", lines.len() - printed.len());
        }
        for line in printed {
            let about = line.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
            let _ = writeln!(text, "  {:9.3} s  {about}{}", line.at.as_secs_f64(), line.text);
        }
        text
    }
}
