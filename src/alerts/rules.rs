//! Decides from the current state when an alert is raised and when it is resolved.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    base::{clock::UnixMillis, units},
    config::settings::AlertSettings,
    events::{
        alert::{Alert, AlertKind},
        event::Severity,
    },
};

/// How long a removed or replaced ledger stays in the list of alerts.
const REPLACED_LEDGER_DURATION: Duration = Duration::from_secs(3_600);
/// Subject of the alert about a removed or replaced ledger.
const LEDGER_FILE: &str = "ledger file";

/// The limits at which alerts are raised, from `[alerts]`.
#[derive(Clone, Copy, Debug)]
pub struct AlertThresholds {
    /// From this long on, a cooldown of one key is reported although other keys work.
    pub key_outage: Duration,
    /// A shorter cooldown of all keys raises no alert, unless cooldowns repeat without a break.
    pub all_keys_outage: Duration,
    /// Minimum number of attempts for a meaningful error rate.
    pub attempts: u32,
    /// The error rate that raises an alert. It is resolved below two fifths of it.
    pub error_percent: u32,
}

impl AlertThresholds {
    /// Takes them from the settings.
    #[must_use]
    pub fn new(settings: &AlertSettings) -> Self {
        Self {
            key_outage: settings.key_out_after,
            all_keys_outage: settings.keys_cooling_after,
            attempts: settings.error_attempts,
            error_percent: settings.error_percent,
        }
    }

    fn is_error_rate(&self, upstream: &UpstreamAlertInputs) -> bool {
        upstream.recent_attempts >= self.attempts
            && percent_of_attempts(upstream) >= u64::from(self.error_percent)
    }

    fn is_recovered_rate(&self, upstream: &UpstreamAlertInputs) -> bool {
        percent_of_attempts(upstream) * 5 < u64::from(self.error_percent) * 2
    }
}

impl Default for AlertThresholds {
    fn default() -> Self {
        Self::new(&AlertSettings::default())
    }
}

/// Returns the share of failed attempts, rounded down.
fn percent_of_attempts(upstream: &UpstreamAlertInputs) -> u64 {
    u64::from(upstream.recent_errors) * 100 / u64::from(upstream.recent_attempts.max(1))
}

/// The state that alerts are decided from.
#[derive(Clone, Debug, Default)]
pub struct AlertInputs {
    pub thresholds: AlertThresholds,
    /// The enabled upstreams.
    pub upstreams: Vec<UpstreamAlertInputs>,
    /// Why the ledger cannot be written.
    pub ledger_error: Option<String>,
    /// When the ledger's file was found removed or replaced.
    pub ledger_replaced_at: Option<UnixMillis>,
    /// Requests that did not fit into the queue to the ledger, since the start.
    pub unrecorded_requests: u64,
    /// The local network is down, so current failures are not the fault of upstreams.
    pub offline: bool,
}

#[derive(Clone, Debug, Default)]
pub struct UpstreamAlertInputs {
    pub name: String,
    /// Set if the circuit is open.
    pub outage: Option<AlertCooldown>,
    /// The enabled keys whose secret is known.
    pub keys: Vec<KeyAlertInputs>,
    /// Successful attempts since the start.
    pub success_count: u64,
    /// Attempts of the last minutes, and how many of them failed.
    pub recent_attempts: u32,
    pub recent_errors: u32,
}

#[derive(Clone, Debug, Default)]
pub struct KeyAlertInputs {
    /// `upstream/label`.
    pub name: String,
    /// Why the provider rejects the key.
    pub rejection: Option<String>,
    /// A cooldown for all models.
    pub cooldown: Option<AlertCooldown>,
    /// Cooldowns for single models.
    pub model_cooldowns: Vec<(String, AlertCooldown)>,
}

/// The end and the reason of a cooldown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertCooldown {
    pub until: Option<UnixMillis>,
    pub cause: Option<String>,
}

type AlertId = (AlertKind, Arc<str>);

/// Alerts and conditions observed so far.
#[derive(Debug, Default)]
pub struct AlertState {
    /// Raised alerts that are not known to be resolved.
    active: BTreeMap<AlertId, ActiveAlert>,
    /// When a condition that may still pass was first seen.
    first_seen: BTreeMap<AlertId, UnixMillis>,
    reported_unrecorded: u64,
}

