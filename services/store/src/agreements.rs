//! Versions of an agreement.

use quittance_domain::{
    Timestamp,
    agreement::Agreement,
    ids::{CustomerId, IdempotencyId},
};
use quittance_sql::{Engine, Tx};

use crate::{Store, StoreError, StoreResult, tx::us};

/// As many as a listing shows; nobody signs more.
const VERSIONS_MAX: u32 = 100;

pub(crate) fn from_body(body: &str) -> StoreResult<Agreement> {
    serde_json::from_str(body)
        .map_err(|_| StoreError::Inconsistent { table: "agreements", what: "an agreement does not parse" })
}

pub(crate) async fn insert(
    tx: &mut Tx,
    customer: &CustomerId,
    idempotency: IdempotencyId,
    agreement: &Agreement,
    now: Timestamp,
) -> StoreResult<()> {
    let body = serde_json::to_string(agreement)
        .map_err(|_| StoreError::Inconsistent { table: "agreements", what: "an agreement does not serialise" })?;
    tx.execute(
        "INSERT INTO agreements (customer_id, version, idempotency_id, body, signed_us, created_us)
         VALUES ($1, $2, $3, $4, $5, $6)",
        vec![
            customer.as_str().into(),
            agreement.version.into(),
            idempotency.uuid().into(),
            body.into(),
            us(agreement.signed_at).into(),
            us(now).into(),
        ],
    )
    .await?;
    Ok(())
}

/// The time zone of the agreement in force, as an expression of a statement whose `$1` is the customer.
pub(crate) fn time_zone(engine: Engine) -> String {
    let body = if engine == Engine::Postgres { "a.body::json" } else { "a.body" };
    format!(
        "(SELECT {body} ->> 'time_zone' FROM agreements a WHERE a.customer_id = $1
          AND a.version = (SELECT agreement_version FROM customers WHERE customer_id = $1))"
    )
}

impl Store {
    /// Adds a version and puts it in force. Open requests keep their dates.
    pub async fn create_agreement(
        &self,
        customer: &CustomerId,
        idempotency: IdempotencyId,
        agreement: Agreement,
        now: Timestamp,
    ) -> StoreResult<Agreement> {
        let mut tx = self.customer_tx(customer).await?;
        let bump = "UPDATE customers SET agreement_version = agreement_version + 1 WHERE customer_id = $1
                    RETURNING agreement_version";
        let row = tx.fetch_one(bump, vec![customer.as_str().into()]).await?;
        let version = row.ok_or(StoreError::NotFound("the customer"))?.i64(0)?;
        let version = u32::try_from(version)
            .map_err(|_| StoreError::Inconsistent { table: "customers", what: "a version is out of range" })?;
        // Under the customer's lock: the same id sent twice at once is one version. What was raised is rolled back.
        let known = "SELECT body FROM agreements WHERE customer_id = $1 AND idempotency_id = $2";
        let args = vec![customer.as_str().into(), idempotency.uuid().into()];
        if let Some(row) = tx.fetch_one(known, args).await? {
            let known = from_body(&row.text(0)?)?;
            let same = known == Agreement { version: known.version, ..agreement };
            return if same { Ok(known) } else { Err(StoreError::RequestIdReused) };
        }
        let agreement = Agreement { version, ..agreement };
        insert(&mut tx, customer, idempotency, &agreement, now).await?;
        tx.commit().await?;
        Ok(agreement)
    }

    /// One version, as it was signed.
    pub async fn agreement(&self, customer: &CustomerId, version: i64) -> StoreResult<Agreement> {
        let mut tx = self.customer_read(customer).await?;
        let sql = "SELECT body FROM agreements WHERE customer_id = $1 AND version = $2";
        let row = tx.fetch_one(sql, vec![customer.as_str().into(), version.into()]).await?;
        from_body(&row.ok_or(StoreError::NotFound("the agreement"))?.text(0)?)
    }

    /// Newest first.
    pub async fn list_agreements(&self, customer: &CustomerId) -> StoreResult<Vec<Agreement>> {
        let mut tx = self.customer_read(customer).await?;
        let sql = "SELECT body FROM agreements WHERE customer_id = $1 ORDER BY version DESC LIMIT $2";
        let rows = tx.fetch(sql, vec![customer.as_str().into(), VERSIONS_MAX.into()]).await?;
        // Whoever is there has one.
        if rows.is_empty() {
            return Err(StoreError::NotFound("the customer"));
        }
        rows.iter().map(|row| from_body(&row.text(0)?)).collect()
    }
}
