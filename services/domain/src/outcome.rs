//! What a system states for a task, and how sure that is (I5). Grades are never rounded up.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Timestamp, ids::SystemId, system::SystemRole, text_enum};

/// Stands for all collections, or for all categories.
const EVERYTHING: &str = "*";

/// What was done with rows of one category in one collection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutcomeKind {
    Erased,
    Pseudonymised,
    NotHeld,
    Retained,
    Rectified,
    Restricted,
    RestrictionLifted,
    Exported,
    /// A recipient was told (Art. 19); what it does then is its own.
    Notified,
    Unconfirmed,
}

text_enum!(OutcomeKind,
    Erased => "ERASED",
    Pseudonymised => "PSEUDONYMISED",
    NotHeld => "NOT_HELD",
    Retained => "RETAINED",
    Rectified => "RECTIFIED",
    Restricted => "RESTRICTED",
    RestrictionLifted => "RESTRICTION_LIFTED",
    Exported => "EXPORTED",
    Notified => "NOTIFIED",
    Unconfirmed => "UNCONFIRMED",
);

/// How far the statement reaches, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Grade {
    /// Nothing is known.
    None,
    /// The system took the instruction in.
    Accepted,
    /// The system says that it was done.
    Executed,
    /// Kept, under a ground, until a date.
    RetainedUntil,
    /// Goes by itself on a date.
    ExpiresOn,
    /// Read back, and found as instructed, in live data at a stated time.
    Verified,
}

text_enum!(Grade,
    None => "NONE",
    Accepted => "ACCEPTED",
    Executed => "EXECUTED",
    RetainedUntil => "RETAINED_UNTIL",
    ExpiresOn => "EXPIRES_ON",
    Verified => "VERIFIED",
);

/// On what the statement rests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EvidenceKind {
    /// Our own read-back in a new transaction on the primary.
    ReadBack,
    /// A connector's or an agent's report, made in the system's own place.
    SystemReport,
    /// A receipt that the vendor's interface returned.
    VendorReceipt,
    SignedStatement,
    /// The SHA-256 of a document that the operator keeps.
    DocumentDigest,
    RetentionExpiry,
    /// An operator gave up: nothing supports a success (only with `Unconfirmed`).
    OperatorStatement,
}

text_enum!(EvidenceKind,
    ReadBack => "READ_BACK",
    SystemReport => "SYSTEM_REPORT",
    VendorReceipt => "VENDOR_RECEIPT",
    SignedStatement => "SIGNED_STATEMENT",
    DocumentDigest => "DOCUMENT_DIGEST",
    RetentionExpiry => "RETENTION_EXPIRY",
    OperatorStatement => "OPERATOR_STATEMENT",
);

/// One line of a confirmation.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    pub collection: String,
    pub category: String,
    pub outcome: OutcomeKind,
    pub grade: Grade,
    /// Rows, unless the collection counts something else (files, visits): one per row that held the category.
    pub count: u64,
    /// Ground of a retention, reason of an `Unconfirmed`; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub basis: String,
    /// End of the retention, or the day it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Outcome {
    /// Live data went by it, or an old value: from then on only backups hold them. What is retained or expires later is live still.
    pub const fn left_live_data(&self) -> bool {
        match self.outcome {
            OutcomeKind::Erased | OutcomeKind::Pseudonymised | OutcomeKind::Rectified => {
                !matches!(self.grade, Grade::ExpiresOn)
            }
            OutcomeKind::NotHeld
            | OutcomeKind::Retained
            | OutcomeKind::Restricted
            | OutcomeKind::RestrictionLifted
            | OutcomeKind::Exported
            | OutcomeKind::Notified
            | OutcomeKind::Unconfirmed => false,
        }
    }
}

/// What supports a confirmation: a kind and, where there is a document or receipt, its reference and digest.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Evidence {
    pub kind: EvidenceKind,
    /// A receipt's number or a document's name in the operator's files; never personal data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Lower-case hex SHA-256 of the document; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// When the system was asked (`ReadBack`) or made its statement.
    pub at: Timestamp,
}

/// A system's statement for a task.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Confirmation {
    pub system: SystemId,
    pub outcomes: Vec<Outcome>,
    pub evidence: Evidence,
    /// The principal that stated it: a connector, a worker, an operator.
    pub by: String,
    pub confirmed_at: Timestamp,
    /// When the last backup expires that may hold what left the live data by it, by the system's declaration. `None` where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups_expire_at: Option<Timestamp>,
}

