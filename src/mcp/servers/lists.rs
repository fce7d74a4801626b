//! The lists of one server: kept until it says that they changed.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, Shared};

use crate::{
    base::{clock::Mono, json::raw::RawJson, sync::Mutex},
    mcp::servers::start_fault::StartFault,
};

/// A list is read again after this time at the latest.
pub const MAX_AGE: Duration = Duration::from_secs(300);

/// What a server lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    Prompts,
    Resources,
    Templates,
    Tools,
}

impl ListKind {
    pub const ALL: [Self; 4] = [Self::Prompts, Self::Resources, Self::Templates, Self::Tools];

    /// Returns the method that asks for it.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
            Self::Tools => "tools/list",
        }
    }

    /// Returns the member of the result.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Tools => "tools",
        }
    }

    /// Returns the capability that a server with such a list has.
    #[must_use]
    pub fn capability(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
            Self::Tools => "tools",
        }
    }

    #[must_use]
    pub fn of_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.method() == method)
    }
}

/// The items of a list, as the server wrote them.
pub type ListItems = Arc<Vec<RawJson>>;

/// A list that is being read; several may wait for it.
pub type ListLoading = Shared<BoxFuture<'static, Result<ListItems, StartFault>>>;

#[derive(Default)]
struct Slot {
    /// The newest list, which is also kept while the server is down.
    known: Option<ListItems>,
    loaded: Option<Mono>,
    loading: Option<ListLoading>,
    /// Counts the changes; a reading that began before the last one is not kept as valid.
    changes: u64,
}

/// The lists of one server.
#[derive(Default)]
pub struct ListCache([Mutex<Slot>; 4]);

impl ListCache {
    fn slot(&self, kind: ListKind) -> &Mutex<Slot> {
        &self.0[kind as usize]
    }

    /// Returns the list if it is still valid.
    #[must_use]
    pub fn fresh(&self, kind: ListKind, now: Mono) -> Option<ListItems> {
        let slot = self.slot(kind).lock();
        let is_fresh = slot.loaded.is_some_and(|loaded| now.since(loaded) < MAX_AGE);
        slot.known.clone().filter(|_| is_fresh)
    }

    /// Returns the newest list, valid or not.
    #[must_use]
    pub fn known(&self, kind: ListKind) -> Option<ListItems> {
        self.slot(kind).lock().known.clone()
    }

    /// Returns the reading in progress, or begins one. The second value says whether it began.
    pub fn loading(
        &self,
        kind: ListKind,
        begin: impl FnOnce(u64) -> ListLoading,
    ) -> (ListLoading, bool) {
        let mut slot = self.slot(kind).lock();
        match &slot.loading {
            Some(loading) => (loading.clone(), false),
            None => {
                let loading = begin(slot.changes);
                (slot.loading.insert(loading).clone(), true)
            }
        }
    }

    /// Stores the result of a reading that began after `changes` changes.
    pub fn loaded(
        &self,
        kind: ListKind,
        changes: u64,
        result: Result<&ListItems, &StartFault>,
        now: Mono,
    ) {
        let mut slot = self.slot(kind).lock();
        let is_current = slot.changes == changes;
        if is_current {
            slot.loading = None;
        }
        if let Ok(items) = result {
            slot.known = Some(Arc::clone(items));
            slot.loaded = is_current.then_some(now);
        }
    }

    /// Marks a list as changed.
    pub fn expire(&self, method: &str) {
        for kind in ListKind::ALL.into_iter().filter(|kind| {
            kind.method() == method || (method == "resources/list" && *kind == ListKind::Templates)
        }) {
            let mut slot = self.slot(kind).lock();
            slot.loaded = None;
            slot.changes += 1;
            // A reading that began before the change may miss it.
            slot.loading = None;
        }
    }
}
