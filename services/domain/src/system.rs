//! Systems: where personal data lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Timestamp,
    action::{Correction, IdentifierChange},
    country::Country,
    data_map::{Collection, DataMap},
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, SystemId},
    outcome::Outcome,
    text_enum,
};

/// Whose system it is (Art. 28(2), (4)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SystemRole {
    StorageBackend,
    SubProcessor,
    /// Not ours to instruct: it received data, and is told (Art. 19).
    Recipient,
}

text_enum!(SystemRole,
    StorageBackend => "STORAGE_BACKEND",
    SubProcessor => "SUB_PROCESSOR",
    Recipient => "RECIPIENT",
);

/// How we speak to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectorKind {
    Sql,
    /// A worker pulls its tasks.
    Remote,
}

text_enum!(ConnectorKind, Sql => "SQL", Remote => "REMOTE");

/// Whose data it may hold.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum SystemScope {
    /// Everybody's, those who come later too.
    AllCustomers,
    /// These, each with its own key at the system.
    Customers(BTreeMap<CustomerId, String>),
}

/// Why customers cannot be added to those of a system.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScopeError {
    #[error("the system holds every customer's data already")]
    AllCustomers,
    #[error("{0:?} is at the system under another key already, which its rows carry: it cannot be changed")]
    KeyChanged(CustomerId),
    #[error("{0:?} is at the system under this key already: each would be shown, and erase, the other's rows")]
    KeyTaken(CustomerId),
}

impl SystemScope {
    /// Those of before, and these. None is ever taken out: its rows would be forgotten (I3).
    pub fn with(&self, added: &BTreeMap<CustomerId, String>) -> Result<Self, ScopeError> {
        let Self::Customers(keys) = self else { return Err(ScopeError::AllCustomers) };
        let mut keys = keys.clone();
        for (customer, key) in added {
            if keys.get(customer).is_some_and(|known| known != key) {
                return Err(ScopeError::KeyChanged(customer.clone()));
            }
            if let Some((other, _)) = keys.iter().find(|(other, known)| *known == key && *other != customer) {
                return Err(ScopeError::KeyTaken(other.clone()));
            }
            keys.insert(customer.clone(), key.clone());
        }
        Ok(Self::Customers(keys))
    }

    /// Several customers may share it.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::AllCustomers => true,
            Self::Customers(keys) => keys.len() > 1,
        }
    }
}

/// How hard it is worked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct SystemLimits {
    /// Batches at once.
    pub concurrency: u32,
    /// Batches a second; 0 is no limit.
    pub batches_per_second: u32,
    /// Subjects in one batch.
    pub batch_size: u32,
}

impl SystemLimits {
    pub const CONCURRENCY_MAX: u32 = 64;
    pub const BATCH_SIZE_MAX: u32 = 1000;
}

impl Default for SystemLimits {
    fn default() -> Self {
        Self { concurrency: 4, batches_per_second: 0, batch_size: 1000 }
    }
}

/// What was registered of a system, beside its data map.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Registration {
    pub id: SystemId,
    pub display_name: String,
    pub role: SystemRole,
    pub country: Country,
    pub connector: ConnectorKind,
    /// Name of the secret that holds its URL; the URL itself is never stored.
    pub connection_secret: Option<String>,
    pub scope: SystemScope,
    /// Kinds beside those that the map names.
    pub accepts: BTreeSet<IdentifierKind>,
    pub yields: BTreeSet<IdentifierKind>,
    pub settle_after_s: u32,
    pub backup_retention_s: u64,
    pub grace_period_s: u64,
    pub limits: SystemLimits,
}

impl Registration {
    /// Whether it is what was sent, bar customers that were added since.
    pub fn began_as(&self, sent: &Self) -> bool {
        let grown = match (&self.scope, &sent.scope) {
            (SystemScope::Customers(now), SystemScope::Customers(then)) => {
                then.iter().all(|(customer, key)| now.get(customer) == Some(key))
            }
            (now, then) => now == then,
        };
        grown && Self { scope: sent.scope.clone(), ..self.clone() } == *sent
    }

    /// Collections of the map that do not say whose a row is, though several customers may share the system (I8).
    pub fn unconfined<'m>(&self, map: &'m DataMap) -> impl Iterator<Item = &'m Collection> {
        let is_shared = self.connector == ConnectorKind::Sql && self.scope.is_shared();
        map.collections.iter().filter(move |c| is_shared && !c.identifiers.is_empty() && c.customer_field.is_none())
    }
}

/// A subject, as far as one system is concerned.
#[derive(Clone, Debug)]
pub struct SubjectShare {
    /// Of kinds that it accepts.
    pub identifiers: Vec<Identifier>,
    /// That name a field of its map.
    pub corrections: Vec<Correction>,
    /// Of kinds that stand in its rows.
    pub identifier_changes: Vec<IdentifierChange>,
}

/// A registered system with one version of its map. It cannot be read back without one: an empty map would find nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct System {
    pub registration: Registration,
    pub map_version: u32,
    pub map: Arc<DataMap>,
}

impl std::ops::Deref for System {
    type Target = Registration;

    fn deref(&self) -> &Registration {
        &self.registration
    }
}

impl System {
    /// The key that its rows carry for the customer; `None` if it holds nothing of that customer's.
    pub fn customer_key(&self, customer: &CustomerId) -> Option<String> {
        match &self.scope {
            SystemScope::AllCustomers => Some(customer.as_str().to_owned()),
            SystemScope::Customers(keys) => keys.get(customer).cloned(),
        }
    }

    /// It holds the customer's data on our account: every request has a task there (I3). A recipient is only told.
    pub fn holds_data_of(&self, customer: &CustomerId) -> bool {
        self.role != SystemRole::Recipient && self.customer_key(customer).is_some()
    }

    /// When the last backup is gone that holds what left the live data by these outcomes, confirmed at `at`; `None` if nothing did, or if it
    /// keeps none.
    pub fn backups_expire_at(&self, outcomes: &[Outcome], at: Timestamp) -> Option<Timestamp> {
        let retention = std::time::Duration::from_secs(self.backup_retention_s);
        let in_backups = !retention.is_zero() && outcomes.iter().any(Outcome::left_live_data);
        in_backups.then(|| at.checked_add(retention).unwrap_or(Timestamp::MAX))
    }

    pub fn accepts(&self) -> BTreeSet<IdentifierKind> {
        self.map.accepts().chain(self.accepts.iter().copied()).collect()
    }

    /// What it gets of a subject: nobody learns more of a person than it needs to find and to correct.
    pub fn share(
        &self,
        identifiers: &[Identifier],
        corrections: &[Correction],
        changes: &[IdentifierChange],
    ) -> SubjectShare {
        let (accepts, yields) = (self.accepts(), self.yields());
        let known = |kind: IdentifierKind| accepts.contains(&kind) || yields.contains(&kind);
        // The other corrections are for other systems: intake has made sure that each is somebody's.
        let mapped = |c: &&Correction| self.map.collection(&c.collection).is_some_and(|m| m.field(&c.field).is_some());
        SubjectShare {
            identifiers: identifiers.iter().filter(|i| accepts.contains(&i.kind())).cloned().collect(),
            corrections: corrections.iter().filter(mapped).map(|c| self.map.as_written(c)).collect(),
            identifier_changes: changes.iter().filter(|c| c.old.is_some() && known(c.kind)).cloned().collect(),
        }
    }

    pub fn yields(&self) -> BTreeSet<IdentifierKind> {
        self.map.yields().chain(self.yields.iter().copied()).collect()
    }
}
