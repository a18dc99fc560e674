//! Customers: who may instruct.

use quittance_domain::{
    Timestamp,
    agreement::Agreement,
    ids::{CustomerId, IdempotencyId},
};
use quittance_sql::{Row, Tx, Val};

use crate::{
    Store, StoreError, StoreResult, agreements,
    tx::{time, us},
};

#[derive(Clone, Debug)]
pub struct NewCustomer {
    pub id: CustomerId,
    pub idempotency: IdempotencyId,
    pub display_name: String,
    /// Its version is set to 1.
    pub agreement: Agreement,
}

#[derive(Clone, Debug)]
pub struct CustomerRow {
    pub id: CustomerId,
    pub display_name: String,
    pub agreement: Agreement,
    pub created_at: Timestamp,
}

const COLUMNS: &str = "c.customer_id, c.display_name, c.created_us, a.body";
const FROM: &str =
    "FROM customers c JOIN agreements a ON a.customer_id = c.customer_id AND a.version = c.agreement_version";

fn read(row: &Row) -> StoreResult<CustomerRow> {
    let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
    Ok(CustomerRow {
        id: CustomerId::new(&row.text(0)?).map_err(broken)?,
        display_name: row.text(1)?,
        created_at: time(row.i64(2)?, "customers")?,
        agreement: agreements::from_body(&row.text(3)?)?,
    })
}

/// Whether the `request_id` created this customer before; an error, if it created another.
async fn is_known(tx: &mut Tx, new: &NewCustomer) -> StoreResult<bool> {
    let sql = "SELECT c.customer_id, c.display_name, a.body FROM customers c
               JOIN agreements a ON a.customer_id = c.customer_id AND a.version = 1 WHERE c.idempotency_id = $1";
    let Some(row) = tx.fetch_one(sql, vec![new.idempotency.uuid().into()]).await? else { return Ok(false) };
    let first = agreements::from_body(&row.text(2)?)?;
    let same = row.text(0)? == new.id.as_str()
        && row.text(1)? == new.display_name
        && first == Agreement { version: 1, ..new.agreement.clone() };
    if same { Ok(true) } else { Err(StoreError::RequestIdReused) }
}

impl Store {
    /// Creates it, or gives what the same `request_id` created before.
    pub async fn create_customer(&self, new: NewCustomer, now: Timestamp) -> StoreResult<CustomerRow> {
        let mut tx = self.deployment_tx().await?;
        if is_known(&mut tx, &new).await? {
            drop(tx);
            return self.customer(&new.id).await;
        }
        let inserted = tx
            .execute(
                "INSERT INTO customers (customer_id, idempotency_id, display_name, agreement_version, created_us)
                 VALUES ($1, $2, $3, 1, $4) ON CONFLICT DO NOTHING",
                vec![
                    new.id.as_str().into(),
                    new.idempotency.uuid().into(),
                    new.display_name.as_str().into(),
                    us(now).into(),
                ],
            )
            .await?;
        if inserted == 0 {
            // Or it was sent twice at once, and the other one was first.
            let repeated = is_known(&mut tx, &new).await?;
            drop(tx);
            return if repeated {
                self.customer(&new.id).await
            } else {
                Err(StoreError::AlreadyExists("the customer"))
            };
        }
        let agreement = Agreement { version: 1, ..new.agreement };
        agreements::insert(&mut tx, &new.id, new.idempotency, &agreement, now).await?;
        tx.commit().await?;
        self.customer(&new.id).await
    }

    pub async fn customer(&self, id: &CustomerId) -> StoreResult<CustomerRow> {
        let mut tx = self.customer_read(id).await?;
        let sql = format!("SELECT {COLUMNS} {FROM} WHERE c.customer_id = $1");
        let row = tx.fetch_one(&sql, vec![id.as_str().into()]).await?;
        read(&row.ok_or(StoreError::NotFound("the customer"))?)
    }

    /// By id, those after `after`.
    pub async fn list_customers(&self, after: &str, limit: u32) -> StoreResult<Vec<CustomerRow>> {
        let mut tx = self.deployment_read().await?;
        let sql = format!("SELECT {COLUMNS} {FROM} WHERE c.customer_id > $1 ORDER BY c.customer_id LIMIT $2");
        let rows = tx.fetch(&sql, vec![after.into(), Val::from(limit)]).await?;
        rows.iter().map(read).collect()
    }
}
