//! Rows about subjects get the cover of the present epoch (`subject_keys.rs`), so that the key of an earlier one can go (I7).
//!
//! From the moment that an epoch begins, nobody brings a row of an earlier one: who brings one holds the row that says which epoch is the
//! current one. A person's rows are covered anew together, in one transaction: by a walk, person by person, or before, by whoever has an
//! instruction about the person (`carry_over`). So a person is never known by two names. Whoever moves a line's rows meanwhile
//! joins them by name: those three exclude each other by `alone`, and whoever plans by where a request stood before excludes them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use quittance_domain::ids::CustomerId;
use quittance_sql::{Column, Engine, Rows, Tx, Val};

use crate::{
    Store, StoreError, StoreResult,
    epochs::{EpochRow, hold_epoch},
    lines::{AT_WORK, NOBODY_BEFORE},
    subject_keys::{NamesOf, SubjectForm, SubjectKeys},
};

/// Persons of one transaction.
const BATCH: usize = 500;
/// The tables that have subjects' names.
const TABLES: [&str; 3] = ["subject_heads", "subject_lines", "restrictions"];

/// Until the transaction ends, nobody else covers this customer's rows anew, or moves them in their lines.
pub(crate) async fn alone(tx: &mut Tx, customer: &CustomerId) -> StoreResult<()> {
    if tx.engine() == Engine::Postgres {
        let sql = "SELECT customer_id FROM customers WHERE customer_id = $1 FOR NO KEY UPDATE";
        tx.fetch(sql, vec![customer.as_str().into()]).await?;
    }
    Ok(())
}

/// Whether the store has rows about anybody. Deployment-wide: once, when it gets its first epoch.
pub(crate) async fn any(tx: &mut Tx) -> StoreResult<bool> {
    let tables = TABLES.map(|table| format!("EXISTS (SELECT 1 FROM {table} n WHERE n.customer_id = c.customer_id)"));
    let sql = format!("SELECT c.customer_id FROM customers c WHERE {} LIMIT 1", tables.join(" OR "));
    Ok(tx.fetch_one(&sql, vec![]).await?.is_some())
}

/// That a customer `c` has names of an epoch: `$2` to `$4` say which ([`names_args`]).
pub(crate) fn has_names() -> String {
    let of = |table: &str| {
        format!(
            "EXISTS (SELECT 1 FROM {table} n WHERE n.customer_id = c.customer_id AND length(n.pseudonym) = $2
               AND n.pseudonym >= $3 AND n.pseudonym < $4)"
        )
    };
    TABLES.map(of).join(" OR ")
}

/// What [`has_names`] takes; of an epoch of which no name is to be covered anew, what none has.
pub(crate) fn names_args(names: Option<&NamesOf>) -> [Val; 3] {
    match names {
        Some(names) => {
            [i64::try_from(names.length).unwrap_or(0).into(), names.from.clone().into(), names.before.clone().into()]
        }
        // No name is as short.
        None => [0_i64.into(), Vec::new().into(), Vec::new().into()],
    }
}

