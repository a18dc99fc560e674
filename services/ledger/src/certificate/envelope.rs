//! The file: the certificate's exact bytes and the signatures over them. Read strictly: any other byte anywhere is refused.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Certificate, CertificateFault};
use crate::{
    Hex,
    key::{SignerKey, VerifierKey},
};

/// A certificate of two hundred systems with a thousand lines each fits.
pub const FILE_BYTES_MAX: usize = 64 << 20;
const SIGNATURES_MAX: usize = 4;

/// No checkpoint, note or other text that the same key signs can begin like this.
const DOMAIN: &[u8] = b"quittance/v1/certificate\0";

/// Ed25519, wherever the key is kept.
pub trait Signer {
    /// `name+hash` of the signed-note verifier key.
    fn key_id(&self) -> String;
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CertificateFault>;
}

/// The log's own key signs certificates, too: a label keeps the two apart.
impl Signer for SignerKey {
    fn key_id(&self) -> String {
        format!("{}+{}", self.verifier().name(), self.verifier().id())
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CertificateFault> {
        Ok(self.sign_raw(message))
    }
}

/// Whom a certificate is believed from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustedKey {
    /// `name+hash` of the signed-note verifier key.
    pub id: String,
    /// Ed25519.
    pub public: [u8; 32],
}

impl From<&VerifierKey> for TrustedKey {
    fn from(key: &VerifierKey) -> Self {
        Self { id: format!("{}+{}", key.name(), key.id()), public: *key.public_key() }
    }
}

/// A file whose signatures hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    pub certificate: Certificate,
    /// Ids of the keys that signed it.
    pub signed_by: Vec<String>,
    /// Of the whole file: what the printed document shows.
    pub sha256: Hex<32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(borrow)]
    certificate: &'a RawValue,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    key: String,
    signature: String,
}

fn message(certificate: &RawValue) -> Vec<u8> {
    [DOMAIN, certificate.get().as_bytes()].concat()
}

/// Only where the error is: what stands there may be anything.
fn form(error: &serde_json::Error) -> CertificateFault {
    CertificateFault::Form(format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column()))
}

pub(super) fn sealed(certificate: &Certificate, signer: &dyn Signer) -> Result<Vec<u8>, CertificateFault> {
    let certificate = serde_json::value::to_raw_value(certificate).map_err(|e| form(&e))?;
    let signature = STANDARD.encode(signer.sign(&message(&certificate))?);
    let signatures = vec![Signature { key: signer.key_id(), signature }];
    let file = serde_json::to_vec(&File { certificate: &certificate, signatures }).map_err(|e| form(&e))?;
    if file.len() > FILE_BYTES_MAX { Err(CertificateFault::TooLarge(FILE_BYTES_MAX)) } else { Ok(file) }
}

/// Reads a file and checks its signatures, all of them, against the keys that the reader trusts. What the certificate says is not
/// looked at: that is [`super::check_consistency`]'s, and the proofs'.
pub fn open(file: &[u8], trusted: &[TrustedKey]) -> Result<Opened, CertificateFault> {
    if file.len() > FILE_BYTES_MAX {
        return Err(CertificateFault::TooLarge(FILE_BYTES_MAX));
    }
    let parsed: File<'_> = serde_json::from_slice(file).map_err(|e| form(&e))?;
    if serde_json::to_vec(&parsed).map_err(|e| form(&e))? != file {
        return Err(CertificateFault::NotCanonical("the file"));
    }
    let keys: BTreeSet<&str> = parsed.signatures.iter().map(|s| s.key.as_str()).collect();
    if parsed.signatures.is_empty() || parsed.signatures.len() > SIGNATURES_MAX || keys.len() < parsed.signatures.len()
    {
        return Err(CertificateFault::Signatures(SIGNATURES_MAX));
    }
    let message = message(parsed.certificate);
    for (n, signature) in parsed.signatures.iter().enumerate() {
        let key = trusted.iter().find(|k| k.id == signature.key).ok_or(CertificateFault::UntrustedKey(n))?;
        let bytes = STANDARD.decode(&signature.signature).map_err(|_| CertificateFault::Signature(n))?;
        let bytes = Ed25519Signature::from_slice(&bytes).map_err(|_| CertificateFault::Signature(n))?;
        // As strict as with checkpoints, see `key`.
        let public = VerifyingKey::from_bytes(&key.public).map_err(|_| CertificateFault::Signature(n))?;
        public.verify_strict(&message, &bytes).map_err(|_| CertificateFault::Signature(n))?;
    }
    let certificate: Certificate = serde_json::from_str(parsed.certificate.get()).map_err(|e| form(&e))?;
    if serde_json::to_string(&certificate).map_err(|e| form(&e))? != parsed.certificate.get() {
        return Err(CertificateFault::NotCanonical("the certificate"));
    }
    // Whoever reads it in ten years finds the key by the history that is in it.
    for (n, signature) in parsed.signatures.iter().enumerate() {
        if !certificate.log.keys.iter().any(|k| k.has_id(&signature.key)) {
            return Err(CertificateFault::KeyNotInHistory(n));
        }
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, file).as_ref());
    let signed_by = parsed.signatures.into_iter().map(|s| s.key).collect();
    Ok(Opened { certificate, signed_by, sha256: Hex(sha256) })
}
