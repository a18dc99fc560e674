//! A connector to a simulated system, with all that can be wrong with one.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use quittance_connectors::{
    BatchContext, Connector, ConnectorError, Exported, Finding, Found, HeldPage, HeldPlace, MatchSet, MatchedRow,
    Record, RecordField, RowFate, Subject, SubjectError, SubjectResult,
};
use quittance_dispatch::ConnectorFactory;
use quittance_domain::{
    Timestamp,
    action::{Action, CorrectionTarget},
    data_map::DataMap,
    identifier::IdentifierKind,
    outcome::{Grade, Outcome, OutcomeKind},
    system::{System, SystemScope},
};

use crate::{
    plan::{Call, Quirk},
    planted::Planted,
    scenario::{Erases, SystemNo},
    scene::Scene,
    system::{COLLECTION, SystemState, customer_id, identifier},
};

const CATEGORY: &str = "contact";
/// For how long a row is held.
const HELD_FOR: Duration = Duration::from_secs(5 * 365 * 86_400);

pub struct SimulatedConnector {
    scene: Arc<Scene>,
    system: SystemNo,
}

/// How much of a call is carried out.
#[derive(Clone, Copy)]
enum Extent {
    All,
    /// Half of the rows of its match sets.
    Half,
}

impl SimulatedConnector {
    pub const fn new(scene: Arc<Scene>, system: SystemNo) -> Self {
        Self { scene, system }
    }

    /// One call: it waits, is spoilt as the seed says, and works on the system's rows.
    async fn call<T>(
        &self,
        call: Call,
        ctx: &BatchContext,
        subjects: &[Subject],
        mut work: impl FnMut(&Scene, &mut SystemState, Extent) -> Vec<SubjectResult<T>>,
    ) -> Result<Vec<SubjectResult<T>>, ConnectorError> {
        let world = &self.scene.world;
        let (quirk, what) = (world.quirk(call), call.as_str());
        let slow = match quirk {
            Some(Quirk::Slow { seconds }) => Duration::from_secs(seconds.into()),
            _ => Duration::ZERO,
        };
        world.park(what, world.now() + slow).await;
        let unavailable = |why: &str| Err(ConnectorError::Unavailable(why.to_owned()));
        if call == Call::Act && slow > ctx.time_limit {
            return unavailable("its time was over");
        }
        let mut done = {
            let mut state = self.scene.systems[self.system].lock().unwrap_or_else(PoisonError::into_inner);
            if state.down_until > world.now() {
                return unavailable("it is down");
            }
            match quirk {
                Some(Quirk::Unavailable) => return unavailable("it is busy"),
                Some(Quirk::Refuses) => return Err(ConnectorError::Refused("a constraint".to_owned())),
                Some(Quirk::HalfDone) => {
                    work(&self.scene, &mut state, Extent::Half);
                    return unavailable("it broke half-way");
                }
                Some(Quirk::SaysDone) => work(&self.scene, &mut state, Extent::Half),
                Some(Quirk::WrittenAnew) => {
                    let done = work(&self.scene, &mut state, Extent::All);
                    self.write_anew(&mut state, ctx, subjects);
                    done
                }
                Some(Quirk::Twice) => {
                    work(&self.scene, &mut state, Extent::All);
                    work(&self.scene, &mut state, Extent::All)
                }
                _ => work(&self.scene, &mut state, Extent::All),
            }
        };
        match quirk {
            Some(Quirk::AnswersLate { seconds }) => {
                world.park(what, world.now() + Duration::from_secs(seconds.into())).await;
            }
            Some(Quirk::AnswerLost) => return unavailable("its answer was lost"),
            Some(Quirk::RefusesOne) => {
                if let Some(first) = done.first_mut() {
                    *first = Err(SubjectError::Other("it would not".to_owned()));
                }
            }
            _ => {}
        }
        Ok(done)
    }

