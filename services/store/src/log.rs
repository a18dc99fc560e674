//! The log's tables: who writes it, what it has integrated, its tiles. Deployment-wide: the sequencer heads the few that cross
//! customers.

use std::collections::HashMap;

use quittance_domain::{
    Timestamp,
    ids::{CustomerId, RequestId},
};
use quittance_ledger::{
    Leaf, SALT_BYTES,
    integrate::TileWrite,
    tile::{Tile, TileKind},
    tree::{HASH_BYTES, MerkleHash, TreeHead},
};
use quittance_sql::{Column, Engine, Row, Rows, Tx};
use uuid::Uuid;

use crate::{
    Store, StoreError, StoreResult, SubjectSecrets,
    seal::{RequestKey, WrappedKey},
    tx::us,
};

/// An entry of a bundle is its length in two bytes and the leaf.
const BUNDLED_BYTES: usize = 2 + HASH_BYTES;

/// Where the log stands.
#[derive(Clone, Debug)]
pub struct LogState {
    pub epoch: i64,
    pub head: TreeHead,
    /// The newest that is published.
    pub checkpoint: Option<LogCheckpoint>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogCheckpoint {
    pub size: u64,
    /// A signed note.
    pub note: String,
}

/// Staged entries without a place yet; what one transaction staged, as a rule.
#[derive(Clone, Debug)]
pub struct StagedBatch {
    customer: String,
    pub(crate) batch: Uuid,
    pub leaves: Vec<Leaf>,
}

/// Of a row of customer, batch and leaves.
pub(crate) fn staged_batch(row: &Row) -> StoreResult<StagedBatch> {
    Ok(StagedBatch { customer: row.text(0)?, batch: row.uuid(1)?, leaves: leaves(&row.bytes(2)?)? })
}

/// A transaction that gives staged entries their places. Dropped, nothing has happened.
#[derive(Debug)]
pub struct LogAppend {
    pub(crate) tx: Tx,
    epoch: i64,
    /// What the places continue from.
    pub head: TreeHead,
    /// In the order of their places.
    pub staged: Vec<StagedBatch>,
}

/// An entry of a request, with its opening.
#[derive(Clone, Debug)]
pub struct LedgerEntryRow {
    pub kind: String,
    pub payload: Vec<u8>,
    pub salt: [u8; SALT_BYTES],
    pub leaf: Leaf,
    /// `None` while it is staged.
    pub index: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuedCertificate {
    pub content: Vec<u8>,
    pub issued_at: Timestamp,
}

pub(crate) fn size(row: &Row, at: usize) -> StoreResult<u64> {
    let broken = |_| StoreError::Inconsistent { table: "ledger_log", what: "a size is negative" };
    u64::try_from(row.i64(at)?).map_err(broken)
}

pub(crate) fn bigint(size: u64) -> i64 {
    // A tree has at most 2^63 - 1 entries.
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(crate) fn bytes32(bytes: Vec<u8>, table: &'static str) -> StoreResult<[u8; 32]> {
    bytes.try_into().map_err(|_| StoreError::Inconsistent { table, what: "a hash or salt is not 32 bytes long" })
}

fn leaves(bytes: &[u8]) -> StoreResult<Vec<Leaf>> {
    let (leaves, rest) = bytes.as_chunks::<HASH_BYTES>();
    if leaves.is_empty() || !rest.is_empty() {
        return Err(StoreError::Inconsistent { table: "ledger_batches", what: "its leaves are not 32 bytes each" });
    }
    Ok(leaves.iter().map(|leaf| Leaf(*leaf)).collect())
}

fn head(row: &Row, at: usize) -> StoreResult<TreeHead> {
    Ok(TreeHead { size: size(row, at)?, root: MerkleHash(bytes32(row.bytes(at + 1)?, "ledger_log")?) })
}

/// Of a row of size and note.
fn kept(row: &Row) -> StoreResult<LogCheckpoint> {
    Ok(LogCheckpoint { size: size(row, 0)?, note: row.text(1)? })
}

fn level(kind: TileKind) -> i64 {
    match kind {
        TileKind::Entries => -1,
        TileKind::Hashes { level } => i64::from(level),
    }
}

impl Store {
    /// The origin of the log that this store holds, if one was begun.
    pub async fn log_origin(&self) -> StoreResult<Option<String>> {
        let mut tx = self.deployment_read().await?;
        let row = tx.fetch_one("SELECT origin FROM ledger_log WHERE id = 1", vec![]).await?;
        Ok(row.map(|row| row.text(0)).transpose()?)
    }

    /// Begins the log. Gives its origin: another's, if a replica began it at the same moment.
    pub async fn begin_log(&self, origin: &str) -> StoreResult<String> {
        let mut tx = self.deployment_tx().await?;
        tx.execute(
            "INSERT INTO ledger_log (id, origin, epoch, held_by, held_until_us, tree_size, root, checkpoint, checkpoint_size)
             VALUES (1, $1, 0, '', 0, 0, $2, '', 0) ON CONFLICT (id) DO NOTHING",
            vec![origin.into(), TreeHead::empty().root.0.to_vec().into()],
        )
        .await?;
        tx.commit().await?;
        self.log_origin().await?.ok_or(StoreError::NotFound("the log"))
    }

    pub async fn log_state(&self) -> StoreResult<LogState> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT epoch, tree_size, root, checkpoint, checkpoint_size FROM ledger_log WHERE id = 1";
        let row = tx.fetch_one(sql, vec![]).await?.ok_or(StoreError::NotFound("the log"))?;
        let note = row.text(3)?;
        let checkpoint = if note.is_empty() { None } else { Some(LogCheckpoint { size: size(&row, 4)?, note }) };
        Ok(LogState { epoch: row.i64(0)?, head: head(&row, 1)?, checkpoint })
    }

    /// Holds the log until then: one at a time. Gives the epoch, which a take-over raises; `None`: somebody else has it.
    pub async fn hold_log(&self, holder: &str, now: Timestamp, until: Timestamp) -> StoreResult<Option<i64>> {
        let mut tx = self.deployment_tx().await?;
        let held = tx
            .fetch_one(
                "UPDATE ledger_log SET epoch = CASE WHEN held_by = $1 THEN epoch ELSE epoch + 1 END, held_by = $1,
                   held_until_us = $3
                 WHERE id = 1 AND (held_by = $1 OR held_until_us <= $2) RETURNING epoch",
                vec![holder.into(), us(now).into(), us(until).into()],
            )
            .await?;
        let epoch = held.map(|row| row.i64(0)).transpose()?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// Gives the log back, so that another need not wait for the lease to pass.
    pub async fn release_log(&self, holder: &str) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        tx.execute("UPDATE ledger_log SET held_until_us = 0 WHERE id = 1 AND held_by = $1", vec![holder.into()])
            .await?;
        Ok(tx.commit().await?)
    }

    /// Begins to give staged entries their places, by their state and never by "newer than the last": a late commit is found, too.
    /// `max`: batches, each of a thousand entries at most.
    pub async fn begin_append(&self, epoch: i64, max: u32) -> StoreResult<LogAppend> {
        let mut tx = self.deployment_tx().await?;
        let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE" } else { "" };
        let sql = format!("SELECT epoch, tree_size, root FROM ledger_log WHERE id = 1 {lock}");
        let row = tx.fetch_one(&sql, vec![]).await?.ok_or(StoreError::NotFound("the log"))?;
        if row.i64(0)? != epoch {
            return Err(StoreError::LeaseLost);
        }
        let head = head(&row, 1)?;
        let sql = "SELECT customer_id, batch_id, leaves FROM ledger_batches WHERE first_index IS NULL
                   ORDER BY batch_id LIMIT $1";
        let rows = tx.fetch(sql, vec![i64::from(max).into()]).await?;
        let staged = rows.iter().map(staged_batch).collect::<StoreResult<Vec<_>>>()?;
        Ok(LogAppend { tx, epoch, head, staged })
    }

    /// Tiles as they are asked for, wide or narrow. What is missing, or too narrow, is not in the answer.
    pub async fn log_tiles(&self, tiles: &[Tile]) -> StoreResult<HashMap<Tile, Vec<u8>>> {
        let mut tx = self.deployment_read().await?;
        let rows = tx
            .fetch_rows(
                "WITH v(n, level, tile_index) AS ({rows}) SELECT v.n, t.content FROM v
                 JOIN ledger_tiles t ON t.level = v.level AND t.tile_index = v.tile_index",
                vec![],
                Rows::new(vec![
                    Column::i64s((0..).take(tiles.len())),
                    Column::i64s(tiles.iter().map(|t| level(t.kind()))),
                    Column::i64s(tiles.iter().map(|t| bigint(t.index()))),
                ]),
            )
            .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in rows {
            let tile = usize::try_from(row.i64(0)?).ok().and_then(|n| tiles.get(n));
            let Some(tile) = tile else { continue };
            let each = if tile.kind() == TileKind::Entries { BUNDLED_BYTES } else { HASH_BYTES };
            let mut content = row.bytes(1)?;
            if content.len() >= usize::from(tile.width()) * each {
                content.truncate(usize::from(tile.width()) * each);
                found.insert(*tile, content);
            }
        }
        Ok(found)
    }

    /// Makes a checkpoint the published one. Never a smaller one than before, and only by who holds the log. One that witnesses have cosigned
    /// is kept, too, when a larger one has taken its place.
    pub async fn publish_checkpoint(&self, epoch: i64, checkpoint: &LogCheckpoint, cosigned: usize) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        let changed = tx
            .execute(
                "UPDATE ledger_log SET checkpoint = $2, checkpoint_size = $3
                 WHERE id = 1 AND epoch = $1 AND checkpoint_size <= $3 AND tree_size >= $3",
                vec![epoch.into(), checkpoint.note.as_str().into(), bigint(checkpoint.size).into()],
            )
            .await?;
        if changed != 1 {
            return Err(StoreError::LeaseLost);
        }
        keep(&mut tx, epoch, checkpoint, cosigned).await?;
        Ok(tx.commit().await?)
    }

