//! Formats keys as tables: state, why a key is unavailable and how to fix it, and what is left of
//! the providers' limits.

use crate::{
    base::clock::UnixMillis,
    cli::output::{
        Styler, TextRole,
        table::{TableCell, TextTable},
        time_format,
    },
    control::snapshot::{KeyStatus, KeyView},
};

/// Lists each key, followed by the models it is unavailable for. Hints for missing keys follow the
/// table.
pub(in crate::cli) fn keys_table(views: &[&KeyView], now: UnixMillis, styler: Styler) -> String {
    let mut table =
        TextTable::new(&["KEY", "FINGERPRINT", "STATE", "ENDS IN", "CAUSE", "REFERENCE"]);
    let mut advice = KeyAdvice::default();
    for k in views {
        let fingerprint = if k.fingerprint.is_empty() { "–" } else { &k.fingerprint };
        let name = format!("{}/{}", k.upstream, k.label);
        let cause = k.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut cause = cause.as_str();
        if k.state == KeyStatus::Missing {
            let (why, what) = split_cause(cause, &k.reference);
            advice.add(what, &name);
            cause = why;
        }
        table.row(vec![
            name.into(),
            fingerprint.into(),
            state_cell(k.state),
            time_format::remaining(k.until, now).into(),
            cause.into(),
            TableCell::new(TextRole::Dim, &k.reference),
        ]);
        for scope in &k.scopes {
            table.row(vec![
                format!("  {}", scope.model).into(),
                "".into(),
                state_cell(scope.state),
                time_format::remaining(scope.until, now).into(),
                scope.cause.as_ref().map(ToString::to_string).unwrap_or_default().into(),
                "".into(),
            ]);
        }
        if let Some(balance) = &k.balance {
            let text = format!(
                "{} left at the provider, {} ago",
                balance.text,
                time_format::span(now.0 - balance.at.0)
            );
            let mut row: Vec<TableCell> = vec!["  balance".into(), "".into(), "".into(), "".into()];
            row.extend([
                TableCell::new(if balance.low { TextRole::Warn } else { TextRole::Dim }, text),
                "".into(),
            ]);
            table.row(row);
        }
    }
    table.render(styler) + &advice.text()
}

/// What is left of the providers' own limits; empty if no provider reports any.
pub(in crate::cli) fn limits_table(views: &[&KeyView], now: UnixMillis, styler: Styler) -> String {
    let mut table =
        TextTable::new(&["KEY", "MODEL", "PROVIDER LIMIT", "REMAINING", "OF", "RESETS IN"]);
    for k in views {
        for left in &k.limits {
            table.row(vec![
                format!("{}/{}", k.upstream, k.label).into(),
                (&left.model).into(),
                (&left.kind).into(),
                left.remaining.to_string().into(),
                left.limit.map_or_else(|| "–".to_owned(), |limit| limit.to_string()).into(),
                time_format::remaining(Some(left.until), now).into(),
            ]);
        }
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render(styler)) }
}

/// Splits an error into why a reference yields no key and the hint. Omits the reference, which the
/// table shows next to it.
fn split_cause<'a>(cause: &'a str, reference: &str) -> (&'a str, &'a str) {
    let (why, what) = cause.split_once("; ").unwrap_or((cause, ""));
    let why = why
        .strip_prefix('`')
        .and_then(|rest| rest.strip_prefix(reference)?.strip_prefix("`: "))
        .unwrap_or(why);
    (why, what)
}

/// Hints, each listed once with all the keys it applies to.
#[derive(Default)]
pub(super) struct KeyAdvice(Vec<(String, Vec<String>)>);

impl KeyAdvice {
    pub(super) fn add(&mut self, what: &str, key: &str) {
        match self.0.iter_mut().find(|(known, _)| known == what) {
            _ if what.is_empty() => {}
            Some((_, keys)) => keys.push(key.to_owned()),
            None => self.0.push((what.to_owned(), vec![key.to_owned()])),
        }
    }

    pub(super) fn text(&self) -> String {
        let line = |(what, keys): &(String, Vec<String>)| {
            format!("{}: {}\n", keys.join(", "), crate::base::sanitize::clean(what))
        };
        let lines: String = self.0.iter().map(line).collect();
        if lines.is_empty() { lines } else { format!("\n{lines}") }
    }
}

/// The cell of a key whose reference yields nothing: the reason. Records its hint.
pub(super) fn describe_missing(
    cause: &str,
    reference: &str,
    key: &str,
    advice: &mut KeyAdvice,
) -> String {
    let (why, what) = split_cause(cause, reference);
    advice.add(what, key);
    format!("missing: {why}")
}

fn state_cell(state: KeyStatus) -> TableCell {
    let (role, word) = match state {
        KeyStatus::Cooling => (TextRole::Warn, "cooling"),
        KeyStatus::Disabled => (TextRole::Dim, "disabled"),
        KeyStatus::Missing => (TextRole::Error, "missing"),
        KeyStatus::Ok => (TextRole::Success, "ok"),
        KeyStatus::Partly => (TextRole::Warn, "partly"),
        KeyStatus::Probing => (TextRole::Warn, "probing"),
        KeyStatus::Rejected => (TextRole::Error, "rejected"),
        KeyStatus::Waiting => (TextRole::Dim, "waiting"),
    };
    TableCell::new(role, word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot::LimitRemaining;
    use crate::ir::reason::failure::FailureReason;

    fn key(label: &str, state: KeyStatus, cause: Option<&str>) -> KeyView {
        KeyView {
            cause: cause.map(|cause| FailureReason::text(cause).into()),
            ..KeyView::for_test("openai", label, "env:K_NONE", state)
        }
    }

    #[test]
    fn cause_is_short_and_the_hint_appears_once() {
        let cause = Some(
            "`env:K_NONE`: K_NONE is not set; set K_NONE where aiproxy starts and `aiproxy restart`",
        );
        let (one, two) =
            (key("one", KeyStatus::Missing, cause), key("two", KeyStatus::Missing, cause));
        let text = keys_table(&[&one, &two], UnixMillis(0), Styler::plain());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "openai/one  –            missing  K_NONE is not set  env:K_NONE");
        assert_eq!(
            lines[4],
            "openai/one, openai/two: set K_NONE where aiproxy starts and `aiproxy restart`"
        );
        assert_eq!(lines.len(), 5, "{text}");
    }

    #[test]
    fn provider_limits_have_their_own_table() {
        let left = |what: &str, limit| LimitRemaining {
            model: "gpt".into(),
            kind: what.into(),
            limit,
            remaining: 41,
            until: UnixMillis(30_000),
        };
        let one = KeyView {
            limits: vec![left("requests", Some(60)), left("tokens", None)],
            ..key("one", KeyStatus::Ok, None)
        };
        let text = limits_table(&[&one], UnixMillis(0), Styler::plain());
        assert!(text.contains("openai/one  gpt    requests        41         60  30s"), "{text}");
        assert!(!keys_table(&[&one], UnixMillis(0), Styler::plain()).contains("41"));
        assert_eq!(limits_table(&[], UnixMillis(0), Styler::plain()), "");
    }
}