#[derive(Debug)]
struct ActiveAlert {
    since: UnixMillis,
    alert: Alert,
    /// The success count of its upstream when the alert was raised.
    success_count: u64,
    /// The condition was present at the last check.
    visible: bool,
}

/// A condition that is present now.
struct Condition {
    alert: Alert,
    success_count: u64,
    /// Raise the alert without waiting.
    immediate: bool,
}

impl AlertState {
    /// Compares the current state with the last check; returns new and resolved alerts.
    pub fn update(&mut self, inputs: &AlertInputs, now: UnixMillis) -> Vec<Alert> {
        if inputs.offline {
            return Vec::new();
        }
        let mut alerts = Vec::new();
        if inputs.unrecorded_requests > self.reported_unrecorded {
            let text = format!(
                "{} requests are not in the ledger: it could not keep up",
                inputs.unrecorded_requests - self.reported_unrecorded
            );
            self.reported_unrecorded = inputs.unrecorded_requests;
            alerts.push(new_alert(AlertKind::Ledger, "unrecorded requests", text, Severity::Error));
        }
        let conditions: BTreeMap<AlertId, Condition> = find_conditions(inputs, now)
            .into_iter()
            .map(|condition| {
                ((condition.alert.kind, Arc::clone(&condition.alert.subject)), condition)
            })
            .collect();
        self.first_seen.retain(|id, _| conditions.contains_key(id));
        for active in self.active.values_mut() {
            active.visible = false;
        }
        for (id, condition) in &conditions {
            if let Some(active) = self.active.get_mut(id) {
                // Updates the text: remaining time and number of failures may have changed.
                (active.visible, active.alert) = (true, condition.alert.clone());
                continue;
            }
            let since = *self.first_seen.entry(id.clone()).or_insert(now);
            if condition.immediate
                || duration_between(since, now) >= inputs.thresholds.all_keys_outage
            {
                alerts.push(condition.alert.clone());
                self.active.insert(
                    id.clone(),
                    ActiveAlert {
                        since,
                        alert: condition.alert.clone(),
                        success_count: condition.success_count,
                        visible: true,
                    },
                );
            }
        }
        self.active.retain(|(what, subject), active| {
            if active.visible {
                return true;
            }
            match resolution(*what, subject, active, inputs, now) {
                Resolution::Ongoing => {
                    // Fewer attempts fail than when the alert was raised, but still too many.
                    if let Some(found) = inputs
                        .upstreams
                        .iter()
                        .find(|found| *what == AlertKind::ErrorRate && *found.name == **subject)
                    {
                        (active.visible, active.alert.text) = (true, error_rate_text(found).into());
                    }
                    true
                }
                Resolution::Dropped => false,
                Resolution::Recovered(text) => {
                    alerts.push(new_alert(AlertKind::Recovered, subject, text, Severity::Info));
                    false
                }
            }
        });
        alerts
    }

    /// Returns the alerts whose condition is present, and since when.
    pub fn visible_alerts(&self) -> impl Iterator<Item = (UnixMillis, &Alert)> {
        self.active
            .values()
            .filter(|active| active.visible)
            .map(|active| (active.since, &active.alert))
    }
}

/// What happens to an alert whose condition is no longer present.
enum Resolution {
    /// The subject of the alert no longer exists.
    Dropped,
    Recovered(String),
    /// The recovery is not proved yet.
    Ongoing,
}

