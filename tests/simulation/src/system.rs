//! A system as it really is: its rows, and what was done to them. What a confirmation says is held against this (I5).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use quittance_domain::{
    country::Country,
    data_map::{DataMap, MapKind},
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, SystemId},
    system::{ConnectorKind, Registration, System, SystemLimits, SystemRole, SystemScope},
};

use crate::scenario::{By, CustomerNo, Erases, PERSONS, PersonId, SystemPlan};

/// The one collection of every system.
pub const COLLECTION: &str = "people";
/// What a row's name is before anybody corrects it.
pub const NAME: &str = "Somebody";

pub fn customer_id(customer: CustomerNo) -> String {
    format!("c{customer}")
}

pub fn typed_customer(customer: CustomerNo) -> CustomerId {
    #[expect(clippy::expect_used, reason = "a letter and a digit")]
    CustomerId::new(&customer_id(customer)).expect("a slug")
}

/// A person's identifier of a kind. The same person may be known to several customers. Made once: to normalise a phone number costs more than
/// a transaction.
pub fn identifier(kind: IdentifierKind, person: PersonId) -> Identifier {
    const KINDS: [IdentifierKind; 3] = [IdentifierKind::Email, IdentifierKind::Phone, IdentifierKind::UserId];
    static MADE: OnceLock<[[Identifier; PERSONS]; KINDS.len()]> = OnceLock::new();
    let made = MADE.get_or_init(|| KINDS.map(|kind| std::array::from_fn(|person| normalised(kind, person))));
    KINDS.iter().position(|k| *k == kind).map_or_else(|| normalised(kind, person), |at| made[at][person].clone())
}

fn normalised(kind: IdentifierKind, person: PersonId) -> Identifier {
    let raw = match kind {
        IdentifierKind::Email => format!("p{person}@example.org"),
        IdentifierKind::Phone => format!("+4670123456{person}"),
        _ => format!("u-{person}"),
    };
    #[expect(clippy::expect_used, reason = "three forms, each right")]
    Identifier::normalise(kind, &raw).expect("an identifier")
}

impl By {
    pub const fn kind(self) -> IdentifierKind {
        match self {
            Self::Email => IdentifierKind::Email,
            Self::UserId => IdentifierKind::UserId,
            Self::Phone => IdentifierKind::Phone,
        }
    }
}

impl SystemPlan {
    pub fn holds(&self, customer: CustomerNo) -> bool {
        self.customers.as_ref().is_none_or(|of| of.contains(&customer))
    }

    /// What its rows carry for a customer.
    pub fn key(&self, customer: CustomerNo) -> String {
        let id = customer_id(customer);
        if self.customers.is_some() { format!("k-{id}") } else { id }
    }

    pub fn yaml(&self) -> String {
        let erase = match self.erases {
            Erases::Delete => "delete",
            Erases::Mask => "mask",
        };
        let (kind, yields) =
            (self.by.kind(), if self.yields_user_id { "    yields: {user_id: user_id}\n" } else { "" });
        format!(
            "version: 1\nmax_rows_per_subject: 500\ncollections:\n  {COLLECTION}:\n    table: people\n    key: [id]\n    \
             customer_field: tenant\n    identifiers:\n      - {{kind: {kind}, field: {kind}}}\n{yields}    fields:\n      \
             {kind}: {{category: contact, erase: set_null}}\n      \
             name: {{category: display_name, rectify: true, erase: {{constant: \"-\"}}}}\n    erase: {erase}\n    \
             restriction: {{field: restricted, set: \"yes\"}}\n"
        )
    }

    pub fn id(&self) -> SystemId {
        #[expect(clippy::expect_used, reason = "the ids are in the scenario's source")]
        SystemId::new(self.id).expect("a slug")
    }

