//! Recognises what the config has already, so that a second import adds nothing.

use toml_edit::DocumentMut;

use crate::{
    cli::{
        error::CliError,
        key::store::KeyStore,
        tools::import::draft::{KeyValue, UpstreamDraft},
    },
    config::{base_url, presets, settings::Upstream},
    secrets::Reference,
};

/// Returns the value of a setting as TOML if the file sets it.
pub(super) fn setting(text: &str, path: &str) -> Option<String> {
    let doc: DocumentMut = text.parse().ok()?;
    let mut item = doc.as_item();
    for name in path.split('.') {
        item = item.as_table_like()?.get(name)?;
    }
    let mut value = item.as_value()?.clone();
    value.decor_mut().clear();
    Some(value.to_string())
}

/// Whether a name is the wanted one, or the wanted one with a number.
pub(super) fn has_stem(name: &str, wanted: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| {
        let number = rest.strip_prefix('-').unwrap_or_default();
        rest.is_empty() || (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Whether a row has the address and all keys of a draft.
///
/// # Errors
///
/// The key store cannot be read.
pub(super) async fn is_same_upstream(
    row: &Upstream,
    draft: &UpstreamDraft,
    store: Option<&KeyStore>,
) -> Result<bool, CliError> {
    if !has_same_address(row, draft) {
        return Ok(false);
    }
    for key in &draft.keys {
        let mut found = false;
        for known in &row.keys {
            found = found || is_same_key(&known.reference, &key.value, store).await?;
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_same_address(row: &Upstream, draft: &UpstreamDraft) -> bool {
    let Some(first) = row.endpoints.first() else { return false };
    if let Some(url) = &draft.base_url {
        let dialect = draft.dialect.unwrap_or(first.dialect);
        return base_url::parse(url, dialect).is_ok_and(|parts| {
            row.endpoint(dialect).is_some_and(|end| end.base_url == parts.base)
        });
    }
    let preset = draft.preset.as_deref().and_then(presets::find);
    preset.is_some_and(|preset| preset.endpoints.iter().any(|end| end.base_url == first.base_url))
}

/// Whether a reference is the key of a draft. Without a store, an entry of the store is.
///
/// # Errors
///
/// The key store cannot be read.
pub(super) async fn is_same_key(
    reference: &Reference,
    key: &KeyValue,
    store: Option<&KeyStore>,
) -> Result<bool, CliError> {
    let secret = match (reference, key) {
        (Reference::Env(known), KeyValue::Env(name)) => return Ok(known == name),
        (_, KeyValue::Env(_)) => return Ok(false),
        (Reference::Literal(known), KeyValue::Text(secret)) => {
            return Ok(known.digest() == secret.digest());
        }
        (_, KeyValue::Text(secret)) => secret,
    };
    let Some(store) = store else {
        return Ok(matches!(reference, Reference::Keyring(_) | Reference::Vault(_)));
    };
    match store.entry_name(reference) {
        Some(entry) => {
            let stored = store.get(entry).await?;
            Ok(stored.is_some_and(|stored| stored.digest() == secret.digest()))
        }
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_names_are_recognised() {
        let text = "[server]\nlisten = \"127.0.0.1:1\" # mine\n";
        assert_eq!(setting(text, "server.listen").as_deref(), Some("\"127.0.0.1:1\""));
        assert_eq!(setting(text, "server.auth"), None);
        for (name, wanted, same) in
            [("a", "a", true), ("a-2", "a", true), ("a-b", "a", false), ("ab", "a", false)]
        {
            assert_eq!(has_stem(name, wanted), same, "{name}");
        }
    }
}
