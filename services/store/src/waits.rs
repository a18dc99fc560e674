//! What tasks wait for, for whoever asks about one request. Nothing of the service goes by it.

use quittance_domain::{
    ids::{CustomerId, RequestId, SystemId},
    plan::Until,
};

use crate::{Store, StoreResult, lifecycle::CUSTOMERS_WORD, replan::system_id, tx::parsed};

/// That one task of a request waits for another task, of this request or of an earlier one of the same customer's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskWait {
    /// Whose task waits.
    pub system: SystemId,
    pub on_request: RequestId,
    pub on_system: SystemId,
    pub until: Until,
}

/// Of one task. A person with many names may stand in many lines.
const WAITS_MAX: i64 = 20;

impl Store {
    /// Of the tasks of a request that are `WAITING`, for what they do next; of each the first [`WAITS_MAX`], by request and system. What an
    /// objection holds waits for the customer's word, which is no task.
    pub async fn task_waits(&self, customer: &CustomerId, request: RequestId) -> StoreResult<Vec<TaskWait>> {
        let mut tx = self.customer_read(customer).await?;
        let rows = tx
            .fetch(
                "SELECT n.system_id, n.on_request_id, n.on_system_id, n.until_state FROM (
                   SELECT w.system_id, w.on_request_id, w.on_system_id, w.until_state,
                     row_number() OVER (PARTITION BY w.system_id ORDER BY w.on_request_id, w.on_system_id, w.until_state) AS place
                   FROM tasks t JOIN task_waits w ON w.customer_id = $1 AND w.request_id = $2
                     AND w.system_id = t.system_id AND w.before_work = t.work AND w.on_system_id <> $3
                   WHERE t.customer_id = $1 AND t.request_id = $2 AND t.state = 'WAITING') n
                 WHERE n.place <= $4 ORDER BY n.system_id, n.place",
                vec![customer.as_str().into(), request.uuid().into(), CUSTOMERS_WORD.into(), WAITS_MAX.into()],
            )
            .await?;
        let mut waits = Vec::with_capacity(rows.len());
        for row in &rows {
            waits.push(TaskWait {
                system: system_id(&row.text(0)?)?,
                on_request: RequestId::new(row.uuid(1)?),
                on_system: system_id(&row.text(2)?)?,
                until: parsed(row, 3, "task_waits", Until::parse)?,
            });
        }
        Ok(waits)
    }
}
