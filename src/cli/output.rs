//! What commands print: text on standard output, progress and remarks on stderr, tables of aligned columns.
//!
//! A reader that has seen enough (`| head`) ends the command without a complaint.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use super::CliError;
use crate::shell::shown;

/// Between two columns.
const GAP: usize = 2;

/// Prints text and a line end to standard output.
pub(super) fn print(text: impl Display) -> Result<(), CliError> {
    writeln!(io::stdout(), "{text}").map_err(CliError::Output)
}

/// Prints a line to stderr; where that is closed there is nobody left to tell.
pub(super) fn remark(text: impl Display) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Rows in columns, printed a page at a time: a column is as wide as its widest cell so far.
#[derive(Debug)]
pub(super) struct Columns<const N: usize> {
    headings: Option<[&'static str; N]>,
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    pub(super) fn new(headings: [&'static str; N]) -> Self {
        Self { headings: Some(headings), widths: [0; N] }
    }

    /// The rows as lines without a last line end, the headings before the first; none when there are no rows.
    pub(super) fn lines(&mut self, rows: Vec<[String; N]>) -> Option<String> {
        if rows.is_empty() {
            return None;
        }
        let headings = self.headings.take().map(|headings| headings.map(str::to_owned));
        let rows: Vec<[String; N]> = headings.into_iter().chain(rows).map(|row| row.map(|cell| shown(&cell))).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let lines: Vec<String> = rows.iter().map(|row| self.line(row)).collect();
        Some(lines.join("\n"))
    }

    fn line(&self, row: &[String; N]) -> String {
        let mut line = String::new();
        for (width, cell) in self.widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Answers of one kind, printed as they come: in columns, or as JSON, one a line.
#[derive(Debug)]
pub(super) struct Listing<const N: usize> {
    json: bool,
    columns: Columns<N>,
}

impl<const N: usize> Listing<N> {
    pub(super) fn new(json: bool, headings: [&'static str; N]) -> Self {
        Self { json, columns: Columns::new(headings) }
    }

    /// Prints a page of answers; `cells` says what stands in the columns.
    pub(super) fn print<T: Serialize>(
        &mut self,
        answers: &[T],
        cells: impl Fn(&T) -> [String; N],
    ) -> Result<(), CliError> {
        if self.json {
            return answers.iter().try_for_each(|answer| print(serde_json::json!(answer)));
        }
        self.columns.lines(answers.iter().map(cells).collect()).map_or(Ok(()), print)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_headings_come_once() {
        let mut columns = Columns::new(["A", "LONG"]);
        assert_eq!(columns.lines(vec![]), None);
        let first = columns.lines(vec![["wide one".into(), "x".into()], ["ü".into(), String::new()]]);
        assert_eq!(first.as_deref(), Some("A         LONG\nwide one  x\nü"));
        let second = columns.lines(vec![["b\n".into(), "y".into()]]);
        assert_eq!(second.as_deref(), Some("b\\n       y"));
    }
}
