//! The actions that a viewer or a command can request from a running proxy: the body of `POST
//! /aiproxy/v1/act` and its reply.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    base::id::RequestId, control::action_message::ActionMessage,
    ir::reason::text_field::text_and_reason,
};

/// One action. A `key` is `UPSTREAM/LABEL`, or `UPSTREAM` if the upstream has a single key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Returns the client key of a project as the reply's text; only for the control token.
    ClientKey {
        project: String,
    },
    /// Cools a key for all models or for one; without a duration, until the key is warmed.
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
    /// Forgets what was learned of models from refusals; without names, of all models.
    Forget {
        models: Vec<String>,
    },
    /// Ends a running request; accepts a unique prefix of its id.
    Kill {
        id: String,
    },
    Reload,
    /// Sends an earlier request again, optionally to another model.
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
    /// Sends a test alert to every configured receiver and reports the results.
    TestAlerts,
    /// Clears the cooldown of a key and all narrower ones; without a key, of all keys.
    Warm {
        key: Option<String>,
        model: Option<String>,
    },
    WarmUpstream {
        upstream: String,
    },
}

/// The result of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionReply {
    pub ok: bool,
    #[serde(flatten, with = "text_and_reason")]
    pub text: Arc<ActionMessage>,
    /// The request that the action started, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_have_stable_names_and_optional_fields() {
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
