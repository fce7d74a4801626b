//! The model's names inside a Gemini body, which must match the one in the path.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use crate::base::json::{
    reader::{self, JsonRef},
    scan,
};

/// How Gemini writes a model as a resource.
const RESOURCE_PREFIX: &str = "models/";

/// Returns the edits that put the target's model in place of each name in the body: its own, that
/// of a wrapped request (`countTokens`), and those of a batch.
pub(super) fn edits(body: &Bytes, model: &str) -> Vec<(Range<usize>, Bytes)> {
    if memmem::find(body, b"\"model\"").is_none() {
        return Vec::new();
    }
    let Ok(root) = reader::parse(body) else { return Vec::new() };
    let batch = root.get("requests").into_iter().flat_map(JsonRef::items);
    let objects = [root].into_iter().chain(root.get("generateContentRequest")).chain(batch);
    objects
        .filter_map(|object| object.get("model"))
        .filter_map(|name| {
            let text = name.str()?;
            let prefix = if text.starts_with(RESOURCE_PREFIX) { RESOURCE_PREFIX } else { "" };
            // The parsed value is a part of the body.
            let start = (name.text().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
            let span = start..start + name.text().len();
            (span.end <= body.len()).then(|| (span, scan::json_string(&format!("{prefix}{model}"))))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(body: &str) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let spliced = scan::splice(&body, &edits(&body, "m"));
        String::from_utf8_lossy(&spliced).into_owned()
    }

    #[test]
    fn every_name_of_the_model_is_replaced() {
        assert_eq!(
            replaced(r#"{ "model":"models/up/x", "content":{"model":"stays"}}"#),
            r#"{ "model":"models/m", "content":{"model":"stays"}}"#
        );
        assert_eq!(
            replaced(r#"{"requests":[{"model": "x"},{"model":"models/x"},{}]}"#),
            r#"{"requests":[{"model": "m"},{"model":"models/m"},{}]}"#
        );
        assert_eq!(
            replaced(r#"{"generateContentRequest":{"model":"models/x"}}"#),
            r#"{"generateContentRequest":{"model":"models/m"}}"#
        );
        assert_eq!(replaced("no JSON \"model\""), "no JSON \"model\"");
    }
}
