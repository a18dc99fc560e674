//! Replays: a system was restored from a backup, and what was instructed there since is carried out again
//! (docs/decisions/0006-replay.md).

mod matcher;

use std::{sync::Arc, time::Duration};

pub use matcher::{KeyMatcher, UnknownCustomer};

use quittance_connectors::{Connector, ConnectorError, HeldPage, HeldPlace};
use quittance_domain::{
    Timestamp,
    ids::{CustomerId, SystemId},
    replay::ReplayState,
    system::{ConnectorKind, System},
};
use quittance_store::{IntakeContext, ReplayLease, ReplayWork, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::{Clock, ConnectorRegistry, DispatchHandle, DispatchLimits, TopologyCache};

/// How often replays are looked for; they are rare, and take long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a page is asked for again, before the replay is left for a while.
const PAGE_TRIES: u32 = 5;
/// When a system is asked again that was not there.
const LATER: Duration = Duration::from_secs(15);
/// When a person is looked at again about whom something else is open, and requests that are not carried out yet.
const SOON: Duration = Duration::from_secs(3);
/// Systems may change while a chunk is prepared; more often than this they do not.
const TOPOLOGY_TRIES: u32 = 5;

/// Works on replays, one after the other, until it drains. Others take over what it leaves, by the lease.
pub struct Replays {
    store: Store,
    clock: Arc<dyn Clock>,
    limits: DispatchLimits,
    topology: Arc<TopologyCache>,
    connectors: Arc<ConnectorRegistry>,
    dispatch: DispatchHandle,
    worker: String,
}

/// Why a step ended early.
enum Stop {
    /// Cancelled, or somebody else's by now.
    Lost,
    Later(Duration),
    Failed(String),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::Lost,
            error if error.is_transient() => Self::Store(error),
            error => Self::Failed(error.to_string()),
        }
    }
}

type Step<T> = Result<T, Stop>;

