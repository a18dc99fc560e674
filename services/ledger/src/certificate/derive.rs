//! What the entries of a request say, put together. The issuer writes it into the certificate, and whoever checks a certificate
//! compares it with what stands there.

use std::collections::{BTreeMap, BTreeSet};

use quittance_domain::{
    Timestamp,
    action::Action,
    ids::{CustomerId, RequestId, SystemId},
    outcome::{Confirmation, EvidenceKind, Grade, OutcomeKind},
    request::RequestState,
};

use super::{
    Attestation, CertificateFault, CertifiedState, ConfirmationStatement, Dates, Decision, DecisionKind, EntryFault,
    EntryOpening, EvidenceStatement, Exception, Extension, Hold, Instruction, NotProcessed, NotProcessedCause,
    OpenTask, StatedTime, Statement, SystemStatement, TimeSource, issue::SystemDescription,
};
use crate::{Event, Hex, Leaf, RecordedEvent, Withheld};

/// What no payload says of a planned system.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub system: SystemDescription,
    pub open: Option<OpenTask>,
}

/// All that the statement follows from.
pub(super) struct Sources<'a> {
    pub customer: &'a CustomerId,
    pub request: RequestId,
    pub issued_at: Timestamp,
    pub entries: &'a [EntryOpening],
    pub described: BTreeMap<SystemId, Described>,
}

pub(super) struct Derived {
    pub agreement_version: u32,
    pub statement: Statement,
}

/// One entry that was read: its leaf is its payload's.
struct Read<'a> {
    index: usize,
    event: Event,
    attested: Option<&'a Attestation>,
}

impl Read<'_> {
    fn fault(&self, fault: EntryFault) -> CertificateFault {
        CertificateFault::Entry { index: self.index, fault }
    }

    fn time(&self, us: i64, by: TimeSource) -> Result<StatedTime, CertificateFault> {
        let at = Timestamp::from_microsecond(us).map_err(|_| self.fault(EntryFault::Time))?;
        Ok(self.stated(at, by))
    }

    fn asserted(&self, us: i64) -> Result<StatedTime, CertificateFault> {
        self.time(us, TimeSource::Asserted)
    }

    fn by_customer(&self, us: Option<i64>) -> Result<Option<StatedTime>, CertificateFault> {
        us.map(|us| self.time(us, TimeSource::Customer)).transpose()
    }

    fn stated(&self, at: Timestamp, by: TimeSource) -> StatedTime {
        StatedTime { at, by, attested: self.attested.cloned() }
    }
}

#[derive(Default)]
struct Collected {
    request: Option<Instruction>,
    agreement: Versioned<u32>,
    first_due: Versioned<StatedTime>,
    subject_asked: Option<StatedTime>,
    subject_informed: Option<StatedTime>,
    controller_due: Option<StatedTime>,
    received: Option<StatedTime>,
    extensions: Vec<Extension>,
    decisions: Vec<Decision>,
    /// By the versions of its map: an operator may have retried it by a later one. That did the work.
    planned: BTreeMap<SystemId, BTreeMap<u32, StatedTime>>,
    confirmed: BTreeMap<SystemId, (Confirmation, ConfirmationStatement)>,
    completed: Option<(RequestState, StatedTime, bool)>,
    /// Declined or cancelled, and when.
    closed: Option<(CertifiedState, Timestamp)>,
    /// Once the package was reviewed.
    withheld: Option<Vec<Withheld>>,
}

/// What a later word replaces: an authorisation's over the instruction's, and the last authorisation's over an earlier one's.
struct Versioned<T>(Option<(i64, T)>);

impl<T> Default for Versioned<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Versioned<T> {
    fn put(&mut self, at_us: i64, value: T) {
        if self.0.as_ref().is_none_or(|(at, _)| *at <= at_us) {
            self.0 = Some((at_us, value));
        }
    }
}