/// Why a confirmation is not one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OutcomeError {
    #[error("a confirmation needs at least one outcome")]
    Empty,
    #[error("outcome {0} cannot bear grade {1}")]
    Grade(OutcomeKind, Grade),
    #[error("grade {0} needs a date")]
    Date(Grade),
    #[error("outcome {0} needs a basis")]
    Basis(OutcomeKind),
    #[error("outcome {0} does not answer this action")]
    Action(OutcomeKind),
    #[error("outcome {0} is not for a system of role {1}")]
    Role(OutcomeKind, SystemRole),
    #[error("outcome {0} counts nothing")]
    Count(OutcomeKind),
    #[error("outcome {0} is stated twice alike: one line has the sum")]
    Twice(OutcomeKind),
    #[error("outcome {0} is stated of data that is said not to be held")]
    Contradiction(OutcomeKind),
    #[error("outcome {outcome} cannot rest on {evidence}")]
    Evidence { outcome: OutcomeKind, evidence: EvidenceKind },
    #[error("{0} is the document's digest: it is needed")]
    NoDigest(EvidenceKind),
    #[error("{0} must say which it is, by a reference or by the document's sha256")]
    NoReference(EvidenceKind),
}

impl OutcomeError {
    /// The field of the confirmation that is to blame.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::NoDigest(_) => "evidence.sha256",
            Self::NoReference(_) => "evidence.reference",
            _ => "outcomes",
        }
    }
}

impl Evidence {
    fn check_named(&self) -> Result<(), OutcomeError> {
        use EvidenceKind as E;
        let digest = !self.sha256.is_empty();
        let reference = !self.reference.trim().is_empty();
        match self.kind {
            E::DocumentDigest if !digest => Err(OutcomeError::NoDigest(self.kind)),
            E::VendorReceipt | E::SignedStatement | E::RetentionExpiry if !digest && !reference => {
                Err(OutcomeError::NoReference(self.kind))
            }
            _ => Ok(()),
        }
    }
}

impl Confirmation {
    /// Refuses what would say more than is known (I5).
    pub fn check(&self, action: crate::action::Action) -> Result<(), OutcomeError> {
        use crate::action::Action;
        use OutcomeKind as K;
        if self.outcomes.is_empty() {
            return Err(OutcomeError::Empty);
        }
        for o in &self.outcomes {
            let answers = match o.outcome {
                K::Unconfirmed | K::NotHeld => true,
                K::Erased | K::Pseudonymised | K::Retained => action == Action::Erasure,
                K::Rectified => action == Action::Rectification,
                // A held row is also restricted, so an erasure may say so.
                K::Restricted => matches!(action, Action::Restriction | Action::Erasure),
                K::RestrictionLifted => action == Action::LiftRestriction,
                K::Exported => action == Action::Access,
                K::Notified => action.concerns_recipients(),
            };
            if !answers {
                return Err(OutcomeError::Action(o.outcome));
            }
            let grade_fits = match o.outcome {
                K::Unconfirmed => matches!(o.grade, Grade::None | Grade::Accepted),
                K::Retained => o.grade == Grade::RetainedUntil,
                K::Notified => matches!(o.grade, Grade::Accepted | Grade::Executed),
                K::Erased => matches!(o.grade, Grade::Executed | Grade::Verified | Grade::ExpiresOn),
                _ => matches!(o.grade, Grade::Executed | Grade::Verified),
            };
            if !grade_fits {
                return Err(OutcomeError::Grade(o.outcome, o.grade));
            }
            if matches!(o.grade, Grade::RetainedUntil | Grade::ExpiresOn) && o.until.is_none() {
                return Err(OutcomeError::Date(o.grade));
            }
            if matches!(o.outcome, K::Retained | K::Unconfirmed) && o.basis.is_empty() {
                return Err(OutcomeError::Basis(o.outcome));
            }
            let by_word_only = self.evidence.kind == EvidenceKind::OperatorStatement && o.outcome != K::Unconfirmed;
            let verified_by_paper = o.grade == Grade::Verified
                && !matches!(self.evidence.kind, EvidenceKind::ReadBack | EvidenceKind::SystemReport);
            if by_word_only || verified_by_paper {
                return Err(OutcomeError::Evidence { outcome: o.outcome, evidence: self.evidence.kind });
            }
        }
        Ok(())
    }

