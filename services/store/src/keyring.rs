//! The key ring: epoch keys and pseudonym keys, outside the database and its backups (I7).
//!
//! For the embedded default it is a folder that only the service's user can read: `epoch-{n}.key` wraps the keys of requests,
//! `pseudonym-{n}.key` makes the pseudonyms that open requests and masked rows are told by, `suppression-{n}.key` those of
//! suppressions, by generations ([`crate::SuppressionKeys`]). Losing it loses every identifier in the store; copying it into the database's
//! backups undoes forgetting.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use quittance_domain::{
    action::IdentifierChange,
    identifier::Identifier,
    ids::{CustomerId, SystemId},
};
use zeroize::Zeroizing;

use crate::{StoreError, StoreResult};

pub(crate) type Key = Zeroizing<[u8; 32]>;

/// The sort of key that [`crate::SuppressionKeys`] reads.
pub(crate) const SUPPRESSION: &str = "suppression";

/// All keys of the ring, in memory.
pub struct KeyRing {
    epochs: BTreeMap<u32, Key>,
    pseudonyms: BTreeMap<u32, Key>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({} epochs)", self.epochs.len())
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

impl KeyRing {
    /// Opens the folder. `create`: make it with a first key of each sort where it is empty; pass it only for an empty store.
    pub fn open(folder: &Path, create: bool) -> StoreResult<Self> {
        if create && !folder.exists() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| bad(folder, &e.to_string()))?;
        }
        let about = fs::metadata(folder).map_err(|e| bad(folder, &e.to_string()))?;
        if about.permissions().mode() & 0o077 != 0 {
            return Err(bad(folder, "others can read it; run chmod 700 on it"));
        }
        let mut ring = Self { epochs: BTreeMap::new(), pseudonyms: BTreeMap::new() };
        for entry in fs::read_dir(folder).map_err(|e| bad(folder, &e.to_string()))? {
            let path = entry.map_err(|e| bad(folder, &e.to_string()))?.path();
            ring.read(&path)?;
        }
        if ring.epochs.is_empty() || ring.pseudonyms.is_empty() {
            if !create {
                return Err(bad(
                    folder,
                    "holds no keys for a store that is not empty; restore it from where it was kept",
                ));
            }
            ring.epochs.insert(1, write_key(&folder.join("epoch-1.key"))?);
            ring.pseudonyms.insert(1, write_key(&folder.join("pseudonym-1.key"))?);
            fs::File::open(folder).and_then(|f| f.sync_all()).map_err(|e| bad(folder, &e.to_string()))?;
        }
        Ok(ring)
    }

    fn read(&mut self, path: &Path) -> StoreResult<()> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some((kind, number)) = name.strip_suffix(".key").and_then(|n| n.split_once('-')) else { return Ok(()) };
        let number: u32 = number.parse().map_err(|_| bad(path, "its name has no number"))?;
        match kind {
            "epoch" => self.epochs.insert(number, read_key(path)?),
            "pseudonym" => self.pseudonyms.insert(number, read_key(path)?),
            SUPPRESSION => None,
            _ => return Err(bad(path, "is of no known kind")),
        };
        Ok(())
    }

    /// New requests are sealed under the newest epoch.
    pub(crate) fn current_epoch(&self) -> StoreResult<(u32, &Key)> {
        let newest = self.epochs.last_key_value().map(|(n, key)| (*n, key));
        newest.ok_or_else(|| StoreError::KeyRing("holds no epoch key".to_owned()))
    }

    pub(crate) fn epoch(&self, number: u32) -> Option<&Key> {
        self.epochs.get(&number)
    }

    fn pseudonym_key(&self, purpose: &[&str]) -> hmac::Key {
        // Always the first generation: another would make strangers of those whose requests are open or whose restrictions stand, and
        // a rerun would write other masks than the first run. What rotates are the suppressions' keys.
        // `open` has made sure of one; an empty key would still be no leak, only a useless pseudonym.
        let root = self.pseudonyms.first_key_value().map_or([0_u8; 32].as_slice(), |(_, key)| key.as_slice());
        derived_key(root, purpose)
    }

    /// Tells that two open requests of a customer are about one person, without the person.
    pub fn subject_keys(&self, customer: &CustomerId) -> SubjectKeys {
        SubjectKeys(self.pseudonym_key(&["subject", customer.as_str()]))
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

/// See [`KeyRing::subject_keys`]. Derived once a batch.
pub struct SubjectKeys(hmac::Key);

impl SubjectKeys {
    pub(crate) fn of(&self, identifier: &Identifier) -> Vec<u8> {
        // 128 bits: no two persons of one customer meet.
        identifier_tag(&self.0, identifier).as_ref()[..16].to_vec()
    }

    /// Old and new name of a subject, for each that changes.
    pub(crate) fn renamed(&self, changes: &[IdentifierChange]) -> Vec<(Vec<u8>, Vec<u8>)> {
        changes.iter().filter_map(|change| Some((self.of(change.old.as_ref()?), self.of(&change.new)))).collect()
    }
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

pub(crate) fn read_key(path: &Path) -> StoreResult<Key> {
    let about = fs::metadata(path).map_err(|e| bad(path, &e.to_string()))?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(bad(path, "others can read it; run chmod 600 on it"));
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(|e| bad(path, &e.to_string()))?);
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| bad(path, "is not 32 bytes long"))?;
    Ok(Zeroizing::new(key))
}

pub(crate) fn write_key(path: &Path) -> StoreResult<Key> {
    let key: Key = Zeroizing::new(random());
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(key.as_slice()).and_then(|()| file.sync_all()));
    written.map_err(|e| bad(path, &e.to_string()))?;
    Ok(key)
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