pub(super) fn derive(sources: &Sources<'_>) -> Result<Derived, CertificateFault> {
    let read = read_entries(sources)?;
    let instructed = read.iter().find_map(|r| match &r.event {
        Event::Instructed { action, .. } => Some(*action),
        _ => None,
    });
    let action = instructed.ok_or(CertificateFault::NoInstruction)?;
    let mut c = Collected::default();
    for entry in &read {
        c.take(entry, sources.request, action)?;
    }
    // After all plans are known: an entry may come into the log before the one that was staged before it.
    for entry in &read {
        if let Event::Confirmed { confirmation, .. } = &entry.event
            && !c.planned.contains_key(&confirmation.system)
        {
            return Err(entry.fault(EntryFault::ConfirmsUnplanned(confirmation.system.clone())));
        }
        if let Event::Reviewed { withheld, .. } = &entry.event
            && let Some(other) = withheld.iter().find(|w| !c.confirmed.contains_key(&w.system))
        {
            return Err(entry.fault(EntryFault::WithholdsUnconfirmed(other.system.clone())));
        }
    }
    c.put_together(sources)
}

fn read_entries<'a>(sources: &Sources<'a>) -> Result<Vec<Read<'a>>, CertificateFault> {
    let mut leaves = BTreeSet::new();
    let one = |(index, opening): (usize, &'a EntryOpening)| {
        let fault = |fault| CertificateFault::Entry { index, fault };
        let payload = opening.payload.as_bytes();
        if Leaf::commit(&opening.salt.0, payload) != Leaf(opening.leaf.0) {
            return Err(fault(EntryFault::Leaf));
        }
        if !leaves.insert(opening.leaf) {
            return Err(fault(EntryFault::Twice));
        }
        let recorded = RecordedEvent::read(payload).map_err(|e| fault(e.into()))?;
        if recorded.event.kind() != opening.kind {
            return Err(fault(EntryFault::Kind));
        }
        if recorded.customer != *sources.customer || recorded.request != sources.request {
            return Err(fault(EntryFault::OtherRequest));
        }
        if opening.proof.is_empty() {
            return Err(fault(EntryFault::NoProof));
        }
        Ok(Read { index, event: recorded.event, attested: opening.attested.iter().min() })
    };
    sources.entries.iter().enumerate().map(one).collect()
}

