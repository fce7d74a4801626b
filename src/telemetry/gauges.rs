//! Writes the current state: the process, the ledger, upstreams and keys.

use crate::{base::clock::UnixMillis, telemetry::prometheus_text::TextEncoder};

/// The current state of the proxy, as metrics show it.
#[derive(Debug)]
pub struct Gauges {
    pub process: ProcessGauges,
    pub ledger: LedgerGauges,
    pub upstreams: Vec<UpstreamGauges>,
    pub keys: Vec<KeyGauges>,
}

#[derive(Debug)]
pub struct ProcessGauges {
    pub started: UnixMillis,
    pub in_flight: usize,
    pub queue_length: usize,
    pub network_down: bool,
    /// The config file has no problems.
    pub config_ok: bool,
    pub config_applied: UnixMillis,
    /// Kind and subject of each active alert.
    pub alerts: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub struct LedgerGauges {
    pub unrecorded: u64,
    pub skipped_bodies: u64,
    pub queue_length: usize,
    /// `None` if there is no ledger file.
    pub file: Option<LedgerFileGauges>,
}

#[derive(Clone, Copy, Debug)]
pub struct LedgerFileGauges {
    pub up: bool,
    pub waiting_requests: u64,
    pub lost_requests: u64,
}

#[derive(Debug)]
pub struct UpstreamGauges {
    pub name: String,
    pub state: &'static str,
    /// In seconds.
    pub cooldown: f64,
    /// Requests that it refused and that were sent once more.
    pub repaired: u64,
}

#[derive(Debug)]
pub struct KeyGauges {
    pub upstream: String,
    pub label: String,
    pub state: &'static str,
    /// Models and the seconds that the key is not used for them; an empty name means all models.
    pub cooldowns: Vec<(String, f64)>,
    pub running: u32,
    /// Model, kind and remainder of each limit that the provider reported.
    pub limits: Vec<(String, String, u64)>,
}

impl Gauges {
    pub fn write(&self, page: &mut TextEncoder) {
        self.process.write(page);
        self.ledger.write(page);
        self.write_upstreams(page);
        self.write_keys(page);
    }

    fn write_upstreams(&self, page: &mut TextEncoder) {
        page.begin_family(
            "aiproxy_upstream_state",
            "gauge",
            "1 for the state that an upstream is in",
        );
        for upstream in &self.upstreams {
            page.write_sample(&[("upstream", &upstream.name), ("state", upstream.state)], 1);
        }
        page.begin_family(
            "aiproxy_upstream_cooldown_seconds",
            "gauge",
            "How long an upstream is left alone yet",
        );
        for upstream in &self.upstreams {
            page.write_sample(&[("upstream", &upstream.name)], upstream.cooldown);
        }
        page.begin_family(
            "aiproxy_repaired_requests_total",
            "counter",
            "Requests that an upstream refused and that were sent once more without what it refuses",
        );
        for upstream in self.upstreams.iter().filter(|upstream| upstream.repaired > 0) {
            page.write_sample(&[("upstream", &upstream.name)], upstream.repaired);
        }
    }

    fn write_keys(&self, page: &mut TextEncoder) {
        page.begin_family(
            "aiproxy_key_state",
            "gauge",
            "1 for the state that a key is in; partly: for some models",
        );
        for key in &self.keys {
            page.write_sample(
                &[("upstream", &key.upstream), ("key", &key.label), ("state", key.state)],
                1,
            );
        }
        page.begin_family(
            "aiproxy_key_cooldown_seconds",
            "gauge",
            "How long a key is left alone yet, for all models or one",
        );
        for key in &self.keys {
            for (model, seconds) in &key.cooldowns {
                page.write_sample(
                    &[("upstream", &key.upstream), ("key", &key.label), ("model", model)],
                    *seconds,
                );
            }
        }
        page.begin_family("aiproxy_key_running", "gauge", "Attempts under way with a key");
        for key in &self.keys {
            page.write_sample(&[("upstream", &key.upstream), ("key", &key.label)], key.running);
        }
        page.begin_family(
            "aiproxy_key_limit_remaining",
            "gauge",
            "What the provider said is left of a limit",
        );
        for key in &self.keys {
            for (model, kind, remaining) in &key.limits {
                page.write_sample(
                    &[
                        ("upstream", &key.upstream),
                        ("key", &key.label),
                        ("model", model),
                        ("what", kind),
                    ],
                    *remaining,
                );
            }
        }
    }
}

impl ProcessGauges {
    fn write(&self, page: &mut TextEncoder) {
        page.begin_family("aiproxy_build_info", "gauge", "The version that runs");
        page.write_sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.write_single(
            "process_start_time_seconds",
            "gauge",
            "When the process started, since 1970",
            self.started.0 as f64 / 1_000.0,
        );
        page.write_single(
            "aiproxy_requests_in_flight",
            "gauge",
            "Requests under way",
            self.in_flight,
        );
        page.write_single(
            "aiproxy_queue_length",
            "gauge",
            "Requests that wait for a key",
            self.queue_length,
        );
        page.write_single(
            "aiproxy_network_down",
            "gauge",
            "1 while the local network is down",
            u8::from(self.network_down),
        );
        page.write_single(
            "aiproxy_config_ok",
            "gauge",
            "1 where the config file is what runs",
            u8::from(self.config_ok),
        );
        page.write_single(
            "aiproxy_config_applied_time_seconds",
            "gauge",
            "When it was applied, since 1970",
            self.config_applied.0 as f64 / 1_000.0,
        );
        page.begin_family("aiproxy_alert", "gauge", "1 for each trouble that stands");
        for (kind, subject) in &self.alerts {
            page.write_sample(&[("kind", *kind), ("subject", subject)], 1);
        }
    }
}

impl LedgerGauges {
    fn write(&self, page: &mut TextEncoder) {
        page.write_single(
            "aiproxy_ledger_unrecorded_total",
            "counter",
            "Requests that found no place in the ledger",
            self.unrecorded,
        );
        page.write_single(
            "aiproxy_ledger_bodies_skipped_total",
            "counter",
            "Bodies that were not kept, as too much came at once",
            self.skipped_bodies,
        );
        page.write_single(
            "aiproxy_ledger_queue_length",
            "gauge",
            "Notes for the ledger that are on their way",
            self.queue_length,
        );
        let Some(file) = self.file else { return };
        page.write_single(
            "aiproxy_ledger_up",
            "gauge",
            "1 while the ledger's file can be written",
            u8::from(file.up),
        );
        page.write_single(
            "aiproxy_ledger_waiting",
            "gauge",
            "Requests held in memory until it can",
            file.waiting_requests,
        );
        page.write_single(
            "aiproxy_ledger_lost_total",
            "counter",
            "Requests lost for want of room there",
            file.lost_requests,
        );
    }
}
