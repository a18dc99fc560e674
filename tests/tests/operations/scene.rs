//! Two customers, the systems of one of them, and who may ask.

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::CRM_MAP,
    scenario::{by_email, create_customer, new_id, register, remote_files, system},
};

pub const SUBJECTS: u64 = 12;

pub struct Scene {
    pub deployment: Deployment,
    pub operator: Client,
    pub acme: Client,
    /// Another customer, with nothing of its own.
    pub rival: Client,
}

/// What is retried is so soon, and a breaker is not in the way.
pub const QUICK: &[(&str, &str)] = &[
    ("QUITTANCED_DISPATCH__POLL_MS", "50"),
    ("QUITTANCED_DISPATCH__RETRY_BASE_MS", "100"),
    ("QUITTANCED_DISPATCH__RETRY_CAP_S", "1"),
    ("QUITTANCED_DISPATCH__BREAKER_OPEN_S", "1"),
    ("QUITTANCED_DISPATCH__BREAKER_OPEN_MAX_S", "1"),
];

impl Scene {
    pub async fn on(store: StoreKind, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = QUICK.iter().chain(settings).copied().collect();
        let deployment = Deployment::start_with(store, &settings).await;
        let operator = deployment.operator().await;
        create_customer(&operator, "acme").await;
        create_customer(&operator, "rival").await;
        let acme = deployment.client(&deployment.customer_token("acme")).await;
        let rival = deployment.client(&deployment.customer_token("rival")).await;
        Self { deployment, operator, acme, rival }
    }

    /// With the system `crm` of the customer `acme`.
    pub async fn with_crm(store: StoreKind, engine: Engine, map: &str) -> (Self, AppDatabase) {
        let scene = Self::on(store, &[]).await;
        let crm = AppDatabase::crm(engine, scene.deployment.folder.path(), SUBJECTS).await;
        scene.register_crm(&crm, map, None).await;
        (scene, crm)
    }

    pub async fn register_crm(&self, crm: &AppDatabase, map: &str, limits: Option<v1::SystemLimits>) {
        self.deployment.secret("crm", &crm.url);
        let crm = v1::System { limits, ..system("acme", v1::ConnectorKind::Sql, "crm", map) };
        register(&self.operator, "crm", crm).await.unwrap();
    }

    /// A system that nobody works for, unless the test does.
    pub async fn register_remote(&self, id: &str) {
        register(&self.operator, id, remote(id)).await.unwrap();
    }
}

pub fn remote(name: &str) -> v1::System {
    v1::System { role: v1::SystemRole::SubProcessor.into(), ..remote_files(name) }
}

/// The map of `crm`, with one place of it changed.
pub fn crm_map(old: &str, new: &str) -> String {
    assert!(CRM_MAP.contains(old), "{old}");
    CRM_MAP.replace(old, new)
}

/// Erasures of the first subjects as one chunk, and so due together.
pub async fn erase(customer: &Client, subjects: std::ops::Range<u64>) -> Vec<String> {
    let erasure = |number| v1::BatchItem {
        number: number + 1,
        request_id: new_id(),
        request: Some(by_email(v1::Action::Erasure, quittance_tests::app_database::email(number))),
    };
    let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items: subjects.map(erasure).collect() };
    let acks = customer.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap();
    acks.into_inner().message().await.unwrap().unwrap().names
}
