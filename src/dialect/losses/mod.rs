//! What a request loses on its way into a dialect: the collector that writers fill, and the table
//! that explains each name.

mod rows;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::{dialect::Loss, ir::op::Dialect};

/// Names longer than this are cut: clients make up some of them.
const MAX_NAME_CHARS: usize = 80;

/// Fields that were left out, each named once, in the order in which they were missed.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Loss>);

impl Losses {
    /// Names a field. What clients made up of it is cut to what a header can tell.
    pub(super) fn add(&mut self, field: impl AsRef<str>) {
        let plain = |b: u8| b.is_ascii_graphic() && b != b',';
        let field = field.as_ref();
        let field: Cow<'_, str> = if field.len() <= MAX_NAME_CHARS && field.bytes().all(plain) {
            field.into()
        } else {
            field
                .chars()
                .filter(|c| u8::try_from(*c).is_ok_and(plain))
                .take(MAX_NAME_CHARS)
                .collect()
        };
        if self.0.iter().all(|loss| loss.0 != field) {
            self.0.push(Loss(field.into_owned().into()));
        }
    }

    pub(super) fn when(&mut self, lost: bool, field: &str) {
        if lost {
            self.add(field);
        }
    }

    pub(super) fn into_vec(self) -> Vec<Loss> {
        self.0
    }
}

/// One line of the table.
#[derive(Debug)]
pub struct LossRow {
    /// The loss's name; a last part in angle brackets stands for whatever the client said there.
    pub name: &'static str,
    /// On the way into which dialects.
    pub dialects: &'static [Dialect],
    /// Why, or what happens instead: one sentence without its full stop.
    pub explanation: &'static str,
}

impl LossRow {
    /// Whether the name's last part is the client's own.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.name.ends_with('>')
    }

    /// What a pattern's names begin with.
    fn prefix(&self) -> &str {
        self.name.split('<').next().unwrap_or(self.name)
    }
}

/// The line that explains a loss; the more exact one where several do.
#[must_use]
pub fn find_row(name: &str, to: Dialect) -> Option<&'static LossRow> {
    let here = || rows::CHAT_ROWS.iter().filter(|row| row.dialects.contains(&to));
    let begun = |row: &&LossRow| {
        row.is_pattern() && name.strip_prefix(row.prefix()).is_some_and(|rest| !rest.is_empty())
    };
    here()
        .find(|row| row.name == name)
        .or_else(|| here().filter(begun).max_by_key(|row| row.prefix().len()))
}

/// The whole table in Markdown, a part for each dialect.
#[must_use]
pub fn to_markdown() -> String {
    let mut out = String::new();
    let mut table = |title: &str, rows: &mut dyn Iterator<Item = &'static LossRow>| {
        out.push_str(&format!(
            "### {title}\n\n| loss | why, or what happens instead |\n| --- | --- |\n"
        ));
        rows.for_each(|row| out.push_str(&format!("| `{}` | {} |\n", row.name, row.explanation)));
        out.push('\n');
    };
    for dialect in Dialect::ALL {
        table(
            &format!("To `{dialect}`"),
            &mut rows::CHAT_ROWS.iter().filter(|row| row.dialects.contains(&dialect)),
        );
    }
    table(
        "Embeddings and reranking, where the upstream has another form",
        &mut rows::OP_ROWS.iter(),
    );
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}
