//! JSON with comments and trailing commas.

use jsonc_parser::{
    ParseOptions,
    cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode},
    errors::ParseError,
};
use serde_json::Value;

use super::{EditFault, path::Step};

/// What editors and agents accept: comments and trailing commas, nothing else beyond JSON.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

fn syntax(error: &ParseError) -> EditFault {
    EditFault::Syntax { line: error.line_display(), why: error.kind().to_string() }
}

pub(super) fn parse(text: &str) -> Result<Value, EditFault> {
    jsonc_parser::parse_to_serde_value::<Option<Value>>(text, &OPTIONS)
        .map(Option::unwrap_or_default)
        .map_err(|e| syntax(&e))
}

pub(super) fn set(text: &str, at: &[Step], to: &Value) -> Result<String, EditFault> {
    let root = CstRootNode::parse(text, &OPTIONS).map_err(|e| syntax(&e))?;
    let is_new = root.value().is_none();
    match at.split_first() {
        None => root.set_value(input(to)),
        Some((Step::Key(_), _)) => set_in_object(&root.object_value_or_set(), at, to),
        Some((Step::Item(_), _)) => set_in_array(&root.array_value_or_set(), at, to),
    }
    let text = root.to_string();
    Ok(if is_new && !text.ends_with('\n') { text + "\n" } else { text })
}

fn set_in_object(object: &CstObject, at: &[Step], to: &Value) {
    let [Step::Key(name), rest @ ..] = at else { return };
    match rest.first() {
        None => match object.get(name) {
            Some(property) => property.set_value(input(to)),
            None => drop(object.append(name, input(to))),
        },
        Some(Step::Key(_)) => set_in_object(&object.object_value_or_set(name), rest, to),
        Some(Step::Item(_)) => set_in_array(&object.array_value_or_set(name), rest, to),
    }
}

fn set_in_array(array: &CstArray, at: &[Step], to: &Value) {
    let Some((step, rest)) = at.split_first() else { return };
    let found = find_item(array, step);
    if rest.is_empty() {
        match found {
            Some(item) => replace(&item, input(to)),
            None => drop(array.append(input(to))),
        }
        return;
    }
    let item = found.unwrap_or_else(|| array.append(CstInputValue::Object(Vec::new())));
    if let Some(object) = item.as_object() {
        set_in_object(&object, rest, to);
    }
}

fn find_item(array: &CstArray, step: &Step) -> Option<CstNode> {
    array
        .elements()
        .into_iter()
        .find(|item| item.to_serde_value().is_some_and(|value| step.matches(&value)))
}

fn replace(node: &CstNode, value: CstInputValue) {
    if let Some(object) = node.as_object() {
        object.replace_with(value);
    } else if let Some(array) = node.as_array() {
        array.replace_with(value);
    }
}

pub(super) fn remove(text: &str, at: &[Step]) -> Result<String, EditFault> {
    let root = CstRootNode::parse(text, &OPTIONS).map_err(|e| syntax(&e))?;
    let Some((last, parents)) = at.split_last() else { return Ok(String::new()) };
    let parent = root
        .value()
        .and_then(|value| parents.iter().try_fold(value, |node, step| child(&node, step)));
    if let Some(node) = parent.and_then(|parent| child_node(&parent, last)) {
        node.remove();
    }
    Ok(root.to_string())
}

/// The value that a step leads to.
fn child(node: &CstNode, step: &Step) -> Option<CstNode> {
    match step {
        Step::Key(name) => node.as_object()?.get(name)?.value(),
        Step::Item(_) => find_item(&node.as_array()?, step),
    }
}

/// What is removed for a step: the property of an object or the item of a list.
fn child_node(node: &CstNode, step: &Step) -> Option<CstNode> {
    match step {
        Step::Key(name) => Some(node.as_object()?.get(name)?.into()),
        Step::Item(_) => find_item(&node.as_array()?, step),
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Bool(on) => CstInputValue::Bool(*on),
        Value::Null => CstInputValue::Null,
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::Object(fields) => CstInputValue::Object(
            fields.iter().map(|(name, value)| (name.clone(), input(value))).collect(),
        ),
        Value::String(text) => CstInputValue::String(text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(path: &Value) -> Vec<Step> {
        serde_json::from_value(path.clone()).unwrap()
    }

    #[test]
    fn comments_and_layout_stay() {
        let text = "{ // mine\n  \"ui\": {\"hideTips\": true},   /* odd */\n\t\"x\": 1\n}\n";
        let got = set(text, &steps(&json!(["model", "name"])), &json!("m")).unwrap();
        assert!(got.contains("{ // mine\n  \"ui\": {\"hideTips\": true},   /* odd */\n"), "{got}");
        assert_eq!(
            parse(&got).unwrap(),
            json!({ "ui": { "hideTips": true }, "x": 1, "model": { "name": "m" } })
        );
        let back = remove(&got, &steps(&json!(["model"]))).unwrap();
        assert_eq!(parse(&back).unwrap(), parse(text).unwrap());
    }

    #[test]
    fn lists_are_edited_by_the_name_of_an_item() {
        let at = steps(&json!([{ "name": "a" }]));
        let text = "[\n  {\"name\": \"b\"}, // theirs\n]\n";
        let got = set(text, &at, &json!({ "name": "a", "n": 1 })).unwrap();
        assert_eq!(parse(&got).unwrap(), json!([{ "name": "b" }, { "name": "a", "n": 1 }]));
        assert_eq!(parse(&remove(&got, &at).unwrap()).unwrap(), json!([{ "name": "b" }]));
    }

    #[test]
    fn syntax_error_names_its_line() {
        for (text, line) in [("{\n  \"a\": 1\n  \"b\": 2\n}\n", 2), ("{\n \"a\": fals,\n}", 2)] {
            match parse(text) {
                Err(EditFault::Syntax { line: got, .. }) => assert_eq!(got, line, "{text}"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(parse("").unwrap(), Value::Null);
    }
}
