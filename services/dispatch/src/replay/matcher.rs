//! Sorts the keys that a system holds by whose they are, and has them matched in batches. Its memory is bounded, whatever comes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use quittance_domain::{
    identifier::{Identifier, IdentifierError, IdentifierKind},
    ids::CustomerId,
    replay::ReplayState,
    system::System,
};
use quittance_store::{ReplayLease, Store, StoreError, StoreResult};

use crate::Clock;

/// Keys of one customer that are matched at once.
const BATCH: usize = 500;
/// Keys of all customers that wait to be.
const BUFFERED_MAX: usize = 20_000;

/// A key of a system that customers share, which does not say whose it is: it is nobody's, rather than the wrong one's (I8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("customers share the system, and a key does not say whose it is")]
pub struct UnknownCustomer;

/// Steps after which the lease is held on to, where each is a transaction.
const HOLD_EVERY: usize = 200;

pub struct KeyMatcher {
    store: Store,
    clock: Arc<dyn Clock>,
    /// How long the lease lives after each heartbeat.
    lease_for: Duration,
    lease: ReplayLease,
    accepts: BTreeSet<IdentifierKind>,
    shared: bool,
    /// By the customer's own key at the system. Only those of whom something is kept: nobody else's keys matter.
    by_key: BTreeMap<String, Vec<CustomerId>>,
    waiting: HashMap<CustomerId, Vec<Identifier>>,
    buffered: usize,
    read: u64,
    matched: u64,
    left_out: u64,
}

impl KeyMatcher {
    pub async fn begin(
        store: Store,
        clock: Arc<dyn Clock>,
        lease_for: Duration,
        lease: ReplayLease,
        system: &System,
    ) -> StoreResult<Self> {
        let mut matcher = Self {
            store,
            clock,
            lease_for,
            lease,
            accepts: system.accepts(),
            shared: system.scope.is_shared(),
            by_key: BTreeMap::new(),
            waiting: HashMap::new(),
            buffered: 0,
            read: 0,
            matched: 0,
            left_out: 0,
        };
        for (n, customer) in matcher.store.customers_suppressed(&system.id).await?.into_iter().enumerate() {
            if n % HOLD_EVERY == 0 {
                matcher.hold().await?;
            }
            matcher.store.open_share(&customer, &matcher.lease).await?;
            if let Some(key) = system.customer_key(&customer) {
                matcher.by_key.entry(key).or_default().push(customer);
            }
        }
        Ok(matcher)
    }

    /// A heartbeat, with how far it has come.
    pub async fn hold(&self) -> StoreResult<()> {
        let now = self.clock.now();
        let expires_at = now.checked_add(self.lease_for).unwrap_or(now);
        let held = self.store.hold_replay(&self.lease, expires_at, Some((self.read, self.matched))).await?;
        if held { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    pub async fn take(
        &mut self,
        customer_key: Option<&str>,
        identifier: Identifier,
    ) -> StoreResult<Result<(), UnknownCustomer>> {
        self.read += 1;
        let whose = match self.whose(customer_key) {
            Ok(whose) => whose,
            Err(unknown) => return Ok(Err(unknown)),
        };
        if !self.accepts.contains(&identifier.kind()) {
            return Ok(Ok(()));
        }
        for customer in whose {
            let keys = self.waiting.entry(customer.clone()).or_default();
            keys.push(identifier.clone());
            self.buffered += 1;
            if keys.len() >= BATCH {
                self.match_of(&customer).await?;
            }
        }
        if self.buffered >= BUFFERED_MAX {
            self.match_waiting().await?;
        }
        Ok(Ok(()))
    }

    /// A key that is no identifier of its kind. Unless there is nothing in it, it may well be somebody's who was erased.
    pub fn leave_out(
        &mut self,
        customer_key: Option<&str>,
        kind: IdentifierKind,
        why: IdentifierError,
    ) -> Result<(), UnknownCustomer> {
        self.read += 1;
        let concerns = !self.whose(customer_key)?.is_empty() && self.accepts.contains(&kind);
        self.left_out += u64::from(concerns && why != IdentifierError::Empty);
        Ok(())
    }

    fn whose(&self, customer_key: Option<&str>) -> Result<Vec<CustomerId>, UnknownCustomer> {
        match customer_key {
            Some(key) => Ok(self.by_key.get(key).cloned().unwrap_or_default()),
            None if self.shared => Err(UnknownCustomer),
            None => Ok(self.by_key.values().flatten().cloned().collect()),
        }
    }

    async fn match_of(&mut self, customer: &CustomerId) -> StoreResult<()> {
        let keys = self.waiting.remove(customer).unwrap_or_default();
        self.buffered -= keys.len();
        self.matched += self.store.match_held(&self.lease, customer, &keys).await?;
        Ok(())
    }

    async fn match_waiting(&mut self) -> StoreResult<()> {
        let customers: Vec<CustomerId> = self.waiting.keys().cloned().collect();
        for (n, customer) in customers.into_iter().enumerate() {
            if n % HOLD_EVERY == 0 {
                self.hold().await?;
            }
            self.match_of(&customer).await?;
        }
        Ok(())
    }

    /// That was all. What is matched is instructed, unless it is too much, or only asked about, or not all could be matched. Gives how many
    /// keys were left out.
    pub async fn finish(mut self) -> StoreResult<u64> {
        self.match_waiting().await?;
        let replay = &self.lease.replay;
        let mut acting = 0;
        for (n, customer) in self.store.replay_customers(replay.id).await?.iter().enumerate() {
            if n % HOLD_EVERY == 0 {
                self.hold().await?;
            }
            acting += self.store.count_matches(customer, &self.lease).await?;
        }
        self.hold().await?;
        let reasons = self.reasons(acting);
        let to = if replay.dry_run {
            ReplayState::Completed
        } else if !reasons.is_empty() {
            ReplayState::AwaitingApproval
        } else if acting == 0 {
            ReplayState::Completed
        } else {
            ReplayState::Instructing
        };
        tracing::info!(replay = %replay.id, system = %replay.system, read = self.read, acting, left_out = self.left_out, state = %to, "a restored system was matched");
        let now = self.clock.now();
        let moved = self.store.move_replay(&self.lease, to, &reasons.join("; "), now, now).await?;
        if moved { Ok(self.left_out) } else { Err(StoreError::LeaseLost) }
    }

    /// Why a person must look before anything is instructed, or taken for done. A dry run is about what would be done alone.
    fn reasons(&self, acting: u64) -> Vec<String> {
        let replay = &self.lease.replay;
        let mut reasons = Vec::new();
        if self.left_out > 0 {
            reasons.push(format!(
                "{} of {} keys are no identifiers of their kind, and were matched with nobody: look at them in the system",
                self.left_out, self.read
            ));
        }
        if !replay.dry_run && replay.guard.stops(acting, self.read, self.matched) {
            reasons.push(format!(
                "{acting} identifiers are to be acted upon, of {} keys: more than {}, or than {} percent",
                self.read, replay.guard.matches_max, replay.guard.share_percent_max
            ));
        }
        reasons
    }
}