    /// Keeps a checkpoint that was published before the witnesses had answered, and is not the newest any more.
    pub async fn keep_checkpoint(&self, epoch: i64, checkpoint: &LogCheckpoint, cosigned: usize) -> StoreResult<()> {
        let mut tx = self.deployment_tx().await?;
        keep(&mut tx, epoch, checkpoint, cosigned).await?;
        Ok(tx.commit().await?)
    }

    /// The first checkpoint beyond this entry that at least so many witnesses have cosigned.
    pub async fn first_cosigned(&self, entry: u64, witnesses: usize) -> StoreResult<Option<LogCheckpoint>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT tree_size, note FROM ledger_checkpoints WHERE tree_size > $1 AND cosigned >= $2
                   ORDER BY tree_size LIMIT 1";
        let row = tx.fetch_one(sql, vec![bigint(entry).into(), bigint(witnesses as u64).into()]).await?;
        row.as_ref().map(kept).transpose()
    }

    /// A page of the checkpoints that are kept for their time, in their order: of trees of at least so many entries.
    pub async fn kept_checkpoints(&self, from: u64, max: u32) -> StoreResult<Vec<LogCheckpoint>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT tree_size, note FROM ledger_checkpoints WHERE tree_size >= $1 ORDER BY tree_size LIMIT $2";
        let rows = tx.fetch(sql, vec![bigint(from).into(), max.into()]).await?;
        rows.iter().map(kept).collect()
    }

    /// All entries of a request, oldest first.
    pub async fn ledger_entries(&self, customer: &CustomerId, request: RequestId) -> StoreResult<Vec<LedgerEntryRow>> {
        let mut tx = self.customer_read(customer).await?;
        let sql = "SELECT e.kind, e.payload, e.salt, e.leaf, b.first_index + e.batch_offset FROM ledger_entries e
                   JOIN ledger_batches b ON b.customer_id = $1 AND b.batch_id = e.batch_id
                   WHERE e.customer_id = $1 AND e.request_id = $2 ORDER BY e.entry_id LIMIT $3";
        let args = vec![customer.as_str().into(), request.uuid().into(), (ENTRIES_MAX + 1).into()];
        let rows = tx.fetch(sql, args).await?;
        if i64::try_from(rows.len()).is_ok_and(|rows| rows > ENTRIES_MAX) {
            return Err(StoreError::WrongState(format!(
                "the request has more than {ENTRIES_MAX} entries in the log, and a certificate holds no more"
            )));
        }
        let one = |row: &Row| {
            Ok(LedgerEntryRow {
                kind: row.text(0)?,
                payload: row.bytes(1)?,
                salt: bytes32(row.bytes(2)?, "ledger_entries")?,
                leaf: Leaf(bytes32(row.bytes(3)?, "ledger_entries")?),
                index: row.opt_i64(4)?.and_then(|index| u64::try_from(index).ok()),
            })
        };
        rows.iter().map(one).collect()
    }

    /// Whom a request is about, for its customer. `None`: it is forgotten, and nobody knows any more.
    pub async fn subject(&self, customer: &CustomerId, request: RequestId) -> StoreResult<Option<SubjectSecrets>> {
        let mut tx = self.customer_read(customer).await?;
        let sql =
            "SELECT key_epoch, wrapped_key, sealed_subject FROM requests WHERE customer_id = $1 AND request_id = $2";
        let row = tx.fetch_one(sql, vec![customer.as_str().into(), request.uuid().into()]).await?;
        let row = row.ok_or(StoreError::NotFound("the request"))?;
        let Some(wrapped) = WrappedKey::read(&row.text(0)?, row.bytes(1)?)? else { return Ok(None) };
        let key = RequestKey::unwrap(self.ring(), customer, request, &wrapped)?;
        SubjectSecrets::open(&key, &row.bytes(2)?).map(Some)
    }

    pub async fn certificate(
        &self,
        customer: &CustomerId,
        request: RequestId,
    ) -> StoreResult<Option<IssuedCertificate>> {
        let mut tx = self.customer_read(customer).await?;
        let sql = "SELECT content, issued_us FROM certificates WHERE customer_id = $1 AND request_id = $2";
        let row = tx.fetch_one(sql, vec![customer.as_str().into(), request.uuid().into()]).await?;
        let one = |row: Row| {
            let issued_at = crate::tx::time(row.i64(1)?, "certificates")?;
            Ok(IssuedCertificate { content: row.bytes(0)?, issued_at })
        };
        row.map(one).transpose()
    }

    /// Keeps what was issued. Gives what stands: of two that are issued at once, the first.
    pub async fn keep_certificate(
        &self,
        customer: &CustomerId,
        request: RequestId,
        issued: IssuedCertificate,
    ) -> StoreResult<IssuedCertificate> {
        let mut tx = self.customer_tx(customer).await?;
        let args = vec![
            customer.as_str().into(),
            request.uuid().into(),
            issued.content.clone().into(),
            us(issued.issued_at).into(),
        ];
        let kept = tx
            .execute(
                "INSERT INTO certificates (customer_id, request_id, content, issued_us) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (customer_id, request_id) DO NOTHING",
                args,
            )
            .await?;
        tx.commit().await?;
        if kept == 1 {
            return Ok(issued);
        }
        self.certificate(customer, request).await?.ok_or(StoreError::NotFound("the certificate"))
    }

    /// In the place of one that nobody believes any more. Gives what stands: of two that are issued at once, the first.
    pub async fn replace_certificate(
        &self,
        customer: &CustomerId,
        request: RequestId,
        old: &IssuedCertificate,
        issued: IssuedCertificate,
    ) -> StoreResult<IssuedCertificate> {
        let mut tx = self.customer_tx(customer).await?;
        let replaced = tx
            .execute(
                "UPDATE certificates SET content = $3, issued_us = $4
                 WHERE customer_id = $1 AND request_id = $2 AND content = $5",
                vec![
                    customer.as_str().into(),
                    request.uuid().into(),
                    issued.content.clone().into(),
                    us(issued.issued_at).into(),
                    old.content.clone().into(),
                ],
            )
            .await?;
        tx.commit().await?;
        if replaced == 1 {
            return Ok(issued);
        }
        self.certificate(customer, request).await?.ok_or(StoreError::NotFound("the certificate"))
    }
}

