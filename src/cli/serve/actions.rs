//! Performs the actions that viewers and commands request.

use std::{sync::Arc, time::Duration};

use crate::{
    base::id::RequestId,
    cli::{expose::expose_secret, serve::proxy_admin::ProxyAdmin},
    config::{
        edit::Edit,
        file,
        settings::{Origin, Upstream, UpstreamKey},
    },
    control::{action::Action, action_message::ActionMessage},
    events::{
        event::{EventKind, Severity},
        status_message::{health::HealthMessage, reload::ReloadCause},
    },
    ir::reason::span::Span,
    routing::health::Scope,
};

/// The duration of `cool` if none is given.
const DEFAULT_COOLDOWN: Duration = Duration::from_secs(600);

impl ProxyAdmin {
    pub(super) async fn execute(
        self: Arc<Self>,
        action: Action,
    ) -> Result<ActionMessage, ActionMessage> {
        let engine = &self.engine;
        match action {
            Action::ClientKey { project } => match self.loader.client_secret(&project) {
                Ok(secret) => Ok(ActionMessage::text(expose_secret(&secret))),
                Err(why) => Err(ActionMessage::text(why)),
            },
            Action::Cool { key, model, for_ms } => {
                let (_, found) = self.find_key(&key)?;
                Ok(self.cool(&key_scope(&found, model.as_deref()), &found.name, for_ms))
            }
            Action::CoolUpstream { upstream, for_ms } => {
                let found = self.find_upstream(&upstream)?;
                Ok(self.cool(&Scope::Upstream(found.id), &found.name, for_ms))
            }
            Action::Warm { key: None, .. } => {
                engine.network.reset();
                Ok(self.warm(&Scope::All, None))
            }
            Action::Warm { key: Some(key), model } => {
                let (_, found) = self.find_key(&key)?;
                Ok(self.warm(&key_scope(&found, model.as_deref()), Some(&found.name)))
            }
            Action::WarmUpstream { upstream } => {
                let found = self.find_upstream(&upstream)?;
                Ok(self.warm(&Scope::Upstream(found.id), Some(&found.name)))
            }
            Action::EnableKey { key } => self.set_key_enabled(&key, true).await,
            Action::DisableKey { key } => self.set_key_enabled(&key, false).await,
            Action::EnableUpstream { upstream } => self.set_upstream_enabled(&upstream, true).await,
            Action::DisableUpstream { upstream } => {
                self.set_upstream_enabled(&upstream, false).await
            }
            Action::Test { key } => {
                let (upstream, found) = self.find_key(&key)?;
                self.loader.check_key(&upstream, &found).await?;
                Ok(ActionMessage::KeyWorks { name: Arc::clone(&found.name) })
            }
            Action::Forget { models } => {
                let models = engine.learned.forget(&models, engine.clock.unix());
                Ok(ActionMessage::Forgotten { models })
            }
            Action::Reload => {
                let reloaded = self.reload_config(ReloadCause::Requested).await;
                if reloaded.ok {
                    Ok(ActionMessage::Reload { result: reloaded.text })
                } else {
                    Err(ActionMessage::text(reloaded.problems.join("\n")))
                }
            }
            Action::Kill { id } => {
                let id = engine
                    .bus
                    .view(|live| live.find(&id).map(|record| record.id))
                    .or_else(|| RequestId::parse(&id))
                    .ok_or(ActionMessage::UnknownRequest)?;
                if engine.cancellations.cancel(id) {
                    Ok(ActionMessage::Aborted { id })
                } else {
                    Err(ActionMessage::NotRunning { id })
                }
            }
            Action::Replay { id, model } => {
                let (original, id) = self.replay(&id, model).await?;
                Ok(ActionMessage::SentAgain { original, id })
            }
            Action::TestAlerts => self.alert_dispatcher.send_test().await,
            Action::Stop { now } => {
                if now {
                    self.stop_now.cancel();
                }
                self.stop.cancel();
                Ok(ActionMessage::Stopping)
            }
        }
    }

    /// Cools a key or an upstream for a time that the user chose.
    fn cool(&self, scope: &Scope, name: &Arc<str>, for_ms: Option<u64>) -> ActionMessage {
        let span = for_ms.map_or(DEFAULT_COOLDOWN, Duration::from_millis);
        self.engine.router.cool(scope, span, self.engine.clock.mono());
        let name = Arc::clone(name);
        self.publish_health(HealthMessage::CooledByUser { name, span: Span(span) })
    }

