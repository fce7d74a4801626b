//! Reads recorded traffic for tests from the folder that `AIPROXY_EXCHANGES` names, or from
//! `../shared/exchanges`.

use std::{env, fs, path::PathBuf};

use serde_json::Value;

/// One recorded exchange of an HTTP API.
pub(in crate::dialect) struct RecordedExchange {
    pub id: String,
    pub api: String,
    pub streaming: bool,
    pub status: u16,
    /// `json`, `sse`, `ndjson`, `text`.
    pub kind: String,
    pub content_type: String,
    /// The body of the client's request, as JSON.
    pub request: Value,
    pub response: String,
    pub features: Vec<String>,
}

/// Returns all exchanges of the APIs, or an empty list if the folder is absent.
#[expect(clippy::print_stderr, reason = "a skipped test reports it")]
pub(in crate::dialect) fn load_exchanges(apis: &[&str]) -> Vec<RecordedExchange> {
    #[expect(clippy::disallowed_methods, reason = "the environment names the folder of recordings")]
    let configured = env::var("AIPROXY_EXCHANGES").ok().map(PathBuf::from);
    let folder = configured
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/exchanges"));
    let Ok(index) = fs::read_to_string(folder.join("index.json")) else {
        eprintln!("skipped: no recorded exchanges at {}", folder.display());
        return Vec::new();
    };
    let index: Vec<Value> = serde_json::from_str(&index).expect("an index");
    let wanted = index.into_iter().filter(|row| apis.iter().any(|api| row["api"] == *api));
    wanted
        .map(|row| {
            let text = fs::read_to_string(folder.join(row["file"].as_str().expect("a file")))
                .expect("readable");
            let x: Value = serde_json::from_str(&text).expect("an exchange");
            let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            RecordedExchange {
                id: string(&x["id"]),
                api: string(&x["api"]),
                streaming: x["streaming"] == true,
                status: x["response"]["status"].as_u64().expect("a status") as u16,
                kind: string(&x["response_kind"]),
                content_type: string(&x["response"]["headers"]["content-type"]),
                request: x["request"]["body"].clone(),
                response: string(&x["response"]["body"]),
                features: x["features"].as_array().into_iter().flatten().map(string).collect(),
            }
        })
        .collect()
}
