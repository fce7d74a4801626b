//! Which project created a resource that an upstream keeps (a file, a batch, a response), and
//! where: later requests for its id go there, and other projects do not find it.
//!
//! Bounded in number and time, and kept across restarts in a file of ids and names.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::base::{clock::UnixMillis, fs, json::reader, sync::Mutex};

const FILE_NAME: &str = "owners.json";
/// Files of another version are ignored.
const FILE_VERSION: u32 = 1;
/// A larger file was not written by aiproxy.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The oldest are forgotten first.
const MAX_RESOURCES: usize = 4096;
/// Providers keep most of them for a month.
const TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// The file is written at most this often, and when the proxy stops.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Longer ids and names are not recorded.
const MAX_ID_BYTES: usize = 256;
/// Shorter parts of a path are no ids.
const MIN_ID_BYTES: usize = 4;
/// Number of ids that are looked for in a request.
const MAX_IDS: usize = 64;
/// Larger bodies of requests hold no ids that are looked for.
const MAX_BODY_BYTES: usize = 64 << 10;
/// How often a path is decoded, because servers may decode it more than once.
const MAX_DECODINGS: usize = 4;

/// The upstream and the key that have a resource, by name: ids change with a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceOwner {
    pub project: Arc<str>,
    pub upstream: Arc<str>,
    pub key: Arc<str>,
}

/// What is known of the ids in a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Ownership {
    /// No project created them through aiproxy.
    Unknown,
    Own(ResourceOwner),
    /// Only other projects created this one.
    Foreign(String),
}

/// The recorded resources of all projects.
#[derive(Debug, Default)]
pub struct ResourceOwners {
    state: Mutex<OwnersState>,
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct OwnersState {
    by_id: HashMap<Arc<str>, Vec<(UnixMillis, ResourceOwner)>>,
    order: VecDeque<(UnixMillis, Arc<str>)>,
    is_changed: bool,
    saved_at: UnixMillis,
}

#[derive(Debug, Serialize, Deserialize)]
struct OwnersFile {
    version: u32,
    resources: Vec<SavedResource>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedResource {
    id: Arc<str>,
    at: UnixMillis,
    #[serde(flatten)]
    owner: ResourceOwner,
}

impl ResourceOwners {
    /// Reads the file of an earlier run in the data dir; a missing, damaged or foreign file counts
    /// as empty.
    #[must_use]
    pub fn open(data_dir: &Path, now: UnixMillis) -> Self {
        let file = data_dir.join(FILE_NAME);
        let small = std::fs::metadata(&file)
            .is_ok_and(|found| found.is_file() && found.len() <= MAX_FILE_BYTES);
        let bytes = if small { std::fs::read(&file).unwrap_or_default() } else { Vec::new() };
        let mut state = OwnersState { saved_at: now, ..OwnersState::default() };
        if let Ok(found) = serde_json::from_slice::<OwnersFile>(&bytes)
            && found.version == FILE_VERSION
        {
            for SavedResource { id, at, owner } in found.resources {
                state.insert(id, at.min(now), owner);
            }
        }
        state.expire(now);
        state.is_changed = false;
        Self { state: Mutex::new(state), file: Some(file) }
    }

    /// Records who created a resource. One that another project created stays that project's: some
    /// answers name what they were given.
    pub fn record(&self, id: &str, owner: ResourceOwner, now: UnixMillis) {
        let id = last_part(id);
        if !(MIN_ID_BYTES..=MAX_ID_BYTES).contains(&id.len()) {
            return;
        }
        let mut state = self.state.lock();
        let known = state.by_id.get(id).map(Vec::as_slice).unwrap_or_default();
        if known.iter().any(|(_, other)| other.upstream == owner.upstream) {
            return;
        }
        state.insert(Arc::from(id), now, owner);
        state.expire(now);
    }

    /// Returns who created a resource, if it was this project.
    #[must_use]
    pub fn find(&self, project: &str, id: &str) -> Option<ResourceOwner> {
        let state = self.state.lock();
        let mut owners = state.by_id.get(id)?.iter().map(|(_, owner)| owner);
        owners.find(|owner| *owner.project == *project).cloned()
    }

    /// Forgets a resource that its project deletes.
    pub fn remove(&self, project: &str, id: &str) {
        let state = &mut *self.state.lock();
        let Some(owners) = state.by_id.get_mut(id) else { return };
        let is_own = |(_, owner): &(UnixMillis, ResourceOwner)| *owner.project == *project;
        let Some((at, _)) = owners.iter().position(is_own).map(|index| owners.remove(index)) else {
            return;
        };
        if owners.is_empty() {
            state.by_id.remove(id);
        }
        if let Some(index) = state.order.iter().position(|(when, of)| *when == at && **of == *id) {
            state.order.remove(index);
        }
        state.is_changed = true;
    }

