//! Systems and their data maps. Deployment-wide; few; kept in memory as a [`Topology`].

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use quittance_domain::{
    Timestamp,
    data_map::{Collection, DataMap},
    ids::{CustomerId, IdempotencyId, SystemId},
    plan::SystemFacts,
    system::{Registration, System, SystemRole, SystemScope},
};
use quittance_sql::{Column, Engine, Row, Rows, Tx, Val};

use crate::{
    Store, StoreError, StoreResult,
    tx::{again, time, us},
};

/// All systems as of one generation.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    pub generation: i64,
    pub systems: Vec<Arc<System>>,
}

impl Topology {
    pub fn system(&self, id: &SystemId) -> Option<&Arc<System>> {
        self.systems.iter().find(|s| s.id == *id)
    }

    /// Every system that may hold the customer's data (I3), and those that can be told of it.
    pub fn facts_for(&self, customer: &CustomerId) -> Vec<SystemFacts> {
        let mine = self.systems.iter().filter(|s| s.customer_key(customer).is_some());
        mine.map(|s| SystemFacts {
            id: s.id.clone(),
            accepts: s.accepts(),
            yields: s.yields(),
            map_version: s.map_version,
            grace_period_s: s.grace_period_s,
            recipient: s.role == SystemRole::Recipient,
        })
        .collect()
    }
}

const SELECT: &str = "SELECT s.body, s.map_version, m.body, s.created_us, m.yaml FROM systems s
     JOIN data_maps m ON m.system_id = s.system_id AND m.version = s.map_version";

/// More than this are not listed at once, nor can be registered.
pub(crate) const SYSTEMS_MAX: i64 = 10_000;

fn broken<E>(_: E) -> StoreError {
    StoreError::Inconsistent { table: "systems", what: "a system or data map does not parse" }
}

fn read(row: &Row) -> StoreResult<System> {
    Ok(System {
        registration: serde_json::from_str(&row.text(0)?).map_err(broken)?,
        map_version: u32::try_from(row.i64(1)?).map_err(broken)?,
        map: Arc::new(serde_json::from_str(&row.text(2)?).map_err(broken)?),
    })
}

/// Reads the generation and keeps it from moving until the transaction ends: nothing is planned or completed with an old one (I3).
pub(crate) async fn hold_generation(tx: &mut Tx) -> StoreResult<i64> {
    let row = tx.fetch_one(held_generation(tx.engine()), vec![]).await?;
    Ok(row.ok_or(NO_GENERATION)?.i64(0)?)
}

/// As a statement may have it among others; with the current epoch, for whoever seals a key under it.
pub(crate) const fn held_generation(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgres => "SELECT systems_generation, key_epoch FROM deployment WHERE id = 1 FOR SHARE",
        Engine::Sqlite | Engine::MySql => "SELECT systems_generation, key_epoch FROM deployment WHERE id = 1",
    }
}

/// So often is it tried: with the two seconds of each, within a call's time.
const HOLD_TRIES: u32 = 4;

pub(crate) const NO_GENERATION: StoreError = StoreError::Inconsistent { table: "deployment", what: "it has no row" };

/// Before the row of `deployment` is changed. Those who take requests in, or confirm, share a lock on it, and under load there is always one of
/// them: an update would wait for ever. For the table they queue behind us, so we wait for a moment only, and come again.
pub(crate) async fn hold_deployment(tx: &mut Tx) -> StoreResult<()> {
    if tx.engine() == Engine::Postgres {
        tx.execute("SET LOCAL lock_timeout = '2s'", vec![]).await?;
        tx.execute("LOCK TABLE deployment IN EXCLUSIVE MODE", vec![]).await?;
    }
    Ok(())
}

/// A change of systems, again where [`hold_deployment`] was not let through.
async fn let_through<F: Future<Output = StoreResult<()>>>(change: impl Fn() -> F) -> StoreResult<()> {
    again(HOLD_TRIES, StoreError::is_timeout, change).await
}

async fn raise_generation(tx: &mut Tx) -> StoreResult<()> {
    hold_deployment(tx).await?;
    tx.execute("UPDATE deployment SET systems_generation = systems_generation + 1 WHERE id = 1", vec![]).await?;
    Ok(())
}

/// Whether the `request_id` registered this system before; an error, if it registered another.
async fn is_known(tx: &mut Tx, system: &System, yaml: &str, idempotency: IdempotencyId) -> StoreResult<bool> {
    let sql = "SELECT s.body, m.yaml FROM systems s JOIN data_maps m ON m.system_id = s.system_id AND m.version = 1
               WHERE s.idempotency_id = $1";
    let Some(row) = tx.fetch_one(sql, vec![idempotency.uuid().into()]).await? else { return Ok(false) };
    let known: Registration = serde_json::from_str(&row.text(0)?).map_err(broken)?;
    if known.began_as(&system.registration) && row.text(1)? == yaml {
        Ok(true)
    } else {
        Err(StoreError::RequestIdReused)
    }
}

