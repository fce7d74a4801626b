//! `aiproxy key add`: takes a key in, tries it, stores it, and has it used.

use std::sync::Arc;

use super::{AddArgs, store::KeyStore};
use crate::cli::key::verify::{self, KeyVerdict};
use crate::{
    base::{sanitize::clean, suggest},
    cli::{
        CommandContext,
        attach::{self, RunningProxy},
        config_edit::{self, ConfigFile},
        error::{CliError, ExitStatus},
        expose::expose_secret,
        output, prompt,
    },
    config::{
        edit::Edit,
        presets::{self, Preset},
        settings::Upstream,
    },
    secrets::{Reference, Secret},
};

/// The label of an upstream's first key; the next are `key2`, `key3`, …
const FIRST_LABEL: &str = "main";
/// So many labels are tried.
const MAX_LABELS: u32 = 100;

/// Adds one key, or with `--missing` every one that is nowhere.
///
/// # Errors
///
/// A key on the command line; an upstream nobody knows; text that is no key; a key that its
/// provider rejects; no keyring.
pub(super) async fn run(ctx: &CommandContext, args: AddArgs) -> Result<ExitStatus, CliError> {
    refuse_argv(&args)?;
    let file = config_edit::load_or_empty(ctx)?;
    let Some(word) = &args.upstream else { return add_missing(ctx, &args, &file).await };
    let (name, label_arg) = parse_key_name(&file, word, args.label.as_deref())?;
    label_arg.as_deref().map_or(Ok(()), check_label)?;
    let plan = AddPlan::build(&file, &name, &args)?;
    // What comes by itself is looked at first; a person is asked when it is sure that there is a
    // place for the answer.
    args.source.ensure_promptable("a key")?;
    let given =
        if args.source.is_noninteractive() { Some(args.source.read("key").await?) } else { None };
    let mut store = open_store(&args, &file).await?;
    if let Some(label) = &label_arg {
        plan.edits(label, &store)?;
    }
    let secret = match given {
        Some(secret) => secret,
        None => args.source.read(&format!("key for {name}")).await?,
    };
    if let Some(label) = plan.existing_label(&file, &store, &secret).await? {
        return ctx.print_result(&format!(
            "{name}/{label} is this very key ({}) already; nothing was changed",
            secret.fingerprint()
        ));
    }
    let label = match &label_arg {
        Some(label) => label.clone(),
        None => plan.unused_label(&store, &secret).await?,
    };
    let entry = format!("{name}/{label}");
    let edits = plan.edits(&label, &store)?;
    let old = store.get(&entry).await?.filter(|old| old.digest() != secret.digest());
    if let Some(old) = &old {
        prompt::confirm(
            ctx,
            &format!("{entry} holds another key ({}): replace it?", old.fingerprint()),
        )
        .await?;
    }
    warn_if_other_provider(&plan, &secret);
    let check_note = verify_key(&args, &plan.upstream, &secret).await?;
    store.put(&entry, &secret).await?;
    if let Err(error) = config_edit::edit_config(ctx, &edits) {
        // Without its reference the key is of no use, and nobody would find it again.
        if old.is_none() {
            drop(store.delete(&entry).await);
        }
        return Err(error);
    }
    attach::reload_if_running(ctx).await;
    let verb = if old.is_some() { "replaced" } else { "stored" };
    let first_key_note = match &label_arg {
        None if label != FIRST_LABEL => format!(
            "; {name}/{FIRST_LABEL} stays as it is, `aiproxy key add {name}/{FIRST_LABEL}` would replace it"
        ),
        _ => String::new(),
    };
    let next = if RunningProxy::try_connect(ctx).is_ok_and(|proxy| proxy.is_some()) {
        ""
    } else {
        "; `aiproxy serve` uses it"
    };
    ctx.print_result(&format!(
        "{entry} ({}) {verb} in {}{check_note}{first_key_note}{next}",
        secret.fingerprint(),
        store.display_name()
    ))
}

/// Upstream and label that `UPSTREAM` or `UPSTREAM/LABEL` means; without a label none was asked
/// for.
fn parse_key_name(
    file: &ConfigFile,
    word: &str,
    label: Option<&str>,
) -> Result<(String, Option<String>), CliError> {
    let is_upstream =
        file.settings.upstreams.iter().any(|u| *u.name == *word) || presets::find(word).is_some();
    match word.rsplit_once('/') {
        Some((upstream, word_label)) if !is_upstream => {
            match label.filter(|label| *label != word_label) {
                Some(label) => Err(CliError::usage(format!(
                    "`{}` and --label {} are two labels",
                    clean(word),
                    clean(label)
                ))
                .hint("give one of them")),
                None => Ok((upstream.to_owned(), Some(word_label.to_owned()))),
            }
        }
        _ => Ok((word.to_owned(), label.map(str::to_owned))),
    }
}

