//! Forgetting, through the public API and the command line: keys are rotated while requests come in and are worked on, and nothing is lost but
//! what is over (I7).

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quittance_api::v1::{self, download_package_response::Part};
use quittance_client::Client;
use quittance_sql::{ConnectOptions, Engine, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::email,
    deployment::binary,
    scenario::{acme_with_crm_and_shop, agreement, by_email, certificate, completed, create, get, new_id, wait_for},
};
use tonic::Code;
use tonic_types::StatusExt as _;

/// Nobody is asked for twice: of who is erased nothing is found.
const PEOPLE: u64 = 3_000;

struct Scene {
    deployment: Deployment,
    operator: Client,
    acme: Client,
    _crm: AppDatabase,
    _shop: AppDatabase,
}

/// A customer with whom no retention is agreed: what is closed is over.
async fn scene(store: StoreKind) -> Scene {
    let deployment = Deployment::start(store).await;
    let (crm, shop) = acme_with_crm_and_shop(&deployment, (Engine::Sqlite, Engine::Postgres), PEOPLE).await;
    let operator = deployment.operator().await;
    let agreed = v1::CreateAgreementRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        agreement: Some(v1::Agreement { retention_days: Some(0), ..agreement() }),
    };
    let agreed = operator.customers().create_agreement(agreed).await.unwrap().into_inner().agreement.unwrap();
    assert_eq!((agreed.version, agreed.retention_days), (2, Some(0)));
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    Scene { deployment, operator, acme, _crm: crm, _shop: shop }
}

