//! Cards of models in lists, in the format of the client's dialect. They contain only limits and
//! capabilities that are known for every target of the name.

use serde_json::{Value, json};

use crate::{
    base::clock::UnixMillis,
    ir::{
        model_facts::{FactWord as _, Modality, ModelFacts},
        op::Dialect,
    },
    routing::{facts_book::FactsBook, listing::ListedName},
};

/// What is announced of a name.
#[derive(Debug, Default, PartialEq)]
struct Announcement {
    context: Option<u64>,
    max_output: Option<u64>,
    input: Vec<Modality>,
    output: Vec<Modality>,
    thinks: bool,
}

impl Announcement {
    /// Returns what holds for all targets of a name, because any of them may answer.
    fn of(model: &ListedName, book: &FactsBook) -> Self {
        let targets = model.routes.iter().filter_map(|route| {
            let dialect = route.upstream.endpoints.first()?.dialect;
            let announced = book.announce(&route.upstream, dialect, &route.model);
            Some(Self::from_facts(&announced.known.facts, announced.thinks))
        });
        targets.reduce(|all, one| all.shared_with(&one)).unwrap_or_default()
    }

    fn from_facts(facts: &ModelFacts, thinks: bool) -> Self {
        Self {
            context: facts.context,
            max_output: facts.max_output,
            input: facts.input.clone().unwrap_or_default(),
            output: facts.output.clone().unwrap_or_default(),
            thinks,
        }
    }

    fn shared_with(mut self, other: &Self) -> Self {
        let smaller = |one: Option<u64>, two: Option<u64>| Some(one?.min(two?));
        self.context = smaller(self.context, other.context);
        self.max_output = smaller(self.max_output, other.max_output);
        self.input.retain(|modality| other.input.contains(modality));
        self.output.retain(|modality| other.output.contains(modality));
        self.thinks &= other.thinks;
        self
    }
}

/// Returns the card of a name.
pub(super) fn model_card(model: &ListedName, dialect: Dialect, book: &FactsBook) -> Value {
    // Few providers report when a model was created, but the field is required.
    let (created, at) = (0, UnixMillis(0).to_string());
    let owner = model.routes.first().map_or("aiproxy", |route| &route.upstream.name);
    let name = &*model.name;
    let known = || Announcement::of(model, book);
    let mut card = match dialect {
        Dialect::Gemini => json!({
            "name": format!("models/{name}"),
            "displayName": name,
            "version": "",
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }),
        Dialect::Anthropic => {
            json!({ "type": "model", "id": name, "display_name": name, "created_at": at })
        }
        Dialect::Ollama => {
            return json!({ "name": name, "model": name, "modified_at": at, "size": 0, "digest": "", "details": {} });
        }
        Dialect::Openai | Dialect::Responses => {
            json!({ "id": name, "object": "model", "created": created, "owned_by": owner })
        }
    };
    add_limits(&mut card, dialect, &known());
    card
}

/// Adds what is known under the names that the dialect's clients read.
fn add_limits(card: &mut Value, dialect: Dialect, known: &Announcement) {
    let (context, output) = match dialect {
        Dialect::Gemini => ("inputTokenLimit", "outputTokenLimit"),
        Dialect::Anthropic => ("max_input_tokens", "max_tokens"),
        _ => ("context_length", "max_output_tokens"),
    };
    for (key, value) in [(context, known.context), (output, known.max_output)] {
        if let Some(value) = value {
            card[key] = value.into();
        }
    }
    match dialect {
        Dialect::Gemini if known.thinks => card["thinking"] = true.into(),
        Dialect::Openai | Dialect::Responses if !known.input.is_empty() => {
            let words = |list: &[Modality]| -> Vec<&str> {
                list.iter().map(|modality| modality.word()).collect()
            };
            card["architecture"] = json!({ "input_modalities": words(&known.input) });
            if !known.output.is_empty() {
                card["architecture"]["output_modalities"] = json!(words(&known.output));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_card_lists_what_every_target_supports() {
        let big = ModelFacts {
            context: Some(200_000),
            max_output: Some(64_000),
            input: Some(vec![Modality::Text, Modality::Image]),
            ..ModelFacts::default()
        };
        let small = ModelFacts {
            context: Some(8_000),
            input: Some(vec![Modality::Text]),
            ..ModelFacts::default()
        };
        let shared = Announcement::from_facts(&big, true)
            .shared_with(&Announcement::from_facts(&small, false));
        assert_eq!(
            shared,
            Announcement {
                context: Some(8_000),
                input: vec![Modality::Text],
                ..Announcement::default()
            }
        );
        let mut card = json!({});
        add_limits(&mut card, Dialect::Anthropic, &shared);
        assert_eq!(card, json!({ "max_input_tokens": 8_000 }));
    }
}
