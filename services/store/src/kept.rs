//! What a hold still needs when its request is forgotten (I7), and the request that is made on the day it ends (docs/decisions/0004).

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use quittance_domain::{
    Timestamp,
    action::{Action, InstructionKind},
    agreement::Agreement,
    ids::{CustomerId, IdempotencyId, RequestId, SystemId},
    plan::PlannedTask,
    request::{NewRequest, RequestState},
    task::{TaskState, Work},
    window,
};
use quittance_ledger::subject_commitment;
use quittance_sql::{Column, Engine, Part, Row, Rows, Tx, Val};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    IntakeContext, Store, StoreError, StoreResult, SubjectSecrets, Topology, changes,
    epochs::hold_epoch,
    intake::{
        Prepared, Restricted, await_customer_where_restricted, grounds, insert_requests, named, restrictions,
        restrictions_part, stage,
    },
    keyring::{EpochKey, random},
    ledger::Staging,
    log_upkeep::LOG_GOES_ON,
    rekey::{alone, carry_over},
    replan::{Insertion, insert_tasks, system_id},
    seal::{KeyOf, RequestKey, SealedColumn, WrappedKey},
    subject_keys::{NAME_BYTES, SubjectKeys},
    systems::{NO_GENERATION, held_generation},
    tx::us,
};

/// Follow-ups of one transaction.
const BATCH: usize = 100;
/// Who makes a follow-up, as the record says it.
const BY: &str = "quittanced";

/// Given with a confirmation that holds something: what is needed on the day the first hold ends.
#[derive(Clone)]
pub struct Kept {
    /// Keys of rows, and what ties them to the subject that is no identifier. For whoever gave it.
    pub rows: Vec<u8>,
    pub due_at: Timestamp,
}

/// A page of what erasures hold at one system, whosever: what was kept of each ([`Kept::rows`]).
pub struct KeptPage {
    pub rows: Vec<Vec<u8>>,
    /// Some of it does not open: nobody knows what it holds.
    pub unsealable: bool,
    /// Where the next page begins.
    pub next: Option<RequestId>,
}

// Keys of rows are personal data (I10).
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept(until {})", self.due_at)
    }
}

/// As it is sealed: the subject's names (`subject_keys.rs`), by which later instructions and restrictions are told to be about the same
/// person, and the rows.
struct Content {
    names: BTreeSet<Vec<u8>>,
    rows: Vec<u8>,
}

impl Content {
    fn write(&self) -> Zeroizing<Vec<u8>> {
        let count = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        let mut bytes = Zeroizing::new(count.to_le_bytes().to_vec());
        for name in self.names.iter().take(usize::from(count)) {
            bytes.extend_from_slice(name);
        }
        bytes.extend_from_slice(&self.rows);
        bytes
    }

    fn read(bytes: &[u8]) -> StoreResult<Self> {
        let broken = || StoreError::Inconsistent { table: TABLE, what: "what is kept does not parse" };
        let (count, rest) = bytes.split_first_chunk::<2>().ok_or_else(broken)?;
        let length = usize::from(u16::from_le_bytes(*count)) * NAME_BYTES;
        let (names, rows) = rest.split_at_checked(length).ok_or_else(broken)?;
        let names = names.chunks_exact(NAME_BYTES).map(<[u8]>::to_vec).collect();
        Ok(Self { names, rows: rows.to_vec() })
    }
}

const TABLE: &str = "kept_rows";

/// What is kept of one request, sealed.
struct SealedRows {
    due_us: i64,
    wrapped: Vec<u8>,
    sealed: Vec<u8>,
}

/// Ready to be stored with the confirmations that they come from.
pub(crate) struct ToKeep {
    /// `None`: there are none.
    epoch: Option<u32>,
    rows: HashMap<RequestId, SealedRows>,
}

