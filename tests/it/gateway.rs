//! How the upstream client handles upstreams that behave and upstreams that misbehave.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use aiproxy::{
    config::settings::{
        Auth, DialectEndpoint, KeyId, ProxySetting, Timeouts, Upstream, UpstreamId,
    },
    ir::{
        fault::{TransportFault, TransportKind},
        op::Dialect,
        reason::failure::{ConnectionProblem, FailureReason},
    },
    secrets::Secret,
    upstream::{
        ProviderKeys, UpstreamClient, UpstreamRequest, UpstreamResponse, aux_client, headers,
        in_process::{InProcess, InProcessBody, full_body},
        local_probe, models,
    },
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const KEY: KeyId = KeyId(7);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that runs `play` for each connection, with the connection's number.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(play: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, play) = (Arc::clone(&connections), Arc::new(play));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (number, play) = (count.fetch_add(1, SeqCst), Arc::clone(&play));
                std::thread::spawn(move || play(number, stream));
            }
        });
        Self { address, connections }
    }

    /// Answers the first request of every connection with these bytes, then closes.
    fn with_response(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_, mut stream| {
            request(&mut stream);
            send_bytes(&mut stream, &bytes);
        })
    }

    fn upstream(&self) -> Upstream {
        upstream(&format!("http://{}/v1", self.address))
    }

    fn received(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// Reads one complete request; empty if the peer closed.
fn request(stream: &mut impl Read) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return String::new();
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .map_or(0, |n| n.trim().parse().expect("a length"));
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).is_err() {
        return String::new();
    }
    bytes.extend_from_slice(&body);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The peer may have closed; its own assertions cover that.
fn send_bytes(stream: &mut impl Write, bytes: &[u8]) {
    let _gone = stream.write_all(bytes).and_then(|()| stream.flush());
}

fn upstream(base_url: &str) -> Upstream {
    let second = Duration::from_secs(1);
    Upstream {
        id: UpstreamId(1),
        name: "work".into(),
        endpoints: vec![DialectEndpoint {
            dialect: Dialect::Openai,
            base_url: base_url.to_owned(),
            query: None,
        }],
        auth: Auth::Bearer,
        ask_usage: true,
        timeouts: Timeouts {
            connect: 5 * second,
            first_byte: 5 * second,
            idle: 5 * second,
            total: 60 * second,
            client_head: second,
            client_idle: second,
            client_keepalive: second,
        },
        local: true,
        ..Upstream::default()
    }
}

fn gateway() -> UpstreamClient {
    let keys = Arc::new(ProviderKeys::default());
    keys.set(KEY, Arc::new(Secret::new("sk-very-secret".to_owned())));
    UpstreamClient::new(keys)
}

async fn post(
    gateway: &UpstreamClient,
    upstream: &Upstream,
    body: &'static [u8],
) -> Result<UpstreamResponse, TransportFault> {
    let upstream = Arc::new(upstream.clone());
    let call = UpstreamRequest {
        upstream: &upstream,
        endpoint: &upstream.endpoints[0],
        key: Some(KEY),
        method: Method::POST,
        path: "/chat/completions",
        query: None,
        headers: HeaderMap::new(),
        body: Bytes::from_static(body),
    };
    gateway.send(call).await
}

