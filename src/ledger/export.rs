//! Exports requests as JSON or CSV lines; CSV cells cannot start a spreadsheet formula.

use std::borrow::Cow;

use crate::{base::sanitize::clean, events::record::RequestRecord};

/// The columns of the CSV form.
pub const CSV_COLUMNS: [&str; 32] = [
    "id",
    "at",
    "project",
    "client",
    "session",
    "dialect",
    "op",
    "asked",
    "upstream",
    "key",
    "model",
    "state",
    "status",
    "attempts",
    "ttft_ms",
    "duration_ms",
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_in",
    "audio_out",
    "image_in",
    "image_out",
    "cost_usd",
    "cost_sure",
    "finish",
    "error",
    "user",
    "ip",
];

/// Returns the CSV header line, with its line end.
#[must_use]
pub fn csv_header() -> String {
    format!("{}\r\n", CSV_COLUMNS.join(","))
}

/// Writes one request as a CSV line (RFC 4180), with its line end. Unknown values are empty.
#[must_use]
pub fn csv_row(r: &RequestRecord) -> String {
    let last = r.serving_attempt();
    let text = |text: Option<&str>| csv_cell(text.unwrap_or_default()).into_owned();
    let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let class = |of: fn(&crate::ir::usage::Usage) -> u64| number(r.usage.as_ref().map(of));
    let cost = r.cost.unwrap_or_default();
    let cells = [
        r.id.to_string(),
        r.at.to_string(),
        text(Some(&r.project)),
        text(Some(&r.client)),
        text(r.session.as_deref()),
        r.dialect.name().to_owned(),
        r.op.name().to_owned(),
        text(Some(&r.requested_model)),
        text(last.map(|a| &*a.upstream)),
        text(last.map(|a| &*a.key)),
        text(last.map(|a| &*a.model)),
        r.state.name().to_owned(),
        number(r.status.map(u64::from)),
        r.attempts.len().to_string(),
        number(r.ttft_ms.map(u64::from)),
        number(r.duration_ms.map(u64::from)),
        class(|u| u.input),
        class(|u| u.cache_read),
        class(|u| u.cache_write_5m),
        class(|u| u.cache_write_1h),
        class(|u| u.output),
        class(|u| u.reasoning),
        class(|u| u.audio_in),
        class(|u| u.audio_out),
        class(|u| u.image_in),
        class(|u| u.image_out),
        cost.usd.map(|usd| crate::base::money::format_nanos(usd.0)).unwrap_or_default(),
        if cost.usd.is_some() {
            crate::ledger::rows::precision_name(cost.precision).to_owned()
        } else {
            String::new()
        },
        text(r.finish.as_deref()),
        text(r.error.as_deref()),
        text(r.user.as_deref()),
        r.ip.map(|ip| ip.to_canonical().to_string()).unwrap_or_default(),
    ];
    format!("{}\r\n", cells.join(","))
}

/// Writes a text as a CSV cell: on one line, quoted if necessary, and never the start of a formula.
#[must_use]
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    let text = clean(text);
    // Spreadsheets read these characters as the start of a formula, even after blanks. An
    // apostrophe marks the cell as text.
    let formula =
        text.trim_start().starts_with(['=', '+', '-', '@', '|', '%', '＝', '＋', '－', '＠']);
    if formula || text.contains(['"', ',', ';', '\'']) {
        let mark = if formula { "'" } else { "" };
        return Cow::Owned(format!("\"{mark}{}\"", text.replace('"', "\"\"")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_never_formulas() {
        for (text, want) in [
            ("gpt-5", "gpt-5"),
            ("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\""),
            ("+1", "\"'+1\""),
            ("-2+3", "\"'-2+3\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"' =1\""),
            ("\r\n=1", "\"'  =1\""),
            ("a,b", "\"a,b\""),
            ("two\nlines", "two lines"),
            ("", ""),
        ] {
            assert_eq!(csv_cell(text), want, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_exported_as_one_cell_on_one_line(text in "\\PC*|.*|[=+@,\"\r\n a-c-]{0,12}") {
            let cell = csv_cell(&text);
            proptest::prop_assert!(!cell.contains(['\r', '\n']));
            let inner = cell.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            match inner {
                Some(inner) => proptest::prop_assert!(!inner.replace("\"\"", "").contains('"')),
                None => proptest::prop_assert!(!cell.contains([',', '"'])),
            }
            proptest::prop_assert!(!inner.unwrap_or(&cell).starts_with(['=', '+', '-', '@']));
        }
    }
}