    /// Returns to whom the ids in a request belong. One of another project counts before all.
    #[must_use]
    pub fn ownership(&self, project: &str, path: &str, body: &[u8]) -> Ownership {
        let state = self.state.lock();
        if state.by_id.is_empty() {
            return Ownership::Unknown;
        }
        let mut own = None;
        for id in ids_in_path(path).into_iter().chain(ids_in_body(body)) {
            let Some(owners) = state.by_id.get(id.as_str()) else { continue };
            match owners.iter().find(|(_, owner)| *owner.project == *project) {
                Some((_, owner)) => own = own.or_else(|| Some(owner.clone())),
                None => return Ownership::Foreign(id),
            }
        }
        own.map_or(Ownership::Unknown, Ownership::Own)
    }

    /// Writes the file if something changed, and not more often than once a minute unless the proxy
    /// stops.
    pub fn save(&self, now: UnixMillis, stops: bool) {
        let Some(file) = &self.file else { return };
        let mut state = self.state.lock();
        if !state.is_changed || (!stops && now.0 - state.saved_at.0 < millis(SAVE_EVERY)) {
            return;
        }
        (state.is_changed, state.saved_at) = (false, now);
        let resources = state.rows();
        drop(state);
        let written = serde_json::to_vec(&OwnersFile { version: FILE_VERSION, resources })
            .map_err(std::io::Error::from)
            .and_then(|bytes| fs::write_atomic(file, &bytes, 0o600));
        if let Err(e) = written {
            tracing::warn!(file = %file.display(), "who created which files and batches is not kept over a restart: {e}");
        }
    }
}

impl OwnersState {
    fn insert(&mut self, id: Arc<str>, at: UnixMillis, owner: ResourceOwner) {
        self.is_changed = true;
        self.by_id.entry(Arc::clone(&id)).or_default().push((at, owner));
        self.order.push_back((at, id));
    }

    /// Forgets the oldest while there are too many, and those that are too old.
    fn expire(&mut self, now: UnixMillis) {
        while let Some((at, _)) = self.order.front() {
            if self.order.len() <= MAX_RESOURCES && now.0 - at.0 < millis(TTL) {
                return;
            }
            let Some((_, id)) = self.order.pop_front() else { return };
            if let Some(owners) = self.by_id.get_mut(&id) {
                owners.remove(0);
                if owners.is_empty() {
                    self.by_id.remove(&id);
                }
            }
        }
    }

    fn rows(&self) -> Vec<SavedResource> {
        let mut rows: Vec<SavedResource> = (self.by_id.iter())
            .flat_map(|(id, owners)| {
                owners.iter().map(|(at, owner)| SavedResource {
                    id: Arc::clone(id),
                    at: *at,
                    owner: owner.clone(),
                })
            })
            .collect();
        rows.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        rows
    }
}

/// Returns the ids that an answer names as created: `id` or `name` of the object or of the `file`
/// in it, and the files of a batch. The text may be cut off.
#[must_use]
pub fn created_ids(answer: &[u8]) -> Vec<String> {
    let valid = match std::str::from_utf8(answer) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&answer[..e.valid_up_to()]).unwrap_or_default(),
    };
    let (mut ids, mut in_file) = (Vec::new(), false);
    // A text that is cut off ends with an error; the keys before it were seen.
    let _: Result<_, _> = reader::visit(valid.as_bytes(), |depth, key, value| {
        if depth == 1 {
            in_file = key == b"file";
        }
        let names_it = match key {
            b"id" | b"name" => depth == 1 || (depth == 2 && in_file),
            b"output_file_id" | b"error_file_id" => depth == 1,
            _ => false,
        };
        if names_it && ids.len() < MAX_IDS && value.starts_with(b"\"") {
            let text = &value[1..];
            let end = text.iter().position(|b| matches!(b, b'"' | b'\\'));
            let id = end.and_then(|end| std::str::from_utf8(&text[..end]).ok());
            // A name without a folder is a title.
            let id = id.filter(|id| key != b"name" || id.contains('/'));
            ids.extend(id.map(str::to_owned));
        }
    });
    ids
}

/// Returns the parts of a path that may be ids, in every spelling that a server may decode.
fn ids_in_path(path: &str) -> Vec<String> {
    let mut text = path.to_owned();
    for _ in 0..MAX_DECODINGS {
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == text {
            break;
        }
        text = decoded;
    }
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    parts.filter(|part| part.len() >= MIN_ID_BYTES).take(MAX_IDS).map(str::to_owned).collect()
}

