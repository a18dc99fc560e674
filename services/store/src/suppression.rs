//! Suppressions: what is kept of an instruction, once it is confirmed, while a backup may bring the data back (I7). Pseudonyms, never
//! identifiers: a restored system says what it holds, and is recognised by them (`replays`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use quittance_domain::{
    Timestamp,
    action::Action,
    identifier::IdentifierKind,
    ids::{CustomerId, RequestId, SystemId},
    system::{System, SystemRole},
};
use quittance_sql::{Column, Part, Row, Rows, Tx};

use crate::{
    Store, StoreError, StoreResult, SubjectSecrets,
    seal::{RequestKey, WrappedKey},
    suppression_keys::SuppressionPseudonyms,
    tx::us,
};

/// Suppressions that are deleted in one transaction.
const SWEEP_BATCH: i64 = 5000;
/// How long the next generation has been there when an older one goes: every process has taken it up by then.
const OUTDATED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What a system's registration says of it.
#[derive(Clone, Debug)]
struct Kept {
    /// Kinds by which its rows are found.
    accepts: BTreeSet<IdentifierKind>,
    backups: Duration,
}

/// By system, as of the last look at all systems. Neither changes but with a new data map, and a task works with the one it was planned with.
#[derive(Debug, Default)]
pub(crate) struct KeptOfSystems(RwLock<HashMap<SystemId, Arc<Kept>>>);

impl KeptOfSystems {
    pub fn know(&self, systems: &[Arc<System>]) {
        let kept = |s: &Arc<System>| {
            // A recipient keeps what it has on its own account.
            let seconds = if s.role == SystemRole::Recipient { 0 } else { s.backup_retention_s };
            (s.id.clone(), Arc::new(Kept { accepts: s.accepts(), backups: Duration::from_secs(seconds) }))
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = systems.iter().map(kept).collect();
    }

    fn of(&self, system: &SystemId) -> Option<Arc<Kept>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(system).cloned()
    }
}

/// Makes the suppressions of one batch.
pub(crate) struct Suppressing {
    kept: Arc<Kept>,
    pseudonyms: SuppressionPseudonyms,
}

struct NewSuppression {
    request: RequestId,
    action: Action,
    pseudonym: Vec<u8>,
    renamed_to: Option<Vec<u8>>,
}

/// A confirmed task's request: its key and its sealed subject stand in the row from `at` on.
pub(crate) struct Confirmed<'a> {
    pub request: RequestId,
    pub action: Action,
    pub row: &'a Row,
    pub at: usize,
}

/// Columns of `requests` that [`Suppressing::part`] reads.
pub(crate) const SUBJECT_COLUMNS: &str = "requests.key_epoch, requests.wrapped_key, requests.sealed_subject";

