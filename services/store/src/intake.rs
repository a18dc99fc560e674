//! Intake: requests become durable, with their plan, in one transaction (I1, I2, I3).

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use quittance_domain::{
    Timestamp,
    action::{Action, RestrictionGround},
    agreement::Agreement,
    identifier::IdentifierKind,
    ids::{CustomerId, IdempotencyId, RequestId, SystemId},
    plan::{PlanError, PlannedTask, SystemFacts, carry_after_named, concerned, plan},
    request::{NewRequest, Notice, RequestState},
    task::TaskState,
    window,
};
use quittance_ledger::{Event, FollowedUp, Hex, PlannedSystem, subject_commitment};
use quittance_sql::{Column, Engine, Part, Row, Rows, Tx, Val};
use uuid::Uuid;

use crate::{
    RequestRow, Store, StoreError, StoreResult, SubjectSecrets, TaskRow, Topology, changes,
    keyring::{EpochKey, random},
    ledger::Staging,
    rekey::{carry_over, forget_left_heads},
    renames::Renames,
    replan::{Insertion, insert_tasks},
    replays::Redoing,
    requests::{ChangedIdentifier, list_text, read_with_tasks},
    seal::{KeyOf, RequestKey, WrappedKey},
    subject_keys::SubjectKeys,
    systems::{NO_GENERATION, held_generation},
    tx::{time, us},
};

/// How often a chunk is taken in again that met another one about the same requests or persons.
const TAKE_IN_TRIES: u32 = 5;

/// What holds for all requests of one chunk.
#[derive(Clone, Debug)]
pub struct IntakeContext<'a> {
    pub customer: &'a CustomerId,
    /// The principal, for the record.
    pub by: &'a str,
    pub now: Timestamp,
    pub agreement: &'a Agreement,
    pub topology: &'a Topology,
}

/// One request on its way in.
#[derive(Clone, Debug)]
pub struct Intake {
    pub idempotency: IdempotencyId,
    pub request: NewRequest,
    /// It did not come from the customer: it waits, and these are the subject's words.
    pub referred: Option<String>,
}

/// What became of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    Created(RequestId),
    /// The same `request_id` with the same content was taken in before.
    Repeated(RequestId),
}

impl Taken {
    pub const fn id(self) -> RequestId {
        match self {
            Self::Created(id) | Self::Repeated(id) => id,
        }
    }
}

pub type IntakeItem = Result<Taken, StoreError>;

/// What a chunk is taken in for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Instructed,
    /// The last of it is given as it stands then.
    InstructedAndRead,
    FollowUps(&'a Redoing<'a>),
}

/// What became of a chunk; and the last of it, where that was asked for.
type TakenIn = (Vec<IntakeItem>, Option<(RequestRow, Vec<TaskRow>)>);

const UNANSWERED: StoreError = StoreError::Inconsistent { table: "requests", what: "an item was left unanswered" };

/// What a plan depends on beside the customer's systems.
type PlanKey = (Action, BTreeSet<IdentifierKind>, Timestamp, Vec<Notice>, Option<SystemId>);

pub(crate) struct Prepared {
    pub at: usize,
    pub id: RequestId,
    pub idempotency: IdempotencyId,
    pub request: NewRequest,
    pub state: RequestState,
    pub referred: bool,
    pub follows: Option<RequestId>,
    pub key: WrappedKey,
    pub mac: Vec<u8>,
    pub sealed: Vec<u8>,
    pub commitment: Hex<32>,
    pub pseudonyms: Vec<Vec<u8>>,
    pub renamed: Vec<(Vec<u8>, Vec<u8>)>,
    pub due: Timestamp,
    pub tasks: Vec<PlannedTask>,
}

impl Prepared {
    /// To restrict again, or to lift again, undoes what was instructed meanwhile. So it comes when nothing else about the person is open.
    pub fn comes_alone(&self) -> bool {
        self.request.follow_up.is_some() && matches!(self.request.action, Action::Restriction | Action::LiftRestriction)
    }

    /// So does an erasure of somebody who is restricted.
    fn changes_restrictions(&self) -> bool {
        matches!(self.request.action, Action::Restriction | Action::LiftRestriction) || !self.renamed.is_empty()
    }
}

/// What an instruction says, and a repetition must say again: nothing of what was read into it by the agreement and the data maps of its day.
#[derive(Clone, Debug)]
pub struct Said<'a> {
    pub request: &'a NewRequest,
    pub referred: Option<&'a str>,
    pub recipients: BTreeSet<&'a str>,
}

impl<'a> Said<'a> {
    fn of(intake: &'a Intake) -> Self {
        let recipients = intake.request.notices.iter().map(|notice| notice.recipient.as_str()).collect();
        Self { request: &intake.request, referred: intake.referred.as_deref(), recipients }
    }

