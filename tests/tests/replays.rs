//! An application database is restored from a copy that was taken before: what was erased since comes back, and goes again.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Output},
    time::{Duration, Instant},
};

use quittance_api::v1::{self, upload_held_keys_request::Part as HeldPart};
use quittance_client::Client;
use quittance_domain::Timestamp;
use quittance_sql::{ConnectOptions, Engine, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    deployment::binary,
    scenario::{
        by_email, certificate, completed, create, create_customer, get, identifier, new_id, outcomes, rectify,
        register, remote_files, system,
    },
};
use serde_json::Value;
use tonic::Code;

const SUBJECTS: u64 = 100;
const ERASED: u64 = 50;

/// Customers share it; whose a row is says `tenant`.
const MAP: &str = "
version: 1
collections:
  person:
    key: [id]
    customer_field: tenant
    identifiers:
      - {kind: email, field: email}
    fields: {email: email, name: display_name}
    erase: delete
    restriction: {field: restricted, set: 'yes', clear: 'no'}
  note:
    key: [id]
    owned_by:
      - {collection: person, fields: {person: id}}
    fields: {body: message}
    erase: delete
    restriction: {field: restricted, set: 'yes', clear: 'no'}
";

fn email(n: u64) -> String {
    format!("Subject{n}@Example.com")
}

struct Scene {
    deployment: Deployment,
    app: AppDatabase,
    operator: Client,
    acme: Client,
}

async fn scene(store: StoreKind, engine: Engine) -> Scene {
    let deployment = Deployment::start_with(store, &[("QUITTANCED_DISPATCH__REPLAY_PAUSE_MS", "50")]).await;
    let app = AppDatabase::crm(engine, deployment.folder.path(), 0).await;
    let no = "VARCHAR(5) NOT NULL DEFAULT 'no'";
    let mut script = format!(
        "CREATE TABLE person (id INTEGER PRIMARY KEY, tenant VARCHAR(20), email VARCHAR(100), name VARCHAR(50), restricted {no});
         CREATE TABLE note (id INTEGER PRIMARY KEY, person INTEGER, body VARCHAR(50), restricted {no});"
    );
    for (tenant, first) in [("acme", 0), ("bolt", 1000)] {
        for n in 0..SUBJECTS {
            let id = first + n;
            script.push_str(&format!(
                "INSERT INTO person (id, tenant, email, name) VALUES ({id}, '{tenant}', '{}', 'Name {n}');
                 INSERT INTO note (id, person, body) VALUES ({id}, {id}, 'Note {n}');",
                email(n)
            ));
        }
    }
    app.pool.run_script(&script).await.unwrap();
    deployment.secret("app", &app.url);
    let operator = deployment.operator().await;
    for customer in ["acme", "bolt"] {
        create_customer(&operator, customer).await;
    }
    let shared = v1::System {
        customers: ["acme", "bolt"]
            .map(|c| v1::SystemCustomer { customer: format!("customers/{c}"), key: String::new() })
            .into(),
        ..system("acme", v1::ConnectorKind::Sql, "app", MAP)
    };
    register(&operator, "app", shared).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    Scene { deployment, app, operator, acme }
}

impl Scene {
    async fn backup(&self) -> String {
        let copy = "CREATE TABLE person_copy AS SELECT * FROM person; CREATE TABLE note_copy AS SELECT * FROM note;";
        self.app.pool.run_script(copy).await.unwrap();
        Timestamp::now().to_string()
    }

    async fn restore(&self) {
        let script = "DELETE FROM note; DELETE FROM person;
             INSERT INTO person SELECT * FROM person_copy; INSERT INTO note SELECT * FROM note_copy;";
        self.app.pool.run_script(script).await.unwrap();
    }

    async fn done(&self, request: v1::Request) -> v1::Request {
        let taken = create(&self.acme, request).await.unwrap();
        let request = completed(&self.acme, &taken.name).await;
        assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
        request
    }

    async fn people(&self, condition: &str) -> BTreeMap<String, Vec<Option<String>>> {
        let text = if self.app.pool.engine() == Engine::MySql { "CHAR" } else { "TEXT" };
        let sql = format!("SELECT CAST(id AS {text}), name, email, restricted FROM person WHERE {condition}");
        self.app.rows(&sql, 4).await
    }