async fn body_text(
    answer: Result<UpstreamResponse, TransportFault>,
) -> Result<String, TransportFault> {
    let bytes = answer?.body.read_to_end(1 << 20).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn transport_fault(upstream: &Upstream) -> TransportFault {
    body_text(post(&gateway(), upstream, b"{}").await).await.expect_err("a fault")
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(data).expect("memory");
    out.finish().expect("memory")
}

fn encode_body(coding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn request_has_key_configured_headers_marker_and_merged_query() {
    let (sender, reported) = mpsc::channel();
    let server = Server::start(move |_, mut stream| {
        sender.send(request(&mut stream)).expect("the test waits");
        send_bytes(&mut stream, OK);
    });
    let mut upstream = server.upstream();
    upstream.headers = vec![("x-team".to_owned(), "blue".to_owned())];
    upstream.endpoints[0].query = Some("api-version=3".to_owned());
    let upstream = Arc::new(upstream);
    let mut client = HeaderMap::new();
    client.insert("user-agent", HeaderValue::from_static("tool/1"));
    client.insert("authorization", HeaderValue::from_static("Bearer aip-client"));
    headers::filter_request_headers(&mut client);
    let call = UpstreamRequest {
        upstream: &upstream,
        endpoint: &upstream.endpoints[0],
        key: Some(KEY),
        method: Method::POST,
        path: "/chat/completions",
        query: Some("key=aip-client&beta=true"),
        headers: client.clone(),
        body: Bytes::from_static(b"{\"a\":1}"),
    };

    let answer = gateway().send(call).await.expect("an answer");

    assert_eq!((answer.status, answer.reused), (StatusCode::OK, false));
    let sent = reported.recv().expect("a request").to_lowercase();
    assert!(
        sent.starts_with("post /v1/chat/completions?api-version=3&beta=true http/1.1\r\n"),
        "{sent}"
    );
    for expected in [
        "authorization: bearer sk-very-secret\r\n",
        "accept-encoding: identity\r\n",
        "user-agent: tool/1\r\n",
        "x-team: blue\r\n",
        "content-length: 7\r\n",
        &format!("host: {}\r\n", server.address),
        &format!("{}: {}\r\n", headers::HOP_HEADER, headers::hop_id()),
    ] {
        assert!(sent.contains(expected), "{expected} in {sent}");
    }
    assert!(sent.ends_with("{\"a\":1}") && !sent.contains("aip-client"), "{sent}");
}

#[tokio::test]
async fn compressed_answers_are_decoded_without_encoding_headers() {
    let server = Server::with_response(encode_body("gzip", &gzip(b"hello")));
    let answer = post(&gateway(), &server.upstream(), b"{}").await.expect("an answer");
    assert!(
        !answer.headers.contains_key("content-encoding")
            && !answer.headers.contains_key("content-length")
    );
    assert_eq!(body_text(Ok(answer)).await.as_deref(), Ok("hello"));

    let trailing =
        Server::with_response(encode_body("gzip", &[&gzip(b"hello")[..], b"junk"].concat()));
    assert_eq!(
        body_text(post(&gateway(), &trailing.upstream(), b"{}").await).await.as_deref(),
        Ok("hello")
    );
}

#[tokio::test]
async fn undecodable_answer_is_a_fault() {
    let cut = gzip(b"hello, hello, hello");
    for (coding, body, kind) in [
        ("gzip", &cut[..cut.len() - 6], TransportKind::BodyBroken),
        ("gzip", b"{\"plain\":1}", TransportKind::BodyBroken),
        ("snappy", b"x", TransportKind::InvalidHttp),
        ("gzip, gzip", &cut, TransportKind::InvalidHttp),
    ] {
        let fault =
            transport_fault(&Server::with_response(encode_body(coding, body)).upstream()).await;
        assert_eq!(fault.kind, kind, "{coding}: {fault:?}");
    }
}

#[tokio::test]
async fn flushed_event_arrives_before_the_next_is_sent() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let server = Server::start(move |_, mut stream| {
        request(&mut stream);
        send_bytes(
            &mut stream,
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            encoder.write_all(event.as_bytes()).expect("memory");
            encoder.flush().expect("memory");
            let piece = std::mem::take(encoder.get_mut());
            send_bytes(&mut stream, format!("{:x}\r\n", piece.len()).as_bytes());
            send_bytes(&mut stream, &[&piece[..], b"\r\n"].concat());
            gate.lock().expect("no panic").recv().expect("the test opens it");
        }
        let rest = encoder.finish().expect("memory");
        send_bytes(&mut stream, format!("{:x}\r\n", rest.len()).as_bytes());
        send_bytes(&mut stream, &[&rest[..], b"\r\n0\r\n\r\n"].concat());
    });

    let mut answer = post(&gateway(), &server.upstream(), b"{}").await.expect("an answer");

    for expected in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        let frame = answer
            .body
            .frame()
            .await
            .expect("an event")
            .expect("no fault")
            .into_data()
            .expect("data");
        assert_eq!(&frame[..], expected.as_bytes());
        go.send(()).expect("the server waits");
    }
    assert!(answer.body.frame().await.is_none());
}

