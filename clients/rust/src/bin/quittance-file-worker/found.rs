//! The match set: what was found, as JSON. Stored by the service, sealed, before anything is touched.

use quittance_client::worker::BackendError;
use serde::{Deserialize, Serialize};

use crate::layout::FileAt;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// By path below the root.
    pub files: Vec<FoundFile>,
    /// Folders that bore the restriction's marker when they were first seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restricted: Vec<String>,
    /// Names chosen for supplementary statements, in the order of the corrections: a rerun writes the same files again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFile {
    pub path: String,
    pub size: u64,
}

impl Found {
    /// Empty on a first attempt.
    pub fn read(bytes: &[u8]) -> Result<Self, BackendError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(bytes).map_err(|_| {
            BackendError::NeedsAttention(
                "the stored match set is not one of this worker's: was the system served by another?".to_owned(),
            )
        })
    }

    pub fn write(&self) -> Result<Vec<u8>, BackendError> {
        serde_json::to_vec(self)
            .map_err(|_| BackendError::NeedsAttention("the match set cannot be written as JSON".to_owned()))
    }

    /// What an earlier attempt found stays, with its size of then: it may be erased by now, and counts all the same (I4).
    pub fn add(&mut self, files: Vec<FileAt>) {
        for file in files {
            if let Err(at) = self.files.binary_search_by(|f| f.path.cmp(&file.path)) {
                self.files.insert(at, FoundFile { path: file.path, size: file.size });
            }
        }
    }

    /// Files below a folder.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a FoundFile> {
        self.files.iter().filter(move |f| f.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_finds_stay_and_new_ones_are_added() {
        let at = |path: &str, size| FileAt { path: path.to_owned(), size };
        let mut found = Found::default();
        found.add(vec![at("a/b", 1), at("a/d", 2)]);
        let mut again = Found::read(&found.write().unwrap()).unwrap();
        assert_eq!(again, found);
        again.add(vec![at("a/c", 3), at("a/d", 9)]);
        let paths: Vec<_> = again.files.iter().map(|f| (f.path.as_str(), f.size)).collect();
        assert_eq!(paths, [("a/b", 1), ("a/c", 3), ("a/d", 2)]);
        assert_eq!(again.below("a").count(), 3);
        assert_eq!(again.below("a/").count(), 0);
        assert!(Found::read(b"[1").is_err());
    }
}
