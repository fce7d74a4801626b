//! Extracts one request's routing preferences from its body: the `provider` object and the `models`
//! list.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    base::{
        json::reader::{self, JsonRef},
        sanitize,
    },
    config::settings::{AdaptiveMix, Strategy},
    ir::fault::{ProxyError, ProxyErrorKind},
    routing::{candidate::Target, cost::TokenPrice},
};

/// Maximum number of names in each list.
const MAX_NAMES: usize = 32;
/// Distance between the tiers of a model and those of the next one in `models`; config priorities
/// are smaller.
const MODEL_STRIDE: u32 = 10_000_000;
/// Tier offset of upstreams that are not in `order`, which come after those that are.
const UNLISTED_OFFSET: u32 = 1_000;

/// The routing preferences of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingPreferences {
    order: Vec<String>,
    only: Vec<String>,
    ignore: Vec<String>,
    no_fallbacks: bool,
    sort: Option<Strategy>,
    /// Dollars per million tokens: of input, of output.
    max_price: Option<[Option<f64>; 2]>,
    /// Only targets that support every parameter of the request.
    pub require_parameters: bool,
    /// Models to try if the first one is not available.
    pub fallback_models: Vec<String>,
}

/// Removes the preferences from a body. `known` returns whether a name is a configured upstream. A
/// `provider` object that names only other upstreams is meant for the upstream that gets the
/// request, so it stays in the body, and so does the `models` list next to it.
///
/// # Errors
///
/// 400 if a preference is malformed.
pub(in crate::relay) fn extract(
    body: &[u8],
    known: &dyn Fn(&str) -> bool,
) -> Result<Option<(RoutingPreferences, Bytes)>, ProxyError> {
    let Ok(root) = reader::parse(body) else { return Ok(None) };
    let mut preferences = RoutingPreferences::default();
    let provider = root.get("provider").filter(|value| value.is_object());
    if let Some(provider) = provider
        && !read_provider(provider, known, &mut preferences)?
    {
        return Ok(None);
    }
    let models = root.get("models").filter(|value| value.is_array());
    if let Some(models) = models {
        preferences.fallback_models = read_names(models, "models")?;
    }
    if provider.is_none() && models.is_none() {
        return Ok(None);
    }
    let is_extracted =
        |key: &str| key == "provider" && provider.is_some() || key == "models" && models.is_some();
    let mut rest = String::with_capacity(body.len());
    for (key, value) in root.members().filter(|(key, _)| !is_extracted(key)) {
        rest.push(if rest.is_empty() { '{' } else { ',' });
        rest.extend(["\"", key, "\":", value.text()]);
    }
    rest.push_str(if rest.is_empty() { "{}" } else { "}" });
    Ok(Some((preferences, rest.into())))
}

/// Reads the object if it is meant for aiproxy; returns whether it is.
fn read_provider(
    provider: JsonRef<'_>,
    known: &dyn Fn(&str) -> bool,
    preferences: &mut RoutingPreferences,
) -> Result<bool, ProxyError> {
    let list = |name: &str| {
        provider
            .get(name)
            .map_or(Ok(Vec::new()), |value| read_names(value, &format!("provider.{name}")))
    };
    (preferences.order, preferences.only, preferences.ignore) =
        (list("order")?, list("only")?, list("ignore")?);
    let mut named =
        preferences.order.iter().chain(&preferences.only).chain(&preferences.ignore).peekable();
    if named.peek().is_some() && !named.any(|name| known(name)) {
        *preferences = RoutingPreferences::default();
        return Ok(false);
    }
    let flag = |name: &str| match provider.get(name) {
        None => Ok(None),
        Some(value) => value
            .bool()
            .map(Some)
            .ok_or_else(|| invalid_field(&format!("provider.{name}"), "true or false")),
    };
    preferences.no_fallbacks = flag("allow_fallbacks")? == Some(false);
    preferences.require_parameters = flag("require_parameters")? == Some(true);
    if let Some(sort) = provider.get("sort") {
        let by = sort.get("by").unwrap_or(sort).str();
        preferences.sort = Some(match by.as_deref() {
            Some("price") => Strategy::LeastCost,
            Some("latency") => Strategy::LeastLatency,
            Some("throughput") => Strategy::Adaptive(AdaptiveMix::LatencyFirst),
            _ => return Err(invalid_field("provider.sort", "price, latency or throughput")),
        });
    }
    if let Some(price) = provider.get("max_price") {
        let parse_price = |name: &str| match price.get(name) {
            None => Ok(None),
            Some(value) => {
                let number = value
                    .text()
                    .trim_matches('"')
                    .parse::<f64>()
                    .ok()
                    .filter(|number| number.is_finite() && *number >= 0.0);
                number.map(Some).ok_or_else(|| {
                    invalid_field("provider.max_price", "dollars per million tokens")
                })
            }
        };
        preferences.max_price = Some([parse_price("prompt")?, parse_price("completion")?]);
    }
    Ok(true)
}

fn read_names(value: JsonRef<'_>, field: &str) -> Result<Vec<String>, ProxyError> {
    let wrong = || invalid_field(field, "a list of names");
    if !value.is_array() || value.items().count() > MAX_NAMES {
        return Err(wrong());
    }
    let is_valid =
        |name: &str| !name.is_empty() && name.len() <= 256 && *sanitize::clean(name) == *name;
    value
        .items()
        .map(|item| {
            item.str().filter(|name| is_valid(name)).map(|name| name.into_owned()).ok_or_else(wrong)
        })
        .collect()
}

