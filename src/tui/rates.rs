//! Request and token rates over the last minutes, counted per time slot from events so that drawing
//! is cheap.

use std::collections::VecDeque;

use crate::{
    base::clock::UnixMillis,
    events::{
        event::{Event, EventKind},
        live::Live,
    },
};

/// Length of one slot in milliseconds.
const SLOT_MS: i64 = 5_000;
/// Upper bound for slots: sixteen minutes.
const MAX_SLOTS: usize = 192;

/// Requests and output tokens per slot, oldest first.
#[derive(Clone, Debug, Default)]
pub struct TrafficRates {
    slots: VecDeque<RateSlot>,
}

#[derive(Clone, Copy, Debug)]
struct RateSlot {
    number: i64,
    requests: u32,
    tokens: u64,
}

impl TrafficRates {
    /// Reconstructs the request counts from the requests of a snapshot.
    #[must_use]
    pub fn from_live(live: &Live) -> Self {
        let mut starts: Vec<_> = live.finished().chain(live.running.iter()).map(|r| r.at).collect();
        starts.sort_unstable();
        let mut rates = Self::default();
        for at in starts {
            rates.add(at, 1, 0);
        }
        rates
    }

    /// Counts one event; `live` is the state before it.
    pub fn record(&mut self, event: &Event, live: &Live) {
        let before = |id| live.running.get(id).map_or(0, |r| r.events);
        match &event.kind {
            EventKind::Accepted { .. } => self.add(event.at, 1, 0),
            EventKind::Progress { id, events, .. } => {
                self.add(event.at, 0, events.saturating_sub(before(*id)));
            }
            EventKind::Ended { id, usage, events, .. } => {
                let all = usage.map_or(*events, |u| u.output_total());
                self.add(event.at, 0, all.saturating_sub(before(*id)));
            }
            _ => {}
        }
    }

    fn add(&mut self, at: UnixMillis, requests: u32, tokens: u64) {
        let number = at.0.div_euclid(SLOT_MS);
        // Events arrive in order. If the clock was set back, they count into the newest slot.
        if self.slots.back().is_none_or(|slot| slot.number < number) {
            if self.slots.len() >= MAX_SLOTS {
                self.slots.pop_front();
            }
            self.slots.push_back(RateSlot { number, requests: 0, tokens: 0 });
        }
        if let Some(slot) = self.slots.back_mut() {
            slot.requests = slot.requests.saturating_add(requests);
            slot.tokens = slot.tokens.saturating_add(tokens);
        }
    }

    /// Requests that started in the last minute.
    #[must_use]
    pub fn requests_per_minute(&self, now: UnixMillis) -> u64 {
        self.sum(now, 0, 12, |slot| u64::from(slot.requests))
    }

    /// Output tokens per second over the last 15 s.
    #[must_use]
    pub fn tokens_per_second(&self, now: UnixMillis) -> u64 {
        self.sum(now, 0, 3, |slot| slot.tokens) / 15
    }

    /// Requests in each of the last `bars` intervals of 30 s, oldest first.
    #[must_use]
    pub fn request_bars(&self, now: UnixMillis, bars: usize) -> Vec<u64> {
        (0..bars as i64)
            .rev()
            .map(|bar| self.sum(now, bar * 6, 6, |slot| u64::from(slot.requests)))
            .collect()
    }

    /// Output tokens in each of the last `bars` intervals of 10 s, oldest first.
    #[must_use]
    pub fn token_bars(&self, now: UnixMillis, bars: usize) -> Vec<u64> {
        (0..bars as i64).rev().map(|bar| self.sum(now, bar * 2, 2, |slot| slot.tokens)).collect()
    }

    /// The sum over `slots` slots, ending `back` slots before the newest.
    fn sum(&self, now: UnixMillis, back: i64, slots: i64, of: impl Fn(&RateSlot) -> u64) -> u64 {
        let newest = now.0.div_euclid(SLOT_MS) - back;
        let wanted = newest - slots + 1..=newest;
        self.slots
            .iter()
            .rev()
            .take_while(|slot| slot.number >= *wanted.start())
            .filter(|slot| wanted.contains(&slot.number))
            .map(of)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::sample;

    #[test]
    fn requests_count_in_the_minute_of_their_start() {
        let live = sample::live();
        let now = sample::NOW;
        let rates = TrafficRates::from_live(&live);

        assert_eq!(rates.requests_per_minute(now), 4);
        assert_eq!(rates.requests_per_minute(UnixMillis(now.0 + 600_000)), 0);
        assert_eq!(rates.request_bars(now, 4).iter().sum::<u64>(), 10);
    }
}