    /// The application goes on meanwhile: it writes a row of the first of them.
    fn write_anew(&self, state: &mut SystemState, ctx: &BatchContext, subjects: &[Subject]) {
        let customer = (0..self.scene.scenario.customers).find(|c| customer_id(*c) == ctx.customer.as_str());
        let person = subjects.first().and_then(|subject| state.persons(&subject.identifiers).next());
        if let (Some(customer), Some(person)) = (customer, person) {
            state.write(customer, person, 1);
        }
    }
}

fn rows(match_set: &MatchSet) -> impl Iterator<Item = (u64, &MatchedRow)> {
    let all = match_set.collections.get(COLLECTION).into_iter().flatten();
    all.filter_map(|row| Some((row.key.first()?.parse().ok()?, row)))
}

/// The old and the new name, where it is a correction of names.
fn correction(subject: &Subject) -> Option<(&str, &str)> {
    subject.corrections.iter().find_map(|c| match &c.target {
        CorrectionTarget::Replace { old, new } => Some((old.as_str(), new.as_str())),
        CorrectionTarget::Record { .. } | CorrectionTarget::Append { .. } => None,
    })
}

fn find_one(state: &SystemState, ctx: &BatchContext, subject: &Subject) -> Found {
    let key = ctx.customer_key.as_deref().unwrap_or_default();
    let mut found = Found::default();
    let mut matched = Vec::new();
    for (id, row) in state.found(key, &subject.identifiers) {
        if state.plan.yields_user_id {
            let user = identifier(IdentifierKind::UserId, row.person);
            if !found.yielded.contains(&user) {
                found.yielded.push(user);
            }
        }
        if ctx.action == Action::Rectification && correction(subject).is_none_or(|(old, _)| row.name != old) {
            continue;
        }
        let fate = match state.plan.erases {
            _ if row.held => RowFate::Hold,
            Erases::Delete => RowFate::Delete,
            Erases::Mask => RowFate::Mask,
        };
        let mut row = MatchedRow::new(vec![id.to_string()], fate);
        row.held_until = (fate == RowFate::Hold).then(|| ctx.now.checked_add(HELD_FOR).unwrap_or(Timestamp::MAX));
        matched.push(row);
    }
    if !matched.is_empty() {
        found.match_set.collections.insert(COLLECTION.to_owned(), matched);
    }
    found
}

fn act_one(
    scene: &Scene,
    system: SystemNo,
    state: &mut SystemState,
    ctx: &BatchContext,
    (subject, match_set): (&Subject, &MatchSet),
    rows_left: &mut usize,
) -> SubjectResult<()> {
    if ctx.action == Action::Rectification && match_set.is_empty() {
        let (collection, field) = (COLLECTION.to_owned(), "name".to_owned());
        return Err(SubjectError::OldValueMismatch { collection, field });
    }
    for (id, matched) in rows(match_set) {
        let Some(left) = rows_left.checked_sub(1) else { break };
        *rows_left = left;
        let Some(row) = state.rows.get_mut(&id).filter(|row| row.erased_at.is_none()) else { continue };
        let before = row.clone();
        match (ctx.action, matched.fate) {
            (Action::Erasure, RowFate::Hold) | (Action::Restriction, _) => row.restricted = true,
            (Action::Erasure, _) => row.erased_at = Some(scene.world.now()),
            (Action::LiftRestriction, _) => row.restricted = false,
            (Action::Rectification, _) => {
                if let Some((old, new)) = correction(subject)
                    && row.name == old
                {
                    row.name = new.to_owned();
                }
            }
            (Action::Access, _) => {}
        }
        let changed =
            row.erased_at != before.erased_at || row.name != before.name || row.restricted != before.restricted;
        if changed {
            scene.touched(system, id, &before, ctx);
        }
    }
    Ok(())
}

fn outcome(kind: OutcomeKind, count: u64, until: Option<Timestamp>) -> Outcome {
    let held = kind == OutcomeKind::Retained;
    Outcome {
        collection: COLLECTION.to_owned(),
        category: CATEGORY.to_owned(),
        outcome: kind,
        grade: if held { Grade::RetainedUntil } else { Grade::Verified },
        count,
        basis: if held { "Art. 17(3)(b)".to_owned() } else { String::new() },
        until,
    }
}

