//! Messages to clients outside their requests: changed lists, changed resources, log messages and
//! questions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{broadcast, mpsc};

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    mcp::{
        call::CallEnd,
        caller::McpCaller,
        message::{self, INVALID_PARAMS, RpcError},
        names,
        outlet::{EventBody, Exchange, OutItem, OutletReader},
        revision::META_SUBSCRIPTION,
        servers::hub::McpHub,
        servers::parts::HubEvent,
        session::{EndpointScope, McpSession},
        wire::calls::ServerEvent,
        wire::event_stream,
    },
};

/// A silent stream sends a comment after this time, so that no intermediary closes it.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

fn ping() -> Bytes {
    Bytes::from_static(b": ping\n\n")
}

/// Whether an event belongs to what a client sees.
fn is_seen(hub: &McpHub, caller: &McpCaller, event: &HubEvent) -> bool {
    if event.project.as_deref().is_some_and(|project| *project != *caller.project.name) {
        return false;
    }
    match (&event.server, &caller.scope) {
        (None, _) => true,
        (Some(server), EndpointScope::One(name)) => server == name,
        (Some(server), EndpointScope::All) => {
            let visible = hub.visible(&caller.project, &caller.scope);
            visible.iter().any(|entry| entry.row.name == *server)
        }
    }
}

fn list_notification(method: &str) -> &'static str {
    match method {
        "tools/list" => "notifications/tools/list_changed",
        "prompts/list" => "notifications/prompts/list_changed",
        _ => "notifications/resources/list_changed",
    }
}

/// The stream of a session.
struct SessionFeed {
    hub: Arc<McpHub>,
    caller: McpCaller,
    session: Arc<McpSession>,
    messages: mpsc::Receiver<String>,
    events: broadcast::Receiver<HubEvent>,
    first: Option<Bytes>,
    /// The session ends with the stream.
    ends_session: bool,
}

impl Drop for SessionFeed {
    fn drop(&mut self) {
        if self.ends_session {
            self.hub.sessions.close(&self.session.id);
        }
    }
}

/// Opens the stream of a session. With `first` it begins with these bytes, and its end is the end
/// of the session.
#[must_use]
pub fn session_stream(
    hub: Arc<McpHub>,
    caller: McpCaller,
    session: Arc<McpSession>,
    first: Option<Bytes>,
) -> EventBody {
    let feed = SessionFeed {
        messages: session.open_stream(),
        events: hub.parts.events.subscribe(),
        ends_session: first.is_some(),
        first: Some(first.unwrap_or_else(|| Bytes::from_static(b": open\n\n"))),
        hub,
        caller,
        session,
    };
    Box::pin(stream::unfold(feed, |mut feed| async move {
        let bytes = feed.next().await?;
        Some((bytes, feed))
    }))
}

impl SessionFeed {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let text = tokio::select! {
                message = self.messages.recv() => Some(message?),
                event = self.events.recv() => self.notification(event),
                () = self.session.closed.cancelled() => return None,
                () = self.hub.stop.cancelled() => return None,
                () = tokio::time::sleep(PING_INTERVAL) => return Some(ping()),
            };
            if let Some(text) = text {
                return Some(event_stream::event("message", &text));
            }
        }
    }

    fn notification(&self, event: Result<HubEvent, broadcast::error::RecvError>) -> Option<String> {
        let Ok(event) = event else {
            // Something was missed: the list that matters most is read again.
            return Some(message::notification(list_notification("tools/list"), None));
        };
        if !is_seen(&self.hub, &self.caller, &event) {
            return None;
        }
        match event.event {
            ServerEvent::ListChanged(method) => {
                Some(message::notification(list_notification(method), None))
            }
            ServerEvent::Log(params) => self
                .caller
                .wants_log(params.as_ref())
                .then(|| message::notification("notifications/message", params.as_ref())),
            ServerEvent::ResourceUpdated(uri) => {
                let server = event.server.as_deref().unwrap_or_default();
                let wrapped = names::wrap_uri(server, &uri);
                let shown = [wrapped, uri].into_iter();
                let shown = shown.into_iter().find(|uri| self.session.is_subscribed(uri))?;
                Some(updated(&shown, None))
            }
        }
    }
}