#[tokio::test]
async fn non_http_answer_is_a_fault_and_its_bytes_are_not_shown() {
    for printed in [
        &b"SSH-2.0-OpenSSH_9.0\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ] {
        let server = Server::with_response(printed);
        let fault = transport_fault(&server.upstream()).await;
        assert_eq!(
            fault.kind,
            TransportKind::InvalidHttp,
            "{} gave {fault:?}",
            printed.escape_ascii()
        );
        assert!(
            fault.may_be_received && fault.reason.to_string().contains(&server.address.to_string()),
            "{fault:?}"
        );
        assert!(
            !fault.reason.to_string().contains("OpenSSH")
                && !fault.reason.to_string().chars().any(char::is_control),
            "{fault:?}"
        );
    }
    let long = [b"HTTP/1.1 200 OK\r\nx-long: ", &vec![b'a'; 600_000][..], b"\r\n\r\n"].concat();
    let many = [&b"HTTP/1.1 200 OK\r\n"[..], &b"x-many: 1\r\n".repeat(5_000), b"\r\n"].concat();
    for printed in [long, many] {
        assert_eq!(
            transport_fault(&Server::with_response(printed).upstream()).await.kind,
            TransportKind::InvalidHttp
        );
    }
}

#[tokio::test]
async fn failed_and_cut_connections_are_reported() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .expect("a free port")
        .local_addr()
        .expect("bound");
    let refused = transport_fault(&upstream(&format!("http://{closed}/v1"))).await;
    let reason = FailureReason::Connection {
        problem: ConnectionProblem::Refused,
        address: closed.to_string().into(),
    };
    assert_eq!(
        refused,
        TransportFault {
            kind: TransportKind::Connect,
            reason: reason.into(),
            may_be_received: false
        }
    );

    let unknown = transport_fault(&upstream("http://nx.invalid/v1")).await;
    let reason = FailureReason::Unresolved { host: "nx.invalid".into() };
    assert_eq!(
        unknown,
        TransportFault { kind: TransportKind::Dns, reason: reason.into(), may_be_received: false }
    );

    let close = transport_fault(&Server::with_response(b"").upstream()).await;
    assert_eq!((close.kind, close.may_be_received), (TransportKind::Reset, true), "{close:?}");

    let half =
        transport_fault(&Server::with_response(&b"HTTP/1.1 200 OK\r\ncontent-"[..]).upstream())
            .await;
    assert_eq!((half.kind, half.may_be_received), (TransportKind::Reset, true), "{half:?}");
}

#[tokio::test]
async fn broken_bodies_have_one_fault_kind() {
    for printed in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let fault = transport_fault(&Server::with_response(printed).upstream()).await;
        assert_eq!(fault.kind, TransportKind::BodyBroken, "{} gave {fault:?}", printed.escape_ascii());
    }
    let delimited = Server::with_response(&b"HTTP/1.0 200 OK\r\n\r\nto the end"[..]);
    assert_eq!(
        body_text(post(&gateway(), &delimited.upstream(), b"{}").await).await.as_deref(),
        Ok("to the end")
    );
    let trailers = Server::with_response(
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"[..],
    );
    assert_eq!(
        body_text(post(&gateway(), &trailers.upstream(), b"{}").await).await.as_deref(),
        Ok("ok")
    );

    let bomb = Server::with_response(encode_body("gzip", &gzip(&vec![0; 4 << 20])));
    let answer = post(&gateway(), &bomb.upstream(), b"{}").await.expect("an answer");
    let fault = answer.body.read_to_end(100_000).await.expect_err("too much");
    assert_eq!(fault.kind, TransportKind::TooLarge);
}