/// What the match set's rows have become, as far as it is so.
fn outcomes(action: Action, match_set: &MatchSet) -> Vec<Outcome> {
    let mut counts: Vec<(OutcomeKind, u64, Option<Timestamp>)> = Vec::new();
    for (_, row) in rows(match_set) {
        let kind = match (action, row.fate) {
            (Action::Erasure, RowFate::Hold) => OutcomeKind::Retained,
            (Action::Erasure, RowFate::Mask) => OutcomeKind::Pseudonymised,
            (Action::Erasure, _) => OutcomeKind::Erased,
            (Action::Restriction, _) => OutcomeKind::Restricted,
            (Action::LiftRestriction, _) => OutcomeKind::RestrictionLifted,
            (Action::Rectification, _) => OutcomeKind::Rectified,
            (Action::Access, _) => OutcomeKind::Exported,
        };
        match counts.iter_mut().find(|(k, ..)| *k == kind) {
            Some((_, count, until)) => (*count, *until) = (*count + 1, (*until).max(row.held_until)),
            None => counts.push((kind, 1, row.held_until.filter(|_| kind == OutcomeKind::Retained))),
        }
    }
    if counts.is_empty() {
        return vec![outcome(OutcomeKind::NotHeld, 0, None)];
    }
    counts.into_iter().map(|(kind, count, until)| outcome(kind, count, until)).collect()
}

fn read_back_one(
    state: &SystemState,
    now: Duration,
    ctx: &BatchContext,
    subject: &Subject,
    match_set: &MatchSet,
) -> SubjectResult<Vec<Outcome>> {
    let key = ctx.customer_key.as_deref().unwrap_or_default();
    let known: Vec<u64> = rows(match_set).map(|(id, _)| id).collect();
    let found: Vec<_> = state.found(key, &subject.identifiers).collect();
    let wrong = match ctx.action {
        Action::Erasure => {
            let seen = found.iter().filter(|(id, row)| !row.held || !known.contains(id)).count();
            seen + known.iter().filter(|id| state.lingers(**id, now)).count()
        }
        Action::Restriction => found.iter().filter(|(id, row)| !row.restricted || !known.contains(id)).count(),
        Action::LiftRestriction => found.iter().filter(|(id, row)| row.restricted || !known.contains(id)).count(),
        Action::Rectification => {
            let (old, new) = correction(subject).unwrap_or_default();
            let written = |id: &&u64| state.rows.get(*id).is_some_and(|r| r.name == new || r.erased_at.is_some());
            found.iter().filter(|(_, row)| row.name == old).count() + known.iter().filter(|id| !written(id)).count()
        }
        Action::Access => 0,
    };
    if wrong > 0 {
        return Err(SubjectError::NotYet { rows: wrong as u64 });
    }
    Ok(outcomes(ctx.action, match_set))
}

#[async_trait]
impl Connector for SimulatedConnector {
    async fn check(&self, _: &SystemScope) -> Result<Vec<Finding>, ConnectorError> {
        Ok(Vec::new())
    }

    async fn find(
        &self,
        ctx: &BatchContext,
        subjects: &[Subject],
    ) -> Result<Vec<SubjectResult<Found>>, ConnectorError> {
        // It changes nothing: what is only half looked at is not answered at all.
        let look =
            |_: &Scene, state: &mut SystemState, _| subjects.iter().map(|s| Ok(find_one(state, ctx, s))).collect();
        self.call(Call::Find, ctx, subjects, look).await
    }

    async fn act(
        &self,
        ctx: &BatchContext,
        subjects: &[Subject],
        match_sets: &[MatchSet],
    ) -> Result<Vec<SubjectResult<()>>, ConnectorError> {
        let act = |scene: &Scene, state: &mut SystemState, extent: Extent| {
            if scene.planted == Some(Planted::ConfirmBeforeCommit) {
                state.earlier = state.rows.clone();
            }
            let all: usize = match_sets.iter().map(|match_set| rows(match_set).count()).sum();
            let mut rows_left = match extent {
                Extent::All => all,
                Extent::Half => all / 2,
            };
            let both = subjects.iter().zip(match_sets);
            let results = both.map(|both| act_one(scene, self.system, state, ctx, both, &mut rows_left)).collect();
            if scene.planted == Some(Planted::StaleReadBack) {
                state.earlier = state.rows.clone();
            }
            results
        };
        self.call(Call::Act, ctx, subjects, act).await
    }