    /// Whether its lines can all be true at once, and nothing is counted twice. Asked of what comes in; what was confirmed before this was asked
    /// stays confirmed, and certified.
    pub fn check_consistent(&self) -> Result<(), OutcomeError> {
        if let Some(o) = self.outcomes.iter().find(|o| o.outcome == OutcomeKind::NotHeld && o.count > 0) {
            return Err(OutcomeError::Count(o.outcome));
        }
        if self.outcomes.len() < 2 {
            return Ok(());
        }
        let mut lines = BTreeSet::new();
        // Where something is, for whoever says that nothing is there: of this category, of this collection, of anything at all.
        let mut held = BTreeMap::new();
        for o in &self.outcomes {
            let (collection, category) = (o.collection.as_str(), o.category.as_str());
            if !lines.insert((collection, category, o.outcome, o.grade, o.basis.as_str(), o.until)) {
                return Err(OutcomeError::Twice(o.outcome));
            }
            if o.outcome != OutcomeKind::NotHeld {
                let wider = [
                    (collection, category),
                    (collection, EVERYTHING),
                    (EVERYTHING, category),
                    (EVERYTHING, EVERYTHING),
                ];
                held.extend(wider.map(|place| (place, o.outcome)));
            }
        }
        let mut not_held = self.outcomes.iter().filter(|o| o.outcome == OutcomeKind::NotHeld);
        match not_held.find_map(|o| held.get(&(o.collection.as_str(), o.category.as_str()))) {
            Some(outcome) => Err(OutcomeError::Contradiction(*outcome)),
            None => Ok(()),
        }
    }

    /// Whether anybody could look up what it relies on: a kind alone names nothing (I5). Asked of what comes in; what was confirmed before this
    /// was asked stays confirmed.
    pub fn check_named(&self) -> Result<(), OutcomeError> {
        if self.outcomes.iter().all(|o| o.outcome == OutcomeKind::Unconfirmed) {
            return Ok(());
        }
        self.evidence.check_named()
    }

    /// Who is only told has nothing to say of our data, and nobody else is "told".
    pub fn check_role(&self, role: SystemRole) -> Result<(), OutcomeError> {
        for o in &self.outcomes {
            let fits = match o.outcome {
                OutcomeKind::Notified => role == SystemRole::Recipient,
                OutcomeKind::NotHeld | OutcomeKind::Unconfirmed => true,
                _ => role != SystemRole::Recipient,
            };
            if !fits {
                return Err(OutcomeError::Role(o.outcome, role));
            }
        }
        Ok(())
    }