/// One that no witness has signed tells no time, and is not kept. Of one size the note with the most signatures is:
/// when witnesses are exchanged, those of before are not counted any more, and stand in it all the same.
async fn keep(tx: &mut Tx, epoch: i64, checkpoint: &LogCheckpoint, cosigned: usize) -> StoreResult<()> {
    if cosigned > 0 {
        tx.execute(
            "INSERT INTO ledger_checkpoints (tree_size, cosigned, note)
             SELECT $2 + 0, $3 + 0, $4 FROM ledger_log WHERE id = 1 AND epoch = $1 AND tree_size >= $2
             ON CONFLICT (tree_size) DO UPDATE SET note = excluded.note,
                cosigned = CASE WHEN excluded.cosigned > ledger_checkpoints.cosigned THEN excluded.cosigned
                                ELSE ledger_checkpoints.cosigned END
             WHERE excluded.cosigned >= ledger_checkpoints.cosigned
                OR length(excluded.note) > length(ledger_checkpoints.note)",
            vec![
                epoch.into(),
                bigint(checkpoint.size).into(),
                bigint(cosigned as u64).into(),
                checkpoint.note.as_str().into(),
            ],
        )
        .await?;
    }
    Ok(())
}

/// A request has a handful: one instruction and a few of each system. As many as a certificate holds.
const ENTRIES_MAX: i64 = 10_000;
/// From here on nothing is decided about it that may be decided again and again: what completes it has room.
const ENTRIES_DECIDED_MAX: i64 = 5_000;

