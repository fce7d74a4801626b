//! Kinds of config values: how the values of a key are read, written and described.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use serde_json::{Value as Json, json};
use toml::de::DeValue;
use toml_edit::{Array, Value};

use super::{
    problem::Report,
    reader::{self, Node, ValueError},
};
use crate::base::units;

/// A kind of value that a key takes.
pub(in crate::config) trait ValueKind {
    type Value;

    /// Reads the value of the key `path`. Reports every problem; `None` if it cannot be used.
    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value>;

    /// Returns the value as written in the file; `None` if the file omits the key.
    fn write(&self, value: &Self::Value) -> Option<Value>;

    fn describe(&self) -> KindDescription;
}

/// What the schema and the docs say about a kind of value.
#[derive(Clone, Debug)]
pub struct KindDescription {
    /// In the docs: `duration`, `list of text`.
    pub type_name: String,
    pub schema: Json,
    /// Whether the key takes nothing but quoted text, so that `config set` needs no quotes.
    pub is_text: bool,
}

impl KindDescription {
    pub(in crate::config) fn new(type_name: impl Into<String>, schema: Json) -> Self {
        Self { type_name: type_name.into(), schema, is_text: false }
    }

    /// Describes a value that is always quoted text.
    pub(in crate::config) fn text(type_name: impl Into<String>, schema: Json) -> Self {
        Self { is_text: true, ..Self::new(type_name, schema) }
    }

    /// Describes a list of these, which may be written as one.
    pub(in crate::config) fn one_or_many(self) -> Self {
        let one = &self.schema;
        let schema = json!({ "anyOf": [one, { "type": "array", "items": one }] });
        Self { type_name: format!("{}, or a list", self.type_name), schema, ..self }
    }
}

fn scalar<T>(
    path: &str,
    node: &Node<'_>,
    report: &mut Report,
    read: &impl Fn(&DeValue<'_>) -> Result<T, ValueError>,
) -> Option<T> {
    reader::read_value(path, node, report, read).map(|at| at.value)
}

/// `true` or `false`.
pub(in crate::config) struct Flag;

impl ValueKind for Flag {
    type Value = bool;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<bool> {
        scalar(path, node, report, &reader::flag)
    }

    fn write(&self, value: &bool) -> Option<Value> {
        Some((*value).into())
    }

    fn describe(&self) -> KindDescription {
        KindDescription::new("boolean", json!({ "type": "boolean" }))
    }
}

/// The docs do not mention bounds from here on.
const LARGE: u32 = 1_000_000;

/// A whole number within bounds.
pub(in crate::config) struct Count<T = u32> {
    low: u32,
    high: u32,
    value: PhantomData<T>,
}

/// Returns the kind of whole numbers within bounds.
pub(in crate::config) const fn count<T>(low: u32, high: u32) -> Count<T> {
    Count { low, high, value: PhantomData }
}

impl<T: Copy + TryFrom<u32> + TryInto<i64>> ValueKind for Count<T> {
    type Value = T;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<T> {
        let number = scalar(path, node, report, &reader::count(self.low, self.high))?;
        T::try_from(number).ok()
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some((*value).try_into().unwrap_or(i64::MAX).into())
    }

    fn describe(&self) -> KindDescription {
        let schema = json!({ "type": "integer", "minimum": self.low, "maximum": self.high });
        let type_name = match (self.low, self.high) {
            (0, LARGE..) => "integer".to_owned(),
            (low, LARGE..) => format!("integer, at least {low}"),
            (low, high) => format!("integer, {low} to {high}"),
        };
        KindDescription::new(type_name, schema)
    }
}

/// A number within bounds.
pub(in crate::config) struct Number(pub(in crate::config) f64, pub(in crate::config) f64);

impl ValueKind for Number {
    type Value = f64;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<f64> {
        scalar(path, node, report, &reader::number(self.0, self.1))
    }

    fn write(&self, value: &f64) -> Option<Value> {
        Some((*value).into())
    }

    fn describe(&self) -> KindDescription {
        KindDescription::new("number", json!({ "type": "number", "minimum": 0 }))
    }
}

/// A duration within bounds.
pub(in crate::config) struct TimeSpan(
    pub(in crate::config) Duration,
    pub(in crate::config) Duration,
);

impl ValueKind for TimeSpan {
    type Value = Duration;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Duration> {
        scalar(path, node, report, &reader::duration(self.0, self.1))
    }

    fn write(&self, value: &Duration) -> Option<Value> {
        Some(units::print_duration(*value).into())
    }

    fn describe(&self) -> KindDescription {
        KindDescription::text("duration", json!({ "$ref": "#/$defs/duration" }))
    }
}

/// A number of bytes within bounds.
pub(in crate::config) struct ByteSize(pub(in crate::config) u64, pub(in crate::config) u64);

impl ValueKind for ByteSize {
    type Value = u64;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<u64> {
        scalar(path, node, report, &reader::size(self.0, self.1))
    }

    fn write(&self, value: &u64) -> Option<Value> {
        Some(units::print_size(*value).into())
    }

    fn describe(&self) -> KindDescription {
        KindDescription::text("size", json!({ "$ref": "#/$defs/size" }))
    }
}

/// `"auto"`, which is `None`, or a size.
pub(in crate::config) struct SizeOrAuto(pub(in crate::config) ByteSize);

impl ValueKind for SizeOrAuto {
    type Value = Option<u64>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Option<u64>> {
        match node.get_ref().as_str() {
            Some("auto") => Some(None),
            _ => self.0.read(path, node, report).map(Some),
        }
    }

    fn write(&self, value: &Option<u64>) -> Option<Value> {
        value.as_ref().map_or_else(|| Some("auto".into()), |size| self.0.write(size))
    }

    fn describe(&self) -> KindDescription {
        let schema = json!({ "anyOf": [{ "const": "auto" }, self.0.describe().schema] });
        KindDescription::text("`\"auto\"` or size", schema)
    }
}

/// One of a closed list of words, each with its value.
pub(in crate::config) struct Words<T: 'static>(pub(in crate::config) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> ValueKind for Words<T> {
    type Value = T;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<T> {
        scalar(path, node, report, &reader::one_of(self.0))
    }

    fn write(&self, value: &T) -> Option<Value> {
        self.0.iter().find(|(_, known)| known == value).map(|(word, _)| (*word).into())
    }

    fn describe(&self) -> KindDescription {
        describe_words(self.0.iter().map(|(word, _)| *word))
    }
}

