//! The targets of one model for `aiproxy model show`: state, keys, limits and prices.

use serde_json::{Value, json};

use crate::{
    base::{clock::UnixMillis, money},
    cli::{
        key::table::{keys_table, limits_table},
        model::catalog::{ModelCatalog, split_target},
        output::{Styler, table::TextTable, time_format},
        status,
    },
    control::snapshot::{KeyStatus, KeyView, UpstreamView},
    ir::cost::{AppliedPrice, PriceClass},
};

/// A target with everything that is known of its place.
pub(super) struct TargetDetail<'a> {
    /// `upstream:model`.
    name: &'a str,
    view: Option<&'a UpstreamView>,
    /// Its keys, with only the scopes and limits that concern the model.
    keys: Vec<KeyView>,
    price: Option<&'a AppliedPrice>,
    configured: Vec<TargetLimit>,
}

/// What the config allows a key for the model.
struct TargetLimit {
    key: String,
    text: String,
}

/// Collects the details of targets that name an upstream.
pub(super) fn of_targets<'a>(
    catalog: &'a ModelCatalog,
    targets: &'a [String],
) -> Vec<TargetDetail<'a>> {
    targets.iter().filter_map(|target| of_target(catalog, target)).collect()
}

fn of_target<'a>(catalog: &'a ModelCatalog, target: &'a str) -> Option<TargetDetail<'a>> {
    let (upstream, model) = split_target(target)?;
    let snapshot = catalog.snapshot.as_ref();
    let keys = snapshot.iter().flat_map(|snapshot| &snapshot.keys);
    Some(TargetDetail {
        name: target.split(' ').next().unwrap_or(target),
        view: snapshot.and_then(|s| s.upstreams.iter().find(|view| view.name == upstream)),
        keys: keys.filter(|key| key.upstream == upstream).map(|key| narrowed(key, model)).collect(),
        price: catalog.price(target),
        configured: configured_limits(catalog, target, model),
    })
}

/// The key without what concerns other models.
fn narrowed(key: &KeyView, model: &str) -> KeyView {
    let mut key = key.clone();
    key.scopes.retain(|scope| scope.model == model);
    key.limits.retain(|limit| limit.model == model || limit.model.is_empty());
    if key.state == KeyStatus::Partly && key.scopes.is_empty() {
        key.state = KeyStatus::Ok;
        key.cause = None;
        key.until = None;
    }
    key
}

fn configured_limits(catalog: &ModelCatalog, target: &str, model: &str) -> Vec<TargetLimit> {
    let keys = catalog.upstream(target).into_iter().flat_map(|upstream| &upstream.keys);
    keys.filter_map(|key| {
        let row = key.limits.iter().find(|(name, _)| name.matches(model)).map(|(_, row)| *row);
        let both = |own: u32, of_model: Option<u32>, unit: &str| {
            let values = [Some(own), of_model].into_iter().flatten().filter(|limit| *limit > 0);
            values.min().map(|limit| format!("{limit} {unit}"))
        };
        let text: Vec<String> = [
            both(key.rpm, row.map(|row| row.rpm), "requests a minute"),
            both(key.tpm, row.map(|row| row.tpm), "tokens a minute"),
            both(key.max_concurrency, None, "concurrent requests"),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!text.is_empty()).then(|| TargetLimit { key: key.name.to_string(), text: text.join(", ") })
    })
    .collect()
}

/// The details for scripts.
pub(super) fn to_json(details: &[TargetDetail<'_>]) -> Value {
    let one = |detail: &TargetDetail<'_>| {
        json!({
            "target": detail.name,
            "state": detail.view.map(|view| view.state),
            "cause": detail.view.and_then(|view| view.cause.as_ref()).map(ToString::to_string),
            "until": detail.view.and_then(|view| view.until).map(|at| at.to_string()),
            "ttft_p50_ms": detail.view.and_then(|view| view.stats.ttft_p50_ms),
            "ttft_p95_ms": detail.view.and_then(|view| view.stats.ttft_p95_ms),
            "keys": detail.keys.iter().map(status::key_json).collect::<Vec<_>>(),
            "limits": detail.configured.iter()
                .map(|limit| json!({ "key": limit.key, "text": limit.text }))
                .collect::<Vec<_>>(),
            "price": detail.price.map(price_json),
        })
    };
    details.iter().map(one).collect()
}