    /// The store's own tables, behind the service's back.
    async fn in_store(&self, script: &str) {
        let url = match fs::read_to_string(self.deployment.path("store-url")) {
            Ok(url) => url,
            Err(_) => format!("sqlite:{}", self.deployment.data().join("quittance.db").display()),
        };
        let pool = Pool::open(&ConnectOptions::new(url)).unwrap();
        let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
        tx.execute_script(script).await.unwrap();
        tx.commit().await.unwrap();
        pool.close().await;
    }

    fn quittance(&self, args: &[&str]) -> Output {
        Command::new(binary("quittance"))
            .args(["--endpoint", &self.deployment.endpoint(), "--output", "json", "--timeout", "90s", "systems"])
            .args(args)
            .env("QUITTANCE_TOKEN", self.deployment.operator_token())
            .output()
            .unwrap()
    }

    /// Runs it, and gives exit code and document.
    fn replay(&self, args: &[&str]) -> (Option<i32>, Value) {
        let ran = self.quittance(args);
        let shown = serde_json::from_slice(&ran.stdout);
        (ran.status.code(), shown.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr))))
    }

    /// All follow-up requests of acme.
    async fn follow_ups(&self) -> Vec<v1::Request> {
        let list = v1::ListRequestsRequest { page_size: 1000, ..Default::default() };
        let all = self.acme.requests().list_requests(list).await.unwrap().into_inner().requests;
        all.into_iter().filter(|r| !r.follows.is_empty()).collect()
    }
}