    /// Not stored: only its MAC under the request's key is.
    fn content(&self) -> Vec<u8> {
        let r = self.request;
        let identifiers: Vec<(&str, &str)> =
            r.identifiers.iter().map(|i| (i.kind().as_str(), i.value().expose().as_str())).collect();
        let parts = (
            (r.action, r.instruction, &identifiers, &r.corrections, &r.reference, &self.referred),
            (r.restriction_ground, r.subject_informed_at, r.subject_asked_at, r.controller_due_at),
        );
        // Strings and integers only: nothing that serde_json can refuse.
        let mut content = serde_json::to_vec(&parts).unwrap_or_default();
        // Behind the rest, so that what was taken in before there were any is still the same.
        for recipient in &self.recipients {
            content.extend_from_slice(recipient.as_bytes());
            content.push(0);
        }
        if let Some(f) = &r.follow_up {
            content.extend_from_slice(format!("{} {} {}", f.follows, f.system, f.replay).as_bytes());
        }
        content
    }
}

impl Store {
    /// Takes a chunk in: all that can be, in one transaction. The answer has the chunk's order; when it is there, it is durable.
    /// `StoreError::WrongState` for the whole chunk means that systems changed meanwhile: take it again with the new topology; and
    /// `StoreError::AgreementChanged`: with the agreement that is in force now.
    pub async fn create_requests(&self, ctx: &IntakeContext<'_>, items: &[Intake]) -> StoreResult<Vec<IntakeItem>> {
        Ok(self.take_in_at_last(ctx, items, Purpose::Instructed).await?.0)
    }

    /// As [`Store::create_requests`] of one, and gives it as it stands when it is durable.
    pub async fn create_request(
        &self,
        ctx: &IntakeContext<'_>,
        item: &Intake,
    ) -> StoreResult<(RequestRow, Vec<TaskRow>)> {
        let (mut results, read) =
            self.take_in_at_last(ctx, std::slice::from_ref(item), Purpose::InstructedAndRead).await?;
        results.pop().unwrap_or(Err(UNANSWERED))?;
        read.ok_or(UNANSWERED)
    }

    pub(crate) async fn take_in_at_last(
        &self,
        ctx: &IntakeContext<'_>,
        items: &[Intake],
        purpose: Purpose<'_>,
    ) -> StoreResult<TakenIn> {
        for _ in 1..TAKE_IN_TRIES {
            match self.take_in(ctx, items, purpose).await {
                // The same `request_id` came at the same moment by another way, and was first: now it is known.
                Err(e) if e.is_constraint() => {}
                Err(e) if e.is_conflict() => {}
                Ok(None) => {}
                Ok(Some(taken)) => return Ok(taken),
                Err(e) => return Err(e),
            }
        }
        let conflict = StoreError::Inconsistent { table: "requests", what: "a chunk meets another at every try" };
        self.take_in(ctx, items, purpose).await?.ok_or(conflict)
    }

