//! Translates the history's filter to SQL.

use rusqlite::types::Value;

use crate::events::filter::{FilterField, FilterTerm};

/// Translates a filter term to SQL; it matches the same requests as [`Filter::keeps_request`](crate::events::filter::Filter::keeps_request).
pub(super) fn term_to_sql(term: &FilterTerm, values: &mut Vec<Value>) -> String {
    let mut bind = |value: Value| {
        values.push(value);
        format!("?{}", values.len())
    };
    let contains_pattern = |text: &str| format!("%{}%", escape_like(text));
    let column_like = |column: &str, param: &str| format!("{column} LIKE {param} ESCAPE '\\'");
    // The row itself contains the names of the last attempt. Only requests with several attempts
    // need a lookup of the others.
    let any_attempt_like = |column: &str, param: &str| {
        format!(
            "({} OR (attempts > 1 AND EXISTS (SELECT 1 FROM attempt a WHERE a.request = request.id AND {})))",
            column_like(column, param),
            column_like(&format!("a.{column}"), param)
        )
    };
    let span = |ms: u64| Value::from(i64::try_from(ms).unwrap_or(i64::MAX));
    match term {
        FilterTerm::CostAbove(sum) => format!("cost > {}", bind(sum.0.into())),
        FilterTerm::CostBelow(sum) => format!("cost < {}", bind(sum.0.into())),
        FilterTerm::DurationAbove(ms) => format!("duration_ms > {}", bind(span(*ms))),
        FilterTerm::DurationBelow(ms) => format!("duration_ms < {}", bind(span(*ms))),
        FilterTerm::Word(word) => {
            let param = bind(contains_pattern(word).into());
            let prefix_param = bind(format!("{}%", escape_like(word)).into());
            let names = ["project", "client", "asked", "error"]
                .map(|column| column_like(column, &param))
                .join(" OR ");
            let attempt_names = ["upstream", "key", "model"]
                .map(|column| any_attempt_like(column, &param))
                .join(" OR ");
            format!("({names} OR {attempt_names} OR {})", column_like("id", &prefix_param))
        }
        FilterTerm::Field(field, value) => {
            let status = "CAST(coalesce(status, (SELECT a.status FROM attempt a WHERE a.request = request.id ORDER BY a.number DESC LIMIT 1), '') AS TEXT)";
            match field {
                FilterField::Code => {
                    let param = bind(contains_pattern(value).into());
                    format!(
                        "({} OR EXISTS (SELECT 1 FROM attempt a WHERE a.request = request.id AND {}))",
                        column_like("coalesce(error, '')", &param),
                        column_like("coalesce(a.outcome, '')", &param)
                    )
                }
                // It is searched for in each row that the other terms leave.
                FilterField::Body => "1".to_owned(),
                FilterField::Ip => {
                    let pattern = format!("{}%", escape_like(value));
                    column_like("coalesce(ip, '')", &bind(pattern.into()))
                }
                FilterField::User => {
                    column_like("coalesce(user, '')", &bind(contains_pattern(value).into()))
                }
                FilterField::Client => column_like("client", &bind(contains_pattern(value).into())),
                FilterField::Id => {
                    column_like("id", &bind(format!("{}%", escape_like(value)).into()))
                }
                FilterField::Key => any_attempt_like("key", &bind(contains_pattern(value).into())),
                FilterField::Level => column_like(
                    "CASE state WHEN 'failed' THEN 'error' ELSE 'info' END",
                    &bind(contains_pattern(value).into()),
                ),
                FilterField::Model => {
                    let param = bind(contains_pattern(value).into());
                    format!(
                        "({} OR {})",
                        column_like("asked", &param),
                        any_attempt_like("model", &param)
                    )
                }
                FilterField::Op => column_like("op", &bind(contains_pattern(value).into())),
                FilterField::Project => {
                    column_like("project", &bind(contains_pattern(value).into()))
                }
                FilterField::Session => {
                    column_like("coalesce(session, '')", &bind(contains_pattern(value).into()))
                }
                FilterField::State => column_like("state", &bind(contains_pattern(value).into())),
                FilterField::Status => column_like(
                    status,
                    &bind(format!("{}%", escape_like(value.trim_end_matches('x'))).into()),
                ),
                FilterField::Upstream => {
                    any_attempt_like("upstream", &bind(contains_pattern(value).into()))
                }
            }
        }
    }
}

fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
