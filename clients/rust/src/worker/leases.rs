//! The leases in hand, and the heartbeat that keeps them.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::{
    Client,
    api::{ExtendLeasesRequest, Lease},
};

/// The contract's bound.
const LEASES_MAX: usize = 1_000;
/// However long a lease is: a beat at least this often, and never without a pause.
const BEAT_MAX: Duration = Duration::from_secs(10);
const BEAT_MIN: Duration = Duration::from_millis(250);
/// Without heartbeats nothing is worked on for longer, whatever the service says.
const LEASE_MAX: Duration = Duration::from_secs(600);
/// Where only a time by the service's clock is known: ours may be ahead of it by more than the lease is long.
const REMAINING_MIN: Duration = Duration::from_secs(3);

struct Held {
    lease: u64,
    /// After this the task may be somebody else's.
    until: Instant,
    beat: Instant,
    lost: CancellationToken,
}

/// Leases by task name.
#[derive(Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<String, Held>>,
    changed: Notify,
}

/// What an answer says of how long leases live.
pub(super) struct Term {
    pub(super) duration: Option<prost_types::Duration>,
    pub(super) expire_time: Option<prost_types::Timestamp>,
}

impl Term {
    /// Until when they live at least. The service counts from when the call came, which was after it was sent: however long the answer took,
    /// and whatever our wall clock says, no lease is thought to live that has passed. An older service tells a time by its own clock only.
    pub(super) fn until(self, sent: Instant) -> Instant {
        if let Some(duration) = self.duration {
            return sent + Duration::try_from(duration).unwrap_or_default().min(LEASE_MAX);
        }
        let expire = self.expire_time.and_then(|at| SystemTime::try_from(at).ok());
        let remaining = expire.and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default();
        Instant::now() + remaining.clamp(REMAINING_MIN, LEASE_MAX)
    }
}

/// How long to wait for the next beat: two may fail before the lease passes.
pub(super) fn pause(until: Instant) -> Duration {
    (until.saturating_duration_since(Instant::now()) / 3).clamp(BEAT_MIN, BEAT_MAX)
}

impl Leases {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Nothing under this lock can panic half-way.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to keep a lease. The token is cancelled when it is lost.
    pub(super) fn hold(&self, task: &str, lease: u64, until: Instant) -> CancellationToken {
        let beat = Instant::now() + pause(until);
        let lost = CancellationToken::new();
        let before = self.held().insert(task.to_owned(), Held { lease, until, beat, lost: lost.clone() });
        // Leased anew while we still worked on it: the earlier lease had passed.
        if let Some(before) = before {
            before.lost.cancel();
        }
        self.changed.notify_one();
        lost
    }

    /// The task is done, or dropped.
    pub(super) fn release(&self, task: &str, lease: u64) {
        let mut held = self.held();
        if held.get(task).is_some_and(|h| h.lease == lease) {
            held.remove(task);
        }
    }

    /// Whether the task is ours still.
    pub(super) fn holds(&self, task: &str, lease: u64) -> bool {
        self.held().get(task).is_some_and(|h| h.lease == lease && h.until > Instant::now())
    }