/// Prices of a million tokens.
fn price_json(price: &AppliedPrice) -> Value {
    let rate = |class| price.rates.explicit(class).map(money::format_nanos);
    json!({
        "name": &*price.name,
        "currency": &*price.currency,
        "input": rate(PriceClass::Input),
        "cache_read": rate(PriceClass::CacheRead),
        "cache_write": rate(PriceClass::CacheWrite5m),
        "output": rate(PriceClass::Output),
        "reasoning": rate(PriceClass::Reasoning),
        "source": &*price.page,
        "date": &*price.date,
    })
}

/// The details as tables. The state is empty without a running proxy.
pub(super) fn to_text(details: &[TargetDetail<'_>], now: UnixMillis, styler: Styler) -> String {
    if details.is_empty() {
        return String::new();
    }
    let mut states = TextTable::new(&["TARGET", "STATE", "ENDS IN", "KEYS", "TTFT", "CAUSE"]);
    let mut prices =
        TextTable::new(&["PRICE OF 1M", "INPUT", "CACHED", "CACHE WRITE", "OUTPUT", "", "SOURCE"]);
    for detail in details {
        states.row(vec![
            detail.name.into(),
            detail.view.map(|view| status::upstream_state_cell(view.state)).unwrap_or("".into()),
            detail
                .view
                .map(|view| time_format::remaining(view.until, now))
                .unwrap_or_default()
                .into(),
            keys_text(detail).into(),
            detail
                .view
                .and_then(|view| view.stats.ttft_p50_ms)
                .map(time_format::seconds)
                .unwrap_or_default()
                .into(),
            detail
                .view
                .and_then(|view| view.cause.as_ref())
                .map(ToString::to_string)
                .unwrap_or_default()
                .into(),
        ]);
        if let Some(price) = detail.price {
            let rate = |class| {
                price.rates.explicit(class).map(money::format_nanos).unwrap_or_default().into()
            };
            prices.row(vec![
                detail.name.into(),
                rate(PriceClass::Input),
                rate(PriceClass::CacheRead),
                rate(PriceClass::CacheWrite5m),
                rate(PriceClass::Output),
                (&*price.currency).into(),
                format!("{} {}", price.page, price.date).trim().into(),
            ]);
        }
    }
    let is_live = details.iter().any(|detail| detail.view.is_some());
    let mut out = if is_live { format!("\n{}", states.render(styler)) } else { String::new() };
    let mut keys: Vec<&KeyView> = Vec::new();
    for key in details.iter().flat_map(|detail| &detail.keys) {
        // Two targets of an upstream share its keys.
        if !keys.iter().any(|known| known.upstream == key.upstream && known.label == key.label) {
            keys.push(key);
        }
    }
    let unusual: Vec<&KeyView> =
        keys.iter().copied().filter(|key| key.state != KeyStatus::Ok).collect();
    if !unusual.is_empty() {
        out.push_str(&format!("\n{}", keys_table(&unusual, now, styler)));
    }
    if !prices.is_empty() {
        out.push_str(&format!("\n{}", prices.render(styler)));
    }
    let mut limits = TextTable::new(&["KEY", "LIMIT OF THE CONFIG"]);
    for limit in details.iter().flat_map(|detail| &detail.configured) {
        limits.row(vec![(&limit.key).into(), (&limit.text).into()]);
    }
    if !limits.is_empty() {
        out.push_str(&format!("\n{}", limits.render(styler)));
    }
    out + &limits_table(&keys, now, styler)
}

fn keys_text(detail: &TargetDetail<'_>) -> String {
    let usable = |key: &&KeyView| matches!(key.state, KeyStatus::Ok | KeyStatus::Probing);
    match detail.keys.len() {
        0 => String::new(),
        all => format!("{}/{all}", detail.keys.iter().filter(usable).count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot::ModelScope;

    #[test]
    fn key_cooled_for_another_model_is_ready_for_this_one() {
        let scope = |model: &str| ModelScope {
            model: model.to_owned(),
            state: KeyStatus::Cooling,
            cause: None,
            until: None,
            since: None,
            from_provider: false,
        };
        let key = KeyView {
            scopes: vec![scope("a")],
            ..KeyView::for_test("openai", "work", "env:K", KeyStatus::Partly)
        };
        assert_eq!(narrowed(&key, "b").state, KeyStatus::Ok);
        assert_eq!(narrowed(&key, "a").state, KeyStatus::Partly);
    }
}
