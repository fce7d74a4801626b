//! A stream on its way to a client: passed through in its own dialect, or translated from another.

use bytes::Bytes;

use crate::{
    dialect::{
        AnswerSummary, StreamWriter,
        passthrough::{FeedResult, Passthrough, StreamEnd},
        rescue_splice::{RecordedText, StreamRecorder},
        translate::Translator,
    },
    ir::{
        fault::{Fault, ProxyError},
        response::ChatResponse,
        usage::Usage,
    },
};

/// Both ways look the same to whoever moves the bytes.
pub enum ResponseStream {
    Passthrough(Box<Passthrough>),
    Translated(Box<Translator>),
}

impl ResponseStream {
    /// Takes a chunk of the upstream's body; what may leave for the client goes to `out`, an
    /// unfinished event waits.
    pub fn feed(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> FeedResult {
        match self {
            Self::Passthrough(passthrough) => passthrough.feed(chunk, out),
            Self::Translated(translator) => translator.feed(&chunk, out),
        }
    }

    /// The upstream's body has ended.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> StreamEnd {
        match self {
            Self::Passthrough(passthrough) => passthrough.finish(out),
            Self::Translated(translator) => translator.finish(out),
        }
    }

    /// The upstream's last words, where its body ended too early and said why.
    pub fn take_trailing_error(&mut self) -> Option<Box<Fault>> {
        match self {
            Self::Passthrough(passthrough) => passthrough.take_trailing_error(),
            Self::Translated(translator) => translator.take_trailing_error(),
        }
    }

    /// Whether the stream has ended by its grammar.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Passthrough(passthrough) => passthrough.is_complete(),
            Self::Translated(translator) => translator.is_complete(),
        }
    }

    #[must_use]
    pub fn summary(&self) -> AnswerSummary {
        match self {
            Self::Passthrough(passthrough) => passthrough.summary(),
            Self::Translated(translator) => translator.summary(),
        }
    }

    /// Events that were content.
    #[must_use]
    pub fn content_events(&self) -> u32 {
        match self {
            Self::Passthrough(passthrough) => passthrough.content_events(),
            Self::Translated(translator) => translator.content_events(),
        }
    }

    /// The upstream's own error event, framed, where clients can read it as it is; not yet searched
    /// for secrets.
    #[must_use]
    pub fn upstream_error_frame(&self) -> Option<&Bytes> {
        match self {
            Self::Passthrough(passthrough) => passthrough.upstream_error_frame(),
            Self::Translated(_) => None,
        }
    }

    /// Our error as the last thing of this stream, fitting what has left of it.
    pub fn error_frame(&mut self, error: &ProxyError, request_id: &str) -> Bytes {
        match self {
            Self::Passthrough(passthrough) => passthrough.error_frame(error, request_id),
            Self::Translated(translator) => translator.error_frame(error, request_id),
        }
    }

    /// The answer's id, where the provider can be asked for it later.
    #[must_use]
    pub fn response_id(&self) -> Option<&str> {
        match self {
            Self::Passthrough(passthrough) => passthrough.response_id(),
            Self::Translated(_) => None,
        }
    }

    /// Keeps what is said from here on, so that another can go on from it; to be asked for before
    /// the stream begins.
    pub fn start_recording(&mut self) {
        match self {
            Self::Passthrough(passthrough) => passthrough.start_recording(),
            Self::Translated(translator) => translator.start_recording(),
        }
    }

    /// What was said, where it was kept.
    #[must_use]
    pub fn recorded(&self) -> Option<&RecordedText> {
        match self {
            Self::Passthrough(passthrough) => passthrough.recorder().map(StreamRecorder::recorded),
            Self::Translated(translator) => translator.recorded(),
        }
    }

    /// The rest of this answer comes from another, which was read in silence up to now; what it
    /// said so far goes to `out`. `writer`: for an answer that passed as it was, given its model's
    /// name. `before`: what was used for it.
    pub fn resume(
        &mut self,
        rest: Self,
        writer: impl FnOnce(&str) -> Box<dyn StreamWriter>,
        prior_usage: Usage,
        out: &mut Vec<Bytes>,
    ) {
        let Self::Translated(rest) = rest else { return };
        match self {
            Self::Translated(translator) => translator.resume(*rest, prior_usage, out),
            Self::Passthrough(passthrough) => {
                let Some(recorded) = passthrough.take_recorder().map(StreamRecorder::into_recorded)
                else {
                    return;
                };
                let (id, model) = recorded.id_and_model();
                let mut writer = writer(model);
                if !id.is_empty() {
                    writer.set_id(id);
                }
                let translator = Translator::continue_passthrough(
                    recorded,
                    writer,
                    passthrough.content_events(),
                    *rest,
                    prior_usage,
                    out,
                );
                *self = Self::Translated(Box::new(translator));
            }
        }
    }

    /// The answer that was kept for later turns, once it is complete.
    pub fn take_response(&mut self) -> Option<ChatResponse> {
        match self {
            Self::Passthrough(_) => None,
            Self::Translated(translator) => translator.take_response(),
        }
    }
}
