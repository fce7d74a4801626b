//! What a dialect says that the common representation has no place for: kept verbatim, written back
//! only to its own dialect.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer::ObjectWriter},
    ir::op::Dialect,
};

/// Leftover fields of one wire object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    dialect: Option<Dialect>,
    fields: Vec<(Box<str>, RawJson)>,
    /// Fields that the common form says too, in the dialect's own spelling: nobody else misses
    /// them.
    equivalents: Vec<(Box<str>, RawJson)>,
    /// What only its own dialect misses (ids and states of items); no loss elsewhere.
    dialect_only: Vec<(Box<str>, RawJson)>,
}

impl Extras {
    /// The members of `object` that are not in `known`; null counts as absent.
    #[must_use]
    pub fn from_object(from: Dialect, object: JsonRef<'_>, known: &[&str]) -> Self {
        let fields = object
            .members()
            .filter(|(key, value)| !known.contains(key) && value.kind() != "null")
            .map(|(key, value)| (Box::from(key), RawJson::from_json(value)))
            .collect();
        Self { dialect: Some(from), fields, equivalents: Vec::new(), dialect_only: Vec::new() }
    }

    /// One more field.
    pub fn push(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.dialect = Some(from);
        self.fields.push((key.into(), value));
    }

    /// Takes a field out.
    pub fn remove(&mut self, key: &str) {
        self.fields.retain(|(name, _)| **name != *key);
    }

    /// One more field that the common form says too: written back to its own dialect, no loss in
    /// another.
    pub fn push_equivalent(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.dialect = Some(from);
        self.equivalents.push((key.into(), value));
    }

    /// Keeps what means nothing in other dialects: it is no loss there, and only [`get`](Self::get)
    /// finds it.
    pub fn push_dialect_only(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.dialect = Some(from);
        self.dialect_only.push((key.into(), value));
    }

    /// Whether a reader of this dialect made it.
    #[must_use]
    pub fn is_from(&self, dialect: Dialect) -> bool {
        self.dialect == Some(dialect)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.equivalents.is_empty()
    }

    /// A field or note that a reader of the same dialect left here.
    #[must_use]
    pub fn get(&self, dialect: Dialect, key: &str) -> Option<&RawJson> {
        let same_dialect = self.dialect == Some(dialect);
        self.fields
            .iter()
            .chain(&self.equivalents)
            .chain(&self.dialect_only)
            .find(|(name, _)| same_dialect && **name == *key)
            .map(|(_, value)| value)
    }

    /// The fields that are said nowhere else, in the order in which they stood.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawJson)> {
        self.fields.iter().map(|(key, value)| (&**key, value))
    }

    /// Writes the fields into an object of `dialect`; what is another dialect's is told to `lost`
    /// by its name.
    pub fn write(&self, dialect: Dialect, object: &mut ObjectWriter<'_>, lost: impl FnMut(&str)) {
        self.write_except(|_| false, dialect, object, lost);
    }

    /// Like [`write`](Self::write), without those of the dialect's own fields that are written
    /// elsewhere.
    pub fn write_except(
        &self,
        skip: impl Fn(&str) -> bool,
        dialect: Dialect,
        object: &mut ObjectWriter<'_>,
        mut lost: impl FnMut(&str),
    ) {
        if self.dialect == Some(dialect) {
            for (key, value) in
                self.fields.iter().chain(&self.equivalents).filter(|(key, _)| !skip(key))
            {
                object.raw(key, value);
            }
        } else {
            self.fields.iter().for_each(|(key, _)| lost(key));
        }
    }
}