    /// `None`: what counts for the chunk was instructed meanwhile, and first, or a new epoch has begun. Nothing is taken in.
    async fn take_in(
        &self,
        ctx: &IntakeContext<'_>,
        items: &[Intake],
        purpose: Purpose<'_>,
    ) -> StoreResult<Option<TakenIn>> {
        let (read, redoing) = match purpose {
            Purpose::Instructed => (false, None),
            Purpose::InstructedAndRead => (true, None),
            Purpose::FollowUps(redoing) => (false, Some(redoing)),
        };
        let mut results: Vec<Option<IntakeItem>> = items.iter().map(|_| None).collect();
        // Sealing is CPU work of some milliseconds a chunk, and must not hold a transaction open.
        let epoch = self.sealing_epoch().await?;
        let subjects = match self.ring().subject_keys(ctx.customer, epoch.number) {
            // We stood still since, and it was turned over and destroyed meanwhile.
            Err(StoreError::NoEpochKey(_)) => return Ok(None),
            subjects => subjects?,
        };
        let mut prepared = self.prepare(ctx, items, (&epoch, &subjects), &mut results)?;
        let mut tx = self.customer_tx(ctx.customer).await?;
        let mut known = look(&mut tx, ctx.customer, &prepared).await?;
        if known.epoch != i64::from(epoch.number) {
            // A newer epoch began: nothing is sealed under an older one any more (I7).
            drop(tx);
            self.refresh_keys().await?;
            return Ok(None);
        }
        if known.generation != ctx.topology.generation {
            return Err(StoreError::WrongState("systems changed meanwhile".to_owned()));
        }
        if known.agreement != Some(i64::from(ctx.agreement.version)) {
            return Err(StoreError::AgreementChanged);
        }
        if let Some(redoing) = redoing {
            redoing.hold(&mut tx).await?;
        }
        self.drop_repeated(ctx.customer, items, std::mem::take(&mut known.requests), &mut prepared, &mut results);
        // Only while an earlier epoch is turned over.
        if subjects.has_earlier() {
            carry_over(&mut tx, ctx.customer, &subjects, &named(&prepared)).await?;
            // Always: what was restricted by an old name when we looked may have been covered anew by another since.
            known.restrictions = restrictions(&mut tx, ctx.customer, &prepared).await?;
        }
        if let Some(redoing) = redoing {
            put_off_behind_open(&mut tx, ctx.customer, &mut prepared, &mut results).await?;
            let overtaken = redoing.overtaken(&mut tx, ctx.customer, &prepared).await?;
            put_off(&mut prepared, &mut results, |p| overtaken.contains(&p.id));
        }
        let restricted = await_customer_where_restricted(&known.restrictions, &mut prepared);
        let requests = insert_requests(ctx, changes::seq(&tx), &prepared)?;
        let started = prepared.iter().filter(|p| p.state == RequestState::InProgress);
        let insertions: Vec<Insertion<'_>> = started
            .map(|p| Insertion { id: p.id, action: p.request.action, tasks: &p.tasks, pseudonyms: &p.pseudonyms })
            .collect();
        let generation = ctx.topology.generation;
        let planned = insert_tasks(&mut tx, ctx.customer, ctx.now, generation, &insertions, vec![requests]).await?;
        if let Some(redoing) = redoing {
            // An instruction about the person came meanwhile. It is open, or done by now.
            let behind = prepared.iter().any(|p| p.comes_alone() && planned.behind.contains(&p.id));
            if behind || !redoing.overtaken(&mut tx, ctx.customer, &prepared).await?.is_empty() {
                return Ok(None);
            }
        }
        let mut staging = Staging::new(ctx.customer);
        for p in &prepared {
            stage(&mut staging, ctx, p);
        }
        let mut writes = planned.writes;
        writes.extend(staging.parts());
        // Nearly every chunk is of erasures for subjects whom nothing restricts: then there is nothing to mark.
        let marks = restricted != Restricted::No || prepared.iter().any(Prepared::changes_restrictions);
        // Who restricted our subjects after we looked was before us in their lines, and may be done by now, so that nobody stands behind it. So all
        // look once more, now that whoever comes stands behind us: with the last writes, or before the chunk's own marks.
        let beside = if marks { Vec::new() } else { std::mem::take(&mut writes) };
        let standing = tx.fetch_with(restrictions_part(ctx.customer, &prepared), beside).await?;
        let now_restricted = await_customer_where_restricted(&grounds(&standing)?, &mut prepared);
        if now_restricted == Restricted::Waits || (now_restricted == Restricted::Noted && !marks) {
            return Ok(None);
        }
        if marks {
            let started: Vec<_> = prepared.iter().filter(|p| p.state == RequestState::InProgress).collect();
            let marked: Vec<_> = started.iter().map(|p| (p.id, &p.request, p.pseudonyms.as_slice())).collect();
            mark_restrictions(&mut tx, ctx.customer, &marked).await?;
            let mut renames = Renames::default();
            started.iter().for_each(|p| renames.add(p));
            restrict_new_names(&mut tx, ctx.customer, &renames).await?;
        }
        tx.execute_together(writes).await?;
        for p in &prepared {
            results[p.at] = Some(Ok(Taken::Created(p.id)));
        }
        let results: Vec<_> = results.into_iter().map(|r| r.unwrap_or(Err(UNANSWERED))).collect();
        let read = match (results.last(), prepared.last()) {
            (Some(Ok(Taken::Created(_))), Some(last)) if read => Some(as_written(ctx, last, &planned.held_back)?),
            (Some(Ok(Taken::Repeated(id))), _) if read => Some(read_with_tasks(&mut tx, ctx.customer, *id).await?),
            _ => None,
        };
        if let Some(redoing) = redoing {
            redoing.note(&mut tx, ctx.customer, &results).await?;
        }
        tx.commit().await?;
        self.grown(prepared.iter().map(|p| p.tasks.len()).sum()).await;
        Ok(Some((results, read)))
    }

