//! What was matched becomes requests: each carries out again, at the restored system alone, what an earlier one had instructed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aws_lc_rs::digest;
use quittance_domain::{
    Timestamp,
    action::{Action, InstructionKind, RestrictionGround},
    identifier::Identifier,
    ids::{CustomerId, IdempotencyId, ReplayId, RequestId},
    request::{FollowUp, IDENTIFIERS_MAX, NewRequest},
};
use quittance_sql::{Column, Engine, Rows, Tx};
use uuid::Uuid;

use super::{
    ReplayLease, ReplayRow,
    matching::{PastOf, open, past_of},
};
use crate::{
    Intake, IntakeContext, Store, StoreError, StoreResult, Taken,
    intake::{IntakeItem, Prepared, Purpose},
    suppression_keys::SuppressionPseudonyms,
    tx::{opt_time, parsed, us},
};

/// A row of `replay_matches`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct MatchKey {
    what: String,
    follows: Uuid,
    id: Vec<u8>,
}

/// Requests to be taken in, with the matches that each comes of.
#[derive(Default)]
pub struct FollowUps {
    pub intakes: Vec<Intake>,
    /// How many matches were looked at; none: there is nothing left that is due.
    pub looked_at: usize,
    matches: Vec<Vec<MatchKey>>,
}

/// What a follow-up takes over from the request that had instructed it.
struct Original {
    instruction: InstructionKind,
    ground: Option<RestrictionGround>,
    subject_informed_at: Option<Timestamp>,
    reference: String,
}

impl Store {
    /// The next follow-ups of a customer, of so many matches at most. The net state is looked up anew: it may have changed since the match.
    pub async fn next_follow_ups(
        &self,
        lease: &ReplayLease,
        customer: &CustomerId,
        matches_max: u32,
        now: Timestamp,
    ) -> StoreResult<FollowUps> {
        let replay = &lease.replay;
        let mut tx = self.customer_tx(customer).await?;
        let sql = "SELECT what, follows_request_id, match_id, sealed FROM replay_matches
                   WHERE customer_id = $1 AND replay_id = $2 AND state = 'OPEN' AND run_at_us <= $3
                   ORDER BY follows_request_id, match_id LIMIT $4";
        let args = vec![customer.as_str().into(), replay.id.uuid().into(), us(now).into(), matches_max.into()];
        let rows = tx.fetch(sql, args).await?;
        if rows.is_empty() {
            return Ok(FollowUps::default());
        }
        let key = self.share_key(&mut tx, customer, replay.id).await?;
        let (mut matches, mut identifiers) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for row in &rows {
            identifiers.push(open(&key, &row.bytes(3)?)?);
            matches.push(MatchKey { what: row.text(0)?, follows: row.uuid(1)?, id: row.bytes(2)? });
        }
        let pseudonyms = self.inner.suppression_keys.pseudonyms(customer, &replay.system);
        let past = past_of(&mut tx, customer, &replay.system, replay.id, &pseudonyms, &identifiers).await?;
        let mut groups: BTreeMap<(Action, RequestId), Vec<(MatchKey, Identifier)>> = BTreeMap::new();
        let mut nothing = Vec::new();
        for ((found, identifier), of) in matches.into_iter().zip(identifiers).zip(&past) {
            match to_do(replay, of) {
                Some(what) => groups.entry(what).or_default().push((found, identifier)),
                None => nothing.push(found),
            }
        }
        let nothing: Vec<_> = nothing.iter().map(|found| (found, None)).collect();
        mark(&mut tx, customer, replay.id, &nothing, "NOTHING").await?;
        let originals = originals(&mut tx, customer, groups.keys().map(|(_, id)| *id)).await?;
        let mut follow_ups = FollowUps { looked_at: rows.len(), ..FollowUps::default() };
        for ((action, follows), group) in groups {
            let original = originals.get(&follows).ok_or(StoreError::NotFound("the request that is followed"))?;
            for part in group.chunks(IDENTIFIERS_MAX) {
                follow_ups.intakes.push(intake(replay, action, follows, original, part));
                follow_ups.matches.push(part.iter().map(|(found, _)| found.clone()).collect());
            }
        }
        tx.commit().await?;
        Ok(follow_ups)
    }

