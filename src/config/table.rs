//! The table form of the config: `config!` states each key once, with its type, default, kind and
//! meaning. The settings, the reader, `config show`, the schema and the docs follow from it.

use std::marker::PhantomData;

use serde_json::{Map, Value as Json, json};
use toml_edit::Value;

use super::{
    kinds::{KindDescription, ValueKind},
    problem::Report,
    reader::{KeySpans, Node, TableReader},
};

/// A config key, as the schema and the docs describe it.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// The full path; keys of rows omit the row's name: `upstream.priority`.
    pub path: String,
    pub doc: &'static str,
    pub kind: KindDescription,
    /// As written in the file; `None` if there is none, or if another key or a preset states it.
    pub default: Option<Value>,
    /// Whether a row without this key is reported.
    pub required: bool,
}

impl KeySpec {
    /// Returns the name of the key inside its table.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

/// Whether a key has a default, and whether `config show` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum KeyDefault {
    /// Another key or a preset states the default.
    Inherited,
    /// `config show` omits the key if it has its default.
    Omitted,
    /// There is none: the key must be written.
    Required,
    Shown,
}

/// A table whose keys are defined by `config!`.
pub(in crate::config) trait ConfigTable: Default {
    /// The name of the table in the file; for messages and the docs.
    const PATH: &'static str;
    /// What the table is for.
    const ABOUT: &'static str;

    /// Reads the keys; what the table omits or has wrong stays as in `base`.
    fn read_keys(table: &mut TableReader<'_>, base: Self, report: &mut Report) -> Self;

    /// Returns the keys that `config show` prints.
    fn written_keys(&self) -> Vec<(&'static str, Value)>;

    /// Describes every key.
    fn keys() -> Vec<KeySpec>;
}

/// The value of a table, with the positions of its keys.
pub(in crate::config) struct Written<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) spans: KeySpans,
}

/// Reads the table of this type, or returns its defaults if the file has none.
pub(in crate::config) fn read_table<T: ConfigTable>(
    top: &mut TableReader<'_>,
    report: &mut Report,
) -> Written<T> {
    let Some(mut table) = top.child(T::PATH, report) else {
        return Written { value: T::default(), spans: KeySpans::default() };
    };
    let value = T::read_keys(&mut table, T::default(), report);
    Written { value, spans: table.finish(report) }
}

/// Reads one key; `None` if it is absent or unusable.
pub(in crate::config) fn read_key<K: ValueKind>(
    table: &mut TableReader<'_>,
    name: &'static str,
    kind: &K,
    report: &mut Report,
) -> Option<K::Value> {
    let node = table.take_node(name)?;
    kind.read(&table.key_path(name), node, report)
}

/// Writes one key; `None` if `config show` omits it.
pub(in crate::config) fn write_key<K: ValueKind>(
    kind: &K,
    value: &K::Value,
    default: &K::Value,
    presence: KeyDefault,
) -> Option<Value> {
    let written = kind.write(value)?;
    let is_default = || kind.write(default).is_some_and(|d| d.to_string() == written.to_string());
    (presence != KeyDefault::Omitted || !is_default()).then_some(written)
}

/// The table, name and description of a key.
pub(in crate::config) struct KeyText(
    pub(in crate::config) &'static str,
    pub(in crate::config) &'static str,
    pub(in crate::config) &'static str,
);

/// Describes a key that its kind reads and writes.
pub(in crate::config) fn describe_key<K: ValueKind>(
    text: KeyText,
    kind: &K,
    default: &K::Value,
    presence: KeyDefault,
) -> KeySpec {
    let has_default = matches!(presence, KeyDefault::Omitted | KeyDefault::Shown);
    let default = has_default.then(|| kind.write(default)).flatten();
    KeySpec { default, ..describe_by_hand(text, kind.describe(), presence) }
}

/// Describes a key that is read and written by hand.
pub(in crate::config) fn describe_by_hand(
    KeyText(table, name, doc): KeyText,
    kind: KindDescription,
    presence: KeyDefault,
) -> KeySpec {
    let required = presence == KeyDefault::Required;
    KeySpec { path: format!("{table}.{name}"), doc: doc.trim(), kind, default: None, required }
}

/// A table inside a row, with keys of its own.
pub(in crate::config) struct Nested<T>(PhantomData<T>);

