//! Connectors by system and version of the map, made when first needed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use quittance_connectors::{Connector, ConnectorError};
use quittance_domain::{data_map::DataMap, ids::SystemId, system::System};
use quittance_store::{Store, StoreError};

/// Makes a connector for a system with a map; the server knows the secrets.
#[async_trait]
pub trait ConnectorFactory: Send + Sync {
    async fn connector(&self, system: &System, map: Arc<DataMap>) -> Result<Arc<dyn Connector>, ConnectorError>;
}

pub struct ConnectorRegistry {
    store: Store,
    factory: Arc<dyn ConnectorFactory>,
    made: Mutex<HashMap<(SystemId, i64), Arc<dyn Connector>>>,
}

/// Versions of maps that are kept open at once; older ones are made anew when a task still pins them.
const MADE_MAX: usize = 1024;

impl ConnectorRegistry {
    pub fn new(store: Store, factory: Arc<dyn ConnectorFactory>) -> Self {
        Self { store, factory, made: Mutex::new(HashMap::new()) }
    }

    /// The connector for the map that a task pins.
    pub async fn get(&self, system: &System, map_version: i64) -> Result<Arc<dyn Connector>, ConnectorError> {
        let key = (system.id.clone(), map_version);
        if let Some(made) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(made.clone());
        }
        let map = if i64::from(system.map_version) == map_version {
            system.map.clone()
        } else {
            let map = self.store.data_map(&system.id, map_version).await;
            Arc::new(map.map_err(|e: StoreError| ConnectorError::Unavailable(e.to_string()))?)
        };
        let connector = self.factory.connector(system, map).await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= MADE_MAX {
            made.clear();
        }
        made.insert(key, connector.clone());
        Ok(connector)
    }

    /// A connector that is not kept: for a system that is only being registered.
    pub async fn probe(&self, system: &System) -> Result<Arc<dyn Connector>, ConnectorError> {
        self.factory.connector(system, system.map.clone()).await
    }
}