/// A key that came in by the command line is known to every program on the machine: it is not
/// repeated, and not used.
fn refuse_argv(args: &AddArgs) -> Result<(), CliError> {
    let upstream = args.upstream.as_deref();
    let words = upstream
        .into_iter()
        .flat_map(|word| word.split('/').chain([word]))
        .chain(args.label.as_deref());
    if args.key_argument.is_none()
        && args.more.is_empty()
        && !words.into_iter().any(prompt::looks_like_key)
    {
        return Ok(());
    }
    let upstream = upstream.map_or("", |word| word.split('/').next().unwrap_or(word));
    let upstream =
        if upstream.is_empty() || prompt::looks_like_key(upstream) { "UPSTREAM" } else { upstream };
    Err(CliError::usage("a key does not belong on a command line: other programs and the shell's history see it").hint(format!(
        "run `aiproxy key add {upstream}` and type it at the prompt, or pipe it in with --stdin; if it was a real key, make a new one"
    )))
}

/// A label stands in file names, in the config and on the screen.
fn check_label(label: &str) -> Result<(), CliError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if label.is_empty() || label.len() > 64 || !label.chars().all(fine) {
        return Err(CliError::usage(format!("`{}` is no label for a key", clean(label)))
            .hint("letters, digits, `-`, `_`, `.` and `@`, at most 64"));
    }
    Ok(())
}

async fn open_store(args: &AddArgs, file: &ConfigFile) -> Result<KeyStore, CliError> {
    if args.vault {
        return KeyStore::open_vault(&file.paths).await;
    }
    KeyStore::open_keyring().await.map_err(|error| {
        let hint = error.hint.clone().filter(|hint| hint.contains("--vault"));
        error.hint(hint.unwrap_or_else(|| {
            "add --vault to keep the key in a file encrypted with a passphrase".to_owned()
        }))
    })
}

/// What the config needs, worked out before anybody is asked for a key.
struct AddPlan {
    upstream: Arc<Upstream>,
    /// The upstream is not in the config yet.
    preset: Option<&'static Preset>,
    /// Labels that the upstream has already, and where their keys are.
    existing: Vec<(String, Reference)>,
}

impl AddPlan {
    fn build(file: &ConfigFile, name: &str, args: &AddArgs) -> Result<Self, CliError> {
        if let Some(upstream) = file.settings.upstreams.iter().find(|u| *u.name == *name) {
            if args
                .preset
                .as_deref()
                .is_some_and(|preset| upstream.preset.as_deref() != Some(preset))
            {
                return Err(CliError::failed(format!(
                    "`{name}` is an upstream of the config and not of that preset"
                ))
                .hint("leave --preset out, or give the new upstream another name"));
            }
            let known = upstream
                .keys
                .iter()
                .map(|key| (key.label.to_string(), key.reference.clone()))
                .collect();
            return Ok(Self { upstream: Arc::clone(upstream), preset: None, existing: known });
        }
        let wanted = args.preset.as_deref().unwrap_or(name);
        let Some(preset) = presets::find(wanted) else {
            return Err(unknown_upstream_error(file, name, args.preset.as_deref()));
        };
        if preset.needs_url {
            return Err(CliError::failed(format!("{} has a base URL of your own", preset.title))
                .hint(format!("first `aiproxy upstream add {name} --preset {wanted} --base-url URL`, then `aiproxy key add {name}`")));
        }
        if !preset.needs_key() {
            return Err(CliError::failed(format!("{} needs no key", preset.title))
                .hint(format!("`aiproxy upstream add {name} --preset {wanted}` is all")));
        }
        let upstream = config_edit::upstream_from_preset(&file.paths, name, wanted)?;
        Ok(Self { upstream, preset: Some(preset), existing: Vec::new() })
    }

    /// The label of the upstream's key that is this one, as far as no program has to be started to
    /// tell.
    async fn existing_label(
        &self,
        file: &ConfigFile,
        store: &KeyStore,
        secret: &Secret,
    ) -> Result<Option<String>, CliError> {
        let resolver = file.resolver();
        for (label, reference) in &self.existing {
            let stored = match (reference, store.entry_name(reference)) {
                (_, Some(entry)) => store.get(entry).await?,
                (Reference::Command(_), None) => None,
                (reference, None) => resolver.resolve(reference).await.ok(),
            };
            if stored.is_some_and(|stored| stored.digest() == secret.digest()) {
                return Ok(Some(label.clone()));
            }
        }
        Ok(None)
    }

    /// The first label that no other key has.
    async fn unused_label(&self, store: &KeyStore, secret: &Secret) -> Result<String, CliError> {
        let name = &self.upstream.name;
        for number in 1..MAX_LABELS {
            let label = if number == 1 { FIRST_LABEL.to_owned() } else { format!("key{number}") };
            let entry = format!("{name}/{label}");
            if self.edits(&label, store).is_ok()
                && store.get(&entry).await?.is_none_or(|stored| stored.digest() == secret.digest())
            {
                return Ok(label);
            }
        }
        Err(CliError::failed(format!("{name} has {MAX_LABELS} keys and more"))
            .hint("name the new one with --label"))
    }

