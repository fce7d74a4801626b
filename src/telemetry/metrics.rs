//! Totals over all finished requests since the start, with few and bounded labels.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use crate::telemetry::prometheus_text::TextEncoder;
use crate::{
    base::money::NanoUsd,
    events::{
        ledger_queue::LedgerEntry,
        record::{AttemptRecord, AttemptRole, RequestRecord, RequestState},
    },
    ir::{
        op::{Dialect, Op},
        usage::Usage,
    },
};

/// Maximum number of distinct label sets; further ones are added up under [`OTHER_LABEL`].
const MAX_LABEL_SETS: usize = 500;
const OTHER_LABEL: &str = "other";
/// Longer model names are truncated.
const MAX_MODEL_NAME_BYTES: usize = 120;

/// Bucket bounds that the OpenTelemetry conventions for generative AI recommend.
const TOKEN_BOUNDS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const DURATION_BOUNDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const TTFT_BOUNDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const TOKEN_TIME_BOUNDS: [f64; 13] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

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

/// A histogram with one count more than it has bounds, of which there are at most sixteen.
#[derive(Clone, Copy, Debug)]
struct Histogram<const N: usize> {
    counts: [u64; 17],
    sum: f64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; 17], sum: 0.0 }
    }
}

impl<const N: usize> Histogram<N> {
    fn record(&mut self, bounds: &[f64; N], value: f64) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(N);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
    }

    fn write(&self, page: &mut TextEncoder, labels: &[(&str, &str)], bounds: &[f64; N]) {
        page.write_histogram(labels, bounds, &self.counts[..=N.min(16)], self.sum);
    }

    fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}

const TOKEN_CLASSES: [&str; 10] = [
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "audio_in",
    "image_in",
    "output",
    "reasoning",
    "audio_out",
    "image_out",
];

fn token_counts(u: &Usage) -> [u64; TOKEN_CLASSES.len()] {
    [
        u.input,
        u.cache_read,
        u.cache_write_5m,
        u.cache_write_1h,
        u.audio_in,
        u.image_in,
        u.output,
        u.reasoning,
        u.audio_out,
        u.image_out,
    ]
}

/// The samples of one label set in a family: one more label, and the value.
type Samples = Vec<(Option<(&'static str, &'static str)>, String)>;

