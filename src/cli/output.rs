//! Output of commands: lines, bytes, JSON, tables, and numbers for people.
//!
//! Escapes control characters in text from a node, so that a key cannot control the terminal. Never
//! wraps tables: on a terminal it cuts the widest cells until they fit. Must not know what it
//! prints.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::error::CliError;

/// Wider cells are cut: wider than any key, and far below what a column width (`u16`) can count.
const CELL_CHARS_MAX: usize = 8192;
/// Spaces between the columns of a table.
const GAP: u16 = 2;

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The width of a terminal that does not tell it.
const TERMINAL_COLUMNS: u16 = 80;

/// The columns of the terminal on standard output; `None` if it is no terminal.
#[must_use]
pub fn terminal_width() -> Option<u16> {
    let known = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
    io::stdout().is_terminal().then(|| known().unwrap_or(TERMINAL_COLUMNS))
}

/// Where results go, and in which format.
pub struct Output<'a> {
    to: &'a mut dyn Write,
    format: Format,
    /// The columns of the terminal, if it is one.
    terminal: Option<u16>,
    /// Whether to show tables whole.
    wide: bool,
}

impl<'a> Output<'a> {
    /// Prints to `to`.
    pub fn new(to: &'a mut dyn Write, format: Format) -> Self {
        Self { to, format, terminal: None, wide: false }
    }

    /// Says that it goes to a terminal with this many columns, if so, and whether to show tables
    /// whole.
    pub fn set_screen(&mut self, terminal: Option<u16>, wide: bool) {
        (self.terminal, self.wide) = (terminal, wide);
    }

    /// True if a person reads it on a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// True if tables show all columns and whole cells.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.wide
    }

    /// Prints the next rows of a table.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn table(&mut self, grid: &mut Grid, rows: &[Vec<String>]) -> Result<(), CliError> {
        let room = self.terminal.filter(|_| !self.wide);
        let text = grid.page(rows, room);
        self.line(&text)
    }

    /// True if the caller asked for JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints bytes unchanged.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.to.write_all(bytes).map_err(CliError::Output)
    }

    /// Prints `text` and a line end.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.raw(text.as_bytes())?;
        self.raw(b"\n")
    }

    /// Prints one JSON text as one line. A bare line break in JSON is always white space, because
    /// strings must escape it; so it becomes a space.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn json(&mut self, json: &[u8]) -> Result<(), CliError> {
        let one_line: Vec<u8> = json
            .trim_ascii()
            .iter()
            .map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b })
            .collect();
        self.raw(&one_line)?;
        self.raw(b"\n")
    }

    /// Prints a value for a person on a terminal, with a line end behind it.
    ///
    /// # Errors
    /// [`CliError::Usage`] if it is no text: it could control the terminal.
    pub fn text_value(&mut self, value: &[u8], content_type: &str) -> Result<(), CliError> {
        let shows = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
        if !std::str::from_utf8(value).is_ok_and(|text| text.chars().all(shows)) {
            let size = size(value.len() as u64);
            return Err(CliError::Usage(format!(
                "the value is not text ({content_type}, {size}), which a terminal cannot show; \
                 write it to a file: add `> FILE`"
            )));
        }
        self.raw(value)?;
        if value.is_empty() || value.ends_with(b"\n") { Ok(()) } else { self.raw(b"\n") }
    }

    /// Writes everything that is still buffered.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.to.flush().map_err(CliError::Output)
    }
}

/// Escapes the control characters of `text`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A table that is printed page by page. Columns never get narrower from one page to the next.
pub struct Grid {
    header: Vec<&'static str>,
    right: Vec<usize>,
    whole: Vec<usize>,
    widths: Vec<u16>,
}

impl Grid {
    /// Makes a table. Columns whose index is in `right` are aligned right, for numbers.
    #[must_use]
    pub fn new(header: Vec<&'static str>, right: &[usize]) -> Self {
        Self { header, right: right.to_vec(), whole: Vec::new(), widths: Vec::new() }
    }

    /// Never cuts these columns, because people copy from them.
    #[must_use]
    pub fn whole(mut self, columns: &[usize]) -> Self {
        self.whole = columns.to_vec();
        self
    }

