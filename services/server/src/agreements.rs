//! The agreements in force, as they were when they were last asked for. Whoever plans by one of them has the store look, in the transaction
//! that plans, whether it still is (`StoreError::AgreementChanged`); so a cached one saves reading it, and is never used once it is outdated.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use quittance_domain::{agreement::Agreement, ids::CustomerId};
use quittance_store::{Store, StoreResult};

/// Agreements that are kept, of a few kilobytes each. Beyond it they are read anew.
const KEPT_MAX: usize = 4_096;

#[derive(Default)]
pub struct AgreementCache {
    kept: Mutex<HashMap<CustomerId, Arc<Agreement>>>,
}

impl AgreementCache {
    pub async fn get(&self, store: &Store, customer: &CustomerId) -> StoreResult<Arc<Agreement>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(customer).cloned();
        match kept {
            Some(agreement) => Ok(agreement),
            None => self.refresh(store, customer).await,
        }
    }

    /// As it is in force now.
    pub async fn refresh(&self, store: &Store, customer: &CustomerId) -> StoreResult<Arc<Agreement>> {
        Ok(self.keep(customer, store.customer(customer).await?.agreement))
    }

    /// Of a customer that was just signed up: its first instruction is soon to come.
    pub fn keep(&self, customer: &CustomerId, agreement: Agreement) -> Arc<Agreement> {
        let agreement = Arc::new(agreement);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(customer.clone(), agreement.clone());
        agreement
    }
}
