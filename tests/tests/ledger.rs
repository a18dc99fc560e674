//! The ledger, through the public API: every event gets its place, and a customer gets a certificate that is checked without us.

use std::time::{Duration, Instant};

use quittance_api::v1;
use quittance_client::Client;
use quittance_ledger::{
    certificate::{CertifiedState, DecisionKind, LogKey, NotProcessedCause, SubjectOpening, TrustedKey, open},
    checkpoint::LogKeys,
    tlog_proof::TlogProof,
};
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, email},
    certificates::{check, keys},
    deployment::binary,
    scenario::{acme_with_crm_and_shop, by_email, certificate, completed, create, create_customer, register, system},
};
use tonic::Code;
use tonic_types::StatusExt as _;

struct Scene {
    deployment: Deployment,
    acme: Client,
    _crm: AppDatabase,
    _shop: AppDatabase,
}

async fn scene(store: StoreKind) -> Scene {
    let deployment = Deployment::start(store).await;
    let (crm, shop) = acme_with_crm_and_shop(&deployment, (Engine::Sqlite, Engine::Postgres), 50).await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    Scene { deployment, acme, _crm: crm, _shop: shop }
}

async fn a_certificate_is_checked_without_us(store: StoreKind) {
    let mut s = scene(store).await;
    let request = create(&s.acme, by_email(v1::Action::Erasure, email(7))).await.unwrap();
    let request = completed(&s.acme, &request.name).await;
    let answer = certificate(&s.acme, &request.name, "nl").await;
    let keys = keys(&s.deployment);
    let about = check(&answer.certificate, &keys);
    assert_eq!(about.statement.state, CertifiedState::Completed);
    assert_eq!(about.statement.systems.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["crm", "shop"]);
    assert!(about.statement.systems.iter().all(|s| s.confirmation.is_some()));
    assert!(!String::from_utf8(answer.certificate.clone()).unwrap().contains(&email(7)), "it names nobody");
    SubjectOpening::read(&answer.subject_opening).unwrap().verify(&about).unwrap();
    assert!(answer.document.starts_with(b"%PDF-"));
    // The operator may see the certificate, and not whom it is about.
    let for_us = certificate(&s.deployment.operator().await, &request.name, "").await;
    assert!(for_us.certificate == answer.certificate && for_us.subject_opening.is_empty());
    // The same bytes again, from another process, too.
    s.deployment.terminate().await;
    s.deployment.launch().await;
    let acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
    let again = certificate(&acme, &request.name, "").await;
    assert!(again.certificate == answer.certificate && again.document.is_empty());
    // Somebody else's request has no certificate for us.
    create_customer(&s.deployment.operator().await, "globex").await;
    let globex = s.deployment.client(&s.deployment.customer_token("globex")).await;
    let ask = v1::GetCertificateRequest { name: request.name, document_language: String::new() };
    assert_ne!(globex.evidence().get_certificate(ask).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_certificate_is_checked_without_us() {
    a_certificate_is_checked_without_us(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_certificate_is_checked_without_us() {
    a_certificate_is_checked_without_us(StoreKind::Postgres).await;
}

/// Art. 15(4): what the customer keeps out of the package is on record, and on its certificate.
async fn what_is_withheld_is_on_the_certificate(store: StoreKind) {
    let deployment = Deployment::start(store).await;
    let crm = AppDatabase::crm(Engine::Sqlite, deployment.folder.path(), 5).await;
    deployment.secret("crm", &crm.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    let map = CRM_MAP.replace("  message:\n", "  message:\n    third_party: true\n");
    register(&operator, "crm", system("acme", v1::ConnectorKind::Sql, "crm", &map)).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    for (person, withhold_third_party) in [(1, true), (2, false)] {
        let name = create(&acme, by_email(v1::Action::Access, email(person))).await.unwrap().name;
        completed(&acme, &name).await;
        let ask = v1::GetCertificateRequest { name: name.clone(), document_language: String::new() };
        let waits = acme.evidence().get_certificate(ask).await.unwrap_err();
        assert_eq!(waits.code(), Code::FailedPrecondition);
        assert!(waits.message().contains("ReviewPackage"), "{waits}");
        let review = v1::ReviewPackageRequest { name: format!("{name}/package"), withhold_third_party };
        acme.packages().review_package(review.clone()).await.unwrap();
        assert_eq!(acme.packages().review_package(review).await.unwrap_err().code(), Code::FailedPrecondition);
        let answer = certificate(&acme, &name, "en").await;
        let about = check(&answer.certificate, &keys(&deployment));
        let said = &about.statement;
        let lines: Vec<_> =
            said.not_processed.iter().map(|n| (n.cause, n.collection.as_str(), n.category.as_str(), n.count)).collect();
        let withheld = |category| (NotProcessedCause::Withheld, "message", category, Some(3));
        let expected = if withhold_third_party { vec![withheld("email"), withheld("message")] } else { vec![] };
        assert_eq!(lines, expected);
        let exported = said.systems[0].confirmation.iter().flat_map(|c| &c.outcomes);
        let messages: Vec<_> =
            exported.filter(|o| o.collection == "message").map(|o| (o.category.as_str(), o.count)).collect();
        assert_eq!(messages, [("email", 3), ("message", 3)], "counted alike");
        let decisions: Vec<_> = said.decisions.iter().map(|d| (d.what, d.by.as_str())).collect();
        assert_eq!(decisions, [(DecisionKind::Reviewed, "customer/acme/erp")]);
        assert!(answer.document.starts_with(b"%PDF-"));
        assert!(!String::from_utf8_lossy(&answer.certificate).contains(&email(person)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_what_is_withheld_is_on_the_certificate() {
    what_is_withheld_is_on_the_certificate(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_what_is_withheld_is_on_the_certificate() {
    what_is_withheld_is_on_the_certificate(StoreKind::Postgres).await;
}

/// Killed at random while it writes, the log neither forks nor leaves anything out: what was signed before is in what is signed after.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sequencer_goes_on_where_it_was() {
    let mut s = scene(StoreKind::Postgres).await;
    let mut names = Vec::new();
    for round in 0..4_u64 {
        let acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
        for n in 0..5 {
            names.push(create(&acme, by_email(v1::Action::Erasure, email(round * 5 + n))).await.unwrap().name);
        }
        tokio::time::sleep(Duration::from_millis(150 * round)).await;
        s.deployment.kill();
        s.deployment.launch().await;
    }
    let acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
    let keys = keys(&s.deployment);
    let mut indices = Vec::new();
    for name in &names {
        completed(&acme, name).await;
        let file = certificate(&acme, name, "").await.certificate;
        let about = check(&file, &keys);
        indices.extend(about.entries.iter().map(|e| TlogProof::parse(e.proof.as_bytes()).unwrap().index));
    }
    let entries = indices.len();
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), entries, "no place is given twice");
    assert_eq!(indices.last().map(|last| last + 1), Some(entries as u64), "and none is left out");
    assert!(!s.deployment.log().contains("not written any more"), "{}", s.deployment.log());
}

/// `quittanced ledger …` on the deployment's own folder: gives the public keys that it prints.
fn ledger_command(deployment: &Deployment, command: &str) -> Vec<String> {
    let data = deployment.data();
    let ran = std::process::Command::new(binary("quittanced"))
        .args(["--data-dir".as_ref(), data.as_os_str(), "ledger".as_ref(), command.as_ref()])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// As by a clock that is behind that of the replica that made the key: such a file would be refused for ever.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_with_a_key_that_has_not_begun() {
    let mut s = scene(StoreKind::Sqlite).await;
    let name = create(&s.acme, by_email(v1::Action::Erasure, email(7))).await.unwrap().name;
    completed(&s.acme, &name).await;
    s.deployment.terminate().await;
    let file = s.deployment.data().join("ledger/keys/history.json");
    let history = std::fs::read(&file).unwrap();
    let mut later: Vec<LogKey> = serde_json::from_slice(&history).unwrap();
    later[0].from = "2100-01-01T00:00:00Z".parse().unwrap();
    std::fs::write(&file, serde_json::to_vec(&later).unwrap()).unwrap();
    s.deployment.launch().await;
    let acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
    let until = Instant::now() + Duration::from_secs(40);
    while !s.deployment.log().contains("no key of the log has begun") {
        let ask = v1::GetCertificateRequest { name: name.clone(), document_language: String::new() };
        let refused = acme.evidence().get_certificate(ask).await.unwrap_err();
        assert_eq!(refused.get_error_details().error_info().unwrap().reason, "CERTIFICATE_NOT_ISSUED");
        assert!(Instant::now() < until, "nobody is told why");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    s.deployment.terminate().await;
    std::fs::write(&file, history).unwrap();
    s.deployment.launch().await;
    let acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
    check(&certificate(&acme, &name, "").await.certificate, &keys(&s.deployment));
}

/// What an old key signed stands, and what comes after it is retired needs the new key alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_logs_key_is_rotated_and_old_certificates_stand() {
    let mut s = scene(StoreKind::Sqlite).await;
    let mut files = Vec::new();
    let mut published = Vec::new();
    for (n, command) in ["keys", "add-key", "retire-keys"].into_iter().enumerate() {
        s.deployment.terminate().await;
        published = ledger_command(&s.deployment, command);
        s.deployment.launch().await;
        let acme = s.deployment.client(&s.deployment.customer_token("acme")).await;
        let request = create(&acme, by_email(v1::Action::Erasure, email(n as u64))).await.unwrap();
        completed(&acme, &request.name).await;
        files.push(certificate(&acme, &request.name, "").await.certificate);
    }
    assert_eq!(published.len(), 2);
    let all = keys(&s.deployment);
    assert_eq!(all.keys().iter().map(ToString::to_string).collect::<Vec<_>>(), published);
    for file in &files {
        check(file, &all);
    }
    let new = LogKeys::new(vec![all.keys()[1].clone()]).unwrap();
    check(&files[2], &new);
    let trusted = [TrustedKey::from(&new.keys()[0])];
    assert!(open(&files[0], &trusted).is_err(), "the first was signed by the old key alone");
}