    /// Takes them in, if the replay is still ours, and notes what became of them. Gives how many are requests now. `later`: when those are looked
    /// at again for whose person something is open, or was done since they were drafted.
    pub async fn instruct_follow_ups(
        &self,
        ctx: &IntakeContext<'_>,
        lease: &ReplayLease,
        follow_ups: &FollowUps,
        later: Timestamp,
    ) -> StoreResult<usize> {
        let pseudonyms = self.inner.suppression_keys.pseudonyms(ctx.customer, &lease.replay.system);
        let redoing = Redoing { lease, follow_ups, pseudonyms, later };
        let (taken, _) = self.take_in_at_last(ctx, &follow_ups.intakes, Purpose::FollowUps(&redoing)).await?;
        Ok(taken.iter().filter(|taken| taken.is_ok()).count())
    }
}

/// Follow-ups on their way in (`intake.rs`), under the lease of their replay.
pub(crate) struct Redoing<'a> {
    lease: &'a ReplayLease,
    follow_ups: &'a FollowUps,
    pseudonyms: SuppressionPseudonyms,
    later: Timestamp,
}

impl Redoing<'_> {
    /// Until the transaction ends, nobody cancels the replay, or takes it over.
    pub async fn hold(&self, tx: &mut Tx) -> StoreResult<()> {
        let lock = if tx.engine() == Engine::Postgres { "FOR SHARE" } else { "" };
        let sql = format!("SELECT 1 FROM replays WHERE replay_id = $1 AND epoch = $2 AND ended_us IS NULL {lock}");
        let held = tx.fetch_one(&sql, vec![self.lease.replay.id.uuid().into(), self.lease.epoch.into()]).await?;
        held.map(drop).ok_or(StoreError::LeaseLost)
    }

    /// Of those that come alone, whose net state is not what it was when they were drafted.
    pub async fn overtaken(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        prepared: &[Prepared],
    ) -> StoreResult<HashSet<RequestId>> {
        let replay = &self.lease.replay;
        let alone = prepared.iter().filter(|p| p.comes_alone());
        let (of, identifiers): (Vec<&Prepared>, Vec<Identifier>) =
            alone.flat_map(|p| p.request.identifiers.iter().map(move |identifier| (p, identifier.clone()))).unzip();
        let past = past_of(tx, customer, &replay.system, replay.id, &self.pseudonyms, &identifiers).await?;
        let is_overtaken = |(p, past): &(&Prepared, &PastOf)| {
            let drafted = p.request.follow_up.as_ref().map(|f| (p.request.action, f.follows));
            to_do(replay, past) != drafted
        };
        Ok(of.into_iter().zip(&past).filter(is_overtaken).map(|(p, _)| p.id).collect())
    }

    /// In the transaction that takes them in: a match is a request, or is still to be one.
    pub async fn note(&self, tx: &mut Tx, customer: &CustomerId, taken: &[IntakeItem]) -> StoreResult<()> {
        let (mut done, mut busy) = (Vec::new(), Vec::new());
        for (matches, taken) in self.follow_ups.matches.iter().zip(taken) {
            match taken {
                Ok(Taken::Created(id) | Taken::Repeated(id)) => {
                    done.extend(matches.iter().map(|found| (found, Some(*id))));
                }
                Err(StoreError::SubjectBusy) => busy.extend(matches),
                Err(e) => return Err(e.clone()),
            }
        }
        mark(tx, customer, self.lease.replay.id, &done, "INSTRUCTED").await?;
        put_off(tx, customer, self.lease.replay.id, &busy, self.later).await
    }
}

/// `None`: nothing any more, or it is done or under way.
fn to_do(replay: &ReplayRow, of: &PastOf) -> Option<(Action, RequestId)> {
    let (action, follows) = of.net(replay).act?;
    let last = of.past.iter().find(|p| p.request == follows).map(|p| p.confirmed_at);
    let redone = of.redone.iter().any(|p| p.action == action && Some(p.confirmed_at) >= last);
    (!redone).then_some((action, follows))
}