/// Before what may be decided any number of times (another try, an objection, an extension): a script that never stops must not keep the request from
/// its certificate.
pub(crate) async fn has_room(tx: &mut Tx, customer: &CustomerId, request: RequestId) -> StoreResult<()> {
    let sql = "SELECT count(*) FROM ledger_entries WHERE customer_id = $1 AND request_id = $2";
    let row = tx.fetch_one(sql, vec![customer.as_str().into(), request.uuid().into()]).await?;
    if row.map_or(Ok(0), |row| row.i64(0))? >= ENTRIES_DECIDED_MAX {
        return Err(StoreError::WrongState(format!(
            "more than {ENTRIES_DECIDED_MAX} things were recorded of the request: complete, decline or resolve what is open of it"
        )));
    }
    Ok(())
}

impl LogAppend {
    /// Gives the places, writes the tiles, and moves the head, all or nothing.
    pub async fn commit(mut self, head: &TreeHead, tiles: &[TileWrite]) -> StoreResult<()> {
        let staged = std::mem::take(&mut self.staged);
        let mut next = self.head.size;
        let firsts = staged.iter().map(|batch| {
            let first = next;
            next += batch.leaves.len() as u64;
            first
        });
        let firsts: Vec<_> = firsts.collect();
        self.place(staged.iter().zip(firsts), head, tiles).await
    }

