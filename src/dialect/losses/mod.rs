//! Collects the fields that a request loses on its way into a dialect, and explains each one from a
//! table.

mod rows;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashSet};

use crate::{
    base::json::reader::JsonRef,
    ir::{
        block::{Block, BlockKind},
        op::Dialect,
        tool::HostedKind,
    },
};

/// Maximum length of a loss's name; clients choose part of some names.
const MAX_NAME_CHARS: usize = 80;

/// A field that was left out because the upstream's dialect cannot express it, named as in the
/// client's request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loss(pub Cow<'static, str>);

/// Fields that were left out, each named once, in the order in which the writer found them.
#[derive(Debug, Default)]
pub(super) struct Losses {
    names: Vec<Loss>,
    /// The same names: a client can send any number of fields.
    index: HashSet<Loss>,
}

impl Losses {
    /// Adds a field's name. The client's part of it is cut and restricted to characters that a
    /// header can contain.
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
        let loss = Loss(field.into_owned().into());
        if self.index.insert(loss.clone()) {
            self.names.push(loss);
        }
    }

    pub(super) fn when(&mut self, lost: bool, field: &str) {
        if lost {
            self.add(field);
        }
    }

    /// Adds a tool that another provider runs on its side.
    pub(super) fn add_hosted_tool(&mut self, kind: HostedKind) {
        self.add(match kind {
            HostedKind::WebSearch => "tools.web_search",
            HostedKind::CodeExecution => "tools.code_execution",
            HostedKind::UrlContext => "tools.url_context",
            HostedKind::Other => "tools.hosted",
        });
    }

    /// Adds a tool of another dialect under the name of its type.
    pub(super) fn add_foreign_tool(&mut self, tool: JsonRef<'_>) {
        self.add(format!("tools.{}", tool.string_at("type").as_deref().unwrap_or("hosted")));
    }

    /// Adds a block of another dialect under the name of its type.
    pub(super) fn add_foreign_block(&mut self, block: JsonRef<'_>) {
        self.add(format!("messages.{}", block.string_at("type").as_deref().unwrap_or("foreign")));
    }

    /// Whether `dialect` cannot carry anything of a message, because it holds only blocks of other
    /// dialects; then they are added as losses. The provider would refuse the empty message.
    pub(super) fn add_if_all_foreign(&mut self, dialect: Dialect, blocks: &[&Block]) -> bool {
        let foreign = |block: &&&Block| match &block.kind {
            BlockKind::Foreign { dialect: from, .. } => *from != dialect,
            _ => false,
        };
        if blocks.is_empty() || !blocks.iter().all(|block| foreign(&block)) {
            return false;
        }
        for block in blocks {
            if let BlockKind::Foreign { body, .. } = &block.kind {
                self.add_foreign_block(body.json());
            }
        }
        true
    }

    pub(super) fn into_vec(self) -> Vec<Loss> {
        self.names
    }
}

/// One row of the table of losses.
#[derive(Debug)]
pub struct LossRow {
    /// The loss's name; a last part in angle brackets stands for any name that the client chose.
    pub name: &'static str,
    /// The dialects into which a request loses this field.
    pub dialects: &'static [Dialect],
    /// The reason or the replacement, as one sentence without its full stop.
    pub explanation: &'static str,
}

impl LossRow {
    /// Returns whether the last part of the name comes from the client.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.name.ends_with('>')
    }

    /// Returns the prefix that all names of a pattern share.
    fn prefix(&self) -> &str {
        self.name.split('<').next().unwrap_or(self.name)
    }
}

/// Returns the row that explains a loss; the most specific one if several match.
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

/// Returns the whole table in Markdown, with one section for each dialect.
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