    /// What is to be changed so that the config uses the key of this label, which the store keeps.
    fn edits(&self, label: &str, store: &KeyStore) -> Result<Vec<Edit>, CliError> {
        let name = self.upstream.name.to_string();
        let reference = store.reference(&format!("{name}/{label}"));
        let mut edits = Vec::new();
        if let Some(preset) = self.preset {
            edits.push(Edit::AddUpstream {
                name: name.clone(),
                preset: Some(preset.name.to_string()),
                base_url: None,
                dialects: Vec::new(),
            });
        }
        match self.existing.iter().find(|(known, _)| known == label) {
            // The same entry with a new key in it.
            Some((_, known)) if known.to_string() == reference => {}
            Some((label, known)) => {
                return Err(CliError::failed(format!(
                    "{name} has a key `{label}` already, kept in {known}"
                ))
                .hint("give the new one another --label, or remove the old one first"));
            }
            None => edits.push(Edit::AddKey { upstream: name, reference, label: None }),
        }
        Ok(edits)
    }
}

fn unknown_upstream_error(file: &ConfigFile, name: &str, preset: Option<&str>) -> CliError {
    let presets = presets::all().iter().map(|p| &*p.name);
    if let Some(preset) = preset {
        let near = suggest::nearest(preset, presets)
            .map(|near| format!("did you mean `{near}`? "))
            .unwrap_or_default();
        return CliError::failed(format!("no preset `{preset}`"))
            .hint(format!("{near}`aiproxy upstream presets` shows all"));
    }
    let known = file.settings.upstreams.iter().map(|u| &*u.name).chain(presets);
    let near = suggest::nearest(name, known)
        .map(|near| format!("did you mean `{near}`? "))
        .unwrap_or_default();
    CliError::failed(format!("no upstream `{name}` in the config, and no preset of that name"))
        .hint(format!(
            "{near}Another provider: `aiproxy upstream add {name} --base-url URL --dialect openai`"
        ))
}

/// Keys of many providers begin in a way of their own.
fn warn_if_other_provider(plan: &AddPlan, secret: &Secret) {
    let preset = plan.upstream.preset.as_deref();
    if let (Some(own), Some(other)) = (preset, presets::by_key_prefix(expose_secret(secret)))
        && *other.name != *own
        && presets::find(own).is_some_and(|preset| preset.key_prefix.is_some())
    {
        output::print_note(&format!(
            "warning: this looks like a key of {}, not of {own}",
            other.title
        ));
    }
}

/// Tries the key; the words for what came of it.
async fn verify_key(
    args: &AddArgs,
    upstream: &Arc<Upstream>,
    secret: &Secret,
) -> Result<String, CliError> {
    if args.no_check {
        return Ok(String::new());
    }
    if output::stderr_is_terminal() {
        output::print_note(&format!("trying the key at {} …", upstream.name));
    }
    match verify::check_key(upstream, Some(secret)).await {
        KeyVerdict::Good { models: Some(models) } => Ok(format!("; it works, {models} models")),
        KeyVerdict::Good { models: None } => Ok("; it works".to_owned()),
        KeyVerdict::Rejected { status, message: said } => Err(CliError::failed(format!(
            "{} rejects the key (status {status}): {said}",
            upstream.name
        ))
        .hint("nothing was stored; --no-check stores a key without trying it")),
        KeyVerdict::Unknown(why) => {
            output::print_note(&format!("warning: the key could not be checked: {why}"));
            Ok("; not checked".to_owned())
        }
    }
}

/// Asks for each `keyring:` and `vault:` reference of the config that nobody holds.
async fn add_missing(
    ctx: &CommandContext,
    args: &AddArgs,
    file: &ConfigFile,
) -> Result<ExitStatus, CliError> {
    let mut stored = 0_u32;
    let (mut keyring, mut vault) = (None, None);
    for upstream in &file.settings.upstreams {
        for key in &upstream.keys {
            let (slot, entry) = match &key.reference {
                Reference::Keyring(entry) => (&mut keyring, entry),
                Reference::Vault(entry) => (&mut vault, entry),
                Reference::Command(_)
                | Reference::Env(_)
                | Reference::File(_)
                | Reference::Literal(_) => continue,
            };
            let store = match slot {
                Some(store) => store,
                None => slot.insert(match &key.reference {
                    Reference::Vault(_) => KeyStore::open_vault(&file.paths).await?,
                    _ => KeyStore::open_keyring().await?,
                }),
            };
            if store.get(entry).await?.is_some() {
                continue;
            }
            let secret = args.source.read(&format!("key {}", key.name)).await?;
            let check_note = verify_key(args, upstream, &secret).await?;
            store.put(entry, &secret).await?;
            output::print_line(&format!(
                "{} ({}) stored in {}{check_note}",
                key.name,
                secret.fingerprint(),
                store.display_name()
            ))?;
            stored += 1;
        }
    }
    if stored > 0 {
        attach::reload_if_running(ctx).await;
    }
    ctx.print_result(match stored {
        0 => "no key is missing",
        _ => "all keys are there",
    })
}
