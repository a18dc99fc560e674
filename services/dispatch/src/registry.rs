//! Connectors by system and version of the map, made when first needed.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use quittance_connectors::{Connector, ConnectorError};
use quittance_domain::{data_map::DataMap, ids::SystemId, system::System};
use quittance_store::{Store, StoreError, StoreResult};

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
    factory: Arc<dyn ConnectorFactory>,
    made: Mutex<HashMap<Made, Arc<dyn Connector>>>,
}

/// What a connector was made of.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Made {
    system: SystemId,
    map_version: u32,
    guard: u32,
    revision: u64,
}

/// Versions of maps that are kept open at once; older ones are made anew when a task still pins them.
const MADE_MAX: usize = 1024;

/// The system with the map that a task pins: an older one than that in force; or a newer one, where ours is of a moment ago. The guard alone is that
/// of the map in force: it says when a person must look, and nothing of what is done, so that whoever has looked can raise it and let the task run.
pub async fn as_planned<'s>(store: &Store, system: &'s System, map_version: i64) -> StoreResult<Cow<'s, System>> {
    if i64::from(system.map_version) == map_version {
        return Ok(Cow::Borrowed(system));
    }
    let map = store.data_map(&system.id, map_version).await?;
    let map = DataMap { max_rows_per_subject: system.map.max_rows_per_subject, ..map };
    let map_version = u32::try_from(map_version)
        .map_err(|_| StoreError::Inconsistent { table: "tasks", what: "a version of a map is out of range" })?;
    Ok(Cow::Owned(System { registration: system.registration.clone(), map_version, map: Arc::new(map) }))
}

impl ConnectorRegistry {
    pub fn new(factory: Arc<dyn ConnectorFactory>) -> Self {
        Self { factory, made: Mutex::new(HashMap::new()) }
    }

    /// The connector for the system with the map that it has here.
    pub async fn get(&self, system: &System) -> Result<Arc<dyn Connector>, ConnectorError> {
        let guard = system.map.max_rows_per_subject;
        let revision = self.factory.revision(system);
        let key = Made { system: system.id.clone(), map_version: system.map_version, guard, revision };
        if let Some(made) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(made.clone());
        }
        let connector = self.factory.connector(system, system.map.clone()).await?;
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
