//! `ReviewPackage`: the customer decides about records that hold third parties' data (Art. 15(4)), once.

use std::process::Command;

use quittance_api::v1::{self, download_package_response::Part, upload_records_request::Part as UploadPart};
use quittance_client::{Client, RecordJoiner};
use quittance_sql::Engine;
use quittance_tests::{
    StoreKind,
    app_database::{CRM_MAP, email},
    deployment::binary,
    scenario::{assert_refused, by_email, completed, create, lease_one, new_id, register, wait_for},
};
use tonic::{Code, Status, Streaming};

use crate::scene::{Scene, crm_map, remote};

async fn get(client: &Client, name: &str) -> Result<v1::Package, Status> {
    let get = v1::GetPackageRequest { name: name.to_owned() };
    client.packages().get_package(get).await.map(|answer| answer.into_inner().package.unwrap())
}

async fn review(client: &Client, name: &str, withhold_third_party: bool) -> Result<v1::Package, Status> {
    let review = v1::ReviewPackageRequest { name: name.to_owned(), withhold_third_party };
    client.packages().review_package(review).await.map(|answer| answer.into_inner().package.unwrap())
}

/// The package as its header has it, and its records; whole, that is with the trailer.
async fn download(client: &Client, name: &str) -> Result<(v1::Package, Vec<v1::PackageRecord>), Status> {
    let download = v1::DownloadPackageRequest { name: name.to_owned(), ..Default::default() };
    whole(client.packages().download_package(download).await?.into_inner()).await
}

async fn whole(
    mut stream: Streaming<v1::DownloadPackageResponse>,
) -> Result<(v1::Package, Vec<v1::PackageRecord>), Status> {
    let (mut header, mut records, mut joiner) = (None, Vec::new(), RecordJoiner::default());
    while let Some(message) = stream.message().await? {
        match message.part.unwrap() {
            Part::Header(first) => header = first.package,
            Part::Record(record) => records.push(record),
            Part::RecordPart(part) => records.extend(joiner.put(part)),
            Part::Trailer(last) => {
                assert_eq!(last.record_count, records.len() as u64);
                assert!(stream.message().await?.is_none());
                return Ok((header.expect("a header"), records));
            }
        }
    }
    panic!("the package was cut");
}

async fn a_package_with_third_parties_data_is_released_as_the_customer_says(store: StoreKind, engine: Engine) {
    // Others write in messages, too.
    let map = crm_map("\n  message:\n    key: [id]\n", "\n  message:\n    key: [id]\n    third_party: true\n");
    let (s, _crm) = Scene::with_crm(store, engine, &map).await;
    for (n, withhold) in [(1, true), (2, false)] {
        let request = create(&s.acme, by_email(v1::Action::Access, email(n))).await.unwrap();
        assert_eq!(completed(&s.acme, &request.name).await.state(), v1::RequestState::Completed);
        let name = format!("{}/package", request.name);
        let waiting = get(&s.acme, &name).await.unwrap();
        let counts = (waiting.state(), waiting.record_count, waiting.third_party_record_count, waiting.release_time);
        assert_eq!(counts, (v1::PackageState::AwaitingReview, 6, 3, None));
        let early = download(&s.acme, &name).await;
        assert_refused(early, Code::FailedPrecondition, "PACKAGE_AWAITING_REVIEW", "");

        // It is the customer's, and nobody else's.
        assert_refused(review(&s.rival, &name, withhold).await, Code::NotFound, "NOT_FOUND", "");
        assert_refused(review(&s.operator, &name, withhold).await, Code::PermissionDenied, "ROLE_NOT_ALLOWED", "");
        assert_refused(review(&s.acme, &request.name, withhold).await, Code::InvalidArgument, "INVALID_FIELD", "name");
        assert_eq!(get(&s.acme, &name).await.unwrap(), waiting);

        let released = review(&s.acme, &name, withhold).await.unwrap();
        assert_eq!((released.state(), released.third_party_withheld), (v1::PackageState::Released, withhold));
        assert_eq!((released.record_count, released.third_party_record_count), (6, 3));
        assert!(released.release_time.is_some());
        assert_eq!(get(&s.acme, &name).await.unwrap(), released);
        for again in [withhold, !withhold] {
            assert_refused(review(&s.acme, &name, again).await, Code::FailedPrecondition, "WRONG_STATE", "");
        }
        let (header, records) = download(&s.acme, &name).await.unwrap();
        assert_eq!(header, released, "the first decision stands");
        let collections: Vec<&str> = records.iter().map(|r| r.collection.as_str()).collect();
        let third_party = records.iter().filter(|r| r.third_party).count();
        if withhold {
            assert_eq!((records.len(), third_party), (3, 0), "{collections:?}");
            assert!(!collections.contains(&"message"));
        } else {
            assert_eq!((records.len(), third_party), (6, 3), "{collections:?}");
            assert!(records.iter().all(|r| r.third_party == (r.collection == "message")));
        }
        for other in [&s.rival, &s.operator] {
            assert!(download(other, &name).await.is_err());
        }
    }
    assert!(!s.deployment.log().contains("subject1"), "no personal data in the log (I10)");
}

