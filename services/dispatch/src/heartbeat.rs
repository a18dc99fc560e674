//! Keeps the leases of a batch alive while it is worked on.

use quittance_domain::{
    Timestamp,
    ids::{CustomerId, RequestId, SystemId},
};
use quittance_store::Store;

use crate::{Clock, DispatchLimits};

/// Returns only when the leases can't be relied upon any more: the work must stop at once.
pub(crate) async fn until_lost(
    store: &Store,
    clock: &dyn Clock,
    limits: &DispatchLimits,
    customer: &CustomerId,
    system: &SystemId,
    leases: &[(RequestId, i64)],
) -> &'static str {
    let mut good_until = clock.steady() + limits.lease();
    loop {
        clock.sleep(limits.heartbeat()).await;
        let asked = clock.steady();
        let now = clock.now();
        let expires_at = now.checked_add(limits.lease()).unwrap_or(Timestamp::MAX);
        match store.extend_leases(customer, system, leases, now, expires_at).await {
            Ok(lost) if lost.is_empty() => good_until = asked + limits.lease(),
            Ok(_) => return "a lease was lost",
            Err(error) => {
                tracing::warn!(%customer, %system, %error, "a heartbeat failed");
                // Stop while the lease still holds: whoever takes over must find us gone.
                if clock.steady() + limits.heartbeat() >= good_until {
                    return "no heartbeat went through";
                }
            }
        }
    }
}
