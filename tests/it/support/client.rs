//! An HTTP/1.1 client on plain sockets: it controls every byte and records the arrival time of
//! every piece.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::TEST_TIMEOUT;

/// A request before it is written as bytes.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn post(path: &str, body: &Value) -> Self {
        Self::post_bytes(path, body.to_string().into_bytes())
            .header("content-type", "application/json")
    }

    pub(crate) fn post_bytes(path: &str, body: Vec<u8>) -> Self {
        Self { method: "POST", path: path.to_owned(), headers: Vec::new(), body }
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Sets a header; replaces an earlier one with that name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Returns the bytes on the wire; `Host` is the address unless it was set.
    pub(crate) fn bytes(&self, addr: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let named =
            |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !named("host") {
            head += &format!("host: {addr}\r\n");
        }
        if self.method != "GET" && !named("transfer-encoding") && !named("content-length") {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (head + "\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends the request on a new connection and reads the complete response.
    pub(crate) fn send(&self, addr: SocketAddr) -> HttpAnswer {
        self.open(addr).read_answer()
    }

    /// Sends the request; the caller reads the response from the connection.
    pub(crate) fn open(&self, addr: SocketAddr) -> Connection {
        let mut connection = Connection::connect(addr);
        connection.write(&self.bytes(addr));
        connection
    }
}

/// A complete response.
#[derive(Clone, Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body ended as its framing requires.
    pub(crate) complete: bool,
}

impl HttpAnswer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in a {}: {}", self.status, self.text()))
    }

    /// Returns the text of an OpenAI chat response, streamed or not.
    pub(crate) fn chat_text(&self) -> String {
        if let Ok(json) = serde_json::from_slice::<Value>(&self.body) {
            return json["choices"][0]["message"]["content"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        events(&self.body).iter().map(|event| delta(event)).collect()
    }
}

/// Returns the data of each server-sent event.
pub(crate) fn events(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// Returns the text that an OpenAI chunk adds.
pub(crate) fn delta(data: &str) -> String {
    let chunk: Value = serde_json::from_str(data).unwrap_or_default();
    chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
}

fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// A socket, with the bytes that were received but not read yet.
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    read_head: Option<(u16, Vec<(String, String)>)>,
    remaining: RemainingBody,
}

/// How much of the body is outstanding.
#[derive(Clone, Copy, Debug, PartialEq)]
enum RemainingBody {
    Bytes(usize),
    Chunks,
    Done,
    UntilClose,
}

impl Connection {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&addr, TEST_TIMEOUT).expect("connect");
        socket.set_read_timeout(Some(TEST_TIMEOUT)).expect("a read timeout");
        socket.set_nodelay(true).expect("no delay");
        Self { socket, buffer: Vec::new(), read_head: None, remaining: RemainingBody::Done }
    }

    /// Sends bytes unchanged. A closed peer is only detected when reading.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        drop(self.socket.write_all(bytes));
    }

    /// Closes the sending half; reading continues.
    pub(crate) fn half_close(&self) {
        drop(self.socket.shutdown(Shutdown::Write));
    }

    /// Reads more bytes; returns false at the end, including a reset.
    fn read_more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.socket.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&piece[..count]);
                true
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                panic!(
                    "nothing came for {TEST_TIMEOUT:?}; so far: {}",
                    String::from_utf8_lossy(&self.buffer)
                )
            }
            Err(_) => false,
        }
    }

    /// Reads until the peer closes.
    pub(crate) fn read_to_end(mut self) -> Vec<u8> {
        while self.read_more() {}
        self.buffer
    }

    /// Reads status and headers of the next response; `None` if the peer closed the connection
    /// instead.
    pub(crate) fn read_head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.read_more() {
                return None;
            }
        };
        let head: Vec<_> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok())
            .expect("a status line");
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        self.remaining = match (
            find_header(&headers, "transfer-encoding"),
            find_header(&headers, "content-length"),
        ) {
            (Some(_), _) => RemainingBody::Chunks,
            (None, Some(length)) => RemainingBody::Bytes(length.parse().expect("a length")),
            _ if status == 204 || status == 304 || status < 200 => RemainingBody::Done,
            _ => RemainingBody::UntilClose,
        };
        self.read_head = Some((status, headers.clone()));
        Some((status, headers))
    }

    /// Reads the next piece of the body as it arrived; `Ok(None)` at its proper end, `Err` if it
    /// broke off.
    pub(crate) fn read_piece(&mut self) -> Result<Option<Vec<u8>>, ()> {
        loop {
            match self.remaining {
                RemainingBody::Done | RemainingBody::Bytes(0) => return Ok(None),
                RemainingBody::Bytes(left) if !self.buffer.is_empty() => {
                    let take = left.min(self.buffer.len());
                    self.remaining = RemainingBody::Bytes(left - take);
                    return Ok(Some(self.buffer.drain(..take).collect()));
                }
                RemainingBody::UntilClose if !self.buffer.is_empty() => {
                    return Ok(Some(std::mem::take(&mut self.buffer)));
                }
                RemainingBody::Chunks => {
                    if let Some((from, to)) = self.find_chunk() {
                        let piece = self.buffer[from..to].to_vec();
                        self.buffer.drain(..to + 2);
                        if piece.is_empty() {
                            self.remaining = RemainingBody::Done;
                            return Ok(None);
                        }
                        return Ok(Some(piece));
                    }
                }
                _ => {}
            }
            if !self.read_more() {
                return if self.remaining == RemainingBody::UntilClose {
                    Ok(None)
                } else {
                    Err(())
                };
            }
        }
    }

    /// Returns the position of the next chunk when it is complete.
    fn find_chunk(&self) -> Option<(usize, usize)> {
        let line = self.buffer.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&self.buffer[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .expect("a chunk size");
        (self.buffer.len() >= line + 2 + size + 2).then_some((line + 2, line + 2 + size))
    }

    /// Reads until the body contains this text; panics if the body ends first.
    pub(crate) fn read_until(&mut self, wanted: &str) -> String {
        if self.read_head.is_none() {
            self.read_head();
        }
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let piece = self.read_piece().ok().flatten();
            let Some(piece) = piece else {
                panic!("the body ended before {wanted:?}: {}", String::from_utf8_lossy(&seen))
            };
            seen.extend(piece);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads the pieces of the body, each with the time since this call.
    pub(crate) fn timed_pieces(&mut self) -> Vec<(Duration, Vec<u8>)> {
        let (begun, mut pieces) = (Instant::now(), Vec::new());
        while let Ok(Some(piece)) = self.read_piece() {
            pieces.push((begun.elapsed(), piece));
        }
        pieces
    }

    /// Reads the next complete response.
    pub(crate) fn read_answer(&mut self) -> HttpAnswer {
        self.try_read_answer().unwrap_or_else(|| {
            panic!("closed without an answer: {}", String::from_utf8_lossy(&self.buffer))
        })
    }

    /// Reads the next response; `None` if the peer closed the connection instead.
    pub(crate) fn try_read_answer(&mut self) -> Option<HttpAnswer> {
        let (status, headers) = match self.read_head.take() {
            Some(head) => head,
            None => self.read_head()?,
        };
        let (mut body, mut whole) = (Vec::new(), true);
        loop {
            match self.read_piece() {
                Ok(Some(piece)) => body.extend(piece),
                Ok(None) => break,
                Err(()) => {
                    whole = false;
                    break;
                }
            }
        }
        self.read_head = None;
        Some(HttpAnswer { status, headers, body, complete: whole })
    }
}
