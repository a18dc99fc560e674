//! Epochs as the database knows them: which is current, and how far the older ones have come (I7). Their keys are in the key ring alone.

use std::{path::Path, sync::Arc};

use quittance_domain::{Timestamp, ids::CustomerId};
use quittance_sql::{Engine, Pool, Row, Tx};

use crate::{
    Store, StoreError, StoreResult,
    keyring::{EpochKey, KeyCheck, KeyRing, KnownEpochs},
    rekey,
    subject_keys::{SubjectForm, SubjectKeys},
    systems::{NO_GENERATION, held_generation, hold_deployment},
    tx::{opt_time, parsed, us},
};

/// One a week makes fifty a year; the list is for people, and for keys that came back.
const LISTED_MAX: i64 = 1000;

/// Each state comes after the one before it, and none is left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EpochState {
    /// What is sealed now is sealed under it.
    Current,
    /// Nothing new comes under it; what lives is re-wrapped, what is over is forgotten.
    Closed,
    /// Nothing is under it any more.
    Rewrapped,
    /// Its key is gone.
    Destroyed,
    /// And that is on record.
    Logged,
}

impl EpochState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "CURRENT",
            Self::Closed => "CLOSED",
            Self::Rewrapped => "REWRAPPED",
            Self::Destroyed => "DESTROYED",
            Self::Logged => "LOGGED",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Current, Self::Closed, Self::Rewrapped, Self::Destroyed, Self::Logged]
            .into_iter()
            .find(|state| state.as_str() == text)
    }

    /// Whether its key may still be needed.
    const fn lives(self) -> bool {
        matches!(self, Self::Current | Self::Closed | Self::Rewrapped)
    }
}

/// An epoch, and when it came to each state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochRow {
    pub number: u32,
    pub state: EpochState,
    /// `None`: it was there before anybody dated it.
    pub current_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub rewrapped_at: Option<Timestamp>,
    pub destroyed_at: Option<Timestamp>,
    pub logged_at: Option<Timestamp>,
    pub(crate) check: KeyCheck,
    pub(crate) subjects: SubjectForm,
}

const TABLE: &str = "key_epochs";

fn read(row: &Row) -> StoreResult<EpochRow> {
    let out_of_range = |_| StoreError::Inconsistent { table: TABLE, what: "an epoch's number is out of range" };
    Ok(EpochRow {
        number: u32::try_from(row.i64(0)?).map_err(out_of_range)?,
        state: parsed(row, 1, TABLE, EpochState::parse)?,
        current_at: opt_time(Some(row.i64(2)?).filter(|us| *us != 0), TABLE)?,
        closed_at: opt_time(row.opt_i64(3)?, TABLE)?,
        rewrapped_at: opt_time(row.opt_i64(4)?, TABLE)?,
        destroyed_at: opt_time(row.opt_i64(5)?, TABLE)?,
        logged_at: opt_time(row.opt_i64(6)?, TABLE)?,
        check: row.bytes(7)?,
        subjects: parsed(row, 8, TABLE, SubjectForm::parse)?,
    })
}

async fn read_all(tx: &mut Tx) -> StoreResult<Vec<EpochRow>> {
    let sql =
        "SELECT epoch, state, current_us, closed_us, rewrapped_us, destroyed_us, logged_us, key_check, subject_form FROM key_epochs
               ORDER BY epoch DESC LIMIT $1";
    tx.fetch(sql, vec![LISTED_MAX.into()]).await?.iter().map(read).collect()
}

/// Whether a store has anything that a key ring is needed for. One that has not may be given its first keys.
pub(crate) async fn holds_sealed(pool: &Pool) -> StoreResult<bool> {
    let mut tx = pool.begin_read_committed("SET LOCAL quittance.scope = 'deployment'").await?;
    let begun = known_epoch(&mut tx, "").await? > 0;
    let sealed = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM requests r
                    WHERE r.customer_id = c.customer_id) LIMIT 1";
    let holds = begun || tx.fetch_one(sealed, vec![]).await?.is_some();
    // Not left to the end of a transaction that is dropped: keys are made next, and the disk may take its time.
    tx.commit().await?;
    Ok(holds)
}