fn invalid_field(field: &str, wants: &str) -> ProxyError {
    ProxyError::new(ProxyErrorKind::BadRequest, format!("`{field}`: expected {wants}"))
        .param(field.split('.').next().unwrap_or(field).to_owned())
}

impl RoutingPreferences {
    /// Returns the requested strategy.
    #[must_use]
    pub fn strategy(&self) -> Option<Strategy> {
        self.sort
    }

    /// Filters and orders the targets as requested; `nth` is the index of their model among the
    /// requested ones.
    pub fn apply(
        &self,
        targets: &mut Vec<Arc<Target>>,
        nth: usize,
        price: &dyn Fn(&Target) -> Option<TokenPrice>,
    ) {
        let listed = |list: &[String], target: &Target| {
            list.iter().position(|name| name.eq_ignore_ascii_case(&target.upstream.name))
        };
        targets.retain(|target| {
            (self.only.is_empty() || listed(&self.only, target).is_some())
                && listed(&self.ignore, target).is_none()
                && (!self.no_fallbacks
                    || self.order.is_empty()
                    || listed(&self.order, target).is_some())
                && self.is_affordable(price(target))
        });
        let step = MODEL_STRIDE.saturating_mul(u32::try_from(nth).unwrap_or(u32::MAX));
        for target in targets {
            let position = match listed(&self.order, target) {
                Some(position) => u32::try_from(position).unwrap_or(UNLISTED_OFFSET),
                // A requested sort applies to all targets.
                None if self.sort.is_some() => UNLISTED_OFFSET,
                None if self.order.is_empty() => target.priority,
                None => target.priority.saturating_add(UNLISTED_OFFSET),
            };
            let priority = position.saturating_add(step);
            if target.priority != priority {
                Arc::make_mut(target).priority = priority;
            }
        }
    }

    /// A target without a known price does not count as cheap enough.
    fn is_affordable(&self, price: Option<TokenPrice>) -> bool {
        let Some([input, output]) = self.max_price else { return true };
        // One dollar per million tokens is a thousand billionths per token.
        price.is_some_and(|price| {
            input.is_none_or(|max| price.input <= max * 1_000.0)
                && output.is_none_or(|max| price.output <= max * 1_000.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn known(name: &str) -> bool {
        ["one", "two"].contains(&name)
    }

    fn taken(body: &str) -> Option<(RoutingPreferences, String)> {
        extract(body.as_bytes(), &known)
            .expect("understood")
            .map(|(wishes, rest)| (wishes, String::from_utf8_lossy(&rest).into_owned()))
    }

    #[test]
    fn preferences_are_read_and_removed_from_the_body() {
        let body = r#"{ "model": "m", "provider": {"order": ["two", "one"], "allow_fallbacks": false, "sort": "price",
            "max_price": {"prompt": 1, "completion": "2.5"}, "require_parameters": true}, "n": 1.50, "models": ["a", "b"] }"#;
        let (wishes, rest) = taken(body).expect("wishes");

        assert_eq!(rest, r#"{"model":"m","n":1.50}"#);
        assert_eq!(
            (wishes.order.len(), wishes.no_fallbacks, wishes.require_parameters),
            (2, true, true)
        );
        assert_eq!(
            (wishes.sort, wishes.max_price),
            (Some(Strategy::LeastCost), Some([Some(1.0), Some(2.5)]))
        );
        assert_eq!(wishes.fallback_models, ["a", "b"]);
        assert!(wishes.is_affordable(Some(TokenPrice {
            input: 1_000.0,
            output: 2_500.0,
            request: 0.0
        })));
        assert!(
            !wishes.is_affordable(Some(TokenPrice {
                input: 1_000.0,
                output: 2_501.0,
                request: 0.0
            })) && !wishes.is_affordable(None)
        );
    }

    #[test]
    fn preferences_of_other_services_are_left_in_the_body() {
        for body in [
            r#"{"model":"m","provider":{"order":["somebody","else"]}}"#,
            r#"{"model":"m","provider":"one"}"#,
            r#"{"model":"m","models":"a"}"#,
            r#"{"model":"m"}"#,
            r#"{"provider":{"only":["somebody"]},"models":["a"]}"#,
        ] {
            assert_eq!(taken(body), None, "{body}");
        }
    }

    #[test]
    fn invalid_preference_is_reported() {
        for (body, field) in [
            (r#"{"provider":{"order":"one"}}"#, "provider"),
            (r#"{"provider":{"sort":"luck"}}"#, "provider"),
            (r#"{"provider":{"only":["one"],"allow_fallbacks":"no"}}"#, "provider"),
            (r#"{"provider":{"max_price":{"prompt":-1}}}"#, "provider"),
            (r#"{"models":[1]}"#, "models"),
        ] {
            let error = extract(body.as_bytes(), &known).expect_err(body);
            assert_eq!(error.param.as_deref(), Some(field), "{body}");
        }
    }

    proptest! {
        #[test]
        fn removing_preferences_changes_nothing_else(keys in proptest::collection::btree_set("[a-z]{1,6}", 0..6), wish in any::<bool>()) {
            let mut body: serde_json::Map<String, serde_json::Value> = keys.iter().map(|key| (key.clone(), key.len().into())).collect();
            body.retain(|key, _| key != "provider" && key != "models");
            let rest = serde_json::Value::Object(body.clone());
            if wish {
                body.insert("provider".to_owned(), serde_json::json!({"sort": "latency"}));
            }
            let text = serde_json::Value::Object(body).to_string();
            match extract(text.as_bytes(), &known) {
                Ok(Some((_, left))) => prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&left).expect("JSON"), rest),
                other => prop_assert!(!wish && other == Ok(None)),
            }
        }
    }
}