impl ToKeep {
    /// Stores what belongs to a task that is confirmed. `false`: a new epoch has begun, and nothing is sealed under an older one any more.
    pub async fn insert(
        mut self,
        tx: &mut Tx,
        customer: &CustomerId,
        system: &SystemId,
        confirmed: impl Iterator<Item = RequestId>,
    ) -> StoreResult<bool> {
        let Some(epoch) = self.epoch else { return Ok(true) };
        if hold_epoch(tx).await? != i64::from(epoch) {
            return Ok(false);
        }
        let kept: Vec<_> = confirmed.filter_map(|id| Some((id, self.rows.remove(&id)?))).collect();
        let rows = Rows::new(vec![
            Column::uuids(kept.iter().map(|(id, _)| id.uuid())),
            Column::i64s(kept.iter().map(|(_, kept)| kept.due_us)),
            Column::bytes(kept.iter().map(|(_, kept)| kept.wrapped.clone())),
            Column::bytes(kept.into_iter().map(|(_, kept)| kept.sealed)),
        ]);
        tx.execute_rows(
            "WITH v(request_id, due_us, wrapped_key, sealed) AS ({rows})
             INSERT INTO kept_rows (customer_id, request_id, system_id, map_version, due_us, key_epoch, wrapped_key, sealed)
             SELECT $1, v.request_id, $2, t.map_version, v.due_us, $3, v.wrapped_key, v.sealed FROM v
             JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id AND t.system_id = $2",
            vec![customer.as_str().into(), system.as_str().into(), epoch.to_string().into()],
            rows,
        )
        .await?;
        Ok(true)
    }
}

/// What was kept for requests that are closed now goes, and with it its key: nothing is held any more, or it is kept anew.
pub(crate) fn release(customer: &CustomerId, follow_ups: &[RequestId]) -> Part {
    Part::new(
        "WITH v(request_id) AS ({rows}) DELETE FROM kept_rows
         WHERE customer_id = $1 AND follow_request_id IN (SELECT request_id FROM v)",
        vec![customer.as_str().into()],
        Rows::new(vec![Column::uuids(follow_ups.iter().map(|id| id.uuid()))]),
    )
}

/// A row of `kept_rows`, opened.
struct Opened {
    request: RequestId,
    system: SystemId,
    map_version: u32,
    due_us: i64,
    content: Content,
}

const COLUMNS: &str = "k.request_id, k.system_id, k.map_version, k.due_us, k.key_epoch, k.wrapped_key, k.sealed";

/// A task for what is kept: it works from its match set, at that system alone.
fn task(kept: &Opened) -> PlannedTask {
    PlannedTask {
        system: kept.system.clone(),
        map_version: kept.map_version,
        work: Work::Act,
        state: TaskState::Pending,
        reason: None,
        waits: Vec::new(),
        latest_start: None,
    }
}

impl Store {
    pub(crate) async fn seal_kept(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        kept: &[(RequestId, &Kept)],
    ) -> StoreResult<ToKeep> {
        let mut to_keep = ToKeep { epoch: None, rows: HashMap::with_capacity(kept.len()) };
        if kept.is_empty() {
            return Ok(to_keep);
        }
        let epoch = self.sealing_epoch().await?;
        to_keep.epoch = Some(epoch.number);
        let mut names = self.subjects_names(customer, &epoch, kept.iter().map(|(id, _)| *id)).await?;
        for (id, kept) in kept {
            let (key, wrapped) = RequestKey::generate(&epoch, customer, *id, KeyOf::KeptRows(system))?;
            let names = names.remove(id).unwrap_or_default();
            let content = Content { names, rows: kept.rows.clone() };
            let sealed = key.seal(SealedColumn::KeptRows, system.as_str(), &content.write())?;
            to_keep.rows.insert(*id, SealedRows { due_us: us(kept.due_at), wrapped: wrapped.wrapped, sealed });
        }
        Ok(to_keep)
    }

    /// Of a follow-up nobody knows the subject: there they are those that were kept.
    async fn subjects_names(
        &self,
        customer: &CustomerId,
        epoch: &EpochKey,
        ids: impl Iterator<Item = RequestId>,
    ) -> StoreResult<HashMap<RequestId, BTreeSet<Vec<u8>>>> {
        let subject_keys = self.ring().subject_keys(customer, epoch.number)?;
        let mut tx = self.customer_read(customer).await?;
        let rows = tx
            .fetch_rows(
                "WITH v(request_id) AS ({rows}) SELECT r.request_id, r.key_epoch, r.wrapped_key, r.sealed_subject FROM v
                 JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id",
                vec![customer.as_str().into()],
                Rows::new(vec![Column::uuids(ids.map(RequestId::uuid))]),
            )
            .await?;
        let mut all = HashMap::with_capacity(rows.len());
        for row in rows {
            let id = RequestId::new(row.uuid(0)?);
            let Some(wrapped) = WrappedKey::read(&row.text(1)?, row.bytes(2)?)? else { continue };
            let key = RequestKey::unwrap(self.ring(), customer, id, &wrapped)?;
            let secrets = SubjectSecrets::open(&key, &row.bytes(3)?)?;
            let mut names: BTreeSet<Vec<u8>> = secrets.names().map(|name| subject_keys.name(name)).collect();
            if names.is_empty() {
                let kept = self.kept_for(&mut tx, customer, id).await?;
                names = kept.into_iter().flat_map(|kept| kept.content.names).collect();
            }
            all.insert(id, names);
        }
        Ok(all)
    }

