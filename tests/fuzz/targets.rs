//! The fuzz targets: each accepts any bytes, must not panic, and checks a property. The fuzzer and
//! an ordinary test both use them.
#![allow(dead_code, reason = "each fuzz target uses one of them")]

use aiproxy::{
    base::{
        dot_segment::has_dot_segment,
        framing::{FrameSplitter, splitter::NextFrame, sse},
        json::{reader, scan},
    },
    config::{Environment, IdInterner, load, redact_toml},
    dialect::{
        AttemptContext, ChatEndpoint, Framing, ResponseSpec, TargetTraits, Thinking,
        event_decoder::EventDecoder, registry, translate::Translator,
    },
    ir::{assemble, event::ChatEvent, extras::Extras, op::Dialect, validate},
    relay::{request::multipart, state::resource_owners},
    secrets::Reference,
    server::paths as routes,
};
use bytes::Bytes;

/// Chooses the dialects from the first byte; the rest is the input.
fn choose_dialects(data: &[u8]) -> Option<(Dialect, Dialect, u8, &[u8])> {
    let (&[a, b], rest) = data.split_first_chunk::<2>()?;
    let all = Dialect::ALL;
    Some((all[usize::from(a) % all.len()], all[usize::from(b) % all.len()], b, rest))
}

fn response_spec(framing: Framing) -> ResponseSpec {
    ResponseSpec {
        endpoint: ChatEndpoint::Chat,
        model: "m".to_owned(),
        request_id: "01".to_owned(),
        created: 1,
        framing,
        include_usage: true,
        custom_tools: vec!["c".to_owned()],
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: Extras::default(),
    }
}

fn target_traits() -> TargetTraits {
    TargetTraits {
        model: "m".to_owned(),
        stream: true,
        max_output: Some(4096),
        thinking: Thinking::Budget,
        max_tokens_field: "max_tokens",
        developer_role: false,
        accepts_reasoning: true,
        ask_usage: true,
        facts: Default::default(),
        call_id_seed: "s".to_owned(),
    }
}

fn framing(dialect: Dialect) -> Framing {
    if dialect == Dialect::Ollama { Framing::Ndjson } else { Framing::Sse }
}

/// Any request body: a body that parses can be written in every dialect, and the result parses
/// again.
pub fn requests(data: &[u8]) {
    let Some((client, upstream, _, body)) = choose_dialects(data) else { return };
    let Ok(request) = registry::ingress(client).read_request(ChatEndpoint::Chat, body) else {
        return;
    };
    let written = registry::egress(upstream).write_request(&request, &target_traits());
    if request.messages.iter().all(|message| message.blocks.is_empty()) {
        // The request has no content; the upstream would report that.
        return;
    }
    let back = registry::ingress(upstream).read_request(ChatEndpoint::Chat, &written.body);
    assert!(
        back.is_ok(),
        "{client} → {upstream}: {:?} in {}",
        back.err(),
        String::from_utf8_lossy(&written.body)
    );
}

/// Any response: a response that parses can be written for every client, whole and as a stream.
pub fn responses(data: &[u8]) {
    let Some((upstream, client, _, body)) = choose_dialects(data) else { return };
    let Ok(response) = registry::egress(upstream).read_response(
        "application/json",
        body,
        &AttemptContext::default(),
    ) else {
        return;
    };
    let whole =
        registry::ingress(client).write_response(&response, &response_spec(framing(client)));
    assert!(
        reader::parse(&whole).is_ok(),
        "{upstream} → {client}: {}",
        String::from_utf8_lossy(&whole)
    );
    let events = assemble::to_events(&response);
    validate::validate_events(&events).unwrap_or_else(|e| panic!("{upstream}: {e}"));
}

/// The blocks of an event stream are the same for every split of the bytes.
pub fn sse(data: &[u8]) {
    let blocks = |chunks: &[&[u8]]| {
        let (mut splitter, mut out) = (sse::SseSplitter::default(), Vec::new());
        for chunk in chunks {
            let (chunk, mut at) = (Bytes::copy_from_slice(chunk), 0);
            loop {
                match splitter.next(&chunk, &mut at) {
                    NextFrame::Borrowed(span) => out.push(chunk[span].to_vec()),
                    NextFrame::Joined(unit) => out.push(unit.to_vec()),
                    NextFrame::Incomplete => break,
                    NextFrame::TooLong => return Vec::new(),
                }
            }
        }
        out.push(splitter.remainder().to_vec());
        out.iter()
            .map(|block| {
                let read = sse::read_event(block);
                (read.name.to_vec(), read.data.to_vec())
            })
            .filter(|(_, data)| !data.is_empty())
            .collect()
    };
    let Some((&cut, body)) = data.split_first() else { return };
    let (a, b) = body.split_at(usize::from(cut) % (body.len() + 1));
    assert_eq!(blocks(&[body]), blocks(&[a, b]));
}