    fn prepare(
        &self,
        ctx: &IntakeContext<'_>,
        items: &[Intake],
        (epoch, subjects): (&EpochKey, &SubjectKeys),
        results: &mut [Option<IntakeItem>],
    ) -> StoreResult<Vec<Prepared>> {
        let zone = window::zone(&ctx.agreement.time_zone).map_err(|e| StoreError::Refused(e.to_string()))?;
        let all = ctx.topology.facts_for(ctx.customer);
        // Most name nobody to be told.
        let own = concerned(&all, &[], None);
        // Most of a chunk asks for the same with the same kinds of identifier: planned and dated once.
        let mut plans: HashMap<PlanKey, Result<Vec<PlannedTask>, PlanError>> = HashMap::new();
        let mut dues: HashMap<Option<Timestamp>, Timestamp> = HashMap::new();
        let mut prepared = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let request = &item.request;
            let due = match dues.get(&request.controller_due_at) {
                Some(due) => *due,
                None => {
                    let due = window::due_at(ctx.now, ctx.agreement.window_days, &zone, request.controller_due_at)
                        .map_err(|e| StoreError::Refused(e.to_string()))?;
                    *dues.entry(request.controller_due_at).or_insert(due)
                }
            };
            let secrets = SubjectSecrets::of(request, item.referred.clone(), random());
            let kinds: BTreeSet<_> = secrets.identifiers.iter().map(|i| i.kind()).collect();
            let only = request.follow_up.as_ref().map(|f| &f.system);
            let systems: Cow<'_, [SystemFacts]> = match (request.notices.as_slice(), only) {
                ([], None) => Cow::Borrowed(&own),
                (notices, only) => Cow::Owned(concerned(&all, notices, only)),
            };
            let planned = plans
                .entry((request.action, kinds.clone(), due, request.notices.clone(), only.cloned()))
                .or_insert_with(|| plan(request.action, &kinds, &systems, due));
            let mut tasks = match planned {
                Ok(tasks) => tasks.clone(),
                Err(e) => {
                    results[at] = Some(Err(refusal(*e)));
                    continue;
                }
            };
            carry_after_named(&mut tasks, &systems, &request.identifier_changes);
            let id = RequestId::new(Uuid::now_v7());
            let (key, wrapped) = RequestKey::generate(epoch, ctx.customer, id, KeyOf::Request)?;
            prepared.push(Prepared {
                at,
                id,
                idempotency: item.idempotency,
                state: if item.referred.is_some() { RequestState::AwaitingCustomer } else { RequestState::InProgress },
                referred: item.referred.is_some(),
                follows: None,
                mac: key.content_mac(&Said::of(item).content()),
                sealed: secrets.seal(&key)?,
                commitment: subject_commitment(&secrets.commitment_salt, secrets.instructed()),
                pseudonyms: secrets.names().map(|i| subjects.of(i)).collect::<StoreResult<_>>()?,
                renamed: subjects.renamed(&request.identifier_changes)?,
                request: request.clone(),
                key: wrapped,
                due,
                tasks,
            });
        }
        Ok(prepared)
    }

    /// Answers what was taken in before, or stands in the chunk twice, and leaves the rest in `prepared`.
    fn drop_repeated(
        &self,
        customer: &CustomerId,
        items: &[Intake],
        requests: Vec<KnownRequest>,
        prepared: &mut Vec<Prepared>,
        results: &mut [Option<IntakeItem>],
    ) {
        let known: HashMap<_, _> = requests.into_iter().map(|known| (known.idempotency, known)).collect();
        let mut seen: HashMap<IdempotencyId, (RequestId, Vec<u8>)> = HashMap::new();
        prepared.retain(|p| {
            let said = Said::of(&items[p.at]);
            if let Some(known) = known.get(&p.idempotency.uuid()) {
                results[p.at] = Some(self.repetition(customer, known, &said));
                return false;
            }
            let content = said.content();
            match seen.get(&p.idempotency) {
                None => {
                    seen.insert(p.idempotency, (p.id, content));
                    true
                }
                Some((id, first)) => {
                    let same = *first == content;
                    results[p.at] =
                        Some(if same { Ok(Taken::Repeated(*id)) } else { Err(StoreError::RequestIdReused) });
                    false
                }
            }
        });
    }

    fn repetition(&self, customer: &CustomerId, known: &KnownRequest, said: &Said<'_>) -> IntakeItem {
        let Some(wrapped) = &known.wrapped else {
            // The id of a replay's follow-up is derived from what it says. Anybody else's names nothing but itself: what came with it is
            // gone, and to call another instruction a repetition would tell of a deletion that nobody did (I5).
            let derived = said.request.follow_up.is_some();
            return if derived { Ok(Taken::Repeated(known.id)) } else { Err(StoreError::RequestIdForgotten) };
        };
        let key = RequestKey::unwrap(self.ring(), customer, known.id, wrapped)?;
        let same = key.content_mac(&said.content()) == known.mac;
        if same { Ok(Taken::Repeated(known.id)) } else { Err(StoreError::RequestIdReused) }
    }

    /// For what would be refused today: whether it was taken in before, under its `request_id`. Then it was not refused (I2), whatever has
    /// changed since. `None`: it was not.
    pub async fn repeated(
        &self,
        customer: &CustomerId,
        refused: &[(IdempotencyId, Said<'_>)],
    ) -> StoreResult<Vec<Option<IntakeItem>>> {
        let mut tx = self.customer_read(customer).await?;
        let mut known = HashMap::new();
        for row in tx.fetch_together(vec![known_part(customer, refused.iter().map(|(id, _)| *id))]).await? {
            let request = KnownRequest::read(&row)?;
            known.insert(request.idempotency, request);
        }
        let answer = |(id, said): &(IdempotencyId, Said<'_>)| {
            known.get(&id.uuid()).map(|known| self.repetition(customer, known, said))
        };
        Ok(refused.iter().map(answer).collect())
    }
}

/// Everybody whom they are about, under old names and new.
pub(crate) fn named(prepared: &[Prepared]) -> BTreeSet<Vec<u8>> {
    let renamed = prepared.iter().flat_map(|p| &p.renamed).flat_map(|(old, new)| [old, new]);
    prepared.iter().flat_map(|p| &p.pseudonyms).chain(renamed).cloned().collect()
}

/// Leaves out what comes alone and would not.
async fn put_off_behind_open(
    tx: &mut Tx,
    customer: &CustomerId,
    prepared: &mut Vec<Prepared>,
    results: &mut [Option<IntakeItem>],
) -> StoreResult<()> {
    let asked: BTreeSet<&Vec<u8>> = prepared.iter().filter(|p| p.comes_alone()).flat_map(|p| &p.pseudonyms).collect();
    forget_left_heads(tx, customer, asked.iter().map(|name| (*name).clone())).await?;
    let rows = tx
        .fetch_rows(
            "WITH v(pseudonym) AS ({rows}) SELECT h.pseudonym FROM v
             JOIN subject_heads h ON h.customer_id = $1 AND h.pseudonym = v.pseudonym",
            vec![customer.as_str().into()],
            Rows::new(vec![Column::bytes(asked.into_iter().cloned())]),
        )
        .await?;
    let mut open = rows.iter().map(|row| row.bytes(0)).collect::<Result<HashSet<Vec<u8>>, _>>()?;
    put_off(prepared, results, |p| {
        let waits = p.comes_alone() && p.pseudonyms.iter().any(|pseudonym| open.contains(pseudonym));
        if !waits {
            // Those of this chunk come before it, too.
            open.extend(p.pseudonyms.iter().cloned());
        }
        waits
    });
    Ok(())
}

/// Leaves out those that are looked at again later.
fn put_off(
    prepared: &mut Vec<Prepared>,
    results: &mut [Option<IntakeItem>],
    mut is_later: impl FnMut(&Prepared) -> bool,
) {
    prepared.retain(|p| {
        let later = is_later(p);
        if later {
            results[p.at] = Some(Err(StoreError::SubjectBusy));
        }
        !later
    });
}

pub(crate) fn refusal(error: PlanError) -> StoreError {
    StoreError::Refused(match error {
        PlanError::NoSystems => "NO_SYSTEMS".to_owned(),
        PlanError::NoUsableIdentifier => "NO_USABLE_IDENTIFIER".to_owned(),
    })
}

/// What stands against a chunk's erasures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restricted {
    No,
    /// There are restrictions, and none keeps anybody's data from being erased.
    Noted,
    /// One waits now that did not before.
    Waits,
}

