//! The log's keys: a folder that only the service's user can read, outside the database. `{n}.key` holds a signer key as Go's note
//! package writes it; `history.json` tells since when, until when, and whether each is still used. Every certificate carries that history.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use quittance_domain::Timestamp;
use quittance_ledger::{
    certificate::{KeyStatus, LogKey},
    checkpoint::{Checkpoint, CheckpointError, LogKeys, SignedHead},
    key::{KeyName, KeyType, SEED_BYTES, SignerKey, VerifierKey},
    note::{Signature, SignedNote},
    tree::TreeHead,
};

use crate::durable;

const HISTORY: &str = "history.json";
/// Held while the first key is made.
const LOCK: &str = "making.lock";

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{path}: {what}")]
    File { path: PathBuf, what: String },
    #[error("{0} holds no key of the log, and the store's log has begun: restore the folder from where it was kept")]
    Lost(PathBuf),
    #[error("the log of this store is {theirs}, and the keys in {path} are of {ours}: restore the log's own keys")]
    OtherLog { path: PathBuf, ours: String, theirs: String },
}

fn bad(path: &Path, what: impl ToString) -> KeyFileError {
    KeyFileError::File { path: path.to_owned(), what: what.to_string() }
}

/// All keys that the log ever had; those that sign have their secret part.
#[derive(Debug)]
pub struct LogKeyRing {
    folder: PathBuf,
    origin: KeyName,
    signers: Vec<SignerKey>,
    history: Vec<LogKey>,
}

