//! Lists upstreams and provider presets.

use serde_json::{Value, json};

use crate::{
    base::clock::{Clock, SystemClock},
    cli::{
        attach::RunningProxy,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        output::{
            self, Styler, TextRole,
            table::{TableCell, TextTable},
        },
        status,
    },
    config::{
        presets,
        settings::{Settings, Upstream},
    },
};

/// Lists the running proxy's upstreams, or those of the config and the environment.
pub(super) async fn run(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    if let Some(proxy) = RunningProxy::try_connect(ctx)? {
        let upstreams = proxy.snapshot().await?.upstreams;
        if ctx.global.json {
            output::print_json(&upstreams.iter().map(status::upstream_json).collect::<Vec<_>>())?;
        } else {
            output::print(&status::upstreams_table(
                &upstreams,
                SystemClock.unix(),
                Styler::stdout(),
            ))?;
        }
        return Ok(ExitStatus::Ok);
    }
    let settings = edit_file::load(ctx)?.with_discovered();
    if ctx.global.json {
        output::print_json(
            &settings.upstreams.iter().map(|u| configured_json(u)).collect::<Vec<_>>(),
        )?;
    } else if settings.upstreams.is_empty() {
        output::print_line(
            "no upstreams except the built-in `demo`; `aiproxy key add UPSTREAM` or `aiproxy upstream add NAME` adds one",
        )?;
    } else {
        output::print(&configured_table(&settings, Styler::stdout()))?;
    }
    Ok(ExitStatus::Ok)
}

fn configured_json(u: &Upstream) -> Value {
    json!({
        "name": &*u.name,
        "dialect": u.endpoints.first().map(|end| end.dialect),
        "origin": u.origin,
        "state": if u.enabled { Value::Null } else { "disabled".into() },
        "cause": null,
        "until": null,
    })
}

fn configured_table(settings: &Settings, styler: Styler) -> String {
    let mut table = TextTable::new(&["UPSTREAM", "DIALECT", "ORIGIN", "KEYS", "URL", ""]);
    for u in &settings.upstreams {
        table.row(vec![
            (&*u.name).into(),
            u.endpoints.iter().map(|end| end.dialect.name()).collect::<Vec<_>>().join(",").into(),
            status::origin_name(u.origin).into(),
            u.keys.len().to_string().into(),
            u.endpoints.first().map_or("", |end| end.base_url.as_str()).into(),
            if u.enabled { "".into() } else { TableCell::new(TextRole::Dim, "disabled") },
        ]);
    }
    table.render(styler)
}

/// Lists the presets.
pub(super) fn presets(ctx: &CommandContext) -> Result<ExitStatus, CliError> {
    if ctx.global.json {
        let rows: Vec<_> = presets::all()
            .iter()
            .map(|p| {
                json!({
                    "name": &*p.name,
                    "title": p.title,
                    "dialects": p.endpoints.iter().map(|end| end.dialect).collect::<Vec<_>>(),
                    "base_url": p.endpoints.first().map(|end| &end.base_url),
                    "key_env": p.key_env.iter().map(|name| &**name).collect::<Vec<_>>(),
                    "key_page": p.key_page.as_deref(),
                    "needs_url": p.needs_url,
                    "needs_key": p.needs_key(),
                })
            })
            .collect();
        output::print_json(&rows)?;
        return Ok(ExitStatus::Ok);
    }
    let mut table = TextTable::new(&["PRESET", "PROVIDER", "DIALECTS", "KEY VARIABLE", "KEY PAGE"]);
    for p in presets::all() {
        table.row(vec![
            (&*p.name).into(),
            (&p.title).into(),
            p.endpoints.iter().map(|end| end.dialect.name()).collect::<Vec<_>>().join(",").into(),
            p.key_env.first().map_or("", |name| &**name).into(),
            TableCell::new(TextRole::Dim, p.key_page.as_deref().unwrap_or("")),
        ]);
    }
    output::print(&table.render(Styler::stdout()))?;
    Ok(ExitStatus::Ok)
}