/// The grounds of the restrictions that stand, by pseudonym.
pub(crate) type Restrictions = HashMap<Vec<u8>, Vec<String>>;

/// A request that was taken in before under one of the chunk's ids.
struct KnownRequest {
    idempotency: Uuid,
    id: RequestId,
    mac: Vec<u8>,
    wrapped: Option<WrappedKey>,
}

impl KnownRequest {
    /// A row of [`known_part`].
    fn read(row: &Row) -> StoreResult<Self> {
        Ok(Self {
            idempotency: row.uuid(2)?,
            id: RequestId::new(row.uuid(3)?),
            mac: row.bytes(4)?,
            wrapped: WrappedKey::read(&row.text(5)?, row.bytes(6)?)?,
        })
    }
}

fn known_part(customer: &CustomerId, ids: impl Iterator<Item = IdempotencyId>) -> Part {
    Part::new(
        "WITH v(idempotency_id) AS ({rows})
         SELECT 'request', CAST(0 AS BIGINT), r.idempotency_id, r.request_id, r.content_mac, r.key_epoch, r.wrapped_key
         FROM v JOIN requests r ON r.customer_id = $1 AND r.idempotency_id = v.idempotency_id",
        vec![customer.as_str().into()],
        Rows::new(vec![Column::uuids(ids.map(IdempotencyId::uuid))]),
    )
}

/// What there is already that a chunk depends on.
struct Known {
    /// Both held until the transaction ends.
    generation: i64,
    epoch: i64,
    /// The version in force.
    agreement: Option<i64>,
    requests: Vec<KnownRequest>,
    restrictions: Restrictions,
}

/// One round trip: these need nothing of each other.
async fn look(tx: &mut Tx, customer: &CustomerId, prepared: &[Prepared]) -> StoreResult<Known> {
    let known = known_part(customer, prepared.iter().map(|p| p.idempotency));
    let generation = format!(
        "WITH g AS ({}) SELECT 'generation', g.systems_generation, NULL, NULL, NULL, CAST(g.key_epoch AS TEXT), NULL FROM g",
        held_generation(tx.engine())
    );
    let in_force = Part::plain(
        "SELECT 'agreement', c.agreement_version, NULL, NULL, NULL, NULL, NULL FROM customers c WHERE c.customer_id = $1",
        vec![customer.as_str().into()],
    );
    let parts = vec![known, restrictions_part(customer, prepared), Part::plain(generation, vec![]), in_force];
    let (mut requests, mut restrictions, mut held, mut agreement) = (Vec::new(), Restrictions::new(), None, None);
    for row in tx.fetch_together(parts).await? {
        match row.text(0)?.as_str() {
            "request" => requests.push(KnownRequest::read(&row)?),
            "restriction" => restrictions.entry(row.bytes(4)?).or_default().push(row.text(5)?),
            "agreement" => agreement = Some(row.i64(1)?),
            _ => held = Some((row.i64(1)?, row.text(5)?)),
        }
    }
    let (generation, epoch) = held.ok_or(NO_GENERATION)?;
    let epoch = epoch.parse();
    let epoch =
        epoch.map_err(|_| StoreError::Inconsistent { table: "deployment", what: "an epoch is not a number" })?;
    Ok(Known { generation, epoch, agreement, requests, restrictions })
}

/// What restricts the subjects of the erasures among them, under the names that they have had in this chunk, too: what stands under an old
/// one is noted under the new one only when the change is taken in.
pub(crate) async fn restrictions(
    tx: &mut Tx,
    customer: &CustomerId,
    prepared: &[Prepared],
) -> StoreResult<Restrictions> {
    grounds(&tx.fetch_together(vec![restrictions_part(customer, prepared)]).await?)
}

