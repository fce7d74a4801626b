//! Totals over all finished requests since the start, with few and bounded labels.

mod page;

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use crate::telemetry::{
    histogram::{DURATION_BOUNDS, Histogram, TOKEN_BOUNDS, TOKEN_TIME_BOUNDS, TTFT_BOUNDS},
    prometheus_text::TextEncoder,
};
use crate::{
    base::{money::NanoUsd, sync::Mutex},
    events::{
        ledger_queue::LedgerEntry,
        record::{AttemptRecord, AttemptRole, RequestRecord, RequestState},
    },
    ir::{
        cost::PriceClass,
        op::{Dialect, Op},
    },
};

/// Maximum number of distinct label sets; further ones are added up under [`OTHER_LABEL`].
const MAX_LABEL_SETS: usize = 500;
const OTHER_LABEL: &str = "other";
/// Longer model names are truncated.
const MAX_MODEL_NAME_BYTES: usize = 120;

/// The metrics of this process.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<MetricStore>);

#[derive(Debug, Default)]
struct MetricStore {
    requests: HashMap<RequestLabels, RequestCounts>,
    models: HashMap<ModelLabels, Histograms>,
    attempts: HashMap<AttemptLabels, (u64, Histogram<14>)>,
    /// Successful attempts per upstream, for checks that wait for a sign of recovery.
    success_counts: BTreeMap<Arc<str>, u64>,
    failovers: BTreeMap<Arc<str>, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct RequestLabels {
    project: Arc<str>,
    upstream: Arc<str>,
    model: Arc<str>,
    op: Op,
    dialect: Dialect,
}

#[derive(Debug, Default)]
struct RequestCounts {
    done: u64,
    failed: u64,
    client_gone: u64,
    tokens: [u64; TOKEN_CLASSES.len()],
    cost: NanoUsd,
    unpriced: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct ModelLabels {
    upstream: Arc<str>,
    model: Arc<str>,
    op: Op,
}

#[derive(Debug, Default)]
struct Histograms {
    input: Histogram<14>,
    output: Histogram<14>,
    duration: Histogram<14>,
    ttft: Histogram<16>,
    time_per_token: Histogram<13>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct AttemptLabels {
    upstream: Arc<str>,
    key: Arc<str>,
    model: Arc<str>,
    op: Op,
    status: Option<u16>,
    won: bool,
}

/// The classes of usage that are tokens.
const TOKEN_CLASSES: [PriceClass; 10] = {
    let [tokens @ .., PriceClass::Search] = PriceClass::USED else { panic!("searches are last") };
    tokens
};

impl Metrics {
    /// Counts a finished request.
    pub fn record(&self, entry: &LedgerEntry) {
        let mut sums = self.0.lock();
        sums.record_request(&entry.record);
    }

    /// Returns the number of successful attempts of an upstream since the start.
    #[must_use]
    pub fn success_count(&self, upstream: &str) -> u64 {
        self.0.lock().success_counts.get(upstream).copied().unwrap_or(0)
    }

    /// Writes all metrics to the page.
    pub fn write(&self, page: &mut TextEncoder) {
        self.0.lock().write(page);
    }
}

impl MetricStore {
    fn record_request(&mut self, r: &RequestRecord) {
        let none: Arc<str> = Arc::default();
        let last = r.serving_attempt();
        let upstream = last.map_or(&none, |attempt| &attempt.upstream);
        // The client chooses the requested name freely, so only the model sent to an upstream
        // becomes a label.
        let model =
            last.map_or_else(|| Arc::clone(&none), |attempt| bounded_model_name(&attempt.model));
        let labels = RequestLabels {
            project: Arc::clone(&r.project),
            upstream: Arc::clone(upstream),
            model: Arc::clone(&model),
            op: r.op,
            dialect: r.dialect,
        };
        let counts = entry_or_other(&mut self.requests, labels, |labels| RequestLabels {
            project: OTHER_LABEL.into(),
            model: OTHER_LABEL.into(),
            ..labels
        });
        match r.state {
            RequestState::Failed => counts.failed += 1,
            RequestState::ClientGone => counts.client_gone += 1,
            RequestState::Done
            | RequestState::Queued
            | RequestState::Streaming
            | RequestState::Waiting => counts.done += 1,
        }
        if let Some(usage) = &r.usage {
            for (sum, more) in
                counts.tokens.iter_mut().zip(TOKEN_CLASSES.map(|class| class.count(usage)))
            {
                *sum = sum.saturating_add(more);
            }
        }
        match r.cost.map(|cost| cost.usd) {
            Some(Some(usd)) => counts.cost += usd,
            Some(None) => counts.unpriced += 1,
            None => {}
        }
        if r.op.generates() && last.is_some() {
            self.record_histograms(
                r,
                ModelLabels { upstream: Arc::clone(upstream), model, op: r.op },
            );
        }
        for (before, after) in r.attempts.iter().zip(r.attempts.iter().skip(1)) {
            // A hedge attempt is not a failover from the first attempt.
            if after.role != AttemptRole::Hedge
                && (before.upstream != after.upstream || before.key != after.key)
            {
                *self.failovers.entry(Arc::clone(&before.upstream)).or_default() += 1;
            }
        }
        for attempt in &r.attempts {
            self.record_attempt(r.op, attempt);
        }
    }

