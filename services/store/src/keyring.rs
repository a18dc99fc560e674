//! The key ring: epoch keys and pseudonym keys, outside the database and its backups (I7).
//!
//! For the embedded default it is a folder that only the service's user can read: `epoch-{n}.key` wraps the keys of requests,
//! `pseudonym-{n}.key` makes the names that open requests (`subject_keys.rs`) and masked rows are told by, `suppression-{n}.key` those of
//! suppressions, by generations ([`crate::SuppressionKeys`]). All replicas share it, and write to it: epoch keys come and go there
//! (`forgetting.rs`). Losing it loses every identifier in the store; copying it into the database's backups undoes forgetting.
//!
//! Which epochs there are, and which is current, the database says; the folder has the keys, and memory only what was used of them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, LessSafeKey, UnboundKey},
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use quittance_domain::{
    identifier::Identifier,
    ids::{CustomerId, SystemId},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    StoreError, StoreResult,
    subject_keys::{Cover, SubjectForm, SubjectKeys},
};

const NO_KEYS: &str = "holds no keys for a store that is not empty; restore it from where it was kept";

pub(crate) type Key = Zeroizing<[u8; 32]>;

/// The sort of key that [`crate::SuppressionKeys`] reads.
pub(crate) const SUPPRESSION: &str = "suppression";

/// Tells a key from another one, and nothing about it: kept in the database, so that a wrong folder is noticed.
pub(crate) type KeyCheck = Vec<u8>;

/// The key of an epoch.
pub(crate) struct EpochKey {
    pub number: u32,
    pub aead: LessSafeKey,
    /// Covers subjects' names, and nothing else.
    subjects: Key,
    pub check: KeyCheck,
}

impl EpochKey {
    fn new(number: u32, key: &Key) -> StoreResult<Self> {
        let of_length = UnboundKey::new(&AES_256_GCM, key.as_slice());
        let of_length = of_length.map_err(|_| StoreError::KeyRing("a key of the wrong length".to_owned()))?;
        let derives = hmac::Key::new(hmac::HMAC_SHA256, key.as_slice());
        let tag = hmac::sign(&derives, b"quittance/v1/epoch-key-check");
        let mut subjects: Key = Zeroizing::new([0; 32]);
        subjects.copy_from_slice(hmac::sign(&derives, b"quittance/v1/subject-cover").as_ref());
        Ok(Self { number, aead: LessSafeKey::new(of_length), subjects, check: tag.as_ref()[..16].to_vec() })
    }
}

/// What the database says of the epochs.
#[derive(Clone, Default)]
pub(crate) struct KnownEpochs {
    /// 0: not known yet.
    pub current: u32,
    /// Those whose keys are still needed.
    pub living: BTreeMap<u32, KeyCheck>,
    /// Of these as well.
    pub forms: BTreeMap<u32, SubjectForm>,
    /// Those whose keys are destroyed: should a copy come back, it is not used.
    pub destroyed: BTreeMap<u32, KeyCheck>,
}

#[derive(Default)]
struct Epochs {
    known: KnownEpochs,
    keys: BTreeMap<u32, Arc<EpochKey>>,
}

pub struct KeyRing {
    folder: PathBuf,
    epochs: RwLock<Epochs>,
    pseudonyms: BTreeMap<u32, Key>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({} epochs)", self.epochs().known.living.len())
    }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "the system's generator fails only when the process cannot go on at all")]
    SystemRandom::new().fill(&mut bytes).expect("the system's random generator works");
    bytes
}

pub(crate) fn bad(path: &Path, what: &str) -> StoreError {
    StoreError::KeyRing(format!("{}: {what}", path.display()))
}

fn another_key(path: &Path) -> StoreError {
    bad(
        path,
        "is another key than this store was sealed with: the database is another deployment's, or the key ring is; look at store_url_file and \
         key_ring",
    )
}

fn io_failed(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    |e| bad(path, &e.to_string())
}

/// What a file of the folder is, by its name. `None`: none of ours.
fn kind_and_number(path: &Path) -> StoreResult<Option<(&str, u32)>> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((kind, number)) = name.strip_suffix(".key").and_then(|n| n.split_once('-')) else { return Ok(None) };
    if !["epoch", "pseudonym", SUPPRESSION].contains(&kind) {
        return Err(bad(path, "is of no known kind"));
    }
    Ok(Some((kind, number.parse().map_err(|_| bad(path, "its name has no number"))?)))
}

