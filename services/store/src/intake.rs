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
    window,
};
use quittance_ledger::{Event, Hex, PlannedSystem, subject_commitment};
use quittance_sql::{Column, Rows, Tx, Val};
use uuid::Uuid;

use crate::{
    Store, StoreError, StoreResult, SubjectSecrets, Topology, changes,
    keyring::random,
    ledger::Staging,
    replan::{Insertion, insert_tasks},
    requests::{ChangedIdentifier, list_text},
    seal::{RequestKey, WrappedKey},
    systems::hold_generation,
    tx::us,
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

pub type IntakeItem = Result<Taken, StoreError>;

/// What a plan depends on beside the customer's systems.
type PlanKey = (Action, BTreeSet<IdentifierKind>, Timestamp, Vec<Notice>);

struct Prepared {
    at: usize,
    id: RequestId,
    idempotency: IdempotencyId,
    request: NewRequest,
    state: RequestState,
    referred: bool,
    key: WrappedKey,
    mac: Vec<u8>,
    sealed: Vec<u8>,
    commitment: Hex<32>,
    pseudonyms: Vec<Vec<u8>>,
    renamed: Vec<(Vec<u8>, Vec<u8>)>,
    due: Timestamp,
    tasks: Vec<PlannedTask>,
}

/// What a repetition must repeat. Not stored: only its MAC under the request's key is.
fn content(intake: &Intake) -> Vec<u8> {
    let r = &intake.request;
    let identifiers: Vec<(&str, &str)> =
        r.identifiers.iter().map(|i| (i.kind().as_str(), i.value().expose().as_str())).collect();
    let parts = (
        (r.action, r.instruction, &identifiers, &r.corrections, &r.reference, &intake.referred),
        (r.restriction_ground, r.subject_informed_at, r.subject_asked_at, r.controller_due_at),
    );
    // Strings and integers only: nothing that serde_json can refuse.
    let mut content = serde_json::to_vec(&parts).unwrap_or_default();
    // Behind the rest, so that what was taken in before there were any is still the same.
    for notice in &r.notices {
        content.extend_from_slice(notice.recipient.as_str().as_bytes());
        content.push(0);
    }
    content
}

impl Store {
    /// Takes a chunk in: all that can be, in one transaction. The answer has the chunk's order; when it is there, it is durable.
    /// `StoreError::WrongState` for the whole chunk means that systems changed meanwhile: take it again with the new topology.
    pub async fn create_requests(&self, ctx: &IntakeContext<'_>, items: Vec<Intake>) -> StoreResult<Vec<IntakeItem>> {
        for _ in 1..TAKE_IN_TRIES {
            match self.take_in(ctx, &items).await {
                // The same `request_id` came at the same moment by another way, and was first: now it is known.
                Err(e) if e.is_constraint() => {}
                Ok(None) => {}
                Ok(Some(results)) => return Ok(results),
                Err(e) => return Err(e),
            }
        }
        let conflict = StoreError::Inconsistent { table: "requests", what: "a chunk meets another at every try" };
        self.take_in(ctx, &items).await?.ok_or(conflict)
    }

    /// `None`: a restriction was instructed at the same moment, and first. Nothing is taken in.
    async fn take_in(&self, ctx: &IntakeContext<'_>, items: &[Intake]) -> StoreResult<Option<Vec<IntakeItem>>> {
        let mut results: Vec<Option<IntakeItem>> = items.iter().map(|_| None).collect();
        // Sealing is CPU work of some milliseconds a chunk, and must not hold a transaction open.
        let mut prepared = self.prepare(ctx, items, &mut results)?;
        let mut tx = self.customer_tx(ctx.customer).await?;
        if hold_generation(&mut tx).await? != ctx.topology.generation {
            return Err(StoreError::WrongState("systems changed meanwhile".to_owned()));
        }
        self.drop_repeated(&mut tx, ctx.customer, items, &mut prepared, &mut results).await?;
        let restricted = await_customer_where_restricted(&mut tx, ctx.customer, &mut prepared).await?;
        insert_requests(&mut tx, ctx, &prepared).await?;
        let started = prepared.iter().filter(|p| p.state == RequestState::InProgress);
        let insertions: Vec<Insertion<'_>> = started
            .map(|p| Insertion { id: p.id, action: p.request.action, tasks: &p.tasks, pseudonyms: &p.pseudonyms })
            .collect();
        let behind = insert_tasks(&mut tx, ctx.customer, ctx.now, ctx.topology.generation, &insertions).await?;
        // What they stand behind may be a restriction that was on its way when we looked. Now that they stand there, it is committed.
        let erases = |p: &Prepared| p.request.action == Action::Erasure && behind.contains(&p.id);
        let behind_erases = prepared.iter().any(erases);
        if behind_erases
            && await_customer_where_restricted(&mut tx, ctx.customer, &mut prepared).await? == Restricted::Waits
        {
            return Ok(None);
        }
        // Nearly every chunk is of erasures for subjects whom nothing restricts: then there is nothing to mark.
        let unrestricted = restricted == Restricted::No
            && !behind_erases
            && prepared.iter().all(|p| p.request.action != Action::LiftRestriction);
        let started: Vec<_> = prepared.iter().filter(|p| p.state == RequestState::InProgress).collect();
        let marks: Vec<_> = started.iter().map(|p| (p.id, &p.request, p.pseudonyms.as_slice())).collect();
        if !unrestricted || prepared.iter().any(|p| p.request.action == Action::Restriction) {
            mark_restrictions(&mut tx, ctx.customer, &marks).await?;
        }
        let renamed: Vec<_> = started.iter().flat_map(|p| p.renamed.iter().cloned()).collect();
        restrict_new_names(&mut tx, ctx.customer, &renamed).await?;
        let mut staging = Staging::new(ctx.customer);
        for p in &prepared {
            stage(&mut staging, ctx, p);
        }
        staging.write(&mut tx).await?;
        tx.commit().await?;
        self.grown(prepared.iter().map(|p| p.tasks.len()).sum()).await;
        for p in prepared {
            results[p.at] = Some(Ok(Taken::Created(p.id)));
        }
        let unanswered = StoreError::Inconsistent { table: "requests", what: "an item was left unanswered" };
        Ok(Some(results.into_iter().map(|r| r.unwrap_or(Err(unanswered.clone()))).collect()))
    }

    fn prepare(
        &self,
        ctx: &IntakeContext<'_>,
        items: &[Intake],
        results: &mut [Option<IntakeItem>],
    ) -> StoreResult<Vec<Prepared>> {
        let zone = window::zone(&ctx.agreement.time_zone).map_err(|e| StoreError::Refused(e.to_string()))?;
        let all = ctx.topology.facts_for(ctx.customer);
        // Most name nobody to be told.
        let own = concerned(&all, &[]);
        let subject_keys = self.ring().subject_keys(ctx.customer);
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
            let systems: Cow<'_, [SystemFacts]> = match request.notices.as_slice() {
                [] => Cow::Borrowed(&own),
                notices => Cow::Owned(concerned(&all, notices)),
            };
            let planned = plans
                .entry((request.action, kinds.clone(), due, request.notices.clone()))
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
            let (key, wrapped) = RequestKey::generate(self.ring(), ctx.customer, id)?;
            prepared.push(Prepared {
                at,
                id,
                idempotency: item.idempotency,
                state: if item.referred.is_some() { RequestState::AwaitingCustomer } else { RequestState::InProgress },
                referred: item.referred.is_some(),
                mac: key.content_mac(&content(item)),
                sealed: secrets.seal(&key)?,
                commitment: subject_commitment(&secrets.commitment_salt, secrets.instructed()),
                pseudonyms: secrets.names().map(|i| subject_keys.of(i)).collect(),
                renamed: subject_keys.renamed(&request.identifier_changes),
                request: request.clone(),
                key: wrapped,
                due,
                tasks,
            });
        }
        Ok(prepared)
    }

    /// Answers what was taken in before, or stands in the chunk twice, and leaves the rest in `prepared`.
    async fn drop_repeated(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        items: &[Intake],
        prepared: &mut Vec<Prepared>,
        results: &mut [Option<IntakeItem>],
    ) -> StoreResult<()> {
        let rows = tx
            .fetch_rows(
                "WITH v(idempotency_id) AS ({rows})
                 SELECT r.idempotency_id, r.request_id, r.content_mac, r.key_epoch, r.wrapped_key
                 FROM v JOIN requests r ON r.customer_id = $1 AND r.idempotency_id = v.idempotency_id",
                vec![customer.as_str().into()],
                Rows::new(vec![Column::uuids(prepared.iter().map(|p| p.idempotency.uuid()))]),
            )
            .await?;
        let mut known = HashMap::with_capacity(rows.len());
        for row in rows {
            let id = RequestId::new(row.uuid(1)?);
            let wrapped = wrapped_key(&row.text(3)?, row.bytes(4)?)?;
            // Where the key is destroyed, the content can't be compared any more; the id alone still names the request.
            let key = RequestKey::unwrap(self.ring(), customer, id, &wrapped).ok();
            known.insert(row.uuid(0)?, (id, row.bytes(2)?, key));
        }
        let mut seen: HashMap<IdempotencyId, (RequestId, Vec<u8>)> = HashMap::new();
        prepared.retain(|p| {
            let item = &items[p.at];
            if let Some((id, mac, key)) = known.get(&p.idempotency.uuid()) {
                let same = key.as_ref().is_none_or(|key| key.content_mac(&content(item)) == *mac);
                results[p.at] = Some(if same { Ok(Taken::Repeated(*id)) } else { Err(StoreError::RequestIdReused) });
                return false;
            }
            match seen.get(&p.idempotency) {
                None => {
                    seen.insert(p.idempotency, (p.id, content(item)));
                    true
                }
                Some((id, first)) => {
                    let same = *first == content(item);
                    results[p.at] =
                        Some(if same { Ok(Taken::Repeated(*id)) } else { Err(StoreError::RequestIdReused) });
                    false
                }
            }
        });
        Ok(())
    }
}

