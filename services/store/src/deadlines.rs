//! No deadline passes in silence: an open request whose time runs out, or is over, is told of once each, whichever replica looks. Who is killed,
//! or loses the store, while it tells has not told: then it is told of again.

use std::{collections::HashMap, time::Duration};

use quittance_domain::{
    Timestamp,
    ids::{CustomerId, RequestId, SystemId},
    task::TaskState,
    window::Timeliness,
};
use quittance_sql::{Column, Engine, Row, Rows, Tx};
use uuid::Uuid;

use crate::{
    Store, StoreError, StoreResult, changes,
    replan::system_id,
    tx::{parsed, time, us},
};

/// Requests that are told of in one transaction.
const BATCH: i64 = 500;

/// A request that became `AT_RISK` or `OVERDUE`, and what holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunningLate {
    pub request: RequestId,
    pub timeliness: Timeliness,
    pub due_at: Timestamp,
    /// Systems that have not confirmed.
    pub open: Vec<(SystemId, TaskState)>,
}

/// Requests that nobody else tells of until this is done with, or dropped.
#[derive(Debug)]
pub struct ToTell {
    pub late: Vec<RunningLate>,
    tx: Tx,
}

impl ToTell {
    /// They were told of, and are not given again.
    pub async fn told(self) -> StoreResult<()> {
        Ok(self.tx.commit().await?)
    }
}

/// An interim statement that was issued by itself, signed, and the due time that had passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadlineStatement {
    pub due_at: Timestamp,
    pub content: Vec<u8>,
    pub issued_at: Timestamp,
}

/// `requests.urgency` of an overdue request whose statement is issued.
const STATED: i64 = 3;

/// As `requests.urgency` has it.
const fn urgency(timeliness: Timeliness) -> i64 {
    match timeliness {
        Timeliness::OnTrack => 0,
        Timeliness::AtRisk => 1,
        Timeliness::Overdue => 2,
    }
}

fn risk_until(now: Timestamp, at_risk: Duration) -> Timestamp {
    now.checked_add(at_risk).unwrap_or(Timestamp::MAX)
}

