//! `aiproxy key add`: reads a key, tests it, stores it and adds it to the config.

use std::sync::Arc;

use crate::{
    base::{sanitize::clean, suggest},
    cli::{
        attach::{self, RunningProxy},
        config::edit_file::{self, ConfigFile},
        context::CommandContext,
        error::{CliError, ExitStatus},
        expose::expose_secret,
        key::{
            AddKeyArgs,
            store::KeyStore,
            verify::{self, KeyVerdict},
        },
        output, prompt,
    },
    config::{
        edit::Edit,
        presets::{self, Preset},
        settings::Upstream,
    },
    secrets::{Reference, Secret, secret::CLIENT_KEY_PREFIX},
};

/// The label of an upstream's first key; later keys are `key2`, `key3`, …
const FIRST_LABEL: &str = "main";
/// Upper bound for generated labels.
const MAX_LABELS: u32 = 100;

/// Adds one key, or with `--missing` every key that the config refers to and no store contains.
///
/// # Errors
///
/// A key on the command line, an unknown upstream, text that is not a key, a key that its provider
/// rejects, or no keyring.
pub(super) async fn run(ctx: &CommandContext, args: AddKeyArgs) -> Result<ExitStatus, CliError> {
    refuse_argv(&args)?;
    let file = edit_file::load_to_change(ctx)?;
    let Some(word) = &args.upstream else { return add_missing(ctx, &args, &file).await };
    let (name, label_arg) = parse_key_name(&file, word, args.label.as_deref())?;
    label_arg.as_deref().map_or(Ok(()), check_label)?;
    let plan = AddPlan::build(&file, &name, &args)?;
    // Found out before anything is typed or stored.
    if let Ok(edits) = plan.edits(label_arg.as_deref().unwrap_or(FIRST_LABEL)) {
        edit_file::check_edit(ctx, &edits).map_err(nothing_stored)?;
    }
    // Piped input is checked first. A prompt appears only after it is certain that the key can be
    // stored.
    args.source.ensure_promptable("a key")?;
    let piped_key =
        if args.source.is_noninteractive() { Some(args.source.read("key").await?) } else { None };
    if let Some(label) = &label_arg {
        plan.edits(label)?;
    }
    let mut store = open_store(&args, &file).await?;
    let secret = match piped_key {
        Some(secret) => secret,
        None => args.source.read(&format!("key for {name}")).await?,
    };
    if let Some(label) = plan.existing_label(&file, &store, &secret).await? {
        return ctx.print_result(&format!(
            "{name}/{label} already contains this key ({}); nothing was changed",
            secret.fingerprint()
        ));
    }
    let label = match &label_arg {
        Some(label) => label.clone(),
        None => plan.unused_label(&store, &secret).await?,
    };
    let entry = format!("{name}/{label}");
    let edits = plan.edits(&label)?;
    edit_file::check_edit(ctx, &edits).map_err(nothing_stored)?;
    let old = store.get(&entry).await?.filter(|old| old.digest() != secret.digest());
    if let Some(old) = &old {
        prompt::confirm(
            ctx,
            &format!("{entry} contains another key ({}): replace it?", old.fingerprint()),
        )
        .await?;
    }
    warn_if_other_provider(&plan, &secret);
    let check_note = verify_key(&args, &plan.upstream, &secret).await?;
    store.put(&entry, &secret).await?;
    if let Err(error) = edit_file::edit_config(ctx, &edits) {
        // Without its reference in the config the stored key could not be used or found.
        if old.is_none() {
            drop(store.delete(&entry).await);
        }
        return Err(error);
    }
    attach::reload_if_running(ctx).await;
    let verb = if old.is_some() { "replaced" } else { "stored" };
    let first_key_note = match &label_arg {
        None if label != FIRST_LABEL => format!(
            "; {name}/{FIRST_LABEL} is unchanged (`aiproxy key add {name}/{FIRST_LABEL}` replaces it)"
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

/// Adds to an error that the key was not stored.
fn nothing_stored(error: CliError) -> CliError {
    let hint = match &error.hint {
        Some(hint) => format!("nothing was stored; {hint}"),
        None => "nothing was stored".to_owned(),
    };
    error.hint(hint)
}

/// The upstream and label in `UPSTREAM` or `UPSTREAM/LABEL`; the label is `None` if it is omitted.
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
                    "`{}` and --label {} are two different labels",
                    clean(word),
                    clean(label)
                ))
                .hint("give only one of them")),
                None => Ok((upstream.to_owned(), Some(word_label.to_owned()))),
            }
        }
        _ => Ok((word.to_owned(), label.map(str::to_owned))),
    }
}