#[tokio::test]
async fn informational_answers_are_skipped() {
    let flood = [&b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(200)[..], OK].concat();
    assert_eq!(
        body_text(post(&gateway(), &Server::with_response(flood).upstream(), b"{}").await)
            .await
            .as_deref(),
        Ok("ok")
    );
}

#[tokio::test]
async fn connections_are_pooled_until_idle() {
    let server = Server::start(|_, mut stream| {
        while !request(&mut stream).is_empty() {
            send_bytes(&mut stream, OK);
        }
    });
    let (gateway, upstream) = (gateway(), server.upstream());
    let mut reused = Vec::new();
    for round in 0..4 {
        if round == 2 {
            gateway.drop_idle();
        }
        let answer = post(&gateway, &upstream, b"{}").await.expect("an answer");
        reused.push(answer.reused);
        assert_eq!(body_text(Ok(answer)).await.as_deref(), Ok("ok"));
        gateway.retain(&[Arc::new(upstream.clone())]);
    }
    assert_eq!((reused, server.received()), (vec![false, true, false, true], 2));
    gateway.retain(&[]);
    assert!(!post(&gateway, &upstream, b"{}").await.expect("an answer").reused);
}

#[tokio::test]
async fn dead_pooled_connection_is_stale_and_the_retry_opens_a_new_one() {
    // Answers once, then reads one more request on the same connection and closes without sending a
    // byte.
    let server = Server::start(|_, mut stream| {
        request(&mut stream);
        send_bytes(&mut stream, OK);
        request(&mut stream);
    });
    let (gateway, upstream) = (gateway(), server.upstream());
    for round in 0..5 {
        let mut answer = post(&gateway, &upstream, b"{}").await;
        if round > 0 && answer.is_err() {
            assert_eq!(answer.expect_err("checked").kind, TransportKind::Stale);
            answer = post(&gateway, &upstream, b"{}").await;
        }
        assert_eq!(body_text(answer).await.as_deref(), Ok("ok"), "round {round}");
    }
    assert!(server.received() > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_closed_despite_keep_alive_costs_one_retry() {
    let server = Server::start(|_, mut stream| {
        request(&mut stream);
        send_bytes(&mut stream, OK);
    });
    let (gateway, upstream) = (gateway(), server.upstream());
    let one = || async {
        let answer = match body_text(post(&gateway, &upstream, b"{}").await).await {
            Err(fault) if fault.kind == TransportKind::Stale => {
                body_text(post(&gateway, &upstream, b"{}").await).await
            }
            other => other,
        };
        assert_eq!(answer.as_deref(), Ok("ok"));
    };
    for _ in 0..20 {
        futures_util::future::join_all((0..8).map(|_| one())).await;
    }
}

#[tokio::test]
async fn unsolicited_answer_is_never_used_for_the_next_request() {
    let server = Server::start(|_, mut stream| {
        request(&mut stream);
        send_bytes(
            &mut stream,
            &[OK, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nGHOST"].concat(),
        );
        request(&mut stream);
        send_bytes(&mut stream, OK);
    });
    let (gateway, upstream) = (gateway(), server.upstream());
    for _ in 0..20 {
        match body_text(post(&gateway, &upstream, b"{}").await).await {
            Ok(printed) => assert_eq!(printed, "ok"),
            Err(fault) => assert!(
                matches!(fault.kind, TransportKind::Stale | TransportKind::InvalidHttp),
                "{fault:?}"
            ),
        }
    }
}

#[tokio::test]
async fn refusal_during_the_upload_is_delivered() {
    static LARGE: [u8; 20 << 20] = [b'x'; 20 << 20];
    let server = Server::start(|_, mut stream| {
        let mut some = [0; 1_000];
        let _read = stream.read(&mut some);
        send_bytes(
            &mut stream,
            b"HTTP/1.1 413 Too Large\r\ncontent-length: 8\r\nconnection: close\r\n\r\ntoo much",
        );
        // Closing with unread bytes makes the system reset the connection.
    });
    for _ in 0..5 {
        let answer =
            post(&gateway(), &server.upstream(), &LARGE).await.expect("the 413, not a broken pipe");
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(body_text(Ok(answer)).await.as_deref(), Ok("too much"));
    }
}

#[tokio::test]
async fn dropping_the_request_closes_the_upstream_connection() {
    let (sender, reported) = mpsc::channel();
    let (heard, hearing) = tokio::sync::oneshot::channel();
    let heard = Mutex::new(Some(heard));
    let server = Server::start(move |_, mut stream| {
        request(&mut stream);
        let heard = heard.lock().expect("no panic").take().expect("one connection");
        heard.send(()).expect("the test waits");
        sender.send(stream.read(&mut [0]).unwrap_or(0)).expect("the test waits");
    });
    let (gateway, upstream) = (gateway(), server.upstream());
    tokio::select! {
        answer = post(&gateway, &upstream, b"{}") => panic!("nobody answered, but {answer:?} came"),
        _ = hearing => {}
    }
    let read = tokio::task::spawn_blocking(move || reported.recv_timeout(Duration::from_secs(5)))
        .await
        .expect("no panic");
    assert_eq!(read, Ok(0), "the connection is still open");
}

// ---- TLS

struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn server(&self, name: &str, alpn: &[&str]) -> Arc<ServerConfig> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .expect("key and certificate");
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn file(&self, folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("ca.pem");
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(self.certificate.pem().as_bytes()).expect("written");
        path
    }
}

type TlsStream = StreamOwned<ServerConnection, TcpStream>;

fn tls_server(
    config: Arc<ServerConfig>,
    play: impl Fn(usize, TlsStream) + Send + Sync + 'static,
) -> Server {
    Server::start(move |number, stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).expect("a config");
        play(number, StreamOwned::new(connection, stream));
    })
}

