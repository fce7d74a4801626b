//! Checks that an event of a stream is a JSON object, and finds the errors that come in place of one.

use crate::{
    base::json::{
        grammar::{JsonError, JsonErrorKind, is_blank},
        reader::{self, JsonRef},
    },
    dialect::{errors::read_error, meter::MeterEvent},
    ir::fault::Fault,
};

/// Why an event cannot be read.
pub(super) enum EventProblem {
    /// The upstream sent an error in place of the event.
    Error(Box<Fault>),
    Invalid(JsonError),
}

impl From<EventProblem> for MeterEvent {
    fn from(problem: EventProblem) -> Self {
        match problem {
            EventProblem::Error(fault) => Self::Error(fault),
            EventProblem::Invalid(bad) => Self::Invalid(bad),
        }
    }
}

/// Checks the event `data` with the name `name`, after a pass over its JSON with the result
/// `parsed`. Some upstreams send their error in a list, or as text.
pub(super) fn check<'a>(
    name: &[u8],
    data: &[u8],
    parsed: Result<JsonRef<'a>, JsonError>,
) -> Result<JsonRef<'a>, EventProblem> {
    match parsed {
        Ok(json) if json.is_object() => Ok(json),
        Ok(list) if read_error::is_error(list) => {
            Err(EventProblem::Error(Box::new(read_error::from_json(None, list))))
        }
        Ok(_) => {
            Err(EventProblem::Invalid(JsonError { kind: JsonErrorKind::NotAnObject, offset: 0 }))
        }
        Err(_) if name == b"error" && !data.starts_with(b"{") => {
            Err(EventProblem::Error(Box::new(read_error::from_text(data))))
        }
        Err(bad) => Err(EventProblem::Invalid(bad)),
    }
}

/// Reads the event with this number (counted from 1) as an object.
///
/// # Errors
///
/// The upstream's error, or the fault of an invalid event.
pub(super) fn read<'a>(
    name: &[u8],
    data: &'a [u8],
    number: u32,
) -> Result<JsonRef<'a>, Box<Fault>> {
    check(name, data, reader::parse(data)).map_err(|problem| match problem {
        EventProblem::Error(fault) => fault,
        EventProblem::Invalid(bad) => Box::new(read_error::invalid_event(number, bad, data)),
    })
}

/// Returns whether an event is the terminator of OpenAI's streams, which some providers of other
/// dialects send as well.
pub(super) fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

/// Returns whether the text of an event from the value of its `error` member on begins with an
/// error: an object or a text that is not empty.
pub(super) fn is_error_value(value: &[u8]) -> bool {
    matches!(value.first(), Some(b'{' | b'"')) && !is_blank(value)
}
