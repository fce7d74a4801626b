//! What a dashboard or a command may ask of a running proxy: the body of `POST /aiproxy/v1/act`,
//! and its answer.

use serde::{Deserialize, Serialize};

use crate::base::id::RequestId;

/// One act. A `key` is `UPSTREAM/LABEL`, or `UPSTREAM` where it has one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Lets a key rest, for all models or one; without a span until it is warmed.
    Cool {
        key: String,
        model: Option<String>,
        for_ms: Option<u64>,
    },
    CoolUpstream {
        upstream: String,
        for_ms: Option<u64>,
    },
    DisableKey {
        key: String,
    },
    DisableUpstream {
        upstream: String,
    },
    EnableKey {
        key: String,
    },
    EnableUpstream {
        upstream: String,
    },
    /// Ends a running request; a unique beginning of its id will do.
    Kill {
        id: String,
    },
    Reload,
    /// Sends a request from before once more, perhaps to another model.
    Replay {
        id: String,
        model: Option<String>,
    },
    Stop {
        now: bool,
    },
    /// Sends the smallest request that shows whether a key works.
    Test {
        key: String,
    },
    /// Sends an alert every way that is configured, and says how that went.
    TestAlerts,
    /// Forgets why a key rests, with everything narrower; without a key, all of them.
    Warm {
        key: Option<String>,
        model: Option<String>,
    },
    WarmUpstream {
        upstream: String,
    },
}

/// What came of an act, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionReply {
    pub ok: bool,
    pub text: String,
    /// The request that this began, if it began one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_have_stable_words_and_may_leave_out_what_is_optional() {
        for (json, want) in [
            (r#"{"action":"reload"}"#, Action::Reload),
            (r#"{"action":"kill","id":"7f3a"}"#, Action::Kill { id: "7f3a".to_owned() }),
            (r#"{"action":"warm"}"#, Action::Warm { key: None, model: None }),
            (
                r#"{"action":"cool","key":"openai/work","for_ms":5}"#,
                Action::Cool { key: "openai/work".to_owned(), model: None, for_ms: Some(5) },
            ),
            (
                r#"{"action":"warm_upstream","upstream":"groq"}"#,
                Action::WarmUpstream { upstream: "groq".to_owned() },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Action>(json).unwrap(), want);
            assert_eq!(
                serde_json::from_str::<Action>(&serde_json::to_string(&want).unwrap()).unwrap(),
                want
            );
        }
    }
}