fn https(server: &Server, host: &str) -> Upstream {
    upstream(&format!("https://{host}:{}/v1", server.address.port()))
}

fn ok_tls_server(config: Arc<ServerConfig>) -> Server {
    tls_server(config, |_, mut stream| {
        while !request(&mut stream).is_empty() {
            send_bytes(&mut stream, OK);
        }
    })
}

#[tokio::test]
async fn certificates_are_verified_with_system_roots_and_ca_file() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let server = ok_tls_server(authority.server("localhost", &["http/1.1"]));

    let untrusted = transport_fault(&https(&server, "localhost")).await;
    assert_eq!(
        (untrusted.kind, untrusted.may_be_received),
        (TransportKind::Tls, false),
        "{untrusted:?}"
    );
    let expected = "certificate of localhost not trusted: unknown issuer; set `ca_file` or add it to the system store";
    assert_eq!(untrusted.reason.to_string(), expected);

    let mut trusting = https(&server, "localhost");
    trusting.ca_file = Some(authority.file(&folder));
    let gateway = gateway();
    assert_eq!(body_text(post(&gateway, &trusting, b"{}").await).await.as_deref(), Ok("ok"));
    assert!(post(&gateway, &trusting, b"{}").await.expect("an answer").reused);

    let mut other_name = https(&server, "127.0.0.1");
    other_name.ca_file.clone_from(&trusting.ca_file);
    let other_name_fault = transport_fault(&other_name).await;
    assert!(other_name_fault.reason.to_string().contains("another name"), "{other_name_fault:?}");
    other_name.insecure_tls = true;
    assert_eq!(body_text(post(&gateway, &other_name, b"{}").await).await.as_deref(), Ok("ok"));

    let mut no_file = https(&server, "localhost");
    no_file.ca_file = Some(folder.path().join("none.pem"));
    let no_file = transport_fault(&no_file).await;
    assert!(
        no_file.kind == TransportKind::Tls && no_file.reason.to_string().contains("none.pem"),
        "{no_file:?}"
    );
}

