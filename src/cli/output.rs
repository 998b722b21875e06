//! Output of commands: lines, bytes, JSON, tables, and numbers for people.
//!
//! Escapes control characters in text from a node, so that a key cannot control the terminal. Never
//! wraps tables. Must not know what it prints.

use std::fmt::Write as _;
use std::io::Write;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::error::CliError;

/// Longer cells are cut: longer than any key, and far below what a column width (`u16`) can count.
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

/// Where results go, and in which format.
pub struct Output<'a> {
    to: &'a mut dyn Write,
    format: Format,
}

impl<'a> Output<'a> {
    /// Prints to `to`.
    pub fn new(to: &'a mut dyn Write, format: Format) -> Self {
        Self { to, format }
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
    widths: Vec<u16>,
}

impl Grid {
    /// Makes a table. Columns whose index is in `right` are aligned right, for numbers.
    #[must_use]
    pub fn new(header: Vec<&'static str>, right: &[usize]) -> Self {
        Self { header, right: right.to_vec(), widths: Vec::new() }
    }

    /// Formats the next rows, without a trailing line end. The first page begins with the header.
    #[must_use]
    pub fn page(&mut self, rows: Vec<Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        if self.widths.is_empty() {
            table.add_row(self.header.clone());
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| cut(printable(cell))).collect::<Vec<_>>());
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP));
            if self.right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let now = table.column_max_content_widths();
        let before = self.widths.iter().copied().chain(std::iter::repeat(0));
        self.widths = now.into_iter().zip(before).map(|(now, before)| now.max(before)).collect();
        let absolute = |&width: &u16| ColumnConstraint::Absolute(Width::Fixed(width + GAP));
        table.set_constraints(self.widths.iter().map(absolute));
        table.trim_fmt()
    }
}

fn cut(cell: String) -> String {
    match cell.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}...", cell.get(..end).unwrap_or_default()),
        None => cell,
    }
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
        let text = grid.page(rows(&[["a", "10 B", "t"], [&long, "7 B", "u v"]]));
        let pad = " ".repeat(297);
        let expected = format!("KEY{pad}  SIZE  TYPE\na  {pad}  10 B  t\n{long}   7 B  u v");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_second_page_keeps_the_columns_and_shows_no_header() {
        let mut grid = Grid::new(vec!["KEY", "SIZE", "TYPE"], &[1]);
        let _ = grid.page(rows(&[["four", "1", "t"]]));
        assert_eq!(grid.page(rows(&[["a", "2", "t"]])), "a        2  t");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mü\n\u{9b}"), "a\\u{1b}[31mü\\n\\u{9b}");
        let mut grid = Grid::new(vec!["A", "B", "C"], &[]);
        assert_eq!(grid.page(rows(&[["a\nb", "", "c"]])).lines().count(), 2);
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
