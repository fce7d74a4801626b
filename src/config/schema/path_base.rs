//! Paths in the config file: relative to its folder, or to the home folder.

use std::path::{Path, PathBuf};

use crate::secrets::Reference;

/// The folders that paths in the file are relative to.
#[derive(Clone, Copy)]
pub(in crate::config) struct PathBase<'a> {
    pub(in crate::config) folder: &'a Path,
    pub(in crate::config) home: Option<&'a Path>,
}

impl PathBase<'_> {
    /// Resolves `~/x` in the home folder, and `x` next to the config file.
    pub(in crate::config) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(self.resolve_home(path))
    }

    /// Resolves `~/x` in the home folder; other paths stay.
    pub(in crate::config) fn resolve_home(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }

    /// Resolves the path of a reference to a file.
    pub(in crate::config) fn absolute_reference(&self, reference: Reference) -> Reference {
        match reference {
            Reference::File(path) => Reference::File(self.resolve(&path)),
            other => other,
        }
    }
}
