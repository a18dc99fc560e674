//! Bearer tokens from a file: who may call as whom. Only SHA-256 digests of tokens are kept.
//!
//! The seam for full authentication (OIDC): whatever comes next ends in the same [`Caller`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::SystemTime,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use quittance_domain::ids::{CustomerId, SystemId};

use crate::auth::{Caller, Role};

/// `tokens.toml`, as it is written.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    token: Vec<TokenEntry>,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    /// For the record: who it is.
    name: String,
    sha256: String,
    role: RoleName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    customer: Option<CustomerId>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    systems: BTreeSet<SystemId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    Operator,
    Customer,
    Connector,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{0}: {1}")]
    File(PathBuf, String),
    #[error("the sha256 of token {0} is none: 64 digits of 0-9 and a-f, as `quittanced token add` writes them")]
    Digest(String),
    #[error("a {0} token needs {1}")]
    Missing(&'static str, &'static str),
    #[error("token {0} has the sha256 of one before it: whose it is would be a matter of luck")]
    Twice(String),
    #[error("a {0} is for {1} token: one of another role would not be confined by it. Say role {2}, or leave it out")]
    Unconfined(&'static str, &'static str, &'static str),
}

/// What a new token shall be for.
pub struct NewToken {
    pub name: String,
    pub role: RoleName,
    pub customer: Option<CustomerId>,
    pub systems: BTreeSet<SystemId>,
}

pub struct TokenTable {
    path: PathBuf,
    loaded: RwLock<(Option<SystemTime>, BTreeMap<String, Caller>)>,
}

pub fn sha256_hex(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn caller(entry: &TokenEntry) -> Result<Caller, TokenError> {
    // Anything else lets nobody in, and its owner would look for the reason in vain.
    if entry.sha256.len() != 64 || !entry.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(TokenError::Digest(entry.name.clone()));
    }
    if entry.customer.is_some() && entry.role != RoleName::Customer {
        return Err(TokenError::Unconfined("customer", "a customer's", "customer"));
    }
    if !entry.systems.is_empty() && entry.role != RoleName::Connector {
        return Err(TokenError::Unconfined("system", "a connector's", "connector"));
    }
    let role = match entry.role {
        RoleName::Operator => Role::Operator,
        RoleName::Customer => {
            Role::Customer(entry.customer.clone().ok_or(TokenError::Missing("customer", "a customer"))?)
        }
        RoleName::Connector if entry.systems.is_empty() => {
            return Err(TokenError::Missing("connector", "at least one system"));
        }
        RoleName::Connector => Role::Connector(entry.systems.clone()),
    };
    Ok(Caller { name: entry.name.clone(), role })
}

