//! The models that clients can request: of the running proxy, or of the config and the model lists
//! that the proxy saved.

use std::sync::Arc;

use crate::{
    base::{
        clock::{Clock, SystemClock},
        money::NANOS_PER_UNIT,
        suggest,
    },
    cli::{
        attach::{self, RunningProxy},
        config::edit_file,
        context::CommandContext,
        error::CliError,
        model_facts::{self, TargetFacts},
        output,
    },
    config::settings::{ModelTarget, Project, Settings, Upstream, UpstreamId},
    control::{
        snapshot::{ModelView, Snapshot},
        views,
    },
    ir::cost::{AppliedPrice, PriceClass},
    pricing::PriceBook,
    relay::state::{learned_store::LearnedStore, model_lists::ModelLists},
    routing::{
        catalog::{Catalog, ModelSet},
        listing,
    },
};

/// The models and what is known of their targets.
pub(super) struct ModelCatalog {
    pub(super) settings: Settings,
    /// The state of the running proxy, if one runs.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) models: Vec<ModelView>,
    learned: LearnedStore,
    prices: PriceBook,
}

impl ModelCatalog {
    /// Reads the models. A note says if no proxy is running.
    ///
    /// # Errors
    ///
    /// The config cannot be read, or the running proxy does not answer.
    pub(super) async fn read(ctx: &CommandContext) -> Result<Self, CliError> {
        let settings = edit_file::load(ctx)?.with_discovered();
        let data = ctx.global.paths()?.data;
        let snapshot = match RunningProxy::try_connect(ctx)? {
            Some(proxy) => Some(proxy.snapshot().await?),
            None => {
                output::print_note(&format!(
                    "note: {}, so the models are those of the config and of its last run",
                    attach::not_running_note(ctx).await
                ));
                None
            }
        };
        let prices = PriceBook::new(&settings);
        let mut models = match &snapshot {
            Some(snapshot) => snapshot.models.clone(),
            None => {
                let lists = ModelLists::new(Some(data.join("models.json")), &settings.upstreams);
                saved_models(&settings, &lists, &prices)
            }
        };
        // Patterns are no names to list for clients, but they are set up here.
        for row in configured_models(&settings) {
            match models.iter_mut().find(|known| known.name == row.name) {
                Some(known) if known.targets.is_empty() => known.targets = row.targets,
                Some(_) => {}
                None if ctx.global.url.is_none() => models.push(row),
                None => {}
            }
        }
        let learned = LearnedStore::open(&data, SystemClock.unix());
        Ok(Self { settings, snapshot, models, learned, prices })
    }

    /// Finds a name, or `UPSTREAM:MODEL`.
    ///
    /// # Errors
    ///
    /// No such name; the error names similar ones.
    pub(super) fn find(&self, name: &str) -> Result<ModelView, CliError> {
        let listed = self.models.iter().find(|row| row.name == name).cloned();
        listed
            .or_else(|| self.direct_target(name))
            .ok_or_else(|| unknown_model_error(name, &self.models))
    }

    /// A name of the form `upstream:model` as a target of its own.
    fn direct_target(&self, name: &str) -> Option<ModelView> {
        let price = self.price(name);
        self.upstream(name).map(|_| ModelView {
            name: name.to_owned(),
            kind: "target".to_owned(),
            price: price.and_then(views::price_view),
            targets: vec![name.to_owned()],
        })
    }

    /// The upstream of a target, if the config or the environment has it.
    pub(super) fn upstream(&self, target: &str) -> Option<&Upstream> {
        let (name, _) = split_target(target)?;
        self.settings.upstreams.iter().find(|row| *row.name == *name).map(|row| &**row)
    }

    /// The default price of a target.
    pub(super) fn price(&self, target: &str) -> Option<&AppliedPrice> {
        let (_, model) = split_target(target)?;
        let (_, rule) = self.prices.find(self.upstream(target)?, model, None)?;
        Some(rule.default_price())
    }

    /// Dollars for a million input tokens; zero at a server of this machine without a price.
    pub(super) fn input_dollars(&self, target: &str) -> Option<f64> {
        let Some(price) = self.price(target) else {
            return self.upstream(target).filter(|upstream| upstream.local).map(|_| 0.0);
        };
        let unit = |nanos: i64| nanos as f64 / NANOS_PER_UNIT as f64;
        Some(unit(price.rates.explicit(PriceClass::Input)?) * unit(price.nano_usd_per_unit))
    }

    /// What is known of the models of these targets.
    pub(super) fn facts(&self, targets: &[String]) -> Vec<TargetFacts> {
        model_facts::of_targets(&self.settings, &self.learned.repairs, targets)
    }
}

/// The upstream and the model of `upstream:model`, without a priority and weight after it.
pub(super) fn split_target(target: &str) -> Option<(&str, &str)> {
    target.split(' ').next()?.split_once(':')
}

/// The names that the proxy would list, with the model lists that it saved.
fn saved_models(settings: &Settings, lists: &ModelLists, prices: &PriceBook) -> Vec<ModelView> {
    let everything = Project { name: "owner".into(), admin: true, ..Project::default() };
    let learned = lists.learned();
    let lists = |id: UpstreamId| -> Option<Arc<ModelSet>> { learned.get(&id).cloned() };
    listing::list_names(&Catalog::new(settings), &everything, &lists)
        .into_iter()
        .map(|listed| ModelView {
            name: listed.name.to_string(),
            kind: listed.kind.name().to_owned(),
            price: listed.routes.first().and_then(|route| {
                let (_, rule) = prices.find(&route.upstream, &route.model, None)?;
                views::price_view(rule.default_price())
            }),
            targets: listed.routes.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

/// The error for a name that no row has.
pub(super) fn unknown_model_error(name: &str, rows: &[ModelView]) -> CliError {
    let suggestion = suggest::nearest_few(name, rows.iter().map(|row| row.name.as_str()), 3);
    let suggestion = if suggestion.is_empty() {
        String::new()
    } else {
        format!("similar: {}; ", suggestion.join(", "))
    };
    CliError::failed(format!("no model `{name}`"))
        .hint(format!("{suggestion}`aiproxy model list` shows all"))
}

/// A target as the config states it: `upstream:model priority 1 weight 2`.
pub(super) fn target_text(t: &ModelTarget) -> String {
    let name = t
        .upstream
        .as_ref()
        .map_or_else(|| t.model.to_string(), |upstream| format!("{upstream}:{}", t.model));
    let priority = t.priority.map(|p| format!(" priority {p}")).unwrap_or_default();
    let weight = t.weight.map(|w| format!(" weight {w}")).unwrap_or_default();
    format!("{name}{priority}{weight}")
}

/// The config's aliases and logical models, in its order.
pub(super) fn configured_models(settings: &Settings) -> Vec<ModelView> {
    let models = settings.models.iter().map(|model| ModelView {
        name: model.name.text().to_owned(),
        kind: "logical".to_owned(),
        price: None,
        targets: model.targets.iter().map(target_text).collect(),
    });
    let aliases = settings.aliases.iter().map(|alias| ModelView {
        name: alias.name.text().to_owned(),
        kind: "alias".to_owned(),
        price: None,
        targets: vec![alias.target.to_string()],
    });
    models.chain(aliases).collect()
}