/// Before anything is looked up, or brought, about these persons: their rows of earlier epochs become rows of the present one. What was looked up
/// before by their names may not have been all. The caller holds the epoch.
pub(crate) async fn carry_over(
    tx: &mut Tx,
    customer: &CustomerId,
    keys: &SubjectKeys,
    pseudonyms: &BTreeSet<Vec<u8>>,
) -> StoreResult<()> {
    let mut becomes: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for pseudonym in pseudonyms {
        becomes.extend(keys.earlier(pseudonym)?.into_iter().map(|was| (was, pseudonym.clone())));
    }
    // A line without a head is of one request alone, and nothing that comes is told by it: it is the walk's.
    let sql = "WITH v(pseudonym) AS ({rows}) SELECT v.pseudonym FROM v
               WHERE EXISTS (SELECT 1 FROM subject_heads h WHERE h.customer_id = $1 AND h.pseudonym = v.pseudonym)
                  OR EXISTS (SELECT 1 FROM restrictions r WHERE r.customer_id = $1 AND r.pseudonym = v.pseudonym)";
    let rows = Rows::new(vec![Column::bytes(becomes.keys().cloned())]);
    let mut found = BTreeMap::new();
    for row in tx.fetch_rows(sql, vec![customer.as_str().into()], rows).await? {
        let was = row.bytes(0)?;
        if let Some(name) = becomes.remove(&was) {
            found.insert(was, name);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    alone(tx, customer).await?;
    cover_anew(tx, customer, &found).await
}

async fn cover_anew(tx: &mut Tx, customer: &CustomerId, names: &BTreeMap<Vec<u8>, Vec<u8>>) -> StoreResult<()> {
    let rows = || Rows::new(vec![Column::bytes(names.keys().cloned()), Column::bytes(names.values().cloned())]);
    // Two heads of one person there are only where an epoch's key was away, and came back. Who comes next stands behind what came meanwhile.
    tx.execute_rows(
        "WITH v(was, becomes) AS ({rows}) DELETE FROM subject_heads WHERE customer_id = $1 AND pseudonym IN (
           SELECT v.was FROM v JOIN subject_heads h ON h.customer_id = $1 AND h.pseudonym = v.becomes)",
        vec![customer.as_str().into()],
        rows(),
    )
    .await?;
    for table in TABLES {
        let sql = format!(
            "WITH v(was, becomes) AS ({{rows}}) UPDATE {table} SET pseudonym = v.becomes FROM v
             WHERE {table}.customer_id = $1 AND {table}.pseudonym = v.was"
        );
        tx.execute_rows(&sql, vec![customer.as_str().into()], rows()).await?;
    }
    Ok(())
}

/// Heads that closed requests have kept, though nobody about the person is open any more: who closes while somebody covers the head anew leaves it
/// to him, and he may not see that it is closed; and of whom a request kept its place behind an open one, that one has closed since.
pub(crate) async fn forget_left_heads(
    tx: &mut Tx,
    customer: &CustomerId,
    names: impl Iterator<Item = Vec<u8>>,
) -> StoreResult<()> {
    let sql = format!(
        "WITH v(pseudonym) AS ({{rows}}) DELETE FROM subject_heads AS p WHERE p.customer_id = $1 AND p.pseudonym IN (SELECT pseudonym FROM v)
           AND p.request_id IN (SELECT r.request_id FROM requests r WHERE r.customer_id = $1 AND r.closed_us IS NOT NULL
             AND r.request_id = p.request_id)
           AND NOT {AT_WORK} AND {NOBODY_BEFORE}"
    );
    tx.execute_rows(&sql, vec![customer.as_str().into()], Rows::new(vec![Column::bytes(names)])).await?;
    Ok(())
}

impl Store {
    /// The names that keep an epoch's key needed.
    pub(crate) fn names_under(&self, epoch: &EpochRow, current: &EpochRow) -> StoreResult<Option<NamesOf>> {
        let names = NamesOf::epoch(epoch.number, epoch.subjects, current.subjects);
        // With it what it covered is lost: nobody's name will be one of these again, and there is nothing left to destroy.
        Ok(if self.is_lost(epoch)? { None } else { names })
    }

    /// Whether the key of an epoch with covered names is gone for good: the ring has the present epoch's, looked at now, and not this one. (A
    /// ring that has neither is not there at the moment, or another one.)
    fn is_lost(&self, epoch: &EpochRow) -> StoreResult<bool> {
        Ok(epoch.subjects == SubjectForm::Covered && self.ring().has_current()? && !self.ring().has(epoch.number)?)
    }

    /// Customers whose standing restrictions nobody is recognised by any more, since the key of their epoch is lost. At most a hundred.
    pub(crate) async fn customers_with_lost_restrictions(&self, epoch: &EpochRow) -> StoreResult<Vec<String>> {
        let lost = self.is_lost(epoch)?;
        let names = NamesOf::epoch(epoch.number, epoch.subjects, epoch.subjects);
        let Some(names) = names.filter(|_| lost) else { return Ok(Vec::new()) };
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM restrictions n WHERE n.customer_id = c.customer_id
                     AND length(n.pseudonym) = $1 AND n.pseudonym >= $2 AND n.pseudonym < $3) ORDER BY c.customer_id LIMIT 100";
        let rows = tx.fetch(sql, names_args(Some(&names)).to_vec()).await?;
        rows.iter().map(|row| Ok(row.text(0)?)).collect()
    }

    /// The next customer with names of the epoch.
    pub(crate) async fn customer_with_names(&self, names: &NamesOf, after: &str) -> StoreResult<Option<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = format!(
            "SELECT c.customer_id FROM customers c WHERE c.customer_id > $1 AND ({}) ORDER BY c.customer_id LIMIT 1",
            has_names()
        );
        let [length, from, before] = names_args(Some(names));
        let row = tx.fetch_one(&sql, vec![after.into(), length, from, before]).await?;
        let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
        row.map(|row| CustomerId::new(&row.text(0)?).map_err(broken)).transpose()
    }

    /// Covers a batch of a customer's names anew that are of an earlier epoch. Whom others are at work about is passed by.
    pub(crate) async fn cover_batch(
        &self,
        customer: &CustomerId,
        epoch: &EpochRow,
        current: &EpochRow,
        names: &NamesOf,
    ) -> StoreResult<u64> {
        let mut tx = self.customer_tx(customer).await?;
        if hold_epoch(&mut tx).await? != i64::from(current.number) {
            return Err(StoreError::WrongState("another epoch has begun".to_owned()));
        }
        alone(&mut tx, customer).await?;
        let cover = |e: &EpochRow| self.ring().cover(e.number, e.subjects);
        let (off, on) = (cover(epoch)?, cover(current)?);
        let found = some_names(&mut tx, customer, names).await?;
        let free = free_of(&mut tx, customer, found).await?;
        forget_left_heads(&mut tx, customer, free.iter().cloned()).await?;
        let anew = free.into_iter().map(|was| Ok((was.clone(), on.put_on(&off.take_off(&was)?)?)));
        let anew = anew.collect::<StoreResult<BTreeMap<_, _>>>()?;
        cover_anew(&mut tx, customer, &anew).await?;
        tx.commit().await?;
        Ok(anew.len() as u64)
    }
}