async fn insert_map(
    tx: &mut Tx,
    system: &SystemId,
    version: i64,
    idempotency: IdempotencyId,
    yaml: &str,
    map: &DataMap,
    now: Timestamp,
) -> StoreResult<()> {
    tx.execute(
        "INSERT INTO data_maps (system_id, version, idempotency_id, yaml, body, created_us) VALUES ($1, $2, $3, $4, $5, $6)",
        vec![
            system.as_str().into(),
            version.into(),
            idempotency.uuid().into(),
            yaml.into(),
            serde_json::to_string(map).map_err(broken)?.into(),
            us(now).into(),
        ],
    )
    .await?;
    Ok(())
}

/// As it was registered, with the map in force.
pub(crate) async fn in_force(tx: &mut Tx, system: &SystemId) -> StoreResult<System> {
    let row = tx.fetch_one(&format!("{SELECT} WHERE s.system_id = $1"), vec![system.as_str().into()]).await?;
    read(&row.ok_or(StoreError::NotFound("the system"))?)
}

/// Of these systems, those that are told where an instruction says so, and asked nothing else.
pub(crate) async fn recipients(
    tx: &mut Tx,
    systems: impl Iterator<Item = &SystemId>,
) -> StoreResult<HashSet<SystemId>> {
    let rows = tx
        .fetch_rows(
            "WITH v(system_id) AS ({rows}) SELECT s.body FROM v JOIN systems s ON s.system_id = v.system_id",
            Vec::new(),
            Rows::new(vec![Column::texts(systems.map(SystemId::as_str))]),
        )
        .await?;
    let mut found = HashSet::new();
    for row in rows {
        let registration: Registration = serde_json::from_str(&row.text(0)?).map_err(broken)?;
        if registration.role == SystemRole::Recipient {
            found.insert(registration.id);
        }
    }
    Ok(found)
}

pub(crate) async fn data_map(tx: &mut Tx, system: &SystemId, version: i64) -> StoreResult<DataMap> {
    let sql = "SELECT body FROM data_maps WHERE system_id = $1 AND version = $2";
    let row = tx.fetch_one(sql, vec![system.as_str().into(), version.into()]).await?;
    serde_json::from_str(&row.ok_or(StoreError::NotFound("the data map"))?.text(0)?).map_err(broken)
}

fn unconfined(c: &Collection) -> StoreError {
    StoreError::WrongState(format!(
        "several customers share the system, and collection {} does not say whose a row is: name its `customer_field`",
        c.name
    ))
}

/// What was planned while nobody shared the system would be done to everybody's rows.
async fn no_task_is_unconfined(tx: &mut Tx, customer: &CustomerId, system: &Registration) -> StoreResult<()> {
    let sql = "SELECT DISTINCT map_version FROM tasks
               WHERE customer_id = $1 AND system_id = $2 AND coalesce(state, '') <> 'CONFIRMED'";
    for row in tx.fetch(sql, vec![customer.as_str().into(), system.id.as_str().into()]).await? {
        let version = row.i64(0)?;
        let map = data_map(tx, &system.id, version).await?;
        if let Some(c) = system.unconfined(&map).next() {
            return Err(StoreError::WrongState(format!(
                "tasks of {customer:?} are open at the system by version {version} of its data map, whose collection {} does not say whose a row \
                 is: add customers when they are done, or retry or resolve those that need attention",
                c.name
            )));
        }
    }
    Ok(())
}

impl Store {
    pub async fn topology(&self) -> StoreResult<Topology> {
        let mut tx = self.deployment_tx().await?;
        let generation = hold_generation(&mut tx).await?;
        let sql = format!("{SELECT} ORDER BY s.system_id LIMIT $1");
        let rows = tx.fetch(&sql, vec![SYSTEMS_MAX.into()]).await?;
        let systems = rows.iter().map(|row| read(row).map(Arc::new)).collect::<StoreResult<Vec<_>>>()?;
        self.inner.kept_of_systems.know(&systems);
        Ok(Topology { generation, systems })
    }

    /// Whether a cached topology is still the present one.
    pub async fn generation(&self) -> StoreResult<i64> {
        let mut tx = self.deployment_read().await?;
        let row = tx.fetch_one("SELECT systems_generation FROM deployment WHERE id = 1", vec![]).await?;
        Ok(row.ok_or(StoreError::Inconsistent { table: "deployment", what: "it has no row" })?.i64(0)?)
    }

    /// Registers it, or does nothing where the same `request_id` did before.
    pub async fn register_system(
        &self,
        system: &System,
        yaml: &str,
        idempotency: IdempotencyId,
        now: Timestamp,
    ) -> StoreResult<()> {
        let_through(|| self.try_register(system, yaml, idempotency, now)).await
    }

