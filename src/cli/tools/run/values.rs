//! Fills in the placeholders of a recipe.

use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::context::shell_quote;

/// What the placeholders stand for.
pub(in crate::cli::tools) struct Values<'a> {
    /// The proxy's address without a path.
    pub(in crate::cli::tools) base: &'a str,
    pub(in crate::cli::tools) key: &'a str,
    pub(in crate::cli::tools) model: &'a str,
    /// The program knows the limits of the model by its name.
    pub(in crate::cli::tools) is_native: bool,
    /// Tokens of request and response together, if known.
    pub(in crate::cli::tools) context: Option<u64>,
    /// Tokens of a response, if known.
    pub(in crate::cli::tools) output: Option<u64>,
    /// The folder of the run.
    pub(in crate::cli::tools) folder: &'a Path,
    /// The time in RFC 3339.
    pub(in crate::cli::tools) now: String,
    /// The value of `{json}`.
    pub(in crate::cli::tools) json: Option<String>,
    /// The command that prints the key.
    pub(in crate::cli::tools) helper: Option<&'a HelperCommand>,
}

/// A command that prints the key of a project.
pub(in crate::cli::tools) struct HelperCommand {
    pub(in crate::cli::tools) program: String,
    pub(in crate::cli::tools) args: Vec<String>,
}

impl HelperCommand {
    /// Returns the command as a line for a shell.
    fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| shell_quote(word)).collect::<Vec<_>>().join(" ")
    }
}

/// What one pair of braces stands for.
enum Filled {
    Text(String),
    /// A number or a list.
    Number(Value),
    /// A placeholder without a value: what contains it is left out.
    Unknown,
    /// Braces of the text itself.
    NoPlaceholder,
}

impl Values<'_> {
    /// Returns the text with its values; `None` if one of them is unknown.
    pub(in crate::cli::tools) fn text(&self, template: &str) -> Option<String> {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open]);
            let inner = &rest[open + 1..];
            let close = inner.find('}').unwrap_or(0);
            match self.placeholder(&inner[..close]) {
                Filled::Text(text) => out.push_str(&text),
                Filled::Number(number) => out.push_str(&number.to_string()),
                Filled::Unknown => return None,
                Filled::NoPlaceholder => {
                    out.push('{');
                    rest = inner;
                    continue;
                }
            }
            rest = &inner[close + 1..];
        }
        out.push_str(rest);
        Some(out)
    }

    /// Returns the value with its values filled in, without the parts that are unknown. A text that
    /// is one placeholder for a number becomes a number.
    pub(in crate::cli::tools) fn value(&self, template: &toml::Value) -> Option<Value> {
        match template {
            toml::Value::String(text) => {
                let whole = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
                match whole.map(|name| self.placeholder(name)) {
                    Some(Filled::Number(number)) => Some(number),
                    _ => self.text(text).map(Value::String),
                }
            }
            toml::Value::Table(table) => {
                let fields =
                    table.iter().filter_map(|(name, to)| Some((self.text(name)?, self.value(to)?)));
                Some(Value::Object(fields.collect::<Map<_, _>>()))
            }
            toml::Value::Array(items) => {
                Some(Value::Array(items.iter().filter_map(|item| self.value(item)).collect()))
            }
            other => serde_json::to_value(other).ok(),
        }
    }

    /// Reads `NAME`, `NAME|DEFAULT` or `NAME/PARTS`.
    fn placeholder(&self, inner: &str) -> Filled {
        let (name, rest) = inner.find(['|', '/']).map_or((inner, ""), |at| inner.split_at(at));
        let number = match name {
            "context" => self.context,
            "output" => self.output,
            _ => return self.named_text(inner),
        };
        let number = number.filter(|_| !self.is_native);
        let filled = match (number, rest.get(..1)) {
            (Some(number), Some("/")) => rest[1..].parse::<f64>().ok().map(|parts| {
                // Four digits are enough for a share.
                Value::from((number as f64 / parts * 10_000.0).round() / 10_000.0)
            }),
            (Some(number), _) => Some(number.into()),
            (None, Some("|")) => rest[1..].parse::<u64>().ok().map(Value::from),
            (None, _) => None,
        };
        filled.map_or(Filled::Unknown, Filled::Number)
    }

    fn named_text(&self, name: &str) -> Filled {
        let text = match name {
            "args" | "exe" | "helper" => {
                let Some(helper) = self.helper else { return Filled::Unknown };
                match name {
                    "args" => return Filled::Number(helper.args.clone().into()),
                    "exe" => helper.program.clone(),
                    _ => helper.line(),
                }
            }
            "base" => self.base.to_owned(),
            "data" => self.folder.display().to_string(),
            "foreign_model" if self.is_native => return Filled::Unknown,
            "json" => return self.json.clone().map_or(Filled::Unknown, Filled::Text),
            "key" => self.key.to_owned(),
            "model" | "foreign_model" => self.model.to_owned(),
            "model_json" => Value::from(self.model).to_string(),
            "now" => self.now.clone(),
            _ => return Filled::NoPlaceholder,
        };
        Filled::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(context: Option<u64>, is_native: bool) -> Values<'static> {
        Values {
            base: "http://127.0.0.1:1",
            key: "aip-x",
            model: "m\"1",
            is_native,
            context,
            output: None,
            folder: Path::new("/d"),
            now: String::new(),
            json: None,
            helper: None,
        }
    }

    #[test]
    fn braces_that_are_no_placeholder_stay() {
        let values = values(None, false);
        for (template, want) in [
            ("{base}/v1", Some("http://127.0.0.1:1/v1")),
            ("{env:KEY} {data}/a {", Some("{env:KEY} /d/a {")),
            ("a={ b = {model_json} }", Some(r#"a={ b = "m\"1" }"#)),
            ("{}{model}}", Some("{}m\"1}")),
            ("n={context}", None),
            ("{json}", None),
            ("", Some("")),
        ] {
            assert_eq!(values.text(template).as_deref(), want, "{template}");
        }
    }

    #[test]
    fn an_unknown_or_native_limit_is_left_out() {
        let template: toml::Value = toml::from_str(
            "a = \"{context}\"\nb = \"{output|16000}\"\nc = \"{context/200}\"\n\"{model}\" = [\"{output}\", true]\nd = \"{foreign_model}\"",
        )
        .unwrap();
        for (context, is_native, want) in [
            (Some(100), false, r#"{"a":100,"b":16000,"c":0.5,"d":"m\"1","m\"1":[true]}"#),
            (None, false, r#"{"b":16000,"d":"m\"1","m\"1":[true]}"#),
            (Some(100), true, r#"{"b":16000,"m\"1":[true]}"#),
        ] {
            let want: Value = serde_json::from_str(want).unwrap();
            assert_eq!(values(context, is_native).value(&template), Some(want));
        }
    }
}