/// Rows of [`restrictions_part`].
pub(crate) fn grounds(rows: &[Row]) -> StoreResult<Restrictions> {
    let mut found = Restrictions::new();
    for row in rows {
        found.entry(row.bytes(4)?).or_default().push(row.text(5)?);
    }
    Ok(found)
}

pub(crate) fn restrictions_part(customer: &CustomerId, prepared: &[Prepared]) -> Part {
    let (mut renames, mut pseudonyms) = (Renames::default(), BTreeSet::new());
    for p in prepared {
        if p.request.action == Action::Erasure {
            pseudonyms.extend(renames.and_before(&p.pseudonyms));
        }
        renames.add(p);
    }
    Part::new(
        "WITH v(pseudonym) AS ({rows})
         SELECT 'restriction', CAST(0 AS BIGINT), NULL, NULL, v.pseudonym, r.ground, NULL
         FROM v JOIN restrictions r ON r.customer_id = $1 AND r.pseudonym = v.pseudonym",
        vec![customer.as_str().into()],
        Rows::new(vec![Column::bytes(pseudonyms.into_iter().map(<[u8]>::to_vec))]),
    )
}

/// An erasure waits for the customer where the subject had asked for its data to be kept (Art. 18(1)(b), (c)).
pub(crate) fn await_customer_where_restricted(restrictions: &Restrictions, prepared: &mut [Prepared]) -> Restricted {
    // Before it in the same chunk is before it, too.
    let (mut restricted_here, mut renames): (HashSet<Vec<u8>>, _) = (HashSet::new(), Renames::default());
    let (mut noted, mut waits) = (false, false);
    for p in prepared.iter_mut().filter(|p| p.state == RequestState::InProgress) {
        if p.request.restriction_ground.is_some_and(RestrictionGround::blocks_erasure) {
            restricted_here.extend(p.pseudonyms.iter().cloned());
        }
        if p.request.action == Action::Erasure {
            let names = renames.and_before(&p.pseudonyms);
            let standing: Vec<&String> = names.iter().filter_map(|name| restrictions.get(*name)).flatten().collect();
            noted |= !standing.is_empty();
            let blocks =
                |ground: &String| RestrictionGround::parse(ground).is_none_or(RestrictionGround::blocks_erasure);
            if standing.into_iter().any(blocks) || names.iter().any(|name| restricted_here.contains(*name)) {
                p.state = RequestState::AwaitingCustomer;
                waits = true;
            }
        }
        renames.add(p);
    }
    match (waits, noted) {
        (true, _) => Restricted::Waits,
        (false, true) => Restricted::Noted,
        (false, false) => Restricted::No,
    }
}

/// A restriction stands from its instruction on; the first lifting or erasure behind it is noted on it, and ends it when it is done. Were it a
/// later one, which may yet be taken back, nobody would end it.
pub(crate) async fn mark_restrictions(
    tx: &mut Tx,
    customer: &CustomerId,
    requests: &[(RequestId, &NewRequest, &[Vec<u8>])],
) -> StoreResult<()> {
    let mut new: Vec<(RequestId, &[u8], RestrictionGround, Option<Uuid>)> = Vec::new();
    let mut ending: BTreeMap<&[u8], Uuid> = BTreeMap::new();
    for (id, request, pseudonyms) in requests {
        for pseudonym in *pseudonyms {
            match (request.action, request.restriction_ground) {
                (Action::Restriction, Some(ground)) => new.push((*id, pseudonym.as_slice(), ground, None)),
                (Action::LiftRestriction | Action::Erasure, _) => {
                    // It ends what was instructed before it, in this chunk too, and nothing that comes after.
                    let before = new.iter_mut().filter(|n| n.1 == pseudonym.as_slice());
                    before.for_each(|n| n.3 = n.3.or(Some(id.uuid())));
                    ending.entry(pseudonym).or_insert(id.uuid());
                }
                _ => {}
            }
        }
    }
    tx.execute_rows(
        // Those that have one are written, too: whoever takes that one back meanwhile is waited for, or waits for us.
        "WITH v(request_id, pseudonym) AS ({rows})
         UPDATE restrictions SET ended_by_request_id = CASE WHEN EXISTS (SELECT 1 FROM requests r WHERE r.customer_id = $1
             AND r.request_id = restrictions.ended_by_request_id AND r.closed_us IS NULL)
           THEN restrictions.ended_by_request_id ELSE v.request_id END FROM v
         WHERE restrictions.customer_id = $1 AND restrictions.pseudonym = v.pseudonym",
        vec![customer.as_str().into()],
        Rows::new(vec![Column::uuids(ending.values().copied()), Column::bytes(ending.keys().map(|p| p.to_vec()))]),
    )
    .await?;
    tx.execute_rows(
        "WITH v(request_id, pseudonym, ground, ended_by) AS ({rows})
         INSERT INTO restrictions (customer_id, pseudonym, request_id, ground, ended_by_request_id)
         SELECT $1, pseudonym, request_id, ground, ended_by FROM v WHERE true ON CONFLICT DO NOTHING",
        vec![customer.as_str().into()],
        Rows::new(vec![
            Column::uuids(new.iter().map(|n| n.0.uuid())),
            Column::bytes(new.iter().map(|n| n.1.to_vec())),
            Column::texts(new.iter().map(|n| n.2.as_str())),
            Column::Uuid(new.iter().map(|n| n.3).collect()),
        ]),
    )
    .await?;
    Ok(())
}

