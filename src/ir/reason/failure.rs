//! Why an attempt failed, or why a scope is not used.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    base::money::NanoUsd,
    ir::{
        cost::Period,
        reason::{missing_secret::MissingSecret, span::Span, text_field::Reason},
    },
};

/// The cooldown class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CooldownClass {
    None,
    /// Blocked within the hint; suspect without one.
    RateLimited,
    ServerError,
    Quota,
    /// A model that the upstream does not have.
    ModelMissing,
    /// Until the secret changes, `warm`, or a free check succeeds.
    Rejected,
}

/// Why an attempt failed or why a scope cools. Texts from outside are sanitised and redacted by the
/// code that makes the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FailureReason {
    /// The proxy on the way to the upstream failed.
    AtProxy { cause: Arc<FailureReason> },
    /// The body of a response broke.
    Body { upstream: Arc<str>, problem: BodyProblem },
    /// A response broke off after this many characters, and another attempt continues it.
    BrokeOff { characters: usize, cause: Arc<FailureReason> },
    /// The budget of a key or an upstream is spent.
    BudgetSpent { spent: NanoUsd, limit: NanoUsd, per: Period },
    ConnectTimeout {
        #[serde(rename = "waited_ms")]
        waited: Span,
        address: Arc<str>,
    },
    /// The connection failed; `address` is `host:port`.
    Connection { problem: ConnectionProblem, address: Arc<str> },
    /// Cooled by a user.
    CooledByHand,
    /// No byte of the body came for this long.
    Idle {
        #[serde(rename = "waited_ms")]
        waited: Span,
    },
    /// The response was not complete within `total`, or half of it.
    Incomplete { half: bool },
    /// A user ended the request.
    Killed,
    /// The other of two concurrent attempts won.
    LostRace { winner: RaceWinner },
    /// The key has no usable secret.
    MissingSecret { secret: Arc<MissingSecret> },
    /// No response within `total`, or half of it.
    NoAnswer { half: bool },
    /// No content within `first_byte`.
    NoContent {
        #[serde(rename = "waited_ms")]
        waited: Span,
    },
    /// A probe by aiproxy failed.
    Probe { path: Arc<str>, cause: Arc<FailureReason> },
    /// The upstream refused the request, for short: its status, and its code or the model.
    Refused { status: u16, code: Option<Arc<str>>, model: Option<Arc<str>> },
    /// A refusal with the upstream's message and the cooldown that follows.
    RefusedWith {
        cause: Arc<FailureReason>,
        message: Arc<str>,
        #[serde(rename = "cooling_ms")]
        cooling: Option<Span>,
    },
    /// aiproxy is shutting down.
    ShuttingDown,
    /// A failure that is only known as a text.
    Text { text: Arc<str> },
    /// The body is larger than the limit.
    TooLarge { limit: u64 },
    /// The stream ended without an error, but before it was complete.
    Truncated,
    /// The request failed while this attempt was running, for an unknown reason.
    Unfinished,
    /// The host name has no address.
    Unresolved { host: Arc<str> },
}

/// The attempt that sent content first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RaceWinner {
    First,
    Second,
}

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionProblem {
    ClosedBeforeResponse,
    ClosedByUpstream,
    ClosedInHead,
    ClosedInHandshake,
    ClosedWhenMade,
    Dead,
    HeadTooLarge,
    NetworkLost,
    NetworkUnreachable,
    NoAnswer,
    NoConnection,
    NoRoute,
    NotHttp2,
    OutOfFiles,
    Refused,
    ResetBeforeResponse,
    ResetWhileConnecting,
    /// An idle connection was closed.
    Stale,
    TimedOut,
}

/// How a body broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyProblem {
    BrokeOff,
    ConnectionDead,
    CutOff,
    MalformedChunk,
}