/// One of a closed list of words, as text.
pub(in crate::config) struct OneWord(pub(in crate::config) &'static [&'static str]);

impl ValueKind for OneWord {
    type Value = String;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<String> {
        scalar(path, node, report, &|value| reader::one_word(value, self.0))
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(value.as_str().into())
    }

    fn describe(&self) -> KindDescription {
        describe_words(self.0.iter().copied())
    }
}

fn describe_words(words: impl Iterator<Item = &'static str>) -> KindDescription {
    let words: Vec<_> = words.collect();
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    KindDescription::text(quoted.join(", "), json!({ "enum": words }))
}

/// Quoted text with rules of its own.
pub(in crate::config) struct Text<T> {
    /// In the docs: `text`, `URL`.
    pub(in crate::config) type_name: &'static str,
    pub(in crate::config) read: fn(&DeValue<'_>) -> Result<T, ValueError>,
    /// `None` if the file omits the key.
    pub(in crate::config) write: fn(&T) -> Option<String>,
}

impl<T> ValueKind for Text<T> {
    type Value = T;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<T> {
        scalar(path, node, report, &self.read)
    }

    fn write(&self, value: &T) -> Option<Value> {
        (self.write)(value).map(Value::from)
    }

    fn describe(&self) -> KindDescription {
        KindDescription::text(self.type_name, json!({ "type": "string" }))
    }
}

/// Any text.
pub(in crate::config) const TEXT: Text<String> =
    Text { type_name: "text", read: reader::text, write: |text| Some(text.clone()) };

/// A list; one value stands for a list of one.
pub(in crate::config) struct List<K>(pub(in crate::config) K);

impl<K: ValueKind> ValueKind for List<K> {
    type Value = Vec<K::Value>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Vec<K::Value>> {
        let DeValue::Array(items) = node.get_ref() else {
            return self.0.read(path, node, report).map(|one| vec![one]);
        };
        let values: Vec<_> =
            items.iter().filter_map(|item| self.0.read(path, item, report)).collect();
        // If every value has been reported, the empty list must not be reported again.
        (!values.is_empty() || items.is_empty()).then_some(values)
    }

    fn write(&self, values: &Vec<K::Value>) -> Option<Value> {
        let each: Array = values.iter().filter_map(|value| self.0.write(value)).collect();
        Some(Value::Array(each))
    }

    fn describe(&self) -> KindDescription {
        self.0.describe().one_or_many()
    }
}

/// A value that may be absent; the file then omits the key.
pub(in crate::config) struct Maybe<K>(pub(in crate::config) K);

impl<K: ValueKind> ValueKind for Maybe<K> {
    type Value = Option<K::Value>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        self.0.read(path, node, report).map(Some)
    }

    fn write(&self, value: &Self::Value) -> Option<Value> {
        value.as_ref().and_then(|value| self.0.write(value))
    }

    fn describe(&self) -> KindDescription {
        self.0.describe()
    }
}

/// A value that is shared between settings.
pub(in crate::config) struct Shared<K>(pub(in crate::config) K);

impl<K: ValueKind> ValueKind for Shared<K> {
    type Value = Arc<K::Value>;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        self.0.read(path, node, report).map(Arc::new)
    }

    fn write(&self, value: &Self::Value) -> Option<Value> {
        self.0.write(value)
    }

    fn describe(&self) -> KindDescription {
        self.0.describe()
    }
}
