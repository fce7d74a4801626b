//! Proves for every row of facts that a request contains nothing that the row refuses.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use serde_json::Value;

use crate::{
    base::pattern::Patterns,
    config::{
        Settings,
        model_facts::{self, FactsRow, ModelAt},
    },
    dialect::{ChatEndpoint, TargetTraits, fit, registry},
    ir::{
        generation_settings::Effort,
        model_facts::{
            Acceptance, ChoiceForm, LimitField, Modality, ModelFacts, StructuredOutput,
            SystemPosition, ThinkingControl,
        },
        op::Dialect,
        request::ChatRequest,
    },
};

/// Requests that use every field of a dialect at once.
const EVERYTHING: &str = include_str!("../../../dialect/losses/everything.json");

fn request_with_everything(client: Dialect) -> ChatRequest {
    let all: Value = serde_json::from_str(EVERYTHING).expect("json");
    let body = all[client.name()].to_string();
    registry::ingress(client).read_request(ChatEndpoint::Chat, body.as_bytes()).expect("a request")
}

/// Returns names that a row matches.
fn sample_names(patterns: &Patterns) -> Vec<String> {
    let names = patterns.include.iter().map(|pattern| pattern.text().replace('*', ""));
    names.map(|name| if name.is_empty() { "my-model".to_owned() } else { name }).collect()
}

fn dialects_of(row: &FactsRow) -> Vec<Dialect> {
    if row.dialects.is_empty() { Dialect::ALL.to_vec() } else { row.dialects.clone() }
}

/// A request as sent, in the places where each dialect has its fields.
struct Sent<'a> {
    dialect: Dialect,
    body: &'a Value,
}