/// Fails if the key ring in the folder is another store's. What is missing of it is another matter; nothing is made.
pub(crate) async fn belongs(tx: &mut Tx, key_ring: &Path) -> StoreResult<()> {
    let epochs = read_all(tx).await?.into_iter().map(|epoch| (epoch.number, epoch.check));
    KeyRing::fits(key_ring, &epochs.collect())
}

async fn known_epoch(tx: &mut Tx, lock: &str) -> StoreResult<i64> {
    let row = tx.fetch_one(&format!("SELECT key_epoch FROM deployment WHERE id = 1 {lock}"), vec![]).await?;
    Ok(row.ok_or(NO_GENERATION)?.i64(0)?)
}

/// The current epoch as this transaction may seal under it: it stays current until the transaction ends (I7).
pub(crate) async fn hold_epoch(tx: &mut Tx) -> StoreResult<i64> {
    let row = tx.fetch_one(held_generation(tx.engine()), vec![]).await?;
    Ok(row.ok_or(NO_GENERATION)?.i64(1)?)
}

impl Store {
    /// Takes the key ring's epochs into a store that knows of none, and looks whether ring and store are of each other.
    pub(crate) async fn begin_epochs(&self) -> StoreResult<()> {
        if known_epoch(&mut self.deployment_read().await?, "").await? == 0 {
            self.take_in_epochs().await?;
        }
        self.refresh_keys().await?;
        if let Err(StoreError::NoEpochKey(epoch)) = self.ring().current() {
            tracing::error!(
                epoch,
                "the key ring lacks the current epoch's key: nothing is taken in until it is there, or the keys are rotated; then who is \
                 restricted must be instructed anew (docs/operating.md, Keys)"
            );
        }
        Ok(())
    }

    async fn take_in_epochs(&self) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE" } else { "" };
        // Or another replica was faster.
        if known_epoch(&mut tx, lock).await? == 0 {
            let keys = self.ring().all()?;
            let newest = keys.last().ok_or_else(|| StoreError::KeyRing("holds no epoch key".to_owned()))?.number;
            // Rows of a store that is older than its epochs have bare names, and a build that is as old may run beside.
            let form = if rekey::any(&mut tx).await? { SubjectForm::Unknown } else { SubjectForm::Covered };
            for key in keys {
                let state = if key.number == newest { EpochState::Current } else { EpochState::Closed };
                insert(&mut tx, key.number, state, key.check, form, 0).await?;
            }
            tx.execute("UPDATE deployment SET key_epoch = $1 WHERE id = 1", vec![newest.into()]).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Looks which epochs there are: a key that is destroyed is dropped from memory, one that is new is used from now on.
    pub async fn refresh_keys(&self) -> StoreResult<()> {
        self.know_epochs(self.key_epochs().await?)?;
        // What was turned over by a command: who takes reports in writes by the newest, whatever else it does.
        self.inner.suppression_keys.reload()
    }

    fn know_epochs(&self, epochs: Vec<EpochRow>) -> StoreResult<()> {
        let mut known = KnownEpochs::default();
        for epoch in epochs {
            if epoch.state == EpochState::Current {
                known.current = epoch.number;
            }
            if epoch.state.lives() {
                known.forms.insert(epoch.number, epoch.subjects);
                known.living.insert(epoch.number, epoch.check);
            } else {
                known.destroyed.insert(epoch.number, epoch.check);
            }
        }
        self.ring().know(known)
    }

    /// For a transaction that brings rows about subjects: the current epoch, and earlier ones that may have such rows, stay what they are
    /// until it ends.
    pub(crate) async fn hold_subject_keys(&self, tx: &mut Tx, customer: &CustomerId) -> StoreResult<SubjectKeys> {
        let epoch = hold_epoch(tx).await?;
        let epochs = read_all(tx).await?;
        let current = epochs.iter().find(|e| i64::from(e.number) == epoch).map(|e| e.number);
        self.know_epochs(epochs)?;
        self.ring().subject_keys(customer, current.ok_or(StoreError::NotFound("the current epoch"))?)
    }

    /// Newest first.
    pub async fn key_epochs(&self) -> StoreResult<Vec<EpochRow>> {
        read_all(&mut self.deployment_read().await?).await
    }

    /// An operator wants the keys rotated now; whoever turns them over sees it.
    pub async fn ask_for_rotation(&self) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        tx.execute("UPDATE key_rotation SET asked = 1 WHERE id = 1", vec![]).await?;
        Ok(tx.commit().await?)
    }

