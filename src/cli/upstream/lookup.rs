//! Checks names of upstreams.

use crate::{base::suggest, cli::error::CliError};

/// Returns an error with the nearest name if there is no such upstream.
pub(in crate::cli) fn ensure_known<'a>(
    name: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), CliError> {
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    let suggestion = suggest::nearest(name, names)
        .map(|suggestion| format!("did you mean `{suggestion}`? "))
        .unwrap_or_default();
    Err(CliError::failed(format!("no upstream `{name}`"))
        .hint(format!("{suggestion}`aiproxy upstream list` shows all")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_name_suggests_the_nearest() {
        let error = ensure_known("opneai", ["groq", "openai"].into_iter()).unwrap_err();
        assert!(error.hint.unwrap().contains("`openai`"));
    }
}
