//! Which of the keys that a restored system holds are those of people about whom something was instructed since.

use std::collections::{BTreeMap, HashMap, HashSet};

use quittance_domain::{
    Timestamp,
    action::Action,
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, ReplayId, RequestId, SystemId},
    replay::{Net, Past, net},
};
use quittance_sql::{Column, Rows, Tx, Val};
use uuid::Uuid;

use super::{ReplayLease, ReplayRow};
use crate::{
    Store, StoreError, StoreResult,
    epochs::hold_epoch,
    seal::{KeyOf, RequestKey, SealedColumn, WrappedKey},
    suppression::customer_id,
    suppression_keys::SuppressionPseudonyms,
    tx::{parsed, time, us},
};

/// How often a person's name may have been changed since the snapshot.
const RENAMINGS_MAX: usize = 16;

/// What was confirmed about one person.
#[derive(Default)]
pub(super) struct PastOf {
    pub past: Vec<Past>,
    /// Until when a backup may bring the data back, at the latest.
    until_us: i64,
    /// What this very replay has had done already.
    pub redone: Vec<Past>,
}

impl PastOf {
    pub fn net(&self, replay: &ReplayRow) -> Net {
        net(replay.snapshot_at, &self.past)
    }
}

/// What a pseudonym stands for among the identifiers that were asked about.
struct Search {
    /// By pseudonym: places among the identifiers.
    wanted: HashMap<Vec<u8>, Vec<usize>>,
    met: HashSet<(usize, Vec<u8>)>,
}

impl Search {
    fn want(&mut self, pseudonym: Vec<u8>, at: usize) {
        if self.met.insert((at, pseudonym.clone())) {
            self.wanted.entry(pseudonym).or_default().push(at);
        }
    }
}

/// What was confirmed about whom each of the identifiers names, under later names of theirs too.
pub(super) async fn past_of(
    tx: &mut Tx,
    customer: &CustomerId,
    system: &SystemId,
    replay: ReplayId,
    pseudonyms: &SuppressionPseudonyms,
    identifiers: &[Identifier],
) -> StoreResult<Vec<PastOf>> {
    let mut all: Vec<PastOf> = identifiers.iter().map(|_| PastOf::default()).collect();
    let mut search = Search { wanted: HashMap::new(), met: HashSet::new() };
    for (at, identifier) in identifiers.iter().enumerate() {
        pseudonyms.all(identifier).for_each(|pseudonym| search.want(pseudonym, at));
    }
    for _ in 0..RENAMINGS_MAX {
        let wanted = std::mem::take(&mut search.wanted);
        if wanted.is_empty() {
            break;
        }
        let rows = tx
            .fetch_rows(
                "WITH v(pseudonym) AS ({rows})
                 SELECT s.pseudonym, s.request_id, s.action, s.confirmed_us, s.until_us, s.renamed_to, r.replay_id FROM v
                 JOIN suppressions s ON s.customer_id = $1 AND s.system_id = $2 AND s.pseudonym = v.pseudonym
                 LEFT JOIN requests r ON r.customer_id = $1 AND r.request_id = s.request_id",
                vec![customer.as_str().into(), system.as_str().into()],
                Rows::new(vec![Column::bytes(wanted.keys().cloned())]),
            )
            .await?;
        for row in rows {
            let past = Past {
                request: RequestId::new(row.uuid(1)?),
                action: parsed(&row, 2, "suppressions", Action::parse)?,
                confirmed_at: time(row.i64(3)?, "suppressions")?,
            };
            let (until_us, renamed_to) = (row.i64(4)?, row.opt_bytes(5)?);
            let redone = row.opt_uuid(6)? == Some(replay.uuid());
            for at in wanted.get(&row.bytes(0)?).into_iter().flatten() {
                let of = &mut all[*at];
                let list = if redone { &mut of.redone } else { &mut of.past };
                if !list.contains(&past) {
                    list.push(past);
                }
                of.until_us = of.until_us.max(until_us);
                if let Some(name) = &renamed_to {
                    search.want(name.clone(), *at);
                }
            }
        }
    }
    Ok(all)
}

/// An identifier as it is sealed until it is part of a request.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored(IdentifierKind, String);

pub(super) fn seal(key: &RequestKey, identifier: &Identifier) -> StoreResult<Vec<u8>> {
    let stored = Stored(identifier.kind(), identifier.value().expose().clone());
    let broken = |_| StoreError::Inconsistent { table: "replay_matches", what: "an identifier does not serialise" };
    let plain = zeroize::Zeroizing::new(serde_json::to_vec(&stored).map_err(broken)?);
    key.seal(SealedColumn::HeldIdentifier, "", &plain)
}

pub(super) fn open(key: &RequestKey, sealed: &[u8]) -> StoreResult<Identifier> {
    let plain = zeroize::Zeroizing::new(key.open(SealedColumn::HeldIdentifier, "", sealed)?);
    let broken = |_| StoreError::Inconsistent { table: "replay_matches", what: "a sealed identifier does not parse" };
    let Stored(kind, value) = serde_json::from_slice(&plain).map_err(broken)?;
    Ok(Identifier::from_normalised(kind, value))
}