impl Sent<'_> {
    fn settings(&self) -> &Value {
        match self.dialect {
            Dialect::Gemini => &self.body["generationConfig"],
            Dialect::Ollama => &self.body["options"],
            _ => self.body,
        }
    }

    fn setting(&self, name: &str) -> &Value {
        let camel = match (self.dialect, name) {
            (Dialect::Gemini, "top_p") => "topP",
            (Dialect::Gemini, "top_k") => "topK",
            (Dialect::Gemini, "frequency_penalty") => "frequencyPenalty",
            (Dialect::Gemini, "presence_penalty") => "presencePenalty",
            (Dialect::Gemini, "stop") => "stopSequences",
            (Dialect::Gemini, "logprobs") => "responseLogprobs",
            (Dialect::Anthropic, "stop") => "stop_sequences",
            _ => name,
        };
        &self.settings()[camel]
    }

    fn effort(&self) -> Option<&str> {
        match self.dialect {
            Dialect::Anthropic => self.body["output_config"]["effort"].as_str(),
            Dialect::Gemini => self.thinking_config()["thinkingLevel"].as_str(),
            Dialect::Ollama => self.body["think"].as_str(),
            Dialect::Openai => self.body["reasoning_effort"].as_str(),
            Dialect::Responses => self.body["reasoning"]["effort"].as_str(),
        }
    }

    fn thinking_config(&self) -> &Value {
        &self.body["generationConfig"]["thinkingConfig"]
    }

    fn budget(&self) -> Option<i64> {
        match self.dialect {
            Dialect::Anthropic => self.body["thinking"]["budget_tokens"].as_i64(),
            Dialect::Gemini => self.thinking_config()["thinkingBudget"].as_i64(),
            _ => None,
        }
    }

    /// Whether anything is said about the amount of thinking.
    fn sets_thinking(&self) -> bool {
        let switch = match self.dialect {
            Dialect::Anthropic | Dialect::Openai => {
                !self.body["thinking"].is_null() || !self.body["enable_thinking"].is_null()
            }
            Dialect::Ollama => !self.body["think"].is_null(),
            _ => false,
        };
        switch || self.effort().is_some() || self.budget().is_some()
    }

    fn turns_thinking_off(&self) -> bool {
        self.effort() == Some("none")
            || self.budget() == Some(0)
            || self.body["thinking"]["type"] == "disabled"
            || self.body["enable_thinking"] == false
            || self.dialect == Dialect::Ollama && self.body["think"] == false
    }

    fn has_tools(&self) -> bool {
        self.body["tools"].as_array().is_some_and(|tools| !tools.is_empty())
    }

    fn choice(&self) -> Option<ChoiceForm> {
        let choice = match self.dialect {
            Dialect::Gemini => &self.body["toolConfig"]["functionCallingConfig"],
            _ => &self.body["tool_choice"],
        };
        let word = choice.as_str().or(choice["type"].as_str()).or(choice["mode"].as_str())?;
        let several = !choice["allowedFunctionNames"].is_null() || choice["tools"].is_array();
        Some(match word {
            "required" | "any" | "ANY" if !several => ChoiceForm::Required,
            "none" | "NONE" => ChoiceForm::None,
            "auto" | "AUTO" => ChoiceForm::Auto,
            _ => ChoiceForm::Named,
        })
    }

    fn parallel(&self) -> bool {
        !self.body["parallel_tool_calls"].is_null()
            || !self.body["tool_choice"]["disable_parallel_tool_use"].is_null()
    }

    fn structured(&self) -> StructuredOutput {
        let (schema, json) = match self.dialect {
            Dialect::Anthropic => (!self.body["output_config"]["format"].is_null(), false),
            Dialect::Gemini => {
                let config = &self.body["generationConfig"];
                (
                    !config["responseJsonSchema"].is_null() || !config["responseSchema"].is_null(),
                    config["responseMimeType"] == "application/json",
                )
            }
            Dialect::Ollama => (self.body["format"].is_object(), self.body["format"] == "json"),
            Dialect::Openai => {
                let kind = &self.body["response_format"]["type"];
                (kind == "json_schema", kind == "json_object")
            }
            Dialect::Responses => {
                let kind = &self.body["text"]["format"]["type"];
                (kind == "json_schema", kind == "json_object")
            }
        };
        match (schema, json) {
            (true, _) => StructuredOutput::Schema,
            (false, true) => StructuredOutput::Json,
            (false, false) => StructuredOutput::None,
        }
    }

    fn turns(&self) -> &[Value] {
        let key = match self.dialect {
            Dialect::Gemini => "contents",
            Dialect::Responses => "input",
            _ => "messages",
        };
        self.body[key].as_array().map_or(&[], Vec::as_slice)
    }

    fn limit(&self) -> Option<u64> {
        let limits = match self.dialect {
            Dialect::Gemini => ["maxOutputTokens", "maxOutputTokens"],
            Dialect::Ollama => ["num_predict", "num_predict"],
            Dialect::Responses => ["max_output_tokens", "max_output_tokens"],
            _ => ["max_tokens", "max_completion_tokens"],
        };
        limits.iter().find_map(|key| self.settings()[*key].as_u64())
    }

    /// Lists everything that contradicts the facts.
    fn contradictions(&self, facts: &ModelFacts) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        let off = self.turns_thinking_off() || facts.thinking == Some(ThinkingControl::Never);
        let default_off = !self.sets_thinking() && facts.default_effort == Some(Effort::None);
        let refuses = |acceptance: Option<Acceptance>| match acceptance {
            Some(Acceptance::Yes) => false,
            Some(Acceptance::WithoutThinking) => !(off || default_off),
            Some(Acceptance::No) => true,
            None => false,
        };
        for (names, acceptance) in [
            (&["temperature"][..], facts.temperature),
            (&["top_p"], facts.top_p),
            (&["top_k"], facts.top_k),
            (&["frequency_penalty", "presence_penalty"], facts.penalties),
            (&["stop"], facts.stop),
            (&["seed"], facts.seed),
            (&["n"], facts.n),
            (&["logprobs", "top_logprobs"], facts.logprobs),
        ] {
            for name in names {
                let sent = !self.setting(name).is_null();
                check(!(sent && refuses(acceptance)), name);
            }
        }
        let both = !self.setting("temperature").is_null() && !self.setting("top_p").is_null();
        check(!(both && facts.temperature_with_top_p == Some(false)), "both samplers");
        if self.dialect == Dialect::Openai {
            let other = match facts.limit_field {
                Some(LimitField::MaxCompletionTokens) => "max_tokens",
                Some(LimitField::MaxTokens) | None => "max_completion_tokens",
            };
            check(self.body[other].is_null(), other);
        }
        let within = |limit: u64| facts.max_output.is_none_or(|max| limit <= max);
        check(self.dialect == Dialect::Ollama || self.limit().is_none_or(within), "limit");
        self.check_thinking(facts, &mut check);
        self.check_tools(facts, &mut check);
        self.check_conversation(facts, &mut check);
        wrong
    }

    fn check_thinking(&self, facts: &ModelFacts, check: &mut impl FnMut(bool, &str)) {
        match facts.thinking {
            None | Some(ThinkingControl::Fixed) => check(!self.sets_thinking(), "thinking"),
            Some(ThinkingControl::Never) => {
                check(!self.sets_thinking() || self.turns_thinking_off(), "thinking");
            }
            Some(ThinkingControl::Switch) => check(self.effort().is_none(), "a word"),
            Some(_) => {}
        }
        if let (Some(words), Some(effort)) = (&facts.efforts, self.effort()) {
            let effort = Effort::parse(effort).expect("an effort");
            check(words.contains(&effort), "effort");
        }
        if facts.thinking == Some(ThinkingControl::Budget) && facts.efforts.is_none() {
            check(self.effort().is_none(), "effort beside a budget");
        }
        if let Some(budget) = self.budget().and_then(|budget| u64::try_from(budget).ok()) {
            let off = budget == 0 && facts.thinking_off == Some(true);
            let low = facts.min_budget.is_none_or(|min| min <= budget);
            let high = facts.max_budget.is_none_or(|max| budget <= max);
            check(off || low && high, "budget");
        }
        check(facts.thinking_off != Some(false) || !self.turns_thinking_off(), "thinking off");
    }

    fn check_tools(&self, facts: &ModelFacts, check: &mut impl FnMut(bool, &str)) {
        check(!(facts.tools == Some(false) && self.has_tools()), "tools");
        if let (Some(forms), Some(choice)) = (&facts.tool_choice, self.choice()) {
            check(forms.contains(&choice), "tool choice");
        }
        check(facts.parallel_calls == Some(true) || !self.parallel(), "parallel calls");
        let functions = self.has_tools();
        match (facts.structured_output, self.structured()) {
            (_, StructuredOutput::None) | (Some(StructuredOutput::Schema), _) => {}
            (Some(StructuredOutput::Json), sent) => {
                check(sent == StructuredOutput::Json, "structured output");
            }
            (None | Some(StructuredOutput::None), _) => check(false, "structured output"),
        }
        if functions && self.structured() != StructuredOutput::None {
            check(facts.structured_with_tools == Some(true), "structured output beside tools");
        }
        if matches!(self.dialect, Dialect::Openai | Dialect::Responses) {
            let verbosity = match self.dialect {
                Dialect::Openai => &self.body["verbosity"],
                _ => &self.body["text"]["verbosity"],
            };
            for (value, accepted, name) in [
                (verbosity, facts.verbosity, "verbosity"),
                (&self.body["prompt_cache_key"], facts.prompt_cache_key, "prompt_cache_key"),
                (&self.body["service_tier"], facts.service_tier, "service_tier"),
                (&self.body["user"], facts.user, "user"),
            ] {
                check(value.is_null() || accepted == Some(true), name);
            }
        }
    }

    fn check_conversation(&self, facts: &ModelFacts, check: &mut impl FnMut(bool, &str)) {
        if facts.system_messages == Some(SystemPosition::First) {
            let is_system =
                |turn: &Value| matches!(turn["role"].as_str(), Some("system" | "developer"));
            let after_first = self.turns().iter().skip_while(|turn| is_system(turn));
            check(!after_first.into_iter().any(is_system), "system message in the middle");
        }
        if facts.prefill == Some(false) {
            let last = self.turns().last().and_then(|turn| turn["role"].as_str());
            check(!matches!(last, Some("assistant" | "model")), "prefill");
        }
        let text = self.body.to_string();
        let media: BTreeSet<&str> =
            ["\"image_url\":", "\"input_image\"", "\"type\":\"image\"", "\"images\":"].into();
        if facts.reads(Modality::Image) == Some(false) {
            check(!media.iter().any(|mark| text.contains(mark)), "image");
        }
    }
}