pub(crate) fn refusal(error: PlanError) -> StoreError {
    StoreError::Refused(match error {
        PlanError::NoSystems => "NO_SYSTEMS".to_owned(),
        PlanError::NoUsableIdentifier => "NO_USABLE_IDENTIFIER".to_owned(),
    })
}

pub(crate) fn wrapped_key(epoch: &str, wrapped: Vec<u8>) -> StoreResult<WrappedKey> {
    let epoch =
        epoch.parse().map_err(|_| StoreError::Inconsistent { table: "requests", what: "an epoch is not a number" })?;
    Ok(WrappedKey { epoch, wrapped })
}

/// What stands against a chunk's erasures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Restricted {
    No,
    /// There are restrictions, and none keeps anybody's data from being erased.
    Noted,
    /// One waits now that did not before.
    Waits,
}

/// An erasure waits for the customer where the subject had asked for its data to be kept (Art. 18(1)(b), (c)).
async fn await_customer_where_restricted(
    tx: &mut Tx,
    customer: &CustomerId,
    prepared: &mut [Prepared],
) -> StoreResult<Restricted> {
    let mut owners = Vec::new();
    let mut pseudonyms = Vec::new();
    let mut restricted_here: HashSet<&Vec<u8>> = HashSet::new();
    let mut waiting: Vec<usize> = Vec::new();
    for (at, p) in prepared.iter().enumerate().filter(|(_, p)| p.state == RequestState::InProgress) {
        if p.request.restriction_ground.is_some_and(RestrictionGround::blocks_erasure) {
            // Before it in the same chunk is before it, too.
            restricted_here.extend(&p.pseudonyms);
        }
        if p.request.action == Action::Erasure {
            if p.pseudonyms.iter().any(|pseudonym| restricted_here.contains(pseudonym)) {
                waiting.push(at);
            }
            for pseudonym in &p.pseudonyms {
                owners.push(i64::try_from(at).unwrap_or(i64::MAX));
                pseudonyms.push(pseudonym.clone());
            }
        }
    }
    let rows = tx
        .fetch_rows(
            "WITH v(n, pseudonym) AS ({rows})
             SELECT v.n, r.ground FROM v JOIN restrictions r ON r.customer_id = $1 AND r.pseudonym = v.pseudonym",
            vec![customer.as_str().into()],
            Rows::new(vec![Column::i64s(owners), Column::bytes(pseudonyms)]),
        )
        .await?;
    let noted = !rows.is_empty();
    for row in rows {
        let blocks = RestrictionGround::parse(&row.text(1)?).is_none_or(RestrictionGround::blocks_erasure);
        if blocks {
            waiting.push(usize::try_from(row.i64(0)?).unwrap_or(usize::MAX));
        }
    }
    for at in &waiting {
        if let Some(p) = prepared.get_mut(*at) {
            p.state = RequestState::AwaitingCustomer;
        }
    }
    Ok(match (waiting.is_empty(), noted) {
        (false, _) => Restricted::Waits,
        (true, true) => Restricted::Noted,
        (true, false) => Restricted::No,
    })
}

