//! How many streams are open at once: of one customer, so that it cannot keep others out, and of all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quittance_domain::ids::CustomerId;

use crate::error::{ApiError, ApiResult};

#[derive(Debug)]
pub struct Seats {
    /// In the words of the refusal.
    what: &'static str,
    max: usize,
    customer_max: usize,
    taken: Mutex<HashMap<CustomerId, usize>>,
}

/// Free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    customer: CustomerId,
}

impl Seats {
    pub fn new(what: &'static str, max: usize, customer_max: usize) -> Arc<Self> {
        Arc::new(Self { what, max, customer_max, taken: Mutex::default() })
    }

    pub fn take(self: &Arc<Self>, customer: &CustomerId) -> ApiResult<Seat> {
        let mut taken = self.taken();
        if taken.get(customer).is_some_and(|own| *own >= self.customer_max) {
            let message = format!(
                "at most {} {} of one customer at once: use one for all requests",
                self.customer_max, self.what
            );
            return Err(ApiError::LimitExceeded(message));
        }
        if taken.values().sum::<usize>() >= self.max {
            // Others' doing: it is worth while to come again.
            return Err(ApiError::Unavailable(format!(
                "as many {} are open as this server has room for: try again",
                self.what
            )));
        }
        *taken.entry(customer.clone()).or_default() += 1;
        Ok(Seat { seats: self.clone(), customer: customer.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<CustomerId, usize>> {
        // Nothing is done under the lock that could leave it half done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(own) = taken.get_mut(&self.customer) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.customer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_customer_does_not_take_all_seats() {
        let [acme, bolt] = ["acme", "bolt"].map(|id| CustomerId::new(id).unwrap());
        let seats = Seats::new("watches", 3, 2);
        let first = seats.take(&acme).unwrap();
        let _second = seats.take(&acme).unwrap();
        assert!(matches!(seats.take(&acme), Err(ApiError::LimitExceeded(_))));
        let third = seats.take(&bolt).unwrap();
        assert!(matches!(seats.take(&bolt), Err(ApiError::Unavailable(_))), "and may come again");
        drop(third);
        let _third = seats.take(&bolt).unwrap();
        drop(first);
        let _first = seats.take(&acme).unwrap();
    }
}