/// Writes a request and returns what contradicts the facts.
fn contradictions(request: &ChatRequest, dialect: Dialect, facts: &Arc<ModelFacts>) -> Vec<String> {
    let traits = TargetTraits::from_facts("m", Arc::clone(facts), "seed".to_owned());
    let mut fitted = request.clone();
    let encoded = fit::encode_fitted(&mut fitted, dialect, &traits);
    assert_eq!(fitted, *request, "the request is changed");
    let body: Value = serde_json::from_slice(&encoded.body).expect("json");
    Sent { dialect, body: &body }.contradictions(facts)
}

/// Returns every model that some row matches: its provider, dialect and name, and its facts.
fn models_of_all_rows() -> Vec<(String, Dialect, Arc<ModelFacts>)> {
    let (settings, mut seen, mut out) = (Settings::default(), HashSet::new(), Vec::new());
    for row in model_facts::built_in_rows() {
        let providers = row.providers.as_ref().map(sample_names);
        let providers = providers.map_or(vec![None], |names| names.into_iter().map(Some).collect());
        for (provider, name) in providers.iter().flat_map(|provider| {
            sample_names(&row.names).into_iter().map(move |name| (provider.as_deref(), name))
        }) {
            for dialect in dialects_of(row) {
                let at = ModelAt { upstream: "u", provider, dialect, model: &name };
                let known = model_facts::look_up(&settings, None, at);
                // Many names have the same facts.
                if seen.insert((dialect, format!("{:?}", known.facts))) {
                    out.push((format!("{name} at {provider:?}"), dialect, known.facts));
                }
            }
        }
    }
    out
}

#[test]
fn fields_refused_by_a_model_are_never_sent() {
    let models = models_of_all_rows();
    assert!(models.len() > 300, "{}", models.len());
    let mut wrong = Vec::new();
    for client in Dialect::ALL {
        let request = request_with_everything(client);
        for (name, dialect, facts) in &models {
            for what in contradictions(&request, *dialect, facts) {
                wrong.push(format!("{client} → {dialect}, {name}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}
