//! Serialises a reason in two fields of its record: the English text, which clients of the API
//! read, and the value beside it.
//!
//! Each module below is for `#[serde(flatten, with = "…")]` and has the names of its two fields. A
//! value of a later version that is unknown here is read as its text.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

/// A value whose `Display` is an English sentence.
pub trait Reason: fmt::Display + Serialize + DeserializeOwned {
    /// Makes the reason for a text that came without its value, from the ledger or from another
    /// version of aiproxy.
    fn from_text(text: Arc<str>) -> Self;

    /// Whether the reason is only a text, so that its value adds nothing.
    fn is_text(&self) -> bool;
}

/// A field that holds a reason.
pub trait ReasonSlot: Sized {
    type Value: Reason;

    fn reason(&self) -> Option<&Self::Value>;
    fn from_reason(reason: Option<Self::Value>) -> Self;
}

impl<R: Reason> ReasonSlot for Option<Arc<R>> {
    type Value = R;

    fn reason(&self) -> Option<&R> {
        self.as_deref()
    }

    fn from_reason(reason: Option<R>) -> Self {
        reason.map(Arc::new)
    }
}

impl<R: Reason> ReasonSlot for Arc<R> {
    type Value = R;

    fn reason(&self) -> Option<&R> {
        Some(self)
    }

    fn from_reason(reason: Option<R>) -> Self {
        Self::new(reason.unwrap_or_else(|| R::from_text("".into())))
    }
}

/// Declares the modules, each with the names of the text and of the value.
macro_rules! text_fields {
    ($($module:ident: $text:literal, $value:literal;)*) => {
        $(
            pub mod $module {
                use serde::{Deserializer, Serializer};

                use super::ReasonSlot;

                /// # Errors
                ///
                /// The serializer fails.
                pub fn serialize<T: ReasonSlot, S: Serializer>(
                    slot: &T,
                    out: S,
                ) -> Result<S::Ok, S::Error> {
                    super::write_fields(slot, [$text, $value], out)
                }

                /// # Errors
                ///
                /// The text is not a string.
                pub fn deserialize<'de, T: ReasonSlot, D: Deserializer<'de>>(
                    from: D,
                ) -> Result<T, D::Error> {
                    super::read_fields(&[$text, $value], from)
                }
            }
        )*
    };
}

text_fields! {
    cause_and_failure: "cause", "failure";
    outcome_and_failure: "outcome", "failure";
    reason_and_route: "reason", "route";
    text_and_reason: "text", "reason";
    why_and_cause: "why", "cause";
}

/// Serialises by `Display`.
struct AsText<'a, R>(&'a R);

impl<R: fmt::Display> Serialize for AsText<'_, R> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self.0)
    }
}

fn write_fields<T: ReasonSlot, S: Serializer>(
    slot: &T,
    [text, value]: [&'static str; 2],
    out: S,
) -> Result<S::Ok, S::Error> {
    let reason = slot.reason();
    let mut map = out.serialize_map(None)?;
    map.serialize_entry(text, &reason.map(AsText))?;
    if let Some(reason) = reason.filter(|reason| !reason.is_text()) {
        map.serialize_entry(value, reason)?;
    }
    map.end()
}

fn read_fields<'de, T: ReasonSlot, D: Deserializer<'de>>(
    names: &'static [&'static str; 2],
    from: D,
) -> Result<T, D::Error> {
    from.deserialize_struct("Reason", names, FieldsVisitor { names, slot: PhantomData })
}

/// A value that may be of a later version.
#[derive(Deserialize)]
#[serde(untagged)]
enum MaybeKnown<R> {
    Known(R),
    Unknown(IgnoredAny),
}

struct FieldsVisitor<T> {
    names: &'static [&'static str; 2],
    slot: PhantomData<T>,
}

impl<'de, T: ReasonSlot> Visitor<'de> for FieldsVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` and `{}`", self.names[0], self.names[1])
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let (mut text, mut value) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            if name == self.names[0] {
                text = map.next_value::<Option<Arc<str>>>()?;
            } else if name == self.names[1] {
                value = match map.next_value::<Option<MaybeKnown<T::Value>>>()? {
                    Some(MaybeKnown::Known(value)) => Some(value),
                    Some(MaybeKnown::Unknown(_)) | None => None,
                };
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(T::from_reason(value.or_else(|| text.map(T::Value::from_text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::reason::failure::FailureReason;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Attempt {
        number: u32,
        #[serde(flatten, with = "outcome_and_failure")]
        outcome: Option<Arc<FailureReason>>,
    }

    fn json(outcome: Option<FailureReason>) -> String {
        serde_json::to_string(&Attempt { number: 1, outcome: outcome.map(Arc::new) }).unwrap()
    }

    #[test]
    fn reason_is_serialised_as_text_and_typed_value() {
        let json_text = json(Some(FailureReason::CooledByHand));

        assert_eq!(
            json_text,
            r#"{"number":1,"outcome":"cooled by hand","failure":{"kind":"cooled_by_hand"}}"#
        );
        assert_eq!(
            serde_json::from_str::<Attempt>(&json_text).unwrap().outcome.as_deref(),
            Some(&FailureReason::CooledByHand)
        );
        assert_eq!(json(None), r#"{"number":1,"outcome":null}"#);
        assert_eq!(serde_json::from_str::<Attempt>(&json(None)).unwrap().outcome, None);
    }

    #[test]
    fn text_without_a_known_value_is_read_as_text() {
        for from in [
            r#"{"number":1,"outcome":"broke"}"#,
            r#"{"number":1,"outcome":"broke","failure":{"kind":"of a later version","n":1}}"#,
            r#"{"failure":7,"number":1,"outcome":"broke"}"#,
        ] {
            let read: Attempt = serde_json::from_str(from).unwrap();
            assert_eq!(
                read.outcome.as_deref(),
                Some(&FailureReason::Text { text: "broke".into() }),
                "{from}"
            );
            assert_eq!(serde_json::to_string(&read).unwrap(), r#"{"number":1,"outcome":"broke"}"#);
        }
    }
}
