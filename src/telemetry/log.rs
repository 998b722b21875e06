//! The log of a running node: lines for people, which never hold up the node.
//!
//! Whoever logs hands its line to a bounded queue and goes on; one thread writes the lines to
//! stderr. A line is lost when the queue is full, because nobody reads stderr, or when writing
//! fails, because the reader is gone. Lost lines are counted, and a line in the log says how many
//! there were as soon as writing works again.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The lines that wait for the thread take at most this many bytes together.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// How long the end of the process waits at most until the last lines are written.
pub(crate) const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// What is logged unless `KVS_LOG` says otherwise. Two libraries say much at `info`.
const DEFAULT_FILTER: &str = "info,foca=warn,quinn=warn";
/// What people write where a level is meant.
const LEVEL_ALIASES: [(&str, &str); 4] =
    [("warning", "warn"), ("err", "error"), ("information", "info"), ("none", "off")];

/// The queue of this process, once [`start`] was called.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();
/// Counts the lost lines of this process.
static LOST: OnceLock<Counter> = OnceLock::new();

/// The format of log lines on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text for people, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `KVS_LOG` holds something that is no level.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "KVS_LOG: `{0}` is no level; use trace, debug, info, warn, error or off, or give one part of \
     the node another level, as in KVS_LOG=info,kvs::gossip=debug"
)]
pub struct LevelError(String);

/// The counter of lost lines, the same for all nodes in this process, which share its stderr.
pub(super) fn lost_lines() -> Counter {
    LOST.get_or_init(Counter::default).clone()
}

/// Writes log lines to stderr, filtered by `level`, the value of `KVS_LOG`; panics become log lines
/// as well. Only the first call in a process has an effect.
///
/// # Errors
/// When `level` holds something that is no level.
pub fn start(format: LogFormat, level: Option<&str>) -> Result<(), LevelError> {
    let filter = EnvFilter::new(directives(level.unwrap_or_default())?);
    let queue = Arc::new(Queue::new(lost_lines()));
    if QUEUE.set(Arc::clone(&queue)).is_err() {
        return Ok(());
    }
    let coloured = io::stderr().is_terminal();
    let notice = move |lost| notice(format, coloured, lost);
    let writing = Arc::clone(&queue);
    // without the thread all lines are lost and counted, and the node serves
    let _ = std::thread::Builder::new()
        .name("kvs-log".to_owned())
        .spawn(move || writing.write_all(&mut io::stderr(), &notice));
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(LogWriter(queue));
    let started = match format {
        LogFormat::Text => base.with_ansi(coloured).with_target(false).try_init(),
        LogFormat::Json => base.json().try_init(),
    };
    // fails only where a test has installed another subscriber, which then gets the lines
    let _ = started;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Hands `line` to the log's thread as it is. Answers whether the log was started.
pub(crate) fn print(line: &str) -> bool {
    QUEUE.get().is_some_and(|queue| {
        queue.push(format!("{line}\n").into_bytes());
        true
    })
}

/// Waits until all lines are written, for at most [`FLUSH_WAIT`].
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_WAIT);
    }
}

/// The standard hook would write to stderr itself, which blocks where nobody reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        tracing::error!(thread, place, %backtrace, "panicked: {text}");
    } else {
        tracing::error!(thread, place, "panicked: {text}");
    }
}

/// The directives of the filter for `level`, checked: the filter itself takes any word for the name
/// of a part, and then logs nothing else.
fn directives(level: &str) -> Result<String, LevelError> {
    let mut given = Vec::new();
    let mut is_whole = false;
    for directive in level.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let refused = || LevelError(directive.to_owned());
        let (part, level) = match directive.split_once('=') {
            Some((part, level)) => (Some(part.trim()), level.trim()),
            None => (None, directive),
        };
        let level = known_level(level).ok_or_else(refused)?;
        match part {
            Some(part) if is_path(part) => given.push(format!("{part}={level}")),
            Some(_) => return Err(refused()),
            None => {
                is_whole = true;
                given.push(level);
            }
        }
    }
    if !is_whole {
        given.insert(0, DEFAULT_FILTER.to_owned());
    }
    Ok(given.join(","))
}

