//! Words reasons and messages in the user's language. The proxy sends values; their English text
//! for the log, the API and the command line is their `Display`.

mod action;
mod cache_miss;
mod failure;
mod line;
mod repair;
mod route;
mod skip;
mod status;
#[cfg(test)]
mod tests;

use crate::tui::strings::Texts;

/// A value that the dashboard shows as a phrase or a sentence.
pub trait ReasonWords {
    /// Returns the words in the language of these texts. Texts that came from outside stay as they
    /// are.
    fn words(&self, text: &Texts) -> String;
}