/// A restriction stands under the subject's new name as well, or an erasure by that name would not see it. Noted when the change is
/// instructed: until it is done, the customer is asked once too often rather than not at all. What the chunk itself brings is marked before.
pub(crate) async fn restrict_new_names(tx: &mut Tx, customer: &CustomerId, renames: &Renames<'_>) -> StoreResult<()> {
    let renames: Vec<_> = renames.all().collect();
    if tx.engine() == Engine::Postgres {
        // Whoever is ending one of them holds the request that ends it: it is ended before we copy, or sees our copy.
        let enders = "WITH v(was) AS ({rows}) SELECT r.request_id FROM requests r WHERE r.customer_id = $1 AND r.request_id IN (
                        SELECT s.ended_by_request_id FROM v JOIN restrictions s ON s.customer_id = $1 AND s.pseudonym = v.was)
                      ORDER BY r.request_id FOR SHARE OF r";
        let was: BTreeSet<&[u8]> = renames.iter().map(|rename| rename.was).collect();
        let was = Rows::new(vec![Column::bytes(was.into_iter().map(<[u8]>::to_vec))]);
        tx.fetch_rows(enders, vec![customer.as_str().into()], was).await?;
    }
    tx.execute_rows(
        // What was instructed after the end is not ended: its id is a later one.
        "WITH v(was, becomes, ended_by) AS ({rows})
         INSERT INTO restrictions (customer_id, pseudonym, request_id, ground, ended_by_request_id)
         SELECT $1, v.becomes, r.request_id, r.ground,
                COALESCE(r.ended_by_request_id, CASE WHEN r.request_id < v.ended_by THEN v.ended_by END)
         FROM v JOIN restrictions r ON r.customer_id = $1 AND r.pseudonym = v.was WHERE true ON CONFLICT DO NOTHING",
        vec![customer.as_str().into()],
        Rows::new(vec![
            Column::bytes(renames.iter().map(|rename| rename.was.to_vec())),
            Column::bytes(renames.iter().map(|rename| rename.becomes.to_vec())),
            Column::Uuid(renames.iter().map(|rename| rename.ended_by).collect()),
        ]),
    )
    .await?;
    Ok(())
}

pub(crate) fn insert_requests(ctx: &IntakeContext<'_>, seq: &str, prepared: &[Prepared]) -> StoreResult<Part> {
    let opt_us = |t: Option<Timestamp>| t.map(us);
    let p = prepared;
    let changes = p.iter().map(|p| {
        let named: Vec<_> = p.request.identifier_changes.iter().map(ChangedIdentifier::of).collect();
        list_text(&named)
    });
    let changes: Vec<String> = changes.collect::<StoreResult<_>>()?;
    let notices: Vec<String> = p.iter().map(|p| list_text(&p.request.notices)).collect::<StoreResult<_>>()?;
    let open = |p: &Prepared| if p.state == RequestState::InProgress { p.tasks.len() } else { 0 };
    let rows = Rows::new(vec![
        Column::uuids(p.iter().map(|p| p.id.uuid())),
        Column::uuids(p.iter().map(|p| p.idempotency.uuid())),
        Column::bytes(p.iter().map(|p| p.mac.clone())),
        Column::texts(p.iter().map(|p| p.request.action.as_str())),
        Column::texts(p.iter().map(|p| p.state.as_str())),
        Column::texts(p.iter().map(|p| p.request.instruction.as_str())),
        Column::texts(p.iter().map(|p| p.request.reference.clone())),
        Column::Text(p.iter().map(|p| p.request.restriction_ground.map(|g| g.as_str().to_owned())).collect()),
        Column::texts(p.iter().map(|p| p.key.epoch.to_string())),
        Column::bytes(p.iter().map(|p| p.key.wrapped.clone())),
        Column::bytes(p.iter().map(|p| p.sealed.clone())),
        Column::i64s(p.iter().map(|p| i64::try_from(open(p)).unwrap_or(i64::MAX))),
        Column::i64s(p.iter().map(|p| us(p.due))),
        Column::I64(p.iter().map(|p| opt_us(p.request.subject_asked_at)).collect()),
        Column::I64(p.iter().map(|p| opt_us(p.request.subject_informed_at)).collect()),
        Column::I64(p.iter().map(|p| opt_us(p.request.controller_due_at)).collect()),
        Column::texts(changes),
        Column::texts(notices),
        Column::Uuid(p.iter().map(|p| p.request.follow_up.as_ref().map(|f| f.follows.uuid())).collect()),
        Column::Text(p.iter().map(|p| p.request.follow_up.as_ref().map(|f| f.system.to_string())).collect()),
        Column::Uuid(p.iter().map(|p| p.request.follow_up.as_ref().map(|f| f.replay.uuid())).collect()),
        Column::Uuid(p.iter().map(|p| p.follows.map(RequestId::uuid)).collect()),
    ]);
    let sql = format!(
        "WITH v(request_id, idempotency_id, content_mac, action, state, instruction, reference, ground, key_epoch, wrapped_key,
                sealed_subject, open_tasks, due_us, asked_us, informed_us, controller_due_us, identifier_changes,
                notices, repeats, only_system, replay_id, follows) AS ({{rows}})
         INSERT INTO requests (customer_id, request_id, idempotency_id, content_mac, action, state, instruction, reference,
                restriction_ground, key_epoch, wrapped_key, sealed_subject, agreement_version, systems_generation, open_tasks,
                exceptions, created_us, changed_us, first_due_us, due_us, subject_asked_us, subject_informed_us,
                controller_due_us, identifier_changes, notices, repeats_request_id, only_system, replay_id, follows_request_id, changed_seq)
         SELECT $1, request_id, idempotency_id, content_mac, action, state, instruction, reference, ground, key_epoch,
                wrapped_key, sealed_subject, $2, $3, open_tasks, 0, $4, $4, due_us, due_us, asked_us, informed_us,
                controller_due_us, identifier_changes, notices, repeats, only_system, replay_id, follows, {seq}
         FROM v"
    );
    let args = vec![
        ctx.customer.as_str().into(),
        Val::from(ctx.agreement.version),
        ctx.topology.generation.into(),
        us(ctx.now).into(),
    ];
    Ok(Part::new(sql, args, rows))
}

