//! Reads references again that could not be read: after 1 s, then less and less often, and at once
//! when the keyring opens.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    base::sync::Mutex, cli::serve::keys::load::KeyLoader, config::settings::KeyId,
    relay::background::refresh_models, secrets::Reference,
};

/// The first wait and the longest one. Each failure doubles the wait.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);
/// The longest wait while requests fail for want of a key.
const WANTED_DELAY: Duration = Duration::from_secs(5);
/// How often a keyring is asked whether it is open now; this shows no prompt.
const LOCK_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the model list of a key that was found is waited for.
const MODEL_LIST_WAIT: Duration = Duration::from_secs(10);

/// What is read again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::cli::serve) enum RetryItem {
    /// The key of the project with this name.
    Client(Arc<str>),
    Provider(KeyId),
}

/// When each failed reference is read again.
#[derive(Default)]
pub(in crate::cli::serve) struct RetrySchedule {
    retries: Mutex<HashMap<RetryItem, NextAttempt>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct NextAttempt {
    at: Instant,
    delay: Duration,
    failed: Instant,
}

impl RetrySchedule {
    /// Schedules the next attempt after a failure.
    pub(super) fn fail(&self, item: RetryItem) {
        self.fail_at(item, Instant::now());
    }

    fn fail_at(&self, item: RetryItem, now: Instant) {
        let mut retries = self.retries.lock();
        let delay = retries
            .get(&item)
            .map_or(FIRST_DELAY, |retry| retry.delay.saturating_mul(2).min(MAX_DELAY));
        retries.insert(item, NextAttempt { at: now + delay, delay, failed: now });
        drop(retries);
        self.changed.notify_one();
    }

    /// Ends the attempts.
    pub(super) fn end(&self, item: &RetryItem) {
        self.retries.lock().remove(item);
    }

    /// Ends all attempts, since everything is read now.
    pub(in crate::cli::serve) fn restart(&self) {
        self.retries.lock().clear();
    }

    /// Asks again soon, without counting it as a failure.
    fn postpone(&self, item: &RetryItem, now: Instant) {
        if let Some(retry) = self.retries.lock().get_mut(item) {
            retry.at = now + LOCK_POLL_INTERVAL;
        }
    }

    /// Brings the attempts forward, since a request needs a key.
    fn hasten(&self) {
        for retry in self.retries.lock().values_mut() {
            retry.at = retry.at.min(retry.failed + WANTED_DELAY);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.retries.lock().values().map(|retry| retry.at).min()
    }

    fn due(&self, now: Instant) -> Vec<RetryItem> {
        let retries = self.retries.lock();
        retries.iter().filter(|(_, retry)| retry.at <= now).map(|(item, _)| item.clone()).collect()
    }
}

impl KeyLoader {
    /// Reads what is missing again until the proxy stops.
    pub async fn run_retries(&self) {
        loop {
            let changed = self.retries.changed.notified();
            match self.retries.next() {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => self.retry_due().await,
                    () = changed => {}
                    () = self.engine.key_wanted.notified() => self.retries.hasten(),
                },
                None => changed.await,
            }
        }
    }

    async fn retry_due(&self) {
        let due = self.retries.due(Instant::now());
        let (in_keyring, mut ready): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|item| self.is_in_keyring(item));
        // Reading an entry of a locked keyring would show a prompt each time.
        if !in_keyring.is_empty() {
            if self.keyring.obstacle().await.is_none() {
                ready.extend(in_keyring);
            } else {
                let now = Instant::now();
                in_keyring.iter().for_each(|item| self.retries.postpone(item, now));
            }
        }
        let found = join_all(ready.iter().map(|item| self.retry(item))).await;
        if found.contains(&true) {
            // A list that does not come is asked for again later, as always.
            drop(timeout(MODEL_LIST_WAIT, refresh_models::refresh_all(&self.engine)).await);
        }
    }

    fn is_in_keyring(&self, item: &RetryItem) -> bool {
        let settings = Arc::clone(&self.engine.generation().settings);
        match item {
            RetryItem::Client(name) => {
                settings.projects.iter().find(|project| project.name == *name).is_some_and(
                    |project| matches!(project.key, None | Some(Reference::Keyring(_))),
                )
            }
            RetryItem::Provider(id) => {
                let mut keys = settings.upstreams.iter().flat_map(|upstream| &upstream.keys);
                keys.any(|key| key.id == *id && matches!(key.reference, Reference::Keyring(_)))
            }
        }
    }

    /// Reads one reference again; returns whether a provider's key is usable now that was not.
    async fn retry(&self, item: &RetryItem) -> bool {
        let settings = Arc::clone(&self.engine.generation().settings);
        match item {
            RetryItem::Client(name) => {
                match settings.projects.iter().find(|project| project.name == *name) {
                    Some(project) => self.load_client_key_again(project, &settings).await,
                    None => self.retries.end(item),
                }
                false
            }
            RetryItem::Provider(id) => {
                let was_ready = self.engine.keys.is_ready(*id);
                self.load_key_again(*id, &settings).await;
                !was_ready && self.engine.keys.is_ready(*id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_reset_after_success() {
        let (schedule, item) = (RetrySchedule::default(), RetryItem::Provider(KeyId(1)));
        assert!(schedule.next().is_none());
        let (mut now, mut waits) = (Instant::now(), Vec::new());
        for _ in 0..8 {
            schedule.fail_at(item.clone(), now);
            let at = schedule.next().expect("scheduled");
            waits.push(at.duration_since(now).as_secs());
            assert!(schedule.due(now).is_empty());
            now = at;
            assert_eq!(schedule.due(now), std::slice::from_ref(&item));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);

        schedule.fail_at(item.clone(), now);
        schedule.hasten();
        assert_eq!(schedule.next(), Some(now + WANTED_DELAY));
        schedule.postpone(&item, now);
        assert_eq!(schedule.next(), Some(now + LOCK_POLL_INTERVAL));
        schedule.end(&item);
        schedule.postpone(&item, now);
        assert!(schedule.next().is_none());
        schedule.fail_at(item, now);
        assert_eq!(schedule.next(), Some(now + FIRST_DELAY));
    }
}