    /// As [`Self::commit`], of batches whose places are known.
    pub(crate) async fn place(
        mut self,
        batches: impl Iterator<Item = (&StagedBatch, u64)> + Clone + Send,
        head: &TreeHead,
        tiles: &[TileWrite],
    ) -> StoreResult<()> {
        let rows = Rows::new(vec![
            Column::texts(batches.clone().map(|(batch, _)| batch.customer.as_str())),
            Column::uuids(batches.clone().map(|(batch, _)| batch.batch)),
            Column::i64s(batches.map(|(_, first)| bigint(first))),
        ]);
        let count = rows.len() as u64;
        let placed = self
            .tx
            .execute_rows(
                "WITH c(customer_id, batch_id, first_index) AS ({rows})
                 UPDATE ledger_batches SET first_index = c.first_index FROM c
                 WHERE ledger_batches.customer_id = c.customer_id AND ledger_batches.batch_id = c.batch_id
                   AND ledger_batches.first_index IS NULL",
                vec![],
                rows,
            )
            .await?;
        if placed != count {
            return Err(StoreError::Inconsistent {
                table: "ledger_batches",
                what: "a staged batch has a place already",
            });
        }
        self.tx
            .execute_rows(
                "WITH v(level, tile_index, width, content) AS ({rows})
                 INSERT INTO ledger_tiles (level, tile_index, width, content)
                 SELECT level, tile_index, width, content FROM v WHERE true
                 ON CONFLICT (level, tile_index) DO UPDATE SET width = excluded.width, content = excluded.content
                 WHERE ledger_tiles.width < excluded.width",
                vec![],
                Rows::new(vec![
                    Column::i64s(tiles.iter().map(|t| level(t.tile.kind()))),
                    Column::i64s(tiles.iter().map(|t| bigint(t.tile.index()))),
                    Column::i64s(tiles.iter().map(|t| i64::from(t.tile.width()))),
                    Column::bytes(tiles.iter().map(|t| t.bytes.clone())),
                ]),
            )
            .await?;
        let moved = self
            .tx
            .execute(
                "UPDATE ledger_log SET tree_size = $2, root = $3 WHERE id = 1 AND epoch = $1",
                vec![self.epoch.into(), bigint(head.size).into(), head.root.0.to_vec().into()],
            )
            .await?;
        if moved != 1 {
            return Err(StoreError::LeaseLost);
        }
        Ok(self.tx.commit().await?)
    }
}