    /// What a request is sealed under now, as far as this replica knows. Whether it still is, the transaction that writes it sees.
    pub(crate) async fn sealing_epoch(&self) -> StoreResult<Arc<EpochKey>> {
        match self.ring().current() {
            Err(StoreError::NoEpochKey(_)) => {
                self.refresh_keys().await?;
                self.ring().current()
            }
            current => current,
        }
    }

    /// Makes another epoch the current one. Once this is committed nothing is sealed under `current` any more. `false`: another replica
    /// was faster.
    pub(crate) async fn begin_epoch(&self, before: &EpochRow, now: Timestamp) -> StoreResult<bool> {
        let (current, next) = (before.number, before.number + 1);
        let mut tx = self.deployment_tx().await?;
        hold_deployment(&mut tx).await?;
        let moved = tx
            .execute(
                "UPDATE deployment SET key_epoch = $2 WHERE id = 1 AND key_epoch = $1",
                vec![current.into(), next.into()],
            )
            .await?;
        if moved == 0 {
            return Ok(false);
        }
        // Durable before the database knows of it, and not before nobody else can begin it: an epoch that was begun and destroyed while we stood
        // still must not get another key. What an interrupted try has left is taken.
        let check = self.ring().make(next)?;
        tx.execute(
            "UPDATE key_epochs SET state = 'CLOSED', closed_us = $2 WHERE epoch = $1 AND state = 'CURRENT'",
            vec![current.into(), us(now).into()],
        )
        .await?;
        insert(&mut tx, next, EpochState::Current, check, before.subjects.next(), us(now)).await?;
        tx.execute("UPDATE key_rotation SET asked = 0 WHERE id = 1", vec![]).await?;
        tx.commit().await?;
        self.refresh_keys().await?;
        Ok(true)
    }
}

async fn insert(
    tx: &mut Tx,
    number: u32,
    state: EpochState,
    check: KeyCheck,
    subjects: SubjectForm,
    current_us: i64,
) -> StoreResult<()> {
    let closed_us = (state != EpochState::Current).then_some(current_us);
    let args = vec![
        number.into(),
        state.as_str().into(),
        check.into(),
        subjects.as_str().into(),
        current_us.into(),
        quittance_sql::Val::I64(closed_us),
    ];
    tx.execute(
        "INSERT INTO key_epochs (epoch, state, key_check, subject_form, current_us, closed_us) VALUES ($1, $2, $3, $4, $5, $6)",
        args,
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use quittance_sql::ConnectOptions;

    use super::*;
    use crate::StoreOptions;

    /// Whoever stood still before it began an epoch, which others began and destroyed meanwhile, makes no other key of that number: no process
    /// would start with it.
    #[tokio::test]
    async fn an_epoch_that_others_have_destroyed_gets_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let key_ring = folder.path().join("keys");
        let url = format!("sqlite:{}", folder.path().join("store.db").display());
        let options = StoreOptions { connect: ConnectOptions::new(url), key_ring: key_ring.clone() };
        let store = Store::open(&options).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let first = store.key_epochs().await.unwrap().remove(0);
        assert!(store.begin_epoch(&first, now).await.unwrap());
        let made: Vec<_> = std::fs::read_dir(&key_ring).unwrap().map(|file| file.unwrap().path()).collect();
        let second = made.iter().find(|path| path.to_string_lossy().contains("epoch-2")).unwrap();
        std::fs::remove_file(second).unwrap();
        assert!(!store.begin_epoch(&first, now).await.unwrap());
        assert!(!second.exists());
    }
}
