//! Certificates, checked without the service.

use quittance_ledger::{
    certificate::{Certificate, KeyStatus, LogKey, TrustedKey, check_consistency, open},
    checkpoint::LogKeys,
    key::VerifierKey,
    tlog_proof::TlogProof,
    tree::MerkleHash,
};

use crate::Deployment;

/// The log's public keys as the operator publishes them.
pub fn keys(deployment: &Deployment) -> LogKeys {
    let history = std::fs::read(deployment.data().join("ledger/keys/history.json")).unwrap();
    let history: Vec<LogKey> = serde_json::from_slice(&history).unwrap();
    let kept = history.iter().filter(|key| key.status != KeyStatus::Revoked);
    LogKeys::new(kept.map(|key| key.vkey.parse::<VerifierKey>().unwrap()).collect()).unwrap()
}

/// What `quittance verify` does, with nothing but the file and the log's keys.
pub fn check(file: &[u8], keys: &LogKeys) -> Certificate {
    let trusted: Vec<TrustedKey> = keys.keys().iter().map(TrustedKey::from).collect();
    let certificate = open(file, &trusted).unwrap().certificate;
    check_consistency(&certificate).unwrap();
    for entry in &certificate.entries {
        let proof = TlogProof::parse(entry.proof.as_bytes()).unwrap();
        proof.verify(&MerkleHash::of_entry(&entry.leaf.0), keys, &[]).unwrap();
    }
    certificate
}