/// So many of them, from whatever table has any.
async fn some_names(tx: &mut Tx, customer: &CustomerId, names: &NamesOf) -> StoreResult<BTreeSet<Vec<u8>>> {
    let mut found = BTreeSet::new();
    for table in TABLES {
        let sql = format!(
            "SELECT DISTINCT n.pseudonym FROM {table} n WHERE n.customer_id = $1 AND length(n.pseudonym) = $2
               AND n.pseudonym >= $3 AND n.pseudonym < $4 ORDER BY n.pseudonym LIMIT {}",
            BATCH - found.len()
        );
        let [length, from, before] = names_args(Some(names));
        for row in tx.fetch(&sql, vec![customer.as_str().into(), length, from, before]).await? {
            found.insert(row.bytes(0)?);
        }
        if found.len() >= BATCH {
            break;
        }
    }
    Ok(found)
}

/// Those of which all rows are ours now. We wait for nobody, so nobody's work is ended by a deadlock with us.
async fn free_of(tx: &mut Tx, customer: &CustomerId, names: BTreeSet<Vec<u8>>) -> StoreResult<BTreeSet<Vec<u8>>> {
    let mut free = names;
    if tx.engine() != Engine::Postgres {
        return Ok(free);
    }
    for table in TABLES {
        let sql = |lock: &str| {
            format!(
                "WITH v(pseudonym) AS ({{rows}}) SELECT n.pseudonym, n.request_id FROM v
                 JOIN {table} n ON n.customer_id = $1 AND n.pseudonym = v.pseudonym {lock}"
            )
        };
        let rows = || Rows::new(vec![Column::bytes(free.iter().cloned())]);
        let of = || vec![Val::from(customer.as_str())];
        let locked = tx.fetch_rows(&sql("FOR UPDATE OF n SKIP LOCKED"), of(), rows()).await?;
        let all = tx.fetch_rows(&sql(""), of(), rows()).await?;
        let count = |rows: &[quittance_sql::Row]| -> StoreResult<HashMap<Vec<u8>, usize>> {
            let mut counts = HashMap::new();
            for row in rows {
                *counts.entry(row.bytes(0)?).or_default() += 1;
            }
            Ok(counts)
        };
        let (locked, all) = (count(&locked)?, count(&all)?);
        free.retain(|name| locked.get(name) == all.get(name));
    }
    Ok(free)
}