#[tokio::test]
async fn a_package_with_third_parties_data_is_released_as_the_customer_says_sqlite() {
    a_package_with_third_parties_data_is_released_as_the_customer_says(StoreKind::Sqlite, Engine::MySql).await;
}

#[tokio::test]
async fn a_package_with_third_parties_data_is_released_as_the_customer_says_postgres() {
    a_package_with_third_parties_data_is_released_as_the_customer_says(StoreKind::Postgres, Engine::Postgres).await;
}

/// What the data map says of a collection holds for a remote worker's records, too, even if the map has changed since.
#[tokio::test]
async fn what_the_map_calls_third_parties_is_marked_whatever_a_worker_says() {
    const FILES: &str = "version: 1\ncollections:\n  letters:\n    third_party: true\n    fields: {content: file}\n  files:\n    fields: {content: file}\n";
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    register(&s.operator, "print", v1::System { data_map_yaml: FILES.to_owned(), ..remote("print") }).await.unwrap();
    let worker = s.deployment.client(&s.deployment.connector_token("print")).await;
    let request = create(&s.acme, by_email(v1::Action::Access, email(1))).await.unwrap();
    let update = v1::UpdateDataMapRequest {
        request_id: new_id(),
        name: "systems/print".to_owned(),
        data_map_yaml: FILES.replace("    third_party: true\n", ""),
    };
    s.operator.systems().update_data_map(update).await.unwrap();
    let task = lease_one(&worker, "print").await;
    let lease = v1::Lease { task: task.name, lease: task.lease };
    let record = |collection: &str, third_party| {
        let (collection, key) = (collection.to_owned(), vec!["1".to_owned()]);
        UploadPart::Record(v1::PackageRecord { collection, key, third_party, ..v1::PackageRecord::default() })
    };
    let parts =
        [UploadPart::Lease(lease.clone()), record("letters", false), record("files", true), record("files", false)]
            .map(|part| v1::UploadRecordsRequest { part: Some(part) });
    worker.connectors().upload_records(tokio_stream::iter(parts)).await.unwrap();
    let exported = |collection: &str, count| v1::Outcome {
        collection: collection.to_owned(),
        category: "file".to_owned(),
        outcome: v1::OutcomeKind::Exported.into(),
        grade: v1::Grade::Verified.into(),
        count,
        ..v1::Outcome::default()
    };
    let done = v1::TaskDone {
        outcomes: vec![exported("letters", 1), exported("files", 2)],
        evidence: Some(v1::Evidence { kind: v1::EvidenceKind::SystemReport.into(), ..v1::Evidence::default() }),
    };
    let report = v1::TaskReport { lease: Some(lease), result: Some(v1::task_report::Result::Done(done)) };
    let report = v1::ReportOutcomesRequest { system: "systems/print".to_owned(), reports: vec![report] };
    worker.connectors().report_outcomes(report).await.unwrap();
    completed(&s.acme, &request.name).await;
    let name = format!("{}/package", request.name);
    let package = get(&s.acme, &name).await.unwrap();
    assert_eq!((package.state(), package.third_party_record_count), (v1::PackageState::AwaitingReview, 2));
    review(&s.acme, &name, false).await.unwrap();
    let (_, records) = download(&s.acme, &name).await.unwrap();
    let marks: Vec<_> = records.iter().map(|r| (r.collection.as_str(), r.third_party)).collect();
    assert_eq!(marks, [("letters", true), ("files", true), ("files", false)]);
}

#[tokio::test]
async fn there_is_nothing_to_review_while_systems_are_asked_or_where_no_package_is() {
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    s.register_remote("print").await;
    let package = async |action| {
        let request = create(&s.acme, by_email(action, email(1))).await.unwrap();
        format!("{}/package", request.name)
    };
    let open = package(v1::Action::Access).await;
    assert_eq!(get(&s.acme, &open).await.unwrap().state(), v1::PackageState::Compiling);
    assert_refused(review(&s.acme, &open, true).await, Code::FailedPrecondition, "WRONG_STATE", "");
    assert_refused(download(&s.acme, &open).await, Code::FailedPrecondition, "WRONG_STATE", "");
    let erasure = package(v1::Action::Erasure).await;
    assert_refused(review(&s.acme, &erasure, true).await, Code::NotFound, "NOT_FOUND", "");
    let unknown = format!("customers/acme/requests/{}/package", uuid::Uuid::now_v7());
    assert_refused(review(&s.acme, &unknown, true).await, Code::NotFound, "NOT_FOUND", "");
    // Who waits for one that was declined or cancelled would wait for ever.
    let cancelled = package(v1::Action::Access).await;
    let name = |package: &str| package.trim_end_matches("/package").to_owned();
    let cancel = v1::CancelRequestRequest { name: name(&cancelled), ..v1::CancelRequestRequest::default() };
    s.acme.requests().cancel_request(cancel).await.unwrap();
    let refer = v1::ReferRequestRequest {
        request_id: new_id(),
        parent: "customers/acme".to_owned(),
        request: Some(by_email(v1::Action::Access, email(2))),
        words: "what do you have of me?".to_owned(),
    };
    let referred = s.operator.requests().refer_request(refer).await.unwrap().into_inner().request.unwrap();
    let declined = format!("{}/package", referred.name);
    assert_eq!(get(&s.acme, &declined).await.unwrap().state(), v1::PackageState::Compiling);
    let decline = v1::DeclineRequestRequest { name: referred.name, reason: "not ours".to_owned() };
    s.acme.requests().decline_request(decline).await.unwrap();
    for gone in [cancelled, declined] {
        assert_refused(get(&s.acme, &gone).await, Code::NotFound, "NOT_FOUND", "");
        assert_refused(review(&s.acme, &gone, true).await, Code::NotFound, "NOT_FOUND", "");
        let refused = download(&s.acme, &gone).await;
        assert!(refused.as_ref().unwrap_err().message().contains("declined or cancelled"), "{refused:?}");
        assert_refused(refused, Code::NotFound, "NOT_FOUND", "");
    }
}

