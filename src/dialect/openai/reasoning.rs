//! Where reasoning stands in this dialect: one text in one of several places, and `reasoning_details` with their seals.

use std::borrow::Cow;

use crate::{
    base::{json::Json, raw::Raw, write},
    ir::{
        block::{Proof, ProofKind},
        op::Dialect,
    },
};

/// Plain fields that hold reasoning, the likeliest first; providers send the same words in several.
pub(super) const FIELDS: [&str; 3] = ["reasoning_content", "reasoning", "reasoning_text"];

/// Details beyond this many bytes are not kept for their seal.
const MOST: usize = 4 << 20;

/// Text, or the texts of a list of parts.
pub(super) fn plain(value: Json<'_>) -> Option<Cow<'_, str>> {
    if value.is_array() {
        let text: String = value.items().filter_map(|part| part.str().or_else(|| part.get("text")?.str())).collect();
        return Some(text.into());
    }
    value.str().or_else(|| value.get("text")?.str())
}

/// The words in `reasoning_details`.
pub(super) fn words(details: Json<'_>) -> String {
    details.items().filter_map(|item| item.get("text").or_else(|| item.get("summary"))).filter_map(Json::str).collect()
}

/// Whether `reasoning_details` hold something that only their provider can read or check.
pub(super) fn sealed(details: Json<'_>) -> bool {
    details.items().any(|item| ["signature", "data"].iter().any(|key| item.get(key).is_some_and(|seal| !seal.is_blank())))
}

/// The proof that an array of details is.
pub(super) fn proof(details: &str) -> Proof {
    Proof { dialect: Dialect::Openai, kind: ProofKind::Encrypted, value: details.to_owned(), id: None }
}

/// `extra_content` beside a text or a call: what its provider wants back with it.
pub(super) fn beside(object: Json<'_>) -> Option<Proof> {
    let extra = object.get("extra_content").filter(|extra| !extra.is_blank())?;
    Some(Proof { dialect: Dialect::Openai, kind: ProofKind::Signature, value: extra.text().to_owned(), id: None })
}

/// A proof of ours that has the form of [`beside`].
pub(super) fn as_beside(proof: Option<&Proof>) -> Option<Raw> {
    let proof = proof.filter(|proof| proof.dialect == Dialect::Openai && proof.kind == ProofKind::Signature)?;
    Raw::parse(&proof.value)
}

/// A proof of ours that is an array of details.
pub(super) fn as_details(proof: Option<&Proof>) -> Option<Raw> {
    let proof = proof.filter(|proof| proof.dialect == Dialect::Openai && proof.kind == ProofKind::Encrypted)?;
    Raw::parse(&proof.value).filter(|raw| raw.json().is_array())
}

/// `reasoning_details` as they come in a stream: pieces of one item are put together.
#[derive(Debug, Default)]
pub(super) struct Details {
    items: Vec<Item>,
    bytes: usize,
    sealed: bool,
}

#[derive(Debug, Default)]
struct Item {
    index: Option<u64>,
    kind: String,
    grows: Vec<(&'static str, String)>,
    rest: Vec<(Box<str>, Raw)>,
}

impl Details {
    pub(super) fn feed(&mut self, details: Json<'_>) {
        for part in details.items().filter(|part| part.is_object()) {
            self.bytes += part.text().len();
            if self.bytes > MOST {
                self.items.clear();
                return;
            }
            self.piece(part);
        }
    }

    fn piece(&mut self, part: Json<'_>) {
        let index = part.get("index").and_then(Json::u64);
        let kind = part.get("type").and_then(Json::str).unwrap_or_default();
        let data = part.get("data").is_some_and(|data| !data.is_blank());
        // Sealed data comes whole; a second one is another item.
        let same = |item: &Item| {
            item.kind == kind && item.index == index && !(data && item.grows.iter().any(|(key, text)| *key == "data" && !text.is_empty()))
        };
        let at = self.items.iter().rposition(same).filter(|at| index.is_some() || at + 1 == self.items.len());
        let at = at.unwrap_or_else(|| {
            self.items.push(Item { index, kind: kind.into_owned(), ..Item::default() });
            self.items.len() - 1
        });
        let item = &mut self.items[at];
        for (key, value) in part.members().filter(|(_, value)| value.kind() != "null") {
            let grown = ["text", "summary", "data", "signature"].into_iter().find(|name| *name == key);
            match (grown, value.str()) {
                (Some(name), Some(text)) => {
                    self.sealed |= matches!(name, "data" | "signature") && !text.is_empty();
                    match item.grows.iter_mut().find(|(key, _)| *key == name) {
                        Some((_, all)) => all.push_str(&text),
                        None => item.grows.push((name, text.into_owned())),
                    }
                }
                _ => match item.rest.iter_mut().find(|(name, _)| **name == *key) {
                    Some((_, last)) => *last = Raw::of(value),
                    None => item.rest.push((key.into(), Raw::of(value))),
                },
            }
        }
    }

    /// The proof that has come together, if there is a seal; what follows begins anew.
    pub(super) fn take(&mut self) -> Option<Proof> {
        let whole = std::mem::take(self);
        (whole.sealed && !whole.items.is_empty()).then(|| {
            proof(&write::array(|a| {
                for item in &whole.items {
                    a.object(|o| {
                        for (key, value) in &item.rest {
                            o.raw(key, value);
                        }
                        for (key, text) in &item.grows {
                            o.str(key, text);
                        }
                    });
                }
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Raw {
        Raw::parse(text).expect("json")
    }

    #[test]
    fn pieces_of_details_become_one_sealed_array() {
        let mut details = Details::default();
        for piece in [
            r#"[{"type":"reasoning.text","text":"a\"","signature":"","format":"f","index":0}]"#,
            r#"[{"type":"reasoning.text","text":"b","format":"f","index":0}]"#,
            r#"[{"type":"reasoning.text","signature":"S+/=","index":0},{"type":"reasoning.encrypted","data":"D","id":"x","index":0}]"#,
            r#"[{"type":"reasoning.encrypted","data":"E","id":"y","index":0}]"#,
        ] {
            details.feed(json(piece).json());
        }
        let proof = details.take().expect("sealed");
        assert_eq!(
            json(&proof.value).value(),
            serde_json::json!([
                {"type":"reasoning.text","format":"f","index":0,"text":"a\"b","signature":"S+/="},
                {"type":"reasoning.encrypted","id":"x","index":0,"data":"D"},
                {"type":"reasoning.encrypted","id":"y","index":0,"data":"E"},
            ])
        );
        assert_eq!(details.take(), None);
        details.feed(json(r#"[{"type":"reasoning.text","text":"only words"}]"#).json());
        assert_eq!(details.take(), None);
    }
}
