//! Stores the remaining balance of each key, and when its provider is polled next.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::{Notify, futures::Notified};

use crate::{
    base::{
        clock::{Mono, UnixMillis},
        money::{NanoUsd, to_nanos},
        sync::{Mutex, MutexGuard},
    },
    config::settings::KeyId,
};

/// How often providers are polled.
const POLL_INTERVAL: Duration = Duration::from_secs(600);
/// Minimum interval between polls after out-of-credit errors.
const MIN_RECHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The known balances, by key.
#[derive(Debug, Default)]
pub struct Balances {
    entries: Mutex<HashMap<KeyId, BalanceEntry>>,
    changed: Notify,
}

/// What is left for a key, as its provider reported it.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    pub amount: f64,
    pub currency: String,
    /// Known if there is an exchange rate.
    pub usd: Option<NanoUsd>,
    pub at: UnixMillis,
}

impl Balance {
    /// Returns whether nothing is left, or less than this many dollars.
    #[must_use]
    pub fn is_low(&self, limit: f64) -> bool {
        self.amount <= 0.0 || self.usd.is_some_and(|usd| usd.dollars() < limit)
    }

    /// Formats the amount: `$12.30`, `88.88 CNY`.
    #[must_use]
    pub fn text(&self) -> String {
        match (&*self.currency, to_nanos(self.amount)) {
            ("USD", Some(nano)) => NanoUsd(nano).format_short(),
            (currency, _) => format!("{:.2} {currency}", self.amount),
        }
    }
}

#[derive(Debug)]
struct BalanceEntry {
    /// Fingerprint of the secret that was polled; another secret starts afresh.
    fingerprint: Arc<str>,
    balance: Option<Balance>,
    polled_at: Option<Mono>,
    next_poll_at: Mono,
    /// When each probe that did not answer may be tried again.
    paused_probes: Vec<(usize, Mono)>,
}

impl Balances {
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, BalanceEntry>> {
        self.entries.lock()
    }

    #[must_use]
    pub fn get(&self, key: KeyId) -> Option<Balance> {
        self.lock().get(&key)?.balance.clone()
    }

    /// Polls a key's balance soon, because its account is out of credit; does nothing if it was
    /// just polled.
    pub(in crate::relay) fn recheck_soon(&self, key: KeyId, now: Mono) {
        if let Some(row) = self.lock().get_mut(&key)
            && row.polled_at.is_none_or(|polled_at| now.since(polled_at) >= MIN_RECHECK_INTERVAL)
        {
            row.next_poll_at = now;
            self.changed.notify_one();
        }
    }

    /// Completes when a key is due earlier than planned.
    pub(in crate::relay) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Returns the probes that may be tried if a key is due, and sets its next time.
    pub(in crate::relay) fn take_due(
        &self,
        key: KeyId,
        fingerprint: &Arc<str>,
        probes: usize,
        now: Mono,
    ) -> Option<Vec<usize>> {
        let mut rows = self.lock();
        let new_entry = || BalanceEntry {
            fingerprint: Arc::clone(fingerprint),
            balance: None,
            polled_at: None,
            next_poll_at: now,
            paused_probes: Vec::new(),
        };
        let row = rows.entry(key).or_insert_with(new_entry);
        if row.fingerprint != *fingerprint {
            *row = new_entry();
        }
        if row.next_poll_at > now {
            return None;
        }
        (row.polled_at, row.next_poll_at) = (Some(now), now + POLL_INTERVAL);
        row.paused_probes.retain(|(_, until)| *until > now);
        let open: Vec<usize> = (0..probes)
            .filter(|probe| !row.paused_probes.iter().any(|(rests, _)| rests == probe))
            .collect();
        (!open.is_empty()).then_some(open)
    }

    pub(in crate::relay) fn pause_probe(&self, key: KeyId, probe: usize, until: Mono) {
        if let Some(row) = self.lock().get_mut(&key) {
            row.paused_probes.push((probe, until));
        }
    }

    /// Stores a balance and returns the previous one.
    pub(in crate::relay) fn replace(&self, key: KeyId, balance: Balance) -> Option<Balance> {
        self.lock().get_mut(&key)?.balance.replace(balance)
    }

    pub(in crate::relay) fn retain(&self, keys: &[KeyId]) {
        self.lock().retain(|key, _| keys.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_is_polled_periodically_and_once_after_a_refusal() {
        let balances = Balances::default();
        let (key, one, two): (_, Arc<str>, Arc<str>) = (KeyId(1), "sk-…1".into(), "sk-…2".into());
        let due = |fingerprint, now| {
            balances.take_due(key, fingerprint, 2, Mono(Duration::from_secs(now)))
        };

        assert_eq!(due(&one, 0), Some(vec![0, 1]));
        assert_eq!(due(&one, 599), None);
        balances.pause_probe(key, 0, Mono(Duration::from_secs(6 * 3_600)));
        assert_eq!(due(&one, 600), Some(vec![1]));
        balances.recheck_soon(key, Mono(Duration::from_secs(630)));
        assert_eq!(due(&one, 630), None, "it was asked half a minute ago");
        balances.recheck_soon(key, Mono(Duration::from_secs(700)));
        assert_eq!(due(&one, 700), Some(vec![1]));
        assert_eq!(due(&two, 701), Some(vec![0, 1]), "another secret may see more");
        balances.retain(&[]);
        balances.recheck_soon(key, Mono(Duration::from_secs(9_999)));
        assert_eq!(balances.get(key), None);
    }

    #[test]
    fn balance_is_low_below_the_limit_in_any_currency() {
        let low = |amount, usd: Option<i64>| {
            Balance { amount, currency: "CNY".into(), usd: usd.map(NanoUsd), at: UnixMillis(0) }
                .is_low(1.0)
        };
        assert_eq!(
            [
                low(5.0, Some(700_000_000)),
                low(8.0, Some(1_120_000_000)),
                low(0.5, None),
                low(0.0, None)
            ],
            [true, false, false, true]
        );
    }
}
