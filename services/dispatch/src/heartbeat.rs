//! Keeps the leases of a batch alive while it is worked on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quittance_domain::{
    Timestamp,
    ids::{CustomerId, RequestId, SystemId},
};
use quittance_store::Store;

use crate::{Clock, DispatchLimits};

/// Until when a batch's leases are certain, by the steady clock.
pub(crate) struct Hold(Mutex<Duration>);

impl Hold {
    /// Of leases that were asked for at this moment, and not later.
    pub fn since(asked: Duration, limits: &DispatchLimits) -> Self {
        Self(Mutex::new(asked + limits.lease()))
    }

    pub fn until(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renewed(&self, asked: Duration, limits: &DispatchLimits) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = asked + limits.lease();
    }
}

/// Returns only when the leases can't be relied upon any more: the work must stop at once.
pub(crate) async fn until_lost(
    store: &Store,
    clock: &dyn Clock,
    limits: &DispatchLimits,
    customer: &CustomerId,
    system: &SystemId,
    leases: &[(RequestId, i64)],
    hold: &Hold,
) -> &'static str {
    loop {
        clock.sleep(limits.heartbeat()).await;
        let asked = clock.steady();
        let now = clock.now();
        let expires_at = now.checked_add(limits.lease()).unwrap_or(Timestamp::MAX);
        match store.extend_leases(customer, system, leases, now, expires_at).await {
            Ok(lost) if lost.is_empty() => hold.renewed(asked, limits),
            Ok(_) => return "a lease was lost",
            Err(error) => {
                tracing::warn!(%customer, %system, %error, "a heartbeat failed");
                // Stop while the lease still holds: whoever takes over must find us gone.
                if clock.steady() + limits.heartbeat() >= hold.until() {
                    return "no heartbeat went through";
                }
            }
        }
    }
}
