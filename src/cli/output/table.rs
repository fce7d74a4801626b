//! Text tables: each column is as wide as its widest cell, control characters are removed, and no
//! cell is truncated.

use unicode_width::UnicodeWidthStr;

use crate::base::sanitize;
use crate::cli::output::{Styler, TextRole};

/// One cell: text and its role.
#[derive(Clone, Debug)]
pub struct TableCell(String, TextRole);

impl TableCell {
    /// Creates a cell with a role.
    pub fn new(role: TextRole, text: impl AsRef<str>) -> Self {
        Self(sanitize::clean(text.as_ref()).into_owned(), role)
    }
}

impl<T: AsRef<str>> From<T> for TableCell {
    fn from(text: T) -> Self {
        Self::new(TextRole::Plain, text)
    }
}

/// Rows below a header.
#[derive(Debug)]
pub struct TextTable {
    head: Vec<&'static str>,
    rows: Vec<Vec<TableCell>>,
}

impl TextTable {
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<TableCell>) {
        self.rows.push(cells);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines. A column that is empty in every row is omitted.
    #[must_use]
    pub fn render(&self, styler: Styler) -> String {
        let columns: Vec<(usize, usize)> = (0..self.head.len())
            .filter_map(|at| {
                let widest = self
                    .rows
                    .iter()
                    .filter_map(|row| row.get(at))
                    .map(|cell| cell.0.width())
                    .max()?;
                (widest > 0).then(|| (at, widest.max(self.head[at].width())))
            })
            .collect();
        let head: Vec<TableCell> =
            self.head.iter().map(|text| TableCell::new(TextRole::Dim, text)).collect();
        let mut out = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            let mut padding = 0;
            for &(at, width) in &columns {
                let Some(TableCell(text, role)) = row.get(at) else { continue };
                line.extend(std::iter::repeat_n(' ', padding));
                line.push_str(&styler.style(*role, text));
                padding = (width + 2).saturating_sub(text.width());
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_with_wide_characters_and_escapes_are_removed() {
        let mut table = TextTable::new(&["NAME", "EMPTY", "STATE"]);
        table.row(vec!["通义".into(), "".into(), "ok".into()]);
        table.row(vec![
            "a\u{1b}[31mlong-one".into(),
            "".into(),
            TableCell::new(TextRole::Error, "open"),
        ]);

        let shown = table.render(Styler::plain());

        let rows: Vec<&str> = shown.lines().collect();
        assert_eq!(rows.len(), 3);
        assert!(
            rows[0].starts_with("NAME") && rows[0].ends_with("STATE") && !rows[0].contains("EMPTY"),
            "{shown}"
        );
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        let columns: Vec<usize> = ["STATE", "ok", "open"]
            .iter()
            .zip(&rows)
            .map(|(word, row)| row[..row.find(word).unwrap()].width())
            .collect();
        assert!(columns.iter().all(|c| *c == columns[0]), "{shown}");
    }
}
