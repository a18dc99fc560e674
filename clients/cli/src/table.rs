//! Columns that stand under each other.

use std::fmt::Write as _;

#[derive(Debug, Default)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Names and values, for a single thing.
    pub fn of_fields() -> Self {
        Self::default()
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    /// A field, unless there is nothing to say.
    pub fn field(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.row([name.to_owned(), value]);
        }
    }

    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(self.head.len());
        let mut widths = vec![0; columns];
        let measure = |widths: &mut Vec<usize>, cells: &mut dyn Iterator<Item = usize>| {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell);
            }
        };
        measure(&mut widths, &mut self.head.iter().map(|cell| cell.chars().count()));
        for row in &self.rows {
            measure(&mut widths, &mut row.iter().map(|cell| cell.chars().count()));
        }
        let mut text = String::new();
        if !self.head.is_empty() {
            line(&mut text, &widths, self.head.iter().copied());
        }
        for row in &self.rows {
            line(&mut text, &widths, row.iter().map(String::as_str));
        }
        text
    }
}

fn line<'a>(text: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let begin = text.len();
    for (width, cell) in widths.iter().zip(cells) {
        // Writing to a String does not fail.
        let _ = write!(text, "{cell:<width$}  ");
    }
    text.truncate(begin + text[begin..].trim_end().len());
    text.push('\n');
}

/// What others wrote must not steer the terminal.
fn plain(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_clean() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["é".to_owned(), "x".to_owned()]);
        table.row(["longer".to_owned(), "\u{1b}[31mred".to_owned()]);
        table.row(["last".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME    STATE\né       x\nlonger   [31mred\nlast\n");
    }
}