    fn record_histograms(&mut self, r: &RequestRecord, labels: ModelLabels) {
        let histograms = entry_or_other(&mut self.models, labels, |labels| ModelLabels {
            model: OTHER_LABEL.into(),
            ..labels
        });
        if let Some(usage) = &r.usage {
            histograms.input.record(&TOKEN_BOUNDS, usage.input_total() as f64);
            histograms.output.record(&TOKEN_BOUNDS, usage.output_total() as f64);
        }
        let seconds = |ms: u32| f64::from(ms) / 1_000.0;
        if let Some(ms) = r.duration_ms {
            histograms.duration.record(&DURATION_BOUNDS, seconds(ms));
        }
        if let Some(ms) = r.ttft_ms {
            histograms.ttft.record(&TTFT_BOUNDS, seconds(ms));
        }
        if let (Some(first), Some(all), Some(usage)) =
            (r.ttft_ms, r.duration_ms, r.usage.filter(|usage| usage.output_total() > 1))
            && r.stream
        {
            histograms.time_per_token.record(
                &TOKEN_TIME_BOUNDS,
                seconds(all.saturating_sub(first)) / (usage.output_total() - 1) as f64,
            );
        }
    }

    fn record_attempt(&mut self, op: Op, a: &AttemptRecord) {
        let labels = AttemptLabels {
            upstream: Arc::clone(&a.upstream),
            key: Arc::clone(&a.key),
            model: bounded_model_name(&a.model),
            op,
            status: a.status,
            won: a.won,
        };
        if a.won {
            *self.success_counts.entry(Arc::clone(&a.upstream)).or_default() += 1;
        }
        let (count, duration) = entry_or_other(&mut self.attempts, labels, |labels| {
            AttemptLabels { model: OTHER_LABEL.into(), status: None, ..labels }
        });
        *count += 1;
        if let Some(ended) = a.ended_ms {
            duration
                .record(&DURATION_BOUNDS, f64::from(ended.saturating_sub(a.started_ms)) / 1_000.0);
        }
    }
}

/// Returns the totals of these labels, or of `other` if there are too many.
fn entry_or_other<K: Eq + Hash + Clone, V: Default>(
    map: &mut HashMap<K, V>,
    key: K,
    other: impl FnOnce(K) -> K,
) -> &mut V {
    let key = if map.len() < MAX_LABEL_SETS || map.contains_key(&key) { key } else { other(key) };
    map.entry(key).or_default()
}

fn bounded_model_name(model: &Arc<str>) -> Arc<str> {
    if model.len() <= MAX_MODEL_NAME_BYTES {
        Arc::clone(model)
    } else {
        model[..model.floor_char_boundary(MAX_MODEL_NAME_BYTES)].into()
    }
}

/// Returns the name that the conventions use for an operation.
#[must_use]
pub fn operation_name(op: Op) -> &'static str {
    match op {
        Op::Chat => "chat",
        Op::Completions => "text_completion",
        Op::Embed => "embeddings",
        other => other.name(),
    }
}

#[cfg(test)]
pub(in crate::telemetry) mod tests {
    use super::*;
    use crate::ir::reason::failure::FailureReason;
    use crate::ir::usage::Usage;
    use crate::{
        base::{clock::UnixMillis, id::RequestId},
        ir::cost::{Cost, Precision},
    };

