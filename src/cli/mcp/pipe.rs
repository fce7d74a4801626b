//! `aiproxy mcp stdio`: passes messages between standard input and output and the running proxy.

use std::{collections::HashMap, io::BufRead, sync::Arc};

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    base::sync::Mutex,
    cli::{
        attach,
        context::CommandContext,
        error::{CliError, ExitStatus},
        expose::expose_secret,
        output,
        project::lookup,
    },
    mcp::pipe::{self, PipeMessage},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  aiproxy mcp stdio                 all servers of the project `default`
  aiproxy mcp stdio files           one server, names unchanged
  aiproxy mcp stdio --project ide   as the project `ide`";

#[derive(Clone, Debug, Args)]
pub struct StdioArgs {
    /// Server name; all servers if omitted
    name: Option<String>,
    /// Project whose servers are served
    #[arg(long, default_value = "default")]
    project: String,
}

/// The way to the proxy.
struct Tunnel {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    session: watch::Sender<Option<HeaderValue>>,
    version: Mutex<Option<String>>,
    lines: mpsc::Sender<String>,
    running: Mutex<HashMap<String, CancellationToken>>,
    tracker: TaskTracker,
}

/// Passes messages until the input ends.
pub(super) async fn run(ctx: &CommandContext, args: StdioArgs) -> Result<ExitStatus, CliError> {
    let base = attach::base_url(ctx).await?;
    let key = lookup::client_key(ctx, &args.project).await?;
    let mut headers = HeaderMap::new();
    let bearer = HeaderValue::from_str(&format!("Bearer {}", expose_secret(&key)));
    headers.insert(
        header::AUTHORIZATION,
        bearer.map_err(|_| CliError::failed("the client key cannot be sent"))?,
    );
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.map_err(|error| CliError::failed(error.to_string()))?;
    let path = args.name.as_deref().map(|name| format!("/{name}")).unwrap_or_default();
    let (lines, waiting) = mpsc::channel(64);
    let tunnel = Arc::new(Tunnel {
        client,
        url: format!("{base}/mcp{path}"),
        headers,
        session: watch::Sender::new(None),
        version: Mutex::default(),
        lines,
        running: Mutex::default(),
        tracker: TaskTracker::new(),
    });
    let printing = print_lines(waiting);
    let reading = read_lines(&tunnel);
    tokio::select! {
        printed = printing => printed?,
        () = reading => {}
    }
    tunnel.end().await;
    Ok(ExitStatus::Ok)
}

async fn print_lines(mut lines: mpsc::Receiver<String>) -> Result<(), CliError> {
    while let Some(line) = lines.recv().await {
        output::print_line(&line)?;
    }
    Ok(())
}

async fn read_lines(tunnel: &Arc<Tunnel>) {
    let mut input = input_lines();
    while let Some(text) = input.recv().await {
        match pipe::inspect(&text) {
            Ok(message) if message.method.as_deref() == Some("initialize") => {
                // What follows needs the session.
                Arc::clone(tunnel).exchange(text, message).await;
            }
            Ok(message) => {
                tunnel.tracker.spawn(Arc::clone(tunnel).exchange(text, message));
            }
            Err(error) => drop(tunnel.lines.send(error).await),
        }
    }
}

/// Reads standard input in a thread of its own, because that cannot be cancelled.
fn input_lines() -> mpsc::Receiver<Bytes> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            match input.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = line.trim_ascii();
            if !text.is_empty() && sender.blocking_send(Bytes::copy_from_slice(text)).is_err() {
                return;
            }
        }
    });
    lines
}

impl Tunnel {
    async fn exchange(self: Arc<Self>, body: Bytes, message: PipeMessage) {
        let gone = CancellationToken::new();
        if let Some(cancelled) = &message.cancels
            && message.is_stateless
        {
            // There the end of the connection says it.
            if let Some(running) = self.running.lock().remove(cancelled) {
                running.cancel();
            }
            return;
        }
        if let Some(id) = &message.id {
            self.running.lock().insert(id.clone(), gone.clone());
        }
        let failed = tokio::select! {
            () = gone.cancelled() => None,
            failed = self.send(body, &message) => failed.err(),
        };
        if let Some(id) = &message.id {
            self.running.lock().remove(id);
            if let Some(why) = failed {
                drop(self.lines.send(pipe::failure(id, &why)).await);
            }
        }
    }

    async fn send(self: &Arc<Self>, body: Bytes, message: &PipeMessage) -> Result<(), String> {
        let mut headers = self.common_headers();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(header::ACCEPT, both);
        for (name, value) in &message.headers {
            let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let request = self.client.post(&self.url).headers(headers).body(body);
        let response = request.send().await.map_err(|error| error.without_url().to_string())?;
        if message.method.as_deref() == Some("initialize")
            && let Some(session) = response.headers().get("mcp-session-id")
        {
            self.session.send_replace(Some(session.clone()));
            self.tracker.spawn(Arc::clone(self).listen());
        }
        self.print_answer(response, message).await
    }

    fn common_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(session) = &*self.session.borrow() {
            headers.insert("mcp-session-id", session.clone());
        }
        if let Some(version) = self.version.lock().as_deref()
            && let Ok(version) = HeaderValue::from_str(version)
        {
            headers.insert("mcp-protocol-version", version);
        }
        headers
    }

    async fn print_answer(
        &self,
        mut response: reqwest::Response,
        message: &PipeMessage,
    ) -> Result<(), String> {
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let mut reader = pipe::PipeReader::new(is_stream);
        while let Some(chunk) =
            response.chunk().await.map_err(|error| error.without_url().to_string())?
        {
            for line in reader.push(&chunk)? {
                drop(self.lines.send(line).await);
            }
        }
        let Some(rest) = reader.finish() else { return Ok(()) };
        if message.method.as_deref() == Some("initialize") {
            *self.version.lock() = pipe::agreed_version(&rest);
        }
        match pipe::answer_line(&rest, message.id.as_deref()) {
            Some(line) => drop(self.lines.send(line).await),
            None if message.id.is_some() => return Err(format!("HTTP {status}")),
            None => {}
        }
        Ok(())
    }

    /// Prints what the proxy says of its own accord.
    async fn listen(self: Arc<Self>) {
        let mut headers = self.common_headers();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let Ok(mut response) = self.client.get(&self.url).headers(headers).send().await else {
            return;
        };
        if !response.status().is_success() {
            return;
        }
        let mut reader = pipe::PipeReader::new(true);
        while let Ok(Some(chunk)) = response.chunk().await {
            let Ok(lines) = reader.push(&chunk) else { return };
            for line in lines {
                drop(self.lines.send(line).await);
            }
        }
    }

    /// Ends the session.
    async fn end(&self) {
        if self.session.borrow().is_some() {
            let request = self.client.request(Method::DELETE, &self.url);
            drop(request.headers(self.common_headers()).send().await);
        }
    }
}
