//! What tells that two open requests of a customer are about one person, without the person (I7).
//!
//! A name is an HMAC of an identifier under the ring's pseudonym key, which stays as long as the deployment. So no table has it as it is: the
//! key of an epoch covers it, and what a backup has of it goes with that key. What lives is covered anew under the next epoch's (`rekey.rs`),
//! for which nobody needs the identifier: whoever has the epoch's key can take its cover off.

use std::fmt;

use aws_lc_rs::{
    cipher::{AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey},
    hmac,
};
use quittance_domain::{action::IdentifierChange, identifier::Identifier};

use crate::{
    StoreError, StoreResult,
    keyring::{Key, identifier_tag},
};

/// 128 bits: no two persons of one customer meet. And a block of AES.
pub(crate) const NAME_BYTES: usize = 16;
/// A covered name has the epoch's number before it, so that it is known which key it needs, and rows of one epoch stand together.
const NUMBER_BYTES: usize = 4;
const COVERED_BYTES: usize = NUMBER_BYTES + NAME_BYTES;

/// How the rows that an epoch brought have their subjects' names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum SubjectForm {
    /// As they are. A build before schema 12 began the epoch: there may be one beside us.
    Unknown,
    /// As they are, for the sake of builds that know nothing else. The next epoch is covered.
    Bare,
    Covered,
}

impl SubjectForm {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Bare => "BARE",
            Self::Covered => "COVERED",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Unknown, Self::Bare, Self::Covered].into_iter().find(|form| form.as_str() == text)
    }

    /// Of the epoch after one of this.
    pub const fn next(self) -> Self {
        match self {
            Self::Unknown => Self::Bare,
            Self::Bare | Self::Covered => Self::Covered,
        }
    }
}

/// Which names of a column are of an epoch: those of a length, in a range. For both engines alike.
pub(crate) struct NamesOf {
    pub length: usize,
    pub from: Vec<u8>,
    pub before: Vec<u8>,
}

impl NamesOf {
    /// `None`: rows of this epoch need nothing of its key, so nothing is to be done about them.
    pub fn epoch(number: u32, form: SubjectForm, current: SubjectForm) -> Option<Self> {
        match (form, current) {
            (SubjectForm::Covered, _) => Some(Self {
                length: COVERED_BYTES,
                from: number.to_be_bytes().to_vec(),
                before: number.saturating_add(1).to_be_bytes().to_vec(),
            }),
            // Their key is nobody's, but they are to be covered all the same.
            (_, SubjectForm::Covered) => {
                Some(Self { length: NAME_BYTES, from: Vec::new(), before: vec![u8::MAX; NAME_BYTES + 1] })
            }
            _ => None,
        }
    }
}

/// Puts names into the form of one epoch, and takes them out of it.
pub(crate) enum Cover {
    Bare,
    Epoch(Box<EpochCover>),
}

pub(crate) struct EpochCover {
    number: u32,
    on: EncryptingKey,
    off: DecryptingKey,
}

impl Cover {
    /// `subjects`: the epoch's key for this purpose.
    pub fn new(number: u32, subjects: &Key) -> StoreResult<Self> {
        let broken = |_| StoreError::KeyRing("a key of the wrong length".to_owned());
        let key = || UnboundCipherKey::new(&AES_256, subjects.as_slice());
        // One block, which is an HMAC: a permutation of it under a secret key is all that is wanted, and equal names must stay equal.
        let on = key().and_then(EncryptingKey::ecb).map_err(broken)?;
        let off = key().and_then(DecryptingKey::ecb).map_err(broken)?;
        Ok(Self::Epoch(Box::new(EpochCover { number, on, off })))
    }

    pub fn put_on(&self, name: &[u8]) -> StoreResult<Vec<u8>> {
        match self {
            Self::Bare => Ok(name.to_vec()),
            Self::Epoch(cover) => {
                let mut covered = [cover.number.to_be_bytes().as_slice(), name].concat();
                let block = covered.get_mut(NUMBER_BYTES..).unwrap_or_default();
                cover.on.encrypt(block).map_err(|_| UNFIT)?;
                Ok(covered)
            }
        }
    }

