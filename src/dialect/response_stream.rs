//! Streams an answer to a client: passed through in its own dialect, or translated from another.

use bytes::Bytes;

use crate::{
    dialect::{
        event_decoder::{FeedResult, StreamEnd},
        ingress::StreamWriter,
        meter::AnswerSummary,
        passthrough::Passthrough,
        rescue_splice::{RecordedText, StreamRecorder},
        translate::Translator,
    },
    ir::{
        fault::{Fault, ProxyError},
        response::ChatResponse,
        usage::Usage,
    },
};

/// A stream to a client, with the same interface whether passed through or translated.
pub enum ResponseStream {
    Passthrough(Box<Passthrough>),
    Translated(Box<Translator>),
}

impl ResponseStream {
    /// Reads a chunk of the upstream's body and appends the bytes for the client to `out`. Buffers
    /// an unfinished event.
    pub fn feed(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> FeedResult {
        match self {
            Self::Passthrough(passthrough) => passthrough.feed(chunk, out),
            Self::Translated(translator) => translator.feed(&chunk, out),
        }
    }

    /// Ends the upstream's body.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> StreamEnd {
        match self {
            Self::Passthrough(passthrough) => passthrough.finish(out),
            Self::Translated(translator) => translator.finish(out),
        }
    }

    /// Returns the error that the upstream sent when its body ended too early.
    pub fn take_trailing_error(&mut self) -> Option<Box<Fault>> {
        match self {
            Self::Passthrough(passthrough) => passthrough.take_trailing_error(),
            Self::Translated(translator) => translator.take_trailing_error(),
        }
    }

    /// Returns whether the stream has ended by its grammar.
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

    /// Returns the number of events with content.
    #[must_use]
    pub fn content_events(&self) -> u32 {
        match self {
            Self::Passthrough(passthrough) => passthrough.content_events(),
            Self::Translated(translator) => translator.content_events(),
        }
    }

    /// Returns the upstream's own error event, framed, if clients can read it unchanged. The caller
    /// must still redact secrets.
    #[must_use]
    pub fn upstream_error_frame(&self) -> Option<&Bytes> {
        match self {
            Self::Passthrough(passthrough) => passthrough.upstream_error_frame(),
            Self::Translated(_) => None,
        }
    }

    /// Returns aiproxy's error as the last event of this stream, in a form that fits the bytes
    /// already sent.
    pub fn error_frame(&mut self, error: &ProxyError, request_id: &str) -> Bytes {
        match self {
            Self::Passthrough(passthrough) => passthrough.error_frame(error, request_id),
            Self::Translated(translator) => translator.error_frame(error, request_id),
        }
    }

    /// Returns the answer's id if clients can request the answer from the provider later.
    #[must_use]
    pub fn response_id(&self) -> Option<&str> {
        match self {
            Self::Passthrough(passthrough) => passthrough.response_id(),
            Self::Translated(_) => None,
        }
    }

    /// Records the answer's text so that another upstream can continue it. Call it before the
    /// stream begins.
    pub fn start_recording(&mut self) {
        match self {
            Self::Passthrough(passthrough) => passthrough.start_recording(),
            Self::Translated(translator) => translator.start_recording(),
        }
    }

    /// Returns the recorded text if recording is on.
    #[must_use]
    pub fn recorded(&self) -> Option<&RecordedText> {
        match self {
            Self::Passthrough(passthrough) => passthrough.recorder().map(StreamRecorder::recorded),
            Self::Translated(translator) => translator.recorded(),
        }
    }

    /// Continues this answer with another one, `rest`, which was decoded without a writer until
    /// now; appends its content so far to `out`.
    ///
    /// `writer` creates the writer for an answer that was passed through, from its model's name.
    /// `prior_usage` is the usage of the interrupted answer.
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

    /// Returns the answer that was assembled for later turns, once it is complete.
    pub fn take_response(&mut self) -> Option<ChatResponse> {
        match self {
            Self::Passthrough(_) => None,
            Self::Translated(translator) => translator.take_response(),
        }
    }
}
