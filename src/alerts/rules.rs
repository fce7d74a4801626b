//! When an alert arises and when its trouble is over, decided from how things stand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    base::{clock::UnixMillis, units},
    events::{
        alert::{Alert, AlertKind},
        event::Severity,
    },
};

/// A rest shorter than this is everyday business, unless it goes on and on.
const MIN_DURATION: Duration = Duration::from_secs(30);
/// So many attempts say something about a rate.
const MIN_ATTEMPTS: u32 = 10;
/// Failed attempts of a hundred that are too many, and so few that it is over.
const ALERT_ERROR_PERCENT: u32 = 50;
const RECOVERY_ERROR_PERCENT: u32 = 20;

/// How things stand.
#[derive(Clone, Debug, Default)]
pub struct AlertInputs {
    /// Those that are enabled.
    pub upstreams: Vec<UpstreamAlertInputs>,
    /// Why the ledger is not written.
    pub ledger_error: Option<String>,
    /// Requests that found no place in the ledger, ever.
    pub unrecorded_requests: u64,
    /// Our own network is down: nothing that fails now is anybody else's fault.
    pub offline: bool,
}

#[derive(Clone, Debug, Default)]
pub struct UpstreamAlertInputs {
    pub name: String,
    /// Its circuit is open.
    pub outage: Option<AlertCooldown>,
    /// Those that are enabled and whose secret is known.
    pub keys: Vec<KeyAlertInputs>,
    /// Attempts that it answered well, ever.
    pub success_count: u64,
    /// Attempts of the last minutes, and the failed ones among them.
    pub recent_attempts: u32,
    pub recent_errors: u32,
}

#[derive(Clone, Debug, Default)]
pub struct KeyAlertInputs {
    /// `upstream/label`.
    pub name: String,
    /// Its provider does not take it; the cause.
    pub rejection: Option<String>,
    /// For all models.
    pub cooldown: Option<AlertCooldown>,
    /// For some of them.
    pub model_cooldowns: Vec<(String, AlertCooldown)>,
}

/// Left alone, until when and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertCooldown {
    pub until: Option<UnixMillis>,
    pub cause: Option<String>,
}

type AlertId = (AlertKind, Arc<str>);

/// What was noticed so far.
#[derive(Debug, Default)]
pub struct AlertState {
    /// Troubles that an alert was raised for, and that are not known to be over.
    active: BTreeMap<AlertId, ActiveAlert>,
    /// Since when a trouble has been seen that may yet pass.
    first_seen: BTreeMap<AlertId, UnixMillis>,
    reported_unrecorded: u64,
}

#[derive(Debug)]
struct ActiveAlert {
    since: UnixMillis,
    alert: Alert,
    /// What its upstream had answered by then.
    success_count: u64,
    /// It could be seen at the last look.
    visible: bool,
}

/// A trouble that can be seen.
struct Condition {
    alert: Alert,
    success_count: u64,
    /// No need to wait and see.
    immediate: bool,
}

impl AlertState {
    /// Looks at how things stand; what is new and what is over.
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
                // As it is by now: how long it still takes, how many failed.
                (active.visible, active.alert) = (true, condition.alert.clone());
                continue;
            }
            let since = *self.first_seen.entry(id.clone()).or_insert(now);
            if condition.immediate || duration_between(since, now) >= MIN_DURATION {
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
                    // Fewer fail than when it was told, and still too many.
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

    /// The troubles that can be seen, and since when.
    pub fn visible_alerts(&self) -> impl Iterator<Item = (UnixMillis, &Alert)> {
        self.active
            .values()
            .filter(|active| active.visible)
            .map(|active| (active.since, &active.alert))
    }
}

/// What becomes of a trouble that cannot be seen any more.
enum Resolution {
    /// What it was about is no more.
    Dropped,
    Recovered(String),
    /// Nothing has proved yet that it is over.
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
            Some(found) if found.recent_attempts >= MIN_ATTEMPTS => {
                if found.recent_errors * 100 < found.recent_attempts * RECOVERY_ERROR_PERCENT {
                    Resolution::Recovered(format!(
                        "{subject} fails no more than usual: {} of the last {} attempts",
                        found.recent_errors, found.recent_attempts
                    ))
                } else {
                    Resolution::Ongoing
                }
            }
            // Nobody asks it any more, so nobody can tell.
            _ => Resolution::Dropped,
        },
        AlertKind::KeyRejected => match inputs
            .upstreams
            .iter()
            .flat_map(|upstream| &upstream.keys)
            .find(|key| *key.name == *subject)
        {
            Some(_) => Resolution::Recovered(format!("{subject} is in use again after {elapsed}")),
            None => Resolution::Dropped,
        },
        AlertKind::KeysCooling | AlertKind::UpstreamDown => {
            let name = subject.split_once(':').map_or(subject, |(upstream, _)| upstream);
            match upstream(name) {
                // That a rest has ended is no proof: the next request tells.
                Some(found) if found.success_count <= active.success_count => Resolution::Ongoing,
                Some(_) => {
                    Resolution::Recovered(format!("{subject} answers again after {elapsed}"))
                }
                None => Resolution::Dropped,
            }
        }
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
    for upstream in &inputs.upstreams {
        let mut add = |alert, lasts| {
            found.push(Condition { alert, success_count: upstream.success_count, immediate: lasts })
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
        if upstream.recent_attempts >= MIN_ATTEMPTS
            && upstream.recent_errors * 100 >= upstream.recent_attempts * ALERT_ERROR_PERCENT
        {
            add(
                new_alert(AlertKind::ErrorRate, name, error_rate_text(upstream), Severity::Warn),
                true,
            );
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
            let lasts =
                cooldown.until.is_none_or(|until| duration_between(now, until) >= MIN_DURATION);
            add(new_alert(AlertKind::KeysCooling, &subject, text, Severity::Error), lasts);
        }
    }
    found
}

fn error_rate_text(upstream: &UpstreamAlertInputs) -> String {
    format!(
        "{} fails often: {} of the last {} attempts",
        upstream.name, upstream.recent_errors, upstream.recent_attempts
    )
}

/// Whether no key of an upstream can be used, for all models or for one, and when the first comes
/// back.
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
    let is_unusable = |key: &KeyAlertInputs| key.rejection.is_some() || key.cooldown.is_some();
    let all_models: Vec<&AlertCooldown> =
        upstream.keys.iter().filter_map(|key| key.cooldown.as_ref()).collect();
    // With every key rejected, that has been said of each.
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
    // The one that is out the longest speaks for the others.
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
