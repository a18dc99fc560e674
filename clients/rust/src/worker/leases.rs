//! The leases in hand, and the heartbeat that keeps them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use prost_types::Timestamp;
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
/// However long a lease is said to be, for the two clocks may differ: a beat at least this often, and never without a pause.
const BEAT_MAX: Duration = Duration::from_secs(10);
const BEAT_MIN: Duration = Duration::from_millis(250);
const REMAINING_MIN: Duration = Duration::from_secs(3);
const REMAINING_MAX: Duration = Duration::from_secs(600);

struct Held {
    lease: u64,
    /// By our own clock. After this the task may be somebody else's.
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

/// When to beat, and until when the lease holds. Counted from the answer's arrival; a service clock that is ahead or behind moves it, hence
/// the bounds.
fn times(expire: Option<Timestamp>) -> (Instant, Instant) {
    let expire = expire.and_then(|at| SystemTime::try_from(at).ok());
    let remaining = expire.and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default();
    let remaining = remaining.clamp(REMAINING_MIN, REMAINING_MAX);
    let now = Instant::now();
    (now + (remaining / 3).clamp(BEAT_MIN, BEAT_MAX), now + remaining)
}

impl Leases {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Nothing under this lock can panic half-way.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to keep a lease. The token is cancelled when it is lost.
    pub(super) fn hold(&self, task: &str, lease: u64, expire: Option<Timestamp>) -> CancellationToken {
        let (beat, until) = times(expire);
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

    fn lose(&self, lease: &Lease) {
        let mut held = self.held();
        if held.get(&lease.task).is_some_and(|h| h.lease == lease.lease)
            && let Some(lost) = held.remove(&lease.task)
        {
            lost.lost.cancel();
        }
    }

    /// Those whose time is over by our own clock: the heartbeat did not get through.
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

    fn renew(&self, leases: &[Lease], expire: Option<Timestamp>) {
        let (beat, until) = times(expire);
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
                entry.beat = now + ((entry.until - now) / 3).clamp(BEAT_MIN, BEAT_MAX);
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
            request.set_timeout((left / 3).max(Duration::from_secs(1)));
            match client.connectors().extend_leases(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    for lease in chunk.iter().filter(|lease| answer.lost.contains(&lease.task)) {
                        leases.lose(lease);
                    }
                    leases.renew(chunk, answer.lease_expire_time);
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

    #[tokio::test]
    async fn a_lease_taken_anew_ends_the_earlier_one_only() {
        let leases = Leases::default();
        let first = leases.hold("t", 1, None);
        let second = leases.hold("t", 2, None);
        assert!(first.is_cancelled());
        leases.release("t", 1);
        leases.lose(&lease(1));
        assert!(!second.is_cancelled());
        leases.lose(&lease(2));
        assert!(second.is_cancelled());
        assert!(leases.next().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn without_beats_a_lease_is_lost_by_our_own_clock() {
        let leases = Leases::default();
        let lost = leases.hold("t", 1, None);
        assert!(leases.due().is_none());
        tokio::time::advance(REMAINING_MIN / 2).await;
        assert_eq!(leases.due().map(|(due, _)| due), Some(vec![lease(1)]));
        leases.lose_expired();
        assert!(!lost.is_cancelled());
        tokio::time::advance(REMAINING_MIN).await;
        leases.lose_expired();
        assert!(lost.is_cancelled());
    }
}
