//! Witnesses: others who sign that the log only grows, each with the time by its own clock (C2SP tlog-witness).
//!
//! They are asked beside the log's work, never within it. What one answers is believed only as far as its signature goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quittance_ledger::{
    checkpoint::{self, CheckpointError, LogKeys, SignedHead},
    key::{KeyName, KeyType, VerifierKey},
    note::{NoteError, Signature},
    proof::{consistency, consistency_tiles},
    witness::AddCheckpoint,
};
use quittance_log_client::{Witness, WitnessReply};
use quittance_store::Store;
use tokio::{sync::mpsc, task::JoinSet};

use crate::fetch;

/// A witness may tell its size once, and once more if somebody else was faster.
const TRIES: usize = 3;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WitnessError {
    #[error("the key of {0} is not one for cosignatures")]
    NotAWitness(KeyName),
    #[error("{0} and {1} have the same public key: one signature would count twice")]
    SameKey(KeyName, KeyName),
    #[error("{required} witnesses are required, and only {known} are known")]
    Unreachable { required: usize, known: usize },
}

/// The witnesses of the log, and how many of them must have signed what is published.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    all: Vec<Arc<Asked>>,
    keys: Vec<VerifierKey>,
    required: usize,
    /// A round of questions ends then, whoever has not answered.
    within: Duration,
    ignored: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Asked {
    witness: Witness,
    /// The size of the latest tree that it signed, as far as we know.
    latest: AtomicU64,
}

impl Witnesses {
    pub fn new(witnesses: Vec<Witness>, required: usize, within: Duration) -> Result<Self, WitnessError> {
        let keys: Vec<VerifierKey> = witnesses.iter().map(|witness| witness.key().clone()).collect();
        for (at, key) in keys.iter().enumerate() {
            if key.key_type() != KeyType::CosignatureV1 {
                return Err(WitnessError::NotAWitness(key.name().clone()));
            }
            // A cosignature does not say its witness's name: the same key under two names would be two witnesses.
            if let Some(other) = keys[..at].iter().find(|other| other.public_key() == key.public_key()) {
                return Err(WitnessError::SameKey(other.name().clone(), key.name().clone()));
            }
        }
        if required > keys.len() {
            return Err(WitnessError::Unreachable { required, known: keys.len() });
        }
        let asked = |witness| Arc::new(Asked { witness, latest: AtomicU64::new(0) });
        let all = witnesses.into_iter().map(asked).collect();
        Ok(Self { all, keys, required, within, ignored: Arc::default() })
    }

    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    pub const fn required(&self) -> usize {
        self.required
    }

    /// Lines that witnesses answered and that were no signatures of theirs over what they were asked.
    pub fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// How many of them have signed it.
    pub fn signed(&self, note: &SignedHead, log: &LogKeys) -> Result<usize, CheckpointError> {
        let verified = checkpoint::verify(&note.note, log, &self.keys)?;
        Ok(self.keys.iter().filter(|key| verified.has_signed(key)).count())
    }

    /// Asks those that have not signed yet. `None`: all have.
    pub(crate) fn ask(
        &self,
        store: &Store,
        signed: &SignedHead,
        log: &LogKeys,
    ) -> Result<Option<Round>, CheckpointError> {
        let verified = checkpoint::verify(&signed.note, log, &self.keys)?;
        let missing = self.all.iter().filter(|asked| !verified.has_signed(asked.witness.key()));
        let (answers, answered) = mpsc::channel(self.all.len().max(1));
        let mut asking = JoinSet::new();
        for asked in missing {
            let (asked, store, signed) = (asked.clone(), store.clone(), signed.clone());
            let (answers, ignored, within) = (answers.clone(), self.ignored.clone(), self.within);
            asking.spawn(async move {
                let name = asked.witness.key().name().clone();
                match tokio::time::timeout(within, ask_one(&asked, &store, &signed, &ignored)).await {
                    // Nobody listens where the round was given up.
                    Ok(Ok(signature)) => drop(answers.send(signature).await),
                    Ok(Err(refused)) => tracing::warn!(witness = %name, size = signed.head.size, "{refused}"),
                    Err(_) => tracing::warn!(witness = %name, size = signed.head.size, "did not answer in time"),
                }
            });
        }
        Ok((!asking.is_empty()).then_some(Round { about: signed.clone(), asking, answered }))
    }
}

/// Questions under way. Dropped, they are given up.
pub(crate) struct Round {
    /// What they were asked about, with the signatures that have come.
    pub about: SignedHead,
    asking: JoinSet<()>,
    answered: mpsc::Receiver<Signature>,
}

impl Round {
    /// Adds what has come meanwhile, and gives it.
    pub fn take(&mut self) -> Result<Vec<Signature>, NoteError> {
        while self.asking.try_join_next().is_some() {}
        let came: Vec<Signature> = std::iter::from_fn(|| self.answered.try_recv().ok()).collect();
        came.iter().try_for_each(|signature| self.about.note.add(signature.clone()))?;
        Ok(came)
    }

    /// Nothing more will come than what [`Self::take`] gives.
    pub fn is_over(&self) -> bool {
        self.asking.is_empty() && self.answered.is_empty()
    }
}

async fn ask_one(asked: &Asked, store: &Store, signed: &SignedHead, ignored: &AtomicU64) -> Result<Signature, String> {
    let size = signed.head.size;
    for _ in 0..TRIES {
        let old_size = asked.latest.load(Ordering::Relaxed).min(size);
        let tiles = consistency_tiles(old_size, size).map_err(|e| e.to_string())?;
        let tiles = fetch(store, tiles).await.map_err(|e| e.to_string())?;
        let consistency = consistency(&tiles, old_size, size).map_err(|e| e.to_string())?;
        let request = AddCheckpoint { old_size, consistency, checkpoint: signed.note.clone() };
        match asked.witness.ask(&request).await.map_err(|e| e.to_string())? {
            WitnessReply::Cosigned(answer) => {
                if answer.ignored > 0 {
                    ignored.fetch_add(answer.ignored as u64, Ordering::Relaxed);
                    tracing::warn!(
                        monotonic_counter.quittance_witness_lines_ignored = answer.ignored as u64,
                        witness = %asked.witness.key().name(),
                        "what it signed is not what it was asked, and is ignored"
                    );
                }
                let signature =
                    answer.cosignatures.into_iter().next().ok_or("its answer holds no signature of its own")?;
                asked.latest.store(size, Ordering::Relaxed);
                return Ok(signature);
            }
            WitnessReply::OldSize(latest) if latest > size => {
                return Err(format!("says that it has signed a tree of {latest} entries already"));
            }
            WitnessReply::OldSize(latest) => asked.latest.store(latest, Ordering::Relaxed),
            WitnessReply::Refused(status) => return Err(format!("refuses with HTTP status {status}")),
        }
    }
    Err("tells another size every time".to_owned())
}
