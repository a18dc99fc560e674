//! Two servers on one store: what a caller was told by one holds at the other.

use futures::StreamExt as _;
use quittance_api::v1;
use quittance_client::bulk::{BulkOptions, create_requests};
use quittance_sql::Engine;
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, SHOP_MAP, email},
    scenario::{by_email, create, create_customer, new_id, rectify, register, system},
};

/// Nothing is looked at again by itself while a test runs.
const SETTINGS: &[(&str, &str)] = &[("QUITTANCED_DISPATCH__TOPOLOGY_REFRESH_MS", "600000")];

#[tokio::test]
async fn a_correction_in_a_system_that_another_replica_has_just_registered_is_taken_in() {
    let first = Deployment::start_with(StoreKind::Postgres, SETTINGS).await;
    let second = first.beside(SETTINGS).await;
    let crm = AppDatabase::crm(Engine::Sqlite, first.folder.path(), 10).await;
    let shop = AppDatabase::shop(Engine::Sqlite, first.folder.path(), 10).await;
    first.secret("crm", &crm.url);
    first.secret("shop", &shop.url);
    let operator = first.operator().await;
    create_customer(&operator, "acme").await;
    let sql = v1::ConnectorKind::Sql;
    register(&operator, "shop", system("acme", sql, "shop", SHOP_MAP)).await.unwrap();
    let token = first.customer_token("acme");
    let acme = second.client(&token).await;
    let unknown = rectify(by_email(v1::Action::Access, email(1)).identifiers, ("customer", "name"), "Name 1", "Mara");
    let refused = create(&acme, unknown.clone()).await.unwrap_err();
    assert!(refused.message().contains("is in no system's data map"), "{refused:?}");

    register(&operator, "crm", system("acme", sql, "crm", CRM_MAP)).await.unwrap();
    let preview = v1::PreviewRequestRequest { request: Some(unknown.clone()), ..v1::PreviewRequestRequest::default() };
    acme.requests().preview_request(preview).await.unwrap();
    create(&acme, unknown).await.unwrap();

    // And once more for a stream, to a replica that knows nothing of it.
    let third = first.beside(SETTINGS).await;
    let acme = third.client(&token).await;
    create(&acme, by_email(v1::Action::Erasure, email(9))).await.unwrap();
    let note = "version: 1\ncollections:\n  files:\n    fields:\n      content: file\n";
    let remote = v1::System {
        accepts: vec![v1::IdentifierKind::Email.into()],
        display_name: "Print shop".to_owned(),
        ..system("acme", v1::ConnectorKind::Remote, "", note)
    };
    register(&operator, "print", remote).await.unwrap();
    let request = rectify(by_email(v1::Action::Access, email(2)).identifiers, ("files", "content"), "a", "b");
    let items = [v1::BatchItem { number: 1, request_id: new_id(), request: Some(request) }];
    let items = futures::stream::iter(items).boxed();
    let report = create_requests(&acme, "", items, &BulkOptions::default(), |_, _| {}).await.unwrap();
    assert_eq!((report.created, report.errors), (1, vec![]));
}