/// Rejects a key on the command line, where every program on the machine can read it. The error
/// does not repeat the key.
fn refuse_argv(args: &AddKeyArgs) -> Result<(), CliError> {
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
    Err(CliError::usage("a key on the command line is refused: other programs and the shell history can see it").hint(format!(
        "run `aiproxy key add {upstream}` and enter it at the prompt, or pipe it in with --stdin; if this was a real key, revoke it"
    )))
}

/// Checks a label, which appears in file names, in the config and on screen.
fn check_label(label: &str) -> Result<(), CliError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if label.is_empty() || label.len() > 64 || !label.chars().all(is_allowed) {
        return Err(CliError::usage(format!("`{}` is not a valid key label", clean(label)))
            .hint("use up to 64 letters, digits, `-`, `_`, `.` and `@`"));
    }
    Ok(())
}

async fn open_store(args: &AddKeyArgs, file: &ConfigFile) -> Result<KeyStore, CliError> {
    if args.vault {
        return KeyStore::open_vault(&file.paths).await;
    }
    KeyStore::open_keyring().await.map_err(|error| {
        let hint = error.hint.clone().filter(|hint| hint.contains("--vault"));
        error.hint(hint.unwrap_or_else(|| {
            "use --vault to store the key in a file encrypted with a passphrase".to_owned()
        }))
    })
}

/// The config changes for a new key, computed before the prompt.
struct AddPlan {
    upstream: Arc<Upstream>,
    /// The preset, if the upstream is not in the config yet.
    preset: Option<&'static Preset>,
    /// The upstream's existing labels and the references of their keys.
    existing: Vec<(String, Reference)>,
    /// The scheme of references into the store: `keyring` or `vault`.
    scheme: &'static str,
}

impl AddPlan {
    fn build(file: &ConfigFile, name: &str, args: &AddKeyArgs) -> Result<Self, CliError> {
        let scheme = if args.vault { "vault" } else { "keyring" };
        if let Some(upstream) = file.settings.upstreams.iter().find(|u| *u.name == *name) {
            if args
                .preset
                .as_deref()
                .is_some_and(|preset| upstream.preset.as_deref() != Some(preset))
            {
                return Err(CliError::failed(format!(
                    "upstream `{name}` of the config does not use that preset"
                ))
                .hint("omit --preset, or give the new upstream another name"));
            }
            let known = upstream
                .keys
                .iter()
                .map(|key| (key.label.to_string(), key.reference.clone()))
                .collect();
            return Ok(Self {
                upstream: Arc::clone(upstream),
                preset: None,
                existing: known,
                scheme,
            });
        }
        let wanted = args.preset.as_deref().unwrap_or(name);
        let Some(preset) = presets::find(wanted) else {
            return Err(unknown_upstream_error(file, name, args.preset.as_deref()));
        };
        if preset.needs_url {
            return Err(CliError::failed(format!("{} needs a base URL", preset.title))
                .hint(format!("run `aiproxy upstream add {name} --preset {wanted} --base-url URL`, then `aiproxy key add {name}`")));
        }
        if !preset.needs_key() {
            return Err(CliError::failed(format!("{} needs no key", preset.title))
                .hint(format!("`aiproxy upstream add {name} --preset {wanted}` adds it")));
        }
        let upstream = edit_file::upstream_from_preset(&file.paths, name, wanted)?;
        Ok(Self { upstream, preset: Some(preset), existing: Vec::new(), scheme })
    }

