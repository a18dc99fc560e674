//! The keys of suppressions, by generations: `suppression-{n}.key` in the key ring.
//!
//! The newest makes the pseudonyms of what is confirmed from now on; older ones only recognise, for as long as a pseudonym of theirs is
//! kept. Another process adds one (`quittanced keys rotate-pseudonyms`); every running one takes it up when it next looks.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use quittance_domain::{
    identifier::Identifier,
    ids::{CustomerId, SystemId},
};

use crate::{
    StoreResult,
    keyring::{
        Key, SUPPRESSION, bad, derived_key, identifier_tag, make_key, overwrite_and_remove, read_key, sync_folder,
    },
};

type Generations = BTreeMap<u32, Key>;

pub struct SuppressionKeys {
    folder: PathBuf,
    keys: RwLock<Arc<Generations>>,
}

impl std::fmt::Debug for SuppressionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SuppressionKeys({:?})", self.numbers())
    }
}

fn path(folder: &Path, generation: u32) -> PathBuf {
    folder.join(format!("{SUPPRESSION}-{generation}.key"))
}

fn read(folder: &Path) -> StoreResult<Generations> {
    let mut keys = Generations::new();
    for entry in fs::read_dir(folder).map_err(|e| bad(folder, &e.to_string()))? {
        let entry = entry.map_err(|e| bad(folder, &e.to_string()))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".key")).and_then(|n| n.split_once('-'));
        let number = number.filter(|(kind, _)| *kind == SUPPRESSION).and_then(|(_, number)| number.parse().ok());
        if let Some(number) = number {
            // `None`: another replica has just destroyed it.
            keys.extend(read_key(&entry.path())?.map(|key| (number, key)));
        }
    }
    Ok(keys)
}

fn make(folder: &Path, generation: u32) -> StoreResult<()> {
    make_key(folder, &format!("{SUPPRESSION}-{generation}.key"))
}

impl SuppressionKeys {
    /// Opens those of the ring. Where there is none, `first` is made: no pseudonym that is kept may be of that generation.
    pub(crate) fn open(folder: &Path, first: Option<u32>) -> StoreResult<Self> {
        if let Some(first) = first {
            make(folder, first)?;
        }
        let keys = Self { folder: folder.to_owned(), keys: RwLock::new(Arc::new(read(folder)?)) };
        if keys.newest().is_none() {
            return Err(bad(folder, "holds no key for suppressions"));
        }
        Ok(keys)
    }

    pub(crate) fn are_there(folder: &Path) -> StoreResult<bool> {
        Ok(!read(folder)?.is_empty())
    }

    /// Adds a generation to the ring, and gives its number.
    pub fn rotate(folder: &Path) -> StoreResult<u32> {
        let newest = read(folder)?.last_key_value().map_or(0, |(number, _)| *number);
        make(folder, newest + 1)?;
        Ok(newest + 1)
    }

    fn keys(&self) -> Arc<Generations> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up what another process has added or destroyed.
    pub fn reload(&self) -> StoreResult<()> {
        let keys = read(&self.folder)?;
        if !keys.is_empty() {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        }
        Ok(())
    }

    /// Oldest first.
    pub fn numbers(&self) -> Vec<u32> {
        self.keys().keys().copied().collect()
    }

    pub(crate) fn newest(&self) -> Option<u32> {
        self.keys().last_key_value().map(|(number, _)| *number)
    }

    pub(crate) fn pseudonyms(&self, customer: &CustomerId, system: &SystemId) -> SuppressionPseudonyms {
        let derived = |(number, key): (&u32, &Key)| {
            (*number, derived_key(key.as_slice(), &[SUPPRESSION, customer.as_str(), system.as_str()]))
        };
        SuppressionPseudonyms(self.keys().iter().map(derived).collect())
    }

    /// Those that are not the newest, which has been there for so long that nobody still writes with them.
    pub(crate) fn outdated(&self, since: Duration) -> StoreResult<Vec<u32>> {
        let numbers = self.numbers();
        let Some((newest, older)) = numbers.split_last() else { return Ok(Vec::new()) };
        let newest = path(&self.folder, *newest);
        let made =
            fs::metadata(&newest).and_then(|about| about.modified()).map_err(|e| bad(&newest, &e.to_string()))?;
        let age = SystemTime::now().duration_since(made).unwrap_or_default();
        Ok(if age < since { Vec::new() } else { older.to_vec() })
    }

    /// Nobody recognises by it any more.
    pub(crate) fn destroy(&self, generation: u32) -> StoreResult<()> {
        overwrite_and_remove(&path(&self.folder, generation))?;
        sync_folder(&self.folder)?;
        self.reload()
    }
}

