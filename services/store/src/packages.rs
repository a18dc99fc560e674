//! Records of access packages: sealed one by one, under the lease of the attempt that wrote them.

use std::collections::HashMap;

use quittance_domain::{
    Timestamp,
    ids::{CustomerId, RequestId, SystemId, TaskKey},
};
use quittance_ledger::{Event, Withheld};
use quittance_sql::{Column, Engine, Rows, Tx, Val};

use crate::{
    Store, StoreError, StoreResult,
    ledger::Staging,
    replan::system_id,
    seal::SealedColumn,
    tx::{opt_time, us},
};

/// One record, opened.
pub struct PackageRow {
    pub system: SystemId,
    pub number: i64,
    /// As the writer gave it.
    pub record: Vec<u8>,
}

/// What a package holds so far.
#[derive(Clone, Debug)]
pub struct PackageSummary {
    pub records: u64,
    pub third_party: u64,
    pub released_at: Option<Timestamp>,
    pub third_party_withheld: bool,
    /// It was forgotten, or begun to be, before the records were counted.
    pub forgotten: bool,
}

/// A page of records ends with the one that fills it: however large they are, memory holds this much and one record.
const PAGE_BYTES: i64 = 8 << 20;

/// Records of one statement that makes an upload whole: well within a statement's time.
const MOVED_AT_ONCE: i64 = 50_000;

// Only what a confirmed task's last lease wrote is part of the package.
const CONFIRMED: &str = "FROM package_records p JOIN tasks t ON t.customer_id = $1 AND t.request_id = p.request_id
     AND t.system_id = p.system_id AND t.state = 'CONFIRMED' AND t.lease = p.lease
     WHERE p.customer_id = $1 AND p.request_id = $2";

/// Keeps the task under its lease until the transaction ends: what is written under it is written before its confirmation, or not at all.
async fn hold_lease(tx: &mut Tx, key: &TaskKey, lease: i64, now: Timestamp) -> StoreResult<()> {
    let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE" } else { "" };
    let sql = format!(
        "SELECT lease FROM tasks WHERE customer_id = $1 AND request_id = $2 AND system_id = $3 AND lease = $4
         AND state = 'RUNNING' AND run_at_us > $5 {lock}"
    );
    let mut args = place_of(key);
    args.extend([lease.into(), us(now).into()]);
    tx.fetch_one(&sql, args).await?.map(|_| ()).ok_or(StoreError::LeaseLost)
}

fn place_of(key: &TaskKey) -> Vec<Val> {
    vec![key.customer.as_str().into(), key.request.uuid().into(), key.system.as_str().into()]
}

impl Store {
    /// Adds records numbered from `first` on. `LeaseLost` if the task is not under this lease any more.
    pub async fn add_records(
        &self,
        key: &TaskKey,
        lease: i64,
        now: Timestamp,
        first: i64,
        records: Vec<(Vec<u8>, bool)>,
    ) -> StoreResult<()> {
        self.write_records(key, lease, lease, now, first, records).await
    }

    /// As [`Store::add_records`], for an upload that may be cut: its records count once [`Store::finish_upload`] says that it is whole.
    pub async fn upload_records(
        &self,
        key: &TaskKey,
        lease: i64,
        now: Timestamp,
        first: i64,
        records: Vec<(Vec<u8>, bool)>,
    ) -> StoreResult<()> {
        // No lease is negative: nothing looks for records there.
        self.write_records(key, lease, -lease, now, first, records).await
    }

    pub async fn finish_upload(&self, key: &TaskKey, lease: i64, now: Timestamp) -> StoreResult<()> {
        let mut tx = self.customer_tx(&key.customer).await?;
        hold_lease(&mut tx, key, lease, now).await?;
        let mut from = 0;
        loop {
            let mut args = place_of(key);
            args.extend([lease.into(), from.into(), (from + MOVED_AT_ONCE).into()]);
            let moved = tx.execute(
                "UPDATE package_records SET lease = $4 WHERE customer_id = $1 AND request_id = $2 AND system_id = $3
                   AND lease = -$4 AND number >= $5 AND number < $6",
                args,
            );
            if moved.await? == 0 {
                return Ok(tx.commit().await?);
            }
            from += MOVED_AT_ONCE;
        }
    }

