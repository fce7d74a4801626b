//! Reloads the config of a running proxy.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    base::sanitize,
    cli::serve::{budgets, empty_config, proxy_admin::ProxyAdmin, startup_config},
    config::{
        ProblemSeverity, Settings, discover, file, load,
        problem::{self, Problem},
        settings::Origin,
    },
    control::{admin::ReloadResult, snapshot::ConfigView},
    events::{
        event::EventKind,
        status_message::reload::{ReloadCause, ReloadMessage},
    },
    ir::reason::text_field::Reason,
};

impl ProxyAdmin {
    /// Reads the file and all references again and applies them; an invalid file changes nothing, and
    /// neither does one that became empty or vanished, unless a user asks for it.
    pub async fn reload_config(self: &Arc<Self>, cause: ReloadCause) -> ReloadResult {
        let guard = self.reload_lock.lock().await;
        self.log.reopen_file();
        let reloaded = self.apply_config(cause).await;
        drop(guard);
        reloaded
    }

    async fn apply_config(self: &Arc<Self>, cause: ReloadCause) -> ReloadResult {
        let at = self.engine.clock.unix();
        let text = match file::read_config(&self.paths.config) {
            Ok(text) => text,
            Err(problem) => return self.reject_config(&[problem], ""),
        };
        let is_blank = empty_config::is_blank(text.as_deref());
        if is_blank && !cause.is_request() && self.has_config.load(Ordering::Relaxed) {
            let problem = empty_config::problem(&self.paths.config, text.as_deref());
            return self.reject_config(&[problem], "");
        }
        let loaded = {
            let mut ids = self.ids.lock();
            load::load(text.as_deref().unwrap_or_default(), &self.paths.config, &self.env, &mut ids)
        };
        let Some(settings) = loaded.settings else {
            return self.reject_config(&loaded.problems, text.as_deref().unwrap_or_default());
        };
        // The arguments of `serve` override the file, as at startup.
        let mut settings = match startup_config::apply_arguments(settings, &self.args) {
            Ok(settings) => settings,
            Err(error) => {
                return ReloadResult {
                    ok: false,
                    problems: vec![error.text.clone()],
                    text: ReloadMessage::from_text(error.text.into()).into(),
                    upstreams: 0,
                };
            }
        };
        let before = self.engine.generation();
        let addresses = |settings: &Settings| {
            settings.keyless.iter().map(|row| row.listen.clone()).collect::<Vec<_>>()
        };
        let of_file =
            |settings: &Settings| (settings.ledger.path.clone(), settings.ledger.tz.clone());
        let needs_restart = settings.server.listen != before.settings.server.listen
            || of_file(&settings) != of_file(&before.settings)
            || addresses(&settings) != addresses(&before.settings);
        settings.server.listen.clone_from(&before.settings.server.listen);
        let found = self.discovered.lock().clone();
        let found: Vec<_> = found
            .into_iter()
            .filter(|upstream| upstream.origin != Origin::Env || settings.discover.env)
            .collect();
        let settings = Arc::new(discover::merge_discovered(&settings, &found));
        self.has_config.store(!is_blank, Ordering::Relaxed);
        self.log.set_level(&settings.log.level);
        self.engine.apply_settings(Arc::clone(&settings));
        self.mcp.apply(&settings);
        if let Some(ledger) = &self.ledger {
            ledger.apply_settings(&settings.ledger);
        }
        self.otlp_exporter.set_enabled(settings.otlp.url.is_some());
        budgets::reload_budgets(&self.engine, self.ledger.as_ref()).await;
        {
            let mut view = self.config_view.lock();
            *view = ConfigView {
                path: text.is_some().then(|| self.paths.config.display().to_string()),
                problems: Vec::new(),
                annotated: String::new(),
                warnings: loaded.problems.iter().map(Problem::one_line).collect(),
                applied: at,
                needs_restart,
            };
        }
        self.loader.reload(&settings).await;
        let count =
            settings.upstreams.iter().filter(|upstream| upstream.origin != Origin::Demo).count();
        let text = Arc::new(ReloadMessage::Applied {
            cause,
            upstreams: count,
            projects: settings.projects.len(),
            needs_restart,
        });
        tracing::info!("{text}");
        self.engine.bus.publish(at, EventKind::Config { text: Arc::clone(&text), ok: true });
        ReloadResult { ok: true, problems: Vec::new(), text, upstreams: count }
    }

    fn reject_config(&self, problems: &[Problem], source: &str) -> ReloadResult {
        let errors: Vec<Problem> = problems
            .iter()
            .filter(|problem| problem.level == ProblemSeverity::Error)
            .cloned()
            .collect();
        let texts: Vec<String> = errors.iter().map(Problem::one_line).collect();
        let problem = texts.first().map(|first| sanitize::clean(first).into());
        let text = Arc::new(ReloadMessage::Rejected { problem });
        tracing::error!("{text}");
        self.engine.bus.publish(
            self.engine.clock.unix(),
            EventKind::Config { text: Arc::clone(&text), ok: false },
        );
        let mut view = self.config_view.lock();
        view.problems.clone_from(&texts);
        view.annotated = problem::render(&errors, source, false);
        drop(view);
        ReloadResult { ok: false, problems: texts, text, upstreams: 0 }
    }
}