fn known_level(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let alias = LEVEL_ALIASES.iter().find(|(alias, _)| *alias == text);
    let level = alias.map_or(text.as_str(), |(_, level)| level);
    level.parse::<LevelFilter>().ok().map(|level| level.to_string())
}

fn is_path(text: &str) -> bool {
    let in_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !text.is_empty() && text.chars().all(in_path)
}

/// The line about lost lines, in the format of the log.
fn notice(format: LogFormat, coloured: bool, lost: u64) -> Vec<u8> {
    let line = Arc::new(Mutex::new(Vec::new()));
    let base =
        tracing_subscriber::fmt().with_max_level(Level::WARN).with_writer(Buffer(line.clone()));
    let warn = || {
        tracing::warn!(
            lost,
            "log lines were lost, because stderr was not read or could not be written; kvs serves \
             on without them"
        );
    };
    match format {
        LogFormat::Text => tracing::subscriber::with_default(
            base.with_ansi(coloured).with_target(false).finish(),
            warn,
        ),
        LogFormat::Json => tracing::subscriber::with_default(base.json().finish(), warn),
    }
    std::mem::take(&mut *line.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Collects what a subscriber writes.
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl MakeWriter<'_> for Buffer {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hands each line that a subscriber writes to the queue.
struct LogWriter(Arc<Queue>);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = QueueWriter<'a>;
    fn make_writer(&'a self) -> QueueWriter<'a> {
        QueueWriter(&self.0)
    }
}

/// Takes a whole line with each call, and never fails.
struct QueueWriter<'a>(&'a Queue);

impl Write for QueueWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.to_vec());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that wait to be written.
///
/// Its lock is held for moments only, never while a line is written.
struct Queue {
    state: Mutex<QueueState>,
    /// Signalled when a line was added.
    added: Condvar,
    /// Signalled when all lines were written, or lost.
    written: Condvar,
    lost_total: Counter,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines lost since the log last said so.
    lost: u64,
    /// Whether the thread writes a line that is no longer in `lines`.
    writing: bool,
}

impl Queue {
    fn new(lost_total: Counter) -> Self {
        let state = Mutex::new(QueueState::default());
        Self { state, added: Condvar::new(), written: Condvar::new(), lost_total }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Vec<u8>) {
        let mut state = self.state();
        if state.bytes + line.len() > QUEUE_BYTES_MAX {
            self.lose(&mut state, 1);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        self.added.notify_one();
    }

    fn lose(&self, state: &mut QueueState, lines: u64) {
        state.lost += lines;
        self.lost_total.inc_by(lines);
    }

    /// Takes the next line, once there is one, and the number of lines lost before it.
    fn next(&self) -> (Vec<u8>, u64) {
        let mut state = self.state();
        state.writing = false;
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return (line, std::mem::take(&mut state.lost));
            }
            self.written.notify_all();
            state = self.added.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes lines to `to` for ever. `notice` makes the line about lost ones.
    fn write_all(&self, to: &mut impl Write, notice: &impl Fn(u64) -> Vec<u8>) {
        loop {
            self.write_next(to, notice);
        }
    }

    fn write_next(&self, to: &mut impl Write, notice: &impl Fn(u64) -> Vec<u8>) {
        let (line, lost) = self.next();
        if lost > 0 && to.write_all(&notice(lost)).is_err() {
            let mut state = self.state();
            // these were counted when they were lost
            state.lost += lost;
            return self.lose(&mut state, 1);
        }
        if to.write_all(&line).is_err() {
            self.lose(&mut self.state(), 1);
        }
    }

    /// Waits until no line waits any more, at most for `wait`.
    fn flush(&self, wait: Duration) {
        let waits = |state: &mut QueueState| state.writing || !state.lines.is_empty();
        // after the wait, whoever reads stderr does not
        let _ = self.written.wait_timeout_while(self.state(), wait, waits);
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
