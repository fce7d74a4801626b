//! A stream on its way to a client: passed through in its own dialect, or translated from another.

use bytes::Bytes;

use crate::{
    dialect::{
        StreamWriter, Summary,
        passage::{Ending, Passage, Step},
        resume::{Tap, Told},
        translate::Translator,
    },
    ir::{
        fault::{Fault, ProxyError},
        response::ChatResponse,
        usage::Usage,
    },
};

/// Both ways look the same to whoever moves the bytes.
pub enum Flow {
    Pass(Box<Passage>),
    Translate(Box<Translator>),
}

impl Flow {
    /// Takes a chunk of the upstream's body; what may leave for the client goes to `out`, an
    /// unfinished event waits.
    pub fn feed(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Step {
        match self {
            Self::Pass(passage) => passage.feed(chunk, out),
            Self::Translate(translator) => translator.feed(&chunk, out),
        }
    }

    /// The upstream's body has ended.
    pub fn end(&mut self, out: &mut Vec<Bytes>) -> Ending {
        match self {
            Self::Pass(passage) => passage.end(out),
            Self::Translate(translator) => translator.end(out),
        }
    }

    /// The upstream's last words, where its body ended too early and said why.
    pub fn parting(&mut self) -> Option<Box<Fault>> {
        match self {
            Self::Pass(passage) => passage.parting(),
            Self::Translate(translator) => translator.parting(),
        }
    }

    /// Whether the stream has ended by its grammar.
    #[must_use]
    pub fn complete(&self) -> bool {
        match self {
            Self::Pass(passage) => passage.complete(),
            Self::Translate(translator) => translator.complete(),
        }
    }

    #[must_use]
    pub fn summary(&self) -> Summary {
        match self {
            Self::Pass(passage) => passage.summary(),
            Self::Translate(translator) => translator.summary(),
        }
    }

    /// Events that were content.
    #[must_use]
    pub fn content_events(&self) -> u32 {
        match self {
            Self::Pass(passage) => passage.content_events(),
            Self::Translate(translator) => translator.content_events(),
        }
    }

    /// The upstream's own error event, framed, where clients can read it as it is; not yet searched
    /// for secrets.
    #[must_use]
    pub fn own_error(&self) -> Option<&Bytes> {
        match self {
            Self::Pass(passage) => passage.own_error(),
            Self::Translate(_) => None,
        }
    }

    /// Our error as the last thing of this stream, fitting what has left of it.
    pub fn error_tail(&mut self, error: &ProxyError, request_id: &str) -> Bytes {
        match self {
            Self::Pass(passage) => passage.error_tail(error, request_id),
            Self::Translate(translator) => translator.error_tail(error, request_id),
        }
    }

    /// The answer's id, where the provider can be asked for it later.
    #[must_use]
    pub fn answer_id(&self) -> Option<&str> {
        match self {
            Self::Pass(passage) => passage.answer_id(),
            Self::Translate(_) => None,
        }
    }

    /// Keeps what is said from here on, so that another can go on from it; to be asked for before
    /// the stream begins.
    pub fn listen(&mut self) {
        match self {
            Self::Pass(passage) => passage.listen(),
            Self::Translate(translator) => translator.listen(),
        }
    }

    /// What was said, where it was kept.
    #[must_use]
    pub fn told(&self) -> Option<&Told> {
        match self {
            Self::Pass(passage) => passage.tap().map(Tap::told),
            Self::Translate(translator) => translator.told(),
        }
    }

    /// The rest of this answer comes from another, which was read in silence up to now; what it
    /// said so far goes to `out`. `writer`: for an answer that passed as it was, given its model's
    /// name. `before`: what was used for it.
    pub fn resume(
        &mut self,
        rest: Self,
        writer: impl FnOnce(&str) -> Box<dyn StreamWriter>,
        before: Usage,
        out: &mut Vec<Bytes>,
    ) {
        let Self::Translate(rest) = rest else { return };
        match self {
            Self::Translate(translator) => translator.resume(*rest, before, out),
            Self::Pass(passage) => {
                let Some(told) = passage.take_tap().map(Tap::into_told) else { return };
                let (id, model) = told.name();
                let mut writer = writer(model);
                if !id.is_empty() {
                    writer.bears(id);
                }
                let translator = Translator::taking_over(
                    told,
                    writer,
                    passage.content_events(),
                    *rest,
                    before,
                    out,
                );
                *self = Self::Translate(Box::new(translator));
            }
        }
    }

    /// The answer that was kept for later turns, once it is complete.
    pub fn kept(&mut self) -> Option<ChatResponse> {
        match self {
            Self::Pass(_) => None,
            Self::Translate(translator) => translator.kept(),
        }
    }
}
