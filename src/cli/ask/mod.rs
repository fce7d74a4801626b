//! `aiproxy ask`: sends one question through the proxy and streams the answer to stdout, or compares
//! the speed of several models.

mod answer;
mod bench;
pub(in crate::cli) mod default_model;
mod input;
mod media;
mod session;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    base::sanitize::clean,
    cli::{
        ask::{
            answer::{AnswerSink, StreamedAnswer},
            input::QuestionSource,
            session::{AskFailure, AskSession},
        },
        attach::{self, RunningProxy},
        context::CommandContext,
        error::{CliError, ExitStatus},
        output,
        project::lookup,
    },
};

pub(super) const EXAMPLES: &str = "\
Sends the question to the running proxy with the project's client key, like any other client.
Standard input alone is the question; next to a text or a file it is context, if it is a pipe or
a file. In a loop that reads from a file, `</dev/null` leaves it out. The bytes of a file decide
whether it is sent as an image, a sound, a PDF or text. Ctrl-C stops the answer.

--repeat asks each model N times and prints a table: the time to the first token (TTFT) and the
output tokens per second from then on. Every request is sent and costs what it costs.

Examples:
  aiproxy ask demo/echo \"hello\"
  aiproxy ask smart \"why is the sky blue?\" --system \"one sentence\"
  git diff | aiproxy ask smart \"write a commit message for this diff\"
  aiproxy ask smart \"what is wrong here?\" --file screenshot.png --file src/main.rs
  aiproxy ask --repeat 5 gpt-5-mini claude-haiku-4-5 --prompt \"a haiku about rust\"";

#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// Model, alias or logical model [default: the first that the config offers]
    model: Option<String>,
    /// The question; with --repeat, more models
    #[arg(value_name = "TEXT")]
    words: Vec<String>,
    /// Attach this file: text, image, sound or PDF; `-` is standard input
    #[arg(long = "file", short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Read standard input whatever it is
    #[arg(long)]
    stdin: bool,
    /// The question, as an option
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Send the request as this project
    #[arg(long, value_name = "NAME", default_value = "default")]
    project: String,
    /// Ask each model this many times and compare their speed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: Option<u32>,
}

/// The models and the text that the words of the command line name.
#[derive(Debug, PartialEq)]
struct AskWords {
    /// Empty for the default model.
    models: Vec<String>,
    text: Option<String>,
}

/// Asks the question and prints the answer.
///
/// # Errors
///
/// No proxy is running, the proxy or the provider rejects the request, or the answer ends early.
/// With `--json`, an object with the error is printed too.
pub async fn run(ctx: &CommandContext, args: AskArgs) -> Result<ExitStatus, CliError> {
    match ask(ctx, &args).await {
        Ok(status) => Ok(status),
        // A closed pipe is an error without a text.
        Err(failure) if ctx.global.json && !failure.error.text.is_empty() => {
            output::print_json(&failure.to_json())?;
            Err(CliError::quiet(failure.error.exit))
        }
        Err(failure) => Err(failure.into_error()),
    }
}

async fn ask(ctx: &CommandContext, args: &AskArgs) -> Result<ExitStatus, AskFailure> {
    let source = QuestionSource { text: None, stdin: args.stdin, files: &args.files };
    let words = read_words(args, source.has_input())?;
    let content = QuestionSource { text: words.text, ..source }.read().await?;
    let content = match (content, args.repeat) {
        (Some(content), _) => content,
        (None, Some(_)) => bench::DEFAULT_QUESTION.into(),
        (None, None) => return Err(no_question().into()),
    };
    let Some(proxy) = RunningProxy::try_connect(ctx)? else {
        return Err(attach::not_running_error(ctx).await.into());
    };
    let mut messages = Vec::new();
    messages
        .extend(args.system.as_deref().map(|text| json!({ "role": "system", "content": text })));
    messages.push(json!({ "role": "user", "content": content }));
    let key = lookup::client_key(ctx, &args.project).await?;
    let session = AskSession::new(&attach::base_url_of(ctx, &proxy), key)?;
    if let Some(count) = args.repeat {
        return Ok(bench::run(ctx, &session, &words.models, count, &messages).await?);
    }
    let model = match words.models.into_iter().next() {
        Some(model) => model,
        None => default_model::choose(ctx, &proxy, &args.project).await?,
    };
    ask_once(ctx, &session, &model, &messages).await
}

fn no_question() -> CliError {
    CliError::usage("no question").hint("`aiproxy ask MODEL \"your question\"`")
}

