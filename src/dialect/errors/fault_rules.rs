//! Classifies upstream errors by the table of vendors' wordings (`assets/faults.toml`): the kind of
//! a fault, and the status of an error inside a 200.

use std::sync::LazyLock;

use toml_edit::{DocumentMut, Item, Table};

use crate::ir::fault::FaultKind;

static FAULT_RULES: LazyLock<FaultRules> = LazyLock::new(|| {
    FaultRules::parse(include_str!("../../../assets/faults.toml")).unwrap_or_default()
});

/// The text of an error body, in lower case.
#[derive(Debug, Default)]
pub(in crate::dialect) struct ErrorFields {
    /// Code, type, status name and reasons; compared as a whole.
    pub(in crate::dialect) codes: Vec<String>,
    pub(in crate::dialect) message: String,
    /// The beginning of the body.
    pub(in crate::dialect) body: String,
}

/// Returns the kind of an upstream error, by its status alone if no rule matches its text.
#[must_use]
pub(in crate::dialect) fn classify(status: u16, fields: &ErrorFields) -> FaultKind {
    let proven = FAULT_RULES.rules.iter().find(|rule| {
        rule.statuses.contains(&status)
            && (fields.codes.iter().any(|code| rule.codes.contains(code))
                || rule.phrases.iter().any(|phrase| fields.message.contains(phrase.as_str())))
            && !rule.unless.iter().any(|word| fields.body.contains(word.as_str()))
    });
    proven.map_or_else(|| kind_by_status(status), |rule| rule.kind)
}

/// Returns the status that an error inside a 200 implies.
#[must_use]
pub(in crate::dialect) fn implied_status(fields: &ErrorFields) -> u16 {
    let number = fields
        .codes
        .iter()
        .find_map(|code| code.parse().ok())
        .filter(|code| (400..600).contains(code));
    number
        .or_else(|| {
            fields.codes.iter().find_map(|code| {
                FAULT_RULES
                    .implied_statuses
                    .iter()
                    .find(|(_, codes)| codes.contains(code))
                    .map(|(status, _)| *status)
            })
        })
        .unwrap_or(502)
}

/// Returns whether an error means that the conversation is longer than the model's context window.
#[must_use]
pub(in crate::dialect) fn is_context_overflow(fields: &ErrorFields) -> bool {
    let (codes, phrases) = &FAULT_RULES.context_overflow;
    fields.codes.iter().any(|code| codes.contains(code))
        || phrases.iter().any(|phrase| fields.message.contains(phrase.as_str()))
}

/// Returns the vendor that made this HTML page.
#[must_use]
pub(in crate::dialect) fn html_page_vendor(page: &str) -> Option<&'static str> {
    let page = page.to_ascii_lowercase();
    FAULT_RULES
        .html_pages
        .iter()
        .find(|(_, words)| words.iter().any(|word| page.contains(word.as_str())))
        .map(|(name, _)| name.as_str())
}

fn kind_by_status(status: u16) -> FaultKind {
    match status {
        0..400 => FaultKind::CaptivePortal,
        401 => FaultKind::KeyRejected,
        402 => FaultKind::Quota,
        403 => FaultKind::Forbidden,
        408 | 425 => FaultKind::Transient,
        409 => FaultKind::Conflict,
        429 => FaultKind::RateLimited,
        400..500 => FaultKind::BadRequest,
        _ => FaultKind::Server,
    }
}

#[derive(Default)]
struct FaultRules {
    rules: Vec<FaultRule>,
    implied_statuses: Vec<(u16, Vec<String>)>,
    html_pages: Vec<(String, Vec<String>)>,
    /// Codes and phrases that mean the conversation is too long.
    context_overflow: (Vec<String>, Vec<String>),
}

struct FaultRule {
    kind: FaultKind,
    statuses: Vec<u16>,
    codes: Vec<String>,
    phrases: Vec<String>,
    unless: Vec<String>,
}

impl FaultRules {
    /// Returns `None` if the table does not have the format that its header describes. A test
    /// checks the built-in table.
    fn parse(text: &str) -> Option<Self> {
        let file: DocumentMut = text.parse().ok()?;
        let tables = |name: &str| {
            file.get(name)
                .and_then(Item::as_array_of_tables)
                .map(|list| list.iter().collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let rule = |t: &Table| {
            let kind = match t.get("kind")?.as_str()? {
                "account_limited" => FaultKind::AccountLimited,
                "key_rejected" => FaultKind::KeyRejected,
                "model_not_found" => FaultKind::ModelNotFound,
                "portal" => FaultKind::CaptivePortal,
                "quota" => FaultKind::Quota,
                _ => return None,
            };
            let statuses = t
                .get("statuses")?
                .as_array()?
                .iter()
                .map(|n| n.as_integer().and_then(|n| n.try_into().ok()))
                .collect::<Option<_>>()?;
            Some(FaultRule {
                kind,
                statuses,
                codes: string_list(t, "codes")?,
                phrases: string_list(t, "phrases")?,
                unless: string_list(t, "unless").unwrap_or_default(),
            })
        };
        Some(Self {
            rules: tables("rule").into_iter().map(rule).collect::<Option<_>>()?,
            implied_statuses: tables("stands")
                .into_iter()
                .map(|t| {
                    Some((
                        t.get("status")?.as_integer()?.try_into().ok()?,
                        string_list(t, "codes")?,
                    ))
                })
                .collect::<Option<_>>()?,
            context_overflow: {
                let table = file.get("overflow").and_then(Item::as_table)?;
                (string_list(table, "codes")?, string_list(table, "phrases")?)
            },
            html_pages: tables("page")
                .into_iter()
                .map(|t| Some((t.get("name")?.as_str()?.to_owned(), string_list(t, "words")?)))
                .collect::<Option<_>>()?,
        })
    }
}

fn string_list(table: &Table, key: &str) -> Option<Vec<String>> {
    table.get(key)?.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_rules_are_complete_and_lower_case() {
        let table =
            FaultRules::parse(include_str!("../../../assets/faults.toml")).expect("readable");
        assert!(
            table.rules.len() > 5 && table.implied_statuses.len() > 5 && table.html_pages.len() > 2
        );
        for text in
            table.rules.iter().flat_map(|r| r.codes.iter().chain(&r.phrases).chain(&r.unless))
        {
            assert_eq!(*text, text.to_lowercase());
        }
    }
}
