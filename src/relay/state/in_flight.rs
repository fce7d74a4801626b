//! The requests in flight, of which no project may take all while others want some.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::config::{Settings, settings::Project};

/// Connections that requests leave free for the control API.
const RESERVED_CONNECTIONS: usize = 8;
/// The last part of all places is for projects that have less than their share.
const RESERVED_PART: usize = 4;

/// Counts the requests in flight, in all and by project.
#[derive(Debug, Default)]
pub struct InFlight {
    total: AtomicUsize,
    /// Projects with at least one request in flight.
    active_projects: AtomicUsize,
    /// Projects that places are left for.
    expected_projects: AtomicUsize,
    /// A counter for each project of the settings; replaced by a reload, which keeps the counters.
    by_project: ArcSwap<HashMap<Arc<str>, Arc<ProjectCount>>>,
}

/// The requests of one project.
#[derive(Debug, Default)]
struct ProjectCount {
    in_flight: AtomicUsize,
    /// Whether places are left for it: it is in the file, or has sent a request. The project of
    /// this machine's user is always there, and often not used.
    is_expected: AtomicBool,
}

/// A request's place; freed when dropped.
pub struct InFlightPermit {
    all: Arc<InFlight>,
    project: Option<Arc<ProjectCount>>,
}

/// Why no place is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken.
    Full,
    /// The project has its share, and what is left is for others.
    ShareTaken,
}

/// The numbers that a decision depends on, before the request is counted.
#[derive(Clone, Copy, Debug)]
struct Load {
    total: usize,
    of_project: usize,
    /// Projects with requests in flight, this one included.
    active_projects: usize,
    /// Projects that could have some.
    expected_projects: usize,
    max: usize,
}

impl Load {
    /// Whether a request may start. A project may take more than its share as long as a part of
    /// the places is free for the others.
    fn check(self) -> Result<(), NoPlace> {
        if self.total >= self.max {
            return Err(NoPlace::Full);
        }
        let reserved = if self.expected_projects > 1 { self.max / RESERVED_PART } else { 0 };
        let share = (self.max / self.active_projects.max(1)).max(1);
        if self.of_project < share && self.of_project < self.max - reserved
            || self.total < self.max - reserved
        {
            Ok(())
        } else {
            Err(NoPlace::ShareTaken)
        }
    }
}

/// Returns how many requests may be in flight: some connections are left for the control API.
#[must_use]
pub fn max_in_flight(max_requests: usize, max_connections: usize) -> usize {
    max_requests.min(max_connections.saturating_sub(RESERVED_CONNECTIONS)).max(1)
}

impl InFlight {
    /// Counts the projects of these settings; the requests of others count for none.
    pub(in crate::relay) fn apply_settings(&self, settings: &Settings) {
        let before = self.by_project.load();
        let implied = settings.projects.len().saturating_sub(settings.configured_projects);
        let counter = |(index, project): (usize, &Arc<Project>)| {
            let counter: Arc<ProjectCount> =
                before.get(&project.name).map(Arc::clone).unwrap_or_default();
            if index >= implied {
                counter.is_expected.store(true, Ordering::Relaxed);
            }
            (Arc::clone(&project.name), counter)
        };
        let counters: HashMap<_, _> = settings.projects.iter().enumerate().map(counter).collect();
        let expected = counters.values().filter(|it| it.is_expected.load(Ordering::Relaxed));
        self.expected_projects.store(expected.count(), Ordering::Relaxed);
        self.by_project.store(Arc::new(counters));
    }

