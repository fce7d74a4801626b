//! An HTTP/1.1 client on bare sockets: every byte chosen, every piece with the time at which it
//! came.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::PATIENCE;

/// A request, as bytes to be.
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

    /// Adds a header, or replaces the one of that name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// The bytes on the wire; `Host` is the address unless given.
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

    /// Sends the request on a connection of its own and reads the whole answer.
    pub(crate) fn send(&self, addr: SocketAddr) -> Answer {
        self.open(addr).answer()
    }

    /// Sends the request; the answer is read by whoever holds the connection.
    pub(crate) fn open(&self, addr: SocketAddr) -> Connection {
        let mut connection = Connection::to(addr);
        connection.write(&self.bytes(addr));
        connection
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body ended as its framing says it must.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in a {}: {}", self.status, self.text()))
    }

    /// What an OpenAI chat answer says, streamed or not.
    pub(crate) fn said(&self) -> String {
        if let Ok(json) = serde_json::from_slice::<Value>(&self.body) {
            return json["choices"][0]["message"]["content"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        events(&self.body).iter().map(|event| delta(event)).collect()
    }
}

/// The data of each server-sent event.
pub(crate) fn events(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// The text that an OpenAI chunk adds.
pub(crate) fn delta(data: &str) -> String {
    let chunk: Value = serde_json::from_str(data).unwrap_or_default();
    chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// One socket, and what has come over it but was not asked for yet.
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    head: Option<(u16, Vec<(String, String)>)>,
    left: Left,
}

/// How much of the body is still to come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    Bytes(usize),
    Chunks,
    Done,
    UntilClose,
}

impl Connection {
    pub(crate) fn to(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&addr, PATIENCE).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        socket.set_nodelay(true).expect("no delay");
        Self { socket, buffer: Vec::new(), head: None, left: Left::Done }
    }

    /// Sends bytes as they are. A peer that already closed is seen when reading.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        drop(self.socket.write_all(bytes));
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub(crate) fn half_close(&self) {
        drop(self.socket.shutdown(Shutdown::Write));
    }

    /// Reads more; false at the end, a reset included.
    fn more(&mut self) -> bool {
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
                    "nothing came for {PATIENCE:?}; so far: {}",
                    String::from_utf8_lossy(&self.buffer)
                )
            }
            Err(_) => false,
        }
    }

    /// Everything until the peer closes.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        while self.more() {}
        self.buffer
    }

    /// Status and headers of the next answer; `None` where the peer closed instead.
    pub(crate) fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.more() {
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
        self.left = match (find(&headers, "transfer-encoding"), find(&headers, "content-length")) {
            (Some(_), _) => Left::Chunks,
            (None, Some(length)) => Left::Bytes(length.parse().expect("a length")),
            _ if status == 204 || status == 304 || status < 200 => Left::Done,
            _ => Left::UntilClose,
        };
        self.head = Some((status, headers.clone()));
        Some((status, headers))
    }

    /// The next piece of the body as it came; `Ok(None)` at its proper end, `Err` where it broke
    /// off.
    pub(crate) fn piece(&mut self) -> Result<Option<Vec<u8>>, ()> {
        loop {
            match self.left {
                Left::Done | Left::Bytes(0) => return Ok(None),
                Left::Bytes(left) if !self.buffer.is_empty() => {
                    let take = left.min(self.buffer.len());
                    self.left = Left::Bytes(left - take);
                    return Ok(Some(self.buffer.drain(..take).collect()));
                }
                Left::UntilClose if !self.buffer.is_empty() => {
                    return Ok(Some(std::mem::take(&mut self.buffer)));
                }
                Left::Chunks => {
                    if let Some((from, to)) = self.chunk() {
                        let piece = self.buffer[from..to].to_vec();
                        self.buffer.drain(..to + 2);
                        if piece.is_empty() {
                            self.left = Left::Done;
                            return Ok(None);
                        }
                        return Ok(Some(piece));
                    }
                }
                _ => {}
            }
            if !self.more() {
                return if self.left == Left::UntilClose { Ok(None) } else { Err(()) };
            }
        }
    }

    /// Where the next chunk lies, once it is whole.
    fn chunk(&self) -> Option<(usize, usize)> {
        let line = self.buffer.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&self.buffer[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .expect("a chunk size");
        (self.buffer.len() >= line + 2 + size + 2).then_some((line + 2, line + 2 + size))
    }

    /// Reads until the body has said this; panics when it ends before.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        if self.head.is_none() {
            self.head();
        }
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let piece = self.piece().ok().flatten();
            let Some(piece) = piece else {
                panic!("the body ended before {wanted:?}: {}", String::from_utf8_lossy(&seen))
            };
            seen.extend(piece);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// The pieces of the body with the time each took since this call.
    pub(crate) fn timed(&mut self) -> Vec<(Duration, Vec<u8>)> {
        let (begun, mut pieces) = (Instant::now(), Vec::new());
        while let Ok(Some(piece)) = self.piece() {
            pieces.push((begun.elapsed(), piece));
        }
        pieces
    }

    /// The next answer, whole.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|| {
            panic!("closed without an answer: {}", String::from_utf8_lossy(&self.buffer))
        })
    }

    /// The next answer; `None` where the peer closed instead.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        let (status, headers) = match self.head.take() {
            Some(head) => head,
            None => self.head()?,
        };
        let (mut body, mut whole) = (Vec::new(), true);
        loop {
            match self.piece() {
                Ok(Some(piece)) => body.extend(piece),
                Ok(None) => break,
                Err(()) => {
                    whole = false;
                    break;
                }
            }
        }
        self.head = None;
        Some(Answer { status, headers, body, whole })
    }
}
