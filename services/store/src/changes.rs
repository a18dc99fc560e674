//! What changed since: told by what a reader could see, not by the clock. A change is stamped before its transaction commits, by whichever
//! replica's clock, so no stretch of time is ever surely complete.
//!
//! `changed_seq` says which transaction changed a request last. On PostgreSQL it is the transaction's id, and a cursor is a snapshot: what is
//! visible in the later one and was not in the earlier is new, however late it committed. On SQLite writers come one after the other, and it
//! is a number that rises with them. Sharded by customer, the snapshot must be taken on the customer's node.

use quittance_domain::ids::{CustomerId, RequestId};
use quittance_sql::{Engine, Tx, Val};
use uuid::Uuid;

use crate::{
    RequestRow, Store, StoreError, StoreResult,
    requests::{COLUMNS, COLUMNS_LEN, read},
    systems::hold_deployment,
};

/// Where a watch stands; its text is kept by whoever watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeCursor {
    /// Added to transaction ids: a restored database counts them from the beginning. Where changes are numbered, no number after the restore is
    /// below it.
    base: i64,
    seen: Seen,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    /// The snapshot's text, and the oldest transaction that it does not see the end of.
    Snapshot {
        text: String,
        oldest: i64,
    },
    UpTo(i64),
}

/// The value of `changed_seq` in a statement that changes a customer's requests, and names the customer as its first argument.
pub(crate) fn seq(tx: &Tx) -> &'static str {
    match tx.engine() {
        Engine::Postgres => {
            "(SELECT change_base FROM deployment WHERE id = 1) + CAST(CAST(pg_current_xact_id() AS text) AS bigint)"
        }
        Engine::Sqlite | Engine::MySql => {
            "(SELECT max(coalesce(max(changed_seq), 0) + 1, (SELECT change_base FROM deployment WHERE id = 1))
              FROM requests WHERE customer_id = $1)"
        }
    }
}

fn snapshot(text: &str) -> Option<Seen> {
    let mut parts = text.split(':');
    let number = |part: Option<&str>| -> Option<i64> {
        let part = part?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let (oldest, next) = (number(parts.next())?, number(parts.next())?);
    let running = parts.next()?;
    let mut last = oldest - 1;
    for part in running.split(',').filter(|_| !running.is_empty()) {
        let id = number(Some(part)).filter(|id| *id > last && *id < next)?;
        last = id;
    }
    (parts.next().is_none() && 0 < oldest && oldest <= next).then(|| Seen::Snapshot { text: text.to_owned(), oldest })
}

impl ChangeCursor {
    pub fn parse(text: &str) -> Option<Self> {
        let (base, seen) = text.split_once('.')?;
        let base = base.parse().ok().filter(|base| *base >= 0)?;
        let seen = match seen.strip_prefix('n') {
            Some(number) => Seen::UpTo(number.parse().ok()?),
            None => snapshot(seen)?,
        };
        Some(Self { base, seen })
    }
}

impl ChangeCursor {
    /// It has seen what the store has not: the store was restored, and nobody has told it (`quittanced ledger recover`).
    pub fn is_ahead_of(&self, now: &Self) -> bool {
        let ahead = match (&self.seen, &now.seen) {
            (Seen::UpTo(seen), Seen::UpTo(now)) => seen > now,
            (Seen::Snapshot { oldest: seen, .. }, Seen::Snapshot { text, .. }) => {
                let next = text.split(':').nth(1).and_then(|next| next.parse().ok());
                next.is_some_and(|next: i64| *seen > next)
            }
            _ => false,
        };
        self.base == now.base && ahead
    }
}

impl std::fmt::Display for ChangeCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.seen {
            Seen::Snapshot { text, .. } => write!(f, "{}.{text}", self.base),
            Seen::UpTo(number) => write!(f, "{}.n{number}", self.base),
        }
    }
}

/// Of a page of changes, the last one.
#[derive(Clone, Copy, Debug)]
pub struct ChangePlace(i64, RequestId);

impl Store {
    /// Where a watch stands that has seen all that there is.
    pub async fn changes_now(&self, customer: &CustomerId) -> StoreResult<ChangeCursor> {
        let mut tx = self.customer_read(customer).await?;
        let none = StoreError::Inconsistent { table: "deployment", what: "it has no row" };
        if tx.engine() == Engine::Postgres {
            let sql = "SELECT change_base, CAST(pg_current_snapshot() AS text) FROM deployment WHERE id = 1";
            let row = tx.fetch_one(sql, vec![]).await?.ok_or(none)?;
            let unread = StoreError::Inconsistent { table: "deployment", what: "a snapshot does not parse" };
            return Ok(ChangeCursor { base: row.i64(0)?, seen: snapshot(&row.text(1)?).ok_or(unread)? });
        }
        let sql = "SELECT (SELECT change_base FROM deployment WHERE id = 1), coalesce(max(changed_seq), 0)
                   FROM requests WHERE customer_id = $1";
        let row = tx.fetch_one(sql, vec![customer.as_str().into()]).await?.ok_or(none)?;
        Ok(ChangeCursor { base: row.i64(0)?, seen: Seen::UpTo(row.i64(1)?) })
    }

