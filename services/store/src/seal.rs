//! Sealing: AES-256-GCM under a key per request, wrapped by an epoch key (I7). The additional data binds a sealed value to its
//! customer, request and column, so that no value can be moved to another place and still open.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use quittance_domain::ids::{CustomerId, RequestId, SystemId};

use crate::{
    StoreError, StoreResult,
    keyring::{EpochKey, Key, KeyRing, random},
};

/// The sealed columns. Part of the additional data: names never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SealedColumn {
    DataKey,
    Subject,
    MatchSet,
    PackageRecord,
    HeldIdentifier,
    KeptKey,
    KeptRows,
}

impl SealedColumn {
    const fn name(self) -> &'static str {
        match self {
            Self::DataKey => "requests.wrapped_key",
            Self::Subject => "requests.sealed_subject",
            Self::MatchSet => "match_sets.sealed",
            Self::PackageRecord => "package_records.sealed",
            Self::HeldIdentifier => "replay_matches.sealed",
            Self::KeptKey => "kept_rows.wrapped_key",
            Self::KeptRows => "kept_rows.sealed",
        }
    }
}

fn aad(customer: &CustomerId, request: RequestId, column: SealedColumn, place: &str) -> Vec<u8> {
    format!("quittance/v1\0{customer}\0{request}\0{}\0{place}", column.name()).into_bytes()
}

fn aead(key: &[u8; 32]) -> StoreResult<LessSafeKey> {
    let key =
        UnboundKey::new(&AES_256_GCM, key).map_err(|_| StoreError::KeyRing("a key of the wrong length".into()))?;
    Ok(LessSafeKey::new(key))
}

fn encrypt(key: &LessSafeKey, aad: &[u8], plain: &[u8]) -> StoreResult<Vec<u8>> {
    let nonce: [u8; NONCE_LEN] = random();
    let mut out = Vec::with_capacity(NONCE_LEN + plain.len() + 16);
    out.extend_from_slice(&nonce);
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut body)
        .map_err(|_| StoreError::KeyRing("sealing failed".into()))?;
    out.append(&mut body);
    Ok(out)
}

fn decrypt(key: &LessSafeKey, aad: &[u8], sealed: &[u8], column: SealedColumn) -> StoreResult<Vec<u8>> {
    let unsealable = || StoreError::Unsealable(column.name());
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(unsealable)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unsealable())?;
    let mut body = body.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(aad), &mut body).map_err(|_| unsealable())?;
    Ok(plain.to_vec())
}

/// What a wrapped key is for, and so where it stands.
#[derive(Clone, Copy)]
pub(crate) enum KeyOf<'a> {
    Request,
    /// Of what is kept of a request at one system.
    KeptRows(&'a SystemId),
}

impl KeyOf<'_> {
    fn aad(self, customer: &CustomerId, request: RequestId) -> Vec<u8> {
        match self {
            Self::Request => aad(customer, request, SealedColumn::DataKey, ""),
            Self::KeptRows(system) => aad(customer, request, SealedColumn::KeptKey, system.as_str()),
        }
    }
}

/// The key of one request, or of what is kept of it, unwrapped.
pub(crate) struct RequestKey {
    customer: CustomerId,
    request: RequestId,
    raw: Key,
    key: LessSafeKey,
}

/// A request's key as the database has it.
pub(crate) struct WrappedKey {
    pub epoch: u32,
    pub wrapped: Vec<u8>,
}

impl WrappedKey {
    /// As `requests.key_epoch` and `requests.wrapped_key` have it. `None`: it is forgotten.
    pub fn read(epoch: &str, wrapped: Vec<u8>) -> StoreResult<Option<Self>> {
        if epoch.is_empty() {
            return Ok(None);
        }
        let epoch = epoch
            .parse()
            .map_err(|_| StoreError::Inconsistent { table: "requests", what: "an epoch is not a number" })?;
        Ok(Some(Self { epoch, wrapped }))
    }

