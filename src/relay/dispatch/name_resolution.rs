//! Resolves a request's model name to targets, and restricts them to what the request asks for.

use std::{sync::Arc, time::Duration};

use http::Method;
use tokio::time::Instant;

use crate::relay::{
    attempt::{ownership, parse_request, repair, result::FailureSource},
    context::RequestContext,
    dispatch::endpoint_choice::choose_endpoints,
    dispatch::final_error::LastFailure,
    engine::{Engine, Generation},
    heavy_work,
    request::{
        parsed,
        proxy_request::{ModelLocation, ProxyRequest},
    },
    state::{
        resource_owners::{Ownership, ResourceOwner},
        response_store::{self, StoredAt},
    },
};
use crate::{
    base::sanitize,
    config::settings::{Origin, Strategy, Upstream},
    ir::{
        fault::{FaultKind, ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
        reason::route::NameSource,
    },
    routing::{
        candidate::Target,
        name_resolver::{ModelOverrides, OnUnknownList},
        resolve::{self, NameError, ResolvedModel},
    },
};

/// How long a request waits for model lists that were never learned.
const LIST_WAIT: Duration = Duration::from_secs(5);
/// Resolves names to targets; waits for model lists that were never learned.
pub(super) async fn resolve_targets(
    context: &mut RequestContext,
) -> Result<ResolvedModel, ProxyError> {
    let (engine, generation) = (Arc::clone(&context.engine), Arc::clone(&context.generation));
    match &context.request.endpoint.model {
        ModelLocation::Upstream(name) => {
            let name = name.clone();
            return resolve_raw(context, &name).map_err(|e| *e);
        }
        ModelLocation::AnyUpstream => return resolve_any(context).map_err(|e| *e),
        ModelLocation::Body | ModelLocation::Path(_) => {}
    }
    let model = Arc::clone(&context.request.requested_model);
    let preferences = context.request.preferences.take();
    let mut resolved = resolve_name(context, &engine, &generation, &model).await;
    if let Some(preferences) = &preferences {
        let price = |target: &Target| engine.price(&target.upstream, &target.model);
        if let Ok(first) = &mut resolved {
            preferences.apply(&mut first.targets, 0, &price);
        }
        for (nth, name) in
            preferences.fallback_models.iter().filter(|name| **name != *model).enumerate()
        {
            let Ok(mut more) = resolve_name(context, &engine, &generation, name).await else {
                continue;
            };
            preferences.apply(&mut more.targets, nth + 1, &price);
            match &mut resolved {
                Ok(first) => first.targets.extend(more.targets),
                Err(_) => resolved = Ok(more),
            }
        }
        context.request.strict |= preferences.require_parameters;
    }
    let mut resolved = match resolved {
        Ok(resolved) => resolved,
        Err(e) => {
            context.no_upstream_dialect = matches!(e, NameError::UnsupportedDialect { .. });
            return Err(name_error(&e));
        }
    };
    if let Some(preferences) = preferences {
        resolved.strategy = preferences.strategy().unwrap_or(resolved.strategy);
        if resolved.targets.is_empty() {
            let message = format!(
                "no upstream that serves `{model}` matches the request's `provider` preferences"
            );
            return Err(ProxyError::new(ProxyErrorKind::ModelNotFound, sanitize::clean(&message))
                .param("provider"));
        }
    }
    if let Some(pin) = &context.request.pinned_upstream {
        if !generation.settings.upstreams.iter().any(|upstream| *upstream.name == **pin) {
            return Err(no_such_upstream(pin));
        }
        resolved.targets.retain(|target| *target.upstream.name == **pin);
        if resolved.targets.is_empty() {
            let message = format!(
                "`x-aiproxy-upstream` pins this request to `{pin}`, which does not serve `{}`",
                context.request.requested_model
            );
            return Err(ProxyError::new(ProxyErrorKind::ModelNotFound, sanitize::clean(&message)));
        }
    }
    restrict_to_owner(context, &mut resolved.targets)?;
    if resolved.overrides.rescue
        && can_resume(&context.request)
        && context.request.endpoint.dialect == Dialect::Responses
    {
        // The events are numbered and the items have ids throughout, so one writer has to write
        // them all.
        context.request.must_rewrite = true;
    }
    if context.request.owner.is_none() {
        choose_endpoints(context, &mut resolved.targets);
    }
    if engine.learned.repairs.version() > 0
        && resolved.targets.iter().any(|target| repair::needs_rewrite(context, target))
    {
        context.request.must_rewrite = true;
    }
    let place = heavy_work::place_for(context.request.body.len()).await;
    parse_request::parse_for_targets(context, &mut resolved.targets)?;
    drop(place);
    context.overrides = std::mem::take(&mut resolved.overrides);
    Ok(resolved)
}

/// Returns whether another target could continue a stream that breaks off.
pub(super) fn can_resume(request: &ProxyRequest) -> bool {
    request.stream && request.endpoint.op == Op::Chat && request.owner.is_none()
}

/// Resolves one name to its targets, without its suffix if the suffix selects a strategy.
async fn resolve_name(
    context: &RequestContext,
    engine: &Engine,
    generation: &Generation,
    model: &str,
) -> Result<ResolvedModel, NameError> {
    let project = &context.request.caller.project;
    let deadline = Instant::now() + LIST_WAIT;
    let mut on_unknown = OnUnknownList::Wait;
    loop {
        let learned = engine.model_lists.learned();
        let learned = |id| learned.get(&id).cloned();
        let (name, strategy) = match resolve::strategy_suffix(&generation.catalog, model, &learned)
        {
            Some((name, strategy)) => (name, Some(strategy)),
            None => (model, None),
        };
        let (dialect, translates) =
            (context.request.endpoint.dialect, parsed::is_translatable(&context.request));
        match resolve::resolve(
            &generation.catalog,
            name,
            dialect,
            translates,
            project,
            &learned,
            on_unknown,
        ) {
            Ok(mut resolved) => {
                resolved.strategy = strategy.unwrap_or(resolved.strategy);
                return Ok(resolved);
            }
            Err(NameError::ListUnknown { upstreams, .. }) if on_unknown == OnUnknownList::Wait => {
                if !engine.model_lists.wait_until_known(&upstreams, deadline).await {
                    on_unknown = OnUnknownList::Assume;
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// Restricts the targets to the owner of the previous response: aiproxy or one upstream.
fn restrict_to_owner(
    context: &mut RequestContext,
    targets: &mut Vec<Arc<Target>>,
) -> Result<(), ProxyError> {
    let Some(id) = &context.request.previous_response_id else { return Ok(()) };
    let project = &context.request.caller.project.name;
    match ownership::find_response(&context.engine, project, id) {
        Some(StoredAt::Local { .. }) => context.request.must_rewrite = true,
        Some(StoredAt::Upstream { upstream, key }) => {
            targets.retain(|target| {
                target.upstream.id == upstream && target.dialect == Dialect::Responses
            });
            if targets.is_empty() {
                return Err(response_store::unknown_response(id));
            }
            context.request.owner = Some((upstream, key));
        }
        // It may belong to another project if there are several. A single one, with or without the
        // project of this machine's user, continues what its provider stored without aiproxy.
        None => {
            let is_single = context.generation.settings.configured_projects <= 1;
            targets.retain(|target| is_single && target.dialect == Dialect::Responses);
            if targets.is_empty() {
                return Err(response_store::unknown_response(id));
            }
        }
    }
    Ok(())
}

/// Returns the target of `/u/UPSTREAM/…`.
fn resolve_raw(context: &mut RequestContext, name: &str) -> Result<ResolvedModel, Box<ProxyError>> {
    let upstream =
        context.generation.settings.upstreams.iter().find(|upstream| *upstream.name == *name);
    let project = &context.request.caller.project;
    let Some(upstream) = upstream.filter(|upstream| project.upstreams.matches(&upstream.name))
    else {
        return Err(Box::new(no_such_upstream(name)));
    };
    refuse_unknown_model(context)?;
    let upstream = Arc::clone(upstream);
    if let Some(owner) = own_resource(context)?.filter(|owner| *owner.upstream == *upstream.name) {
        context.request.owner = ownership::ids_of(&context.engine, &owner);
    }
    let dialect = match context.request.endpoint.op {
        Op::Stored => Dialect::Responses,
        _ => upstream.endpoints.first().map_or(Dialect::Openai, |end| end.dialect),
    };
    Ok(target_without_model(&upstream, dialect))
}

/// Returns who created what a request names, if that was its own project; an error if it was
/// another one.
fn own_resource(context: &RequestContext) -> Result<Option<ResourceOwner>, Box<ProxyError>> {
    match ownership::of_request(context) {
        Ownership::Unknown => Ok(None),
        Ownership::Own(owner) => Ok(Some(owner)),
        Ownership::Foreign(id) => {
            let id = sanitize::clean(&id);
            let message = format!("`{}` was not found", sanitize::truncate_end(&id, 80));
            Err(Box::new(ProxyError::new(ProxyErrorKind::UnknownPath, message).code("not_found")))
        }
    }
}

/// Returns the target of what belongs to an upstream rather than to a model: the upstream that the
/// client pins, or that has what the request names, or else the first of the dialect.
fn resolve_any(context: &mut RequestContext) -> Result<ResolvedModel, Box<ProxyError>> {
    refuse_unknown_model(context)?;
    let owner = own_resource(context)?;
    let owner = owner.filter(|owner| {
        context.request.pinned_upstream.as_ref().is_none_or(|pin| **pin == *owner.upstream)
    });
    if let Some(owner) = &owner {
        context.request.owner = ownership::ids_of(&context.engine, owner);
    }
    let owner = context.request.owner.map(|(upstream, _)| upstream);
    let request = &context.request;
    let dialect = match request.endpoint.dialect {
        Dialect::Openai if request.headers.contains_key("anthropic-version") => Dialect::Anthropic,
        dialect => dialect,
    };
    let serves = |upstream: &&Arc<Upstream>| {
        request.caller.project.upstreams.matches(&upstream.name)
            && request.pinned_upstream.as_deref().is_none_or(|pin| *upstream.name == *pin)
            && owner.is_none_or(|owner| upstream.id == owner)
            && upstream.endpoints.iter().any(|end| end.dialect == dialect)
            && upstream.enabled
            && upstream.origin != Origin::Demo
    };
    let found = context.generation.settings.upstreams.iter().filter(serves);
    match found.min_by_key(|upstream| upstream.priority) {
        Some(upstream) => Ok(target_without_model(upstream, dialect)),
        None => {
            let message = match &request.pinned_upstream {
                Some(pin) => format!(
                    "`x-aiproxy-upstream` names `{}`, which does not speak the {dialect} API",
                    sanitize::clean(pin)
                ),
                None => format!(
                    "no upstream speaks the {dialect} API, which this path belongs to; `aiproxy upstream list` shows all"
                ),
            };
            Err(Box::new(ProxyError::new(ProxyErrorKind::UnknownPath, message)))
        }
    }
}

fn no_such_upstream(name: &str) -> ProxyError {
    let message = format!(
        "no upstream is named `{}`; `aiproxy upstream list` shows all",
        sanitize::clean(name)
    );
    ProxyError::new(ProxyErrorKind::UnknownPath, message)
}

/// Refuses a project that may use only some models: which one such a request uses is unknown.
fn refuse_unknown_model(context: &RequestContext) -> Result<(), Box<ProxyError>> {
    let request = &context.request;
    let project = &request.caller.project;
    let only_lists = request.method == Method::GET && request.endpoint.path.ends_with("/models");
    if project.models.is_any() || only_lists || request.endpoint.op == Op::Stored {
        return Ok(());
    }
    let message = format!(
        "project `{}` may use only some models, and this path does not tell which one it uses",
        project.name
    );
    Err(Box::new(ProxyError::new(ProxyErrorKind::Forbidden, message)))
}

fn target_without_model(upstream: &Arc<Upstream>, dialect: Dialect) -> ResolvedModel {
    let target = Target {
        upstream: Arc::clone(upstream),
        model: Arc::from(""),
        dialect,
        priority: upstream.priority,
        weight: upstream.weight,
    };
    ResolvedModel {
        targets: vec![Arc::new(target)],
        strategy: Strategy::Priority,
        overrides: ModelOverrides::default(),
        via: NameSource::Path.into(),
        unsupported: Vec::new(),
        is_guess: false,
    }
}

/// Turns the failure of upstreams whose model lists are unknown into a 404 if there is a similar name:
/// they were only assumed to serve this one, and more likely than not it was mistyped.
pub(super) fn suggest_names(
    context: &RequestContext,
    resolved: &ResolvedModel,
    last: Option<&LastFailure>,
    error: ProxyError,
) -> ProxyError {
    let failed = last.is_none_or(|last| match &last.failure.source {
        FailureSource::Transport(_) => true,
        FailureSource::Upstream { fault, .. } => {
            matches!(fault.kind, FaultKind::Server | FaultKind::Transient)
        }
    });
    let learned = context.engine.model_lists.learned();
    // An upstream with `models` serves what matches, whatever its list says.
    let has_no_list = |target: &Arc<Target>| {
        target.upstream.models.is_none() && !learned.contains_key(&target.upstream.id)
    };
    if !resolved.is_guess || !failed || !resolved.targets.iter().all(has_no_list) {
        return error;
    }
    let similar = resolve::similar_names(
        &context.generation.catalog,
        &context.request.requested_model,
        &context.request.caller.project,
        &|id| learned.get(&id).cloned(),
    );
    let requested = context.request.requested_model.to_string();
    // The list may have been learned in the meantime, and the name with it.
    if similar.is_empty() || similar.contains(&requested) {
        return error;
    }
    let unknown = NameError::Unknown { requested, alias_of: None, similar };
    let mut not_found = name_error(&unknown);
    not_found.message = format!("{} ({})", not_found.message, error.message);
    not_found
}

fn name_error(error: &NameError) -> ProxyError {
    let text = format!("{}; {}", error.text(), error.hint());
    match error {
        NameError::Unknown { .. } | NameError::ListUnknown { .. } => {
            ProxyError::new(ProxyErrorKind::ModelNotFound, text).param("model")
        }
        NameError::NotAllowed { .. } => ProxyError::new(ProxyErrorKind::Forbidden, text)
            .code("model_not_allowed")
            .param("model"),
        NameError::UnsupportedDialect { .. } => {
            ProxyError::new(ProxyErrorKind::ModelNotFound, text).param("model")
        }
    }
}
