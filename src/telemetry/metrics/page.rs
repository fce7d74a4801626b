//! Writes the totals in the text format of Prometheus.

use super::{
    AttemptLabels, MetricStore, ModelLabels, RequestCounts, RequestLabels, TOKEN_CLASSES,
    operation_name,
};
use crate::telemetry::{
    histogram::{DURATION_BOUNDS, TOKEN_BOUNDS, TOKEN_TIME_BOUNDS, TTFT_BOUNDS},
    prometheus_text::TextEncoder,
};

/// The samples of one label set in a family: one more label, and the value.
type Samples = Vec<(Option<(&'static str, &'static str)>, String)>;

impl MetricStore {
    pub(super) fn write(&self, page: &mut TextEncoder) {
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
            all.map(|(class, n)| (Some(("class", class.name())), n.to_string())).collect()
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
