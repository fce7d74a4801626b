//! When an alert arises and when its trouble is over, decided from how things stand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    base::{clock::UnixMillis, units},
    events::{
        alert::{Alert, AlertKind},
        kind::Severity,
    },
};

/// A rest shorter than this is everyday business, unless it goes on and on.
const REST: Duration = Duration::from_secs(30);
/// So many attempts say something about a rate.
const ATTEMPTS: u32 = 10;
/// Failed attempts of a hundred that are too many, and so few that it is over.
const TOO_MANY: u32 = 50;
const FEW: u32 = 20;

/// How things stand.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Those that are enabled.
    pub upstreams: Vec<UpstreamFacts>,
    /// Why the ledger is not written.
    pub ledger: Option<String>,
    /// Requests that found no place in the ledger, ever.
    pub unrecorded: u64,
    /// Our own network is down: nothing that fails now is anybody else's fault.
    pub offline: bool,
}

#[derive(Clone, Debug, Default)]
pub struct UpstreamFacts {
    pub name: String,
    /// Its circuit is open.
    pub down: Option<Rest>,
    /// Those that are enabled and whose secret is known.
    pub keys: Vec<KeyFacts>,
    /// Attempts that it answered well, ever.
    pub answered: u64,
    /// Attempts of the last minutes, and the failed ones among them.
    pub attempts: u32,
    pub errors: u32,
}

#[derive(Clone, Debug, Default)]
pub struct KeyFacts {
    /// `upstream/label`.
    pub name: String,
    /// Its provider does not take it; the cause.
    pub rejected: Option<String>,
    /// For all models.
    pub rests: Option<Rest>,
    /// For some of them.
    pub models: Vec<(String, Rest)>,
}

/// Left alone, until when and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    pub until: Option<UnixMillis>,
    pub cause: Option<String>,
}

type Id = (AlertKind, Arc<str>);

/// What was noticed so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// Troubles that an alert was raised for, and that are not known to be over.
    raised: BTreeMap<Id, Raised>,
    /// Since when a trouble has been seen that may yet pass.
    seen: BTreeMap<Id, UnixMillis>,
    unrecorded: u64,
}

#[derive(Debug)]
struct Raised {
    since: UnixMillis,
    alert: Alert,
    /// What its upstream had answered by then.
    answered: u64,
    /// It could be seen at the last look.
    now: bool,
}

/// A trouble that can be seen.
struct Trouble {
    alert: Alert,
    answered: u64,
    /// No need to wait and see.
    lasts: bool,
}

impl Watch {
    /// Looks at how things stand; what is new and what is over.
    pub fn look(&mut self, facts: &Facts, now: UnixMillis) -> Vec<Alert> {
        if facts.offline {
            return Vec::new();
        }
        let mut news = Vec::new();
        if facts.unrecorded > self.unrecorded {
            let text = format!(
                "{} requests are not in the ledger: it could not keep up",
                facts.unrecorded - self.unrecorded
            );
            self.unrecorded = facts.unrecorded;
            news.push(alert(AlertKind::Ledger, "unrecorded requests", text, Severity::Error));
        }
        let troubles: BTreeMap<Id, Trouble> = troubles(facts, now)
            .into_iter()
            .map(|trouble| ((trouble.alert.kind, Arc::clone(&trouble.alert.subject)), trouble))
            .collect();
        self.seen.retain(|id, _| troubles.contains_key(id));
        for raised in self.raised.values_mut() {
            raised.now = false;
        }
        for (id, trouble) in &troubles {
            if let Some(raised) = self.raised.get_mut(id) {
                // As it is by now: how long it still takes, how many failed.
                (raised.now, raised.alert) = (true, trouble.alert.clone());
                continue;
            }
            let since = *self.seen.entry(id.clone()).or_insert(now);
            if trouble.lasts || span(since, now) >= REST {
                news.push(trouble.alert.clone());
                self.raised.insert(
                    id.clone(),
                    Raised {
                        since,
                        alert: trouble.alert.clone(),
                        answered: trouble.answered,
                        now: true,
                    },
                );
            }
        }
        self.raised.retain(|(what, subject), raised| {
            if raised.now {
                return true;
            }
            match fate(*what, subject, raised, facts, now) {
                Fate::Stays => {
                    // Fewer fail than when it was told, and still too many.
                    if let Some(found) = facts
                        .upstreams
                        .iter()
                        .find(|found| *what == AlertKind::ErrorRate && *found.name == **subject)
                    {
                        (raised.now, raised.alert.text) = (true, failing(found).into());
                    }
                    true
                }
                Fate::Gone => false,
                Fate::Over(text) => {
                    news.push(alert(AlertKind::Recovered, subject, text, Severity::Info));
                    false
                }
            }
        });
        news
    }