    async fn read_back(
        &self,
        ctx: &BatchContext,
        subjects: &[Subject],
        match_sets: &[MatchSet],
    ) -> Result<Vec<SubjectResult<Vec<Outcome>>>, ConnectorError> {
        let look = |scene: &Scene, state: &mut SystemState, _: Extent| {
            let earlier = scene.planted.is_some().then(|| state.as_it_was());
            let committed = earlier.as_ref().filter(|_| scene.planted == Some(Planted::ConfirmBeforeCommit));
            scene.looked_back(self.system, committed.unwrap_or(state), ctx, subjects);
            let now = scene.world.now();
            let both = subjects.iter().zip(match_sets);
            if scene.planted == Some(Planted::TrustAct) {
                return both.map(|(_, match_set)| Ok(outcomes(ctx.action, match_set))).collect();
            }
            let stale = earlier.as_ref().filter(|_| scene.planted == Some(Planted::StaleReadBack));
            let state = stale.unwrap_or(state);
            both.map(|(subject, match_set)| read_back_one(state, now, ctx, subject, match_set)).collect()
        };
        self.call(Call::ReadBack, ctx, subjects, look).await
    }

    async fn export(
        &self,
        ctx: &BatchContext,
        subject: &Subject,
        _match_set: &MatchSet,
        after: Option<u64>,
        records_max: usize,
    ) -> Result<SubjectResult<(Exported, Option<u64>)>, ConnectorError> {
        let read = |_: &Scene, state: &mut SystemState, _: Extent| {
            let key = ctx.customer_key.as_deref().unwrap_or_default();
            let mut exported = Exported::default();
            let mut next = None;
            for (id, row) in state.found(key, &subject.identifiers).filter(|(id, _)| after.is_none_or(|a| *id > a)) {
                if exported.records.len() == records_max {
                    next = exported.records.last().and_then(|r| r.key.first()?.parse().ok());
                    break;
                }
                let field = RecordField {
                    name: "name".to_owned(),
                    category: "display_name".to_owned(),
                    value: Some(row.name.clone()),
                };
                exported.records.push(Record {
                    collection: COLLECTION.to_owned(),
                    key: vec![id.to_string()],
                    fields: vec![field],
                    third_party: false,
                });
            }
            if !exported.records.is_empty() {
                exported.outcomes = vec![outcome(OutcomeKind::Exported, exported.records.len() as u64, None)];
            }
            vec![Ok((exported, next))]
        };
        let mut answered = self.call(Call::Export, ctx, std::slice::from_ref(subject), read).await?;
        Ok(answered.pop().unwrap_or_else(|| Err(SubjectError::Other("nothing".to_owned()))))
    }

    /// No scenario restores a system yet.
    async fn held(
        &self,
        _after: Option<&HeldPlace>,
        _rows_max: usize,
        _time_limit: Duration,
    ) -> Result<HeldPage, ConnectorError> {
        Err(ConnectorError::Refused("a simulated system is not restored".to_owned()))
    }
}

/// Gives every replica its connectors.
pub struct Factory {
    pub scene: Arc<Scene>,
}

#[async_trait]
impl ConnectorFactory for Factory {
    async fn connector(&self, system: &System, _: Arc<DataMap>) -> Result<Arc<dyn Connector>, ConnectorError> {
        let of = self.scene.scenario.systems.iter().position(|plan| plan.id == system.id.as_str());
        let system = of.ok_or_else(|| ConnectorError::Unavailable("no such system".to_owned()))?;
        Ok(Arc::new(SimulatedConnector::new(self.scene.clone(), system)))
    }
}