impl Collected {
    fn take(&mut self, entry: &Read<'_>, id: RequestId, asked: Action) -> Result<(), CertificateFault> {
        match &entry.event {
            Event::Instructed {
                action,
                instruction,
                subject,
                by,
                referred,
                received_us,
                first_due_us,
                agreement,
                reference,
                restriction_ground,
                subject_asked_us,
                subject_informed_us,
                controller_due_us,
                follow_up,
                follows,
            } => {
                let request = Instruction {
                    id,
                    action: *action,
                    instruction: *instruction,
                    reference: reference.clone(),
                    restriction_ground: *restriction_ground,
                    follow_up: follow_up.clone(),
                    instructed_by: by.clone(),
                    referred: *referred,
                    follows: *follows,
                    subject: *subject,
                };
                if self.request.replace(request).is_some() {
                    return Err(entry.fault(EntryFault::SecondInstruction));
                }
                self.received = Some(entry.asserted(*received_us)?);
                self.subject_asked = entry.by_customer(*subject_asked_us)?;
                self.subject_informed = entry.by_customer(*subject_informed_us)?;
                self.controller_due = entry.by_customer(*controller_due_us)?;
                self.agreement.put(i64::MIN, *agreement);
                self.first_due.put(i64::MIN, entry.asserted(*first_due_us)?);
            }
            Event::Planned { at_us, systems } => {
                for planned in systems {
                    let planned_at = entry.asserted(*at_us)?;
                    let versions = self.planned.entry(planned.system.clone()).or_default();
                    if versions.insert(planned.map_version, planned_at).is_some() {
                        return Err(entry.fault(EntryFault::PlannedTwice(planned.system.clone())));
                    }
                }
            }
            Event::Authorised { by, at_us, first_due_us, agreement } => {
                self.agreement.put(*at_us, *agreement);
                self.first_due.put(*at_us, entry.asserted(*first_due_us)?);
                self.decide(entry, DecisionKind::Authorised, *at_us, by, None, "")?;
            }
            Event::Objected { by, reason, at_us } => {
                self.decide(entry, DecisionKind::Objected, *at_us, by, None, reason)?;
            }
            Event::Extended { due_us, by, reason, at_us } => {
                let (due, decided) = (entry.asserted(*due_us)?, entry.asserted(*at_us)?);
                self.extensions.push(Extension { due, by: by.clone(), reason: reason.clone(), decided });
            }
            Event::Confirmed { confirmation, late } => {
                confirmation.check(asked).map_err(|e| entry.fault(e.into()))?;
                let said = confirmation_statement(entry, confirmation, *late)?;
                let system = confirmation.system.clone();
                if self.confirmed.insert(system, (confirmation.clone(), said)).is_some() {
                    return Err(entry.fault(EntryFault::ConfirmedTwice(confirmation.system.clone())));
                }
            }
            Event::Operated { system, what, by, at_us } => {
                let what = match what {
                    crate::Operation::Resolved => DecisionKind::Resolved,
                    crate::Operation::Retried => DecisionKind::Retried,
                };
                self.decide(entry, what, *at_us, by, Some(system.clone()), "")?;
            }
            Event::Completed { state, at_us, late } => {
                let completed = (*state, entry.asserted(*at_us)?, *late);
                if self.completed.replace(completed).is_some() {
                    return Err(entry.fault(EntryFault::SecondCompletion));
                }
            }
            Event::Reviewed { by, at_us, withheld } => {
                if asked != Action::Access {
                    return Err(entry.fault(EntryFault::NoPackage));
                }
                self.decide(entry, DecisionKind::Reviewed, *at_us, by, None, "")?;
                if self.withheld.replace(withheld.clone()).is_some() {
                    return Err(entry.fault(EntryFault::SecondReview));
                }
            }
            Event::Closed { state, by, reason, at_us } => {
                let (state, what) = match state {
                    RequestState::Declined => (CertifiedState::Declined, DecisionKind::Declined),
                    RequestState::Cancelled => (CertifiedState::Cancelled, DecisionKind::Cancelled),
                    _ => return Err(entry.fault(EntryFault::ClosingState)),
                };
                self.decide(entry, what, *at_us, by, None, reason)?;
                if self.closed.replace((state, entry.asserted(*at_us)?.at)).is_some() {
                    return Err(entry.fault(EntryFault::SecondClosing));
                }
            }
            // Of the customer, whatever id it bears.
            Event::KeyDestroyed { .. } => return Err(entry.fault(EntryFault::OtherRequest)),
            Event::Replayed { .. } => return Err(entry.fault(EntryFault::NoRequest)),
        }
        Ok(())
    }

    fn decide(
        &mut self,
        entry: &Read<'_>,
        what: DecisionKind,
        at_us: i64,
        by: &str,
        system: Option<SystemId>,
        reason: &str,
    ) -> Result<(), CertificateFault> {
        let made = entry.asserted(at_us)?;
        self.decisions.push(Decision { what, made, by: by.to_owned(), system, reason: reason.to_owned() });
        Ok(())
    }

