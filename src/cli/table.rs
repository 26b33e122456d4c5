//! Tables of text, aligned by the width the terminal gives each character.

use unicode_width::UnicodeWidthStr;

/// Rows below a header; columns are three blanks apart, as docker has them.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

const GAP: usize = 3;

impl Table {
    /// A table with these column titles.
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(ToString::to_string).collect()] }
    }

    /// A table without titles.
    pub(crate) fn bare() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(one_line).collect());
    }

    /// The text, each line ended by a newline and without blanks before it.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &[String], column: usize| row.get(column).map_or(0, |text| text.width());
        let widths: Vec<usize> =
            (0..columns).map(|column| self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, value) in row.iter().enumerate() {
                line += value;
                line.extend(std::iter::repeat_n(' ', widths[column] - value.width() + GAP));
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A cell is one line: control characters (a command may hold any) would break the table or paint the terminal.
fn one_line(cell: String) -> String {
    if cell.contains(char::is_control) { cell.replace(char::is_control, " ") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_display_width() {
        let mut table = Table::new(&["NAME", "STATUS"]);
        table.row(["網路".into(), "up".into()]);
        table.row(["abcdef".into(), String::new()]);
        assert_eq!(table.render(), "NAME     STATUS\n網路     up\nabcdef\n");
    }

    #[test]
    fn a_cell_stays_on_its_line() {
        let mut table = Table::bare();
        table.row(["a\n\u{1b}[2J".into()]);
        assert_eq!(table.render(), "a  [2J\n");
    }
}
