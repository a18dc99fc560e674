//! What a customer can instruct.

use std::{collections::BTreeSet, fmt};

use crate::{
    identifier::{Identifier, IdentifierKind},
    ids::SystemId,
};

/// The four rights, and the lifting of a restriction (GDPR Art. 15-18).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    Access,
    Rectification,
    Erasure,
    Restriction,
    LiftRestriction,
}

/// Why we may act at all (I1, Art. 28(3)(a)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InstructionKind {
    CustomerRequest,
    AgreementTerm,
    LegalRequirement,
}

impl Action {
    /// Recipients are told of it (Art. 19).
    pub const fn concerns_recipients(self) -> bool {
        matches!(self, Self::Rectification | Self::Erasure | Self::Restriction)
    }
}

/// On which ground a restriction rests (Art. 18(1)(a)-(d)). While (b) or (c) stands, an erasure waits for the customer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RestrictionGround {
    AccuracyContested,
    UnlawfulProcessing,
    NeededForLegalClaims,
    ObjectionPending,
}

impl RestrictionGround {
    /// The subject asked us to keep the data: Art. 18(1)(b) and (c).
    pub const fn blocks_erasure(self) -> bool {
        matches!(self, Self::UnlawfulProcessing | Self::NeededForLegalClaims)
    }
}

/// Gives an enum its text in the database, the API's logs and the ledger: the serde name, both ways.
#[macro_export]
macro_rules! text_enum {
    ($type:ty, $($variant:ident => $text:literal),+ $(,)?) => {
        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

text_enum!(Action,
    Access => "ACCESS",
    Rectification => "RECTIFICATION",
    Erasure => "ERASURE",
    Restriction => "RESTRICTION",
    LiftRestriction => "LIFT_RESTRICTION",
);
text_enum!(InstructionKind,
    CustomerRequest => "CUSTOMER_REQUEST",
    AgreementTerm => "AGREEMENT_TERM",
    LegalRequirement => "LEGAL_REQUIREMENT",
);
text_enum!(RestrictionGround,
    AccuracyContested => "ACCURACY_CONTESTED",
    UnlawfulProcessing => "UNLAWFUL_PROCESSING",
    NeededForLegalClaims => "NEEDED_FOR_LEGAL_CLAIMS",
    ObjectionPending => "OBJECTION_PENDING",
);

/// One change that a rectification asks for (Art. 16). What it names is checked against the data map at intake.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Correction {
    pub collection: String,
    pub field: String,
    pub target: CorrectionTarget,
}

/// Which rows, and what is written.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CorrectionTarget {
    /// The subject's rows whose field now holds `old`, and no others.
    Replace { old: String, new: String },
    /// The one record with this key (in the map's key order), if it is the subject's.
    Record { key: Vec<String>, new: String },
    /// A supplementary statement, appended to the field.
    Append { statement: String },
}

/// A correction of a field that names the subject: flagged, and carried to every system that is keyed by its kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentifierChange {
    pub kind: IdentifierKind,
    /// Where the customer named it.
    pub collection: String,
    pub field: String,
    /// `None`: what stood there is no identifier of that kind, so nothing else can be keyed by it.
    pub old: Option<Identifier>,
    pub new: Identifier,
    /// Systems whose map has that field. They are corrected first: a wrong old value is found out there, and goes no further.
    pub named_at: BTreeSet<SystemId>,
}

// Old and new values are personal data (I10).
impl fmt::Debug for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Correction({}.{}, …)", self.collection, self.field)
    }
}

impl fmt::Debug for CorrectionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replace { .. } => "Replace(…)",
            Self::Record { .. } => "Record(…)",
            Self::Append { .. } => "Append(…)",
        })
    }
}