    /// Works for as long as the lease is held; `None`: it is lost. Looked at before every step: where this process stood still meanwhile, the
    /// work may be woken before the heartbeat is.
    pub(super) async fn while_held<T>(
        &self,
        task: &str,
        lease: u64,
        lost: CancellationToken,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let (mut lost, mut work) = (pin!(lost.cancelled()), pin!(work));
        poll_fn(|context| {
            if lost.as_mut().poll(context).is_ready() || !self.holds(task, lease) {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    fn lose(&self, lease: &Lease) {
        let mut held = self.held();
        if held.get(&lease.task).is_some_and(|h| h.lease == lease.lease)
            && let Some(lost) = held.remove(&lease.task)
        {
            lost.lost.cancel();
        }
    }

    /// Those whose time is over: the heartbeat did not get through.
    fn lose_expired(&self) {
        let now = Instant::now();
        self.held().retain(|_, held| {
            let alive = held.until > now;
            if !alive {
                held.lost.cancel();
            }
            alive
        });
    }

    fn renew(&self, leases: &[Lease], until: Instant) {
        let beat = Instant::now() + pause(until);
        let mut held = self.held();
        for lease in leases {
            if let Some(entry) = held.get_mut(&lease.task).filter(|h| h.lease == lease.lease) {
                (entry.beat, entry.until) = (beat, until);
            }
        }
    }

    /// The beat did not get through: another soon.
    fn postpone(&self, leases: &[Lease]) {
        let now = Instant::now();
        let mut held = self.held();
        for lease in leases {
            if let Some(entry) = held.get_mut(&lease.task) {
                entry.beat = now + pause(entry.until);
            }
        }
    }

    /// When something is to be done next.
    fn next(&self) -> Option<Instant> {
        self.held().values().map(|held| held.beat.min(held.until)).min()
    }

    /// Those that are due, with the time that is left; all of them where one is, so that beats stay together.
    fn due(&self) -> Option<(Vec<Lease>, Duration)> {
        let now = Instant::now();
        let held = self.held();
        let first = held.values().map(|h| h.beat).min()?;
        if first > now {
            return None;
        }
        let left = held.values().map(|h| h.until).min()?.saturating_duration_since(now);
        Some((held.iter().map(|(task, h)| Lease { task: task.clone(), lease: h.lease }).collect(), left))
    }
}

/// Beats until told to stop.
pub(super) async fn keep(leases: Arc<Leases>, client: Client, system: String, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let next = leases.next();
        let pause = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = leases.changed.notified() => continue,
            () = pause => {}
        }
        leases.lose_expired();
        let Some((due, left)) = leases.due() else { continue };
        for chunk in due.chunks(LEASES_MAX) {
            let mut request = Request::new(ExtendLeasesRequest { system: system.clone(), leases: chunk.to_vec() });
            // An answer that comes after the leases passed is no use, and one that hangs must leave time for another try.
            request.set_timeout((left / 2).max(BEAT_MIN));
            let sent = Instant::now();
            match client.connectors().extend_leases(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    for lease in chunk.iter().filter(|lease| answer.lost.contains(&lease.task)) {
                        leases.lose(lease);
                    }
                    let term = Term { duration: answer.lease_duration, expire_time: answer.lease_expire_time };
                    leases.renew(chunk, term.until(sent));
                }
                Err(status) => {
                    tracing::warn!(code = ?status.code(), leases = chunk.len(), "the heartbeat did not get through");
                    leases.postpone(chunk);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(number: u64) -> Lease {
        Lease { task: "t".to_owned(), lease: number }
    }

    const TERM: Duration = Duration::from_secs(3);

    fn in_term() -> Instant {
        Instant::now() + TERM
    }

    #[tokio::test]
    async fn a_lease_taken_anew_ends_the_earlier_one_only() {
        let leases = Leases::default();
        let first = leases.hold("t", 1, in_term());
        let second = leases.hold("t", 2, in_term());
        assert!(first.is_cancelled());
        leases.release("t", 1);
        leases.lose(&lease(1));
        assert!(!second.is_cancelled() && leases.holds("t", 2) && !leases.holds("t", 1));
        leases.lose(&lease(2));
        assert!(second.is_cancelled());
        assert!(leases.next().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn without_beats_a_lease_is_lost_by_our_own_clock() {
        let leases = Leases::default();
        let lost = leases.hold("t", 1, in_term());
        assert!(leases.due().is_none());
        tokio::time::advance(TERM / 2).await;
        assert_eq!(leases.due().map(|(due, _)| due), Some(vec![lease(1)]));
        leases.lose_expired();
        assert!(!lost.is_cancelled());
        tokio::time::advance(TERM).await;
        assert!(!leases.holds("t", 1));
        leases.lose_expired();
        assert!(lost.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_counted_from_when_it_was_asked_for_and_by_no_wall_clock() {
        let sent = Instant::now();
        // The answer was long on its way; the service's clock is an hour ahead.
        tokio::time::advance(Duration::from_secs(2)).await;
        let expire_time = Some((SystemTime::now() + Duration::from_secs(3_600)).into());
        let term = |duration| Term { duration, expire_time };
        let lives = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        assert_eq!(term(lives(3)).until(sent), sent + TERM);
        assert_eq!(term(lives(86_400)).until(sent), sent + LEASE_MAX);
        assert_eq!(term(lives(-1)).until(sent), sent);
        // An older service.
        assert_eq!(term(None).until(sent), Instant::now() + LEASE_MAX);
        assert_eq!(Term { duration: None, expire_time: None }.until(sent), Instant::now() + REMAINING_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_lease_lives_though_two_beats_hang() {
        let leases = Leases::default();
        leases.hold("t", 1, in_term());
        for _ in 0..2 {
            tokio::time::advance(leases.next().unwrap().saturating_duration_since(Instant::now())).await;
            let (due, left) = leases.due().unwrap();
            tokio::time::advance(left / 2).await;
            leases.postpone(&due);
        }
        tokio::time::advance(leases.next().unwrap().saturating_duration_since(Instant::now())).await;
        assert!(leases.holds("t", 1) && leases.due().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_standstill_nothing_is_done_before_the_lease_is_looked_at() {
        let leases = Leases::default();
        let lost = leases.hold("t", 1, in_term());
        let mut steps = 0;
        let work = async {
            loop {
                steps += 1;
                tokio::task::yield_now().await;
            }
        };
        {
            let mut held = pin!(leases.while_held("t", 1, lost, work));
            assert_eq!(futures::poll!(&mut held), Poll::Pending::<Option<()>>);
            assert_eq!(futures::poll!(&mut held), Poll::Pending);
            // No heartbeat has seen it yet.
            tokio::time::advance(TERM).await;
            assert_eq!(futures::poll!(&mut held), Poll::Ready(None));
        }
        assert_eq!(steps, 2);
    }
}
