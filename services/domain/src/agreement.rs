//! The data-processing agreement with one customer (Art. 28(3)), in versions.

use std::collections::BTreeSet;

use crate::{
    CLOCKS_APART_MAX, Timestamp,
    country::Country,
    ids::{RecipientId, SystemId},
};

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Agreement {
    /// 1, 2, …
    pub version: u32,
    pub signed_at: Timestamp,
    /// Calendar days in `time_zone`.
    pub window_days: u16,
    /// How long after its closing a request's identifiers, match sets and records are kept, in days of 24 hours.
    #[serde(default = "retention_days_default")]
    pub retention_days: u16,
    /// IANA name.
    pub time_zone: String,
    pub allowed_countries: BTreeSet<Country>,
    pub contacts: Vec<Contact>,
    #[serde(default)]
    pub facts: ProcessingFacts,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<Recipient>,
}

/// To whom the customer's data were disclosed: told of rectification, erasure and restriction where the instruction says so (Art. 19).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Recipient {
    pub id: RecipientId,
    pub display_name: String,
    pub contact: String,
    /// What it received, in words.
    pub received: String,
    /// The system by which we can tell it. Without one it is listed, and the customer tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemId>,
}

impl Agreement {
    /// Art. 28 agreements of the reference deployments all say thirty.
    pub const WINDOW_DAYS_DEFAULT: u16 = 30;
    pub const WINDOW_DAYS_MAX: u16 = 90;
    pub const RETENTION_DAYS_DEFAULT: u16 = 30;
    pub const RETENTION_DAYS_MAX: u16 = 366;

    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.signed_at.duration_since(now) <= CLOCKS_APART_MAX
    }
}

/// Of agreements that were signed before they said so.
const fn retention_days_default() -> u16 {
    Agreement::RETENTION_DAYS_DEFAULT
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Contact {
    pub role: String,
    pub email: String,
    pub display_name: String,
}

/// What an access package (Art. 15(1)) and the record of processing (Art. 30(2)) say beside the data.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ProcessingFacts {
    pub controller: String,
    pub representative: String,
    pub data_protection_officer: String,
    pub purposes: Vec<String>,
    pub recipients: Vec<String>,
    pub processing_categories: Vec<String>,
    pub source: String,
    pub automated_decisions: String,
    pub security_measures: String,
}