/// What becomes a row of `replay_matches`.
struct Match {
    what: Action,
    follows: RequestId,
    id: Vec<u8>,
    sealed: Option<Vec<u8>>,
    until_us: i64,
}

impl Store {
    /// Customers that something is kept of at the system: nobody else's keys matter.
    pub async fn customers_suppressed(&self, system: &SystemId) -> StoreResult<Vec<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM suppressions s
                     WHERE s.customer_id = c.customer_id AND s.system_id = $1) ORDER BY c.customer_id";
        tx.fetch(sql, vec![system.as_str().into()]).await?.iter().map(customer_id).collect()
    }

    /// The customer's part begins, or begins anew after a crash.
    pub async fn open_share(&self, customer: &CustomerId, lease: &ReplayLease) -> StoreResult<()> {
        let replay = &lease.replay;
        let epoch = self.sealing_epoch().await?;
        let (_, wrapped) = RequestKey::generate(&epoch, customer, RequestId::new(replay.id.uuid()), KeyOf::Request)?;
        let mut tx = self.customer_tx(customer).await?;
        if hold_epoch(&mut tx).await? != i64::from(epoch.number) {
            drop(tx);
            self.refresh_keys().await?;
            return Err(StoreError::WrongState("another epoch has begun".to_owned()));
        }
        tx.execute(
            "INSERT INTO replay_shares (customer_id, replay_id, key_epoch, wrapped_key, erasures, restrictions, liftings, rectifications,
               unreachable, recorded) VALUES ($1, $2, $3, $4, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING",
            vec![
                customer.as_str().into(),
                replay.id.uuid().into(),
                wrapped.epoch.to_string().into(),
                Val::Bytes(Some(wrapped.wrapped)),
            ],
        )
        .await?;
        // What no key of the system's can match is said, whatever it holds.
        tx.execute(
            "INSERT INTO replay_matches (customer_id, replay_id, what, follows_request_id, match_id, sealed, state, run_at_us,
               follow_up_request_id, until_us)
             SELECT customer_id, $2, 'UNREACHABLE', request_id, pseudonym, NULL, 'LISTED', 0, NULL, until_us FROM suppressions
             WHERE customer_id = $1 AND system_id = $3 AND pseudonym = $4 AND confirmed_us >= $5
             ON CONFLICT DO NOTHING",
            vec![
                customer.as_str().into(),
                replay.id.uuid().into(),
                replay.system.as_str().into(),
                Val::Bytes(Some(Vec::new())),
                us(replay.snapshot_at).into(),
            ],
        )
        .await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn share_key(
        &self,
        tx: &mut Tx,
        customer: &CustomerId,
        replay: ReplayId,
    ) -> StoreResult<RequestKey> {
        let sql = "SELECT key_epoch, wrapped_key FROM replay_shares WHERE customer_id = $1 AND replay_id = $2";
        let row = tx.fetch_one(sql, vec![customer.as_str().into(), replay.uuid().into()]).await?;
        let row = row.ok_or(StoreError::NotFound("the replay"))?;
        let wrapped =
            WrappedKey::read(&row.text(0)?, row.bytes(1)?)?.ok_or(StoreError::NotFound("the replay's key"))?;
        RequestKey::unwrap(self.ring(), customer, RequestId::new(replay.uuid()), &wrapped)
    }

    /// Notes what is to be done for whom the keys name. Gives how many of them were matched. The same keys again change nothing.
    pub async fn match_held(
        &self,
        lease: &ReplayLease,
        customer: &CustomerId,
        held: &[Identifier],
    ) -> StoreResult<u64> {
        let replay = &lease.replay;
        let pseudonyms = self.inner.suppression_keys.pseudonyms(customer, &replay.system);
        let mut tx = self.customer_tx(customer).await?;
        let sql = "SELECT epoch FROM replays WHERE replay_id = $1 AND state = 'MATCHING'";
        let epoch = tx.fetch_one(sql, vec![replay.id.uuid().into()]).await?.map(|row| row.i64(0)).transpose()?;
        if epoch != Some(lease.epoch) {
            return Err(StoreError::LeaseLost);
        }
        let past = past_of(&mut tx, customer, &replay.system, replay.id, &pseudonyms, held).await?;
        let mut matched = 0;
        let mut key = None;
        let mut matches: BTreeMap<(&'static str, RequestId, Vec<u8>), Match> = BTreeMap::new();
        for (identifier, of) in held.iter().zip(&past) {
            let net = of.net(replay);
            matched += u64::from(net != Net::default());
            let rectified = net.rectifications.iter().map(|follows| (Action::Rectification, *follows));
            for (what, follows) in net.act.into_iter().chain(rectified) {
                let id = pseudonyms.of(replay.generation, identifier).ok_or(StoreError::Unsealable("suppressions"))?;
                let acts = what != Action::Rectification && !replay.dry_run;
                let sealed = match (&key, acts) {
                    (_, false) => None,
                    (Some(key), true) => Some(seal(key, identifier)?),
                    (None, true) => {
                        let opened = self.share_key(&mut tx, customer, replay.id).await?;
                        let sealed = seal(&opened, identifier)?;
                        key = Some(opened);
                        Some(sealed)
                    }
                };
                let one = Match { what, follows, id: id.clone(), sealed, until_us: of.until_us };
                matches.insert((what.as_str(), follows, id), one);
            }
        }
        if !matches.is_empty() {
            let all: Vec<Match> = matches.into_values().collect();
            insert(&mut tx, customer, replay.id, &all).await?;
            tx.commit().await?;
        }
        Ok(matched)
    }

    /// All keys were seen: counts what was found. Gives the identifiers that something is to be done for.
    pub async fn count_matches(&self, customer: &CustomerId, lease: &ReplayLease) -> StoreResult<u64> {
        let replay = lease.replay.id;
        let mut tx = self.customer_tx(customer).await?;
        let sql = "SELECT what, count(DISTINCT match_id), count(DISTINCT follows_request_id) FROM replay_matches
                   WHERE customer_id = $1 AND replay_id = $2 GROUP BY what";
        let mut counts: HashMap<String, (i64, i64)> = HashMap::new();
        for row in tx.fetch(sql, vec![customer.as_str().into(), replay.uuid().into()]).await? {
            counts.insert(row.text(0)?, (row.i64(1)?, row.i64(2)?));
        }
        let of = |what: &str| counts.get(what).copied().unwrap_or_default();
        let (erasures, restrictions, liftings) = (of("ERASURE").0, of("RESTRICTION").0, of("LIFT_RESTRICTION").0);
        tx.execute(
            "UPDATE replay_shares SET erasures = $3, restrictions = $4, liftings = $5, rectifications = $6, unreachable = $7
             WHERE customer_id = $1 AND replay_id = $2",
            vec![
                customer.as_str().into(),
                replay.uuid().into(),
                erasures.into(),
                restrictions.into(),
                liftings.into(),
                of("RECTIFICATION").1.into(),
                of("UNREACHABLE").1.into(),
            ],
        )
        .await?;
        tx.commit().await?;
        Ok(super::count(erasures + restrictions + liftings))
    }

    pub(crate) async fn customers_with_old_matches(&self, now: Timestamp) -> StoreResult<Vec<CustomerId>> {
        let mut tx = self.deployment_read().await?;
        let sql = "SELECT c.customer_id FROM customers c WHERE EXISTS (SELECT 1 FROM replay_matches m
                     WHERE m.customer_id = c.customer_id AND m.until_us < $1) ORDER BY c.customer_id LIMIT 10000";
        tx.fetch(sql, vec![us(now).into()]).await?.iter().map(customer_id).collect()
    }

    /// Those of replays that have ended. They are told of no longer than the pseudonyms are kept that they came from.
    pub(crate) async fn delete_old_matches(&self, customer: &CustomerId, now: Timestamp) -> StoreResult<()> {
        let mut tx = self.customer_tx(customer).await?;
        tx.execute(
            "DELETE FROM replay_matches WHERE customer_id = $1 AND until_us < $2
               AND replay_id IN (SELECT p.replay_id FROM replays p WHERE p.recorded = 1)",
            vec![customer.as_str().into(), us(now).into()],
        )
        .await?;
        Ok(tx.commit().await?)
    }
}