impl Replays {
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        limits: DispatchLimits,
        topology: Arc<TopologyCache>,
        connectors: Arc<ConnectorRegistry>,
        dispatch: DispatchHandle,
        worker: String,
    ) -> Self {
        Self { store, clock, limits, topology, connectors, dispatch, worker }
    }

    pub async fn run(self, drain: CancellationToken) {
        while !drain.is_cancelled() {
            let worked = match self.lease().await {
                Ok(Some(lease)) => {
                    tokio::select! {
                        () = self.work(&lease) => {}
                        // Its lease passes, and another one begins the step anew.
                        () = drain.cancelled() => {}
                    }
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    tracing::warn!(%error, "the store could not be asked for replays: asked again soon");
                    false
                }
            };
            if !worked {
                tokio::select! {
                    () = drain.cancelled() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        }
    }

    async fn lease(&self) -> Result<Option<ReplayLease>, StoreError> {
        let topology = self.topology.get().await?;
        let mine = topology.systems.iter().filter(|s| s.connector == ConnectorKind::Sql);
        let asks: Vec<SystemId> = mine.map(|s| s.id.clone()).collect();
        let work = ReplayWork::InProcess { asks: &asks };
        self.store.lease_replay(work, &self.worker, self.clock.now(), self.after(self.limits.lease())).await
    }

    fn after(&self, wait: Duration) -> Timestamp {
        let now = self.clock.now();
        now.checked_add(wait).unwrap_or(now)
    }

    /// One step: until the replay's state changes, or it has to wait.
    async fn work(&self, lease: &ReplayLease) {
        let (replay, system) = (lease.replay.id, &lease.replay.system);
        let stepped = match lease.replay.state {
            ReplayState::Matching => self.match_all(lease).await,
            ReplayState::Instructing => self.instruct_all(lease).await,
            ReplayState::Confirming => self.look_whether_done(lease).await,
            ReplayState::AwaitingApproval => Ok(()),
            ReplayState::Completed | ReplayState::Cancelled | ReplayState::Failed => {
                self.store.record_replay(lease, self.clock.now()).await.map_err(Stop::from)
            }
        };
        let ended = match stepped {
            Ok(()) => Ok(true),
            Err(Stop::Lost) => return tracing::info!(%replay, %system, "a replay was cancelled, or taken over"),
            Err(Stop::Later(wait)) => self.store.hold_replay(lease, self.after(wait), None).await,
            Err(Stop::Store(error)) => Err(error),
            Err(Stop::Failed(reason)) => {
                tracing::warn!(%replay, %system, reason, "a replay failed");
                self.go_on(lease, ReplayState::Failed, &reason).await
            }
        };
        if let Err(error) = ended {
            tracing::warn!(%replay, %system, %error, "a replay is put off: the store was not there");
        }
    }

    async fn go_on(&self, lease: &ReplayLease, to: ReplayState, reason: &str) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.store.move_replay(lease, to, reason, now, now).await
    }

    async fn hold(&self, lease: &ReplayLease) -> Step<()> {
        let held = self.store.hold_replay(lease, self.after(self.limits.lease()), None).await?;
        if held { Ok(()) } else { Err(Stop::Lost) }
    }

    /// The system says what it holds, page by page; from the beginning, after a crash.
    async fn match_all(&self, lease: &ReplayLease) -> Step<()> {
        let topology = self.topology.get().await?;
        let gone = || Stop::Failed("the system is not registered".to_owned());
        let system = topology.system(&lease.replay.system).ok_or_else(gone)?;
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let mut matcher = KeyMatcher::begin(store, clock, self.limits.lease(), lease.clone(), system).await?;
        let connector = self.connectors.get(system).await.map_err(of_connector)?;
        let mut after: Option<HeldPlace> = None;
        loop {
            let page = self.page(connector.as_ref(), after.as_ref(), &matcher).await?;
            for key in page.keys {
                let known = matcher.take(key.customer_key.as_deref(), key.identifier).await?;
                known.map_err(|unknown| Stop::Failed(unknown.to_string()))?;
            }
            matcher.hold().await?;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        matcher.finish().await?;
        Ok(())
    }

    async fn page(&self, connector: &dyn Connector, after: Option<&HeldPlace>, matcher: &KeyMatcher) -> Step<HeldPage> {
        let mut tries = 1;
        loop {
            match connector.held(after, self.limits.replay_page, self.limits.target_time_limit()).await {
                Ok(page) => return Ok(page),
                Err(ConnectorError::Unavailable(_) | ConnectorError::OutOfTime(_)) if tries < PAGE_TRIES => {
                    tokio::time::sleep(self.limits.retry_base() * tries).await;
                    matcher.hold().await?;
                    tries += 1;
                }
                Err(error) => return Err(of_connector(error)),
            }
        }
    }

    async fn instruct_all(&self, lease: &ReplayLease) -> Step<()> {
        let id = lease.replay.id;
        let topology = self.topology.get().await?;
        let gone = || Stop::Failed("the system is not registered".to_owned());
        let system = topology.system(&lease.replay.system).ok_or_else(gone)?.clone();
        loop {
            self.hold(lease).await?;
            let (waiting, open) = self.store.replay_remains(id).await?;
            if waiting == 0 {
                self.go_on(lease, ReplayState::Confirming, "").await?;
                return Ok(());
            }
            // A match becomes one request at most.
            let may_open = u32::try_from(self.limits.replay_open_max.saturating_sub(open)).unwrap_or(u32::MAX);
            let mut left = self.limits.replay_chunk.min(may_open);
            // What is open may be so for long: other systems' replays have their turn meanwhile.
            if left == 0 {
                return Err(Stop::Later(SOON));
            }
            let due = self.store.replay_due(id, self.clock.now()).await?;
            if due.is_empty() {
                return Err(Stop::Later(SOON));
            }
            for customer in due {
                left = left.saturating_sub(self.instruct(lease, &system, &customer, left).await?);
                if left == 0 {
                    break;
                }
            }
            self.dispatch.wake();
            tokio::time::sleep(self.limits.replay_pause()).await;
        }
    }

    /// Makes the next requests of one customer. Gives how many matches they come of.
    async fn instruct(
        &self,
        lease: &ReplayLease,
        system: &System,
        customer: &CustomerId,
        matches_max: u32,
    ) -> Step<u32> {
        let now = self.clock.now();
        let follow_ups = self.store.next_follow_ups(lease, customer, matches_max, now).await?;
        let looked_at = u32::try_from(follow_ups.looked_at).unwrap_or(u32::MAX);
        if follow_ups.intakes.is_empty() {
            return Ok(looked_at);
        }
        let agreement = self.store.customer(customer).await?.agreement;
        if !agreement.allowed_countries.contains(&system.country) {
            let why = format!("the agreement with {customer} does not allow {}, where the system is", system.country);
            return Err(Stop::Failed(why));
        }
        let mut tries = 1;
        let made = loop {
            let topology = self.topology.get().await?;
            let by = &lease.replay.asked_by;
            let ctx = IntakeContext { customer, by, now, agreement: &agreement, topology: &topology };
            match self.store.instruct_follow_ups(&ctx, lease, &follow_ups, self.after(SOON)).await {
                Err(StoreError::WrongState(_)) if tries < TOPOLOGY_TRIES => {
                    self.topology.refresh().await?;
                    tries += 1;
                }
                made => break made?,
            }
        };
        tracing::info!(replay = %lease.replay.id, %customer, requests = made, "follow-up requests of a replay were made");
        Ok(looked_at)
    }

    async fn look_whether_done(&self, lease: &ReplayLease) -> Step<()> {
        match self.store.replay_remains(lease.replay.id).await? {
            (0, 0) => {
                self.go_on(lease, ReplayState::Completed, "").await?;
                Ok(())
            }
            _ => Err(Stop::Later(SOON)),
        }
    }
}

fn of_connector(error: ConnectorError) -> Stop {
    match error {
        ConnectorError::Unavailable(reason) | ConnectorError::OutOfTime(reason) => {
            tracing::warn!(reason, "a restored system cannot be asked what it holds: asked again soon");
            Stop::Later(LATER)
        }
        ConnectorError::Refused(_) => Stop::Failed(error.to_string()),
    }
}