/// `None`: there is no such file.
pub(crate) fn read_key(path: &Path) -> StoreResult<Option<Key>> {
    let mut file = match fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_failed(path))?,
    };
    let about = file.metadata().map_err(io_failed(path))?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(bad(path, "others can read it; run chmod 600 on it"));
    }
    let mut key: Key = Zeroizing::new([0; 32]);
    if about.len() != 32 {
        return Err(bad(path, "is not 32 bytes long"));
    }
    file.read_exact(key.as_mut_slice()).map_err(io_failed(path))?;
    Ok(Some(key))
}

impl KeyRing {
    /// Opens the folder. `create`: make it with a first key of each sort where it is empty; pass it only for an empty store.
    pub fn open(folder: &Path, create: bool) -> StoreResult<Self> {
        if create && !folder.exists() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(io_failed(folder))?;
        }
        let about = fs::metadata(folder).map_err(io_failed(folder))?;
        if about.permissions().mode() & 0o077 != 0 {
            return Err(bad(folder, "others can read it; run chmod 700 on it"));
        }
        let mut ring = Self { folder: folder.to_owned(), epochs: RwLock::default(), pseudonyms: BTreeMap::new() };
        let (mut epochs, mut pseudonyms) = ring.numbers()?;
        if epochs.is_empty() || pseudonyms.is_empty() {
            if !create {
                return Err(bad(folder, NO_KEYS));
            }
            for name in ["epoch-1.key", "pseudonym-1.key"] {
                make_key(folder, name)?;
            }
            (epochs, pseudonyms) = ring.numbers()?;
        }
        // All are looked at, so that what is wrong with one is told at the start.
        for number in epochs {
            ring.read(number)?;
        }
        for number in pseudonyms {
            let path = folder.join(format!("pseudonym-{number}.key"));
            let key = read_key(&path)?.ok_or_else(|| bad(&path, "is gone"))?;
            ring.pseudonyms.insert(number, key);
        }
        Ok(ring)
    }

    /// Whether the folder is of a store with these epochs, looked at before it is opened. A store without any takes every folder; and one
    /// that was restored from a backup does not know the newest keys.
    pub(crate) fn fits(folder: &Path, epochs: &BTreeMap<u32, KeyCheck>) -> StoreResult<()> {
        if epochs.is_empty() {
            return Ok(());
        }
        if !folder.exists() {
            return Err(bad(folder, NO_KEYS));
        }
        let ring = Self { folder: folder.to_owned(), epochs: RwLock::default(), pseudonyms: BTreeMap::new() };
        let is_another = |key: &EpochKey| epochs.get(&key.number).is_some_and(|check| *check != key.check);
        ring.all()?.iter().find(|key| is_another(key)).map_or(Ok(()), |key| Err(another_key(&ring.path(key.number))))
    }

    /// Of epoch keys and of pseudonym keys, in their order.
    fn numbers(&self) -> StoreResult<(Vec<u32>, Vec<u32>)> {
        let (mut epochs, mut pseudonyms) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder).map_err(io_failed(&self.folder))? {
            match kind_and_number(&entry.map_err(io_failed(&self.folder))?.path())? {
                Some(("epoch", number)) => epochs.push(number),
                Some(("pseudonym", number)) => pseudonyms.push(number),
                _ => {}
            }
        }
        epochs.sort_unstable();
        pseudonyms.sort_unstable();
        Ok((epochs, pseudonyms))
    }

    fn epochs(&self) -> RwLockReadGuard<'_, Epochs> {
        // Nothing is done under the lock that could leave it half done.
        self.epochs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn epochs_mut(&self) -> RwLockWriteGuard<'_, Epochs> {
        self.epochs.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, epoch: u32) -> PathBuf {
        self.folder.join(format!("epoch-{epoch}.key"))
    }

    /// The key that the folder has, whatever the database says of it.
    fn read(&self, epoch: u32) -> StoreResult<Option<EpochKey>> {
        read_key(&self.path(epoch))?.map(|key| EpochKey::new(epoch, &key)).transpose()
    }

    /// Every epoch whose key the folder has, for a store that knows of none yet.
    pub(crate) fn all(&self) -> StoreResult<Vec<EpochKey>> {
        let mut keys = Vec::new();
        for number in self.numbers()?.0 {
            keys.extend(self.read(number)?);
        }
        Ok(keys)
    }

    /// Takes over what the database says. A key of the folder that is another one than the database knows is a wrong folder: nothing must be
    /// sealed with it. A copy of a destroyed key that has come back is destroyed again.
    pub(crate) fn know(&self, known: KnownEpochs) -> StoreResult<()> {
        for (number, check) in &known.living {
            let held = self.epochs().keys.get(number).map(|key| key.check == *check);
            let fits = match held {
                Some(fits) => fits,
                None => self.read(*number)?.is_none_or(|key| key.check == *check),
            };
            if !fits {
                return Err(another_key(&self.path(*number)));
            }
        }
        let before = self.epochs().known.destroyed.clone();
        for (number, check) in known.destroyed.iter().filter(|(number, _)| !before.contains_key(number)) {
            if self.destroy(*number, check)? {
                tracing::warn!(
                    epoch = number,
                    "the key ring still had a destroyed epoch key, or had it again: it is gone now"
                );
            }
        }
        let mut epochs = self.epochs_mut();
        epochs.keys.retain(|number, _| known.living.contains_key(number));
        epochs.known = known;
        Ok(())
    }

    /// Keeps nothing in memory: each key is read again when it is needed, if it is still there.
    pub fn drop_keys(&self) {
        self.epochs_mut().keys.clear();
    }

    /// Whether the folder has the key of the current epoch now, whatever memory has.
    pub(crate) fn has_current(&self) -> StoreResult<bool> {
        let current = self.epochs().known.current;
        self.has(current)
    }

    pub(crate) fn has(&self, epoch: u32) -> StoreResult<bool> {
        Ok(self.read(epoch)?.is_some())
    }

    /// What is sealed now is sealed under this.
    pub(crate) fn current(&self) -> StoreResult<Arc<EpochKey>> {
        let current = self.epochs().known.current;
        self.epoch(current)
    }

    /// From memory, or from the folder: another replica may have put it there.
    pub(crate) fn epoch(&self, number: u32) -> StoreResult<Arc<EpochKey>> {
        {
            let epochs = self.epochs();
            if let Some(key) = epochs.keys.get(&number) {
                return Ok(key.clone());
            }
            if epochs.known.destroyed.contains_key(&number) {
                return Err(StoreError::NoEpochKey(number));
            }
        }
        let key = Arc::new(self.read(number)?.ok_or(StoreError::NoEpochKey(number))?);
        let mut epochs = self.epochs_mut();
        // One that the database has not told us of yet opens what was sealed with it, and is not kept.
        if let Some(check) = epochs.known.living.get(&number) {
            if *check != key.check {
                return Err(another_key(&self.path(number)));
            }
            epochs.keys.insert(number, key.clone());
        }
        Ok(key)
    }

    /// Puts a key for an epoch into the folder, where none is there yet, and gives its check. It is durable then.
    pub(crate) fn make(&self, epoch: u32) -> StoreResult<KeyCheck> {
        make_key(&self.folder, &format!("epoch-{epoch}.key"))?;
        Ok(self.read(epoch)?.ok_or_else(|| bad(&self.path(epoch), "is gone"))?.check)
    }

    /// Overwrites a key and removes it, from memory as well. Answers whether it was there; another key of that number is left alone. Done
    /// again, it goes on where it was interrupted.
    pub(crate) fn destroy(&self, epoch: u32, check: &KeyCheck) -> StoreResult<bool> {
        self.epochs_mut().keys.remove(&epoch);
        let path = self.path(epoch);
        let held = self.read(epoch)?.is_some_and(|key| key.check == *check);
        if held {
            // Under another name first: half overwritten, it must not be taken for a key.
            match fs::rename(&path, self.folder.join(format!("epoch-{epoch}.key.destroyed"))) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(io_failed(&path))?,
            }
            sync_folder(&self.folder)?;
        }
        let mut removed = held;
        let left_over = format!("epoch-{epoch}.key.");
        for entry in fs::read_dir(&self.folder).map_err(io_failed(&self.folder))? {
            let entry = entry.map_err(io_failed(&self.folder))?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&left_over)) {
                overwrite_and_remove(&entry.path())?;
                removed = true;
            }
        }
        if removed {
            sync_folder(&self.folder)?;
        }
        Ok(held)
    }

    fn pseudonym_key(&self, purpose: &[&str]) -> hmac::Key {
        // Always the first generation: with another a rerun would write other masks than the first run. What rotates are the suppressions'
        // keys, and what covers subjects' names in the tables.
        // `open` has made sure of one; an empty key would still be no leak, only a useless pseudonym.
        let root = self.pseudonyms.first_key_value().map_or([0_u8; 32].as_slice(), |(_, key)| key.as_slice());
        derived_key(root, purpose)
    }

    /// Tells that two open requests of a customer are about one person, without the person; in rows of this epoch, which is the newest
    /// that the caller knows of.
    pub(crate) fn subject_keys(&self, customer: &CustomerId, epoch: u32) -> StoreResult<SubjectKeys> {
        let forms = self.epochs().known.forms.clone();
        let form = forms.get(&epoch).copied().ok_or(StoreError::NoEpochKey(epoch))?;
        let mut earlier = Vec::new();
        let mut bare = form != SubjectForm::Covered;
        for (number, form) in forms.range(..epoch) {
            if *form != SubjectForm::Covered && std::mem::replace(&mut bare, true) {
                continue;
            }
            match self.cover(*number, *form) {
                Ok(cover) => earlier.push(cover),
                // What its key covered is lost, as is all that it sealed: told at the start, and by whoever turns epochs over.
                Err(StoreError::NoEpochKey(_)) => {}
                Err(e) => return Err(e),
            }
        }
        let names = self.pseudonym_key(&["subject", customer.as_str()]);
        Ok(SubjectKeys::new(names, self.cover(epoch, form)?, earlier))
    }

    pub(crate) fn cover(&self, epoch: u32, form: SubjectForm) -> StoreResult<Cover> {
        match form {
            SubjectForm::Covered => Cover::new(epoch, &self.epoch(epoch)?.subjects),
            SubjectForm::Unknown | SubjectForm::Bare => Ok(Cover::Bare),
        }
    }

    /// Makes the pseudonyms that masks write into a system.
    pub fn mask_pseudonyms(&self, customer: &CustomerId, system: &SystemId) -> MaskPseudonyms {
        MaskPseudonyms(self.pseudonym_key(&["mask", customer.as_str(), system.as_str()]))
    }
}