    pub fn system(&self) -> System {
        let kind = if self.remote { MapKind::Declared } else { MapKind::Sql };
        #[expect(clippy::expect_used, reason = "the one map of every run")]
        let map = DataMap::parse(&self.yaml(), kind).expect("a data map");
        let scope = match &self.customers {
            None => SystemScope::AllCustomers,
            Some(of) => SystemScope::Customers(of.iter().map(|c| (typed_customer(*c), self.key(*c))).collect()),
        };
        System {
            registration: Registration {
                id: self.id(),
                display_name: self.id.to_owned(),
                role: SystemRole::StorageBackend,
                #[expect(clippy::expect_used, reason = "there is such a country")]
                country: Country::parse("NL").expect("a country"),
                connector: if self.remote { ConnectorKind::Remote } else { ConnectorKind::Sql },
                connection_secret: None,
                scope,
                accepts: BTreeSet::new(),
                yields: BTreeSet::new(),
                settle_after_s: self.settle_after_s,
                backup_retention_s: 0,
                grace_period_s: 0,
                limits: SystemLimits {
                    concurrency: self.concurrency,
                    batches_per_second: 0,
                    batch_size: self.batch_size,
                },
            },
            map_version: 1,
            map: Arc::new(map),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Row {
    pub customer: CustomerNo,
    /// As it stands in the row.
    pub key: String,
    pub person: PersonId,
    pub name: String,
    pub restricted: bool,
    pub held: bool,
    /// Deleted, or masked.
    pub erased_at: Option<Duration>,
}

/// The system's own memory.
#[derive(Debug)]
pub struct SystemState {
    pub plan: SystemPlan,
    pub rows: BTreeMap<u64, Row>,
    pub down_until: Duration,
    /// The rows as they were, for defects that are about that.
    pub earlier: BTreeMap<u64, Row>,
}

/// How a person stood in it at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Truth {
    /// Neither erased nor held.
    pub live: u64,
    pub held: u64,
    pub unrestricted: u64,
    /// Restricted though nothing holds it.
    pub restricted: u64,
}

impl SystemState {
    pub const fn new(plan: SystemPlan) -> Self {
        Self { plan, rows: BTreeMap::new(), down_until: Duration::ZERO, earlier: BTreeMap::new() }
    }

    pub fn write(&mut self, customer: CustomerNo, person: PersonId, rows: u64) {
        for _ in 0..rows {
            let id = self.rows.len() as u64 + 1;
            let held = self.plan.holds_one_in.is_some_and(|n| id.is_multiple_of(n));
            let (key, name) = (self.plan.key(customer), NAME.to_owned());
            self.rows.insert(id, Row { customer, key, person, name, restricted: false, held, erased_at: None });
        }
    }

    pub fn as_it_was(&self) -> Self {
        Self { rows: self.earlier.clone(), ..Self::new(self.plan.clone()) }
    }

    /// Whom identifiers name, as far as this system knows the kind.
    pub fn persons(&self, identifiers: &[Identifier]) -> impl Iterator<Item = PersonId> {
        let kind = self.plan.by.kind();
        (0..PERSONS).filter(move |person| identifiers.contains(&identifier(kind, *person)))
    }

    /// Rows that a look finds by the customer's key and identifiers.
    pub fn found<'a>(&'a self, key: &str, identifiers: &[Identifier]) -> impl Iterator<Item = (u64, &'a Row)> {
        let persons: BTreeSet<PersonId> = self.persons(identifiers).collect();
        let key = key.to_owned();
        self.rows.iter().filter_map(move |(id, row)| {
            (row.key == key && persons.contains(&row.person) && row.erased_at.is_none()).then_some((*id, row))
        })
    }

    /// Whether a read-back may still see it: copies of the system take their time.
    pub fn lingers(&self, row: u64, now: Duration) -> bool {
        let lag = Duration::from_secs(self.plan.settle_after_s.into());
        self.rows.get(&row).and_then(|row| row.erased_at).is_some_and(|at| !lag.is_zero() && now < at + lag)
    }

    pub fn truth(&self, customer: CustomerNo, person: PersonId) -> Truth {
        let mut truth = Truth::default();
        for row in self.rows.values().filter(|r| r.customer == customer && r.person == person && r.erased_at.is_none())
        {
            if row.held {
                truth.held += 1
            } else {
                truth.live += 1
            }
            if !row.restricted {
                truth.unrestricted += 1;
            } else if !row.held {
                truth.restricted += 1;
            }
        }
        truth
    }
}