    async fn try_register(
        &self,
        system: &System,
        yaml: &str,
        idempotency: IdempotencyId,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        if is_known(&mut tx, system, yaml, idempotency).await? {
            return Ok(());
        }
        let body = serde_json::to_string(&system.registration).map_err(broken)?;
        let inserted = tx
            .execute(
                "INSERT INTO systems (system_id, idempotency_id, body, map_version, created_us)
                 SELECT $1, $2, $3, 1, $4 WHERE (SELECT count(*) FROM systems) < $5 ON CONFLICT DO NOTHING",
                vec![
                    system.id.as_str().into(),
                    idempotency.uuid().into(),
                    body.into(),
                    us(now).into(),
                    SYSTEMS_MAX.into(),
                ],
            )
            .await?;
        if inserted == 0 {
            // Or it was sent twice at once, and the other one was first.
            let repeated = is_known(&mut tx, system, yaml, idempotency).await?;
            return if repeated { Ok(()) } else { Err(StoreError::AlreadyExists("the system")) };
        }
        insert_map(&mut tx, &system.id, 1, idempotency, yaml, &system.map, now).await?;
        raise_generation(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Adds customers to those whose data it may hold. Their open requests are planned for it by the sweep.
    pub async fn add_customers(&self, system: &SystemId, added: &BTreeMap<CustomerId, String>) -> StoreResult<()> {
        let_through(|| self.try_add_customers(system, added)).await
    }

    async fn try_add_customers(&self, system: &SystemId, added: &BTreeMap<CustomerId, String>) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        let lock = "UPDATE systems SET body = body WHERE system_id = $1";
        tx.execute(lock, vec![system.as_str().into()]).await?;
        let before = in_force(&mut tx, system).await?;
        let scope = before.scope.with(added).map_err(|e| StoreError::WrongState(e.to_string()))?;
        if scope == before.scope {
            return Ok(());
        }
        let after = Registration { scope, ..before.registration.clone() };
        if let Some(c) = after.unconfined(&before.map).next() {
            return Err(unconfined(c));
        }
        if let SystemScope::Customers(keys) = &before.scope
            && !before.scope.is_shared()
        {
            for customer in keys.keys() {
                no_task_is_unconfined(&mut tx, customer, &after).await?;
            }
        }
        let body = serde_json::to_string(&after).map_err(broken)?;
        let args = vec![system.as_str().into(), body.into()];
        tx.execute("UPDATE systems SET body = $2 WHERE system_id = $1", args).await?;
        raise_generation(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Adds a version of the map. Tasks planned before keep theirs.
    pub async fn update_data_map(
        &self,
        system: &SystemId,
        yaml: &str,
        map: &DataMap,
        idempotency: IdempotencyId,
        now: Timestamp,
    ) -> StoreResult<()> {
        let_through(|| self.try_update_map(system, yaml, map, idempotency, now)).await
    }

    async fn try_update_map(
        &self,
        system: &SystemId,
        yaml: &str,
        map: &DataMap,
        idempotency: IdempotencyId,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        let bump = "UPDATE systems SET map_version = map_version + 1 WHERE system_id = $1 RETURNING map_version, body";
        let row = tx.fetch_one(bump, vec![system.as_str().into()]).await?;
        let row = row.ok_or(StoreError::NotFound("the system"))?;
        let version = row.i64(0)?;
        // Under the system's lock: the same id sent twice at once is one version. What was raised is rolled back.
        let known = "SELECT yaml FROM data_maps WHERE system_id = $1 AND idempotency_id = $2";
        let args = vec![system.as_str().into(), idempotency.uuid().into()];
        if let Some(known) = tx.fetch_one(known, args).await? {
            return if known.text(0)? == yaml { Ok(()) } else { Err(StoreError::RequestIdReused) };
        }
        // It was checked for the customers of a moment ago.
        let registered: Registration = serde_json::from_str(&row.text(1)?).map_err(broken)?;
        if let Some(c) = registered.unconfined(map).next() {
            return Err(unconfined(c));
        }
        insert_map(&mut tx, system, version, idempotency, yaml, map, now).await?;
        raise_generation(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// One system with the YAML of its map.
    pub async fn system(&self, id: &SystemId) -> StoreResult<(System, String, Timestamp)> {
        let mut tx = self.deployment_read().await?;
        let row = tx.fetch_one(&format!("{SELECT} WHERE s.system_id = $1"), vec![id.as_str().into()]).await?;
        let row = row.ok_or(StoreError::NotFound("the system"))?;
        Ok((read(&row)?, row.text(4)?, time(row.i64(3)?, "systems")?))
    }

    pub async fn list_systems(&self, after: &str, limit: u32) -> StoreResult<Vec<(System, String, Timestamp)>> {
        let mut tx = self.deployment_read().await?;
        let sql = format!("{SELECT} WHERE s.system_id > $1 ORDER BY s.system_id LIMIT $2");
        let rows = tx.fetch(&sql, vec![after.into(), Val::from(limit)]).await?;
        rows.iter().map(|row| Ok((read(row)?, row.text(4)?, time(row.i64(3)?, "systems")?))).collect()
    }

    /// The map that a task was planned with.
    pub async fn data_map(&self, system: &SystemId, version: i64) -> StoreResult<DataMap> {
        let mut tx = self.deployment_read().await?;
        data_map(&mut tx, system, version).await
    }
}
