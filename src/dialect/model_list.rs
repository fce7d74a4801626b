//! Reads model lists: `{data:[{id}]}`, `{models:[{name}]}`, or a bare list of either.

use crate::base::json::reader::{self, JsonRef};

/// More models than any upstream lists.
const MAX_MODELS: usize = 20_000;
const MAX_ID_BYTES: usize = 256;

/// One row of an upstream's model list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelEntry {
    pub id: String,
    /// Unix seconds, if the upstream reports them.
    pub created: Option<i64>,
    pub owned_by: Option<String>,
    pub context_window: Option<u64>,
}

/// Returns the rows that have a usable id, in their order; `None` if the body is not a list.
#[must_use]
pub(super) fn read_model_list(body: &[u8]) -> Option<Vec<ModelEntry>> {
    let json = reader::parse(body).ok()?;
    let list =
        if json.is_array() { json } else { json.get("data").or_else(|| json.get("models"))? };
    list.is_array().then(|| list.items().filter_map(read_entry).take(MAX_MODELS).collect())
}

fn read_entry(json: JsonRef<'_>) -> Option<ModelEntry> {
    let text = |key| json.string_at(key);
    let id =
        json.string().or_else(|| text("id")).or_else(|| text("model")).or_else(|| text("name"))?;
    let id = id.strip_prefix("models/").unwrap_or(&id).to_owned();
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) {
        return None;
    }
    let created = json.get("created").and_then(JsonRef::i64).or_else(|| {
        let timestamp = text("created_at").or_else(|| text("modified_at"))?;
        timestamp.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
    });
    let context = [
        "context_length",
        "context_window",
        "max_context_length",
        "max_model_len",
        "inputTokenLimit",
        "max_input_tokens",
    ];
    Some(ModelEntry {
        id,
        created,
        owned_by: text("owned_by"),
        context_window: context.iter().find_map(|key| json.get(key)?.u64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_every_dialect_are_read() {
        let ids = |body: &str| {
            read_model_list(body.as_bytes())
                .map(|list| list.into_iter().map(|m| m.id).collect::<Vec<_>>())
        };
        let some = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            ids(r#"{"object":"list","data":[{"id":"a"},{"id":""},{"x":1},{"id":"b/c:d"}]}"#),
            some(&["a", "b/c:d"])
        );
        assert_eq!(ids(r#"{"models":[{"name":"models/g","inputTokenLimit":5}]}"#), some(&["g"]));
        assert_eq!(
            ids(
                r#"{"models":[{"name":"l:latest","model":"l:latest","modified_at":"2025-01-01T00:00:00Z"}]}"#
            ),
            some(&["l:latest"])
        );
        assert_eq!(ids(r#"[{"id":"t"}]"#), some(&["t"]));
        assert_eq!(ids(r#"{"data":[]}"#), some(&[]));
        assert_eq!(ids(r#"{"error":"x"}"#), None);
        assert_eq!(ids("<html>"), None);
        let row =
            &read_model_list(br#"{"data":[{"id":"a","created_at":"2025-01-01T00:00:00Z","owned_by":"o","context_length":9}]}"#).expect("a list")[0];
        assert_eq!(
            (row.created, row.owned_by.as_deref(), row.context_window),
            (Some(1_735_689_600), Some("o"), Some(9))
        );
    }
}
