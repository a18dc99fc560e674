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
    key::{KeyId, KeyName, KeyType, SEED_BYTES, SignerKey, VerifierKey},
    note::SignedNote,
    tree::TreeHead,
};

use crate::durable;

const HISTORY: &str = "history.json";
/// Held while the first key is made, and while the history changes: of two changes at once, one would be lost.
const LOCK: &str = "making.lock";

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{path}: {what}")]
    File { path: PathBuf, what: String },
    #[error("{0} holds no key of the log, and the store's log has begun: restore the folder from where it was kept")]
    Lost(PathBuf),
    #[error("the log of this store is {theirs}, and the keys in {path} are of {ours}: restore the log's own keys")]
    OtherLog { path: PathBuf, ours: String, theirs: String },
    #[error("{0} is the id of no key in {1}: `quittanced ledger keys` prints them")]
    Unknown(KeyId, PathBuf),
    #[error(
        "{0} is the newest key, and nothing else would sign the log then: run `quittanced ledger add-key`, start every quittanced again, and \
         revoke it after that"
    )]
    Newest(KeyId),
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
            let _lock = locked(folder)?;
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

    /// For what bears one signature: the newest that is in use by this clock. A replica whose clock is behind that of the one that made a key
    /// signs with an older one until then: what is issued before its key began is refused for ever. `None`: no key has begun.
    pub fn signer_at(&self, now: Timestamp) -> Option<&SignerKey> {
        let current = self.history.iter().filter(|key| key.status == KeyStatus::Current);
        // `open` has made one signer of each.
        let in_use = self.signers.iter().zip(current).filter(|(_, key)| key.is_in_use_at(now));
        in_use.last().map(|(signer, _)| signer)
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
            if !has_signed(old, signature.name(), signature.id()) {
                note.add(signature.clone())?;
            }
        }
        Ok(SignedHead { head, note })
    }

    /// Whether every key that signs now has signed it. Else one was added since.
    pub fn have_all_signed(&self, note: &SignedNote) -> bool {
        self.signers.iter().all(|signer| has_signed(note, signer.verifier().name(), signer.verifier().id()))
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

    /// Those that are lost, or known to others.
    pub fn revoked(&self) -> Result<Vec<VerifierKey>, KeyFileError> {
        let revoked = self.history.iter().filter(|key| key.status == KeyStatus::Revoked);
        verifiers(&self.folder, revoked)
    }

    /// Adds a key that signs beside the present ones, until these are retired.
    pub fn add(folder: &Path, now: Timestamp) -> Result<VerifierKey, KeyFileError> {
        let _lock = locked(folder)?;
        let (origin, history) = Self::read_history(folder)?;
        write_new_key(folder, &origin, &history, now)
    }

    /// The newest key alone signs from now on; the others' secret parts are destroyed.
    pub fn retire_older(folder: &Path, now: Timestamp) -> Result<usize, KeyFileError> {
        let _lock = locked(folder)?;
        let (_, mut history) = Self::read_history(folder)?;
        let newest = history.len() - 1;
        let mut retired = 0;
        for key in history[..newest].iter_mut().filter(|key| key.status == KeyStatus::Current) {
            (key.to, key.status) = (Some(now), KeyStatus::Retired);
            retired += 1;
        }
        write_history(folder, &history)?;
        (0..newest).try_for_each(|n| destroy(folder, n))?;
        Ok(retired)
    }

    /// A key that is lost, or known to others: what it alone has signed is not believed any more, and its secret part is destroyed. What the
    /// log says of itself must be believed without it by then: see [`Self::without`]. Done again, it changes nothing.
    pub fn revoke(folder: &Path, id: KeyId, now: Timestamp) -> Result<(), KeyFileError> {
        let _lock = locked(folder)?;
        let (_, mut history) = Self::read_history(folder)?;
        let at = revocable(folder, &history, id)?;
        let key = &mut history[at];
        if key.status != KeyStatus::Revoked {
            // A retired one was in use until then.
            (key.to, key.status) = (Some(key.to.unwrap_or(now)), KeyStatus::Revoked);
            write_history(folder, &history)?;
        }
        destroy(folder, at)
    }

    /// Those that are believed when this one is revoked.
    pub fn without(folder: &Path, id: KeyId) -> Result<LogKeys, KeyFileError> {
        let (_, mut history) = Self::read_history(folder)?;
        let at = revocable(folder, &history, id)?;
        history.remove(at);
        usable(folder, &history)
    }

    /// Those that signatures are checked with, oldest first.
    pub fn public(folder: &Path) -> Result<LogKeys, KeyFileError> {
        let (_, history) = Self::read_history(folder)?;
        usable(folder, &history)
    }

    /// Those that ever signed, revoked ones too: for what was signed while they were believed.
    pub fn ever(folder: &Path) -> Result<LogKeys, KeyFileError> {
        let (_, history) = Self::read_history(folder)?;
        let keys = verifiers(folder, history.iter())?;
        LogKeys::new(keys).map_err(|e| bad(&folder.join(HISTORY), e))
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

fn has_signed(note: &SignedNote, name: &KeyName, id: KeyId) -> bool {
    note.signatures().iter().any(|signature| signature.name() == name && signature.id() == id)
}

fn verifiers<'a>(folder: &Path, keys: impl Iterator<Item = &'a LogKey>) -> Result<Vec<VerifierKey>, KeyFileError> {
    keys.map(|key| key.vkey.parse().map_err(|e| bad(&folder.join(HISTORY), e))).collect()
}

fn usable(folder: &Path, history: &[LogKey]) -> Result<LogKeys, KeyFileError> {
    let keys = verifiers(folder, history.iter().filter(|key| key.status != KeyStatus::Revoked))?;
    LogKeys::new(keys).map_err(|e| bad(&folder.join(HISTORY), e))
}

/// Where in the history the key stands. It must not be the newest: that one signs what bears one signature.
fn revocable(folder: &Path, history: &[LogKey], id: KeyId) -> Result<usize, KeyFileError> {
    let keys = verifiers(folder, history.iter())?;
    let at = keys.iter().position(|key| key.id() == id).ok_or_else(|| KeyFileError::Unknown(id, folder.to_owned()))?;
    if at + 1 == keys.len() { Err(KeyFileError::Newest(id)) } else { Ok(at) }
}

/// One that changes the keys at a time, also among processes.
fn locked(folder: &Path) -> Result<fs::File, KeyFileError> {
    let path = folder.join(LOCK);
    let lock = fs::File::create(&path).map_err(|e| bad(&path, e))?;
    lock.lock().map_err(|e| bad(&path, e))?;
    Ok(lock)
}

/// The secret part. The history says by then that it is not needed: a current key without its file could not be opened.
fn destroy(folder: &Path, n: usize) -> Result<(), KeyFileError> {
    let path = key_file(folder, n);
    if path.exists() { fs::remove_file(&path).map_err(|e| bad(&path, e)) } else { Ok(()) }
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
        let signs_at = |ring: &LogKeyRing, s| ring.signer_at(at(s)).map(|signer| signer.verifier().clone());
        let old = first.signers()[0].verifier();
        assert_eq!(signs_at(&both, 10).as_ref(), Some(&new));
        // By a clock that is behind that of who made the key.
        assert_eq!((signs_at(&both, 9).as_ref(), signs_at(&both, 0)), (Some(old), None));
        assert_eq!(LogKeyRing::retire_older(&folder, at(20)).unwrap(), 1);
        let after = LogKeyRing::open(&folder, "", Some("log.example/1"), at(21)).unwrap();
        assert_eq!(after.signers().len(), 1);
        assert_eq!((after.history()[0].to, after.history()[0].status), (Some(at(20)), KeyStatus::Retired));
        assert_eq!((signs_at(&after, 10).as_ref(), signs_at(&after, 9)), (Some(&new), None));
        // What the first signed is still believed.
        assert!(after.log_keys().unwrap().keys().contains(old));
        assert!(!key_file(&folder, 0).exists());
    }

    #[test]
    fn a_key_is_revoked_when_a_newer_one_signs_and_not_believed_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("log");
        let first = LogKeyRing::open(&folder, "log.example/1", None, at(1)).unwrap();
        let old = first.signers()[0].verifier().id();
        assert!(matches!(LogKeyRing::revoke(&folder, old, at(5)), Err(KeyFileError::Newest(_))));
        let new = LogKeyRing::add(&folder, at(10)).unwrap();
        assert!(matches!(LogKeyRing::revoke(&folder, new.id(), at(11)), Err(KeyFileError::Newest(_))));
        let nobodys = KeyId(old.0 ^ new.id().0 ^ 1);
        assert!(matches!(LogKeyRing::revoke(&folder, nobodys, at(11)), Err(KeyFileError::Unknown(..))));
        for now in [20, 21] {
            LogKeyRing::revoke(&folder, old, at(now)).unwrap();
            let after = LogKeyRing::open(&folder, "", Some("log.example/1"), at(now)).unwrap();
            assert_eq!((after.history()[0].to, after.history()[0].status), (Some(at(20)), KeyStatus::Revoked));
            assert_eq!(after.log_keys().unwrap().keys(), std::slice::from_ref(&new));
            assert_eq!(after.revoked().unwrap(), std::slice::from_ref(first.signers()[0].verifier()));
            assert!(!key_file(&folder, 0).exists());
            // What it signed once is believed when the new key has signed it, too.
            let note = first.sign(TreeHead::empty()).unwrap().note;
            let read = |note: &SignedNote| SignedHead::read(note.to_string().as_bytes(), &after.log_keys().unwrap());
            assert!(read(&note).is_err() && !after.have_all_signed(&note));
            let again = after.sign_again(&note).unwrap();
            assert!(after.have_all_signed(&again.note));
            assert_eq!(read(&again.note).unwrap(), again);
        }
    }

    #[test]
    fn a_retired_key_can_be_revoked_and_was_in_use_until_it_was_retired() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("log");
        let first = LogKeyRing::open(&folder, "log.example/1", None, at(1)).unwrap();
        LogKeyRing::add(&folder, at(10)).unwrap();
        LogKeyRing::retire_older(&folder, at(20)).unwrap();
        LogKeyRing::revoke(&folder, first.signers()[0].verifier().id(), at(30)).unwrap();
        let after = LogKeyRing::open(&folder, "", Some("log.example/1"), at(31)).unwrap();
        assert_eq!((after.history()[0].to, after.history()[0].status), (Some(at(20)), KeyStatus::Revoked));
    }

    #[test]
    fn changes_of_the_keys_at_one_moment_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("log");
        LogKeyRing::open(&folder, "log.example/1", None, at(1)).unwrap();
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| LogKeyRing::add(&folder, at(2)).unwrap());
            }
        });
        assert_eq!(LogKeyRing::open(&folder, "", None, at(3)).unwrap().signers().len(), 9);
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