/// Any stream with any split of the bytes: the events keep their grammar, equal those of the
/// unsplit stream, and the client receives exactly one end.
pub fn streams(data: &[u8]) {
    let Some((upstream, client, cut, body)) = choose_dialects(data) else { return };
    let read = |chunks: &[&[u8]]| {
        let mut reading = EventDecoder::new(
            framing(upstream),
            registry::egress(upstream).stream_reader(&AttemptContext::default()),
            cut & 1 == 1,
        );
        let mut reply = Vec::new();
        for chunk in chunks {
            if reading.feed(&Bytes::copy_from_slice(chunk), &mut reply).error.is_some() {
                return reply;
            }
        }
        reading.finish(&mut reply);
        reply
    };
    let (a, b) = body.split_at(usize::from(cut) * 7 % (body.len() + 1));
    let reply = read(&[body]);
    assert_eq!(reply, read(&[a, b]), "{upstream}, cut at {}", a.len());
    let ended = reply.iter().filter(|event| matches!(event, ChatEvent::End { .. })).count();
    if ended == 1 {
        validate::validate_events(&reply).unwrap_or_else(|e| panic!("{upstream}: {e}"));
    }
    let reading = EventDecoder::new(
        framing(upstream),
        registry::egress(upstream).stream_reader(&AttemptContext::default()),
        false,
    );
    let mut translator = Translator::new(
        reading,
        registry::ingress(client).stream_writer(&response_spec(framing(client))),
        1 << 16,
    );
    let mut out = Vec::new();
    translator.feed(&Bytes::copy_from_slice(body), &mut out);
    translator.finish(&mut out);
    assert!(ended <= 1);
}

/// Cuts chunks into frames.
fn frames(framing: Framing, chunks: &[&[u8]]) -> Vec<Vec<u8>> {
    let (mut splitter, mut out) = (FrameSplitter::new(framing), Vec::new());
    for chunk in chunks {
        let mut at = 0;
        loop {
            match splitter.next(chunk, &mut at) {
                NextFrame::Borrowed(span) => out.push(chunk[span].to_vec()),
                NextFrame::Joined(unit) => out.push(unit.to_vec()),
                NextFrame::Incomplete => break,
                NextFrame::TooLong => return Vec::new(),
            }
        }
    }
    out.push(splitter.remainder().to_vec());
    out.retain(|frame| !frame.is_empty());
    out
}

/// The lines of NDJSON and the elements of an array are the same for every split of the bytes.
pub fn lines(data: &[u8]) {
    let Some((&cut, body)) = data.split_first() else { return };
    let (a, b) = body.split_at(usize::from(cut) % (body.len() + 1));
    for framing in [Framing::Ndjson, Framing::JsonArray] {
        assert_eq!(frames(framing, &[body]), frames(framing, &[a, b]), "{framing:?}");
    }
}

/// Any JSON: what the validator accepts can be walked, and the scan of a request points into it.
pub fn json(data: &[u8]) {
    fn walk(json: reader::JsonRef<'_>, depth: usize) -> usize {
        if depth > 40 {
            return 0;
        }
        let members = json.members().map(|(_, value)| walk(value, depth + 1)).sum::<usize>();
        let items = json.items().map(|value| walk(value, depth + 1)).sum::<usize>();
        members + items + json.plain_text().len() + json.str().map_or(0, |text| text.len())
    }
    let body = data.get(2..).unwrap_or_default();
    if let Ok(json) = reader::parse(body) {
        walk(json, 0);
        assert!(reader::parse(json.text().as_bytes()).is_ok(), "{}", json.text());
    }
    if let Ok(found) = scan::scan(body) {
        assert_eq!(body.get(found.closing_brace), Some(&b'}'));
        if let Some(model) = &found.model {
            assert!(body.get(model.span.clone()).is_some());
        }
        for span in [&found.stream_span, &found.stream_options].into_iter().flatten() {
            assert!(body.get(span.clone()).is_some());
        }
    }
    assert!(resource_owners::created_ids(body).iter().all(|id| !id.contains('"')));
}

/// Any path: it is routed or not, and one that passes to an upstream stays below its address.
pub fn paths(data: &[u8]) {
    let Some((&[method, _], rest)) = data.split_first_chunk::<2>() else { return };
    let methods = [http::Method::GET, http::Method::POST, http::Method::DELETE, http::Method::HEAD];
    let text = String::from_utf8_lossy(rest);
    let (path, query) = text.split_once('?').map_or((&*text, None), |(p, q)| (p, Some(q)));
    for path in [path.to_owned(), format!("/{path}"), format!("/u/one/{path}")] {
        let found = routes::route(&methods[usize::from(method) % methods.len()], &path, query);
        if let Ok(routes::RoutedPath { route: routes::Route::Relay(endpoint), .. }) = found {
            assert!(!has_dot_segment(&endpoint.path), "{path}: {}", endpoint.path);
        }
    }
}

/// Any config file: settings or problems, and problems point to lines of the text.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data.get(2..).unwrap_or_default());
    let (env, mut ids) = (Environment::default(), IdInterner::default());
    let path = std::path::Path::new("/nowhere/config.toml");
    let loaded = load::load(&text, path, &env, &mut ids);
    assert_eq!(loaded.settings.is_none(), loaded.has_errors());
    assert_eq!(redact_toml::mask_secrets(&text).len(), text.len());
}

/// Any key reference: what is accepted does not show a literal key.
pub fn references(data: &[u8]) {
    let text = String::from_utf8_lossy(data.get(2..).unwrap_or_default());
    if let Ok(reference) = Reference::parse(&text) {
        let shown = format!("{reference} {reference:?} {:?}", reference.default_label());
        let is_literal = matches!(reference, Reference::Literal(_));
        assert!(!is_literal || text.trim().len() < 12 || !shown.contains(text.trim()), "{shown}");
    }
}

/// Any form: a field that is found lies in the body, behind an empty line.
pub fn forms(data: &[u8]) {
    let body = data.get(2..).unwrap_or_default();
    if let Ok(Some(span)) = multipart::find_field(body, "b", "model") {
        assert!(body[..span.start].ends_with(b"\r\n\r\n"));
        assert!(body[span.end..].starts_with(b"\r\n--b"));
    }
    let text = String::from_utf8_lossy(body);
    assert!(multipart::boundary(&text).is_none_or(|found| text.contains(found)));
}