    fn put_together(mut self, sources: &Sources<'_>) -> Result<Derived, CertificateFault> {
        let (Some(request), Some(received), Some((_, agreement_version)), Some((_, first_due))) =
            (self.request.take(), self.received.take(), self.agreement.0.take(), self.first_due.0.take())
        else {
            return Err(CertificateFault::NoInstruction);
        };
        let authorised = self.decisions.iter().any(|d| d.what == DecisionKind::Authorised);
        if request.referred && !authorised && !self.planned.is_empty() {
            return Err(CertificateFault::NotAuthorised);
        }
        self.extensions.sort_by_key(|e| e.due.at);
        self.decisions.sort_by(|a, b| (a.made.at, a.what, &a.system).cmp(&(b.made.at, b.what, &b.system)));
        let due = self.extensions.iter().map(|e| &e.due).chain([&first_due]).max_by_key(|due| due.at);
        let due = due.unwrap_or(&first_due).clone();
        let state = self.state()?;
        self.check_late(due.at)?;
        let ended = self.closed.map_or(sources.issued_at, |(_, at)| at);
        let late = self.completed.as_ref().map_or(ended > due.at, |(.., late)| *late);
        let dates = Dates {
            subject_asked: self.subject_asked.take(),
            subject_informed: self.subject_informed.take(),
            received,
            controller_due: self.controller_due.take(),
            first_due,
            extensions: std::mem::take(&mut self.extensions),
            due,
            completed: self.completed.as_ref().map(|(_, at, _)| at.clone()),
            late,
        };
        let (holds, exceptions) = (self.holds(), self.exceptions());
        let not_processed = self.not_processed(request.action, sources);
        let decisions = std::mem::take(&mut self.decisions);
        let systems = self.systems(sources, state)?;
        let statement = Statement { state, request, dates, decisions, systems, holds, exceptions, not_processed };
        Ok(Derived { agreement_version, statement })
    }

    fn state(&self) -> Result<CertifiedState, CertificateFault> {
        let state = match (&self.completed, self.closed) {
            (None, None) => return Ok(CertifiedState::Interim),
            (None, Some((state, _))) => return Ok(state),
            (Some(_), Some(_)) => return Err(CertificateFault::Closed),
            (Some((state, ..)), None) => state,
        };
        if self.planned.is_empty() {
            return Err(CertificateFault::NothingPlanned);
        }
        if let Some(open) = self.planned.keys().find(|system| !self.confirmed.contains_key(*system)) {
            return Err(CertificateFault::NotConfirmed(open.clone()));
        }
        let exceptions = self.confirmed.values().any(|(confirmation, _)| confirmation.is_exception());
        match (state, exceptions) {
            (RequestState::Completed, false) => Ok(CertifiedState::Completed),
            (RequestState::CompletedWithExceptions, true) => Ok(CertifiedState::CompletedWithExceptions),
            _ => Err(CertificateFault::CompletionState),
        }
    }

    /// Late is compared on a finer clock than what is recorded, so the very microsecond of the due time may be either.
    fn check_late(&self, due: Timestamp) -> Result<(), CertificateFault> {
        if let Some((_, at, late)) = &self.completed
            && ((*late && at.at < due) || (!*late && at.at > due))
        {
            return Err(CertificateFault::Late);
        }
        // A confirmation may have been late before the date was moved, but what came after the last date always was.
        let understated = |c: &ConfirmationStatement| !c.late && c.confirmed.at > due;
        if self.confirmed.values().any(|(_, said)| understated(said)) {
            return Err(CertificateFault::Late);
        }
        Ok(())
    }

    fn systems(self, sources: &Sources<'_>, state: CertifiedState) -> Result<Vec<SystemStatement>, CertificateFault> {
        if let Some(other) = sources.described.keys().find(|system| !self.planned.contains_key(*system)) {
            return Err(CertificateFault::NotPlanned(other.clone()));
        }
        let mut confirmed = self.confirmed;
        let mut systems = Vec::with_capacity(self.planned.len());
        for (id, mut versions) in self.planned {
            let Some((map_version, planned)) = versions.pop_last() else { continue };
            let described = sources.described.get(&id).ok_or_else(|| CertificateFault::Undescribed(id.clone()))?;
            let confirmation = confirmed.remove(&id).map(|(_, said)| said);
            let fits = match &described.open {
                Some(open) => confirmation.is_none() && !state.is_complete() && open.state.is_open(),
                // Where a request was declined or cancelled, what had not begun is no task any more.
                None => confirmation.is_some() || state != CertifiedState::Interim,
            };
            if !fits {
                return Err(CertificateFault::OpenTask(id));
            }
            let SystemDescription { display_name, role, country, connector } = described.system.clone();
            let open = described.open.clone();
            systems.push(SystemStatement {
                id,
                display_name,
                role,
                country,
                connector,
                map_version,
                planned,
                confirmation,
                open,
            });
        }
        Ok(systems)
    }