fn resolution(
    what: AlertKind,
    subject: &str,
    active: &ActiveAlert,
    inputs: &AlertInputs,
    now: UnixMillis,
) -> Resolution {
    let elapsed = units::print_duration(Duration::from_secs(
        duration_between(active.since, now).as_secs().max(1),
    ));
    let upstream = |name: &str| inputs.upstreams.iter().find(|upstream| upstream.name == name);
    match what {
        AlertKind::ErrorRate => match upstream(subject) {
            Some(found) if found.recent_attempts >= inputs.thresholds.attempts => {
                if inputs.thresholds.is_recovered_rate(found) {
                    Resolution::Recovered(format!(
                        "{subject} fails no more than usual: {} of the last {} attempts",
                        found.recent_errors, found.recent_attempts
                    ))
                } else {
                    Resolution::Ongoing
                }
            }
            // The key is no longer used, so recovery cannot be observed.
            _ => Resolution::Dropped,
        },
        AlertKind::KeyOut | AlertKind::KeyRejected => match inputs
            .upstreams
            .iter()
            .flat_map(|upstream| &upstream.keys)
            .find(|key| *key.name == *subject)
        {
            // The cooldown is nearly over, or another alert reports all keys.
            Some(key) if what == AlertKind::KeyOut && is_unusable(key) => Resolution::Ongoing,
            Some(_) => Resolution::Recovered(format!("{subject} is in use again after {elapsed}")),
            None => Resolution::Dropped,
        },
        AlertKind::KeysCooling | AlertKind::UpstreamDown => {
            let name = subject.split_once(':').map_or(subject, |(upstream, _)| upstream);
            match upstream(name) {
                // The end of a cooldown does not prove recovery; the next successful request does.
                Some(found) if found.success_count <= active.success_count => Resolution::Ongoing,
                Some(_) => {
                    Resolution::Recovered(format!("{subject} answers again after {elapsed}"))
                }
                None => Resolution::Dropped,
            }
        }
        // It ends by time, which is no news.
        AlertKind::Ledger if subject == LEDGER_FILE => Resolution::Dropped,
        AlertKind::Ledger => {
            Resolution::Recovered(format!("the ledger is written again after {elapsed}"))
        }
        AlertKind::BalanceLow
        | AlertKind::BudgetNear
        | AlertKind::BudgetSpent
        | AlertKind::Recovered
        | AlertKind::Test
        | AlertKind::UsageSpike => Resolution::Dropped,
    }
}

fn find_conditions(inputs: &AlertInputs, now: UnixMillis) -> Vec<Condition> {
    let mut found = Vec::new();
    if let Some(why) = &inputs.ledger_error {
        let alert = new_alert(
            AlertKind::Ledger,
            "ledger",
            format!("the ledger cannot be written: {why}"),
            Severity::Error,
        );
        found.push(Condition { alert, success_count: 0, immediate: true });
    }
    if inputs
        .ledger_replaced_at
        .is_some_and(|at| duration_between(at, now) < REPLACED_LEDGER_DURATION)
    {
        let text = "the ledger's file was removed or replaced by another program; requests are \
                    recorded in the file that is there now, or in a new one";
        let alert = new_alert(AlertKind::Ledger, LEDGER_FILE, text.to_owned(), Severity::Error);
        found.push(Condition { alert, success_count: 0, immediate: true });
    }
    for upstream in &inputs.upstreams {
        let mut add = |alert, lasts| {
            found.push(Condition {
                alert,
                success_count: upstream.success_count,
                immediate: lasts,
            });
        };
        let name = &upstream.name;
        for key in &upstream.keys {
            if let Some(cause) = &key.rejection {
                let text = format!(
                    "{} is rejected by its provider{}",
                    key.name,
                    cause_suffix(Some(cause))
                );
                add(new_alert(AlertKind::KeyRejected, &key.name, text, Severity::Error), true);
            }
        }
        if let Some(cooldown) = &upstream.outage {
            let text = format!(
                "{name} is down{}{}",
                retry_suffix(", next try in ", cooldown.until, now),
                cause_suffix(cooldown.cause.as_ref())
            );
            add(new_alert(AlertKind::UpstreamDown, name, text, Severity::Error), true);
            continue;
        }
        if inputs.thresholds.is_error_rate(upstream) {
            add(
                new_alert(AlertKind::ErrorRate, name, error_rate_text(upstream), Severity::Warn),
                true,
            );
        }
        for key in upstream.keys.iter().filter(|_| !upstream.keys.iter().all(is_unusable)) {
            let Some(cooldown) = key.cooldown.as_ref().filter(|rest| {
                rest.until.is_none_or(|until| {
                    duration_between(now, until) >= inputs.thresholds.key_outage
                })
            }) else {
                continue;
            };
            let text = format!(
                "{} cannot be used now{}{}",
                key.name,
                retry_suffix(", next try in ", cooldown.until, now),
                cause_suffix(cooldown.cause.as_ref())
            );
            add(new_alert(AlertKind::KeyOut, &key.name, text, Severity::Error), true);
        }
        if let Some((subject, cooldown)) = all_keys_cooling(upstream, now) {
            let which = match upstream.keys.len() {
                1 => format!("the only key of {subject} rests"),
                n => format!("all {n} keys of {subject} rest"),
            };
            let text = format!(
                "{which}{}{}",
                retry_suffix(", back in ", cooldown.until, now),
                cause_suffix(cooldown.cause.as_ref())
            );
            let lasts = cooldown.until.is_none_or(|until| {
                duration_between(now, until) >= inputs.thresholds.all_keys_outage
            });
            add(new_alert(AlertKind::KeysCooling, &subject, text, Severity::Error), lasts);
        }
    }
    found
}