    /// The troubles that can be seen, and since when.
    pub fn standing(&self) -> impl Iterator<Item = (UnixMillis, &Alert)> {
        self.raised.values().filter(|raised| raised.now).map(|raised| (raised.since, &raised.alert))
    }
}

/// What becomes of a trouble that cannot be seen any more.
enum Fate {
    /// What it was about is no more.
    Gone,
    Over(String),
    /// Nothing has proved yet that it is over.
    Stays,
}

fn fate(what: AlertKind, subject: &str, raised: &Raised, facts: &Facts, now: UnixMillis) -> Fate {
    let took = units::print_duration(Duration::from_secs(span(raised.since, now).as_secs().max(1)));
    let upstream = |name: &str| facts.upstreams.iter().find(|upstream| upstream.name == name);
    match what {
        AlertKind::ErrorRate => match upstream(subject) {
            Some(found) if found.attempts >= ATTEMPTS => {
                if found.errors * 100 < found.attempts * FEW {
                    Fate::Over(format!(
                        "{subject} fails no more than usual: {} of the last {} attempts",
                        found.errors, found.attempts
                    ))
                } else {
                    Fate::Stays
                }
            }
            // Nobody asks it any more, so nobody can tell.
            _ => Fate::Gone,
        },
        AlertKind::KeyRejected => match facts
            .upstreams
            .iter()
            .flat_map(|upstream| &upstream.keys)
            .find(|key| *key.name == *subject)
        {
            Some(_) => Fate::Over(format!("{subject} is in use again after {took}")),
            None => Fate::Gone,
        },
        AlertKind::KeysCooling | AlertKind::UpstreamDown => {
            let name = subject.split_once(':').map_or(subject, |(upstream, _)| upstream);
            match upstream(name) {
                // That a rest has ended is no proof: the next request tells.
                Some(found) if found.answered <= raised.answered => Fate::Stays,
                Some(_) => Fate::Over(format!("{subject} answers again after {took}")),
                None => Fate::Gone,
            }
        }
        AlertKind::Ledger => Fate::Over(format!("the ledger is written again after {took}")),
        AlertKind::BalanceLow
        | AlertKind::BudgetNear
        | AlertKind::BudgetSpent
        | AlertKind::Recovered
        | AlertKind::Test
        | AlertKind::UsageSpike => Fate::Gone,
    }
}