    fn open_kept(&self, customer: &CustomerId, row: &Row) -> StoreResult<Opened> {
        let out_of_range = |_| StoreError::Inconsistent { table: TABLE, what: "a version is out of range" };
        let (request, system) = (RequestId::new(row.uuid(0)?), system_id(&row.text(1)?)?);
        let wrapped = WrappedKey::read(&row.text(4)?, row.bytes(5)?)?.ok_or(StoreError::Forgotten)?;
        let key = RequestKey::unwrap_of(self.ring(), customer, request, KeyOf::KeptRows(&system), &wrapped)?;
        let plain = Zeroizing::new(key.open(SealedColumn::KeptRows, system.as_str(), &row.bytes(6)?)?);
        Ok(Opened {
            map_version: u32::try_from(row.i64(2)?).map_err(out_of_range)?,
            due_us: row.i64(3)?,
            content: Content::read(&plain)?,
            request,
            system,
        })
    }

    /// What a follow-up was made for.
    async fn kept_for(&self, tx: &mut Tx, customer: &CustomerId, follow_up: RequestId) -> StoreResult<Vec<Opened>> {
        let sql = format!("SELECT {COLUMNS} FROM kept_rows k WHERE k.customer_id = $1 AND k.follow_request_id = $2");
        let rows = tx.fetch(&sql, vec![customer.as_str().into(), follow_up.uuid().into()]).await?;
        rows.iter().map(|row| self.open_kept(customer, row)).collect()
    }

    /// What is held at a system until its erasure is confirmed, a page at a time.
    pub async fn kept_at(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        after: Option<RequestId>,
    ) -> StoreResult<KeptPage> {
        let mut tx = self.customer_read(customer).await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM kept_rows k WHERE k.customer_id = $1 AND k.system_id = $2 AND k.request_id > $3
             ORDER BY k.request_id LIMIT {BATCH}"
        );
        let after = after.map_or_else(Uuid::nil, RequestId::uuid);
        let kept = tx.fetch(&sql, vec![customer.as_str().into(), system.as_str().into(), after.into()]).await?;
        let mut page = KeptPage { rows: Vec::with_capacity(kept.len()), unsealable: false, next: None };
        for row in &kept {
            match self.open_kept(customer, row) {
                Ok(opened) => page.rows.push(opened.content.rows),
                Err(StoreError::Unsealable(what)) => {
                    let request = RequestId::new(row.uuid(0)?);
                    tracing::error!(%customer, %request, what, "what is kept of a request cannot be opened");
                    page.unsealable = true;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(last) = kept.last().filter(|_| kept.len() >= BATCH) {
            page.next = Some(RequestId::new(last.uuid(0)?));
        }
        Ok(page)
    }

    /// The tasks of a follow-up that waited for its customer's word, and its subject's names.
    pub(crate) async fn plan_follow_up(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        id: RequestId,
    ) -> StoreResult<(Vec<PlannedTask>, Vec<Vec<u8>>)> {
        let kept = self.kept_for(tx, customer, id).await?;
        let tasks = kept.iter().map(task).collect();
        Ok((tasks, kept.into_iter().flat_map(|kept| kept.content.names).collect()))
    }

    /// Customers for whom a hold has ended. Deployment-wide: a sweep.
    pub async fn customers_with_ended_holds(&self, now: Timestamp) -> StoreResult<Vec<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = format!(
            "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM kept_rows k
               WHERE k.customer_id = c.customer_id AND k.follow_request_id IS NULL AND k.due_us <= $1)
               AND {LOG_GOES_ON} ORDER BY c.customer_id LIMIT 10000"
        );
        let rows = tx.fetch(&sql, vec![us(now).into()]).await?;
        let broken = |_| StoreError::Inconsistent { table: "customers", what: "an id is not one" };
        rows.iter().map(|row| CustomerId::new(&row.text(0)?).map_err(broken)).collect()
    }