    /// A request with one of these is `COMPLETED_WITH_EXCEPTIONS`.
    pub fn is_exception(&self) -> bool {
        self.outcomes.iter().any(|o| o.outcome == OutcomeKind::Unconfirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;

    fn erased_by(kind: EvidenceKind, reference: &str, sha256: &str) -> Confirmation {
        let at = Timestamp::UNIX_EPOCH;
        Confirmation {
            system: SystemId::new("mailer").unwrap(),
            outcomes: vec![Outcome {
                collection: "contacts".to_owned(),
                category: "email".to_owned(),
                outcome: OutcomeKind::Erased,
                grade: Grade::Executed,
                count: 1,
                basis: String::new(),
                until: None,
            }],
            evidence: Evidence { kind, reference: reference.to_owned(), sha256: sha256.to_owned(), at },
            by: "operators/kim".to_owned(),
            confirmed_at: at,
            backups_expire_at: None,
        }
    }

    #[test]
    fn evidence_that_nobody_could_look_up_supports_no_success() {
        use EvidenceKind as E;
        let check = |kind, reference, sha256| erased_by(kind, reference, sha256).check_named();
        for kind in [E::VendorReceipt, E::SignedStatement, E::RetentionExpiry] {
            for nothing in ["", "  "] {
                let refused = check(kind, nothing, "").unwrap_err();
                assert_eq!((&refused, refused.field()), (&OutcomeError::NoReference(kind), "evidence.reference"));
            }
            assert_eq!((check(kind, "letter 17", ""), check(kind, "", "e3b0")), (Ok(()), Ok(())));
        }
        let refused = check(E::DocumentDigest, "letter 17", "").unwrap_err();
        assert_eq!((&refused, refused.field()), (&OutcomeError::NoDigest(E::DocumentDigest), "evidence.sha256"));
        assert_eq!(check(E::DocumentDigest, "", "e3b0"), Ok(()));
        for kind in [E::ReadBack, E::SystemReport] {
            assert_eq!(check(kind, "", ""), Ok(()));
        }
    }

    #[test]
    fn lines_that_cannot_all_be_true_are_no_confirmation() {
        let line = |collection: &str, category: &str, outcome, grade, count| Outcome {
            collection: collection.to_owned(),
            category: category.to_owned(),
            outcome,
            grade,
            count,
            basis: String::new(),
            until: None,
        };
        let erased =
            |collection, category, count| line(collection, category, OutcomeKind::Erased, Grade::Verified, count);
        let not_held = |collection, category| line(collection, category, OutcomeKind::NotHeld, Grade::Verified, 0);
        let check = |outcomes: &[Outcome]| {
            let all = Confirmation { outcomes: outcomes.to_vec(), ..erased_by(EvidenceKind::SystemReport, "", "") };
            // What the log holds from before was asked for less.
            assert_eq!(all.check(Action::Erasure), Ok(()));
            all.check_consistent()
        };
        let erased_too = Err(OutcomeError::Contradiction(OutcomeKind::Erased));
        for (collection, category) in [("*", "*"), ("contacts", "*"), ("*", "email"), ("contacts", "email")] {
            assert_eq!(check(&[not_held(collection, category), erased("contacts", "email", 1)]), erased_too);
            assert_eq!(check(&[erased("contacts", "email", 1), not_held(collection, category)]), erased_too);
        }
        let elsewhere = [not_held("orders", "*"), not_held("contacts", "phone"), erased("contacts", "email", 1)];
        assert_eq!(check(&elsewhere), Ok(()));
        let seven = line("*", "*", OutcomeKind::NotHeld, Grade::Verified, 7);
        assert_eq!(check(&[seven]), Err(OutcomeError::Count(OutcomeKind::NotHeld)));
        let twice = check(&[erased("contacts", "email", 1), erased("contacts", "email", 2)]);
        assert_eq!(twice, Err(OutcomeError::Twice(OutcomeKind::Erased)));
        // On two grounds, or until two days, is not the same.
        let retained = |basis: &str, until: &str| Outcome {
            basis: basis.to_owned(),
            until: Some(until.parse().unwrap()),
            ..line("invoices", "name", OutcomeKind::Retained, Grade::RetainedUntil, 1)
        };
        let (day, later) = ("2033-01-01T00:00:00Z", "2034-01-01T00:00:00Z");
        assert_eq!(check(&[retained("tax", day), retained("claim", day), retained("tax", later)]), Ok(()));
    }

    #[test]
    fn who_claims_nothing_needs_nothing_to_show_it_by() {
        for kind in EvidenceKind::ALL {
            let mut given_up = erased_by(*kind, "", "");
            let outcome = &mut given_up.outcomes[0];
            (outcome.outcome, outcome.grade) = (OutcomeKind::Unconfirmed, Grade::None);
            outcome.basis = "the vendor was wound up".to_owned();
            assert_eq!((given_up.check(Action::Erasure), given_up.check_named()), (Ok(()), Ok(())));
            given_up.outcomes.push(erased_by(*kind, "", "").outcomes.remove(0));
            let named = given_up.check(Action::Erasure).and_then(|()| given_up.check_named());
            let reported = matches!(kind, EvidenceKind::ReadBack | EvidenceKind::SystemReport);
            assert_eq!(named.is_ok(), reported, "{kind:?}");
        }
    }

    #[test]
    fn only_what_left_the_live_data_is_in_backups_alone() {
        use OutcomeKind as K;
        let left = |outcome, grade| {
            Outcome { outcome, grade, ..erased_by(EvidenceKind::ReadBack, "", "").outcomes.remove(0) }.left_live_data()
        };
        for kind in OutcomeKind::ALL {
            let expected = matches!(kind, K::Erased | K::Pseudonymised | K::Rectified);
            for grade in [Grade::Executed, Grade::Verified] {
                assert_eq!(left(*kind, grade), expected, "{kind}");
            }
        }
        assert!(!left(K::Erased, Grade::ExpiresOn) && !left(K::Retained, Grade::RetainedUntil));
    }
}