/// A row may hold a whole document. Once it is in a released package it must come out of it.
#[tokio::test]
async fn a_package_with_a_very_large_row_can_be_downloaded() {
    const LETTER: i64 = 24 << 20;
    let (s, crm) = Scene::with_crm(StoreKind::Sqlite, Engine::Sqlite, CRM_MAP).await;
    let write = format!("UPDATE customer SET remark = hex(zeroblob({LETTER} / 2)) WHERE email = '{}'", email(5));
    crm.pool.run_script(&write).await.unwrap();
    let request = create(&s.acme, by_email(v1::Action::Access, email(5))).await.unwrap();
    assert_eq!(completed(&s.acme, &request.name).await.state(), v1::RequestState::Completed);
    let (package, records) = download(&s.acme, &format!("{}/package", request.name)).await.unwrap();
    assert_eq!((package.record_count, records.len()), (6, 6));
    let lengths = records.iter().flat_map(|r| &r.fields).filter_map(|f| f.value.as_ref()).map(String::len);
    assert_eq!(lengths.max().unwrap() as i64, LETTER);

    // A client that takes messages of 4 MiB, as others than ours do unless told otherwise.
    let name = format!("{}/package", request.name);
    let ask = |bytes| v1::DownloadPackageRequest { name: name.clone(), record_bytes_max: bytes };
    let mut usual = s.acme.packages().max_decoding_message_size(4 << 20);
    let refused = usual.download_package(ask(0)).await.unwrap().into_inner();
    assert_eq!(whole(refused).await.unwrap_err().code(), Code::OutOfRange, "it cannot take the whole of it");
    let in_parts = whole(usual.download_package(ask(2 << 20)).await.unwrap().into_inner()).await.unwrap();
    assert_eq!(in_parts, (package, records));
    for bytes in [-1, 1, (64 << 10) - 1] {
        let refused = usual.download_package(ask(bytes)).await.map(|_| ());
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "record_bytes_max");
    }
    let out = s.deployment.path("package.jsonl");
    let mut cli = Command::new(binary("quittance"));
    cli.args(["--endpoint", &s.deployment.endpoint(), "packages", "download", &request.name, "--out"]).arg(&out);
    let ran = cli.env("QUITTANCE_TOKEN", s.deployment.customer_token("acme")).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let lines = std::fs::read_to_string(out).unwrap();
    assert_eq!(lines.lines().count(), 8, "a header, six records and a trailer");
    assert_eq!(lines.lines().map(|line| line.len() as i64).max().unwrap() / LETTER, 1, "the letter in one piece");
}

/// What an attempt had found is nobody's word for the next one: an account may have changed hands.
#[tokio::test]
async fn a_package_holds_what_is_the_subjects_when_it_is_made() {
    let (s, crm) = Scene::with_crm(StoreKind::Sqlite, Engine::Sqlite, CRM_MAP).await;
    // What cannot be read: it is found, and not exported.
    crm.pool.run_script("UPDATE address SET street = CAST(X'ff' AS TEXT) WHERE customer_id = 1").await.unwrap();
    let request = create(&s.acme, by_email(v1::Action::Access, email(1))).await.unwrap();
    let stopped = |r: &v1::Request| r.tasks[0].state() == v1::TaskState::NeedsAttention;
    let task = wait_for(&s.acme, &request.name, stopped).await.tasks[0].name.clone();
    crm.pool
        .run_script("UPDATE address SET street = 'Another street' WHERE customer_id = 1; UPDATE customer SET email = 'new@example.com' WHERE id = 1")
        .await
        .unwrap();
    s.operator.requests().retry_task(v1::RetryTaskRequest { name: task }).await.unwrap();
    assert_eq!(completed(&s.acme, &request.name).await.state(), v1::RequestState::Completed);
    let (_, records) = download(&s.acme, &format!("{}/package", request.name)).await.unwrap();
    let of: Vec<&str> = records.iter().map(|r| r.collection.as_str()).collect();
    assert!(!of.contains(&"customer") && !of.contains(&"address"), "{of:?} of somebody else");
}