fn troubles(facts: &Facts, now: UnixMillis) -> Vec<Trouble> {
    let mut found = Vec::new();
    if let Some(why) = &facts.ledger {
        let alert = alert(
            AlertKind::Ledger,
            "ledger",
            format!("the ledger cannot be written: {why}"),
            Severity::Error,
        );
        found.push(Trouble { alert, answered: 0, lasts: true });
    }
    for upstream in &facts.upstreams {
        let mut add =
            |alert, lasts| found.push(Trouble { alert, answered: upstream.answered, lasts });
        let name = &upstream.name;
        for key in &upstream.keys {
            if let Some(cause) = &key.rejected {
                let text =
                    format!("{} is rejected by its provider{}", key.name, because(Some(cause)));
                add(alert(AlertKind::KeyRejected, &key.name, text, Severity::Error), true);
            }
        }
        if let Some(rest) = &upstream.down {
            let text = format!(
                "{name} is down{}{}",
                next(", next try in ", rest.until, now),
                because(rest.cause.as_ref())
            );
            add(alert(AlertKind::UpstreamDown, name, text, Severity::Error), true);
            continue;
        }
        if upstream.attempts >= ATTEMPTS && upstream.errors * 100 >= upstream.attempts * TOO_MANY {
            add(alert(AlertKind::ErrorRate, name, failing(upstream), Severity::Warn), true);
        }
        if let Some((subject, rest)) = all_rest(upstream, now) {
            let which = match upstream.keys.len() {
                1 => format!("the only key of {subject} rests"),
                n => format!("all {n} keys of {subject} rest"),
            };
            let text = format!(
                "{which}{}{}",
                next(", back in ", rest.until, now),
                because(rest.cause.as_ref())
            );
            let lasts = rest.until.is_none_or(|until| span(now, until) >= REST);
            add(alert(AlertKind::KeysCooling, &subject, text, Severity::Error), lasts);
        }
    }
    found
}

fn failing(upstream: &UpstreamFacts) -> String {
    format!(
        "{} fails often: {} of the last {} attempts",
        upstream.name, upstream.errors, upstream.attempts
    )
}

/// Whether no key of an upstream can be used, for all models or for one, and when the first comes
/// back.
fn all_rest(upstream: &UpstreamFacts, now: UnixMillis) -> Option<(String, Rest)> {
    let first = |rests: &[&Rest]| {
        rests
            .iter()
            .copied()
            .min_by_key(|rest| rest.until.map_or(i64::MAX, |until| until.0))
            .cloned()
    };
    let out = |key: &KeyFacts| key.rejected.is_some() || key.rests.is_some();
    let whole: Vec<&Rest> = upstream.keys.iter().filter_map(|key| key.rests.as_ref()).collect();
    // With every key rejected, that has been said of each.
    if !whole.is_empty() && upstream.keys.iter().all(out) {
        return Some((upstream.name.clone(), first(&whole)?));
    }
    let mut models: Vec<&str> =
        upstream.keys.iter().flat_map(|key| &key.models).map(|(model, _)| model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let of = |key: &'_ KeyFacts, model: &str| {
        key.models.iter().find(|(name, _)| name == model).map(|(_, rest)| rest.clone())
    };
    let all = models.into_iter().filter_map(|model| {
        let rests: Option<Vec<Rest>> = upstream
            .keys
            .iter()
            .filter(|key| key.rejected.is_none())
            .map(|key| key.rests.clone().or_else(|| of(key, model)))
            .collect();
        let rests = rests.filter(|rests| !rests.is_empty())?;
        Some((format!("{}:{model}", upstream.name), first(&rests.iter().collect::<Vec<_>>())?))
    });
    // The one that is out the longest speaks for the others.
    all.max_by_key(|(_, rest)| rest.until.map_or(i64::MAX, |until| until.0))
        .filter(|(_, rest)| rest.until.is_none_or(|until| until > now))
}

fn alert(what: AlertKind, subject: &str, text: String, level: Severity) -> Alert {
    Alert { kind: what, subject: subject.into(), text: text.into(), level }
}

fn because(cause: Option<&String>) -> String {
    cause.map_or_else(String::new, |cause| format!(": {cause}"))
}

fn next(words: &str, until: Option<UnixMillis>, now: UnixMillis) -> String {
    let left = until.map(|until| span(now, until).as_secs()).filter(|left| *left > 0);
    left.map_or_else(String::new, |left| {
        format!("{words}{}", units::print_duration(Duration::from_secs(left)))
    })
}

fn span(from: UnixMillis, to: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(to.0 - from.0).unwrap_or(0))
}

#[cfg(test)]
mod tests;
