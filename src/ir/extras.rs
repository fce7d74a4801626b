//! What a dialect says that the common representation has no place for: kept verbatim, written back
//! only to its own dialect.

use crate::{
    base::{json::JsonRef, raw::RawJson, write::ObjectWriter},
    ir::op::Dialect,
};

/// Leftover fields of one wire object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    from: Option<Dialect>,
    fields: Vec<(Box<str>, RawJson)>,
    /// Fields that the common form says too, in the dialect's own spelling: nobody else misses
    /// them.
    spelled: Vec<(Box<str>, RawJson)>,
    /// What only its own dialect misses (ids and states of items); no loss elsewhere.
    notes: Vec<(Box<str>, RawJson)>,
}

impl Extras {
    /// The members of `object` that are not in `known`; null counts as absent.
    #[must_use]
    pub fn of(from: Dialect, object: JsonRef<'_>, known: &[&str]) -> Self {
        let fields = object
            .members()
            .filter(|(key, value)| !known.contains(key) && value.kind() != "null")
            .map(|(key, value)| (Box::from(key), RawJson::from_json(value)))
            .collect();
        Self { from: Some(from), fields, spelled: Vec::new(), notes: Vec::new() }
    }

    /// One more field.
    pub fn push(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.from = Some(from);
        self.fields.push((key.into(), value));
    }

    /// Takes a field out.
    pub fn remove(&mut self, key: &str) {
        self.fields.retain(|(name, _)| **name != *key);
    }

    /// One more field that the common form says too: written back to its own dialect, no loss in
    /// another.
    pub fn also(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.from = Some(from);
        self.spelled.push((key.into(), value));
    }

    /// Keeps what means nothing in other dialects: it is no loss there, and only [`get`](Self::get)
    /// finds it.
    pub fn note(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.from = Some(from);
        self.notes.push((key.into(), value));
    }

    /// Whether a reader of this dialect made it.
    #[must_use]
    pub fn is_from(&self, dialect: Dialect) -> bool {
        self.from == Some(dialect)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.spelled.is_empty()
    }

    /// A field or note that a reader of the same dialect left here.
    #[must_use]
    pub fn get(&self, dialect: Dialect, key: &str) -> Option<&RawJson> {
        let own = self.from == Some(dialect);
        self.fields
            .iter()
            .chain(&self.spelled)
            .chain(&self.notes)
            .find(|(name, _)| own && **name == *key)
            .map(|(_, value)| value)
    }

    /// The fields that are said nowhere else, in the order in which they stood.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawJson)> {
        self.fields.iter().map(|(key, value)| (&**key, value))
    }

    /// Writes the fields into an object of `dialect`; what is another dialect's is told to `lost`
    /// by its name.
    pub fn write(&self, dialect: Dialect, object: &mut ObjectWriter<'_>, lost: impl FnMut(&str)) {
        self.write_but(|_| false, dialect, object, lost);
    }

    /// Like [`write`](Self::write), without those of the dialect's own fields that are written
    /// elsewhere.
    pub fn write_but(
        &self,
        skip: impl Fn(&str) -> bool,
        dialect: Dialect,
        object: &mut ObjectWriter<'_>,
        mut lost: impl FnMut(&str),
    ) {
        if self.from == Some(dialect) {
            for (key, value) in
                self.fields.iter().chain(&self.spelled).filter(|(key, _)| !skip(key))
            {
                object.raw(key, value);
            }
        } else {
            self.fields.iter().for_each(|(key, _)| lost(key));
        }
    }
}