impl Suppressing {
    /// What is to be written with the confirmations. The subject is opened here, where they are recorded: a worker elsewhere has no say in it.
    pub fn part(
        &self,
        store: &Store,
        customer: &CustomerId,
        system: &SystemId,
        now: Timestamp,
        confirmed: &[Confirmed<'_>],
    ) -> StoreResult<Part> {
        let mut all = Vec::new();
        for c in confirmed.iter().filter(|c| c.action != Action::Access) {
            self.of(store, customer, c, &mut all)?;
        }
        let until = now.checked_add(self.kept.backups).unwrap_or(Timestamp::MAX);
        let rows = Rows::new(vec![
            Column::uuids(all.iter().map(|s| s.request.uuid())),
            Column::texts(all.iter().map(|s| s.action.as_str())),
            Column::Bytes(all.iter().map(|s| s.renamed_to.clone()).collect()),
            Column::bytes(all.into_iter().map(|s| s.pseudonym)),
        ]);
        let args = vec![
            customer.as_str().into(),
            system.as_str().into(),
            us(now).into(),
            us(until).into(),
            i64::from(self.pseudonyms.newest_generation()).into(),
        ];
        Ok(Part::new(
            "WITH v(request_id, action, renamed_to, pseudonym) AS ({rows})
             INSERT INTO suppressions (customer_id, system_id, pseudonym, request_id, generation, action, confirmed_us, until_us, renamed_to)
             SELECT $1, $2, pseudonym, request_id, $5, action, $3, $4, renamed_to FROM v",
            args,
            rows,
        ))
    }

    fn of(
        &self,
        store: &Store,
        customer: &CustomerId,
        c: &Confirmed<'_>,
        all: &mut Vec<NewSuppression>,
    ) -> StoreResult<()> {
        let pseudonym = self.pseudonyms.newest();
        let mut names: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        if let Some(secrets) = opened(store, customer, c)? {
            let found_by = |kind: IdentifierKind| self.kept.accepts.contains(&kind);
            names.extend(secrets.names().filter(|i| found_by(i.kind())).map(|i| (pseudonym(i), None)));
            for change in secrets.identifier_changes.iter().filter(|change| found_by(change.kind)) {
                names.extend(change.old.as_ref().map(|old| (pseudonym(old), Some(pseudonym(&change.new)))));
            }
        }
        if names.is_empty() {
            // Ended by hand, since nothing leads to the system: said when the system is restored.
            names.insert(Vec::new(), None);
        }
        let one =
            |(pseudonym, renamed_to)| NewSuppression { request: c.request, action: c.action, pseudonym, renamed_to };
        all.extend(names.into_iter().map(one));
        Ok(())
    }
}

/// `None` where it is forgotten. A key that is only missing now is an error: the report comes again.
fn opened(store: &Store, customer: &CustomerId, c: &Confirmed<'_>) -> StoreResult<Option<SubjectSecrets>> {
    let Some(wrapped) = WrappedKey::read(&c.row.text(c.at)?, c.row.bytes(c.at + 1)?)? else { return Ok(None) };
    let open = || {
        let key = RequestKey::unwrap(store.ring(), customer, c.request, &wrapped)?;
        SubjectSecrets::open(&key, &c.row.bytes(c.at + 2)?)
    };
    match open() {
        Ok(secrets) => Ok(Some(secrets)),
        Err(StoreError::Unsealable(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What a sweep did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Swept {
    pub suppressions: u64,
    /// Generations whose key was destroyed.
    pub destroyed: Vec<u32>,
}

impl Store {
    /// `None`: no backup of the system brings anything back.
    pub(crate) async fn suppressing(
        &self,
        customer: &CustomerId,
        system: &SystemId,
    ) -> StoreResult<Option<Suppressing>> {
        let known = &self.inner.kept_of_systems;
        let kept = match known.of(system) {
            Some(kept) => kept,
            None => {
                self.topology().await?;
                known.of(system).ok_or(StoreError::NotFound("the system"))?
            }
        };
        let pseudonyms = || self.inner.suppression_keys.pseudonyms(customer, system);
        Ok((!kept.backups.is_zero()).then(|| Suppressing { pseudonyms: pseudonyms(), kept }))
    }

    /// Before which nothing was kept.
    pub(crate) async fn suppressed_since(tx: &mut Tx) -> StoreResult<i64> {
        let row = tx.fetch_one("SELECT suppressed_since_us FROM deployment WHERE id = 1", vec![]).await?;
        Ok(row.ok_or(crate::systems::NO_GENERATION)?.i64(0)?)
    }

    /// Deletes what no backup can bring back any more, and destroys the keys of generations that are not used any more.
    pub async fn sweep_suppressions(&self, now: Timestamp) -> StoreResult<Swept> {
        let keys = &self.inner.suppression_keys;
        keys.reload()?;
        let mut swept = Swept::default();
        for generation in self.generations_in_use().await? {
            for customer in self.customers_with_expired(generation, now).await? {
                swept.suppressions += self.delete_expired(&customer, generation, now).await?;
            }
        }
        for customer in self.customers_with_old_matches(now).await? {
            self.delete_old_matches(&customer, now).await?;
        }
        let in_use = self.generations_in_use().await?;
        for outdated in keys.outdated(OUTDATED_AFTER)? {
            if !in_use.contains(&outdated) {
                keys.destroy(outdated)?;
                swept.destroyed.push(outdated);
            }
        }
        Ok(swept)
    }

    /// Generations that a pseudonym is kept of. Deployment-wide.
    pub(crate) async fn generations_in_use(&self) -> StoreResult<Vec<u32>> {
        // Few: each is found by one step in the index of each customer.
        let sql = "SELECT min((SELECT min(s.generation) FROM suppressions s
                     WHERE s.customer_id = c.customer_id AND s.generation > $1)) FROM customers c";
        let mut tx = self.deployment_read().await?;
        let (mut found, mut after) = (Vec::new(), -1_i64);
        while let Some(generation) =
            tx.fetch_one(sql, vec![after.into()]).await?.map(|r| r.opt_i64(0)).transpose()?.flatten()
        {
            found.push(u32::try_from(generation).unwrap_or(u32::MAX));
            after = generation;
        }
        Ok(found)
    }

    async fn customers_with_expired(&self, generation: u32, now: Timestamp) -> StoreResult<Vec<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM suppressions s
                     WHERE s.customer_id = c.customer_id AND s.generation = $1 AND s.until_us < $2)
                   ORDER BY c.customer_id LIMIT 10000";
        let rows = tx.fetch(sql, vec![i64::from(generation).into(), us(now).into()]).await?;
        rows.iter().map(customer_id).collect()
    }

    /// What an open replay may still need stays until it has ended.
    async fn delete_expired(&self, customer: &CustomerId, generation: u32, now: Timestamp) -> StoreResult<u64> {
        let sql = "WITH gone AS (SELECT s.system_id, s.pseudonym, s.request_id FROM suppressions s
                     WHERE s.customer_id = $1 AND s.generation = $2 AND s.until_us < $3
                       AND NOT EXISTS (SELECT 1 FROM replays p WHERE p.system_id = s.system_id AND p.ended_us IS NULL)
                     LIMIT $4)
                   DELETE FROM suppressions WHERE customer_id = $1
                     AND (system_id, pseudonym, request_id) IN (SELECT system_id, pseudonym, request_id FROM gone)";
        let mut deleted = 0;
        loop {
            let mut tx = self.customer_tx(customer).await?;
            let args = vec![customer.as_str().into(), i64::from(generation).into(), us(now).into(), SWEEP_BATCH.into()];
            let gone = tx.execute(sql, args).await?;
            tx.commit().await?;
            deleted += gone;
            if gone < SWEEP_BATCH.unsigned_abs() {
                return Ok(deleted);
            }
        }
    }
}

pub(crate) fn customer_id(row: &Row) -> StoreResult<CustomerId> {
    let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
    CustomerId::new(&row.text(0)?).map_err(broken)
}