    pub fn take_off(&self, stored: &[u8]) -> StoreResult<Vec<u8>> {
        match self {
            Self::Bare => Ok(stored.to_vec()),
            Self::Epoch(cover) => {
                let name = stored.strip_prefix(cover.number.to_be_bytes().as_slice()).ok_or(UNFIT)?;
                let mut name = name.to_vec();
                cover.off.decrypt(&mut name, DecryptionContext::None).map_err(|_| UNFIT)?;
                Ok(name)
            }
        }
    }
}

const UNFIT: StoreError = StoreError::Inconsistent { table: "subject_heads", what: "a pseudonym is not of its epoch" };

/// Of one customer's subjects, as the rows of the present epoch have them. Derived once a batch.
pub struct SubjectKeys {
    names: hmac::Key,
    cover: Cover,
    /// Of epochs whose rows may still be there, where they are others.
    earlier: Vec<Cover>,
}

impl fmt::Debug for SubjectKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKeys({} earlier)", self.earlier.len())
    }
}

impl SubjectKeys {
    pub(crate) fn new(names: hmac::Key, cover: Cover, earlier: Vec<Cover>) -> Self {
        Self { names, cover, earlier }
    }

    /// To be sealed, and nothing else: it is tested by whoever has the pseudonym key.
    pub(crate) fn name(&self, identifier: &Identifier) -> Vec<u8> {
        identifier_tag(&self.names, identifier).as_ref()[..NAME_BYTES].to_vec()
    }

    /// As the tables have it.
    pub(crate) fn of_name(&self, name: &[u8]) -> StoreResult<Vec<u8>> {
        self.cover.put_on(name)
    }

    pub(crate) fn of(&self, identifier: &Identifier) -> StoreResult<Vec<u8>> {
        self.of_name(&self.name(identifier))
    }

    /// Old and new name of a subject, for each that changes.
    pub(crate) fn renamed(&self, changes: &[IdentifierChange]) -> StoreResult<Vec<(Vec<u8>, Vec<u8>)>> {
        let known = changes.iter().filter_map(|change| Some((change.old.as_ref()?, &change.new)));
        known.map(|(old, new)| Ok((self.of(old)?, self.of(new)?))).collect()
    }

    pub(crate) fn has_earlier(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// As the rows of earlier epochs would have it.
    pub(crate) fn earlier(&self, stored: &[u8]) -> StoreResult<Vec<Vec<u8>>> {
        let name = self.cover.take_off(stored)?;
        self.earlier.iter().map(|cover| cover.put_on(&name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(number: u32, key: u8) -> Cover {
        Cover::new(number, &Key::new([key; 32])).unwrap()
    }

    #[test]
    fn a_cover_comes_off_with_its_epochs_key_alone() {
        let name = [7; NAME_BYTES];
        let stored = cover(3, 1).put_on(&name).unwrap();
        assert_eq!((stored.len(), &stored[..4]), (COVERED_BYTES, [0, 0, 0, 3].as_slice()));
        assert!(!stored.windows(8).any(|part| part == &name[..8]));
        assert_eq!(cover(3, 1).put_on(&name).unwrap(), stored, "equal names stay equal");
        assert_eq!(cover(3, 1).take_off(&stored).unwrap(), name);
        assert_ne!(cover(3, 2).take_off(&stored).unwrap(), name);
        for unfit in [&stored[1..], &stored[..19], &name, &[]] {
            assert!(cover(3, 1).take_off(unfit).is_err());
        }
        assert!(cover(4, 1).take_off(&stored).is_err(), "another epoch's");
    }

    #[test]
    fn names_of_an_epoch_stand_together() {
        let within = |names: &NamesOf, stored: &[u8]| {
            stored.len() == names.length && stored >= names.from.as_slice() && stored < names.before.as_slice()
        };
        let bare = NamesOf::epoch(1, SubjectForm::Bare, SubjectForm::Covered).unwrap();
        let third = NamesOf::epoch(3, SubjectForm::Covered, SubjectForm::Covered).unwrap();
        for name in [[0; NAME_BYTES], [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [255; NAME_BYTES]] {
            assert!(within(&bare, &name) && !within(&third, &name));
            for (number, of_third) in [(2, false), (3, true), (4, false)] {
                let stored = cover(number, 1).put_on(&name).unwrap();
                assert!(!within(&bare, &stored));
                assert_eq!(within(&third, &stored), of_third);
            }
        }
        assert!(NamesOf::epoch(1, SubjectForm::Unknown, SubjectForm::Bare).is_none(), "nothing changes for them");
    }
}