    /// The same key under another epoch. What is sealed with it stays as it is.
    pub fn rewrap(
        &self,
        ring: &KeyRing,
        customer: &CustomerId,
        request: RequestId,
        of: KeyOf<'_>,
        to: &EpochKey,
    ) -> StoreResult<Self> {
        let aad = of.aad(customer, request);
        let raw = unwrap(ring, &aad, self)?;
        Ok(Self { epoch: to.number, wrapped: encrypt(&to.aead, &aad, raw.as_slice())? })
    }
}

fn unwrap(ring: &KeyRing, aad: &[u8], key: &WrappedKey) -> StoreResult<Key> {
    let epoch = ring.epoch(key.epoch)?;
    let raw = zeroize::Zeroizing::new(decrypt(&epoch.aead, aad, &key.wrapped, SealedColumn::DataKey)?);
    let raw = raw.as_slice().try_into().map_err(|_| StoreError::Unsealable(SealedColumn::DataKey.name()))?;
    Ok(Key::new(raw))
}

impl RequestKey {
    pub fn generate(
        epoch: &EpochKey,
        customer: &CustomerId,
        request: RequestId,
        of: KeyOf<'_>,
    ) -> StoreResult<(Self, WrappedKey)> {
        let raw: Key = Key::new(random());
        let aad = of.aad(customer, request);
        let wrapped = encrypt(&epoch.aead, &aad, raw.as_slice())?;
        let key = aead(&raw)?;
        Ok((Self { customer: customer.clone(), request, raw, key }, WrappedKey { epoch: epoch.number, wrapped }))
    }

    pub fn unwrap(ring: &KeyRing, customer: &CustomerId, request: RequestId, key: &WrappedKey) -> StoreResult<Self> {
        Self::unwrap_of(ring, customer, request, KeyOf::Request, key)
    }

    pub fn unwrap_of(
        ring: &KeyRing,
        customer: &CustomerId,
        request: RequestId,
        of: KeyOf<'_>,
        key: &WrappedKey,
    ) -> StoreResult<Self> {
        let raw = unwrap(ring, &of.aad(customer, request), key)?;
        let key = aead(&raw)?;
        Ok(Self { customer: customer.clone(), request, raw, key })
    }

    /// `place`: what tells values of one column of one request apart, as the system.
    pub fn seal(&self, column: SealedColumn, place: &str, plain: &[u8]) -> StoreResult<Vec<u8>> {
        encrypt(&self.key, &aad(&self.customer, self.request, column, place), plain)
    }

    pub fn open(&self, column: SealedColumn, place: &str, sealed: &[u8]) -> StoreResult<Vec<u8>> {
        decrypt(&self.key, &aad(&self.customer, self.request, column, place), sealed, column)
    }

    /// Tells whether the same `request_id` came with the same content.
    pub fn content_mac(&self, content: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.raw.as_slice()), content).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_sealed_value_opens_in_its_own_place_only() {
        let dir = tempfile::tempdir().unwrap();
        let ring = KeyRing::open(&dir.path().join("keys"), true).unwrap();
        let (a, b) = (CustomerId::new("a").unwrap(), CustomerId::new("b").unwrap());
        let id = RequestId::new(Uuid::from_u128(1));
        let first = ring.all().unwrap().remove(0);
        let (key, wrapped) = RequestKey::generate(&first, &a, id, KeyOf::Request).unwrap();
        let sealed = key.seal(SealedColumn::MatchSet, "crm", b"rows").unwrap();
        let again = RequestKey::unwrap(&ring, &a, id, &wrapped).unwrap();
        assert_eq!(again.open(SealedColumn::MatchSet, "crm", &sealed).unwrap(), b"rows");
        assert!(again.open(SealedColumn::MatchSet, "shop", &sealed).is_err());
        assert!(again.open(SealedColumn::Subject, "crm", &sealed).is_err());
        assert!(RequestKey::unwrap(&ring, &b, id, &wrapped).is_err());
        let mut altered = sealed;
        altered[20] ^= 1;
        assert!(again.open(SealedColumn::MatchSet, "crm", &altered).is_err());
        assert!(again.open(SealedColumn::MatchSet, "crm", b"short").is_err());
    }
}