/// Returns the values of `…_id` and `…_ids` in a JSON body.
fn ids_in_body(body: &[u8]) -> Vec<String> {
    if body.len() > MAX_BODY_BYTES || !body.trim_ascii_start().starts_with(b"{") {
        return Vec::new();
    }
    let Ok(json) = reader::parse(body) else { return Vec::new() };
    let named = json.members().filter(|(key, _)| key.ends_with("_id") || key.ends_with("_ids"));
    let listed = named.flat_map(|(_, value)| std::iter::once(value).chain(value.items()));
    listed.filter_map(reader::JsonRef::string).take(MAX_IDS).collect()
}

/// The part of a name behind the folder: Gemini's names are paths.
fn last_part(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn owner(project: &str, upstream: &str) -> ResourceOwner {
        ResourceOwner { project: project.into(), upstream: upstream.into(), key: "k".into() }
    }

    #[test]
    fn resource_belongs_to_its_project_only() {
        let owners = ResourceOwners::default();
        owners.record("file-abc", owner("a", "one"), NOW);
        owners.record("file-abc", owner("b", "one"), NOW);

        let at = |project, path| owners.ownership(project, path, b"");
        assert_eq!(at("a", "/files/file-abc/content"), Ownership::Own(owner("a", "one")));
        for path in ["/files/file-abc", "/v1/files/%66ile-abc", "/f/%2566ile-abc;x", "/file-abc:x"]
        {
            assert_eq!(at("b", path), Ownership::Foreign("file-abc".to_owned()), "{path}");
        }
        assert_eq!(at("b", "/files/file-other"), Ownership::Unknown);
        for body in [&br#"{"input_file_id":"file-abc"}"#[..], br#"{"file_ids":["x","file-abc"]}"#] {
            assert_eq!(
                owners.ownership("b", "/batches", body),
                Ownership::Foreign("file-abc".to_owned())
            );
        }
    }

    #[test]
    fn deleted_resource_is_unknown_again() {
        let owners = ResourceOwners::default();
        owners.record("resp_abc", owner("a", "one"), NOW);
        owners.record("resp_abc", owner("b", "two"), NOW);
        owners.remove("a", "resp_abc");
        owners.remove("c", "resp_abc");
        assert!(owners.find("a", "resp_abc").is_none() && owners.find("b", "resp_abc").is_some());
        owners.remove("b", "resp_abc");
        assert_eq!(owners.ownership("a", "/responses/resp_abc", b""), Ownership::Unknown);
        assert!(owners.state.lock().order.is_empty());
    }

    #[test]
    fn ids_are_read_from_truncated_answers() {
        let text = r#"{"id":"batch_1","name":"my title","file":{"id":"file-2","name":"files/f3"},"x":{"id":"no"},"output_file_id":"file-4","y":"é"#;
        let want = ["batch_1", "file-2", "files/f3", "file-4"];
        assert_eq!(created_ids(text.as_bytes()), want);
        assert_eq!(created_ids(&text.as_bytes()[..text.len() - 1]), want);
        for odd in ["", "[]", "{\"id\":7}", "{\"id\":\"cut", "\"id\""] {
            assert!(created_ids(odd.as_bytes()).is_empty(), "{odd}");
        }
    }

    #[test]
    fn owners_are_bounded_and_restored_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let owners = ResourceOwners::open(dir.path(), NOW);
        for n in 0..MAX_RESOURCES + 10 {
            owners.record(&format!("file-{n}"), owner("a", "one"), NOW);
        }
        owners.save(NOW, false);
        assert!(!dir.path().join(FILE_NAME).exists(), "not before a minute is over");
        owners.save(NOW, true);

        let again = ResourceOwners::open(dir.path(), NOW);
        assert_eq!(again.find("a", "file-9"), None, "the oldest are forgotten");
        assert_eq!(again.find("a", "file-10"), Some(owner("a", "one")));
        assert_eq!(again.find("b", "file-10"), None);
        let later = UnixMillis(NOW.0 + millis(TTL));
        assert_eq!(ResourceOwners::open(dir.path(), later).find("a", "file-10"), None);
        let damaged = b"{\"version\":1,";
        fs::write_atomic(&dir.path().join(FILE_NAME), damaged, 0o600).expect("written");
        assert_eq!(ResourceOwners::open(dir.path(), NOW).find("a", "file-10"), None);
    }
}