    pub(in crate::telemetry) fn entry(model: &str) -> LedgerEntry {
        let at = UnixMillis(1_700_000_000_000);
        let attempt = |number: u32, key: &str, status: u16| AttemptRecord {
            number,
            upstream: "one".into(),
            key: key.into(),
            fingerprint: "…12ab".into(),
            model: model.into(),
            started_ms: (number - 1) * 100,
            head_ms: Some(number * 100),
            ended_ms: Some(number * 100),
            status: Some(status),
            outcome: (status != 200).then(|| FailureReason::text("429").into()),
            won: status == 200,
            maybe_billed: false,
            has_affinity: false,
            role: AttemptRole::Primary,
        };
        let record = RequestRecord {
            id: RequestId::new(at),
            at,
            project: "ide".into(),
            client: "aider".into(),
            dialect: Dialect::Openai,
            op: Op::Chat,
            requested_model: "whatever".into(),
            stream: true,
            session: None,
            user: None,
            ip: None,
            request_bytes: 1,
            state: RequestState::Done,
            attempts: vec![attempt(1, "work", 429), attempt(2, "spare", 200)],
            reason: None,
            ttft_ms: Some(150),
            duration_ms: Some(1_150),
            status: Some(200),
            usage: Some(Usage {
                input: 100,
                cache_read: 28,
                output: 10,
                reasoning: 1,
                ..Usage::default()
            }),
            cost: Some(Cost { usd: Some(NanoUsd(1_500_000)), precision: Precision::Exact }),
            finish: Some("stop".into()),
            answer_bytes: 1,
            events: 1,
            error: None,
            cache_miss: None,
        };
        LedgerEntry { record: Arc::new(record), bills: Vec::new(), demo: false, replay_of: None }
    }

    fn page(metrics: &Metrics) -> String {
        let mut page = TextEncoder::default();
        metrics.write(&mut page);
        page.finish()
    }

    #[test]
    fn request_is_counted_with_its_attempts_tokens_and_cost() {
        let metrics = Metrics::default();
        metrics.record(&entry("m"));
        metrics.record(&entry("m"));
        let text = page(&metrics);

        let own = "project=\"ide\",upstream=\"one\",model=\"m\",op=\"chat\",dialect=\"openai\"";
        let which = "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"one\",gen_ai_request_model=\"m\"";
        for line in [
            format!("aiproxy_requests_total{{{own},state=\"done\"}} 2"),
            format!("aiproxy_tokens_total{{{own},class=\"cache_read\"}} 56"),
            format!("aiproxy_cost_dollars_total{{{own}}} 0.003"),
            "aiproxy_failovers_total{upstream=\"one\"} 2".to_owned(),
            "aiproxy_attempts_total{upstream=\"one\",key=\"work\",model=\"m\",op=\"chat\",status=\"429\",won=\"false\"} 2".to_owned(),
            format!("gen_ai_client_operation_duration_seconds_count{{{which},aiproxy_key=\"work\",error_type=\"429\"}} 2"),
            format!("gen_ai_client_token_usage_sum{{{which},gen_ai_token_type=\"input\"}} 256"),
            format!("gen_ai_client_token_usage_bucket{{{which},gen_ai_token_type=\"output\",le=\"16\"}} 2"),
            format!("gen_ai_client_token_usage_bucket{{{which},gen_ai_token_type=\"output\",le=\"4\"}} 0"),
            format!("gen_ai_server_time_to_first_token_seconds_sum{{{which}}} 0.3"),
            format!("gen_ai_server_time_per_output_token_seconds_sum{{{which}}} 0.2"),
            format!("gen_ai_server_request_duration_seconds_bucket{{{which},le=\"+Inf\"}} 2"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert_eq!((metrics.success_count("one"), metrics.success_count("two")), (2, 0));
    }

    #[test]
    fn number_of_metric_series_is_limited() {
        let metrics = Metrics::default();
        for n in 0..5_000 {
            metrics.record(&entry(&format!("model-{n}-{}", "x".repeat(500))));
        }
        let sums = metrics.0.lock();
        assert!(
            sums.requests.len() <= MAX_LABEL_SETS + 1
                && sums.models.len() <= MAX_LABEL_SETS + 1
                && sums.attempts.len() <= MAX_LABEL_SETS + 2
        );
        drop(sums);
        assert!(page(&metrics).contains("model=\"other\""));
    }
}
