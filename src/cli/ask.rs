//! `aiproxy ask`: sends one prompt through the proxy and streams the answer to stdout.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    base::{
        framing::{
            splitter::NextFrame,
            sse::{self, SseSplitter},
        },
        sanitize::clean,
    },
    cli::{
        attach::{self, RunningProxy},
        context::CommandContext,
        error::{CliError, ExitStatus},
        expose::expose_secret,
        output,
        project::lookup,
        prompt,
    },
};

pub(super) const EXAMPLES: &str = "\
Sends the prompt to the running proxy with the project's client key, like any other client.
Ctrl-C stops the answer.

Examples:
  aiproxy ask demo/echo \"hello\"
  aiproxy ask smart \"why is the sky blue?\" --system \"one sentence\"
  git diff | aiproxy ask smart \"write a commit message for this diff\" --stdin";

/// Upper bound for bytes read from standard input.
const MAX_STDIN_BYTES: u64 = 16 << 20;
/// Upper bound for bytes read from an error response.
const MAX_ERROR_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// Model, alias or logical model
    model: String,
    /// The prompt
    prompt: Option<String>,
    /// Append standard input to the prompt
    #[arg(long)]
    stdin: bool,
    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Send the request as this project
    #[arg(long, value_name = "NAME", default_value = "default")]
    project: String,
}

/// Sends the prompt and prints the answer.
///
/// # Errors
///
/// No proxy is running, the proxy or the provider rejects the request, or the answer ends early.
pub async fn run(ctx: &CommandContext, args: AskArgs) -> Result<ExitStatus, CliError> {
    let prompt = read_prompt(&args).await?;
    let base = match RunningProxy::try_connect(ctx)? {
        Some(proxy) => attach::base_url_of(ctx, &proxy),
        None => return Err(attach::not_running_error(ctx).await),
    };
    let mut messages = Vec::new();
    messages
        .extend(args.system.as_deref().map(|text| json!({ "role": "system", "content": text })));
    messages.push(json!({ "role": "user", "content": prompt }));
    let body = json!({ "model": args.model, "stream": true, "messages": messages });
    let key = lookup::client_key(ctx, &args.project).await?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("aiproxy-ask/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| transport_error(&e))?;
    let request = client
        .post(format!("{base}/v1/chat/completions"))
        .header("content-type", "application/json")
        .bearer_auth(expose_secret(&key))
        .body(body.to_string());
    let mut response = request.send().await.map_err(|e| transport_error(&e))?;
    let (status, id) = (response.status(), header(&response, "x-request-id"));
    if !status.is_success() {
        return Err(error_from_response(
            status.as_u16(),
            &read_error_body(&mut response).await,
            id.as_deref(),
        ));
    }
    let upstream = header(&response, "x-aiproxy-upstream");
    let mut answer = StreamedAnswer {
        quiet: ctx.global.json,
        raw: !io::stdout().is_terminal(),
        ..StreamedAnswer::default()
    };
    let mut splitter = SseSplitter::default();
    while let Some(chunk) = response.chunk().await.map_err(|e| transport_error(&e))? {
        let mut at = 0;
        loop {
            match splitter.next(&chunk, &mut at) {
                NextFrame::Borrowed(range) => answer.push_event(&chunk[range])?,
                NextFrame::Joined(block) => answer.push_event(&block)?,
                NextFrame::Incomplete => break,
                NextFrame::TooLong => {
                    return Err(CliError::failed(
                        "the answer contains an event of more than 8 MiB",
                    ));
                }
            }
        }
    }
    answer.push_event(&splitter.remainder())?;
    let hint =
        || format!("`aiproxy log show {}` shows what happened", id.as_deref().unwrap_or("last"));
    if !answer.done {
        return Err(CliError::failed("the answer ended early").hint(hint()));
    }
    if ctx.global.json {
        output::print_json(
            &json!({ "model": answer.model, "upstream": upstream, "request": id, "text": answer.text, "finish": answer.finish_reason }),
        )?;
    } else {
        output::print(if answer.text.ends_with('\n') { "" } else { "\n" })?;
    }
    Ok(ExitStatus::Ok)
}

async fn read_prompt(args: &AskArgs) -> Result<String, CliError> {
    let mut parts: Vec<String> = args.prompt.iter().cloned().collect();
    if args.stdin || (parts.is_empty() && !io::stdin().is_terminal()) {
        parts.push(prompt::read_stdin_text(MAX_STDIN_BYTES).await?);
    }
    let prompt_text = parts.join("\n\n");
    if prompt_text.trim().is_empty() {
        return Err(CliError::usage("no prompt").hint("`aiproxy ask MODEL \"your question\"`"));
    }
    Ok(prompt_text)
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Reads the beginning of an error response. A read error ends the body early.
async fn read_error_body(response: &mut reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await
        && body.len() < MAX_ERROR_BYTES
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(MAX_ERROR_BYTES);
    body
}

fn error_from_response(status: u16, body: &[u8], id: Option<&str>) -> CliError {
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|v| v["error"]["message"].as_str().map(str::to_owned));
    let text = message.unwrap_or_else(|| format!("the proxy returned status {status}"));
    let error = CliError::failed(text);
    match id {
        Some(id) => error.hint(format!("`aiproxy log show {id}` shows what was tried")),
        None => error,
    }
}

/// A transport error with its cause but without its URL.
fn transport_error(error: &reqwest::Error) -> CliError {
    let mut text = if error.is_connect() {
        "the proxy cannot be reached"
    } else {
        "the connection to the proxy was lost"
    }
    .to_owned();
    if let Some(cause) =
        std::iter::successors(std::error::Error::source(error), |e| e.source()).last()
    {
        text.push_str(&format!(": {cause}"));
    }
    if error.is_connect() { CliError::unreachable(text) } else { CliError::failed(text) }
}

/// The answer received so far.
#[derive(Debug, Default)]
struct StreamedAnswer {
    /// Buffers the answer instead of printing it as it arrives.
    quiet: bool,
    /// Stdout is not a terminal: print the model's bytes unchanged.
    raw: bool,
    text: String,
    model: Option<String>,
    finish_reason: Option<String>,
    done: bool,
}

impl StreamedAnswer {
    fn push_event(&mut self, block: &[u8]) -> Result<(), CliError> {
        let data = sse::read_event(block).data;
        if *data == *b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let Ok(event) = serde_json::from_slice::<Value>(&data) else { return Ok(()) };
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            let text = error["message"].as_str().unwrap_or("the answer ended with an error");
            // End the partial answer's line before the error.
            if !self.quiet && !self.text.is_empty() {
                output::print("\n")?;
            }
            return Err(CliError::failed(text));
        }
        if let Some(model) = event["model"].as_str() {
            self.model = Some(model.to_owned());
        }
        let choice = &event["choices"][0];
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(finish.to_owned());
        }
        let Some(text) = choice["delta"]["content"].as_str().filter(|text| !text.is_empty()) else {
            return Ok(());
        };
        self.text.push_str(text);
        match (self.quiet, self.raw) {
            (true, _) => Ok(()),
            (false, true) => output::print(text),
            (false, false) => output::print(&sanitize_for_terminal(text)),
        }
    }
}