/// Splits the words into models and text. One word may be either: it is the text if it contains a
/// blank, or if there is no other question.
fn read_words(args: &AskArgs, has_input: bool) -> Result<AskWords, CliError> {
    let model = args.model.clone();
    if args.repeat.is_some() {
        let models: Vec<String> = model.into_iter().chain(args.words.iter().cloned()).collect();
        if models.is_empty() {
            return Err(CliError::usage("--repeat needs a model")
                .hint("`aiproxy ask --repeat 5 MODEL MODEL --prompt \"your question\"`"));
        }
        return Ok(AskWords { models, text: args.prompt.clone() });
    }
    let words = (!args.words.is_empty()).then(|| args.words.join(" "));
    match (model, words, args.prompt.clone()) {
        (Some(_), Some(_), Some(_)) => Err(CliError::usage("the question is there twice")
            .hint("give it after the model or with --prompt")),
        (Some(model), None, None) if model.contains(char::is_whitespace) => {
            Ok(AskWords { models: Vec::new(), text: Some(model) })
        }
        (Some(_), None, None) if !has_input => Err(no_question()),
        (model, words, prompt) => {
            Ok(AskWords { models: model.into_iter().collect(), text: words.or(prompt) })
        }
    }
}

async fn ask_once(
    ctx: &CommandContext,
    session: &AskSession,
    model: &str,
    messages: &[Value],
) -> Result<ExitStatus, AskFailure> {
    let sink = match (ctx.global.json, io::stdout().is_terminal()) {
        (true, _) => AnswerSink::Buffer,
        (false, true) => AnswerSink::Terminal,
        (false, false) => AnswerSink::Raw,
    };
    let answer = session.ask(model, messages, sink, false).await?;
    if ctx.global.json {
        output::print_json(&answer_json(&answer))?;
        return Ok(ExitStatus::Ok);
    }
    if let Some(losses) = &answer.losses {
        output::print_note(&format!("note: the model was not sent {}", clean(losses)));
    }
    output::print(if answer.text.ends_with('\n') { "" } else { "\n" })?;
    match answer.finish_reason.as_deref() {
        Some("length") => output::print_note("note: the answer reached the limit of its length"),
        Some("content_filter") => output::print_note("note: the provider's filter cut the answer"),
        _ if answer.text.is_empty() => output::print_note("note: the answer contains no text"),
        _ => {}
    }
    Ok(ExitStatus::Ok)
}

fn answer_json(answer: &StreamedAnswer) -> Value {
    json!({
        "text": answer.text,
        "model": answer.model,
        "upstream": answer.upstream,
        "usage": answer.usage,
        "finish": answer.finish_reason,
        "losses": answer.losses,
        "ttft_ms": answer.first_token.map(bench::milliseconds),
        "total_ms": bench::milliseconds(answer.total),
        "request_id": answer.request_id,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        ask: AskArgs,
    }

    fn words(line: &[&str], has_input: bool) -> Result<AskWords, CliError> {
        let line = Line::try_parse_from(["ask"].iter().chain(line)).unwrap();
        read_words(&line.ask, has_input)
    }

    #[test]
    fn first_word_is_the_model_if_a_prompt_follows() {
        let of = |models: &[&str], text: Option<&str>| AskWords {
            models: models.iter().map(|&model| model.to_owned()).collect(),
            text: text.map(str::to_owned),
        };
        assert_eq!(words(&["m", "why", "so?"], false).unwrap(), of(&["m"], Some("why so?")));
        assert_eq!(words(&["m"], true).unwrap(), of(&["m"], None));
        assert_eq!(words(&["why so?"], false).unwrap(), of(&[], Some("why so?")));
        assert_eq!(words(&["m", "--prompt", "p"], false).unwrap(), of(&["m"], Some("p")));
        assert_eq!(words(&["--prompt", "p"], false).unwrap(), of(&[], Some("p")));
        assert_eq!(
            words(&["--repeat", "2", "a", "b", "--prompt", "p"], false).unwrap(),
            of(&["a", "b"], Some("p"))
        );
        for wrong in [&["m"][..], &["--repeat", "2"], &["m", "x", "--prompt", "p"]] {
            assert_eq!(words(wrong, false).unwrap_err().exit, ExitStatus::Usage, "{wrong:?}");
        }
    }

    #[test]
    fn zero_repeats_are_a_usage_error() {
        assert!(Line::try_parse_from(["ask", "--repeat", "0", "m"]).is_err());
    }
}
