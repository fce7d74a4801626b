//! The operations of a document as tools.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::{
    document::Document,
    form::{
        BodyEncoding, BodyForm, Parameter, ParameterStyle, encoding, is_file, old_schema, preferred,
    },
    schema::{SchemaWriter, describe_name},
};
use crate::{
    base::{json::raw::RawJson, sanitize},
    config::settings::McpServer,
    mcp::names,
};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// Where parameters go; also the names of the arguments.
const PLACES: [&str; 4] = ["path", "query", "header", "cookie"];
/// Characters of a description.
const MAX_DESCRIPTION: usize = 2_000;

/// One operation.
pub(super) struct Operation {
    pub(super) name: String,
    /// The tool as it is listed.
    pub(super) listed: RawJson,
    pub(super) method: http::Method,
    pub(super) path: String,
    pub(super) base: reqwest::Url,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<BodyForm>,
    /// Names of properties in the body that were replaced, with their own.
    pub(super) renamed: BTreeMap<String, String>,
}

/// Reads the operations that a row wants.
///
/// # Errors
///
/// The document names no address of the API.
pub(super) fn read_all(document: &Document, row: &McpServer) -> Result<Vec<Operation>, String> {
    let mut found = Vec::new();
    let mut taken = HashSet::new();
    let paths = document.root.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        let item = document.follow(item);
        for method in METHODS {
            let Some(operation) = item.get(method).filter(|value| value.is_object()) else {
                continue;
            };
            let id = operation.get("operationId").and_then(Value::as_str);
            let name = tool_name(id, method, path, &mut taken);
            let is_wanted = row.operations.matches(id.unwrap_or(&name))
                || id.is_some() && row.operations.matches(&name) && row.operations.is_any();
            if !is_wanted {
                continue;
            }
            let hidden = row.auth.as_ref().and_then(|auth| auth.name.as_deref());
            let reader = OperationReader { document, item, operation, method, path, hidden };
            found.push(reader.read(name)?);
        }
    }
    Ok(found)
}

/// Returns a name that every vendor accepts and no other operation has.
fn tool_name(id: Option<&str>, method: &str, path: &str, taken: &mut HashSet<String>) -> String {
    let plain = |text: &str| -> String {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }
        };
        text.chars().map(plain).collect()
    };
    let usable = |text: &&str| text.contains(|c: char| c.is_ascii_alphanumeric());
    let mut name = match id.filter(usable) {
        Some(id) => plain(id),
        None => {
            let words: Vec<String> =
                plain(path).split('_').filter(|word| !word.is_empty()).map(str::to_owned).collect();
            format!("{method}_{}", words.join("_"))
        }
    };
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        name.insert(0, '_');
    }
    if name.len() > 64 || taken.contains(&name) {
        let start = name.get(..55).unwrap_or(&name);
        name = format!("{start}_{}", names::short_hash(&[id.unwrap_or_default(), method, path]));
    }
    taken.insert(name.clone());
    name
}

struct OperationReader<'a> {
    document: &'a Document,
    item: &'a Value,
    operation: &'a Value,
    method: &'a str,
    path: &'a str,
    /// A parameter that carries the credential.
    hidden: Option<&'a str>,
}