    /// Of the tasks that are under these leases: whether records have been uploaded whole.
    pub async fn uploaded(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        leases: &[(RequestId, i64)],
    ) -> StoreResult<HashMap<RequestId, bool>> {
        let mut tx = self.customer_read(customer).await?;
        let rows = tx
            .fetch_rows(
                "WITH v(request_id, lease) AS ({rows})
                 SELECT t.request_id, CAST(CASE WHEN EXISTS (SELECT 1 FROM package_records p WHERE p.customer_id = $1
                     AND p.request_id = t.request_id AND p.system_id = $2 AND p.lease = t.lease) THEN 1 ELSE 0 END AS BIGINT)
                 FROM v JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id AND t.system_id = $2
                   AND t.lease = v.lease AND t.state = 'RUNNING'",
                vec![customer.as_str().into(), system.as_str().into()],
                Rows::new(vec![
                    Column::uuids(leases.iter().map(|(request, _)| request.uuid())),
                    Column::i64s(leases.iter().map(|(_, lease)| *lease)),
                ]),
            )
            .await?;
        rows.iter().map(|row| Ok((RequestId::new(row.uuid(0)?), row.i64(1)? == 1))).collect()
    }

    /// `under`: the lease as the rows bear it.
    async fn write_records(
        &self,
        key: &TaskKey,
        lease: i64,
        under: i64,
        now: Timestamp,
        first: i64,
        records: Vec<(Vec<u8>, bool)>,
    ) -> StoreResult<()> {
        let (customer, request, system) = (&key.customer, key.request, &key.system);
        let keys = self.request_keys(customer, [request].into_iter()).await?;
        let sealing = keys.get(&request).ok_or(StoreError::NotFound("the request"))?;
        let sealing = sealing.as_ref().ok_or(StoreError::Forgotten)?;
        let mut numbers = Vec::with_capacity(records.len());
        let mut sealed = Vec::with_capacity(records.len());
        let mut third_party = Vec::with_capacity(records.len());
        for (i, (record, third)) in records.into_iter().enumerate() {
            let number = first.saturating_add(i64::try_from(i).unwrap_or(i64::MAX));
            sealed.push(sealing.seal(SealedColumn::PackageRecord, &place(system, number), &record)?);
            numbers.push(number);
            third_party.push(i64::from(third));
        }
        let mut tx = self.customer_tx(customer).await?;
        hold_lease(&mut tx, key, lease, now).await?;
        if first == 0 {
            // A second upload, or an earlier attempt's, whole or not: it is replaced.
            let sql = "DELETE FROM package_records WHERE customer_id = $1 AND request_id = $2 AND system_id = $3";
            tx.execute(sql, place_of(key)).await?;
        }
        tx.execute_rows(
            "WITH v(number, third_party, sealed) AS ({rows})
             INSERT INTO package_records (customer_id, request_id, system_id, lease, number, third_party, sealed)
             SELECT $1, $2, $3, $4, number, third_party, sealed FROM v",
            vec![customer.as_str().into(), request.uuid().into(), system.as_str().into(), under.into()],
            Rows::new(vec![Column::i64s(numbers), Column::i64s(third_party), Column::bytes(sealed)]),
        )
        .await?;
        Ok(tx.commit().await?)
    }

