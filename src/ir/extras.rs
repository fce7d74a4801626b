//! Fields of a dialect that the IR has no place for: stored verbatim, written back only to the same
//! dialect.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer::ObjectWriter},
    ir::op::Dialect,
};

/// Leftover fields of one wire object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    dialect: Option<Dialect>,
    fields: Vec<(Box<str>, RawJson)>,
    /// Fields that the IR also represents, in the dialect's own spelling. Other dialects lose
    /// nothing.
    equivalents: Vec<(Box<str>, RawJson)>,
    /// Fields that only their own dialect needs (ids and states of items); no loss elsewhere.
    dialect_only: Vec<(Box<str>, RawJson)>,
}

impl Extras {
    /// Collects the members of `object` that are not in `known`; null counts as absent.
    #[must_use]
    pub fn from_object(from: Dialect, object: JsonRef<'_>, known: &[&str]) -> Self {
        let fields = object
            .members()
            .filter(|(key, value)| !known.contains(key) && value.kind() != "null")
            .map(|(key, value)| (Box::from(key), RawJson::from_json(value)))
            .collect();
        Self { dialect: Some(from), fields, equivalents: Vec::new(), dialect_only: Vec::new() }
    }

    /// Adds a field.
    pub fn push(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.dialect = Some(from);
        self.fields.push((key.into(), value));
    }

    /// Removes a field.
    pub fn remove(&mut self, key: &str) {
        self.fields.retain(|(name, _)| **name != *key);
    }

    /// Removes every field whose name matches, also one that the IR represents.
    pub fn remove_where(&mut self, matches: impl Fn(&str) -> bool) {
        self.fields.retain(|(name, _)| !matches(name));
        self.equivalents.retain(|(name, _)| !matches(name));
        self.dialect_only.retain(|(name, _)| !matches(name));
    }

    /// Adds a field that the IR also represents: written back to its own dialect, no loss in
    /// another.
    pub fn push_equivalent(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.dialect = Some(from);
        self.equivalents.push((key.into(), value));
    }

    /// Adds a field without meaning in other dialects: no loss there, and only [`get`](Self::get)
    /// returns it.
    pub fn push_dialect_only(&mut self, from: Dialect, key: &str, value: RawJson) {
        self.dialect = Some(from);
        self.dialect_only.push((key.into(), value));
    }

    /// Whether a reader of this dialect created it.
    #[must_use]
    pub fn is_from(&self, dialect: Dialect) -> bool {
        self.dialect == Some(dialect)
    }

    /// Whether nothing at all is stored, also nothing that only its own dialect needs.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.is_empty() && self.dialect_only.is_empty()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.equivalents.is_empty()
    }

    /// Returns a field that a reader of the same dialect stored here.
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

    /// Iterates over the fields that are lost in `dialect`: those that a reader of another dialect
    /// stored.
    pub fn iter_foreign_to(&self, dialect: Dialect) -> impl Iterator<Item = (&str, &RawJson)> {
        self.iter().filter(move |_| !self.is_from(dialect))
    }

    /// Iterates over the fields that only the extras represent, in their original order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawJson)> {
        self.fields.iter().map(|(key, value)| (&**key, value))
    }

    /// Writes the fields into an object of `dialect`; calls `lost` with the name of each field of
    /// another dialect.
    pub fn write(&self, dialect: Dialect, object: &mut ObjectWriter<'_>, lost: impl FnMut(&str)) {
        self.write_except(|_| false, dialect, object, lost);
    }

    /// Like [`write`](Self::write), without those fields of the dialect that are written elsewhere.
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
