//! Where reasoning stands in this dialect: one text in one of several places, and
//! `reasoning_details` with their seals.

use std::borrow::Cow;

use crate::{
    base::{json::JsonRef, raw::RawJson, write},
    ir::{
        block::{ReasoningSignature, SignatureKind},
        op::Dialect,
    },
};

/// Plain fields that hold reasoning, the likeliest first; providers send the same words in several.
pub(super) const FIELDS: [&str; 3] = ["reasoning_content", "reasoning", "reasoning_text"];

/// Details beyond this many bytes are not kept for their seal.
const MOST: usize = 4 << 20;

/// Text, or the texts of a list of parts.
pub(super) fn plain(value: JsonRef<'_>) -> Option<Cow<'_, str>> {
    if value.is_array() {
        let text: String = value
            .items()
            .filter_map(|part| part.str().or_else(|| part.get("text")?.str()))
            .collect();
        return Some(text.into());
    }
    value.str().or_else(|| value.get("text")?.str())
}

/// The words in `reasoning_details`.
pub(super) fn words(details: JsonRef<'_>) -> String {
    details
        .items()
        .filter_map(|item| item.get("text").or_else(|| item.get("summary")))
        .filter_map(JsonRef::str)
        .collect()
}

/// Whether `reasoning_details` hold something that only their provider can read or check.
pub(super) fn sealed(details: JsonRef<'_>) -> bool {
    details.items().any(|item| {
        ["signature", "data"].iter().any(|key| item.get(key).is_some_and(|seal| !seal.is_blank()))
    })
}

/// The proof that an array of details is.
pub(super) fn proof(details: &str) -> ReasoningSignature {
    ReasoningSignature {
        dialect: Dialect::Openai,
        kind: SignatureKind::Encrypted,
        value: details.to_owned(),
        id: None,
    }
}

/// `extra_content` beside a text or a call: what its provider wants back with it.
pub(super) fn beside(object: JsonRef<'_>) -> Option<ReasoningSignature> {
    let extra = object.get("extra_content").filter(|extra| !extra.is_blank())?;
    Some(ReasoningSignature {
        dialect: Dialect::Openai,
        kind: SignatureKind::Signature,
        value: extra.text().to_owned(),
        id: None,
    })
}

/// A proof of ours that has the form of [`beside`].
pub(super) fn as_beside(proof: Option<&ReasoningSignature>) -> Option<RawJson> {
    let proof = proof.filter(|proof| {
        proof.dialect == Dialect::Openai && proof.kind == SignatureKind::Signature
    })?;
    RawJson::parse(&proof.value)
}

/// A proof of ours that is an array of details.
pub(super) fn as_details(proof: Option<&ReasoningSignature>) -> Option<RawJson> {
    let proof = proof.filter(|proof| {
        proof.dialect == Dialect::Openai && proof.kind == SignatureKind::Encrypted
    })?;
    RawJson::parse(&proof.value).filter(|raw| raw.json().is_array())
}

/// Several arrays as one; a single one stays as it is, byte for byte.
pub(super) fn joined(details: &[RawJson]) -> Option<RawJson> {
    match details {
        [] => None,
        [one] => Some(one.clone()),
        several => RawJson::parse(&write::array(|a| {
            for item in several.iter().flat_map(|details| details.json().items()) {
                a.raw_text(item.text());
            }
        })),
    }
}

/// `reasoning_details` as they come in a stream: pieces of one item are put together.
#[derive(Debug, Default)]
pub(super) struct Details {
    items: Vec<Item>,
    /// The array, where there was but one.
    only: Option<RawJson>,
    arrays: u32,
    bytes: usize,
    sealed: bool,
}

#[derive(Debug)]
struct Item {
    index: Option<u64>,
    kind: String,
    /// The array it was last told in; an array tells no item twice.
    array: u32,
    members: Vec<(Box<str>, Member)>,
}

#[derive(Debug)]
enum Member {
    Grows(String),
    Told(RawJson),
}

impl Details {
    pub(super) fn feed(&mut self, details: JsonRef<'_>) {
        self.arrays = self.arrays.saturating_add(1);
        self.only = (self.arrays == 1).then(|| RawJson::from_json(details));
        for part in details.items().filter(|part| part.is_object()) {
            self.bytes = self.bytes.saturating_add(part.text().len());
            if self.bytes > MOST {
                self.items.clear();
                return;
            }
            self.piece(part);
        }
    }

    fn piece(&mut self, part: JsonRef<'_>) {
        let index = part.get("index").and_then(JsonRef::u64);
        let kind = part.get("type").and_then(JsonRef::str).unwrap_or_default();
        // Sealed data comes whole; a second one is another item.
        let data = part.get("data").is_some_and(|data| !data.is_blank());
        let same = |item: &Item| {
            item.kind == kind
                && item.index == index
                && item.array != self.arrays
                && !(data && item.members.iter().any(|(key, _)| **key == *"data"))
        };
        let at = self
            .items
            .iter()
            .rposition(same)
            .filter(|at| index.is_some() || at + 1 == self.items.len());
        let at = at.unwrap_or_else(|| {
            self.items.push(Item { index, kind: kind.into_owned(), array: 0, members: Vec::new() });
            self.items.len() - 1
        });
        let item = &mut self.items[at];
        item.array = self.arrays;
        for (key, value) in part.members() {
            let text =
                value.str().filter(|_| matches!(key, "text" | "summary" | "data" | "signature"));
            self.sealed |= matches!(key, "data" | "signature")
                && text.as_ref().is_some_and(|text| !text.is_empty());
            let known =
                item.members.iter_mut().find(|(name, _)| **name == *key).map(|(_, member)| member);
            match (known, text) {
                (Some(Member::Grows(all)), Some(text)) => all.push_str(&text),
                (Some(_), None) if value.kind() == "null" => {}
                (Some(member), None) => *member = Member::Told(RawJson::from_json(value)),
                (Some(member), Some(text)) => *member = Member::Grows(text.into_owned()),
                (None, Some(text)) => {
                    item.members.push((key.into(), Member::Grows(text.into_owned())))
                }
                (None, None) => {
                    item.members.push((key.into(), Member::Told(RawJson::from_json(value))))
                }
            }
        }
    }

    /// The proof that has come together, if there is a seal; what follows begins anew.
    pub(super) fn take(&mut self) -> Option<ReasoningSignature> {
        if self.arrays == 0 {
            return None;
        }
        let whole = std::mem::take(self);
        if let Some(only) = whole.only.filter(|_| whole.sealed) {
            return Some(proof(only.text()));
        }
        (whole.sealed && !whole.items.is_empty()).then(|| {
            proof(&write::array(|a| {
                for item in &whole.items {
                    a.object(|o| {
                        for (key, member) in &item.members {
                            match member {
                                Member::Grows(text) => o.str(key, text),
                                Member::Told(raw) => o.raw(key, raw),
                            };
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

    fn json(text: &str) -> RawJson {
        RawJson::parse(text).expect("json")
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
            json(&proof.value).to_value(),
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