impl OperationReader<'_> {
    fn read(&self, name: String) -> Result<Operation, String> {
        let mut schemas = SchemaWriter::new(self.document);
        let mut groups: BTreeMap<&'static str, (Map<String, Value>, Vec<Value>)> = BTreeMap::new();
        let mut parameters = Vec::new();
        let mut form_fields = Vec::new();
        for parameter in self.parameters() {
            let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
            if matches!(place, "body" | "formData") {
                form_fields.push(parameter);
                continue;
            }
            let Some(place) = PLACES.into_iter().find(|known| *known == place) else { continue };
            let (schema, read) = self.parameter(parameter, place, &mut schemas);
            let (properties, required) = groups.entry(place).or_default();
            if read.required {
                required.push(read.argument.clone().into());
            }
            properties.insert(read.argument.clone(), schema);
            parameters.push(read);
        }
        let mut properties = Map::new();
        let mut required: Vec<Value> = Vec::new();
        for place in PLACES {
            let Some((members, needed)) = groups.remove(place) else { continue };
            if !needed.is_empty() {
                required.push(place.into());
            }
            let mut group = json!({ "type": "object", "properties": members });
            if !needed.is_empty() {
                group["required"] = needed.into();
            }
            properties.insert(place.to_owned(), group);
        }
        // From here on, replaced names are those of the body.
        schemas.renamed.clear();
        let body = if self.document.is_swagger() {
            self.old_body(&form_fields, &mut schemas)
        } else {
            self.body(&mut schemas)
        };
        let body = body.map(|(schema, form)| {
            if form.required {
                required.push("body".into());
            }
            properties.insert("body".to_owned(), schema);
            form
        });
        let renamed = schemas.renamed.clone();
        let mut input = json!({ "type": "object", "properties": properties });
        if !required.is_empty() {
            input["required"] = required.into();
        }
        let definitions = schemas.definitions();
        if !definitions.is_empty() {
            input["$defs"] = json!(definitions);
        }
        let listed = self.listed(&name, &input);
        let servers = self.operation.get("servers").or_else(|| self.item.get("servers"));
        Ok(Operation {
            listed,
            method: self.method.to_ascii_uppercase().parse().unwrap_or(http::Method::GET),
            path: self.path.to_owned(),
            base: self.document.base_url(servers)?,
            parameters,
            body,
            renamed,
            name,
        })
    }

    fn listed(&self, name: &str, input: &Value) -> RawJson {
        let text = |key: &str| {
            self.operation
                .get(key)
                .and_then(Value::as_str)
                .map(|text| text.lines().map(sanitize::clean).collect::<Vec<_>>().join("\n"))
        };
        let (summary, description) = (text("summary"), text("description"));
        let mut parts: Vec<String> = summary.clone().into_iter().chain(description).collect();
        parts.dedup();
        if self.operation.get("deprecated") == Some(&Value::Bool(true)) {
            parts.push("Deprecated.".to_owned());
        }
        if parts.is_empty() {
            parts.push(format!("{} {}", self.method.to_ascii_uppercase(), self.path));
        }
        let description: String = parts.join("\n\n").chars().take(MAX_DESCRIPTION).collect();
        let mut tool = json!({
            "name": name,
            "description": description,
            "inputSchema": input,
            "annotations": {
                "readOnlyHint": matches!(self.method, "get" | "head" | "options"),
                "destructiveHint": self.method == "delete",
                "idempotentHint": matches!(self.method, "get" | "head" | "put" | "delete"),
                "openWorldHint": true,
            },
        });
        if let Some(summary) = summary {
            tool["title"] = summary.into();
        }
        RawJson::from(&tool)
    }

    /// Returns the parameters: those of the operation replace those of the path.
    fn parameters(&self) -> Vec<&Value> {
        let all = [self.item, self.operation];
        let mut found: Vec<&Value> = Vec::new();
        for place in all {
            let parameters = place.get("parameters").and_then(Value::as_array);
            for parameter in parameters.into_iter().flatten() {
                let parameter = self.document.follow(parameter);
                let key = |value: &Value| (value.get("name").cloned(), value.get("in").cloned());
                found.retain(|known| key(known) != key(parameter));
                if parameter.get("name").is_some_and(Value::is_string) {
                    found.push(parameter);
                }
            }
        }
        let is_hidden = |parameter: &&Value| {
            let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
            let in_place = matches!(
                parameter.get("in").and_then(Value::as_str),
                Some("header" | "query" | "cookie")
            );
            in_place && self.hidden.is_some_and(|hidden| hidden.eq_ignore_ascii_case(name))
        };
        found.retain(|parameter| !is_hidden(parameter));
        found
    }

    fn parameter(
        &self,
        parameter: &Value,
        place: &'static str,
        schemas: &mut SchemaWriter<'_>,
    ) -> (Value, Parameter) {
        let text = |key: &str| parameter.get(key).and_then(Value::as_str);
        let name = text("name").unwrap_or_default().to_owned();
        let content = parameter.get("content").and_then(Value::as_object);
        let content = content.and_then(|content| content.values().next());
        let schema = content.and_then(|content| content.get("schema"));
        let schema = schema.or_else(|| parameter.get("schema"));
        let mut converted = match schema {
            Some(schema) => schemas.convert(schema, 1),
            None => schemas.convert(&old_schema(parameter), 1),
        };
        schemas.renamed.clear();
        let argument = schemas.safe_name(&name);
        if let (Some(description), Some(object)) =
            (parameter.get("description"), converted.as_object_mut())
            && !object.contains_key("$ref")
        {
            object.insert("description".to_owned(), description.clone());
        }
        if argument != name {
            describe_name(&mut converted, &name);
        }
        let explode = parameter.get("explode").and_then(Value::as_bool);
        let style = match (text("style"), text("collectionFormat"), place) {
            _ if content.is_some() => ParameterStyle::Json,
            (Some("deepObject"), ..) => ParameterStyle::DeepObject,
            (Some("pipeDelimited"), ..) | (_, Some("pipes"), _) => ParameterStyle::Joined('|'),
            (Some("spaceDelimited"), ..) | (_, Some("ssv"), _) => ParameterStyle::Joined(' '),
            (_, Some("tsv"), _) => ParameterStyle::Joined('\t'),
            (_, Some("multi"), _) => ParameterStyle::Repeated,
            (_, Some(_), _) => ParameterStyle::Joined(','),
            (_, None, "query" | "cookie")
                if !self.document.is_swagger() && explode != Some(false) =>
            {
                ParameterStyle::Repeated
            }
            _ => ParameterStyle::Joined(','),
        };
        let required =
            place == "path" || parameter.get("required").and_then(Value::as_bool).unwrap_or(false);
        (converted, Parameter { place, argument, name, required, style })
    }

    fn body(&self, schemas: &mut SchemaWriter<'_>) -> Option<(Value, BodyForm)> {
        let body = self.document.follow(self.operation.get("requestBody")?);
        let content = body.get("content")?.as_object()?;
        let (content_type, media) = preferred(content)?;
        let required = body.get("required").and_then(Value::as_bool).unwrap_or(false);
        let any = json!({});
        let schema = media.get("schema").unwrap_or(&any);
        let kind = encoding(content_type);
        let mut form = BodyForm {
            kind,
            content_type: content_type.to_owned(),
            required,
            part_types: BTreeMap::new(),
            files: HashSet::new(),
        };
        for (part, encoding) in
            media.get("encoding").and_then(Value::as_object).into_iter().flatten()
        {
            let kind = encoding.get("contentType").and_then(Value::as_str);
            form.part_types.extend(kind.map(|kind| (part.clone(), kind.to_owned())));
        }
        let followed = self.document.follow(schema);
        for (name, part) in
            followed.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let part = self.document.follow(part);
            let item = part.get("items").map(|item| self.document.follow(item));
            if is_file(part) || item.is_some_and(is_file) {
                form.files.insert(name.clone());
            }
        }
        let converted = match kind {
            BodyEncoding::Bytes => {
                json!({ "type": "string", "description": "Content of the file in Base64" })
            }
            BodyEncoding::Text => json!({ "type": "string" }),
            _ => schemas.convert(schema, 1),
        };
        Some((converted, form))
    }

    /// The body of Swagger 2: one parameter, or fields of a form.
    fn old_body(
        &self,
        fields: &[&Value],
        schemas: &mut SchemaWriter<'_>,
    ) -> Option<(Value, BodyForm)> {
        let place = |value: &Value| value.get("in").and_then(Value::as_str) == Some("body");
        let is_required = |value: &Value| value.get("required") == Some(&Value::Bool(true));
        let form = |kind, content_type: &str, required| BodyForm {
            kind,
            content_type: content_type.to_owned(),
            required,
            part_types: BTreeMap::new(),
            files: HashSet::new(),
        };
        if let Some(body) = fields.iter().find(|field| place(field)) {
            let any = json!({});
            let schema = schemas.convert(body.get("schema").unwrap_or(&any), 1);
            return Some((schema, form(BodyEncoding::Json, "application/json", is_required(body))));
        }
        if fields.is_empty() {
            return None;
        }
        let is_file_field =
            |field: &&&Value| field.get("type").and_then(Value::as_str) == Some("file");
        let consumes =
            self.operation.get("consumes").or_else(|| self.document.root.get("consumes"));
        let multipart = fields.iter().any(|field| is_file_field(&field))
            || consumes.is_some_and(|list| list.to_string().contains("multipart/"));
        let (kind, content_type) = if multipart {
            (BodyEncoding::Multipart, "multipart/form-data")
        } else {
            (BodyEncoding::Form, "application/x-www-form-urlencoded")
        };
        let mut form = form(kind, content_type, fields.iter().any(|field| is_required(field)));
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in fields {
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            if is_file_field(&field) {
                form.files.insert(name.to_owned());
            }
            if is_required(field) {
                required.push(name);
            }
            let mut schema = old_schema(field);
            if let Some(description) = field.get("description") {
                schema["description"] = description.clone();
            }
            properties.insert(name.to_owned(), schema);
        }
        let schema = json!({ "type": "object", "properties": properties, "required": required });
        Some((schemas.convert(&schema, 1), form))
    }
}
