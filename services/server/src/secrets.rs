//! Connectors to systems, made with the secrets that operators mount: a file per secret, by name.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use quittance_connectors::{Connector, ConnectorError, sql::SqlConnector};
use quittance_dispatch::ConnectorFactory;
use quittance_domain::{
    data_map::DataMap,
    system::{ConnectorKind, System},
};
use quittance_sql::{ConnectOptions, Planner, Pool};

pub struct MountedSecrets {
    pub folder: PathBuf,
    pub connections_max: u32,
    pub statement_timeout: Duration,
    pub schema_age_max: Duration,
}

impl MountedSecrets {
    fn secret(&self, system: &System) -> std::io::Result<String> {
        std::fs::read_to_string(self.folder.join(system.connection_secret.as_deref().unwrap_or_default()))
    }
}

#[async_trait]
impl ConnectorFactory for MountedSecrets {
    async fn connector(&self, system: &System, map: Arc<DataMap>) -> Result<Arc<dyn Connector>, ConnectorError> {
        let refused = |what: String| ConnectorError::Refused(what);
        if system.connector != ConnectorKind::Sql {
            return Err(refused(format!("{:?} is worked by a remote worker", system.id)));
        }
        let name = system.connection_secret.as_deref().unwrap_or_default();
        // Neither the path nor the content goes into an error: the content is a password.
        let url = self
            .secret(system)
            .map_err(|_| ConnectorError::Unavailable(format!("secret {name} is not in the secrets folder")))?;
        let mut options = ConnectOptions::new(url.trim());
        options.connections_max = self.connections_max;
        options.statement_timeout = self.statement_timeout;
        options.planner = Planner::Generic;
        options.application = true;
        let pool = Pool::open(&options).map_err(|e| match e.code.as_str() {
            "TLS_REQUIRED" => refused(format!(
                "secret {name}: a database on the network needs sslmode=verify-full, or ssl-mode=VERIFY_IDENTITY"
            )),
            "BAD_URL" => refused(format!("secret {name} holds no postgres://, mysql:// or sqlite: URL")),
            _ => ConnectorError::Unavailable(e.to_string()),
        })?;
        let connector = SqlConnector::open(pool, DataMap::clone(&map));
        Ok(Arc::new(connector.with_schema_age_max(self.schema_age_max)))
    }

    /// Of the secret as it is now: a rotated password is used with the next batch.
    fn revision(&self, system: &System) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.secret(system).ok().hash(&mut hasher);
        hasher.finish()
    }
}
