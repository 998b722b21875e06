//! What happened in a simulation, for whoever has to find out why it went wrong.

use std::fmt::Write as _;
use std::time::Duration;

use kvs::model::Key;
use tokio::time::Instant;

/// The most lines that are told; the end of a story says most.
const LINES_MAX: usize = 120;

struct Line {
    at: Duration,
    /// What it is about; without a key, it is about a node or the network.
    key: Option<Key>,
    text: String,
}

/// Everything that was told, in order.
pub struct Story {
    start: Instant,
    lines: Vec<Line>,
}

impl Story {
    pub fn new(start: Instant) -> Self {
        Self { start, lines: Vec::new() }
    }

    pub fn tell(&mut self, key: Option<&Key>, text: String) {
        self.lines.push(Line { at: self.start.elapsed(), key: key.cloned(), text });
    }

    /// What happened to a key, and to the nodes and the network meanwhile.
    pub fn about(&self, key: Option<&Key>) -> String {
        let matters = |line: &&Line| line.key.is_none() || line.key.as_ref() == key;
        let lines: Vec<_> = self.lines.iter().filter(matters).collect();
        let told = &lines[lines.len().saturating_sub(LINES_MAX)..];
        let mut text = String::new();
        if told.len() < lines.len() {
            let _ = writeln!(text, "  ({} earlier lines are left out)", lines.len() - told.len());
        }
        for line in told {
            let about = line.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
            let _ = writeln!(text, "  {:9.3} s  {about}{}", line.at.as_secs_f64(), line.text);
        }
        text
    }
}