#[tokio::test]
async fn servers_without_tls_and_unresponsive_servers_are_distinguished() {
    let plain = Server::start(|_, mut stream| {
        let _hello = stream.read(&mut [0; 100]);
        send_bytes(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let no_tls = transport_fault(&https(&plain, "127.0.0.1")).await;
    assert!(
        no_tls.kind == TransportKind::Tls && no_tls.reason.to_string().contains("http://"),
        "{no_tls:?}"
    );

    let silent = Server::start(|_, mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let mut slow = https(&silent, "127.0.0.1");
    slow.timeouts.connect = Duration::from_millis(100);
    let slow = transport_fault(&slow).await;
    assert_eq!(
        (slow.kind, slow.may_be_received),
        (TransportKind::ConnectTimeout, false),
        "{slow:?}"
    );
}

/// Reads frames up to the head of a request; returns its stream id.
fn h2_request(stream: &mut TlsStream) -> Option<[u8; 4]> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).ok()?;
        if head[3] == 1 {
            return Some([head[5], head[6], head[7], head[8]]);
        }
    }
}

fn h2_frame(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

#[tokio::test]
async fn http2_is_supported_and_refused_streams_are_retryable() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    // The first connection refuses the stream, the second closes gracefully, the third answers.
    let server = tls_server(authority.server("localhost", &["h2"]), |number, mut stream| {
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).is_err() {
            return;
        }
        send_bytes(&mut stream, &h2_frame(4, 0, [0; 4], &[]));
        while let Some(id) = h2_request(&mut stream) {
            let answer = match number {
                0 => [h2_frame(3, 0, id, &[0, 0, 0, 7]), h2_frame(7, 0, [0; 4], &[0; 8])].concat(),
                1 => h2_frame(7, 0, [0; 4], &[0; 8]),
                _ => h2_frame(1, 5, id, &[0x88]),
            };
            send_bytes(&mut stream, &answer);
        }
    });
    let mut upstream = https(&server, "localhost");
    upstream.ca_file = Some(authority.file(&folder));
    let gateway = gateway();
    for _ in 0..2 {
        let fault = post(&gateway, &upstream, b"{}").await.expect_err("refused");
        assert_eq!((fault.kind, fault.may_be_received), (TransportKind::Stale, false), "{fault:?}");
    }
    assert_eq!(post(&gateway, &upstream, b"{}").await.expect("an answer").status, StatusCode::OK);
}

// ---- proxies