fn updated(uri: &str, subscription: Option<&RawJson>) -> String {
    let params = RawJson::object(|o| {
        o.str("uri", uri);
        if let Some(id) = subscription {
            o.object("_meta", |o| {
                o.raw(META_SUBSCRIPTION, id);
            });
        }
    });
    message::notification("notifications/resources/updated", Some(&params))
}

/// Turns what an exchange sends into a stream of events.
#[must_use]
pub fn answer_stream(first: Option<OutItem>, reader: OutletReader) -> EventBody {
    let state = (first, Some(reader));
    Box::pin(stream::unfold(state, |(first, reader)| async move {
        let mut reader = reader?;
        let item = match first {
            Some(item) => Some(item),
            None => tokio::select! {
                item = reader.items.recv() => Some(item?),
                () = tokio::time::sleep(PING_INTERVAL) => None,
            },
        };
        Some(match item {
            None => (ping(), (None, Some(reader))),
            Some(OutItem::Message(text)) => {
                (event_stream::event("message", &text), (None, Some(reader)))
            }
            Some(OutItem::Final(text, _)) => (event_stream::event("message", &text), (None, None)),
        })
    }))
}

/// Answers `subscriptions/listen`: confirms it, and reports changes until the client leaves.
pub async fn answer_listen(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    exchange: &mut Exchange,
    params: Option<&RawJson>,
) -> CallEnd {
    let wanted = params.and_then(|params| params.json().get("notifications"));
    let Some(wanted) = wanted.filter(|wanted| wanted.is_object()) else {
        let error = RpcError::new(INVALID_PARAMS, "`notifications` is missing");
        return CallEnd::Done(Err(error));
    };
    let lists = [
        ("toolsListChanged", "tools/list"),
        ("promptsListChanged", "prompts/list"),
        ("resourcesListChanged", "resources/list"),
    ];
    let is_true = |name: &str| wanted.get(name).and_then(JsonRef::bool) == Some(true);
    let honored: Vec<_> = lists.into_iter().filter(|(name, _)| is_true(name)).collect();
    let mut events = hub.parts.events.subscribe();
    let uris = wanted.get("resourceSubscriptions").map(JsonRef::strings).unwrap_or_default();
    let mut watched = Vec::new();
    for uri in uris.into_iter().take(1_000) {
        if let Some((instance, own)) =
            super::gateway::destination::watchable(hub, caller, &uri).await
        {
            // One that cannot be watched is not confirmed.
            if instance.watch_resource(&own, true).await.is_ok() {
                watched.push((Arc::clone(&instance.row.name), own, uri));
            }
        }
    }
    let id = exchange.id.clone();
    let with_meta = |build: &dyn Fn(&mut crate::base::json::writer::ObjectWriter<'_>)| {
        RawJson::object(|o| {
            build(o);
            o.object("_meta", |o| {
                o.raw(META_SUBSCRIPTION, &id);
            });
        })
    };
    let confirmed = with_meta(&|o| {
        o.object("notifications", |o| {
            for (name, _) in &honored {
                o.bool(name, true);
            }
            if !watched.is_empty() {
                o.array("resourceSubscriptions", |a| {
                    for (.., uri) in &watched {
                        a.str(uri);
                    }
                });
            }
        });
    });
    let method = "notifications/subscriptions/acknowledged";
    exchange.outlet.send(message::notification(method, Some(&confirmed))).await;
    loop {
        let event = tokio::select! {
            () = exchange.outlet.gone.cancelled() => return CallEnd::Left,
            () = hub.stop.cancelled() => break,
            event = events.recv() => event,
        };
        let Ok(event) = event else { continue };
        if !is_seen(hub, caller, &event) {
            continue;
        }
        let text = match &event.event {
            ServerEvent::ListChanged(method) => {
                let list =
                    if *method == "resources/templates/list" { "resources/list" } else { method };
                let is_wanted = honored.iter().any(|(_, known)| *known == list);
                is_wanted.then(|| {
                    message::notification(list_notification(list), Some(&with_meta(&|_| {})))
                })
            }
            ServerEvent::ResourceUpdated(uri) => {
                let server = event.server.as_deref().unwrap_or_default();
                let found = watched.iter().find(|(name, own, _)| **name == *server && own == uri);
                found.map(|(.., shown)| updated(shown, Some(&id)))
            }
            ServerEvent::Log(_) => None,
        };
        if let Some(text) = text {
            exchange.outlet.send(text).await;
        }
    }
    CallEnd::Done(Ok(with_meta(&|_| {})))
}