fn intake(
    replay: &ReplayRow,
    action: Action,
    follows: RequestId,
    original: &Original,
    part: &[(MatchKey, Identifier)],
) -> Intake {
    let mut names = digest::Context::new(&digest::SHA256);
    names.update(replay.id.uuid().as_bytes());
    names.update(follows.uuid().as_bytes());
    names.update(action.as_str().as_bytes());
    let ids: BTreeSet<&Vec<u8>> = part.iter().map(|(found, _)| &found.id).collect();
    ids.into_iter().for_each(|id| names.update(id));
    // The same matches are one request, whoever makes it and however often.
    let idempotency = names.finish().as_ref().first_chunk().copied().unwrap_or_default();
    Intake {
        idempotency: IdempotencyId::new(Uuid::from_bytes(idempotency)),
        request: NewRequest {
            restriction_ground: original.ground,
            subject_informed_at: original.subject_informed_at,
            reference: original.reference.clone(),
            instruction: original.instruction,
            follow_up: Some(FollowUp { follows, system: replay.system.clone(), replay: replay.id }),
            ..NewRequest::plain(action, part.iter().map(|(_, identifier)| identifier.clone()).collect())
        },
        referred: None,
    }
}

async fn originals(
    tx: &mut Tx,
    customer: &CustomerId,
    ids: impl Iterator<Item = RequestId>,
) -> StoreResult<HashMap<RequestId, Original>> {
    let ids: BTreeSet<Uuid> = ids.map(RequestId::uuid).collect();
    let rows = tx
        .fetch_rows(
            "WITH v(request_id) AS ({rows})
             SELECT r.request_id, r.instruction, r.restriction_ground, r.subject_informed_us, r.reference FROM v
             JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id",
            vec![customer.as_str().into()],
            Rows::new(vec![Column::uuids(ids)]),
        )
        .await?;
    let mut originals = HashMap::with_capacity(rows.len());
    for row in rows {
        let original = Original {
            instruction: parsed(&row, 1, "requests", InstructionKind::parse)?,
            ground: row.opt_text(2)?.as_deref().and_then(RestrictionGround::parse),
            subject_informed_at: opt_time(row.opt_i64(3)?, "requests")?,
            reference: row.text(4)?,
        };
        originals.insert(RequestId::new(row.uuid(0)?), original);
    }
    Ok(originals)
}

fn columns<'a>(matches: impl Iterator<Item = &'a MatchKey> + Clone) -> Vec<Column> {
    vec![
        Column::texts(matches.clone().map(|m| m.what.as_str())),
        Column::uuids(matches.clone().map(|m| m.follows)),
        Column::bytes(matches.map(|m| m.id.clone())),
    ]
}

const THESE: &str = "replay_matches.customer_id = $1 AND replay_matches.replay_id = $2 AND replay_matches.what = v.what
    AND replay_matches.follows_request_id = v.follows AND replay_matches.match_id = v.match_id AND replay_matches.state = 'OPEN'";

/// Their identifiers are those of the request beside them now, or nobody's.
async fn mark(
    tx: &mut Tx,
    customer: &CustomerId,
    replay: ReplayId,
    matches: &[(&MatchKey, Option<RequestId>)],
    state: &str,
) -> StoreResult<()> {
    let sql = format!(
        "WITH v(what, follows, match_id, follow_up) AS ({{rows}})
         UPDATE replay_matches SET state = $3, sealed = NULL, follow_up_request_id = v.follow_up FROM v WHERE {THESE}"
    );
    let mut rows = columns(matches.iter().map(|(found, _)| *found));
    rows.push(Column::Uuid(matches.iter().map(|(_, follow_up)| follow_up.map(RequestId::uuid)).collect()));
    let args = vec![customer.as_str().into(), replay.uuid().into(), state.into()];
    tx.execute_rows(&sql, args, Rows::new(rows)).await?;
    Ok(())
}

async fn put_off(
    tx: &mut Tx,
    customer: &CustomerId,
    replay: ReplayId,
    matches: &[&MatchKey],
    later: Timestamp,
) -> StoreResult<()> {
    let sql = format!(
        "WITH v(what, follows, match_id) AS ({{rows}}) UPDATE replay_matches SET run_at_us = $3 FROM v WHERE {THESE}"
    );
    let args = vec![customer.as_str().into(), replay.uuid().into(), us(later).into()];
    tx.execute_rows(&sql, args, Rows::new(columns(matches.iter().copied()))).await?;
    Ok(())
}