#[tokio::test]
async fn http_proxy_forwards_plain_requests_and_tunnels_tls() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let target = ok_tls_server(authority.server("localhost", &["http/1.1"]));
    let (sender, reported) = mpsc::channel();
    let port = target.address.port();
    let proxy = Server::start(move |_, mut stream| {
        let asked = request(&mut stream).to_lowercase();
        let tunnel = asked.starts_with("connect ");
        sender.send(asked).expect("the test waits");
        if !tunnel {
            return send_bytes(&mut stream, OK);
        }
        send_bytes(&mut stream, b"HTTP/1.1 200 Connection established\r\n\r\n");
        forward_both_ways(
            stream,
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the target"),
        );
    });

    let mut plain = upstream("http://models.test/v1");
    plain.proxy = ProxySetting::Url(format!("http://user:p%40ss@{}", proxy.address));
    assert_eq!(body_text(post(&gateway(), &plain, b"{}").await).await.as_deref(), Ok("ok"));
    let asked = reported.recv().expect("a request");
    assert!(
        asked.starts_with("post http://models.test/v1/chat/completions http/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("proxy-authorization: basic dxnlcjpwqhnz\r\n"), "{asked}");

    let mut tunnelled = https(&target, "localhost");
    tunnelled.ca_file = Some(authority.file(&folder));
    tunnelled.proxy = plain.proxy.clone();
    assert_eq!(body_text(post(&gateway(), &tunnelled, b"{}").await).await.as_deref(), Ok("ok"));
    let asked = reported.recv().expect("a request");
    assert!(asked.starts_with(&format!("connect localhost:{port} http/1.1\r\n")), "{asked}");
    assert!(
        asked.contains("proxy-authorization: basic dxnlcjpwqhnz\r\n") && !asked.contains("sk-very"),
        "{asked}"
    );
}

#[tokio::test]
async fn socks_proxy_gets_host_or_address_and_credentials() {
    let (sender, reported) = mpsc::channel();
    let proxy = Server::start(move |_, mut stream| {
        let mut printed = |length: usize| {
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes).expect("a SOCKS client");
            bytes
        };
        assert_eq!(printed(3), [5, 1, 2]);
        send_bytes(&mut stream, &[5, 2]);
        let mut login = vec![0; 3 + 4 + 4];
        stream.read_exact(&mut login).expect("a login");
        send_bytes(&mut stream, &[1, 0]);
        let mut target = vec![0; 4];
        stream.read_exact(&mut target).expect("a target");
        let mut length = [4];
        if target[3] == 3 {
            stream.read_exact(&mut length).expect("a length");
        }
        let mut rest = vec![0; usize::from(length[0]) + 2];
        stream.read_exact(&mut rest).expect("an address");
        send_bytes(&mut stream, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        sender.send((login, target[3], rest)).expect("the test waits");
        request(&mut stream);
        send_bytes(&mut stream, OK);
    });
    for (scheme, kind, address) in
        [("socks5h", 3, &b"localhost\0\x50"[..]), ("socks5", 1, b"\x7f\0\0\x01\0\x50")]
    {
        let host = if scheme == "socks5" { "127.0.0.1" } else { "localhost" };
        let mut upstream = upstream(&format!("http://{host}/v1"));
        upstream.proxy = ProxySetting::Url(format!("{scheme}://user:p%40ss@{}", proxy.address));
        assert_eq!(body_text(post(&gateway(), &upstream, b"{}").await).await.as_deref(), Ok("ok"));
        let (login, said_kind, printed) = reported.recv().expect("a login");
        assert_eq!(
            (&login[..], said_kind, &printed[..]),
            (&b"\x01\x04user\x04p@ss"[..], kind, address)
        );
    }
}

#[tokio::test]
async fn refusing_or_missing_proxy_is_named() {
    let refusing =
        Server::with_response(&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..]);
    let mut upstream = upstream("https://api.test/v1");
    upstream.proxy = ProxySetting::Url(format!("http://user:hidden@{}", refusing.address));
    let refused = transport_fault(&upstream).await;
    assert_eq!((refused.kind, refused.may_be_received), (TransportKind::Connect, false));
    assert!(
        refused.reason.to_string().contains(&refusing.address.to_string())
            && !refused.reason.to_string().contains("hidden"),
        "{refused:?}"
    );

    upstream.proxy = ProxySetting::Url("http://nx.invalid:3128".to_owned());
    let gone = transport_fault(&upstream).await;
    assert_eq!(
        (gone.kind, &*gone.reason.to_string()),
        (TransportKind::Dns, "proxy: cannot resolve nx.invalid")
    );
}

fn forward_both_ways(a: TcpStream, b: TcpStream) {
    let (mut from, mut to) = (a.try_clone().expect("a socket"), b.try_clone().expect("a socket"));
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let (mut from, mut to) = (b, a);
    let _closed = std::io::copy(&mut from, &mut to);
}

// ---- outside the request path