impl Store {
    /// Customers with requests to be told of. Deployment-wide: a sweep.
    pub async fn customers_running_late(&self, now: Timestamp, at_risk: Duration) -> StoreResult<Vec<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE
                     EXISTS (SELECT 1 FROM requests r WHERE r.customer_id = c.customer_id AND r.closed_us IS NULL
                       AND r.urgency = 0 AND r.due_us <= $1)
                     OR EXISTS (SELECT 1 FROM requests r WHERE r.customer_id = c.customer_id AND r.closed_us IS NULL
                       AND r.urgency = 1 AND r.due_us < $2)
                   ORDER BY c.customer_id LIMIT 10000";
        let rows = tx.fetch(sql, vec![us(risk_until(now, at_risk)).into(), us(now).into()]).await?;
        customer_ids(&rows)
    }

    /// Customers with overdue requests that no statement was issued for. Deployment-wide: a sweep.
    pub async fn customers_without_deadline_statement(&self) -> StoreResult<Vec<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE
                     EXISTS (SELECT 1 FROM requests r WHERE r.customer_id = c.customer_id AND r.closed_us IS NULL
                       AND r.urgency = $1)
                   ORDER BY c.customer_id LIMIT 10000";
        customer_ids(&tx.fetch(sql, vec![urgency(Timeliness::Overdue).into()]).await?)
    }

    /// Overdue requests that no statement was issued for, a bounded number of them, the longest overdue first.
    pub async fn without_deadline_statement(&self, customer: &CustomerId) -> StoreResult<Vec<RequestId>> {
        let mut tx = self.customer_read(customer).await?;
        let sql = "SELECT request_id FROM requests WHERE customer_id = $1 AND closed_us IS NULL AND urgency = $2
                   ORDER BY due_us LIMIT $3";
        let args = vec![customer.as_str().into(), urgency(Timeliness::Overdue).into(), BATCH.into()];
        let rows = tx.fetch(sql, args).await?;
        rows.iter().map(|row| Ok(RequestId::new(row.uuid(0)?))).collect()
    }

    /// Keeps what was issued. `false`: there is one already, or the request was closed or extended meanwhile, and this one is not the
    /// deadline's.
    pub async fn keep_deadline_statement(
        &self,
        customer: &CustomerId,
        id: RequestId,
        statement: &DeadlineStatement,
    ) -> StoreResult<bool> {
        let mut tx = self.customer_tx(customer).await?;
        let stated = tx
            .execute(
                "UPDATE requests SET urgency = $3 WHERE customer_id = $1 AND request_id = $2 AND closed_us IS NULL
                   AND urgency = $4 AND due_us = $5",
                vec![
                    customer.as_str().into(),
                    id.uuid().into(),
                    STATED.into(),
                    urgency(Timeliness::Overdue).into(),
                    us(statement.due_at).into(),
                ],
            )
            .await?;
        if stated == 0 {
            return Ok(false);
        }
        tx.execute(
            "INSERT INTO deadline_statements (customer_id, request_id, due_us, content, issued_us) VALUES ($1, $2, $3, $4, $5)",
            vec![
                customer.as_str().into(),
                id.uuid().into(),
                us(statement.due_at).into(),
                statement.content.clone().into(),
                us(statement.issued_at).into(),
            ],
        )
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Of the last due time that passed.
    pub async fn deadline_statement(
        &self,
        customer: &CustomerId,
        id: RequestId,
    ) -> StoreResult<Option<DeadlineStatement>> {
        let mut tx = self.customer_read(customer).await?;
        let sql =
            "SELECT due_us, content, issued_us FROM deadline_statements WHERE customer_id = $1 AND request_id = $2
                   ORDER BY due_us DESC LIMIT 1";
        let row = tx.fetch_one(sql, vec![customer.as_str().into(), id.uuid().into()]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(DeadlineStatement {
            due_at: time(row.i64(0)?, "deadline_statements")?,
            content: row.bytes(1)?,
            issued_at: time(row.i64(2)?, "deadline_statements")?,
        }))
    }

    /// Those that became late since they were last told of, a bounded number of them; call it until there are none. Whoever watches sees them
    /// as changed, once they are told of.
    pub async fn running_late(&self, customer: &CustomerId, now: Timestamp, at_risk: Duration) -> StoreResult<ToTell> {
        let mut tx = self.customer_tx(customer).await?;
        let mut late = Vec::new();
        // `due` itself is still in time.
        let before_now = us(now) - 1;
        for (timeliness, below, due_until) in [
            (Timeliness::Overdue, urgency(Timeliness::Overdue), before_now),
            (Timeliness::AtRisk, urgency(Timeliness::AtRisk), us(risk_until(now, at_risk))),
        ] {
            for (id, due_at) in note(&mut tx, customer, now, timeliness, below, due_until).await? {
                late.push(RunningLate { request: id, timeliness, due_at, open: Vec::new() });
            }
        }
        let ids = late.iter().map(|l| l.request.uuid());
        let rows = tx
            .fetch_rows(
                "WITH v(request_id) AS ({rows}) SELECT t.request_id, t.system_id, t.state FROM v
                 JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id
                 WHERE t.state <> 'CONFIRMED' ORDER BY t.request_id, t.system_id",
                vec![customer.as_str().into()],
                Rows::new(vec![Column::uuids(ids)]),
            )
            .await?;
        let mut open: HashMap<Uuid, Vec<(SystemId, TaskState)>> = HashMap::new();
        for row in rows {
            let state = parsed(&row, 2, "tasks", TaskState::parse)?;
            open.entry(row.uuid(0)?).or_default().push((system_id(&row.text(1)?)?, state));
        }
        for l in &mut late {
            l.open = open.remove(&l.request.uuid()).unwrap_or_default();
        }
        Ok(ToTell { late, tx })
    }
}

fn customer_ids(rows: &[Row]) -> StoreResult<Vec<CustomerId>> {
    let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
    rows.iter().map(|row| CustomerId::new(&row.text(0)?).map_err(broken)).collect()
}

async fn note(
    tx: &mut Tx,
    customer: &CustomerId,
    now: Timestamp,
    timeliness: Timeliness,
    below: i64,
    due_until: i64,
) -> StoreResult<Vec<(RequestId, Timestamp)>> {
    // As an array, so that they are found by `requests_late` and then each by its key, whatever the planner believes.
    let (which, skip_locked) = match tx.engine() {
        Engine::Postgres => ("= ANY (ARRAY(SELECT request_id FROM late))", "FOR UPDATE SKIP LOCKED"),
        Engine::Sqlite | Engine::MySql => ("IN (SELECT request_id FROM late)", ""),
    };
    // One range of the index for each level below.
    let levels: Vec<String> = (0..below).map(|level| level.to_string()).collect();
    let sql = format!(
        "WITH late AS MATERIALIZED (
           SELECT request_id FROM requests WHERE customer_id = $1 AND closed_us IS NULL AND urgency IN ({})
             AND due_us <= $2 ORDER BY due_us LIMIT $3 {skip_locked})
         UPDATE requests SET urgency = $4, changed_us = $5, changed_seq = {} WHERE customer_id = $1 AND request_id {which}
         RETURNING request_id, due_us",
        levels.join(", "),
        changes::seq(tx)
    );
    let args =
        vec![customer.as_str().into(), due_until.into(), BATCH.into(), urgency(timeliness).into(), us(now).into()];
    let rows = tx.fetch(&sql, args).await?;
    rows.iter().map(|row| Ok((RequestId::new(row.uuid(0)?), time(row.i64(1)?, "requests")?))).collect()
}
