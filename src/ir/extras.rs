//! What a dialect says that the common representation has no place for: kept verbatim, written back only to its own dialect.

use crate::{
    base::{json::Json, raw::Raw, write::Object},
    ir::op::Dialect,
};

/// Leftover fields of one wire object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    from: Option<Dialect>,
    fields: Vec<(Box<str>, Raw)>,
}

impl Extras {
    /// The members of `object` that are not in `known`; null counts as absent.
    #[must_use]
    pub fn of(from: Dialect, object: Json<'_>, known: &[&str]) -> Self {
        let fields = object
            .members()
            .filter(|(key, value)| !known.contains(key) && value.kind() != "null")
            .map(|(key, value)| (Box::from(key), Raw::of(value)))
            .collect();
        Self { from: Some(from), fields }
    }

    /// One more field.
    pub fn push(&mut self, from: Dialect, key: &str, value: Raw) {
        self.from = Some(from);
        self.fields.push((key.into(), value));
    }

    /// Takes a field out.
    pub fn remove(&mut self, key: &str) {
        self.fields.retain(|(name, _)| **name != *key);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// A field that a reader of the same dialect left here.
    #[must_use]
    pub fn get(&self, dialect: Dialect, key: &str) -> Option<&Raw> {
        let own = self.from == Some(dialect);
        self.fields.iter().find(|(name, _)| own && **name == *key).map(|(_, value)| value)
    }

    /// The fields, in the order in which they stood.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Raw)> {
        self.fields.iter().map(|(key, value)| (&**key, value))
    }

    /// Writes the fields into an object of `dialect`; what is another dialect's is told to `lost` by its name.
    pub fn write(&self, dialect: Dialect, object: &mut Object<'_>, mut lost: impl FnMut(&str)) {
        for (key, value) in self.iter() {
            if self.from == Some(dialect) {
                object.raw(key, value);
            } else {
                lost(key);
            }
        }
    }
}