    /// Formats the next rows, without a trailing line end. The first page begins with the header.
    /// Cuts cells so that lines have at most `room` columns, as far as that is possible.
    #[must_use]
    pub fn page(&mut self, rows: &[Vec<String>], room: Option<u16>) -> String {
        let columns = self.header.len();
        assert!(rows.iter().all(|row| row.len() == columns), "a row has a cell for each column");
        let first = self.widths.is_empty();
        let shown = |cell: &String| cut(printable(cell), CELL_CHARS_MAX);
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(shown).collect()).collect();
        self.widen(&rows);
        if let Some(room) = room {
            self.narrow(room);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        if first {
            table.add_row(self.header.clone());
        }
        for row in rows {
            let widths = self.widths.iter().map(|&width| usize::from(width));
            let cells = row.into_iter().zip(widths).map(|(cell, width)| cut(cell, width));
            table.add_row(cells.collect::<Vec<_>>());
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP));
            if self.right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let absolute = |&width: &u16| ColumnConstraint::Absolute(Width::Fixed(width + GAP));
        table.set_constraints(self.widths.iter().map(absolute));
        table.trim_fmt()
    }

    /// Makes each column wide enough for its header and its cells.
    fn widen(&mut self, rows: &[Vec<String>]) {
        if self.widths.is_empty() {
            self.widths = self.header.iter().map(|name| columns(name)).collect();
        }
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = columns(cell).max(*width);
            }
        }
    }

    /// Narrows the widest column, one step at a time, until a line fits. No column gets narrower
    /// than its header.
    fn narrow(&mut self, room: u16) {
        let gaps = usize::from(GAP) * self.widths.len().saturating_sub(1);
        loop {
            let taken: usize = self.widths.iter().map(|&width| usize::from(width)).sum();
            if taken + gaps <= usize::from(room) {
                return;
            }
            let (header, whole) = (&self.header, &self.whole);
            let may_shrink = |&(index, ref width): &(usize, &mut u16)| {
                let least = header.get(index).map_or(0, |name| columns(name));
                !whole.contains(&index) && **width > least
            };
            let widest = self.widths.iter_mut().enumerate().filter(may_shrink);
            match widest.max_by_key(|(_, width)| **width) {
                Some((_, width)) => *width -= 1,
                None => return,
            }
        }
    }
}

/// The columns that `text` takes on a terminal.
fn columns(text: &str) -> u16 {
    u16::try_from(text.width()).unwrap_or(u16::MAX)
}

/// Cuts `text` to at most `columns_max` columns; three dots mark that something is missing.
fn cut(text: String, columns_max: usize) -> String {
    if text.width() <= columns_max {
        return text;
    }
    let dots = "...".get(..columns_max.min(3)).unwrap_or_default();
    assert!(dots.len() <= columns_max, "the dots fit");
    let mut left = columns_max - dots.len();
    let mut start = String::new();
    for c in text.chars() {
        let Some(rest) = left.checked_sub(c.width().unwrap_or(0)) else { break };
        left = rest;
        start.push(c);
    }
    start + dots
}

/// Formats bytes for people: `812 B`, `1.5 KiB`, `16.0 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut unit = "B";
    let (mut whole, mut tenths) = (bytes, 0);
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            break;
        }
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = next;
    }
    if unit == "B" { format!("{whole} B") } else { format!("{whole}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[&str; 3]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect()
    }

    #[test]
    fn tables_align_without_borders_and_without_wrapping() {
        let long = "x".repeat(300);
        let mut grid = Grid::new(vec!["KEY", "SIZE", "TYPE"], &[1]);
        let text = grid.page(&rows(&[["a", "10 B", "t"], [&long, "7 B", "u v"]]), None);
        let pad = " ".repeat(297);
        let expected = format!("KEY{pad}  SIZE  TYPE\na  {pad}  10 B  t\n{long}   7 B  u v");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_second_page_keeps_the_columns_and_shows_no_header() {
        let mut grid = Grid::new(vec!["KEY", "SIZE", "TYPE"], &[1]);
        let _ = grid.page(&rows(&[["four", "1", "t"]]), None);
        assert_eq!(grid.page(&rows(&[["a", "2", "t"]]), None), "a        2  t");
    }

    #[test]
    fn a_table_is_cut_to_the_terminal() {
        let key = "k".repeat(36);
        let value = "日本".repeat(30);
        let mut grid = Grid::new(vec!["KEY", "SIZE", "VALUE"], &[1]).whole(&[0]);
        let text = grid.page(&rows(&[[&key, "10 B", &value], ["a", "1 B", "x"]]), Some(60));
        for line in text.lines() {
            assert!(line.width() <= 60, "{} columns: {line}", line.width());
        }
        assert!(text.contains(&key) && text.contains("日本...") && text.contains("SIZE"), "{text}");
        // the next page keeps the width, and without room enough nothing is lost but the fit
        assert!(grid.page(&rows(&[["b", "2 B", &value]]), Some(60)).width() <= 60);
        let mut grid = Grid::new(vec!["KEY", "SIZE", "VALUE"], &[1]).whole(&[0]);
        assert!(grid.page(&rows(&[[&key, "1 B", "long value"]]), Some(10)).contains(&key));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mü\n\u{9b}"), "a\\u{1b}[31mü\\n\\u{9b}");
        let mut grid = Grid::new(vec!["A", "B", "C"], &[]);
        assert_eq!(grid.page(&rows(&[["a\nb", "", "c"]]), None).lines().count(), 2);
    }

    #[test]
    fn numbers_are_formatted_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (16 << 20, "16.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn json_is_printed_as_one_line() {
        let mut bytes = Vec::new();
        let mut out = Output::new(&mut bytes, Format::Json);
        out.json(b"{\"data\":\n [1,\r\n 2]}\n").unwrap();
        assert_eq!(bytes, b"{\"data\":  [1,   2]}\n");
    }
}