    /// Makes a request for each hold that has ended, a bounded number of them; call it until it made none. The match set is what was kept;
    /// where a restriction keeps the subject's data, or the customer has declined the request in the end, the customer is asked first.
    pub async fn follow_up(
        &self,
        customer: &CustomerId,
        agreement: &Agreement,
        topology: &Topology,
        now: Timestamp,
    ) -> StoreResult<Vec<RequestId>> {
        let epoch = self.sealing_epoch().await?;
        let mut tx = self.customer_tx(customer).await?;
        let held = tx.fetch_one(held_generation(tx.engine()), vec![]).await?.ok_or(NO_GENERATION)?;
        if held.i64(0)? != topology.generation || held.i64(1)? != i64::from(epoch.number) {
            // The next sweep knows better.
            drop(tx);
            self.refresh_keys().await?;
            return Ok(Vec::new());
        }
        let subjects = self.ring().subject_keys(customer, epoch.number)?;
        alone(&mut tx, customer).await?;
        // What another replica is at is left to it.
        let lock = if tx.engine() == Engine::Postgres { "FOR UPDATE OF k SKIP LOCKED" } else { "" };
        let sql = format!(
            "SELECT {COLUMNS}, (SELECT r.reference FROM requests r WHERE r.customer_id = $1 AND r.request_id = k.request_id),
               (SELECT r.state FROM requests r WHERE r.customer_id = $1 AND r.request_id = k.request_id)
             FROM kept_rows k WHERE k.customer_id = $1 AND k.follow_request_id IS NULL AND k.due_us <= $2
               AND (k.due_us, k.request_id, k.system_id) > ($3, $4, $5)
             ORDER BY k.due_us, k.request_id, k.system_id LIMIT {BATCH} {lock}"
        );
        let ctx = IntakeContext { customer, by: BY, now, agreement, topology };
        let (mut kept, mut prepared, mut match_sets) = (Vec::new(), Vec::new(), Vec::new());
        let mut after = (i64::MIN, Uuid::nil(), String::new());
        loop {
            let args: Vec<Val> =
                vec![customer.as_str().into(), us(now).into(), after.0.into(), after.1.into(), after.2.as_str().into()];
            let page = tx.fetch(&sql, args).await?;
            let is_full = page.len() >= BATCH;
            for row in page {
                after = (row.i64(3)?, row.uuid(0)?, row.text(1)?);
                match self.open_kept(customer, &row) {
                    Ok(opened) => {
                        let reference = row.opt_text(7)?.unwrap_or_default();
                        let (mut follow_up, match_set) = prepare(&ctx, (&epoch, &subjects), &opened, reference)?;
                        // Its customer's last word was not to erase (I1).
                        if row.opt_text(8)?.as_deref() == Some(RequestState::Declined.as_str()) {
                            follow_up.state = RequestState::AwaitingCustomer;
                        }
                        kept.push(opened);
                        prepared.push(follow_up);
                        match_sets.push(match_set);
                    }
                    Err(error @ (StoreError::Unsealable(_) | StoreError::NoEpochKey(_))) => {
                        let request = RequestId::new(after.1);
                        tracing::error!(%customer, %request, %error, "what is kept of a request cannot be opened");
                    }
                    Err(error) => return Err(error),
                }
            }
            // Those that cannot be opened do not keep the others from their turn.
            if !prepared.is_empty() || !is_full {
                break;
            }
        }
        if prepared.is_empty() {
            return Ok(Vec::new());
        }
        carry_over(&mut tx, customer, &subjects, &named(&prepared)).await?;
        let standing = restrictions(&mut tx, customer, &prepared).await?;
        await_customer_where_restricted(&standing, &mut prepared);
        let requests = insert_requests(&ctx, changes::seq(&tx), &prepared)?;
        let started = prepared.iter().filter(|p| p.state == RequestState::InProgress);
        let insertions: Vec<Insertion<'_>> = started
            .map(|p| Insertion { id: p.id, action: p.request.action, tasks: &p.tasks, pseudonyms: &p.pseudonyms })
            .collect();
        let planned = insert_tasks(&mut tx, customer, now, topology.generation, &insertions, vec![requests]).await?;
        let mut staging = Staging::new(customer);
        for p in &prepared {
            stage(&mut staging, &ctx, p);
        }
        let mut writes = planned.writes;
        writes.extend(staging.parts());
        writes.push(insert_match_sets(customer, &kept, &prepared, match_sets));
        writes.push(take(customer, &kept, &prepared));
        // Who restricted a subject after we looked was before us in its line, and may be done by now.
        let standing = tx.fetch_with(restrictions_part(customer, &prepared), writes).await?;
        if await_customer_where_restricted(&grounds(&standing)?, &mut prepared) == Restricted::Waits {
            // The next sweep asks the customer.
            return Ok(Vec::new());
        }
        tx.commit().await?;
        Ok(prepared.iter().map(|p| p.id).collect())
    }
}

