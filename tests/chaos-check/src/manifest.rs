//! Where everything lies that a run left behind: `manifest.json` in the run's folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::CheckError;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The store's URL. On PostgreSQL of a role that row-level security hides nothing from.
    pub store: String,
    /// The folder that the log was published in.
    pub published: PathBuf,
    /// The log's public keys, one of which must have signed.
    pub log_keys: Vec<String>,
    /// What clients sent and were told ([`crate::journal`]).
    pub journal: PathBuf,
    /// What the application databases held before the first request.
    pub before: PathBuf,
    pub apps: Apps,
    /// The systems that every customer's request goes to.
    pub systems: Vec<String>,
    /// What the service's processes wrote.
    pub logs: Vec<PathBuf>,
}

/// The application databases: two by URL, and a folder of files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Apps {
    pub crm: String,
    pub shop: String,
    pub files: PathBuf,
}

impl Manifest {
    pub fn read(folder: &Path) -> Result<Self, CheckError> {
        let path = folder.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(|e| CheckError::File(path.clone(), e))?;
        serde_json::from_str(&text).map_err(|e| CheckError::Form(path, e))
    }

    pub fn write(&self, folder: &Path) -> Result<(), CheckError> {
        let path = folder.join("manifest.json");
        let text = serde_json::to_string_pretty(self).map_err(|e| CheckError::Form(path.clone(), e))?;
        fs::write(&path, text).map_err(|e| CheckError::File(path, e))
    }
}