async fn what_a_restore_brought_back_goes_again(store: StoreKind, engine: Engine) {
    let s = scene(store, engine).await;
    let snapshot = s.backup().await;
    let whole = s.people("tenant = 'bolt'").await;
    let neighbours = format!("tenant = 'acme' AND id >= {ERASED} AND id <> 61");
    let unmarked = s.people(&neighbours).await;
    let mut originals = Vec::new();
    for n in 0..ERASED {
        originals.push(create(&s.acme, by_email(v1::Action::Erasure, email(n))).await.unwrap().name);
    }
    for name in &originals {
        assert_eq!(completed(&s.acme, name).await.state(), v1::RequestState::Completed);
    }
    let who = by_email(v1::Action::Access, email(60)).identifiers;
    let rectified = s.done(rectify(who, ("person", "name"), "Name 60", "Named 60")).await;
    let restrict = |n| v1::Request {
        restriction_ground: v1::RestrictionGround::AccuracyContested.into(),
        ..by_email(v1::Action::Restriction, email(n))
    };
    let restricted = s.done(restrict(61)).await;
    s.done(restrict(62)).await;
    let informed = Some(prost_types::Timestamp { seconds: 1_760_000_000, nanos: 0 });
    s.done(v1::Request { subject_informed_time: informed, ..by_email(v1::Action::LiftRestriction, email(62)) }).await;

    // Forgotten meanwhile, all of it, and the generation of the pseudonyms is another one.
    let empty = if store == StoreKind::Postgres { "''::bytea" } else { "x''" };
    s.in_store(&format!("UPDATE requests SET sealed_subject = {empty}, wrapped_key = {empty}; DELETE FROM match_sets"))
        .await;
    let rotated = Command::new(binary("quittanced"))
        .arg("--data-dir")
        .arg(s.deployment.data())
        .args(["keys", "rotate-pseudonyms"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&rotated.stdout), "generation 2\n");
    s.restore().await;
    assert_eq!(s.app.count("SELECT count(*) FROM person").await, 2 * SUBJECTS as i64);

    let (code, asked) = s.replay(&["replay", "app", "--snapshot-time", &snapshot, "--dry-run", "--wait"]);
    assert_eq!((code, asked["state"].as_str()), (Some(3), Some("completed")), "{asked:#}");
    assert_eq!(asked["keys_read"], 2 * SUBJECTS, "{asked:#}");
    let share = &asked["shares"][0];
    assert_eq!(
        (&share["customer"], &share["erasures"], &share["restrictions"], &share["liftings"]),
        (&"customers/acme".into(), &ERASED.into(), &1.into(), &0.into())
    );
    assert_eq!(asked["shares"].as_array().unwrap().len(), 1, "nothing of bolt's was instructed");
    assert_eq!(s.app.count("SELECT count(*) FROM person").await, 2 * SUBJECTS as i64, "nothing is touched");

    let (code, stopped) = s.replay(&["replay", "app", "--snapshot-time", &snapshot, "--wait"]);
    assert_eq!((code, stopped["state"].as_str()), (Some(4), Some("awaiting_approval")), "{stopped:#}");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(s.follow_ups().await.is_empty(), "a quarter of all is for a person to look at");

    let (code, ended) = s.replay(&["approve-replay", stopped["name"].as_str().unwrap(), "--wait"]);
    assert_eq!((code, ended["state"].as_str()), (Some(3), Some("completed")), "{ended:#}");
    let look_at = &ended["findings"];
    assert_eq!(look_at.as_array().unwrap().len(), 1);
    assert_eq!(
        (&look_at[0]["request"], &look_at[0]["kind"]),
        (&rectified.name.clone().into(), &"rectification".into())
    );
    // The data are what they were, but for the rectification; bolt's are untouched, down to the letter.
    assert_eq!(s.people("tenant = 'bolt'").await, whole);
    assert_eq!(s.people(&neighbours).await, unmarked);
    assert!(s.people(&format!("tenant = 'acme' AND id < {ERASED}")).await.is_empty());
    assert_eq!(s.app.count("SELECT count(*) FROM note").await, (2 * SUBJECTS - ERASED) as i64);
    let marked = s.people("restricted = 'yes'").await;
    assert_eq!(marked.keys().collect::<Vec<_>>(), ["61"]);

    // Each by a request of its own, confirmed in the ordinary way.
    let follow_ups = s.follow_ups().await;
    assert_eq!(follow_ups.len() as u64, ERASED + 1);
    for follow_up in &follow_ups {
        let follow_up = get(&s.acme, &follow_up.name).await;
        assert_eq!(follow_up.state(), v1::RequestState::Completed);
        assert_eq!(follow_up.replay, ended["name"].as_str().unwrap());
        let expected = if follow_up.follows == restricted.name {
            ["app note message RESTRICTED VERIFIED 1", "app person display_name RESTRICTED VERIFIED 1"]
        } else {
            assert!(originals.contains(&follow_up.follows));
            ["app note message ERASED VERIFIED 1", "app person display_name ERASED VERIFIED 1"]
        };
        let lines = outcomes(&follow_up);
        assert!(expected.iter().all(|line| lines.contains(&(*line).to_owned())), "{lines:?}");
    }
    let certificate = certificate(&s.acme, &follow_ups[0].name, "").await;
    let text = String::from_utf8_lossy(&certificate.certificate).into_owned();
    let follows = follow_ups[0].follows.rsplit('/').next().unwrap();
    assert!(text.contains("\"follow_up\"") && text.contains(follows), "it says what it carries out again");

    // Another time there is nothing left to be done, though all is matched again in the log of what was instructed.
    let (code, again) = s.replay(&["replay", "app", "--snapshot-time", &snapshot, "--wait"]);
    assert_eq!(code, Some(3), "{again:#}");
    assert_eq!(again["shares"][0]["erasures"], 0, "{again:#}");
    let log = s.deployment.log();
    assert!(log.contains("a replay was asked for"), "every use is told of");
    assert!(!log.to_lowercase().contains("@example.com"), "no personal data in the log (I10)");
}

#[tokio::test]
async fn what_a_restore_brought_back_goes_again_postgres() {
    what_a_restore_brought_back_goes_again(StoreKind::Postgres, Engine::Postgres).await;
}

#[tokio::test]
async fn what_a_restore_brought_back_goes_again_mariadb() {
    what_a_restore_brought_back_goes_again(StoreKind::Sqlite, Engine::MySql).await;
}

#[tokio::test]
async fn what_a_restore_brought_back_goes_again_sqlite() {
    what_a_restore_brought_back_goes_again(StoreKind::Sqlite, Engine::Sqlite).await;
}