impl Metrics {
    /// Counts a finished request.
    pub fn record(&self, entry: &LedgerEntry) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.record_request(&entry.record);
    }

    /// Returns the number of successful attempts of an upstream since the start.
    #[must_use]
    pub fn success_count(&self, upstream: &str) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .success_counts
            .get(upstream)
            .copied()
            .unwrap_or(0)
    }

    /// Writes all metrics to the page.
    pub fn write(&self, page: &mut TextEncoder) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(page);
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
            for (sum, more) in counts.tokens.iter_mut().zip(token_counts(usage)) {
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

    fn write(&self, page: &mut TextEncoder) {
        let mut requests: Vec<_> = self.requests.iter().collect();
        requests.sort_by_key(|(labels, _)| *labels);
        self.write_requests(page, &requests);
        self.write_attempts(page);
        self.write_histograms(page);
    }

    fn write_requests(
        &self,
        page: &mut TextEncoder,
        requests: &[(&RequestLabels, &RequestCounts)],
    ) {
        let of = |w: &RequestLabels| {
            [
                w.project.to_string(),
                w.upstream.to_string(),
                w.model.to_string(),
                w.op.name().to_owned(),
                w.dialect.name().to_owned(),
            ]
        };
        const LABEL_NAMES: [&str; 5] = ["project", "upstream", "model", "op", "dialect"];
        let labels = |values: &'_ [String; 5]| -> Vec<(&'static str, String)> {
            LABEL_NAMES.into_iter().zip(values.iter().cloned()).collect()
        };
        let each = |page: &mut TextEncoder, of_counts: &dyn Fn(&RequestCounts) -> Samples| {
            for (request_labels, counts) in requests {
                let all = labels(&of(request_labels));
                for (more, value) in of_counts(counts) {
                    let mut labels: Vec<(&str, &str)> =
                        all.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    labels.extend(more);
                    page.write_sample(&labels, value);
                }
            }
        };
        page.begin_family(
            "aiproxy_requests_total",
            "counter",
            "Finished requests by how they ended",
        );
        each(page, &|counts| {
            let states =
                [("done", counts.done), ("failed", counts.failed), ("left", counts.client_gone)];
            states
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .map(|(state, n)| (Some(("state", state)), n.to_string()))
                .collect()
        });
        page.begin_family(
            "aiproxy_tokens_total",
            "counter",
            "Tokens in classes that do not overlap",
        );
        each(page, &|counts| {
            let all = TOKEN_CLASSES.into_iter().zip(counts.tokens).filter(|(_, n)| *n > 0);
            all.map(|(class, n)| (Some(("class", class)), n.to_string())).collect()
        });
        page.begin_family(
            "aiproxy_cost_dollars_total",
            "counter",
            "What requests with a known price cost, in US dollars",
        );
        each(page, &|counts| vec![(None, counts.cost.dollars().to_string())]);
        page.begin_family(
            "aiproxy_unpriced_requests_total",
            "counter",
            "Requests without a known price",
        );
        each(page, &|counts| {
            if counts.unpriced > 0 { vec![(None, counts.unpriced.to_string())] } else { Vec::new() }
        });
        page.begin_family(
            "aiproxy_failovers_total",
            "counter",
            "Times that a request went on elsewhere, by the upstream that it left",
        );
        for (upstream, count) in &self.failovers {
            page.write_sample(&[("upstream", upstream)], count);
        }
    }

    fn write_attempts(&self, page: &mut TextEncoder) {
        let mut attempts: Vec<_> = self.attempts.iter().collect();
        attempts.sort_by_key(|(labels, _)| *labels);
        let status = |attempt: &AttemptLabels| {
            attempt.status.map_or_else(|| "none".to_owned(), |status| status.to_string())
        };
        page.begin_family(
            "aiproxy_attempts_total",
            "counter",
            "Attempts at upstreams by status, and whether the request was answered with them",
        );
        for (attempt, (count, _)) in &attempts {
            let (status, won) = (status(attempt), if attempt.won { "true" } else { "false" });
            page.write_sample(
                &[
                    ("upstream", &attempt.upstream),
                    ("key", &attempt.key),
                    ("model", &attempt.model),
                    ("op", attempt.op.name()),
                    ("status", &status),
                    ("won", won),
                ],
                count,
            );
        }
        page.begin_family(
            "gen_ai_client_operation_duration_seconds",
            "histogram",
            "Time of an attempt at an upstream",
        );
        for (attempt, (_, duration)) in
            attempts.iter().filter(|(tried, (_, took))| tried.op.generates() && !took.is_empty())
        {
            let error = if attempt.won {
                String::new()
            } else {
                attempt.status.map_or_else(|| "_OTHER".to_owned(), |status| status.to_string())
            };
            let mut labels = vec![
                ("gen_ai_operation_name", operation_name(attempt.op)),
                ("gen_ai_provider_name", &*attempt.upstream),
                ("gen_ai_request_model", &*attempt.model),
                ("aiproxy_key", &*attempt.key),
            ];
            if !error.is_empty() {
                labels.push(("error_type", &error));
            }
            duration.write(page, &labels, &DURATION_BOUNDS);
        }
    }

    fn write_histograms(&self, page: &mut TextEncoder) {
        let mut models: Vec<_> = self.models.iter().collect();
        models.sort_by_key(|(labels, _)| *labels);
        let labels = |model: &'_ ModelLabels| {
            [
                ("gen_ai_operation_name", operation_name(model.op).to_owned()),
                ("gen_ai_provider_name", model.upstream.to_string()),
                ("gen_ai_request_model", model.model.to_string()),
            ]
        };
        fn borrow_labels<'a>(labels: &'a [(&'static str, String); 3]) -> Vec<(&'a str, &'a str)> {
            labels.iter().map(|(name, value)| (*name, value.as_str())).collect()
        }
        page.begin_family("gen_ai_client_token_usage", "histogram", "Tokens of a request");
        for (model, histograms) in &models {
            let model_labels = labels(model);
            for (kind, tokens) in [("input", &histograms.input), ("output", &histograms.output)]
                .into_iter()
                .filter(|(_, tokens)| !tokens.is_empty())
            {
                let mut labels = borrow_labels(&model_labels);
                labels.push(("gen_ai_token_type", kind));
                tokens.write(page, &labels, &TOKEN_BOUNDS);
            }
        }
        page.begin_family(
            "gen_ai_server_request_duration_seconds",
            "histogram",
            "Time of a request, all its attempts together",
        );
        for (model, histograms) in models.iter().filter(|(_, shapes)| !shapes.duration.is_empty()) {
            histograms.duration.write(page, &borrow_labels(&labels(model)), &DURATION_BOUNDS);
        }
        page.begin_family(
            "gen_ai_server_time_to_first_token_seconds",
            "histogram",
            "Time from a request to the first content for its client",
        );
        for (model, histograms) in models.iter().filter(|(_, shapes)| !shapes.ttft.is_empty()) {
            histograms.ttft.write(page, &borrow_labels(&labels(model)), &TTFT_BOUNDS);
        }
        page.begin_family(
            "gen_ai_server_time_per_output_token_seconds",
            "histogram",
            "Time of each output token after the first, of streams",
        );
        for (model, histograms) in
            models.iter().filter(|(_, shapes)| !shapes.time_per_token.is_empty())
        {
            histograms.time_per_token.write(
                page,
                &borrow_labels(&labels(model)),
                &TOKEN_TIME_BOUNDS,
            );
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
            outcome: (status != 200).then(|| "429".into()),
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
    fn a_request_is_counted_with_its_attempts_tokens_and_cost() {
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
    fn many_names_of_models_do_not_make_many_series() {
        let metrics = Metrics::default();
        for n in 0..5_000 {
            metrics.record(&entry(&format!("model-{n}-{}", "x".repeat(500))));
        }
        let sums = metrics.0.lock().unwrap();
        assert!(
            sums.requests.len() <= MAX_LABEL_SETS + 1
                && sums.models.len() <= MAX_LABEL_SETS + 1
                && sums.attempts.len() <= MAX_LABEL_SETS + 2
        );
        drop(sums);
        assert!(page(&metrics).contains("model=\"other\""));
    }
}
