//! Reads the lists of a server.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::{
    base::json::raw::RawJson,
    mcp::{
        servers::lists::{ListItems, ListKind},
        servers::start_fault::StartFault,
        wire::calls::CallFault,
    },
};

use super::Instance;

/// Pages and items of one list.
const MAX_PAGES: usize = 1_000;

const MAX_ITEMS: usize = 100_000;

impl Instance {
    /// Returns a list of the server, from the cache if it is valid.
    ///
    /// # Errors
    ///
    /// The server cannot be used, or does not answer.
    pub async fn list(self: &Arc<Self>, kind: ListKind) -> Result<ListItems, StartFault> {
        if let Some(items) = self.lists.fresh(kind, self.parts.clock.mono()) {
            return Ok(items);
        }
        let instance = Arc::clone(self);
        let (loading, began) = self.lists.loading(kind, |changes| {
            async move {
                let result = instance.load(kind).await;
                let now = instance.parts.clock.mono();
                instance.lists.loaded(kind, changes, result.as_ref(), now);
                result
            }
            .boxed()
            .shared()
        });
        if began {
            self.parts.tracker.spawn(loading.clone().map(drop));
        }
        loading.await
    }

    pub(super) async fn load(self: &Arc<Self>, kind: ListKind) -> Result<ListItems, StartFault> {
        let peer = self.peer().await?;
        if !peer.agreement.has(&[kind.capability()]) {
            return Ok(Arc::default());
        }
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..MAX_PAGES {
            let params = cursor.as_deref().map(|cursor| {
                RawJson::object(|o| {
                    o.str("cursor", cursor);
                })
            });
            let page = match peer.ask(kind.method(), params, self.row.timeout).await {
                Ok(page) => page,
                Err(CallFault::Rpc(error))
                    if error.code == crate::mcp::message::METHOD_NOT_FOUND =>
                {
                    break;
                }
                Err(fault) => {
                    if matches!(fault, CallFault::SessionLost) {
                        self.drop_peer(&peer);
                    }
                    return Err(StartFault::from_call(&self.row.name, &fault));
                }
            };
            let listed = page.json().get(kind.key());
            let listed = listed.into_iter().flat_map(|list| list.items());
            items.extend(listed.filter(|item| self.offers(kind, item)).map(RawJson::from_json));
            let next = page.json().non_empty_at("nextCursor");
            if next.is_none() || next == cursor || items.len() > MAX_ITEMS {
                break;
            }
            cursor = next;
        }
        self.touch();
        Ok(Arc::new(items))
    }

    pub(super) fn offers(
        &self,
        kind: ListKind,
        item: &crate::base::json::reader::JsonRef<'_>,
    ) -> bool {
        kind != ListKind::Tools
            || item.string_at("name").is_some_and(|name| self.row.tools.matches(&name))
    }
}