struct EchoUpstream;

impl InProcess for EchoUpstream {
    fn respond(
        &self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = http::Response<InProcessBody>> + Send + '_>> {
        Box::pin(async move {
            http::Response::new(full_body(format!("{} {}", request.method(), request.uri())))
        })
    }
}

#[tokio::test]
async fn in_process_upstream_needs_no_socket() {
    let gateway = gateway().with_in_process("demo", Arc::new(EchoUpstream));
    let mut upstream = upstream("demo:");
    upstream.auth = Auth::None;
    assert_eq!(
        body_text(post(&gateway, &upstream, b"{}").await).await.as_deref(),
        Ok("POST /chat/completions")
    );
    let upstream = Arc::new(upstream);
    let listed = models::fetch_model_list(
        &gateway,
        &upstream,
        &upstream.endpoints[0],
        None,
        "/models",
        HeaderMap::new(),
    )
    .await;
    assert_eq!(listed.expect("a list"), "GET /models");
    let checked = aux_client::get(
        &gateway,
        &upstream,
        &upstream.endpoints[0],
        None,
        "/models",
        HeaderMap::new(),
    )
    .await;
    assert_eq!(checked.expect("an answer").body, "GET /models");
}

#[tokio::test]
async fn key_checks_use_the_ca_and_key_of_the_upstream() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let (sender, reported) = mpsc::channel();
    let server = tls_server(authority.server("localhost", &["http/1.1"]), move |_, mut stream| {
        sender.send(request(&mut stream)).expect("the test waits");
        send_bytes(&mut stream, b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}");
    });
    let mut upstream = https(&server, "localhost");
    upstream.local = false;
    upstream.proxy = ProxySetting::Direct;
    upstream.auth = Auth::Header("api-key".to_owned());
    upstream.ca_file = Some(authority.file(&folder));
    let upstream = Arc::new(upstream);
    let checked = aux_client::get(
        &gateway(),
        &upstream,
        &upstream.endpoints[0],
        Some(KEY),
        "/models",
        HeaderMap::new(),
    )
    .await;
    assert_eq!(checked.expect("an answer").status, StatusCode::UNAUTHORIZED);
    let asked = reported.recv().expect("a request").to_lowercase();
    assert!(
        asked.starts_with("get /v1/models http/1.1")
            && asked.contains("api-key: sk-very-secret\r\n"),
        "{asked}"
    );

    let mut untrusting = Upstream::clone(&upstream);
    untrusting.ca_file = None;
    let untrusting = Arc::new(untrusting);
    let fault = aux_client::get(
        &gateway(),
        &untrusting,
        &untrusting.endpoints[0],
        Some(KEY),
        "/models",
        HeaderMap::new(),
    )
    .await;
    let fault = fault.expect_err("not trusted");
    assert!(
        fault.kind == TransportKind::Tls && fault.reason.to_string().contains("not trusted"),
        "{fault:?}"
    );
}

#[tokio::test]
async fn removed_key_sends_no_request() {
    let server = Server::with_response(OK);
    let gateway = gateway();
    gateway.keys().remove(KEY);
    let fault = post(&gateway, &server.upstream(), b"{}").await.expect_err("no key");
    assert!(!fault.may_be_received);
    assert_eq!(server.received(), 0);
}

#[tokio::test]
async fn only_local_servers_that_answer_json_are_discovered() {
    let json = Server::with_response(&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"[..]);
    let html = Server::with_response(&b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"[..]);
    let missing =
        Server::with_response(&b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"[..]);
    let silent = Server::start(|_, mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let urls: Vec<_> = [&json, &html, &missing, &silent]
        .iter()
        .map(|s| format!("http://{}/api/tags", s.address))
        .collect();
    let found: Vec<_> =
        local_probe::fetch_json_bodies(&urls).await.iter().map(Option::is_some).collect();
    assert_eq!(found, [true, false, false, false]);
}
