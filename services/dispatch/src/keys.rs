//! Keeps the key ring: no destroyed key stays in memory, and epochs are turned over in their time (I7).

use std::{sync::Arc, time::Duration};

use quittance_store::{Forgetting, KeyTurn, Store};
use tokio_util::sync::CancellationToken;

use crate::{Clock, ClockTrust};

/// How often every process looks which keys are destroyed, and how long it waits for the answer before it drops all keys from memory. Both
/// together stay below the time that the store leaves between a key's destruction and its record.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOK_LIMIT: Duration = Duration::from_secs(4);
/// How often one process looks whether there is something to turn over.
const TURN_EVERY: Duration = Duration::from_secs(2);
/// What went wrong, or waits for a person, is not told every moment.
const FAULT_EVERY: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct KeyKeeper {
    store: Store,
    clock: Arc<dyn Clock>,
    trust: ClockTrust,
}

impl KeyKeeper {
    pub fn new(store: Store, clock: Arc<dyn Clock>, trust: ClockTrust) -> Self {
        Self { store, clock, trust }
    }

    /// Drops destroyed keys from memory, until `drain` is cancelled.
    pub async fn look(self, drain: CancellationToken) {
        while !drain.is_cancelled() {
            let looked = tokio::time::timeout(LOOK_LIMIT, self.store.refresh_keys()).await;
            let fault = match looked {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".to_owned()),
            };
            if let Some(error) = fault {
                tracing::warn!(error, "which keys are destroyed is not known: none is kept in memory");
                self.store.ring().drop_keys();
            }
            pause(LOOK_EVERY, &drain).await;
        }
    }

    /// Turns epochs over, each after `every`, until `drain` is cancelled. Of all processes one does it.
    pub async fn forget(self, holder: String, every: Duration, drain: CancellationToken) {
        let mut forgetting = Forgetting::new(self.store, holder, every);
        while !drain.is_cancelled() {
            if !self.trust.holds(self.clock.as_ref()) {
                pause(TURN_EVERY, &drain).await;
                continue;
            }
            let turn = forgetting.turn(self.clock.now()).await;
            let rest = match &turn {
                Ok(turn) if turn.goes_on() => {
                    tell(turn);
                    continue;
                }
                Ok(KeyTurn::Stuck { epoch, requests }) => {
                    tracing::error!(
                        epoch,
                        requests,
                        "requests do not open with their epoch's key, so it is kept, and what is over is not forgotten"
                    );
                    FAULT_EVERY
                }
                Ok(_) => TURN_EVERY,
                Err(error) if error.is_transient() => {
                    tracing::info!(%error, "the keys could not be turned over: tried again soon");
                    TURN_EVERY
                }
                Err(error) => {
                    tracing::error!(%error, "the keys cannot be turned over, and what is over is not forgotten");
                    FAULT_EVERY
                }
            };
            pause(rest, &drain).await;
        }
        if let Err(error) = forgetting.release().await {
            tracing::info!(%error, "the keys could not be given back: their lease passes by itself");
        }
    }
}

async fn pause(time: Duration, drain: &CancellationToken) {
    tokio::select! {
        () = drain.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

fn tell(turn: &KeyTurn) {
    match turn {
        KeyTurn::Begun(epoch) => tracing::info!(epoch, "a new key epoch has begun"),
        KeyTurn::TurnedOver { epoch, forgotten, rewrapped } => {
            tracing::debug!(epoch, forgotten, rewrapped, "requests were turned over");
        }
        KeyTurn::Covered { epoch, subjects } => tracing::debug!(epoch, subjects, "subjects are told by the new key"),
        KeyTurn::Rewrapped(epoch) => tracing::info!(epoch, "nothing is under the old key epoch any more"),
        KeyTurn::Destroyed(epoch) => tracing::info!(epoch, "the key of an epoch is destroyed"),
        KeyTurn::Logged(epoch) => tracing::info!(epoch, "the destruction of an epoch's key is on record"),
        KeyTurn::Recorded(_) | KeyTurn::Idle | KeyTurn::Elsewhere | KeyTurn::Waits | KeyTurn::Stuck { .. } => {}
    }
}