    /// The label under which the upstream already has this key, as far as that is known without
    /// starting a program.
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
            if self.edits(&label).is_ok()
                && store.get(&entry).await?.is_none_or(|stored| stored.digest() == secret.digest())
            {
                return Ok(label);
            }
        }
        Err(CliError::failed(format!("{name} already has {MAX_LABELS} keys"))
            .hint("choose a label with --label"))
    }

    /// The edits that make the config use the stored key with this label.
    fn edits(&self, label: &str) -> Result<Vec<Edit>, CliError> {
        let name = self.upstream.name.to_string();
        let reference = format!("{}:{name}/{label}", self.scheme);
        let mut edits = Vec::new();
        if let Some(preset) = self.preset {
            edits.push(Edit::AddUpstream {
                name: name.clone(),
                preset: Some(preset.name.to_string()),
                base_url: None,
                dialects: Vec::new(),
            });
        }
        // A client key in the list is an error, of which a provider's key is the remedy.
        let is_client_key = |key: &&(String, Reference)| match &key.1 {
            Reference::Literal(secret) => expose_secret(secret).starts_with(CLIENT_KEY_PREFIX),
            _ => false,
        };
        edits.extend(
            self.existing
                .iter()
                .filter(is_client_key)
                .map(|(label, _)| Edit::RemoveKey { upstream: name.clone(), label: label.clone() }),
        );
        match self.existing.iter().find(|(known, _)| known == label) {
            // The config already refers to this entry; only the stored key changes.
            Some((_, known)) if known.to_string() == reference => {}
            Some((label, known)) => {
                return Err(CliError::failed(format!(
                    "{name} already has a key `{label}`, stored in {known}"
                ))
                .hint("choose another --label, or remove that key first"));
            }
            None => edits.push(Edit::AddKey { upstream: name, reference, label: None }),
        }
        Ok(edits)
    }
}

fn unknown_upstream_error(file: &ConfigFile, name: &str, preset: Option<&str>) -> CliError {
    let presets = presets::all().iter().map(|p| &*p.name);
    if let Some(preset) = preset {
        let suggestion = suggest::nearest(preset, presets)
            .map(|suggestion| format!("did you mean `{suggestion}`? "))
            .unwrap_or_default();
        return CliError::failed(format!("no preset `{preset}`"))
            .hint(format!("{suggestion}`aiproxy upstream presets` shows all"));
    }
    let known = file.settings.upstreams.iter().map(|u| &*u.name).chain(presets);
    let suggestion = suggest::nearest(name, known)
        .map(|suggestion| format!("did you mean `{suggestion}`? "))
        .unwrap_or_default();
    CliError::failed(format!("`{name}` is neither an upstream of the config nor a preset"))
        .hint(format!(
            "{suggestion}`aiproxy upstream add {name} --base-url URL --dialect openai` adds another provider"
        ))
}

/// Warns if the key has the prefix of another provider.
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

/// Tests the key and returns the result as text.
async fn verify_key(
    args: &AddKeyArgs,
    upstream: &Arc<Upstream>,
    secret: &Secret,
) -> Result<String, CliError> {
    if args.no_check {
        return Ok(String::new());
    }
    if output::stderr_is_terminal() {
        output::print_note(&format!("testing the key at {} …", upstream.name));
    }
    match verify::check_key(upstream, Some(secret)).await {
        KeyVerdict::Good { models: Some(models) } => Ok(format!("; it works, {models} models")),
        KeyVerdict::Good { models: None } => Ok("; it works".to_owned()),
        KeyVerdict::Rejected { status, message } => Err(CliError::failed(format!(
            "{} rejected the key (status {status}): {message}",
            upstream.name
        ))
        .hint("nothing was stored; --no-check stores a key without testing it")),
        KeyVerdict::Unknown(why) => {
            output::print_note(&format!("warning: the key could not be tested: {why}"));
            Ok("; not tested".to_owned())
        }
    }
}

/// Prompts for each `keyring:` and `vault:` reference of the config that has no stored key.
async fn add_missing(
    ctx: &CommandContext,
    args: &AddKeyArgs,
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
        _ => "all keys are stored",
    })
}
