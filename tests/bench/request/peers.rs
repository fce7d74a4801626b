//! A client and an upstream that allocate nothing once they run.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello there, this is an answer"},"finish_reason":"stop"}],"usage":{"prompt_tokens":250,"completion_tokens":8,"total_tokens":258}}"#;
const EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null}]}\n\n";
const END: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// Starts an upstream and returns its port. A request for `stream` gets as many events as its
/// `n` says, each in a piece of its own.
pub(crate) fn start_upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let accept = move || {
        for stream in listener.incoming().flatten() {
            spawn("peer-upstream", move || serve(stream));
        }
    };
    spawn("peer-accept", accept);
    port
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    drop(thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread"));
}

fn serve(mut stream: TcpStream) {
    drop(stream.set_nodelay(true));
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let event = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
    let end = format!("{:x}\r\n{END}\r\n0\r\n\r\n", END.len());
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Some(length) = read_message(&mut stream, &mut buffer) else { return };
        let request = &buffer[..length];
        let sent = match find(request, b"events:") {
            None if request.starts_with(b"GET") => {
                let list = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{list}",
                    list.len()
                )
            }
            None => stream.write_all(whole.as_bytes()),
            Some(at) => {
                let digits = request[at + 7..].iter().take_while(|byte| byte.is_ascii_digit());
                let count = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
                let mut sent = stream.write_all(head.as_bytes());
                for _ in 0..count {
                    sent = sent.and_then(|()| stream.write_all(event.as_bytes()));
                    // Each event is a write and a read of its own.
                    thread::sleep(Duration::from_micros(200));
                }
                sent.and_then(|()| stream.write_all(end.as_bytes()))
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Reads one request and returns its length.
fn read_message(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).ok().filter(|read| *read > 0)?;
        length += read;
        if let Some(total) = message_length(&buffer[..length])
            && length >= total
        {
            return Some(length);
        }
    }
}

/// Returns the length of a message with a `content-length`; `None` while its head is incomplete.
fn message_length(message: &[u8]) -> Option<usize> {
    let head = find(message, b"\r\n\r\n")? + 4;
    let Some(at) = find(&message[..head], b"content-length: ") else { return Some(head) };
    let digits = message[at + 16..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A client with one connection.
pub(crate) struct Client {
    stream: TcpStream,
    port: u16,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects as soon as the proxy listens.
    pub(crate) fn connect(port: u16) -> Self {
        for _ in 0..3_000 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                drop(stream.set_nodelay(true));
                return Self { stream, port, buffer: vec![0; 64 << 10] };
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the proxy does not listen");
    }

    /// Returns a request of about 1 KiB; the number of events of `stream` is written into it later.
    pub(crate) fn request(&self, kind: &str, key: &str) -> Vec<u8> {
        let filler = "word ".repeat(120);
        let (stream, events) =
            if kind == "stream" { (",\"stream\":true", " events:0000000 ") } else { ("", "") };
        let body = format!(
            "{{\"model\":\"m\"{stream},\"messages\":[{{\"role\":\"system\",\"content\":\"You are terse.\"}},{{\"role\":\"user\",\"content\":\"{events}{filler}\"}}]}}"
        );
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {key}\r\naccept: application/json\r\n\
             user-agent: OpenAI/Python 2.1.0\r\nx-stainless-lang: python\r\nx-stainless-runtime: CPython\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .into_bytes()
    }

    /// Asks and reads the whole answer.
    pub(crate) fn ask(&mut self, request: &[u8]) {
        self.stream.write_all(request).expect("sent");
        let length = read_message(&mut self.stream, &mut self.buffer).expect("an answer");
        assert!(
            self.buffer[..length].starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&self.buffer[..length])
        );
    }

    /// Asks for a stream of so many events and reads it to its end.
    pub(crate) fn ask_until(&mut self, request: &[u8], events: u64) {
        let at = find(request, b"events:").expect("a place for the number") + 7;
        let mut number = *b"0000000";
        let mut rest = events;
        for digit in number.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.stream.write_all(&request[..at]).expect("sent");
        self.stream.write_all(&number).expect("sent");
        self.stream.write_all(&request[at + 7..]).expect("sent");
        let mut tail = [0; 5];
        loop {
            let read = self.stream.read(&mut self.buffer).expect("an answer");
            assert!(read > 0, "the stream ended early");
            let joined = read.min(5);
            tail.rotate_left(joined);
            tail[5 - joined..].copy_from_slice(&self.buffer[read - joined..read]);
            if tail == *b"0\r\n\r\n" {
                return;
            }
        }
    }
}