impl Scene {
    /// As an operator does it.
    fn rotate(&self) -> String {
        let done = Command::new(binary("quittance"))
            .args(["--endpoint", &self.deployment.endpoint(), "keys", "rotate", "--wait", "--timeout", "120s"])
            .env("QUITTANCE_TOKEN", self.deployment.operator_token())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// Offline, as a customer does it.
    fn verifies(&self, certificate: &[u8]) {
        let (file, keys) = (self.deployment.path("certificate.json"), self.deployment.path("log.vkey"));
        fs::write(&file, certificate).unwrap();
        fs::write(&keys, self.deployment.command().args(["ledger", "keys"]).output().unwrap().stdout).unwrap();
        let done = Command::new(binary("quittance")).arg("verify").arg(&file).arg("--key").arg(&keys).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }

    fn key_files(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.deployment.data().join("keys")).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    async fn download(&self, name: &str) -> Result<usize, tonic::Status> {
        let ask = v1::DownloadPackageRequest { name: format!("{name}/package"), ..Default::default() };
        let mut parts = self.acme.packages().download_package(ask).await?.into_inner();
        let mut count = 0;
        while parts.message().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// How often the log tells of a destroyed key.
    async fn destructions(&self, store: StoreKind) -> i64 {
        let url = match store {
            StoreKind::Sqlite => format!("sqlite:{}", self.deployment.data().join("quittance.db").display()),
            StoreKind::Postgres => fs::read_to_string(self.deployment.path("store-url")).unwrap(),
        };
        let pool = Pool::open(&ConnectOptions { connections_max: 1, ..ConnectOptions::new(url) }).unwrap();
        let mut tx = match store {
            StoreKind::Sqlite => pool.begin_read().await.unwrap(),
            StoreKind::Postgres => pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap(),
        };
        let sql = "SELECT count(*) FROM ledger_entries e JOIN ledger_batches b ON b.customer_id = e.customer_id AND b.batch_id = e.batch_id
                   WHERE e.kind = 'key_destroyed' AND b.first_index IS NOT NULL";
        tx.fetch_one(sql, vec![]).await.unwrap().unwrap().i64(0).unwrap()
    }
}

/// A package of which forgetting has taken some, and not yet the rest with the key.
#[tokio::test]
async fn a_download_that_forgetting_overtakes_does_not_end_as_if_it_were_whole() {
    let deployment = Deployment::start_with(StoreKind::Postgres, &[("QUITTANCED_LIMITS__PACKAGE_PAGE", "1")]).await;
    let (crm, _shop) = acme_with_crm_and_shop(&deployment, (Engine::Sqlite, Engine::Sqlite), 3).await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    // Longer than what is on the way between us may be: nothing behind it is read before it is.
    let write = format!("UPDATE customer SET remark = hex(zeroblob(12582912)) WHERE email = '{}'", email(1));
    crm.pool.run_script(&write).await.unwrap();
    let request = create(&acme, by_email(v1::Action::Access, email(1))).await.unwrap();
    completed(&acme, &request.name).await;
    let name = format!("{}/package", request.name);
    let ask = || v1::DownloadPackageRequest { name: name.clone(), ..Default::default() };
    let mut parts = acme.packages().download_package(ask()).await.unwrap().into_inner();
    let Some(Part::Header(header)) = parts.message().await.unwrap().unwrap().part else { panic!("no header") };
    let whole = header.package.unwrap().record_count;

    let store = fs::read_to_string(deployment.path("store-url")).unwrap();
    let store = Pool::open(&ConnectOptions { connections_max: 1, ..ConnectOptions::new(store) }).unwrap();
    let mut tx = store.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
    tx.execute("UPDATE requests SET forgotten_us = closed_us", vec![]).await.unwrap();
    let taken = tx.execute("DELETE FROM package_records WHERE number > 1", vec![]).await.unwrap();
    tx.commit().await.unwrap();

    let (mut records, mut trailer) = (0, false);
    let ended = loop {
        match parts.message().await {
            Ok(Some(message)) => match message.part.unwrap() {
                Part::Trailer(_) => trailer = true,
                _ => records += 1,
            },
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
    };
    assert!(!trailer && taken > 0 && records < whole, "{records} of {whole}, {taken} taken");
    for refused in [ended.expect("it ended well"), acme.packages().download_package(ask()).await.unwrap_err()] {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(refused.get_error_details().error_info().unwrap().reason, "FORGOTTEN");
    }
}

async fn keys_are_rotated_under_traffic(store: StoreKind) {
    let mut s = scene(store).await;
    let erased = create(&s.acme, by_email(v1::Action::Erasure, email(0))).await.unwrap().name;
    let shown = create(&s.acme, by_email(v1::Action::Access, email(1))).await.unwrap().name;
    for name in [&erased, &shown] {
        completed(&s.acme, name).await;
    }
    let review = v1::ReviewPackageRequest { name: format!("{shown}/package"), withhold_third_party: false };
    // Only where it holds somebody else's data, too.
    let _ = s.acme.packages().review_package(review).await;
    assert!(s.download(&shown).await.unwrap() > 2);
    let before = certificate(&s.acme, &erased, "").await;
    assert!(!before.subject_opening.is_empty());

    let stop = Arc::new(AtomicBool::new(false));
    let mut traffic = tokio::task::JoinSet::new();
    for sender in 0..3 {
        let (acme, stop) = (s.acme.clone(), stop.clone());
        traffic.spawn(async move {
            let mut sent = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let person = 2 + 3 * sent.len() as u64 + sender;
                let action = if person.is_multiple_of(2) { v1::Action::Access } else { v1::Action::Erasure };
                let request = create(&acme, by_email(action, email(person))).await;
                sent.push(request.unwrap_or_else(|status| panic!("while keys rotate: {status}")).name);
                tokio::time::sleep(Duration::from_millis(80)).await;
            }
            sent
        });
    }
    for _ in 0..2 {
        let table = s.rotate();
        assert!(table.contains("current") && table.contains("logged"), "{table}");
    }
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<String> = traffic.join_all().await.into_iter().flatten().collect();
    assert!(sent.len() > 50, "{}", sent.len());
    for name in &sent {
        let request = completed(&s.acme, name).await;
        assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
    }
    assert_eq!(s.key_files(), ["epoch-3.key", "pseudonym-1.key", "suppression-1.key"].map(str::to_owned).into());

    // What was over is forgotten; that it was done can be shown as before.
    for name in [&erased, &shown] {
        assert!(get(&s.acme, name).await.forget_time.is_some());
    }
    let after = certificate(&s.acme, &erased, "").await;
    assert!(after.certificate == before.certificate && after.subject_opening.is_empty());
    let refused = s.download(&shown).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "FORGOTTEN");
    let ask = v1::GetPackageRequest { name: format!("{shown}/package") };
    let package = s.acme.packages().get_package(ask).await.unwrap().into_inner().package.unwrap();
    assert_eq!((package.state(), package.record_count), (v1::PackageState::Forgotten, 0));
    // One that was never asked for before is issued now.
    let first_after = certificate(&s.acme, &shown, "").await;
    assert!(first_after.subject_opening.is_empty(), "whom it is about, nobody can tell any more");
    for file in [&after.certificate, &first_after.certificate] {
        s.verifies(file);
    }

    // The last of it goes with the next rotation, over a restart.
    s.deployment.terminate().await;
    s.deployment.launch().await;
    s.operator = s.deployment.operator().await;
    s.acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
    s.rotate();
    for name in &sent {
        wait_for(&s.acme, name, |request| request.forget_time.is_some()).await;
    }
    assert_eq!(s.key_files(), ["epoch-4.key", "pseudonym-1.key", "suppression-1.key"].map(str::to_owned).into());
    for _ in 0..100 {
        if s.destructions(store).await == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(s.destructions(store).await, 3);
    // Nobody but an operator rotates.
    let refused = s.acme.keys().rotate_keys(v1::RotateKeysRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let epochs = s.operator.keys().list_key_epochs(v1::ListKeyEpochsRequest {}).await.unwrap().into_inner().epochs;
    assert_eq!(epochs.iter().map(|epoch| epoch.number).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert!(!s.deployment.log().contains(&email(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keys_are_rotated_under_traffic() {
    keys_are_rotated_under_traffic(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keys_are_rotated_under_traffic() {
    keys_are_rotated_under_traffic(StoreKind::Postgres).await;
}