#[tokio::test]
async fn what_cannot_be_replayed_is_refused_and_says_why() {
    let s = scene(StoreKind::Sqlite, Engine::Sqlite).await;
    let mut plain = system("acme", v1::ConnectorKind::Sql, "app", MAP);
    plain.backup_retention = None;
    register(&s.operator, "plain", plain).await.unwrap();
    let at = |seconds: i64| {
        let now = Timestamp::now().as_second();
        Some(prost_types::Timestamp { seconds: now - seconds, nanos: 0 })
    };
    let ask = |system: &str, snapshot_time| v1::ReplayErasuresRequest {
        request_id: new_id(),
        system: format!("systems/{system}"),
        snapshot_time,
        dry_run: true,
        ..Default::default()
    };
    let refused = async |client: &Client, request| client.systems().replay_erasures(request).await.unwrap_err();
    let answer = refused(&s.operator, ask("plain", at(60))).await;
    assert_eq!(answer.code(), Code::FailedPrecondition);
    assert!(answer.message().contains("backup_retention"), "{answer:?}");
    assert_eq!(refused(&s.operator, ask("nowhere", at(60))).await.code(), Code::NotFound);
    for snapshot in [None, at(-60), at(15 * 86_400)] {
        assert_eq!(refused(&s.operator, ask("app", snapshot)).await.code(), Code::InvalidArgument);
    }
    assert_eq!(refused(&s.acme, ask("app", at(60))).await.code(), Code::PermissionDenied, "operators alone");
    let mut once = ask("app", at(60));
    let first = s.operator.systems().replay_erasures(once.clone()).await.unwrap().into_inner().replay.unwrap();
    let again = s.operator.systems().replay_erasures(once.clone()).await.unwrap().into_inner().replay.unwrap();
    assert_eq!(again.name, first.name);
    once.dry_run = false;
    assert_eq!(refused(&s.operator, once).await.code(), Code::AlreadyExists);
    let get = |name: String| v1::GetReplayRequest { name };
    let other = s.acme.systems().get_replay(get(first.name.clone())).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let elsewhere = first.name.replace("systems/app", "systems/plain");
    assert_eq!(s.operator.systems().get_replay(get(elsewhere)).await.unwrap_err().code(), Code::NotFound);
}