/// The follow-up, and its match set sealed under its key.
fn prepare(
    ctx: &IntakeContext<'_>,
    (epoch, subjects): (&EpochKey, &SubjectKeys),
    kept: &Opened,
    reference: String,
) -> StoreResult<(Prepared, Vec<u8>)> {
    let instruction = InstructionKind::AgreementTerm;
    let request = NewRequest { reference, instruction, ..NewRequest::plain(Action::Erasure, Vec::new()) };
    let id = RequestId::new(Uuid::now_v7());
    let secrets = SubjectSecrets::of(&request, None, random());
    let (key, wrapped) = RequestKey::generate(epoch, ctx.customer, id, KeyOf::Request)?;
    let refused = |e: window::WindowError| StoreError::Refused(e.to_string());
    let zone = window::zone(&ctx.agreement.time_zone).map_err(refused)?;
    let due = window::due_at(ctx.now, ctx.agreement.window_days, &zone, None).map_err(refused)?;
    let prepared = Prepared {
        at: 0,
        id,
        idempotency: idempotency(kept),
        state: RequestState::InProgress,
        referred: false,
        follows: Some(kept.request),
        mac: key.content_mac(&kept.content.rows),
        sealed: secrets.seal(&key)?,
        commitment: subject_commitment(&secrets.commitment_salt, secrets.instructed()),
        pseudonyms: kept.content.names.iter().map(|name| subjects.of_name(name)).collect::<StoreResult<_>>()?,
        renamed: Vec::new(),
        request,
        key: wrapped,
        due,
        tasks: vec![task(kept)],
    };
    let match_set = key.seal(SealedColumn::MatchSet, kept.system.as_str(), &kept.content.rows)?;
    Ok((prepared, match_set))
}

/// The same for the same hold: of two replicas that make it at once, one does.
fn idempotency(kept: &Opened) -> IdempotencyId {
    let of = format!("quittance/v1\0follow-up\0{}\0{}\0{}", kept.request, kept.system, kept.due_us);
    let mut id = [0; 16];
    id.copy_from_slice(&digest(&SHA256, of.as_bytes()).as_ref()[..16]);
    IdempotencyId::new(Uuid::from_bytes(id))
}

fn insert_match_sets(customer: &CustomerId, kept: &[Opened], prepared: &[Prepared], match_sets: Vec<Vec<u8>>) -> Part {
    Part::new(
        "WITH v(request_id, system_id, sealed) AS ({rows}) INSERT INTO match_sets (customer_id, request_id, system_id, sealed)
         SELECT $1, request_id, system_id, sealed FROM v",
        vec![customer.as_str().into()],
        Rows::new(vec![
            Column::uuids(prepared.iter().map(|p| p.id.uuid())),
            Column::texts(kept.iter().map(|kept| kept.system.as_str())),
            Column::bytes(match_sets),
        ]),
    )
}

fn take(customer: &CustomerId, kept: &[Opened], prepared: &[Prepared]) -> Part {
    Part::new(
        "WITH v(request_id, system_id, follow_up) AS ({rows}) UPDATE kept_rows SET follow_request_id = v.follow_up FROM v
         WHERE kept_rows.customer_id = $1 AND kept_rows.request_id = v.request_id AND kept_rows.system_id = v.system_id",
        vec![customer.as_str().into()],
        Rows::new(vec![
            Column::uuids(kept.iter().map(|kept| kept.request.uuid())),
            Column::texts(kept.iter().map(|kept| kept.system.as_str())),
            Column::uuids(prepared.iter().map(|p| p.id.uuid())),
        ]),
    )
}
