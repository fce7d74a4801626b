//! Builds curl commands for pasting into a shell, so their text must not hide control characters.

use crate::{base::sanitize::clean, control::snapshot::Snapshot, events::record::RequestRecord};

/// Upper bound for bodies in a command; users do not paste longer ones.
const MAX_BODY_BYTES: usize = 60_000;

/// A command that sends a greeting to a model.
#[must_use]
pub fn hello_command(snapshot: &Snapshot, model: &str) -> String {
    let messages = serde_json::json!([{"role": "user", "content": "hello"}]);
    let body = serde_json::json!({"model": clean(model), "messages": messages});
    curl_command(snapshot, "/v1/chat/completions", &body.to_string())
}

/// A command that sends the original request again. `None` if the request was not stored completely
/// or has no path of its own.
#[must_use]
pub fn replay_command(snapshot: &Snapshot, record: &RequestRecord, body: &str) -> Option<String> {
    if body.len() > MAX_BODY_BYTES
        || body.chars().any(char::is_control)
            && !body.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r'))
    {
        return None;
    }
    let path = match (record.dialect.name(), record.op.name()) {
        ("openai", "chat") => "/v1/chat/completions".to_owned(),
        ("openai", "completions") => "/v1/completions".to_owned(),
        ("openai", "embed") => "/v1/embeddings".to_owned(),
        ("responses", "chat") => "/v1/responses".to_owned(),
        ("anthropic", "chat") => "/v1/messages".to_owned(),
        ("anthropic", "count_tokens") => "/v1/messages/count_tokens".to_owned(),
        ("ollama", "chat") if body.contains("\"messages\"") => "/api/chat".to_owned(),
        ("ollama", "chat") => "/api/generate".to_owned(),
        ("gemini", "chat") => {
            let name: String = record
                .requested_model
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/'))
                .collect();
            let action =
                if record.stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            format!("/v1beta/models/{name}:{action}")
        }
        _ => return None,
    };
    Some(curl_command(snapshot, &path, body))
}

fn curl_command(snapshot: &Snapshot, path: &str, body: &str) -> String {
    let base = snapshot.listen.first().map_or("127.0.0.1:8642", String::as_str);
    format!(
        "curl http://{}{} -H \"authorization: Bearer $OPENAI_API_KEY\" \
         -H 'content-type: application/json' -d '{}'",
        clean(base),
        if path.contains('?') { format!("'{path}'") } else { path.to_owned() },
        body.replace('\'', r"'\''")
    )
}

/// The first model that clients can request.
#[must_use]
pub fn first_model(snapshot: &Snapshot) -> &str {
    snapshot.models.first().map_or("auto", |model| model.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::sample;

    #[test]
    fn copied_command_is_quoted_for_the_shell() {
        let app = sample::app();
        let snapshot = app.snapshot.as_ref().unwrap();
        let curl = hello_command(snapshot, "a'; rm -rf ~; '\x1b[31m");
        assert!(curl.ends_with(r#"-d '{"messages":[{"content":"hello","role":"user"}],"model":"a'\''; rm -rf ~; '\''^[[31m"}'"#), "{curl}");

        let record = sample::finished(1, "m", "healthy", 200, 10);
        assert!(replay_command(snapshot, &record, "{\"a\":\"it's\"}").unwrap().ends_with(
            r#"/v1/chat/completions -H "authorization: Bearer $OPENAI_API_KEY" -H 'content-type: application/json' -d '{"a":"it'\''s"}'"#
        ));
        assert_eq!(replay_command(snapshot, &record, "\x1b[31m"), None);
    }
}