async fn insert(tx: &mut Tx, customer: &CustomerId, replay: ReplayId, matches: &[Match]) -> StoreResult<()> {
    let state = |m: &Match| if m.sealed.is_some() { "OPEN" } else { "LISTED" };
    let follows: Vec<Uuid> = matches.iter().map(|m| m.follows.uuid()).collect();
    let rows = Rows::new(vec![
        Column::texts(matches.iter().map(|m| m.what.as_str())),
        Column::uuids(follows),
        Column::bytes(matches.iter().map(|m| m.id.clone())),
        Column::Bytes(matches.iter().map(|m| m.sealed.clone()).collect()),
        Column::texts(matches.iter().map(state)),
        Column::i64s(matches.iter().map(|m| m.until_us)),
    ]);
    tx.execute_rows(
        "WITH v(what, follows, match_id, sealed, state, until_us) AS ({rows})
         INSERT INTO replay_matches (customer_id, replay_id, what, follows_request_id, match_id, sealed, state, run_at_us,
           follow_up_request_id, until_us)
         SELECT $1, $2, what, follows, match_id, sealed, state, 0, NULL, until_us FROM v WHERE true ON CONFLICT DO NOTHING",
        vec![customer.as_str().into(), replay.uuid().into()],
        rows,
    )
    .await?;
    Ok(())
}
