//! Checks that every loss has a row in the table.

use std::{fs, path::Path};

use regex::Regex;
use serde_json::Value;

use super::*;
use crate::dialect::{
    egress::{TargetTraits, Thinking},
    ingress::ChatEndpoint,
    registry,
    tests::recorded,
};

fn traits(thinking: Thinking, takes_reasoning: bool, max_output: u64) -> TargetTraits {
    TargetTraits {
        model: "m".to_owned(),
        stream: false,
        max_output: Some(max_output),
        thinking,
        max_tokens_field: "max_tokens",
        developer_role: false,
        accepts_reasoning: takes_reasoning,
        ask_usage: true,
        facts: Default::default(),
        call_id_seed: "seed".to_owned(),
    }
}

/// Whether a text occurs in a request as a key or a value, in either spelling.
fn occurs(word: &str, body: &str) -> bool {
    let snake: String = word
        .chars()
        .flat_map(|c| {
            c.is_ascii_uppercase().then_some('_').into_iter().chain([c.to_ascii_lowercase()])
        })
        .collect();
    [word, &snake].iter().any(|word| body.contains(&format!("\"{word}\"")))
}

/// Lists the unexplained losses of one request into every dialect, and adds all losses to `seen`.
fn unexplained(client: Dialect, body: &str, seen: &mut Vec<(Dialect, String)>) -> Vec<String> {
    let Ok(request) = registry::ingress(client).read_request(ChatEndpoint::Chat, body.as_bytes())
    else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for to in Dialect::ALL {
        for traits in [
            traits(Thinking::Effort, true, 64_000),
            traits(Thinking::Budget, false, 200),
            traits(Thinking::Unsupported, false, 200),
        ] {
            for loss in registry::egress(to).write_request(&request, &traits).losses {
                match find_row(&loss.0, to) {
                    None => {
                        wrong.push(format!("{client} → {to}: `{}` is not in the table", loss.0));
                    }
                    // A pattern may explain only a word of the client, not a name from aiproxy's
                    // code that has no row.
                    Some(row)
                        if row.is_pattern()
                            && !occurs(loss.0.rsplit('.').next().unwrap_or_default(), body) =>
                    {
                        wrong.push(format!(
                            "{client} → {to}: `{}` has only the line `{}`",
                            loss.0, row.name
                        ));
                    }
                    Some(_) => seen.push((to, loss.0.into_owned())),
                }
            }
        }
    }
    wrong
}

#[test]
fn every_loss_of_a_recorded_request_is_documented() {
    let mut wrong = Vec::new();
    for (api, client) in [
        ("openai.chat", Dialect::Openai),
        ("openai.responses", Dialect::Responses),
        ("anthropic.messages", Dialect::Anthropic),
        ("vertex.anthropic", Dialect::Anthropic),
        ("gemini.generateContent", Dialect::Gemini),
        ("gemini.streamGenerateContent", Dialect::Gemini),
        ("ollama.chat", Dialect::Ollama),
    ] {
        for x in recorded::load_exchanges(&[api]) {
            wrong.extend(
                unexplained(client, &x.request.to_string(), &mut Vec::new())
                    .into_iter()
                    .map(|what| format!("{}: {what}", x.id)),
            );
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

/// A request that uses every feature of a dialect at once.
fn everything(client: Dialect) -> Value {
    let all: Value = serde_json::from_str(include_str!("everything.json")).expect("json");
    all[client.name()].clone()
}

#[test]
fn request_with_every_field_loses_only_documented_ones() {
    let (mut wrong, mut seen) = (Vec::new(), Vec::new());
    for client in Dialect::ALL {
        let body = everything(client).to_string();
        assert!(
            registry::ingress(client).read_request(ChatEndpoint::Chat, body.as_bytes()).is_ok(),
            "{client}"
        );
        wrong.extend(unexplained(client, &body, &mut seen));
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    for (to, name) in [
        (Dialect::Anthropic, "seed"),
        (Dialect::Gemini, "messages.cache_control"),
        (Dialect::Ollama, "tool_choice"),
        (Dialect::Openai, "reasoning.proof"),
        (Dialect::Responses, "stop"),
    ] {
        assert!(seen.contains(&(to, name.to_owned())), "{name} to {to}");
    }
}

/// Reads the names from the writers' code, which includes those that no request here causes.
#[test]
fn every_loss_name_in_the_writers_is_documented() {
    let patterns = [
        r#"(?:losses|lost)\.add\((?:&?format!\()?"([^"]+)""#,
        r#"(?:losses|lost)\.when\([^\n]*"([^"]+)"\);"#,
        r#"Err\("([a-z_]+\.[a-z_]+)"\)"#,
        r#"(?m)^\s*\("([a-z_]+)", (?:settings|s|differs)[.(]"#,
        r#"=> "((?:messages|tools)\.[a-z_]+)""#,
        r#"\("[a-zA-Z]+", "(tools\.[a-z_]+)"\)"#,
    ]
    .map(|pattern| Regex::new(pattern).expect("a pattern"));
    let mut found = 0;
    for to in Dialect::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dialect").join(to.name());
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("listed").path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for capture in patterns.iter().flat_map(|pattern| pattern.captures_iter(code)) {
                // `{key}` stands for a word of the client; alone it is one of the request's fields.
                let name = capture[1].replace(['{', '}'], "_");
                if !capture[1].starts_with('{') {
                    assert!(
                        find_row(&name, to)
                            .is_some_and(|row| !row.is_pattern() || capture[1].contains('{')),
                        "{name} in {}",
                        path.display()
                    );
                    found += 1;
                }
            }
        }
    }
    assert!(found > 80, "only {found} names found");
}

#[test]
fn exact_row_takes_precedence_over_a_pattern() {
    for (name, to, want) in [
        ("seed", Dialect::Anthropic, Some("seed")),
        ("echo_x", Dialect::Openai, Some("<field>")),
        ("tools.schema.$ref", Dialect::Gemini, Some("tools.schema.<keyword>")),
        ("tools.memory_1", Dialect::Gemini, Some("tools.<type or field>")),
    ] {
        assert_eq!(find_row(name, to).map(|row| row.name), want, "{name} to {to}");
    }
    assert!(to_markdown().contains("### To `gemini`\n"));
}

#[test]
fn loss_is_named_once_and_fits_a_header() {
    let mut losses = Losses::default();
    ["a", "a", "b\r\n,c"].into_iter().for_each(|field| losses.add(field));
    losses.when(false, "d");
    losses.add("é".repeat(100) + &"x".repeat(100));
    assert_eq!(
        losses.into_vec(),
        [Loss("a".into()), Loss("bc".into()), Loss("x".repeat(80).into())]
    );
}