    /// Ends the cooldowns of a scope; without a name, of all keys.
    fn warm(&self, scope: &Scope, name: Option<&Arc<str>>) -> ActionMessage {
        self.engine.router.warm(scope);
        self.publish_health(HealthMessage::Warmed { name: name.cloned() })
    }

    /// Publishes a change that a user made.
    fn publish_health(&self, change: HealthMessage) -> ActionMessage {
        let subject = change.subject();
        let change = Arc::new(change);
        let (text, level) = (Arc::clone(&change), Severity::Info);
        let event = EventKind::Health { subject, text, level };
        self.engine.bus.publish(self.engine.clock.unix(), event);
        self.engine.notify_waiters();
        ActionMessage::Health { change }
    }

    /// Finds a key by `upstream/label`, or by its upstream if that has one key.
    fn find_key(&self, name: &str) -> Result<(Arc<Upstream>, Arc<UpstreamKey>), ActionMessage> {
        let settings = Arc::clone(&self.engine.generation().settings);
        let all = || {
            settings
                .upstreams
                .iter()
                .flat_map(|upstream| upstream.keys.iter().map(move |key| (upstream, key)))
        };
        if let Some((upstream, key)) = all().find(|(_, key)| *key.name == *name) {
            return Ok((Arc::clone(upstream), Arc::clone(key)));
        }
        let of_upstream: Vec<_> = all().filter(|(upstream, _)| *upstream.name == *name).collect();
        match of_upstream.as_slice() {
            [(upstream, key)] => Ok((Arc::clone(upstream), Arc::clone(key))),
            [] => Err(ActionMessage::UnknownKey { name: name.into() }),
            keys => Err(ActionMessage::SeveralKeys {
                name: name.into(),
                keys: keys.iter().map(|(_, key)| Arc::clone(&key.name)).collect(),
            }),
        }
    }

    fn find_upstream(&self, name: &str) -> Result<Arc<Upstream>, ActionMessage> {
        let settings = Arc::clone(&self.engine.generation().settings);
        let found = settings.upstreams.iter().find(|upstream| *upstream.name == *name).cloned();
        found.ok_or_else(|| ActionMessage::UnknownUpstream { name: name.into() })
    }

    async fn set_key_enabled(
        self: &Arc<Self>,
        name: &str,
        enabled: bool,
    ) -> Result<ActionMessage, ActionMessage> {
        let (upstream, key) = self.find_key(name)?;
        ensure_in_file(&upstream)?;
        let edit = Edit::SetKeyEnabled {
            upstream: upstream.name.to_string(),
            label: key.label.to_string(),
            enabled,
        };
        self.switch(edit, &key.name, enabled).await
    }

    async fn set_upstream_enabled(
        self: &Arc<Self>,
        name: &str,
        enabled: bool,
    ) -> Result<ActionMessage, ActionMessage> {
        let upstream = self.find_upstream(name)?;
        ensure_in_file(&upstream)?;
        let edit = Edit::SetUpstreamEnabled { name: upstream.name.to_string(), enabled };
        self.switch(edit, &upstream.name, enabled).await
    }

    /// Enables or disables a key or an upstream by an edit of the config file.
    async fn switch(
        self: &Arc<Self>,
        edit: Edit,
        name: &Arc<str>,
        enabled: bool,
    ) -> Result<ActionMessage, ActionMessage> {
        file::edit_config(&self.paths.config, &self.env, &[edit])
            .map_err(|error| ActionMessage::text(error.to_string()))?;
        let name = Arc::clone(name);
        let cause = ReloadCause::Switched { name: Arc::clone(&name), enabled };
        let reloaded = self.reload_config(cause).await;
        match reloaded.ok {
            true => Ok(ActionMessage::Switched { name, enabled }),
            false => Err(ActionMessage::Reload { result: reloaded.text }),
        }
    }
}

/// The scope of a key, or of one model with this key.
fn key_scope(key: &UpstreamKey, model: Option<&str>) -> Scope {
    model.map_or(Scope::Key(key.id), |model| Scope::KeyModel(key.id, model.into()))
}

fn ensure_in_file(upstream: &Upstream) -> Result<(), ActionMessage> {
    match upstream.origin {
        Origin::File => Ok(()),
        Origin::Demo => Err(ActionMessage::BuiltIn),
        Origin::Env | Origin::Local => {
            Err(ActionMessage::NotInFile { name: Arc::clone(&upstream.name) })
        }
    }
}