fn read(path: &Path) -> Result<TokenFile, TokenError> {
    let file_error = |e: &dyn ToString| TokenError::File(path.to_owned(), e.to_string());
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|e| file_error(&e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(TokenFile::default()),
        Err(e) => Err(file_error(&e)),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

impl TokenTable {
    pub fn open(path: &Path) -> Result<Self, TokenError> {
        let table = Self { path: path.to_owned(), loaded: RwLock::new((None, BTreeMap::new())) };
        table.load()?;
        Ok(table)
    }

    fn load(&self) -> Result<(), TokenError> {
        let at = modified(&self.path);
        let mut callers = BTreeMap::new();
        for entry in read(&self.path)?.token {
            if callers.insert(entry.sha256.clone(), caller(&entry)?).is_some() {
                return Err(TokenError::Twice(entry.name));
            }
        }
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = (at, callers);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).1.is_empty()
    }

    /// Whose token it is. A changed file is read again, so a removed token is dead at once. The look-up is by digest: its timing
    /// says nothing of the token.
    pub fn by_digest(&self, sha256: &str) -> Option<Caller> {
        let changed = self.loaded.read().unwrap_or_else(PoisonError::into_inner).0 != modified(&self.path);
        if changed && let Err(error) = self.load() {
            tracing::error!(%error, "the token file cannot be read: the former tokens stay in force");
        }
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).1.get(sha256).cloned()
    }

    /// Adds a token and gives it, this once.
    pub fn add(path: &Path, new: NewToken) -> Result<String, TokenError> {
        let mut random = [0_u8; 32];
        let file_error = |e: &dyn ToString| TokenError::File(path.to_owned(), e.to_string());
        SystemRandom::new().fill(&mut random).map_err(|_| file_error(&"no randomness"))?;
        let token: String = random.iter().map(|b| format!("{b:02x}")).collect();
        let entry = TokenEntry {
            name: new.name,
            sha256: sha256_hex(&token),
            role: new.role,
            customer: new.customer,
            systems: new.systems,
        };
        caller(&entry)?;
        let mut file = read(path)?;
        file.token.push(entry);
        let text = toml::to_string_pretty(&file).map_err(|e| file_error(&e))?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| file_error(&e))?;
        }
        // Written beside and moved: a server that reads it meanwhile sees the old one or the new one.
        let beside = path.with_extension("toml.new");
        fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
            .and_then(|()| fs::rename(&beside, path))
            .map_err(|e| file_error(&e))?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_caller_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let new = NewToken {
            name: "erp".into(),
            role: RoleName::Customer,
            customer: Some(CustomerId::new("acme").unwrap()),
            systems: BTreeSet::new(),
        };
        let token = TokenTable::add(&path, new).unwrap();
        let table = TokenTable::open(&path).unwrap();
        assert!(
            matches!(table.by_digest(&sha256_hex(&token)).unwrap().role, Role::Customer(c) if c.as_str() == "acme")
        );
        assert!(table.by_digest(&sha256_hex("guess")).is_none());
        assert!(!fs::read_to_string(&path).unwrap().contains(&token));
        fs::remove_file(&path).unwrap();
        assert!(table.by_digest(&sha256_hex(&token)).is_none());
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        for digest in ["zz", "", &"A".repeat(64), &"0".repeat(63)] {
            fs::write(&path, format!("[[token]]\nname = \"ops\"\nrole = \"operator\"\nsha256 = \"{digest}\"\n"))
                .unwrap();
            let error = TokenTable::open(&path).err().unwrap().to_string();
            assert!(error.contains("ops") && error.contains("64"), "{error}");
        }
    }

    /// As by hand, or by a template of the deployment's.
    #[test]
    fn a_written_file_confines_as_an_added_token_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let token = |role: &str, of: &str| {
            format!("[[token]]\nname = \"ops\"\n{role}\nsha256 = \"{}\"\n{of}\n", "0".repeat(64))
        };
        for (role, of, word) in [
            ("role = \"operator\"", "customer = \"acme\"", "customer"),
            ("role = \"operator\"", "systems = [\"crm\"]", "system"),
            ("role = \"connector\"", "systems = [\"crm\"]\ncustomer = \"acme\"", "customer"),
        ] {
            fs::write(&path, token(role, of)).unwrap();
            let error = TokenTable::open(&path).err().unwrap().to_string();
            assert!(error.contains(word) && error.contains("confined"), "{error}");
        }
        let operator = token("role = \"operator\"", "");
        fs::write(&path, format!("{operator}{operator}")).unwrap();
        assert!(TokenTable::open(&path).err().unwrap().to_string().contains("of one before it"));
    }

    #[test]
    fn a_customer_token_without_customer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let new = NewToken { name: "x".into(), role: RoleName::Customer, customer: None, systems: BTreeSet::new() };
        assert!(TokenTable::add(&dir.path().join("t.toml"), new).is_err());
    }

    /// Whoever says for whom a token is believes it confined to them.
    #[test]
    fn a_token_that_its_role_does_not_confine_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let add = |role, customer: Option<&str>, systems: &[&str]| {
            let customer = customer.map(|id| CustomerId::new(id).unwrap());
            let systems = systems.iter().map(|id| SystemId::new(id).unwrap()).collect();
            TokenTable::add(&dir.path().join("t.toml"), NewToken { name: "x".into(), role, customer, systems })
        };
        assert!(add(RoleName::Operator, Some("acme"), &[]).unwrap_err().to_string().contains("Say role customer"));
        assert!(add(RoleName::Customer, Some("acme"), &["crm"]).is_err());
        assert!(add(RoleName::Operator, None, &["crm"]).is_err());
        assert!(add(RoleName::Connector, None, &["crm"]).is_ok());
    }
}