    fn holds(&self) -> Vec<Hold> {
        let retained = |(system, (confirmation, _)): (&SystemId, &(Confirmation, _))| {
            let kept = confirmation.outcomes.iter().filter(|o| o.outcome == OutcomeKind::Retained);
            let hold = |o: &quittance_domain::outcome::Outcome| {
                Some(Hold {
                    system: system.clone(),
                    collection: o.collection.clone(),
                    category: o.category.clone(),
                    count: o.count,
                    ground: o.basis.clone(),
                    until: o.until?,
                })
            };
            kept.filter_map(hold).collect::<Vec<_>>()
        };
        self.confirmed.iter().flat_map(retained).collect()
    }

    fn exceptions(&self) -> Vec<Exception> {
        let unconfirmed = |(system, (confirmation, _)): (&SystemId, &(Confirmation, _))| {
            let open = confirmation.outcomes.iter().filter(|o| o.outcome == OutcomeKind::Unconfirmed);
            let exception = |o: &quittance_domain::outcome::Outcome| Exception {
                system: system.clone(),
                collection: o.collection.clone(),
                category: o.category.clone(),
                count: o.count,
                reason: o.basis.clone(),
            };
            open.map(exception).collect::<Vec<_>>()
        };
        self.confirmed.iter().flat_map(unconfirmed).collect()
    }

    fn not_processed(&self, action: Action, sources: &Sources<'_>) -> Vec<NotProcessed> {
        // Backups matter where something was to go or to change; a copy that was handed out leaves them as they are.
        let changes = matches!(action, Action::Erasure | Action::Rectification);
        let mut all = Vec::new();
        for system in self.planned.keys() {
            let line = |cause, until| NotProcessed {
                system: system.clone(),
                cause,
                collection: String::new(),
                category: String::new(),
                count: None,
                until,
            };
            let Some((confirmation, _)) = self.confirmed.get(system) else {
                let stands = sources.described.get(system).and_then(|described| described.open.as_ref());
                let begun = self.closed.is_none() || stands.is_some();
                let cause = if begun { NotProcessedCause::Open } else { NotProcessedCause::NotBegun };
                all.push(line(cause, None));
                continue;
            };
            for o in confirmation.outcomes.iter().filter(|o| o.grade == Grade::ExpiresOn) {
                all.push(NotProcessed {
                    collection: o.collection.clone(),
                    category: o.category.clone(),
                    ..line(NotProcessedCause::ExpiresLater, o.until)
                });
            }
            if let Some(expire) = confirmation.backups_expire_at.filter(|expire| changes && *expire > sources.issued_at)
            {
                all.push(line(NotProcessedCause::InBackups, Some(expire)));
            }
            for w in self.withheld.iter().flatten().filter(|w| w.system == *system) {
                all.push(NotProcessed {
                    collection: w.collection.clone(),
                    category: w.category.clone(),
                    count: Some(w.count),
                    ..line(NotProcessedCause::Withheld, None)
                });
            }
        }
        all
    }
}

fn confirmation_statement(
    entry: &Read<'_>,
    confirmation: &Confirmation,
    late: bool,
) -> Result<ConfirmationStatement, CertificateFault> {
    let evidence = &confirmation.evidence;
    let asserted = |at| entry.stated(at, TimeSource::Asserted);
    let sha256 = match evidence.sha256.as_str() {
        "" => None,
        digest => Some(Hex::parse(digest).map_err(|_| entry.fault(EntryFault::Digest))?),
    };
    Ok(ConfirmationStatement {
        confirmed_by: confirmation.by.clone(),
        confirmed: asserted(confirmation.confirmed_at),
        late,
        outcomes: confirmation.outcomes.clone(),
        evidence: EvidenceStatement {
            kind: evidence.kind,
            reference: evidence.reference.clone(),
            sha256,
            at: asserted(evidence.at),
        },
        read_back: (evidence.kind == EvidenceKind::ReadBack).then(|| asserted(evidence.at)),
        backups_expire: confirmation.backups_expire_at.map(asserted),
    })
}