/// Of one customer at one system. Derived once a batch.
pub(crate) struct SuppressionPseudonyms(Vec<(u32, hmac::Key)>);

impl SuppressionPseudonyms {
    fn tag(key: &hmac::Key, identifier: &Identifier) -> Vec<u8> {
        // 128 bits: no two persons of one customer meet.
        identifier_tag(key, identifier).as_ref()[..16].to_vec()
    }

    /// What is written today.
    pub fn newest(&self) -> impl Fn(&Identifier) -> Vec<u8> + '_ {
        |identifier| self.0.last().map(|(_, key)| Self::tag(key, identifier)).unwrap_or_default()
    }

    pub fn newest_generation(&self) -> u32 {
        self.0.last().map_or(0, |(number, _)| *number)
    }

    /// One for each generation.
    pub fn all<'a>(&'a self, identifier: &'a Identifier) -> impl Iterator<Item = Vec<u8>> + 'a {
        self.0.iter().map(|(_, key)| Self::tag(key, identifier))
    }

    /// Of one generation, if it is not destroyed.
    pub fn of(&self, generation: u32, identifier: &Identifier) -> Option<Vec<u8>> {
        self.0.iter().find(|(number, _)| *number == generation).map(|(_, key)| Self::tag(key, identifier))
    }
}

#[cfg(test)]
mod tests {
    use quittance_domain::identifier::IdentifierKind;

    use super::*;
    use crate::{KeyRing, keyring::KnownEpochs, subject_keys::SubjectForm};

    fn mara() -> Identifier {
        Identifier::normalise(IdentifierKind::Email, "mara@example.com").unwrap()
    }

    /// The trap: open requests, standing restrictions and masked rows are told by pseudonyms too, and theirs must stay.
    #[test]
    fn a_rotation_changes_what_suppressions_are_written_with_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        KeyRing::open(&folder, true).unwrap();
        let keys = SuppressionKeys::open(&folder, Some(1)).unwrap();
        let (acme, crm) = (CustomerId::new("acme").unwrap(), SystemId::new("crm").unwrap());
        let told = || {
            let ring = KeyRing::open(&folder, false).unwrap();
            let bare = KnownEpochs { forms: [(1, SubjectForm::Bare)].into(), ..KnownEpochs::default() };
            ring.know(bare).unwrap();
            (ring.subject_keys(&acme, 1).unwrap().of(&mara()).unwrap(), ring.mask_pseudonyms(&acme, &crm).of(&mara()))
        };
        let (before, first) = (told(), keys.pseudonyms(&acme, &crm).newest()(&mara()));
        assert_eq!(SuppressionKeys::rotate(&folder).unwrap(), 2);
        keys.reload().unwrap();
        assert_eq!(told(), before);
        let rotated = keys.pseudonyms(&acme, &crm);
        assert_eq!((keys.numbers(), rotated.newest_generation()), (vec![1, 2], 2));
        assert_ne!(rotated.newest()(&mara()), first);
        assert!(rotated.all(&mara()).any(|p| p == first), "what was written before is recognised");
        keys.destroy(1).unwrap();
        assert_eq!(told(), before);
        assert_eq!(keys.pseudonyms(&acme, &crm).all(&mara()).collect::<Vec<_>>(), [rotated.newest()(&mara())]);
    }

    #[test]
    fn pseudonyms_of_another_customer_or_system_are_others() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        KeyRing::open(&folder, true).unwrap();
        let keys = SuppressionKeys::open(&folder, Some(1)).unwrap();
        let of = |customer: &str, system: &str| {
            keys.pseudonyms(&CustomerId::new(customer).unwrap(), &SystemId::new(system).unwrap()).newest()(&mara())
        };
        assert_ne!(of("acme", "crm"), of("bolt", "crm"));
        assert_ne!(of("acme", "crm"), of("acme", "shop"));
    }

    #[test]
    fn a_generation_is_outdated_once_the_next_one_is_known_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        KeyRing::open(&folder, true).unwrap();
        let keys = SuppressionKeys::open(&folder, Some(1)).unwrap();
        assert!(keys.outdated(Duration::ZERO).unwrap().is_empty(), "the newest is in use");
        SuppressionKeys::rotate(&folder).unwrap();
        keys.reload().unwrap();
        assert!(keys.outdated(Duration::from_secs(3600)).unwrap().is_empty(), "somebody may not have seen it yet");
        assert_eq!(keys.outdated(Duration::ZERO).unwrap(), [1]);
    }
}
