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

    /// Changes with what a connector is made of beside its map, as the system's secret: one that was made before is not used any more.
    fn revision(&self, _: &System) -> u64 {
        0
    }
}

pub struct ConnectorRegistry {
    store: Store,
    factory: Arc<dyn ConnectorFactory>,
    made: Mutex<HashMap<Made, Arc<dyn Connector>>>,
}

/// What a connector was made of.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Made {
    system: SystemId,
    map_version: i64,
    guard: u32,
    revision: u64,
}

/// Versions of maps that are kept open at once; older ones are made anew when a task still pins them.
const MADE_MAX: usize = 1024;

impl ConnectorRegistry {
    pub fn new(store: Store, factory: Arc<dyn ConnectorFactory>) -> Self {
        Self { store, factory, made: Mutex::new(HashMap::new()) }
    }

    /// The connector for the map that a task pins. The guard alone is that of the map in force: it says when a person must look, and
    /// nothing of what is done, so that whoever has looked can raise it and let the task run.
    pub async fn get(&self, system: &System, map_version: i64) -> Result<Arc<dyn Connector>, ConnectorError> {
        let guard = system.map.max_rows_per_subject;
        let revision = self.factory.revision(system);
        let key = Made { system: system.id.clone(), map_version, guard, revision };
        if let Some(made) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(made.clone());
        }
        let map = if i64::from(system.map_version) == map_version {
            system.map.clone()
        } else {
            let map = self.store.data_map(&system.id, map_version).await;
            let map = map.map_err(|e: StoreError| ConnectorError::Unavailable(e.to_string()))?;
            Arc::new(DataMap { max_rows_per_subject: guard, ..map })
        };
        let connector = self.factory.connector(system, map).await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= MADE_MAX {
            made.clear();
        }
        made.retain(|other, _| other.system != system.id || other.revision == revision);
        made.insert(key, connector.clone());
        Ok(connector)
    }

    /// A connector that is not kept: for a system that is only being registered.
    pub async fn probe(&self, system: &System) -> Result<Arc<dyn Connector>, ConnectorError> {
        self.factory.connector(system, system.map.clone()).await
    }
}
