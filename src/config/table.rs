//! The table form of the config: `config!` states each key once, with its type, default, kind and
//! meaning. The settings, the reader, `config show`, the schema and the docs follow from it.

use toml_edit::Value;

use super::{
    kinds::{KindDescription, ValueKind},
    problem::Report,
    reader::{KeySpans, TableReader},
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

/// Describes one key.
pub(in crate::config) fn describe_key<K: ValueKind>(
    path: &str,
    doc: &'static str,
    kind: &K,
    default: &K::Value,
    presence: KeyDefault,
) -> KeySpec {
    let has_default = matches!(presence, KeyDefault::Omitted | KeyDefault::Shown);
    KeySpec {
        path: path.to_owned(),
        doc: doc.trim(),
        kind: kind.describe(),
        default: has_default.then(|| kind.write(default)).flatten(),
        required: presence == KeyDefault::Required,
    }
}

/// Defines a table of the config.
///
/// Each key is `name: Type = default, kind;` with a comment that becomes its description. The name
/// in the file may differ from the field's: `retention as "keep"`. A word after the kind says what
/// is special about the default: `required` (there is none), `inherited` (another key or a preset
/// states it), or `omitted` (`config show` prints the key only if it differs).
macro_rules! config {
    (
        $(#[$meta:meta])*
        pub struct $table:ident in $path:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $(as $key:literal)? : $type:ty =
                    $default:expr, $kind:expr $(, $presence:ident)? ;
            )+
        }
    ) => {
        $(#[$meta])*
        pub struct $table {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $table {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::config::table::ConfigTable for $table {
            const PATH: &'static str = $path;

            fn read_keys(
                table: &mut $crate::config::reader::TableReader<'_>,
                base: Self,
                report: &mut $crate::config::problem::Report,
            ) -> Self {
                use $crate::config::table::{key_name, read_key};
                Self {
                    $( $field: read_key(table, key_name!($field $($key)?), &$kind, report)
                        .unwrap_or(base.$field), )+
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
                use $crate::config::table::{describe_key, key_name, presence};
                let defaults = Self::default();
                vec![ $( describe_key(
                    &[$path, key_name!($field $($key)?)].join("."),
                    concat!($($doc),+),
                    &$kind,
                    &defaults.$field,
                    presence!($($presence)?),
                ) ),+ ]
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
    (omitted) => {
        $crate::config::table::KeyDefault::Omitted
    };
    (required) => {
        $crate::config::table::KeyDefault::Required
    };
}

pub(in crate::config) use {config, key_name, presence};
