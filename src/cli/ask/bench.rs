//! `aiproxy ask --repeat`: asks several models the same question and compares their speed.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::cli::{
    ask::{
        answer::{AnswerSink, StreamedAnswer},
        session::AskSession,
    },
    context::CommandContext,
    error::{CliError, ExitStatus},
    output::{
        self, Styler, TextRole,
        table::{TableCell, TextTable},
        time_format,
    },
};

/// The question if there is no other; its answer is long enough to measure.
pub(super) const DEFAULT_QUESTION: &str = "Write the numbers from 1 to 100 in words.";

/// What was measured of one model.
#[derive(Debug)]
struct ModelRuns {
    model: String,
    runs: u32,
    /// In ascending order.
    ttft: Vec<Duration>,
    tokens_per_second: Vec<f64>,
    upstreams: BTreeSet<String>,
    failed: u32,
    last_error: Option<CliError>,
}

impl ModelRuns {
    fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            runs: 0,
            ttft: Vec::new(),
            tokens_per_second: Vec::new(),
            upstreams: BTreeSet::new(),
            failed: 0,
            last_error: None,
        }
    }

    fn record(&mut self, answer: &StreamedAnswer) {
        self.runs += 1;
        self.upstreams.extend(answer.upstream.clone());
        self.ttft.extend(answer.first_token);
        self.ttft.sort_unstable();
        self.tokens_per_second.extend(answer.tokens_per_second());
        self.tokens_per_second.sort_unstable_by(f64::total_cmp);
    }

    fn record_failure(&mut self, error: CliError) {
        self.runs += 1;
        self.failed += 1;
        self.last_error = Some(error);
    }

    fn to_json(&self) -> Value {
        let ttft = |percent| percentile(&self.ttft, percent).map(milliseconds);
        let speed =
            percentile(&self.tokens_per_second, 50).map(|speed| (speed * 10.0).round() / 10.0);
        json!({
            "model": self.model,
            "upstreams": self.upstreams,
            "n": self.runs,
            "failed": self.failed,
            "ttft_ms": { "p50": ttft(50), "p95": ttft(95) },
            "tok_s": { "p50": speed },
            "error": self.last_error.as_ref().map(|error| &error.text),
        })
    }

    fn cells(&self) -> Vec<TableCell> {
        let ttft = |percent| {
            percentile(&self.ttft, percent).map_or_else(
                || "–".to_owned(),
                |ttft| time_format::seconds(u32::try_from(ttft.as_millis()).unwrap_or(u32::MAX)),
            )
        };
        let speed = percentile(&self.tokens_per_second, 50)
            .map_or_else(|| "–".to_owned(), |speed| format!("{speed:.1}"));
        let upstreams: Vec<&str> = self.upstreams.iter().map(String::as_str).collect();
        let error = self.last_error.as_ref().map_or("", |error| error.text.as_str());
        let role = if self.failed > 0 { TextRole::Error } else { TextRole::Plain };
        vec![
            (&self.model).into(),
            TableCell::new(TextRole::Dim, upstreams.join(", ")),
            self.runs.to_string().into(),
            TableCell::new(role, self.failed.to_string()),
            ttft(50).into(),
            ttft(95).into(),
            speed.into(),
            TableCell::new(TextRole::Error, error),
        ]
    }
}

/// Asks each model `count` times, one request at a time and the models in turn, so that a change of
/// the network's speed affects all of them.
///
/// # Errors
///
/// The proxy cannot be reached. A model that fails is reported in its row, and the exit code is 1.
pub(super) async fn run(
    ctx: &CommandContext,
    session: &AskSession,
    models: &[String],
    count: u32,
    messages: &[Value],
) -> Result<ExitStatus, CliError> {
    let mut rows: Vec<ModelRuns> = models.iter().map(|model| ModelRuns::new(model)).collect();
    for round in 1..=count {
        for row in &mut rows {
            output::print_progress(&format!("{round}/{count} {}", row.model));
            match session.ask(&row.model, messages, AnswerSink::Buffer, true).await {
                Ok(answer) => row.record(&answer),
                Err(failure) if failure.error.exit == ExitStatus::Unreachable => {
                    output::print_progress("");
                    return Err(failure.error);
                }
                Err(failure) => row.record_failure(failure.error),
            }
        }
    }
    output::print_progress("");
    if ctx.global.json {
        output::print_json(&rows.iter().map(ModelRuns::to_json).collect::<Vec<_>>())?;
    } else {
        let mut table = TextTable::new(&[
            "MODEL",
            "UPSTREAM",
            "N",
            "FAILED",
            "TTFT P50",
            "TTFT P95",
            "TOK/S P50",
            "ERROR",
        ]);
        rows.iter().for_each(|row| table.row(row.cells()));
        output::print(&table.render(Styler::stdout()))?;
    }
    let any_failed = rows.iter().any(|row| row.failed > 0);
    Ok(if any_failed { ExitStatus::Failed } else { ExitStatus::Ok })
}

/// The value below or at which `percent` of the sorted values lie.
fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Milliseconds to the microsecond.
pub(super) fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u32> = (1..=20).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 95)), (Some(10), Some(19)));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 95)), (Some(7), Some(7)));
        assert_eq!(percentile::<u32>(&[], 50), None);
    }

    #[test]
    fn failed_model_has_an_error_and_no_timings() {
        let mut row = ModelRuns::new("m");
        row.record_failure(CliError::failed("no such model"));
        let shown = row.to_json();
        assert_eq!((&shown["n"], &shown["failed"]), (&json!(1), &json!(1)));
        assert_eq!(
            (&shown["ttft_ms"]["p50"], &shown["error"]),
            (&json!(null), &json!("no such model"))
        );
    }

    #[test]
    fn timings_are_sorted_on_insert() {
        let mut row = ModelRuns::new("m");
        for ms in [30, 10, 20] {
            row.record(&StreamedAnswer {
                first_token: Some(Duration::from_millis(ms)),
                ..StreamedAnswer::default()
            });
        }
        let shown = row.to_json();
        assert_eq!(
            (&shown["ttft_ms"]["p50"], &shown["ttft_ms"]["p95"]),
            (&json!(20.0), &json!(30.0))
        );
    }
}