/// Nothing leads into the network where the files are: their worker says what it holds.
#[tokio::test]
async fn a_remote_system_says_what_it_holds() {
    let deployment = Deployment::start_with(StoreKind::Sqlite, &[("QUITTANCED_DISPATCH__LEASE_S", "4")]).await;
    let operator = deployment.operator().await;
    for customer in ["acme", "bolt"] {
        create_customer(&operator, customer).await;
    }
    let print = v1::System { all_customers: true, customers: Vec::new(), ..remote_files("Print shop") };
    register(&operator, "print", print).await.unwrap();
    let root = deployment.path("files");
    let put = |whose: &str, who: &str| {
        let folder = root.join(format!("{whose}/email/{who}%40example.com"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("letter.txt"), "Dear").unwrap();
    };
    let all = ["anna", "ben", "cid"];
    all.iter().for_each(|who| ["acme", "bolt"].iter().for_each(|whose| put(whose, who)));
    let snapshot = Timestamp::now().to_string();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let mut worker = deployment.file_worker("print", &deployment.connector_token("print"), &root, &[]);
    let erased = create(&acme, by_email(v1::Action::Erasure, "anna@example.com")).await.unwrap();
    completed(&acme, &erased.name).await;
    assert!(!root.join("acme/email/anna%40example.com").exists());
    put("acme", "anna");
    let ran = Command::new(binary("quittance"))
        .args(["--endpoint", &deployment.endpoint(), "--timeout", "60s", "systems", "replay", "print"])
        .args(["--snapshot-time", &snapshot, "--wait"])
        .env("QUITTANCE_TOKEN", deployment.operator_token())
        .output()
        .unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    let shown = String::from_utf8_lossy(&ran.stdout);
    assert_eq!(ran.status.code(), Some(0), "{shown}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(shown.contains("keys read") && shown.contains("customers/acme"), "{shown}");
    assert!(!root.join("acme/email/anna%40example.com").exists(), "gone again");
    for path in ["acme/email/ben", "acme/email/cid", "bolt/email/anna", "bolt/email/ben"] {
        assert!(root.join(format!("{path}%40example.com/letter.txt")).exists(), "{path}");
    }
}

/// A system somewhere else, whose worker is the test: what it holds, and when it has done what, is in our hands.
struct PrintShop {
    deployment: Deployment,
    operator: Client,
    worker: Client,
}

impl PrintShop {
    async fn open(settings: &[(&str, &str)]) -> Self {
        Self::of(remote_files("Print shop"), settings).await
    }

    async fn of(system: v1::System, settings: &[(&str, &str)]) -> Self {
        let deployment = Deployment::start_with(StoreKind::Sqlite, settings).await;
        let operator = deployment.operator().await;
        create_customer(&operator, "acme").await;
        register(&operator, "print", system).await.unwrap();
        let worker = deployment.client(&deployment.connector_token("print")).await;
        Self { deployment, operator, worker }
    }

    /// Asks for a replay of what was confirmed in the last minute.
    async fn replay(&self, matches_max: u64) -> v1::Replay {
        let now = Timestamp::now().as_second();
        let ask = v1::ReplayErasuresRequest {
            request_id: new_id(),
            system: "systems/print".to_owned(),
            snapshot_time: Some(prost_types::Timestamp { seconds: now - 60, nanos: 0 }),
            matches_max,
            ..Default::default()
        };
        self.operator.systems().replay_erasures(ask).await.unwrap().into_inner().replay.unwrap()
    }

    async fn shown(&self, replay: &v1::Replay) -> v1::Replay {
        let get = v1::GetReplayRequest { name: replay.name.clone() };
        self.operator.systems().get_replay(get).await.unwrap().into_inner().replay.unwrap()
    }

    async fn until(&self, replay: &v1::Replay, state: v1::ReplayState) -> v1::Replay {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let shown = self.shown(replay).await;
            if shown.state() == state {
                return shown;
            }
            assert!(Instant::now() < until, "{shown:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn lease(&self, replays: bool, tasks_max: u32, wait_s: i64) -> Vec<v1::LeasedTask> {
        let wait = Some(prost_types::Duration { seconds: wait_s, nanos: 0 });
        let (system, worker) = ("systems/print".to_owned(), "w".to_owned());
        let lease = v1::LeaseTasksRequest { system, worker, tasks_max, wait, replays, protocol: 1 };
        self.worker.connectors().lease_tasks(lease).await.unwrap().into_inner().tasks
    }

    async fn upload(
        &self,
        task: &v1::LeasedTask,
        parts: Vec<HeldPart>,
    ) -> Result<v1::UploadHeldKeysResponse, tonic::Status> {
        let first = HeldPart::Lease(v1::Lease { task: task.name.clone(), lease: task.lease });
        let parts = std::iter::once(first).chain(parts).map(|p| v1::UploadHeldKeysRequest { part: Some(p) });
        let parts: Vec<_> = parts.collect();
        self.worker.connectors().upload_held_keys(tokio_stream::iter(parts)).await.map(|a| a.into_inner())
    }

    /// Waits until there is something to erase, and erases it, so much at most. Gives how much that was.
    async fn erase(&self, tasks_max: u32) -> usize {
        let tasks = self.lease(false, tasks_max, 20).await;
        let erased = v1::Outcome {
            collection: "files".to_owned(),
            category: "file".to_owned(),
            outcome: v1::OutcomeKind::Erased.into(),
            grade: v1::Grade::Executed.into(),
            count: 1,
            ..Default::default()
        };
        let receipt = v1::Evidence {
            kind: v1::EvidenceKind::VendorReceipt.into(),
            reference: "receipt 17".to_owned(),
            ..Default::default()
        };
        let done = v1::TaskDone { outcomes: vec![erased], evidence: Some(receipt) };
        let report = |task: &v1::LeasedTask| v1::TaskReport {
            lease: Some(v1::Lease { task: task.name.clone(), lease: task.lease }),
            result: Some(v1::task_report::Result::Done(done.clone())),
        };
        let reports: Vec<_> = tasks.iter().map(report).collect();
        let report = v1::ReportOutcomesRequest { system: "systems/print".to_owned(), reports };
        self.worker.connectors().report_outcomes(report).await.unwrap();
        tasks.len()
    }
}

fn held(emails: impl IntoIterator<Item = String>) -> HeldPart {
    let key = |value| v1::HeldKey {
        identifier: Some(v1::Identifier { kind: v1::IdentifierKind::Email.into(), value }),
        customer_key: "acme".to_owned(),
    };
    HeldPart::Keys(v1::HeldKeys { keys: emails.into_iter().map(key).collect() })
}

const fn end(key_count: u64) -> HeldPart {
    HeldPart::End(v1::HeldKeysEnd { key_count })
}

/// A stream that is cut is never taken for all that there is.
#[tokio::test]
async fn half_of_what_a_system_holds_is_nothing() {
    let print = PrintShop::open(&[("QUITTANCED_DISPATCH__LEASE_S", "4")]).await;
    let replay = print.replay(0).await;
    assert!(print.lease(false, 1, 0).await.is_empty(), "only who can say so is asked");
    let task = print.lease(true, 1, 20).await.pop().unwrap();
    assert_eq!((task.work(), &task.name), (v1::Work::Replay, &replay.name));
    let a = || held(["a@example.com".to_owned()]);
    let cut = print.upload(&task, vec![a()]).await.unwrap_err();
    assert_eq!(cut.code(), Code::Unavailable);
    let short = print.upload(&task, vec![a(), end(2)]).await.unwrap_err();
    assert_eq!(short.code(), Code::Unavailable);
    // Memory is bounded, whatever a worker sends.
    let many = held((0..1001).map(email));
    let many = print.upload(&task, vec![many, end(1001)]).await.unwrap_err();
    assert_eq!(many.code(), Code::InvalidArgument, "{many}");
    assert_eq!(print.shown(&replay).await.state(), v1::ReplayState::Matching);
    // The lease passes, and it begins anew; under the old one nothing is taken any more.
    let again = print.lease(true, 1, 20).await.pop().expect("it comes back");
    assert_eq!(print.upload(&task, vec![end(0)]).await.unwrap_err().code(), Code::Aborted);
    let what_is_no_email = held(["a@example.com".to_owned(), "not an address".to_owned()]);
    let all = held((0..1000).map(email));
    let answer = print.upload(&again, vec![what_is_no_email, all, end(1002)]).await.unwrap();
    assert_eq!((answer.key_count, answer.left_out_count), (1002, 0), "of a customer of whom nothing is kept");
    assert_eq!(print.shown(&replay).await.state(), v1::ReplayState::Completed);
}

fn held_phones(numbers: &[&str]) -> HeldPart {
    let key = |value: &&str| v1::HeldKey {
        identifier: Some(identifier(v1::IdentifierKind::Phone, *value)),
        customer_key: "acme".to_owned(),
    };
    HeldPart::Keys(v1::HeldKeys { keys: numbers.iter().map(key).collect() })
}

/// As a vendor keeps phone numbers; and what nobody can read is not taken for nobody's.
#[tokio::test]
async fn keys_are_matched_as_the_system_writes_them_and_a_person_is_told_of_the_others() {
    let phones = v1::System { accepts: vec![v1::IdentifierKind::Phone.into()], ..remote_files("Print shop") };
    let print = PrintShop::of(phones, &[]).await;
    let acme = print.deployment.client(&print.deployment.customer_token("acme")).await;
    let erasure = |number: &str| v1::Request {
        action: v1::Action::Erasure.into(),
        identifiers: vec![identifier(v1::IdentifierKind::Phone, number)],
        ..v1::Request::default()
    };
    let erased = create(&acme, erasure("+31612345678")).await.unwrap();
    assert_eq!(print.erase(1).await, 1);
    completed(&acme, &erased.name).await;

    let replay = print.replay(0).await;
    let task = print.lease(true, 1, 20).await.pop().unwrap();
    let parts = vec![held_phones(&["31612345678", "0612345678", "n/a"]), end(3)];
    let answer = print.upload(&task, parts).await.unwrap();
    assert_eq!((answer.key_count, answer.left_out_count), (3, 1), "in one there is nothing");
    let waits = print.shown(&replay).await;
    assert_eq!((waits.state(), waits.keys_matched), (v1::ReplayState::AwaitingApproval, 1));
    assert!(waits.reason.starts_with("1 of 3 keys are no identifiers of their kind"), "{}", waits.reason);
    let approve = v1::ApproveReplayRequest { name: replay.name.clone() };
    print.operator.systems().approve_replay(approve).await.unwrap();
    assert_eq!(print.erase(1).await, 1, "who was found goes again");
    print.until(&replay, v1::ReplayState::Completed).await;

    // With all that it holds understood, nobody is asked.
    let replay = print.replay(0).await;
    let task = print.lease(true, 1, 20).await.pop().unwrap();
    let answer = print.upload(&task, vec![held_phones(&["31687654321"]), end(1)]).await.unwrap();
    assert_eq!(answer.left_out_count, 0);
    assert_eq!(print.shown(&replay).await.state(), v1::ReplayState::Completed);
}

/// The customers' own instructions come in between: a replay makes a few requests at a time, rests, and waits while enough of them are open.
#[tokio::test]
async fn a_replay_is_guarded_and_rate_limited() {
    const ALL: usize = 12;
    const CHUNK: usize = 3;
    const OPEN_MAX: usize = 5;
    const PAUSE: Duration = Duration::from_millis(400);
    let print = PrintShop::open(&[
        ("QUITTANCED_DISPATCH__REPLAY_CHUNK", "3"),
        ("QUITTANCED_DISPATCH__REPLAY_PAUSE_MS", "400"),
        ("QUITTANCED_DISPATCH__REPLAY_OPEN_MAX", "5"),
    ])
    .await;
    let acme = print.deployment.client(&print.deployment.customer_token("acme")).await;
    let mut names = Vec::new();
    for n in 0..ALL as u64 {
        names.push(create(&acme, by_email(v1::Action::Erasure, email(n))).await.unwrap().name);
    }
    let mut erased = 0;
    while erased < ALL {
        erased += print.erase(100).await;
    }
    for name in &names {
        completed(&acme, name).await;
    }
    let follow_ups = async || {
        let list = v1::ListRequestsRequest { page_size: 1000, ..Default::default() };
        let all = acme.requests().list_requests(list).await.unwrap().into_inner().requests;
        all.into_iter().filter(|r| !r.follows.is_empty()).collect::<Vec<_>>()
    };
    let match_all = async |matches_max| {
        let replay = print.replay(matches_max).await;
        let task = print.lease(true, 1, 20).await.pop().unwrap();
        let keys = held((0..ALL as u64).map(email));
        assert_eq!(print.upload(&task, vec![keys, end(ALL as u64)]).await.unwrap().key_count, ALL as u64);
        replay
    };
    // More than was expected is for a person to look at, and one who does not like it ends it.
    let wide = match_all(ALL as u64 - 1).await;
    let stopped = print.shown(&wide).await;
    assert_eq!(stopped.state(), v1::ReplayState::AwaitingApproval);
    assert!(stopped.reason.contains("12 identifiers are to be acted upon"), "{}", stopped.reason);
    let cancel = v1::CancelReplayRequest { name: wide.name.clone() };
    print.operator.systems().cancel_replay(cancel).await.unwrap();
    let approve = v1::ApproveReplayRequest { name: wide.name.clone() };
    let late = print.operator.systems().approve_replay(approve).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);

    let replay = match_all(ALL as u64).await;
    let one_of_it = async || follow_ups().await.len();
    let until = async |count: usize| {
        let until = Instant::now() + Duration::from_secs(30);
        while one_of_it().await < count {
            assert!(Instant::now() < until, "{count} follow-ups are made");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let mut carried_out = 0;
    while carried_out < ALL {
        // As many as may be open, and not one more, however long nobody carries them out.
        let made = ALL.min(carried_out + OPEN_MAX);
        until(made).await;
        tokio::time::sleep(PAUSE * 2).await;
        assert_eq!(one_of_it().await, made);
        carried_out += print.erase(4).await;
    }
    print.until(&replay, v1::ReplayState::Completed).await;
    // A lot has the time at which it was taken in.
    let mut lots: BTreeMap<Duration, usize> = BTreeMap::new();
    for request in follow_ups().await {
        assert_eq!(request.replay, replay.name, "of the cancelled one there is none");
        let at = request.create_time.unwrap();
        let at = Duration::new(at.seconds.unsigned_abs(), at.nanos.unsigned_abs());
        *lots.entry(at).or_default() += 1;
    }
    assert!(lots.values().all(|lot| *lot <= CHUNK), "{lots:?}");
    let times: Vec<Duration> = lots.keys().copied().collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= PAUSE), "{times:?}");
}
