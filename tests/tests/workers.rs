//! Remote workers that are gone, and servers that are: who waits sees it, and nobody waits longer than there is reason to.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use prost::Message as _;
use quittance_api::v1::{self, task_report::Result as TaskResult, upload_records_request::Part};
use quittance_tests::{
    Deployment, StoreKind,
    deployment::binary,
    scenario::{
        assert_refused, by_email, completed, create, create_customer, get, identifier, lease_one, outcomes, register,
        remote_files, two_files_erased,
    },
};
use tonic::Code;

const FILES: usize = 12;

async fn scene() -> Deployment {
    scene_with_lease("4").await
}

async fn scene_with_lease(seconds: &str) -> Deployment {
    let deployment = Deployment::start_with(StoreKind::Sqlite, &[("QUITTANCED_DISPATCH__LEASE_S", seconds)]).await;
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "print", remote_files("Print shop")).await.unwrap();
    deployment
}

#[tokio::test]
async fn a_stopped_worker_does_not_wait_for_a_server_that_is_gone_and_loses_nothing() {
    let mut deployment = scene().await;
    let root = deployment.path("files");
    let folder = root.join("acme/email/anna%40example.com");
    fs::create_dir_all(&folder).unwrap();
    for n in 0..FILES {
        fs::write(folder.join(format!("{n}.txt")), "Dear").unwrap();
    }
    let token = deployment.connector_token("print");
    let slow = ["--act-delay-ms", "100"];
    let mut worker = deployment.file_worker("print", &token, &root, &slow);
    let customer = deployment.customer_token("acme");
    let acme = deployment.client(&customer).await;
    let request = create(&acme, by_email(v1::Action::Erasure, "anna@example.com")).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while fs::read_dir(&folder).map_or(0, Iterator::count) == FILES {
        assert!(Instant::now() < until, "it does not begin");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    deployment.kill();
    let stopped = Instant::now();
    assert!(Command::new("kill").arg(worker.id().to_string()).status().unwrap().success());
    while worker.try_wait().unwrap().is_none() {
        assert!(stopped.elapsed() < Duration::from_secs(15), "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    deployment.launch().await;
    let mut worker = deployment.file_worker("print", &token, &root, &[]);
    let request = completed(&deployment.client(&customer).await, &request.name).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(outcomes(&request), [format!("print files file ERASED VERIFIED {FILES}")]);
}

#[tokio::test]
async fn who_waits_is_told_that_no_worker_comes() {
    let deployment = scene().await;
    let token = deployment.customer_token("acme");
    let cli = Command::new(binary("quittance"))
        .args(["--endpoint", &deployment.endpoint(), "--timeout", "20s", "requests", "create"])
        .args(["--action", "erasure", "--email", "anna@example.com", "--wait"])
        .env("QUITTANCE_TOKEN", &token)
        .output()
        .unwrap();
    assert_eq!(cli.status.code(), Some(4), "still open");
    let told = String::from_utf8(cli.stderr).unwrap();
    assert_eq!(told.matches("no worker has taken it for").count(), 1, "{told}");
    assert!(told.contains("does one run for print?"), "{told}");
    assert!(!deployment.log().contains("anna@"), "no personal data in the log (I10)");
}

/// An operator has it on paper: the paper stays where it is, and its digest is the evidence.
#[tokio::test]
async fn a_document_is_recorded_by_its_digest() {
    let deployment = scene().await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let operator = deployment.operator().await;
    let request = create(&acme, by_email(v1::Action::Erasure, "anna@example.com")).await.unwrap();
    let clerk = deployment.client(&deployment.connector_token("print")).await;
    let task = lease_one(&clerk, "print").await;
    let failed = v1::TaskFailed { reason: "only by letter".to_owned() };
    let report = v1::ReportOutcomesRequest {
        system: "systems/print".to_owned(),
        reports: vec![v1::TaskReport {
            lease: Some(v1::Lease { task: task.name.clone(), lease: task.lease }),
            result: Some(v1::task_report::Result::NeedsAttention(failed)),
        }],
    };
    clerk.connectors().report_outcomes(report).await.unwrap();
    let letter = deployment.path("letter.txt");
    fs::write(&letter, "abc").unwrap();
    let resolution = deployment.path("resolution.yaml");
    fs::write(
        &resolution,
        "outcomes: [{collection: files, category: file, outcome: erased, grade: executed, count: 3}]\n",
    )
    .unwrap();
    let resolved = Command::new(binary("quittance"))
        .args(["--endpoint", &deployment.endpoint(), "tasks", "resolve", &task.name, "-f"])
        .arg(&resolution)
        .arg("--document")
        .arg(&letter)
        .env("QUITTANCE_TOKEN", deployment.operator_token())
        .output()
        .unwrap();
    assert!(resolved.status.success(), "{}", String::from_utf8_lossy(&resolved.stderr));
    let request = completed(&operator, &request.name).await;
    let confirmation = request.tasks[0].confirmation.as_ref().unwrap();
    // What is gone from the print shop lives on in its backups, whoever says that it is gone.
    let (expire, confirmed) = (confirmation.backups_expire_time.unwrap(), confirmation.confirm_time.unwrap());
    assert_eq!(expire.seconds - confirmed.seconds, 14 * 86_400);
    let evidence = confirmation.evidence.as_ref().unwrap();
    assert_eq!(evidence.kind(), v1::EvidenceKind::DocumentDigest);
    assert_eq!(evidence.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

fn report_of(task: &v1::LeasedTask, result: TaskResult) -> v1::ReportOutcomesRequest {
    let lease = v1::Lease { task: task.name.clone(), lease: task.lease };
    let report = v1::TaskReport { lease: Some(lease), result: Some(result) };
    v1::ReportOutcomesRequest { system: "systems/print".to_owned(), reports: vec![report] }
}

/// Refused by its field, and nothing of it is recorded: the lease is still the worker's.
#[tokio::test]
async fn what_is_not_a_workers_to_say_is_refused() {
    let deployment = scene_with_lease("60").await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let request = create(&acme, by_email(v1::Action::Erasure, "anna@example.com")).await.unwrap();
    let worker = deployment.client(&deployment.connector_token("print")).await;
    let task = lease_one(&worker, "print").await;
    let refused = async |result: TaskResult, field: &str| {
        let answer = worker.connectors().report_outcomes(report_of(&task, result)).await;
        assert_refused(answer, Code::InvalidArgument, "INVALID_FIELD", field);
    };
    let several = (0..257).map(|n| identifier(v1::IdentifierKind::UserId, format!("u{n}"))).collect();
    let resolved = TaskResult::Resolved(v1::TaskResolved { identifiers: several });
    refused(resolved, "reports[0].resolved.identifiers").await;
    let erased = two_files_erased();
    let receipt = v1::Evidence {
        kind: v1::EvidenceKind::VendorReceipt.into(),
        reference: "receipt 17".to_owned(),
        ..v1::Evidence::default()
    };
    let done = |outcomes: Vec<v1::Outcome>, evidence: &v1::Evidence| {
        TaskResult::Done(v1::TaskDone { outcomes, evidence: Some(evidence.clone()) })
    };
    // Nobody is certified to have given up who never saw it.
    let given_up = v1::Outcome {
        outcome: v1::OutcomeKind::Unconfirmed.into(),
        grade: v1::Grade::None.into(),
        count: 0,
        basis: "the vendor does not answer".to_owned(),
        ..erased.clone()
    };
    refused(done(vec![erased.clone(), given_up], &receipt), "reports[0].done.outcomes[1].outcome").await;
    // Half of it would be false, whichever.
    let nothing = v1::Outcome {
        collection: "*".to_owned(),
        category: "*".to_owned(),
        outcome: v1::OutcomeKind::NotHeld.into(),
        count: 0,
        ..erased.clone()
    };
    refused(done(vec![erased.clone(), nothing], &receipt), "reports[0].done.outcomes").await;
    // What was so before anybody had instructed it.
    let of_2001 =
        v1::Evidence { time: Some(prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 }), ..receipt.clone() };
    refused(done(vec![erased.clone()], &of_2001), "reports[0].done.evidence.time").await;
    let open = get(&acme, &request.name).await;
    assert_eq!(open.tasks[0].state(), v1::TaskState::Running);
    worker.connectors().report_outcomes(report_of(&task, done(vec![erased], &receipt))).await.unwrap();
    assert_eq!(completed(&acme, &request.name).await.state(), v1::RequestState::Completed);
}

/// Categories are counted in the log, where nothing is ever forgotten: they are the data map's alone.
#[tokio::test]
async fn a_record_with_a_category_of_the_workers_own_or_too_long_is_refused() {
    let deployment = scene().await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    create(&acme, by_email(v1::Action::Access, "anna@example.com")).await.unwrap();
    let worker = deployment.client(&deployment.connector_token("print")).await;
    let task = lease_one(&worker, "print").await;
    let upload_text = async |collection: &str, categories: &[&str], text: &str| {
        let field = |category: &&str| v1::RecordField {
            name: "content".to_owned(),
            category: (*category).to_owned(),
            value: Some(text.to_owned()),
        };
        let record = v1::PackageRecord {
            collection: collection.to_owned(),
            key: vec!["1.txt".to_owned()],
            fields: categories.iter().map(field).collect(),
            third_party: true,
            ..v1::PackageRecord::default()
        };
        let lease = v1::Lease { task: task.name.clone(), lease: task.lease };
        let parts =
            [Part::Lease(lease), Part::Record(record)].map(|part| v1::UploadRecordsRequest { part: Some(part) });
        worker.connectors().upload_records(tokio_stream::iter(parts)).await
    };
    let upload = async |collection: &str, categories: &[&str]| upload_text(collection, categories, "Dear").await;
    let field = "record[0].fields[1].category";
    assert_refused(upload("files", &["file", "about Anna"]).await, Code::InvalidArgument, "INVALID_FIELD", field);
    assert_refused(upload("Anna", &["file"]).await, Code::InvalidArgument, "INVALID_FIELD", "record[0].collection");
    // Nor what the customer's client could not take: a record is one message of the package.
    let long = "x".repeat((3 << 20) + 1);
    assert_refused(upload_text("files", &["file"], &long).await, Code::InvalidArgument, "INVALID_FIELD", "record[0]");
    let named = async |key: &str, name: &str| {
        let field = v1::RecordField { name: name.to_owned(), category: "file".to_owned(), value: None };
        let (collection, key) = ("files".to_owned(), vec![key.to_owned()]);
        let record = v1::PackageRecord { collection, key, fields: vec![field], ..v1::PackageRecord::default() };
        let lease = v1::Lease { task: task.name.clone(), lease: task.lease };
        let parts =
            [Part::Lease(lease), Part::Record(record)].map(|part| v1::UploadRecordsRequest { part: Some(part) });
        worker.connectors().upload_records(tokio_stream::iter(parts)).await
    };
    let (short, long) = ("1.txt", "n".repeat(20_000));
    assert_refused(named(&long, short).await, Code::InvalidArgument, "INVALID_FIELD", "record[0].key");
    assert_refused(named(short, &long).await, Code::InvalidArgument, "INVALID_FIELD", "record[0].fields[0].name");
    assert_eq!(upload("files", &["file"]).await.unwrap().into_inner().record_count, 1);
}

/// What is confirmed as exported is in the package, whole (I5).
#[tokio::test]
async fn nothing_is_exported_that_was_not_uploaded() {
    let deployment = scene_with_lease("60").await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let taken = create(&acme, by_email(v1::Action::Access, "anna@example.com")).await.unwrap();
    let worker = deployment.client(&deployment.connector_token("print")).await;
    let task = lease_one(&worker, "print").await;
    let lease = || v1::Lease { task: task.name.clone(), lease: task.lease };
    let report = async |kind: v1::OutcomeKind| {
        let (collection, category) = if kind == v1::OutcomeKind::NotHeld { ("*", "*") } else { ("files", "file") };
        let outcome = v1::Outcome {
            collection: collection.to_owned(),
            category: category.to_owned(),
            outcome: kind.into(),
            grade: v1::Grade::Verified.into(),
            count: u64::from(kind == v1::OutcomeKind::Exported),
            ..v1::Outcome::default()
        };
        let evidence = v1::Evidence {
            kind: v1::EvidenceKind::SystemReport.into(),
            reference: "listed the folder".to_owned(),
            ..v1::Evidence::default()
        };
        let done = v1::TaskDone { outcomes: vec![outcome], evidence: Some(evidence) };
        let reports = vec![v1::TaskReport { lease: Some(lease()), result: Some(v1::task_report::Result::Done(done)) }];
        let report = v1::ReportOutcomesRequest { system: "systems/print".to_owned(), reports };
        worker.connectors().report_outcomes(report).await
    };
    let record = |number: u32| v1::PackageRecord {
        collection: "files".to_owned(),
        key: vec![format!("{number}.txt")],
        ..v1::PackageRecord::default()
    };
    let part = |part| v1::UploadRecordsRequest { part: Some(part) };
    let field = "reports[0].done.outcomes";
    let exported = v1::OutcomeKind::Exported;
    assert_refused(report(exported).await, Code::InvalidArgument, "INVALID_FIELD", field);
    // Several pages, and cut: what came of it is no package.
    let parts: Vec<_> =
        std::iter::once(Part::Lease(lease())).chain((0..1_000).map(|n| Part::Record(record(n)))).collect();
    let cut = parts.into_iter().map(part).chain([v1::UploadRecordsRequest::default()]);
    worker.connectors().upload_records(tokio_stream::iter(cut)).await.unwrap_err();
    assert_refused(report(exported).await, Code::InvalidArgument, "INVALID_FIELD", field);
    let whole = [Part::Lease(lease()), Part::Record(record(1))].map(part);
    worker.connectors().upload_records(tokio_stream::iter(whole)).await.unwrap();
    assert_refused(report(v1::OutcomeKind::NotHeld).await, Code::InvalidArgument, "INVALID_FIELD", field);
    assert!(report(exported).await.unwrap().into_inner().lost.is_empty());
    assert_eq!(outcomes(&completed(&acme, &taken.name).await), ["print files file EXPORTED VERIFIED 1"]);
}

const COUNTED_MAP: &str = "version: 1\ncollections:\n  files:\n    fields: {title: name, content: file}\n  prints:\n    fields: {content: print}\n";

/// Of each collection, what is said to be in the package is there (I5); and nobody but who uploads says so.
#[tokio::test]
async fn no_more_is_exported_than_was_uploaded_of_each_collection() {
    let deployment = scene_with_lease("60").await;
    let operator = deployment.operator().await;
    let counted = v1::System { data_map_yaml: COUNTED_MAP.to_owned(), ..remote_files("Counted") };
    register(&operator, "counted", counted).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let taken = create(&acme, by_email(v1::Action::Access, "anna@example.com")).await.unwrap();
    let worker = deployment.client(&deployment.connector_token("counted")).await;
    let task = lease_one(&worker, "counted").await;
    let lease = || v1::Lease { task: task.name.clone(), lease: task.lease };
    let record = |number: u32| {
        let key = vec![format!("{number}.txt")];
        Part::Record(v1::PackageRecord { collection: "files".to_owned(), key, ..v1::PackageRecord::default() })
    };
    let parts = [Part::Lease(lease()), record(1), record(2)].map(|part| v1::UploadRecordsRequest { part: Some(part) });
    worker.connectors().upload_records(tokio_stream::iter(parts)).await.unwrap();
    let line = |collection: &str, category: &str, grade: v1::Grade, count: u64| v1::Outcome {
        collection: collection.to_owned(),
        category: category.to_owned(),
        outcome: v1::OutcomeKind::Exported.into(),
        grade: grade.into(),
        count,
        ..v1::Outcome::default()
    };
    let (verified, executed) = (v1::Grade::Verified, v1::Grade::Executed);
    let report = async |outcomes: Vec<v1::Outcome>| {
        let kind = v1::EvidenceKind::SystemReport.into();
        let evidence = v1::Evidence { kind, reference: "listed the folder".to_owned(), ..v1::Evidence::default() };
        let done = TaskResult::Done(v1::TaskDone { outcomes, evidence: Some(evidence) });
        let reports = vec![v1::TaskReport { lease: Some(lease()), result: Some(done) }];
        let report = v1::ReportOutcomesRequest { system: "systems/counted".to_owned(), reports };
        worker.connectors().report_outcomes(report).await
    };
    let title = || line("files", "name", verified, 2);
    for (second, of) in [
        (vec![line("files", "file", verified, 3)], "of collection files, of which 2 records"),
        (vec![line("prints", "print", verified, 1)], "of collection prints, of which 0 records"),
        (vec![line("prints", "print", verified, 0)], "of collection prints, of which 0 records"),
    ] {
        let refused = report([vec![title()], second].concat()).await;
        assert!(format!("{refused:?}").contains(of), "{refused:?}");
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "reports[0].done.outcomes[1].count");
    }
    let twice = [line("files", "file", verified, 1), line("files", "file", executed, 2)].to_vec();
    assert_refused(report(twice).await, Code::InvalidArgument, "INVALID_FIELD", "reports[0].done.outcomes[1].count");
    assert_eq!(get(&acme, &taken.name).await.tasks.iter().filter(|t| t.confirmation.is_some()).count(), 0);
    report(vec![title(), line("files", "file", verified, 1)]).await.unwrap();

    // Nobody has uploaded anything of the other one, and whoever ends it by hand cannot.
    let task = get(&acme, &taken.name).await.tasks.into_iter().find(|t| t.system == "systems/print").unwrap();
    let resolve = async |outcome: v1::Outcome, kind: v1::EvidenceKind| {
        let evidence = v1::Evidence { kind: kind.into(), reference: "letter 17".to_owned(), ..v1::Evidence::default() };
        let (name, evidence) = (task.name.clone(), Some(evidence));
        let resolve = v1::ResolveTaskRequest { name, outcomes: vec![outcome], evidence };
        operator.requests().resolve_task(resolve).await.map(|_| ())
    };
    let refused = resolve(line("files", "file", executed, 1), v1::EvidenceKind::SignedStatement).await;
    assert!(refused.as_ref().unwrap_err().message().contains("no records"), "{refused:?}");
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "outcomes[0].outcome");
    let given_up = v1::Outcome {
        outcome: v1::OutcomeKind::Unconfirmed.into(),
        grade: v1::Grade::None.into(),
        count: 0,
        basis: "handed over on paper".to_owned(),
        ..line("files", "file", executed, 0)
    };
    resolve(given_up, v1::EvidenceKind::OperatorStatement).await.unwrap();
    let request = completed(&acme, &taken.name).await;
    assert_eq!(request.state(), v1::RequestState::CompletedWithExceptions);
    let name = format!("{}/package", taken.name);
    let package = acme.packages().get_package(v1::GetPackageRequest { name }).await.unwrap().into_inner().package;
    assert_eq!(package.unwrap().record_count, 2);
}

/// Whatever tasks bring along, the answer is one that any gRPC client takes.
#[tokio::test]
async fn a_batch_of_large_match_sets_comes_in_parts() {
    const TASKS: usize = 6;
    let deployment = scene_with_lease("60").await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let mut requests = Vec::with_capacity(TASKS);
    for n in 0..TASKS {
        requests.push(create(&acme, by_email(v1::Action::Erasure, format!("anna{n}@example.com"))).await.unwrap());
    }
    let worker = deployment.client(&deployment.connector_token("print")).await;
    let lease = async || {
        let lease = v1::LeaseTasksRequest {
            system: "systems/print".to_owned(),
            worker: "w".to_owned(),
            wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
            ..v1::LeaseTasksRequest::default()
        };
        worker.connectors().lease_tasks(lease).await.unwrap().into_inner()
    };
    let lease_of = |task: &v1::LeasedTask| Some(v1::Lease { task: task.name.clone(), lease: task.lease });
    let first = lease().await.tasks;
    assert_eq!(first.len(), TASKS);
    let set = vec![7; 900 << 10];
    for task in &first {
        let match_sets = vec![v1::TaskMatchSet { lease: lease_of(task), match_set: set.clone() }];
        let save = v1::SaveMatchSetsRequest { system: "systems/print".to_owned(), match_sets };
        assert!(worker.connectors().save_match_sets(save).await.unwrap().into_inner().lost.is_empty());
    }
    let check_after = Some(prost_types::Duration { seconds: 0, nanos: 1000 });
    let awaiting = |task: &v1::LeasedTask| v1::TaskReport {
        lease: lease_of(task),
        result: Some(v1::task_report::Result::Awaiting(v1::TaskAwaiting {
            check_after,
            reference: "job 7".to_owned(),
        })),
    };
    let reports = first.iter().map(awaiting).collect();
    let report = v1::ReportOutcomesRequest { system: "systems/print".to_owned(), reports };
    assert!(worker.connectors().report_outcomes(report).await.unwrap().into_inner().lost.is_empty());

    let mut seen = BTreeSet::new();
    while seen.len() < TASKS {
        let part = lease().await;
        assert!(part.encoded_len() < 3 << 20, "{} bytes", part.encoded_len());
        assert!((1..=2).contains(&part.tasks.len()), "{} tasks", part.tasks.len());
        for task in part.tasks {
            assert_eq!(task.match_set, set);
            assert!(seen.insert(task.name), "what is handed out is under a lease, what was not is due at once");
        }
        for request in &requests {
            let task = get(&acme, &request.name).await.tasks.remove(0);
            let stands = if seen.contains(&task.name) {
                (v1::TaskState::Running, 2)
            } else {
                (v1::TaskState::AwaitingConfirmation, 1)
            };
            assert_eq!(
                (task.state(), task.attempts, task.reason.as_str()),
                (stands.0, stands.1, "job 7"),
                "what was not handed out stands as it did"
            );
        }
    }
}

/// Counted from when the call was sent: also one that had waited for longer than the lease is.
#[tokio::test]
async fn a_lease_is_told_as_long_as_it_lives_however_long_the_call_waited() {
    const LEASE: Duration = Duration::from_secs(4);
    let deployment = scene().await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let worker = deployment.client(&deployment.connector_token("print")).await;
    let wait = v1::LeaseTasksRequest {
        system: "systems/print".to_owned(),
        worker: "w".to_owned(),
        wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        ..v1::LeaseTasksRequest::default()
    };
    let sent = Instant::now();
    let mut service = worker.connectors();
    let late = async {
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        create(&acme, by_email(v1::Action::Erasure, "anna@example.com")).await.unwrap()
    };
    let (leased, _) = tokio::join!(service.lease_tasks(wait), late);
    let (leased, waited) = (leased.unwrap().into_inner(), sent.elapsed());
    let lives = Duration::try_from(leased.lease_duration.unwrap()).unwrap();
    assert!(lives > LEASE + Duration::from_secs(1) && lives <= waited + LEASE, "{lives:?} after {waited:?}");
    let task = &leased.tasks[0];
    let beat = v1::ExtendLeasesRequest {
        system: "systems/print".to_owned(),
        leases: vec![v1::Lease { task: task.name.clone(), lease: task.lease }],
    };
    let sent = Instant::now();
    let extended = worker.connectors().extend_leases(beat).await.unwrap().into_inner();
    let lives = Duration::try_from(extended.lease_duration.unwrap()).unwrap();
    assert!(extended.lost.is_empty() && lives > LEASE / 2 && lives <= sent.elapsed() + LEASE, "{lives:?}");
}