fn is_unusable(key: &KeyAlertInputs) -> bool {
    key.rejection.is_some() || key.cooldown.is_some()
}

fn error_rate_text(upstream: &UpstreamAlertInputs) -> String {
    format!(
        "{} fails often: {} of the last {} attempts",
        upstream.name, upstream.recent_errors, upstream.recent_attempts
    )
}

/// Returns whether all keys of an upstream are unusable, for all models or for one, and the
/// cooldown that ends first.
fn all_keys_cooling(
    upstream: &UpstreamAlertInputs,
    now: UnixMillis,
) -> Option<(String, AlertCooldown)> {
    let first = |cooldowns: &[&AlertCooldown]| {
        cooldowns
            .iter()
            .copied()
            .min_by_key(|rest| rest.until.map_or(i64::MAX, |until| until.0))
            .cloned()
    };
    let all_models: Vec<&AlertCooldown> =
        upstream.keys.iter().filter_map(|key| key.cooldown.as_ref()).collect();
    // If every key is rejected, each of them has its own alert.
    if !all_models.is_empty() && upstream.keys.iter().all(is_unusable) {
        return Some((upstream.name.clone(), first(&all_models)?));
    }
    let mut models: Vec<&str> = upstream
        .keys
        .iter()
        .flat_map(|key| &key.model_cooldowns)
        .map(|(model, _)| model.as_str())
        .collect();
    models.sort_unstable();
    models.dedup();
    let of = |key: &'_ KeyAlertInputs, model: &str| {
        key.model_cooldowns.iter().find(|(name, _)| name == model).map(|(_, rest)| rest.clone())
    };
    let all = models.into_iter().filter_map(|model| {
        let cooldowns: Option<Vec<AlertCooldown>> = upstream
            .keys
            .iter()
            .filter(|key| key.rejection.is_none())
            .map(|key| key.cooldown.clone().or_else(|| of(key, model)))
            .collect();
        let cooldowns = cooldowns.filter(|cooldowns| !cooldowns.is_empty())?;
        Some((format!("{}:{model}", upstream.name), first(&cooldowns.iter().collect::<Vec<_>>())?))
    });
    // The model with the longest cooldown represents the others.
    all.max_by_key(|(_, rest)| rest.until.map_or(i64::MAX, |until| until.0))
        .filter(|(_, rest)| rest.until.is_none_or(|until| until > now))
}

fn new_alert(what: AlertKind, subject: &str, text: String, level: Severity) -> Alert {
    Alert { kind: what, subject: subject.into(), text: text.into(), level }
}

fn cause_suffix(cause: Option<&String>) -> String {
    cause.map_or_else(String::new, |cause| format!(": {cause}"))
}

fn retry_suffix(prefix: &str, until: Option<UnixMillis>, now: UnixMillis) -> String {
    let remaining = until
        .map(|until| duration_between(now, until).as_secs())
        .filter(|remaining| *remaining > 0);
    remaining.map_or_else(String::new, |remaining| {
        format!("{prefix}{}", units::print_duration(Duration::from_secs(remaining)))
    })
}

fn duration_between(from: UnixMillis, to: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(to.0 - from.0).unwrap_or(0))
}

#[cfg(test)]
mod tests;
