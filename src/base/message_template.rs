//! Templates of messages: text with placeholders such as `{title}`.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;

use crate::base::sanitize;

/// The placeholders of a template.
const PLACEHOLDERS: [&str; 13] = [
    "title", "text", "level", "kind", "event", "subject", "upstream", "key", "model", "project",
    "host", "at", "id",
];

/// Replaces the placeholders of a template; unknown ones stay. In a template that is JSON the
/// values are escaped for JSON strings.
pub fn fill_template(template: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let is_json = is_json_template(template);
    let fill = |found: &regex::Captures<'_>| match value_of(&found[1]) {
        None => found[0].to_owned(),
        Some(value) if is_json => {
            let quoted = serde_json::Value::from(value).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
        Some(value) => value,
    };
    placeholders().replace_all(template, fill).into_owned()
}

/// Returns whether the body of a template is JSON.
#[must_use]
pub fn is_json_template(template: &str) -> bool {
    template.trim_start().starts_with(['{', '['])
        && placeholders().find(template.trim_start()).is_none_or(|first| first.start() != 0)
}

fn placeholders() -> &'static Regex {
    #[expect(clippy::unwrap_used, reason = "the pattern is fixed, and a test uses it")]
    static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{([a-z_]+)\}").unwrap());
    &PLACEHOLDER
}

/// Checks that a template can be filled.
///
/// # Errors
///
/// The problem and the help: an unknown placeholder, or JSON that is invalid once it is filled.
pub fn check_template(template: &str) -> Result<(), (String, String)> {
    let used: BTreeSet<_> =
        placeholders().captures_iter(template).map(|found| found[1].to_owned()).collect();
    if let Some(unknown) = used.iter().find(|name| !PLACEHOLDERS.contains(&name.as_str())) {
        return Err((
            format!("there is no placeholder `{{{}}}`", sanitize::truncate_end(unknown, 60)),
            format!("there are {{{}}}", PLACEHOLDERS.join("}, {")),
        ));
    }
    let filled = fill_template(template, |name| Some(format!("\"{name}\"\n")));
    if is_json_template(template)
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&filled)
    {
        return Err((
            format!("the template begins like JSON but is not valid: {error}"),
            "put placeholders inside quotes, as in '{\"text\": \"{title}: {text}\"}'".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_in_json_templates_only() {
        let value = |name: &str| (name == "text").then(|| "a \"b\"\n".to_owned());
        for (template, want) in [
            ("{text}", "a \"b\"\n"),
            ("{\"m\": \"{text}\"}", "{\"m\": \"a \\\"b\\\"\\n\"}"),
            ("{ \"m\": [\"{other}\"] }", "{ \"m\": [\"{other}\"] }"),
        ] {
            assert_eq!(fill_template(template, value), want);
        }
    }

    #[test]
    fn unusable_templates_are_refused_with_a_reason() {
        for (template, want) in [
            ("{title}: {text}", None),
            ("{\"a\": \"{title}\"}", None),
            ("[\"{id}\"]", None),
            ("{titel}", Some("no placeholder `{titel}`")),
            ("{\"a\": {title}}", Some("not valid")),
            ("{\"a\": \"{title}\"", Some("not valid")),
        ] {
            let found = check_template(template).err();
            assert_eq!(found.is_some(), want.is_some(), "{template}: {found:?}");
            if let (Some((problem, _)), Some(want)) = (found, want) {
                assert!(problem.contains(want), "{problem}");
            }
        }
    }
}