    /// Returns the number of requests in flight.
    pub(in crate::relay) fn len(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Takes a place for a request of a project, if it may have one of `max`.
    ///
    /// # Errors
    ///
    /// All places are taken, or all that the project may have.
    pub(in crate::relay) fn try_acquire(
        self: &Arc<Self>,
        project: &str,
        max: usize,
    ) -> Result<InFlightPermit, NoPlace> {
        let by_project = self.by_project.load();
        let counter = by_project.get(project).map(Arc::clone);
        let mut of_project = 0;
        if let Some(counter) = &counter {
            of_project = counter.in_flight.fetch_add(1, Ordering::Relaxed);
            if of_project == 0 {
                self.active_projects.fetch_add(1, Ordering::Relaxed);
                if !counter.is_expected.swap(true, Ordering::Relaxed) {
                    self.expected_projects.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        // Frees what was taken if there is no place.
        let permit = InFlightPermit { all: Arc::clone(self), project: counter };
        let load = Load {
            total,
            of_project,
            active_projects: self.active_projects.load(Ordering::Relaxed),
            expected_projects: self.expected_projects.load(Ordering::Relaxed),
            max,
        };
        load.check().map(|()| permit)
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.all.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(project) = &self.project
            && project.in_flight.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.all.active_projects.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(total: usize, of_project: usize, active_projects: usize) -> Load {
        Load { total, of_project, active_projects, expected_projects: 3, max: 100 }
    }

    #[test]
    fn one_project_cannot_take_all_slots() {
        assert_eq!(load(74, 74, 1).check(), Ok(()));
        assert_eq!(load(75, 75, 1).check(), Err(NoPlace::ShareTaken));
        let alone = Load { expected_projects: 1, ..load(99, 99, 1) };
        assert_eq!(alone.check(), Ok(()), "there is nobody to leave places for");
        assert_eq!(load(75, 0, 2).check(), Ok(()));
        assert_eq!(load(99, 24, 2).check(), Ok(()));
        assert_eq!(load(100, 0, 2).check(), Err(NoPlace::Full));
        assert_eq!(load(90, 50, 2).check(), Err(NoPlace::ShareTaken));
        assert_eq!(load(90, 33, 3).check(), Err(NoPlace::ShareTaken));
        assert_eq!(load(90, 32, 3).check(), Ok(()));
    }

    #[test]
    fn slots_are_released_and_counted_per_project() {
        let all = Arc::new(InFlight::default());
        let names: [Arc<str>; 2] = ["a".into(), "b".into()];
        let counters = names.iter().map(|name| (Arc::clone(name), Arc::default())).collect();
        all.by_project.store(Arc::new(counters));
        all.expected_projects.store(2, Ordering::Relaxed);
        let of_a: Vec<_> = (0..6).map_while(|_| all.try_acquire("a", 8).ok()).collect();
        assert_eq!((of_a.len(), all.len()), (6, 6));
        assert_eq!(all.try_acquire("a", 8).err(), Some(NoPlace::ShareTaken));
        let of_b: Vec<_> = (0..6).map_while(|_| all.try_acquire("b", 8).ok()).collect();
        assert_eq!(of_b.len(), 2);
        assert_eq!(all.try_acquire("b", 8).err(), Some(NoPlace::Full));
        drop((of_a, of_b));
        assert_eq!((all.len(), all.active_projects.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn some_connections_are_reserved_for_the_control_api() {
        assert_eq!(max_in_flight(512, 1_024), 512);
        assert_eq!(max_in_flight(512, 100), 92);
        assert_eq!(max_in_flight(1, 1), 1);
    }

    #[test]
    fn slots_are_reserved_for_the_local_project_after_first_use() {
        let named = |name: &str| Arc::new(Project { name: name.into(), ..Project::default() });
        let settings = Settings {
            projects: vec![named("default"), named("a")],
            configured_projects: 1,
            ..Settings::default()
        };
        let all = Arc::new(InFlight::default());
        let places_of_a =
            || (0..9).map_while(|_| all.try_acquire("a", 8).ok()).collect::<Vec<_>>().len();
        all.apply_settings(&settings);
        assert_eq!(places_of_a(), 8);
        drop(all.try_acquire("default", 8));
        assert_eq!(places_of_a(), 6);
        all.apply_settings(&settings);
        assert_eq!(places_of_a(), 6, "a reload does not forget it");
    }
}