    pub async fn package(&self, customer: &CustomerId, request: RequestId) -> StoreResult<PackageSummary> {
        let mut tx = self.customer_read(customer).await?;
        let args: Vec<Val> = vec![customer.as_str().into(), request.uuid().into()];
        let sql = format!(
            "SELECT count(*), CAST(coalesce(sum(p.third_party), 0) AS BIGINT), (SELECT r.forgotten_us FROM requests r
               WHERE r.customer_id = $1 AND r.request_id = $2) {CONFIRMED}"
        );
        let counts = tx.fetch_one(&sql, args.clone()).await?;
        let counts =
            counts.ok_or(StoreError::Inconsistent { table: "package_records", what: "a count gave no row" })?;
        let sql = "SELECT released_us, third_party_withheld FROM packages WHERE customer_id = $1 AND request_id = $2";
        let released = tx.fetch_one(sql, args).await?;
        let (released_us, withheld) = match released {
            None => (None, false),
            Some(row) => (Some(row.i64(0)?), row.i64(1)? == 1),
        };
        Ok(PackageSummary {
            records: u64::try_from(counts.i64(0)?).unwrap_or(0),
            third_party: u64::try_from(counts.i64(1)?).unwrap_or(0),
            released_at: opt_time(released_us, "packages")?,
            third_party_withheld: withheld,
            forgotten: counts.opt_i64(2)?.is_some(),
        })
    }

    /// The customer's decision about the records with third parties' data; `withheld`: what of them stays out. The first one stands:
    /// whoever comes second at the same moment must not think that its own does.
    pub async fn release_package(
        &self,
        customer: &CustomerId,
        request: RequestId,
        by: &str,
        withheld: Option<Vec<Withheld>>,
        now: Timestamp,
    ) -> StoreResult<()> {
        let mut tx = self.customer_tx(customer).await?;
        let released = tx
            .execute(
                "INSERT INTO packages (customer_id, request_id, released_us, third_party_withheld) VALUES ($1, $2, $3, $4)
                 ON CONFLICT DO NOTHING",
                vec![
                    customer.as_str().into(),
                    request.uuid().into(),
                    us(now).into(),
                    i64::from(withheld.is_some()).into(),
                ],
            )
            .await?;
        if released == 0 {
            return Err(StoreError::WrongState("the package is released already".to_owned()));
        }
        let mut staging = Staging::new(customer);
        let withheld = withheld.unwrap_or_default();
        staging.add(request, &Event::Reviewed { by: by.to_owned(), at_us: us(now), withheld });
        staging.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// A page of records after (`system`, `number`), in that order: at most `limit`, and fewer where they are large. Empty behind the last.
    pub async fn package_records(
        &self,
        customer: &CustomerId,
        request: RequestId,
        after: (&str, i64),
        with_third_party: bool,
        limit: u32,
    ) -> StoreResult<Vec<PackageRow>> {
        self.records_between(customer, request, after, [0, i64::from(with_third_party)], limit).await
    }

    /// As [`Self::package_records`], of those alone that hold third parties' data.
    pub async fn third_party_records(
        &self,
        customer: &CustomerId,
        request: RequestId,
        after: (&str, i64),
        limit: u32,
    ) -> StoreResult<Vec<PackageRow>> {
        self.records_between(customer, request, after, [1, 1], limit).await
    }

    async fn records_between(
        &self,
        customer: &CustomerId,
        request: RequestId,
        after: (&str, i64),
        [least, most]: [i64; 2],
        limit: u32,
    ) -> StoreResult<Vec<PackageRow>> {
        let from = format!(
            "{CONFIRMED} AND (p.system_id, p.number) > ($3, $4) AND p.third_party >= $5 AND p.third_party <= $6"
        );
        let args = vec![
            customer.as_str().into(),
            request.uuid().into(),
            after.0.into(),
            after.1.into(),
            least.into(),
            most.into(),
        ];
        self.records_from(customer, request, (&from, args), limit).await
    }

    /// Of what was uploaded whole under a lease, a page of records after `after`.
    pub async fn uploaded_records(
        &self,
        key: &TaskKey,
        lease: i64,
        after: i64,
        limit: u32,
    ) -> StoreResult<Vec<PackageRow>> {
        let from = "FROM package_records p WHERE p.customer_id = $1 AND p.request_id = $2 AND p.system_id = $3
                      AND p.lease = $4 AND p.number > $5";
        let mut args = place_of(key);
        args.extend([lease.into(), after.into()]);
        self.records_from(&key.customer, key.request, (from, args), limit).await
    }

    async fn records_from(
        &self,
        customer: &CustomerId,
        request: RequestId,
        (from, args): (&str, Vec<Val>),
        limit: u32,
    ) -> StoreResult<Vec<PackageRow>> {
        let keys = self.request_keys(customer, [request].into_iter()).await?;
        let key = keys.get(&request).ok_or(StoreError::NotFound("the request"))?;
        let key = key.as_ref().ok_or(StoreError::Forgotten)?;
        let mut tx = self.customer_read(customer).await?;
        let last = args.len() + 1;
        let select = |what: &str| format!("SELECT {what} {from} ORDER BY p.system_id, p.number LIMIT ${last}");
        let args = |limit: u32| [args.clone(), vec![limit.into()]].concat();
        let sizes = tx.fetch(&select("CAST(length(p.sealed) AS BIGINT)"), args(limit)).await?;
        let sizes = sizes.iter().map(|row| row.i64(0)).collect::<Result<Vec<_>, _>>()?;
        let rows = tx.fetch(&select("p.system_id, p.number, p.sealed"), args(records_that_fill(&sizes))).await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let (system, number) = (system_id(&row.text(0)?)?, row.i64(1)?);
            let record = key.open(SealedColumn::PackageRecord, &place(&system, number), &row.bytes(2)?)?;
            records.push(PackageRow { system, number, record });
        }
        Ok(records)
    }
}

/// How many of them make a page.
fn records_that_fill(sizes: &[i64]) -> u32 {
    let (mut records, mut bytes) = (0, 0_i64);
    for size in sizes {
        if bytes >= PAGE_BYTES {
            break;
        }
        records += 1;
        bytes = bytes.saturating_add(*size);
    }
    records
}

fn place(system: &SystemId, number: i64) -> String {
    format!("{system}/{number}")
}
