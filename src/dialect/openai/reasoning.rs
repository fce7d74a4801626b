//! Reads and writes reasoning: one text in one of several fields, and `reasoning_details` with
//! their signatures.

use std::borrow::Cow;

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer},
    ir::{
        block::{ReasoningSignature, SignatureKind},
        op::Dialect,
    },
};

/// Plain fields that contain reasoning, the most common first; providers send the same text in
/// several.
pub(super) const TEXT_FIELDS: [&str; 3] = ["reasoning_content", "reasoning", "reasoning_text"];

/// Maximum size of details that are stored for their signature.
const MAX_DETAILS_BYTES: usize = 4 << 20;

/// Returns a text, or the joined texts of a list of parts.
pub(super) fn field_text(value: JsonRef<'_>) -> Option<Cow<'_, str>> {
    if value.is_array() {
        let text: String = value
            .items()
            .filter_map(|part| part.str().or_else(|| part.get("text")?.str()))
            .collect();
        return Some(text.into());
    }
    value.str().or_else(|| value.get("text")?.str())
}

/// Returns the text in `reasoning_details`.
pub(super) fn details_text(details: JsonRef<'_>) -> String {
    details
        .items()
        .filter_map(|item| item.get("text").or_else(|| item.get("summary")))
        .filter_map(JsonRef::str)
        .collect()
}

/// Whether `reasoning_details` contain something that only their provider can read or verify.
pub(super) fn has_seal(details: JsonRef<'_>) -> bool {
    details.items().any(|item| {
        ["signature", "data"].iter().any(|key| item.get(key).is_some_and(|seal| !seal.is_blank()))
    })
}

/// Stores an array of details as a signature.
pub(super) fn details_signature(details: &str) -> ReasoningSignature {
    ReasoningSignature {
        dialect: Dialect::Openai,
        kind: SignatureKind::Encrypted,
        value: details.to_owned(),
        id: None,
    }
}

/// Reads the `extra_content` of a text or a call, which its provider expects back unchanged.
pub(super) fn read_extra_content(object: JsonRef<'_>) -> Option<ReasoningSignature> {
    let extra = object.get("extra_content").filter(|extra| !extra.is_blank())?;
    Some(ReasoningSignature {
        dialect: Dialect::Openai,
        kind: SignatureKind::Signature,
        value: extra.text().to_owned(),
        id: None,
    })
}

/// Returns a signature of this dialect that [`read_extra_content`] has read.
pub(super) fn to_extra_content(proof: Option<&ReasoningSignature>) -> Option<RawJson> {
    let proof = proof.filter(|proof| {
        proof.dialect == Dialect::Openai && proof.kind == SignatureKind::Signature
    })?;
    RawJson::parse(&proof.value)
}

/// Returns a signature of this dialect that is an array of details.
pub(super) fn to_details(proof: Option<&ReasoningSignature>) -> Option<RawJson> {
    let proof = proof.filter(|proof| {
        proof.dialect == Dialect::Openai && proof.kind == SignatureKind::Encrypted
    })?;
    RawJson::parse(&proof.value).filter(|raw| raw.json().is_array())
}

/// Joins several arrays into one; a single array stays unchanged, byte for byte.
pub(super) fn join_details(details: &[RawJson]) -> Option<RawJson> {
    match details {
        [] => None,
        [one] => Some(one.clone()),
        several => RawJson::parse(&writer::array(|a| {
            for item in several.iter().flat_map(|details| details.json().items()) {
                a.raw_text(item.text());
            }
        })),
    }
}

/// Assembles the `reasoning_details` of a stream: joins the pieces of each item.
#[derive(Debug, Default)]
pub(super) struct ReasoningDetails {
    items: Vec<DetailItem>,
    /// The only array, if there was exactly one.
    single_array: Option<RawJson>,
    array_count: u32,
    byte_count: usize,
    has_seal: bool,
}

#[derive(Debug)]
struct DetailItem {
    index: Option<u64>,
    kind: String,
    /// The number of the last array with a piece of this item; an array has at most one piece of an
    /// item.
    last_array: u32,
    members: Vec<(Box<str>, DetailMember)>,
}

#[derive(Debug)]
enum DetailMember {
    Text(String),
    Json(RawJson),
}

impl ReasoningDetails {
    pub(super) fn feed(&mut self, details: JsonRef<'_>) {
        self.array_count = self.array_count.saturating_add(1);
        self.single_array = (self.array_count == 1).then(|| RawJson::from_json(details));
        for part in details.items().filter(|part| part.is_object()) {
            self.byte_count = self.byte_count.saturating_add(part.text().len());
            if self.byte_count > MAX_DETAILS_BYTES {
                self.items.clear();
                return;
            }
            self.merge_part(part);
        }
    }

    fn merge_part(&mut self, part: JsonRef<'_>) {
        let index = part.get("index").and_then(JsonRef::u64);
        let kind = part.get("type").and_then(JsonRef::str).unwrap_or_default();
        // Encrypted data arrives whole, so a second one is another item.
        let data = part.get("data").is_some_and(|data| !data.is_blank());
        let same = |item: &DetailItem| {
            item.kind == kind
                && item.index == index
                && item.last_array != self.array_count
                && !(data && item.members.iter().any(|(key, _)| **key == *"data"))
        };
        let at = self
            .items
            .iter()
            .rposition(same)
            .filter(|at| index.is_some() || at + 1 == self.items.len());
        let at = at.unwrap_or_else(|| {
            self.items.push(DetailItem {
                index,
                kind: kind.into_owned(),
                last_array: 0,
                members: Vec::new(),
            });
            self.items.len() - 1
        });
        let item = &mut self.items[at];
        item.last_array = self.array_count;
        for (key, value) in part.members() {
            let text =
                value.str().filter(|_| matches!(key, "text" | "summary" | "data" | "signature"));
            self.has_seal |= matches!(key, "data" | "signature")
                && text.as_ref().is_some_and(|text| !text.is_empty());
            let known =
                item.members.iter_mut().find(|(name, _)| **name == *key).map(|(_, member)| member);
            match (known, text) {
                (Some(DetailMember::Text(all)), Some(text)) => all.push_str(&text),
                (Some(_), None) if value.kind() == "null" => {}
                (Some(member), None) => *member = DetailMember::Json(RawJson::from_json(value)),
                (Some(member), Some(text)) => *member = DetailMember::Text(text.into_owned()),
                (None, Some(text)) => {
                    item.members.push((key.into(), DetailMember::Text(text.into_owned())));
                }
                (None, None) => {
                    item.members.push((key.into(), DetailMember::Json(RawJson::from_json(value))));
                }
            }
        }
    }

    /// Returns the signature of the details so far if they contain one, and starts anew.
    pub(super) fn take_signature(&mut self) -> Option<ReasoningSignature> {
        if self.array_count == 0 {
            return None;
        }
        let details = std::mem::take(self);
        if let Some(only) = details.single_array.filter(|_| details.has_seal) {
            return Some(details_signature(only.text()));
        }
        (details.has_seal && !details.items.is_empty()).then(|| {
            details_signature(&writer::array(|a| {
                for item in &details.items {
                    a.object(|o| {
                        for (key, member) in &item.members {
                            match member {
                                DetailMember::Text(text) => o.str(key, text),
                                DetailMember::Json(raw) => o.raw(key, raw),
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
    fn reasoning_details_are_joined_into_one_signature() {
        let mut details = ReasoningDetails::default();
        for piece in [
            r#"[{"type":"reasoning.text","text":"a\"","signature":"","format":"f","index":0}]"#,
            r#"[{"type":"reasoning.text","text":"b","format":"f","index":0}]"#,
            r#"[{"type":"reasoning.text","signature":"S+/=","index":0},{"type":"reasoning.encrypted","data":"D","id":"x","index":0}]"#,
            r#"[{"type":"reasoning.encrypted","data":"E","id":"y","index":0}]"#,
        ] {
            details.feed(json(piece).json());
        }
        let proof = details.take_signature().expect("sealed");
        assert_eq!(
            json(&proof.value).to_value(),
            serde_json::json!([
                {"type":"reasoning.text","format":"f","index":0,"text":"a\"b","signature":"S+/="},
                {"type":"reasoning.encrypted","id":"x","index":0,"data":"D"},
                {"type":"reasoning.encrypted","id":"y","index":0,"data":"E"},
            ])
        );
        assert_eq!(details.take_signature(), None);
        details.feed(json(r#"[{"type":"reasoning.text","text":"only words"}]"#).json());
        assert_eq!(details.take_signature(), None);
    }
}