/// Sanitizes model output for a terminal: keeps line breaks and tabs, removes other control
/// characters.
fn sanitize_for_terminal(text: &str) -> String {
    text.split_inclusive(['\n', '\t'])
        .map(|part| match part.as_bytes().last() {
            Some(&end @ (b'\n' | b'\t')) => {
                format!("{}{}", clean(&part[..part.len() - 1]), char::from(end))
            }
            _ => clean(part).into_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_are_joined_and_the_end_is_detected() {
        let mut answer = StreamedAnswer { quiet: true, ..StreamedAnswer::default() };
        for block in [
            "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\n",
            ": ping\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\n",
        ] {
            answer.push_event(block.as_bytes()).unwrap();
        }
        assert!(!answer.done);
        answer.push_event(b"data: [DONE]\n\n").unwrap();
        assert!(
            answer.done
                && answer.text == "hello"
                && answer.finish_reason.as_deref() == Some("stop")
                && answer.model.as_deref() == Some("m")
        );

        let error = answer
            .push_event(b"data: {\"error\":{\"message\":\"upstream broke\"}}\n\n")
            .unwrap_err();
        assert_eq!(error.text, "upstream broke");
    }

    #[test]
    fn a_model_cannot_control_the_terminal() {
        let shown = sanitize_for_terminal("a\n\tb\u{1b}[2Jc");
        assert!(shown.starts_with("a\n\tb") && !shown.contains('\u{1b}'), "{shown:?}");
    }
}
