//! A counter that shows the progress of long work, on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stdout};

/// Counts on standard error if that is a terminal; else shows nothing.
pub struct Counter(ProgressBar);

impl Counter {
    /// Shows "{done} 812 records", with `done` as in "imported".
    pub fn new(done: &'static str) -> Self {
        Self::of(done, "records")
    }

    /// Like [`Self::new`], but of other things than records.
    pub fn of(done: &'static str, noun: &'static str) -> Self {
        // indicatif hides it unless standard error is a terminal
        let bar = ProgressBar::no_length();
        let template = format!("{done} {{human_pos}} {noun} ({{per_sec}})");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Like [`Self::new`], but silent when the records themselves go to the terminal.
    pub fn unless_printing(done: &'static str) -> Self {
        if stdout().is_terminal() { Self(ProgressBar::hidden()) } else { Self::new(done) }
    }

    /// Shows this count.
    pub fn set(&self, records: u64) {
        self.0.set_position(records);
    }

    /// Clears the count while `print` writes to the screen.
    pub fn suspended<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Clears the count from the screen.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