impl LogKeyRing {
    /// Opens the folder. Where it holds none and `begun` is none, a first key is made for `origin`.
    pub fn open(folder: &Path, origin: &str, begun: Option<&str>, now: Timestamp) -> Result<Self, KeyFileError> {
        let history_file = folder.join(HISTORY);
        if !history_file.exists() {
            if begun.is_some() {
                return Err(KeyFileError::Lost(folder.to_owned()));
            }
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| bad(folder, e))?;
            let name: KeyName = origin.parse().map_err(|e| bad(folder, e))?;
            // Replicas that are started together come here together: one of them makes the key, and the others find it.
            let path = folder.join(LOCK);
            let lock = fs::File::create(&path).map_err(|e| bad(&path, e))?;
            lock.lock().map_err(|e| bad(&path, e))?;
            if !history_file.exists() {
                write_new_key(folder, &name, &[], now)?;
            }
        }
        private(folder, 0o700)?;
        let text = fs::read(&history_file).map_err(|e| bad(&history_file, e))?;
        let history: Vec<LogKey> = serde_json::from_slice(&text).map_err(|e| bad(&history_file, e))?;
        let mut signers = Vec::new();
        for (n, key) in history.iter().enumerate().filter(|(_, key)| key.status == KeyStatus::Current) {
            let path = key_file(folder, n);
            private(&path, 0o600)?;
            let text = fs::read_to_string(&path).map_err(|e| bad(&path, e))?;
            let signer = SignerKey::decode(text.trim_end()).map_err(|e| bad(&path, e))?;
            if signer.verifier().to_string() != key.vkey {
                return Err(bad(&path, "is another key than the history says"));
            }
            signers.push(signer);
        }
        let first = signers.first().ok_or_else(|| bad(&history_file, "no key is current"))?;
        let origin = first.verifier().name().clone();
        if let Some(theirs) = begun.filter(|theirs| *theirs != origin.as_str()) {
            let (ours, theirs) = (origin.as_str().to_owned(), theirs.to_owned());
            return Err(KeyFileError::OtherLog { path: folder.to_owned(), ours, theirs });
        }
        let ring = Self { folder: folder.to_owned(), origin, signers, history };
        // All of one log.
        ring.log_keys()?;
        Ok(ring)
    }

    pub const fn origin(&self) -> &KeyName {
        &self.origin
    }

    /// Those that sign now, oldest first: more than one while a key is rotated.
    pub fn signers(&self) -> Vec<&SignerKey> {
        self.signers.iter().collect()
    }

    /// The newest that signs: for what bears one signature.
    pub fn newest(&self) -> &SignerKey {
        // `open` has made sure of one.
        &self.signers[self.signers.len() - 1]
    }

    /// What the log says of itself at this head, signed by every key that signs.
    pub fn sign(&self, head: TreeHead) -> Result<SignedHead, CheckpointError> {
        let note = Checkpoint::new(self.origin.as_str(), head)?.sign(&self.signers())?;
        Ok(SignedHead { head, note })
    }

    /// A checkpoint of before, proven to be of a beginning of the log, signed by every key that signs now as well: whoever knows these alone
    /// believes it, too. The other signatures stay.
    pub fn sign_again(&self, old: &SignedNote) -> Result<SignedHead, CheckpointError> {
        let head = *Checkpoint::parse(old.text())?.head();
        let ours = self.sign(head)?.note;
        if ours.text() != old.text() {
            let found = old.text().lines().next().unwrap_or_default().to_owned();
            return Err(CheckpointError::OtherLog { expected: self.origin.to_string(), found });
        }
        let mut note = old.clone();
        for signature in ours.signatures() {
            let same = |other: &Signature| other.name() == signature.name() && other.id() == signature.id();
            if !note.signatures().iter().any(same) {
                note.add(signature.clone())?;
            }
        }
        Ok(SignedHead { head, note })
    }

    /// All that ever signed and are not revoked: what was signed with them stands.
    pub fn log_keys(&self) -> Result<LogKeys, KeyFileError> {
        usable(&self.folder, &self.history)
    }

    /// As [`Self::log_keys`], with those that were added since we opened the folder: while a key is rotated, replicas that have started
    /// again sign with one that we do not sign with yet.
    pub fn known_now(&self) -> Result<LogKeys, KeyFileError> {
        Self::public(&self.folder)
    }

    pub fn history(&self) -> &[LogKey] {
        &self.history
    }

    /// Adds a key that signs beside the present ones, until these are retired.
    pub fn add(folder: &Path, now: Timestamp) -> Result<VerifierKey, KeyFileError> {
        let (origin, history) = Self::read_history(folder)?;
        write_new_key(folder, &origin, &history, now)
    }

    /// The newest key alone signs from now on; the others' secret parts are destroyed.
    pub fn retire_older(folder: &Path, now: Timestamp) -> Result<usize, KeyFileError> {
        let (_, mut history) = Self::read_history(folder)?;
        let newest = history.len() - 1;
        let mut retired = 0;
        for key in history[..newest].iter_mut().filter(|key| key.status == KeyStatus::Current) {
            (key.to, key.status) = (Some(now), KeyStatus::Retired);
            retired += 1;
        }
        // First the history: a current key without its file could not be opened.
        write_history(folder, &history)?;
        for (n, _) in history[..newest].iter().enumerate() {
            let path = key_file(folder, n);
            if path.exists() {
                fs::remove_file(&path).map_err(|e| bad(&path, e))?;
            }
        }
        Ok(retired)
    }

    /// Those that signatures are checked with, oldest first.
    pub fn public(folder: &Path) -> Result<LogKeys, KeyFileError> {
        let (_, history) = Self::read_history(folder)?;
        usable(folder, &history)
    }

    fn read_history(folder: &Path) -> Result<(KeyName, Vec<LogKey>), KeyFileError> {
        let path = folder.join(HISTORY);
        let text = fs::read(&path).map_err(|e| bad(&path, e))?;
        let history: Vec<LogKey> = serde_json::from_slice(&text).map_err(|e| bad(&path, e))?;
        let newest = history.last().ok_or_else(|| bad(&path, "holds no key"))?;
        let key: VerifierKey = newest.vkey.parse().map_err(|e| bad(&path, e))?;
        Ok((key.name().clone(), history))
    }
}

fn usable(folder: &Path, history: &[LogKey]) -> Result<LogKeys, KeyFileError> {
    let kept = history.iter().filter(|key| key.status != KeyStatus::Revoked);
    let keys: Result<Vec<VerifierKey>, _> = kept.map(|key| key.vkey.parse()).collect();
    let keys = keys.map_err(|e| bad(&folder.join(HISTORY), e))?;
    LogKeys::new(keys).map_err(|e| bad(&folder.join(HISTORY), e))
}

fn key_file(folder: &Path, n: usize) -> PathBuf {
    folder.join(format!("{}.key", n + 1))
}