impl FailureReason {
    /// Makes a reason that is only a text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text { text: text.into() }
    }

    /// Returns the reason with its texts from outside passed through `clean`, which redacts them.
    #[must_use]
    pub fn map_texts(&self, clean: &dyn Fn(&str) -> Arc<str>) -> Self {
        let inner = |cause: &Self| Arc::new(cause.map_texts(clean));
        let mut mapped = self.clone();
        match &mut mapped {
            Self::AtProxy { cause } | Self::BrokeOff { cause, .. } | Self::Probe { cause, .. } => {
                *cause = inner(cause);
            }
            Self::Refused { code, model, .. } => {
                for text in [code, model].into_iter().flatten() {
                    *text = clean(text);
                }
            }
            Self::RefusedWith { cause, message, .. } => {
                (*cause, *message) = (inner(cause), clean(message));
            }
            Self::Text { text } => *text = clean(text),
            _ => {}
        }
        mapped
    }

    /// Returns the reason without the name of this model, for a place that names it already.
    #[must_use]
    pub fn without_model(&self, model: &str) -> Cow<'_, Self> {
        match self {
            Self::Refused { status, .. } if self.names_model(model) => {
                Cow::Owned(Self::Refused { status: *status, code: None, model: None })
            }
            Self::RefusedWith { cause, message, cooling } if self.names_model(model) => {
                Cow::Owned(Self::RefusedWith {
                    cause: Arc::new(cause.without_model(model).into_owned()),
                    message: Arc::clone(message),
                    cooling: *cooling,
                })
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Whether the text of the reason names this model.
    #[must_use]
    pub fn names_model(&self, model: &str) -> bool {
        match self {
            Self::AtProxy { cause }
            | Self::BrokeOff { cause, .. }
            | Self::Probe { cause, .. }
            | Self::RefusedWith { cause, .. } => cause.names_model(model),
            Self::Refused { code: None, model: Some(named), .. } => **named == *model,
            _ => false,
        }
    }
}

impl Reason for FailureReason {
    fn from_text(text: Arc<str>) -> Self {
        Self::Text { text }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtProxy { cause } => write!(f, "proxy: {cause}"),
            Self::Body { upstream, problem } => {
                write!(f, "the response of {upstream} {}", problem.text())
            }
            Self::BrokeOff { characters, cause } => {
                write!(f, "broke off after {characters} characters: {cause}")
            }
            Self::BudgetSpent { spent, limit, per } => {
                let (spent, limit) = (spent.format_short(), limit.format_short());
                write!(f, "spent {spent} of {limit} per {}", per.name())
            }
            Self::ConnectTimeout { waited, address } => {
                write!(f, "no connection within {} ({address})", print_timeout(waited.0))
            }
            Self::Connection { problem, address } => write!(f, "{} ({address})", problem.text()),
            Self::CooledByHand => f.write_str("cooled by hand"),
            Self::Idle { waited } => write!(
                f,
                "no byte of the answer came for {}s (`idle` under [timeouts])",
                waited.0.as_secs_f64()
            ),
            Self::Incomplete { half } => write!(
                f,
                "the answer was not complete in time ({} under [timeouts] for this attempt)",
                print_total(*half)
            ),
            Self::Killed => f.write_str("the request was ended from the dashboard"),
            Self::LostRace { winner: RaceWinner::First } => {
                f.write_str("cancelled: the first spoke first")
            }
            Self::LostRace { winner: RaceWinner::Second } => {
                f.write_str("cancelled: the second spoke first")
            }
            Self::MissingSecret { secret } => write!(f, "{secret}"),
            Self::NoAnswer { half } => write!(
                f,
                "no answer came in time ({} under [timeouts] for this attempt)",
                print_total(*half)
            ),
            Self::NoContent { waited } => write!(
                f,
                "no content came within {}s (`first_byte` under [timeouts])",
                waited.0.as_secs_f64()
            ),
            Self::Probe { path, cause } => write!(f, "{cause} (probe of {path})"),
            Self::Refused { status, code: Some(code), .. } => write!(f, "{status} {code}"),
            Self::Refused { status, code: None, model: Some(model) } => {
                write!(f, "{status} for {model}")
            }
            Self::Refused { status, code: None, model: None } => write!(f, "{status}"),
            Self::RefusedWith { cause, message, cooling } => {
                write!(f, "{cause}: {message}")?;
                cooling.map_or(Ok(()), |span| write!(f, " (cooling {span})"))
            }
            Self::ShuttingDown => f.write_str("aiproxy is shutting down"),
            Self::Text { text } => f.write_str(text),
            Self::TooLarge { limit } => write!(
                f,
                "the answer is larger than {limit} bytes (`max_response_bytes` under [server])"
            ),
            Self::Truncated => f.write_str("the stream ended before it was complete"),
            Self::Unfinished => f.write_str("broke off"),
            Self::Unresolved { host } => write!(f, "cannot resolve {host}"),
        }
    }
}

/// The name of the timeout for the whole request, of which one attempt may have half.
#[must_use]
pub fn print_total(half: bool) -> &'static str {
    if half { "half of `total`" } else { "`total`" }
}

/// Prints a configured timeout: `250 ms`, `10 s`.
#[must_use]
pub fn print_timeout(span: Duration) -> String {
    if span.as_millis() < 1_000 {
        format!("{} ms", span.as_millis())
    } else {
        format!("{} s", span.as_secs_f64())
    }
}

impl ConnectionProblem {
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::ClosedBeforeResponse => "connection closed before the response",
            Self::ClosedByUpstream => "the upstream closes this connection",
            Self::ClosedInHandshake => "connection closed during the TLS handshake",
            Self::ClosedInHead => "connection closed inside the head of the response",
            Self::ClosedWhenMade => "the connection was closed as soon as it was made",
            Self::Dead => "the connection went dead before the response",
            Self::HeadTooLarge => "the head of the response is too large",
            Self::NetworkLost => "the network went away",
            Self::NetworkUnreachable => "network unreachable",
            Self::NoAnswer => "no answer in time",
            Self::NoConnection => "no connection",
            Self::NoRoute => "no route to the host",
            Self::NotHttp2 => "not a valid HTTP/2 response",
            Self::OutOfFiles => "too many open files here, no connection possible",
            Self::Refused => "connection refused",
            Self::ResetBeforeResponse => "connection reset before the response",
            Self::ResetWhileConnecting => "connection reset while connecting",
            Self::Stale => "the kept connection was closed",
            Self::TimedOut => "connecting took too long",
        }
    }
}

impl BodyProblem {
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::BrokeOff => "broke off",
            Self::ConnectionDead => "stopped: the connection went dead",
            Self::CutOff => "was cut off",
            Self::MalformedChunk => "has a malformed chunk",
        }
    }
}
