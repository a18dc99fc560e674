//! What a customer can show: extensions beside the confirmations that `Store::request` gives.

use quittance_domain::ids::{CustomerId, RequestId};

use crate::{Extension, Store, StoreResult, tx::time};

impl Store {
    /// Dates that were moved, in their order.
    pub async fn extensions(&self, customer: &CustomerId, id: RequestId) -> StoreResult<Vec<Extension>> {
        let mut tx = self.customer_read(customer).await?;
        let sql = "SELECT due_us, reason, created_us FROM extensions WHERE customer_id = $1 AND request_id = $2
                   ORDER BY due_us LIMIT 1000";
        let rows = tx.fetch(sql, vec![customer.as_str().into(), id.uuid().into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Extension {
                    due_at: time(row.i64(0)?, "extensions")?,
                    reason: row.text(1)?,
                    created_at: time(row.i64(2)?, "extensions")?,
                })
            })
            .collect()
    }
}
