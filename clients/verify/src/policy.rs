//! Whom the verifier trusts, and how far.

use quittance_ledger::{
    checkpoint::{CheckpointError, LogKeys},
    key::{KeyName, KeyType, VerifierKey},
};

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Log(#[from] CheckpointError),
    #[error("the key of {0} is not one for cosignatures")]
    NotAWitness(KeyName),
    #[error("{0} and {1} have the same public key: one signature would count twice")]
    SameKey(KeyName, KeyName),
    #[error("{required} witnesses are required, but only {known} are known")]
    Unreachable { required: usize, known: usize },
}

/// A log's keys, the witnesses that are known, and how many of them must have cosigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    log: LogKeys,
    witnesses: Vec<VerifierKey>,
    required: usize,
}

impl Policy {
    pub fn new(log: Vec<VerifierKey>, witnesses: Vec<VerifierKey>, required: usize) -> Result<Self, PolicyError> {
        let log = LogKeys::new(log)?;
        for (at, key) in witnesses.iter().enumerate() {
            if key.key_type() != KeyType::CosignatureV1 {
                return Err(PolicyError::NotAWitness(key.name().clone()));
            }
            // An Ed25519 cosignature does not say its witness's name: the same key under two names would be two witnesses. And a log
            // that witnesses itself is none.
            let others = witnesses[..at].iter().chain(log.keys());
            if let Some(other) = others.into_iter().find(|other| other.public_key() == key.public_key()) {
                return Err(PolicyError::SameKey(other.name().clone(), key.name().clone()));
            }
        }
        if required > witnesses.len() {
            return Err(PolicyError::Unreachable { required, known: witnesses.len() });
        }
        Ok(Self { log, witnesses, required })
    }

    pub const fn log(&self) -> &LogKeys {
        &self.log
    }

    pub fn witnesses(&self) -> &[VerifierKey] {
        &self.witnesses
    }

    /// How many different witnesses must have cosigned.
    pub const fn required(&self) -> usize {
        self.required
    }
}