/// A restriction stands from its instruction on; a lifting or an erasure is noted on it, and ends it when it is done.
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
                    new.iter_mut().filter(|n| n.1 == pseudonym.as_slice()).for_each(|n| n.3 = Some(id.uuid()));
                    ending.insert(pseudonym, id.uuid());
                }
                _ => {}
            }
        }
    }
    tx.execute_rows(
        "WITH v(request_id, pseudonym) AS ({rows}) UPDATE restrictions SET ended_by_request_id = v.request_id FROM v
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
/// instructed: until it is done, the customer is asked once too often rather than not at all.
pub(crate) async fn restrict_new_names(
    tx: &mut Tx,
    customer: &CustomerId,
    renamed: &[(Vec<u8>, Vec<u8>)],
) -> StoreResult<()> {
    tx.execute_rows(
        "WITH v(was, becomes) AS ({rows})
         INSERT INTO restrictions (customer_id, pseudonym, request_id, ground, ended_by_request_id)
         SELECT $1, v.becomes, r.request_id, r.ground, r.ended_by_request_id FROM v
         JOIN restrictions r ON r.customer_id = $1 AND r.pseudonym = v.was WHERE true ON CONFLICT DO NOTHING",
        vec![customer.as_str().into()],
        Rows::new(vec![
            Column::bytes(renamed.iter().map(|(old, _)| old.clone())),
            Column::bytes(renamed.iter().map(|(_, new)| new.clone())),
        ]),
    )
    .await?;
    Ok(())
}

async fn insert_requests(tx: &mut Tx, ctx: &IntakeContext<'_>, prepared: &[Prepared]) -> StoreResult<()> {
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
    ]);
    let sql = format!(
        "WITH v(request_id, idempotency_id, content_mac, action, state, instruction, reference, ground, key_epoch, wrapped_key,
                sealed_subject, open_tasks, due_us, asked_us, informed_us, controller_due_us, identifier_changes,
                notices) AS ({{rows}})
         INSERT INTO requests (customer_id, request_id, idempotency_id, content_mac, action, state, instruction, reference,
                restriction_ground, key_epoch, wrapped_key, sealed_subject, agreement_version, systems_generation, open_tasks,
                exceptions, created_us, changed_us, first_due_us, due_us, subject_asked_us, subject_informed_us,
                controller_due_us, identifier_changes, notices, changed_seq)
         SELECT $1, request_id, idempotency_id, content_mac, action, state, instruction, reference, ground, key_epoch,
                wrapped_key, sealed_subject, $2, $3, open_tasks, 0, $4, $4, due_us, due_us, asked_us, informed_us,
                controller_due_us, identifier_changes, notices, {}
         FROM v",
        changes::seq(tx)
    );
    tx.execute_rows(
        &sql,
        vec![
            ctx.customer.as_str().into(),
            Val::from(ctx.agreement.version),
            ctx.topology.generation.into(),
            us(ctx.now).into(),
        ],
        rows,
    )
    .await?;
    Ok(())
}

fn stage(staging: &mut Staging, ctx: &IntakeContext<'_>, p: &Prepared) {
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