fn private(path: &Path, mode: u32) -> Result<(), KeyFileError> {
    let about = fs::metadata(path).map_err(|e| bad(path, e))?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(bad(path, format!("others can read it; run chmod {mode:o} on it")));
    }
    Ok(())
}

fn write_new_key(
    folder: &Path,
    name: &KeyName,
    before: &[LogKey],
    now: Timestamp,
) -> Result<VerifierKey, KeyFileError> {
    let mut seed = [0; SEED_BYTES];
    SystemRandom::new().fill(&mut seed).map_err(|_| bad(folder, "the system has no randomness"))?;
    let signer = SignerKey::from_seed(name.clone(), KeyType::Ed25519, &seed).map_err(|e| bad(folder, e))?;
    let path = key_file(folder, before.len());
    write_durably(&path, signer.encode().as_bytes())?;
    let new = LogKey { vkey: signer.verifier().to_string(), from: now, to: None, status: KeyStatus::Current };
    let history: Vec<LogKey> = before.iter().cloned().chain([new]).collect();
    write_history(folder, &history)?;
    Ok(signer.verifier().clone())
}

fn write_history(folder: &Path, history: &[LogKey]) -> Result<(), KeyFileError> {
    let path = folder.join(HISTORY);
    let text = serde_json::to_vec_pretty(history).map_err(|e| bad(&path, e))?;
    write_durably(&path, &text)
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    durable::write(path, bytes, 0o600).map_err(|e| bad(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    /// The one's key beside the other's history opened for nobody ever again (found by chaos, in the start of three replicas).
    #[test]
    fn of_replicas_that_start_together_one_makes_the_key() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("log");
            let together = std::sync::Barrier::new(6);
            let open = |n: usize| {
                together.wait();
                LogKeyRing::open(&folder, &format!("log.example/{n}"), None, at(1)).unwrap()
            };
            let rings: Vec<LogKeyRing> = std::thread::scope(|s| {
                let all: Vec<_> = (0..6)
                    .map(|n| {
                        s.spawn({
                            let open = &open;
                            move || open(n)
                        })
                    })
                    .collect();
                all.into_iter().map(|ring| ring.join().unwrap()).collect()
            });
            assert!(rings.iter().all(|ring| ring.history() == rings[0].history()));
        }
    }

    #[test]
    fn a_ring_is_made_once_and_never_again_for_a_log_that_has_begun() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("log");
        let made = LogKeyRing::open(&folder, "log.example/1", None, at(1)).unwrap();
        let again = LogKeyRing::open(&folder, "other", Some("log.example/1"), at(2)).unwrap();
        assert_eq!(made.history(), again.history());
        assert!(matches!(
            LogKeyRing::open(&folder, "log.example/1", Some("another"), at(2)),
            Err(KeyFileError::OtherLog { .. })
        ));
        fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(
            LogKeyRing::open(&folder, "log.example/1", Some("log.example/1"), at(3)),
            Err(KeyFileError::Lost(_))
        ));
    }

    #[test]
    fn while_a_key_is_rotated_both_sign_and_the_history_says_when() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("log");
        let first = LogKeyRing::open(&folder, "log.example/1", None, at(1)).unwrap();
        let new = LogKeyRing::add(&folder, at(10)).unwrap();
        let both = LogKeyRing::open(&folder, "", Some("log.example/1"), at(11)).unwrap();
        assert_eq!(both.signers().len(), 2);
        assert_eq!(both.newest().verifier(), &new);
        assert_eq!(LogKeyRing::retire_older(&folder, at(20)).unwrap(), 1);
        let after = LogKeyRing::open(&folder, "", Some("log.example/1"), at(21)).unwrap();
        assert_eq!(after.signers().len(), 1);
        assert_eq!((after.history()[0].to, after.history()[0].status), (Some(at(20)), KeyStatus::Retired));
        // What the first signed is still believed.
        assert!(after.log_keys().unwrap().keys().contains(first.newest().verifier()));
        assert!(!key_file(&folder, 0).exists());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("log");
        LogKeyRing::open(&folder, "log.example/1", None, at(1)).unwrap();
        fs::set_permissions(key_file(&folder, 0), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(LogKeyRing::open(&folder, "", Some("log.example/1"), at(2)).is_err());
    }
}