/// A key for one purpose alone.
pub(crate) fn derived_key(root: &[u8], purpose: &[&str]) -> hmac::Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, root));
    for part in purpose {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref())
}

pub(crate) fn identifier_tag(key: &hmac::Key, identifier: &Identifier) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(identifier.kind().as_str().as_bytes());
    context.update(b"\0");
    context.update(identifier.value().expose().as_bytes());
    context.sign()
}

/// See [`KeyRing::mask_pseudonyms`].
pub struct MaskPseudonyms(hmac::Key);

impl MaskPseudonyms {
    /// The same for all rows of one subject at one system.
    pub fn of(&self, identifier: &Identifier) -> String {
        let hex: String =
            identifier_tag(&self.0, identifier).as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect();
        format!("anon-{hex}")
    }
}

pub(crate) fn overwrite_and_remove(path: &Path) -> StoreResult<()> {
    let overwritten = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| {
        for over in [random(), [0; 32]] {
            file.rewind()?;
            file.write_all(&over)?;
            file.sync_all()?;
        }
        fs::remove_file(path)
    });
    match overwritten {
        // Another replica was faster.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(io_failed(path)),
    }
}

pub(crate) fn sync_folder(folder: &Path) -> StoreResult<()> {
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(io_failed(folder))
}

/// Makes a key where none of that name is there. It appears whole and durable, or not at all, and never replaces another one: whoever makes
/// it at the same moment finds the same key.
pub(crate) fn make_key(folder: &Path, name: &str) -> StoreResult<()> {
    let (path, made) = (folder.join(name), folder.join(format!("{name}.{}", Uuid::new_v4().simple())));
    let key: Key = Zeroizing::new(random());
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&made)
        .and_then(|mut file| file.write_all(key.as_slice()).and_then(|()| file.sync_all()));
    let linked = written.and_then(|()| fs::hard_link(&made, &path));
    // Another name of the same file, or a key that nobody knows.
    let removed = fs::remove_file(&made);
    match linked {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked.map_err(io_failed(&path))?,
    }
    removed.map_err(io_failed(&made))?;
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        KeyRing::open(&folder, true).unwrap();
        KeyRing::open(&folder, false).unwrap();
        fs::set_permissions(folder.join("epoch-1.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(KeyRing::open(&folder, false), Err(StoreError::KeyRing(_))));
    }

    #[test]
    fn a_missing_ring_is_never_made_anew_for_a_store_in_use() {
        let dir = tempfile::tempdir().unwrap();
        assert!(KeyRing::open(&dir.path().join("keys"), false).is_err());
    }
}
