//! An operator lets a task that needs attention run again, by the data map in force: often it was the map that was wrong.

use quittance_domain::{
    Timestamp,
    action::{Action, Correction},
    data_map::DataMap,
    ids::TaskKey,
    request::RequestState,
    system::{ConnectorKind, System},
};
use quittance_ledger::{Event, Operation, PlannedSystem};
use quittance_sql::Tx;

use crate::{
    Store, StoreError, StoreResult,
    ledger::Staging,
    lifecycle::locked_state,
    log::has_room,
    report::{not_resolvable, operated, release_free, task_args},
    seal::{RequestKey, SealedColumn, WrappedKey},
    systems::{data_map, in_force},
    tx::{parsed, us},
};

/// Gives what was found by the first map as the second one has it, or why that cannot be.
pub type Carry<'c> = &'c (dyn Fn(&[u8], &DataMap, &DataMap) -> Result<Vec<u8>, String> + Send + Sync);

impl Store {
    pub async fn retry_task(&self, key: &TaskKey, by: &str, now: Timestamp, carry: Carry<'_>) -> StoreResult<()> {
        let mut tx = self.customer_tx(&key.customer).await?;
        // Nothing runs for a request that waits for its customer's word, or is closed (I1).
        let state = locked_state(&mut tx, &key.customer, key.request).await?;
        if state != RequestState::InProgress {
            return Err(StoreError::WrongState(format!("the request is {state}")));
        }
        has_room(&mut tx, &key.customer, key.request).await?;
        let retried = tx
            .fetch_one(
                "UPDATE tasks SET state = 'WAITING', attempts = 0, reason = ''
                 WHERE customer_id = $1 AND request_id = $2 AND system_id = $3 AND state = 'NEEDS_ATTENTION'
                 RETURNING map_version, action",
                task_args(key),
            )
            .await?;
        let Some(retried) = retried else { return Err(not_resolvable(&mut tx, key).await?) };
        let mut staging = Staging::new(&key.customer);
        staging.add(key.request, &operated(key, Operation::Retried, by, now));
        let system = in_force(&mut tx, &key.system).await?;
        let before = retried.i64(0)?;
        if before != i64::from(system.map_version) {
            let action = parsed(&retried, 1, "tasks", Action::parse)?;
            self.take_map_in_force(&mut tx, key, (before, action), &system, carry).await?;
            let systems = vec![PlannedSystem { system: key.system.clone(), map_version: system.map_version }];
            staging.add(key.request, &Event::Planned { at_us: us(now), systems });
        }
        // It may have been planned behind an earlier instruction about the same person, and still be.
        let candidate = (key.request.uuid(), key.system.to_string());
        release_free(&mut tx, &key.customer, now, [candidate].into()).await?;
        staging.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    async fn take_map_in_force(
        &self,
        tx: &mut Tx,
        key: &TaskKey,
        (before, action): (i64, Action),
        system: &System,
        carry: Carry<'_>,
    ) -> StoreResult<()> {
        let found = tx
            .fetch_one(
                "SELECT m.sealed, r.key_epoch, r.wrapped_key FROM match_sets m
                 JOIN requests r ON r.customer_id = m.customer_id AND r.request_id = m.request_id
                 WHERE m.customer_id = $1 AND m.request_id = $2 AND m.system_id = $3",
                task_args(key),
            )
            .await?;
        let pinned = data_map(tx, &key.system, before).await?;
        let cannot = |why: String| {
            StoreError::WrongState(format!(
                "the task cannot go on by version {} of the system's data map: {why}. Bring that back by another update of the map, or \
                 resolve the task",
                system.map_version
            ))
        };
        if action == Action::Rectification {
            // It would be called done for what is left.
            let asked = self.secrets_in(tx, &key.customer, key.request).await?.corrections;
            let has = |map: &DataMap, c: &Correction| {
                map.collection(&c.collection).is_some_and(|m| m.field(&c.field).is_some())
            };
            if let Some(c) = asked.iter().find(|c| has(&pinned, c) && !has(&system.map, c)) {
                return Err(cannot(format!("{}.{}, which is to be corrected, is not in it", c.collection, c.field)));
            }
        }
        // What a worker elsewhere found, it alone can read.
        if let Some(found) = found.filter(|_| system.connector == ConnectorKind::Sql) {
            let wrapped = WrappedKey::read(&found.text(1)?, found.bytes(2)?)?.ok_or(StoreError::Forgotten)?;
            let request_key = RequestKey::unwrap(self.ring(), &key.customer, key.request, &wrapped)?;
            let place = key.system.as_str();
            let stored = request_key.open(SealedColumn::MatchSet, place, &found.bytes(0)?)?;
            let carried = carry(&stored, &pinned, &system.map).map_err(cannot)?;
            let sealed = request_key.seal(SealedColumn::MatchSet, place, &carried)?;
            let args = [task_args(key), vec![sealed.into()]].concat();
            tx.execute(
                "UPDATE match_sets SET sealed = $4 WHERE customer_id = $1 AND request_id = $2 AND system_id = $3",
                args,
            )
            .await?;
        }
        let args = [task_args(key), vec![i64::from(system.map_version).into()]].concat();
        tx.execute(
            "UPDATE tasks SET map_version = $4 WHERE customer_id = $1 AND request_id = $2 AND system_id = $3",
            args,
        )
        .await?;
        Ok(())
    }
}