/// What was just written, as it would be read.
fn as_written(
    ctx: &IntakeContext<'_>,
    p: &Prepared,
    held_back: &HashSet<(RequestId, SystemId)>,
) -> StoreResult<(RequestRow, Vec<TaskRow>)> {
    // Times are kept in microseconds.
    let stored = |at: Timestamp| time(us(at), "requests");
    let opt_stored = |at: Option<Timestamp>| at.map(stored).transpose();
    let r = &p.request;
    let (now, due) = (stored(ctx.now)?, stored(p.due)?);
    let request = RequestRow {
        id: p.id,
        action: r.action,
        state: p.state,
        instruction: r.instruction,
        reference: r.reference.clone(),
        restriction_ground: r.restriction_ground,
        agreement_version: i64::from(ctx.agreement.version),
        created_at: now,
        changed_at: now,
        first_due_at: due,
        due_at: due,
        subject_asked_at: opt_stored(r.subject_asked_at)?,
        subject_informed_at: opt_stored(r.subject_informed_at)?,
        controller_due_at: opt_stored(r.controller_due_at)?,
        closed_at: None,
        closing_reason: None,
        objection: None,
        identifier_changes: r.identifier_changes.iter().map(ChangedIdentifier::of).collect(),
        notices: r.notices.clone(),
        forgotten_at: None,
        follow_up: r.follow_up.clone(),
        follows: p.follows,
    };
    let started = if p.state == RequestState::InProgress { p.tasks.as_slice() } else { &[] };
    let mut tasks = Vec::with_capacity(started.len());
    for task in started {
        let held = held_back.contains(&(p.id, task.system.clone()));
        tasks.push(TaskRow {
            system: task.system.clone(),
            state: if held { TaskState::Waiting } else { task.state },
            attempts: 0,
            reason: task.reason.unwrap_or_default().to_owned(),
            run_at: now,
            latest_start_at: opt_stored(task.latest_start)?,
            confirmation: None,
        });
    }
    tasks.sort_by(|a, b| a.system.cmp(&b.system));
    Ok((request, tasks))
}

pub(crate) fn stage(staging: &mut Staging, ctx: &IntakeContext<'_>, p: &Prepared) {
    staging.add(
        p.id,
        &Event::Instructed {
            action: p.request.action,
            instruction: p.request.instruction,
            subject: p.commitment,
            by: ctx.by.to_owned(),
            referred: p.referred,
            received_us: us(ctx.now),
            first_due_us: us(p.due),
            agreement: ctx.agreement.version,
            reference: p.request.reference.clone(),
            restriction_ground: p.request.restriction_ground,
            subject_asked_us: p.request.subject_asked_at.map(us),
            subject_informed_us: p.request.subject_informed_at.map(us),
            controller_due_us: p.request.controller_due_at.map(us),
            follow_up: p.request.follow_up.as_ref().map(|f| FollowedUp {
                follows: f.follows,
                system: f.system.clone(),
                replay: f.replay,
            }),
            follows: p.follows,
        },
    );
    if p.state == RequestState::InProgress {
        staging.add(p.id, &planned_event(&p.tasks, ctx.now));
    }
}

pub(crate) fn planned_event(tasks: &[PlannedTask], now: Timestamp) -> Event {
    let systems: BTreeMap<&SystemId, u32> = tasks.iter().map(|t| (&t.system, t.map_version)).collect();
    let systems = systems.into_iter().map(|(s, v)| PlannedSystem { system: s.clone(), map_version: v }).collect();
    Event::Planned { at_us: us(now), systems }
}