impl<T> Nested<T> {
    pub(in crate::config) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: ConfigTable> ValueKind for Nested<T> {
    type Value = T;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<T> {
        let mut table = TableReader::from_node(path, node, report)?;
        let value = T::read_keys(&mut table, T::default(), report);
        table.finish(report);
        Some(value)
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(inline_table(value))
    }

    fn describe(&self) -> KindDescription {
        KindDescription::new("table", table_schema(&T::keys()))
    }
}

/// Returns a value as an inline table.
pub(in crate::config) fn inline_table<T: ConfigTable>(value: &T) -> Value {
    Value::InlineTable(value.written_keys().into_iter().collect())
}

/// Returns the JSON schema of a table with these keys.
pub(in crate::config) fn table_schema(keys: &[KeySpec]) -> Json {
    let properties: Map<String, Json> =
        keys.iter().map(|key| (key.name().to_owned(), key_schema(key))).collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(KeySpec::name).collect();
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn key_schema(key: &KeySpec) -> Json {
    let mut schema = key.kind.schema.clone();
    schema["description"] = key.doc.into();
    if let Some(default) = key.default.as_ref().and_then(toml_to_json) {
        schema["default"] = default;
    }
    schema
}

fn toml_to_json(value: &Value) -> Option<Json> {
    match value {
        Value::String(text) => Some(Json::from(text.value().as_str())),
        Value::Integer(number) => Some(Json::from(*number.value())),
        Value::Float(number) => Some(Json::from(*number.value())),
        Value::Boolean(flag) => Some(Json::from(*flag.value())),
        Value::Array(list) => list.iter().map(toml_to_json).collect(),
        Value::Datetime(_) | Value::InlineTable(_) => None,
    }
}

/// Defines a table of the config.
///
/// Each key is `name: Type = default, kind;` with a comment that becomes its description. The name
/// in the file may differ from the field's: `retention as "keep"`. A word after the kind says what
/// is special about the default: `required` (there is none), `inherited` (another key or a preset
/// states it), or `omitted` (`config show` prints the key only if it differs).
///
/// Rows may have two more lists. `described` has keys that are read and written by hand, with the
/// description of their kinds. `derived` has fields that are no keys, with their initial values.
macro_rules! config {
    (
        $(#[doc = $about:literal])+
        #[derive($($derive:path),+)]
        pub struct $table:ident in $path:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $(as $key:literal)? : $type:ty =
                    $default:expr, $kind:expr $(, $presence:ident)? ;
            )+
        }
        $( described {
            $(
                $(#[doc = $by_hand_doc:literal])+
                $by_hand:literal : $by_hand_kind:expr $(, $by_hand_presence:ident)? ;
            )+
        } )?
        $( derived {
            $(
                $(#[$derived_meta:meta])*
                $derived:ident : $derived_type:ty = $initial:expr ;
            )+
        } )?
    ) => {
        $(#[doc = $about])+
        #[allow(
            rustdoc::broken_intra_doc_links,
            reason = "the texts are for users of the config: `[prices]` is a table, not a link"
        )]
        #[derive($($derive),+)]
        pub struct $table {
            $( $(#[doc = $doc])+ pub $field: $type, )+
            $( $( $(#[$derived_meta])* pub $derived: $derived_type, )+ )?
        }

        impl Default for $table {
            fn default() -> Self {
                Self {
                    $( $field: $default, )+
                    $( $( $derived: $initial, )+ )?
                }
            }
        }

        impl $crate::config::table::ConfigTable for $table {
            const PATH: &'static str = $path;
            const ABOUT: &'static str = concat!($($about),+);

            fn read_keys(
                table: &mut $crate::config::reader::TableReader<'_>,
                base: Self,
                report: &mut $crate::config::problem::Report,
            ) -> Self {
                use $crate::config::table::{key_name, read_key};
                Self {
                    $( $field: read_key(table, key_name!($field $($key)?), &$kind, report)
                        .unwrap_or(base.$field), )+
                    $( $( $derived: base.$derived, )+ )?
                }
            }

            fn written_keys(&self) -> Vec<(&'static str, toml_edit::Value)> {
                use $crate::config::table::{key_name, presence, write_key};
                let defaults = Self::default();
                let keys = [ $( (
                    key_name!($field $($key)?),
                    write_key(&$kind, &self.$field, &defaults.$field, presence!($($presence)?)),
                ) ),+ ];
                keys.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }

            fn keys() -> Vec<$crate::config::table::KeySpec> {
                use $crate::config::table::{self, key_name, presence};
                let defaults = Self::default();
                vec![
                    $( $( table::describe_by_hand(
                        table::KeyText($path, $by_hand, concat!($($by_hand_doc),+)),
                        $by_hand_kind,
                        presence!($($by_hand_presence)?),
                    ), )+ )?
                    $( table::describe_key(
                        table::KeyText($path, key_name!($field $($key)?), concat!($($doc),+)),
                        &$kind,
                        &defaults.$field,
                        presence!($($presence)?),
                    ), )+
                ]
            }
        }
    };
}

macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

macro_rules! presence {
    () => {
        $crate::config::table::KeyDefault::Shown
    };
    (inherited) => {
        $crate::config::table::KeyDefault::Inherited
    };
    (omitted) => {
        $crate::config::table::KeyDefault::Omitted
    };
    (required) => {
        $crate::config::table::KeyDefault::Required
    };
}

pub(in crate::config) use {config, key_name, presence};