    /// A page of what changed after `from`, up to `to`. A request that changed again since stands behind a later cursor.
    pub async fn changed_requests(
        &self,
        customer: &CustomerId,
        (from, to): (&ChangeCursor, &ChangeCursor),
        after: Option<ChangePlace>,
        limit: u32,
    ) -> StoreResult<Vec<(RequestRow, ChangePlace)>> {
        let ChangePlace(seq, id) = after.unwrap_or(ChangePlace(-1, RequestId::new(Uuid::nil())));
        let mut args: Vec<Val> = vec![customer.as_str().into(), seq.into(), id.uuid().into(), Val::from(limit)];
        let between = match (&from.seen, &to.seen) {
            (Seen::UpTo(seen), Seen::UpTo(now)) => {
                // Numbers that were given before a restore are given again after it, to other changes.
                let seen = if from.base == to.base { *seen } else { (*seen).min(to.base - 1) };
                args.extend([Val::from(seen), Val::from(*now)]);
                "changed_seq > $5 AND changed_seq <= $6".to_owned()
            }
            (Seen::Snapshot { text: seen, oldest }, Seen::Snapshot { text: now, .. }) => {
                // What is changed after a restore is numbered from the new base on, wherever the lost store had been.
                let oldest = from.base.saturating_add(*oldest);
                let oldest = if from.base == to.base { oldest } else { oldest.min(to.base) };
                args.extend([Val::from(oldest), to.base.into(), from.base.into()]);
                args.extend([now.as_str().into(), seen.as_str().into()]);
                let visible = |snapshot: &str| {
                    format!(
                        "pg_visible_in_snapshot(CAST(CAST(changed_seq - $6 AS text) AS xid8), CAST(CAST({snapshot} AS text) AS pg_snapshot))"
                    )
                };
                format!(
                    "changed_seq >= $5 AND CASE WHEN changed_seq < $6 THEN true ELSE {} END
                     AND CASE WHEN $7 <> $6 THEN true ELSE NOT {} END",
                    visible("$8"),
                    visible("$9")
                )
            }
            _ => return Err(StoreError::WrongState("the cursor is of another store".to_owned())),
        };
        let sql = format!(
            "SELECT {COLUMNS}, changed_seq FROM requests WHERE customer_id = $1 AND (changed_seq, request_id) > ($2, $3)
               AND {between} ORDER BY changed_seq, request_id LIMIT $4"
        );
        let mut tx = self.customer_read(customer).await?;
        let rows = tx.fetch(&sql, args).await?;
        rows.iter()
            .map(|row| {
                let request = read(row)?;
                let place = ChangePlace(row.i64(COLUMNS_LEN)?, request.id);
                Ok((request, place))
            })
            .collect()
    }

    /// A dump that is restored elsewhere finds a server that counts its transactions anew: ours go on from where they were.
    pub(crate) async fn know_cluster(&self) -> StoreResult<()> {
        if self.engine() != Engine::Postgres {
            return Ok(());
        }
        let identifier = "SELECT CAST(system_identifier AS text) FROM pg_control_system()";
        let asked = self.deployment_read().await?.fetch_one(identifier, vec![]).await;
        let cluster = match asked {
            Ok(Some(row)) => row.text(0)?,
            Ok(None) => String::new(),
            Err(error) => {
                tracing::warn!(%error, "the server does not say which one it is: after a restore, watch from the beginning");
                return Ok(());
            }
        };
        let mut tx = self.deployment_tx().await?;
        let known = tx.fetch_one("SELECT cluster FROM deployment WHERE id = 1 FOR UPDATE", vec![]).await?;
        let known = known.map(|row| row.text(0)).transpose()?.unwrap_or_default();
        if known == cluster {
            return Ok(());
        }
        let base = if known.is_empty() {
            0
        } else {
            tracing::info!("the store was moved to another server: changes are numbered on");
            base_after_all(&mut tx).await?
        };
        let set = "UPDATE deployment SET cluster = $1, change_base = $2 WHERE id = 1";
        tx.execute(set, vec![cluster.into(), base.into()]).await?;
        Ok(tx.commit().await?)
    }
}

async fn base_after_all(tx: &mut Tx) -> StoreResult<i64> {
    let highest = "SELECT coalesce(max(m), 0) FROM (SELECT (SELECT max(r.changed_seq) FROM requests r
                     WHERE r.customer_id = c.customer_id) AS m FROM customers c) AS each";
    Ok(tx.fetch_one(highest, vec![]).await?.map_or(Ok(0), |row| row.i64(0))? + 1)
}

/// The store was restored: whoever goes on watching from a time that it does not know misses nothing that changes from now on.
pub(crate) async fn number_on(tx: &mut Tx) -> StoreResult<()> {
    hold_deployment(tx).await?;
    let base = base_after_all(tx).await?;
    tx.execute("UPDATE deployment SET change_base = $1 WHERE id = 1", vec![base.into()]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_nothing_else_does() {
        for text in ["0.n0", "0.n17", "0.748:748:", "5.748:752:749,751"] {
            assert_eq!(ChangeCursor::parse(text).map(|c| c.to_string()).as_deref(), Some(text));
        }
        for text in ["", "made up", "0", "-1.n1", "0.n", "0.1:2", "0.2:1:", "0.1:4:3,2", "0.1:4:4", "0.1:4:'", "0.0:1:"]
        {
            assert_eq!(ChangeCursor::parse(text), None, "{text}");
        }
    }
}
