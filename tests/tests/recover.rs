//! The database is lost and restored from yesterday's backup: the log stops by itself, `quittanced ledger recover` brings it back, and
//! whoever followed the log sees it only grow.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Output},
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_client::Client;
use quittance_ledger::tlog_proof::TlogProof;
use quittance_sql::{ConnectOptions, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::email,
    deployment::{binary, test_server},
    port::Port,
    scenario::{acme_with_crm, by_email, certificate, completed, create},
};
use serde_json::Value;
use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt as _;

struct Scene {
    deployment: Deployment,
    url: String,
    token: String,
    _crm: AppDatabase,
    _public: TempDir,
    _port: Port,
}

async fn scene(store: StoreKind) -> Scene {
    let port = Port::hold();
    let address = port.address();
    let public = tempfile::tempdir().unwrap();
    let settings = [
        ("QUITTANCED_LEDGER__LISTEN", address.as_str()),
        ("QUITTANCED_LEDGER__PUBLISH", public.path().to_str().unwrap()),
    ];
    let deployment = Deployment::start_with(store, &settings).await;
    let crm = acme_with_crm(&deployment, 50).await;
    let token = deployment.customer_token("acme");
    Scene { deployment, url: format!("http://{address}"), token, _crm: crm, _public: public, _port: port }
}

impl Scene {
    async fn acme(&self) -> Client {
        self.deployment.client(&self.token).await
    }

    /// A request that is done and certified.
    async fn certified(&self, person: u64) -> (String, Vec<u8>) {
        let acme = self.acme().await;
        let deadline = Instant::now() + Duration::from_secs(40);
        let request = loop {
            match create(&acme, by_email(v1::Action::Erasure, email(person))).await {
                Ok(request) => break request,
                // Just recovered: every process gets to know within a second.
                Err(status) => assert!(Instant::now() < deadline, "{status}: {}", self.deployment.log()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        completed(&acme, &request.name).await;
        let file = certificate(&acme, &request.name, "").await.certificate;
        (request.name, file)
    }

    /// The token of a watch that has seen all that there is.
    async fn watched(&self) -> String {
        let watch = v1::WatchRequestsRequest::default();
        let mut changes = self.acme().await.requests().watch_requests(watch).await.unwrap().into_inner();
        changes.message().await.unwrap().expect("a sign of life").resume_token
    }

    /// Whoever watched before all this hears of what changes after it.
    async fn is_heard_of(&self, request: &str, resume_token: String) {
        let watch = v1::WatchRequestsRequest { resume_token, ..Default::default() };
        let mut changes = self.acme().await.requests().watch_requests(watch).await.unwrap().into_inner();
        let heard = async {
            while let Some(change) = changes.message().await.unwrap() {
                if change.request.is_some_and(|changed| changed.name == request) {
                    return;
                }
            }
            panic!("the watch has ended");
        };
        tokio::time::timeout(Duration::from_secs(20), heard).await.expect("the change is told");
    }

    async fn is_halted(&self) {
        let acme = self.acme().await;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let refused = create(&acme, by_email(v1::Action::Erasure, email(49))).await.err();
            let details = refused.map(|status| status.get_error_details());
            let reason = details.as_ref().and_then(|d| d.error_info()).map(|info| info.reason.clone());
            if reason.as_deref() == Some("LEDGER_HALTED") {
                assert!(self.deployment.log().contains("quittanced ledger recover"), "{}", self.deployment.log());
                return;
            }
            assert!(Instant::now() < deadline, "{}", self.deployment.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn ledger(&self, arguments: &[&str]) -> Output {
        self.deployment.command().arg("ledger").args(arguments).output().unwrap()
    }

    /// As its users know it: `quittance` runs the service's own program.
    fn recovered_by_quittance(&self, arguments: &[&str]) -> Output {
        let service = self.deployment.command();
        let settings = service.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut command = Command::new(binary("quittance"));
        command.envs(settings).args(["ledger", "recover", "--data-dir"]).arg(self.deployment.path("data"));
        command.args(arguments).output().unwrap()
    }

    fn ledger_json(&self, command: &str) -> Value {
        let output = self.ledger(&[command, "--output", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `quittance ledger …`, as somebody outside runs it.
    fn outside(&self, command: &str, extra: &[&str]) -> Output {
        let keys = self.deployment.path("log.vkey");
        fs::write(&keys, self.ledger(&["keys"]).stdout).unwrap();
        Command::new(binary("quittance"))
            .args(["ledger", command, "--url", &self.url, "--key", keys.to_str().unwrap()])
            .args(extra)
            .output()
            .unwrap()
    }

    /// Follows the log from what was trusted last.
    fn still_grows(&self) {
        let state = self.deployment.path("watched");
        let output = self.outside("watch", &["--once", "--state", state.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Every request since the backup, with its confirmation, and nothing else: the one before is whole in the backup.
fn is_told_what_was_lost(s: &Scene, account: &Value, before: &[(String, Vec<u8>)]) {
    let of_acme = &account["lost_of_customers"].as_array().unwrap()[..];
    assert!(matches!(of_acme, [of] if of["customer"] == "customers/acme"), "{account}");
    let told: BTreeMap<&str, &Value> = of_acme[0]["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|request| (request["request"].as_str().unwrap(), request))
        .collect();
    let lost: BTreeSet<&str> = before[1..].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(told.keys().copied().collect::<BTreeSet<_>>(), lost, "{account}");
    let mut places = BTreeSet::new();
    for (name, file) in &before[1..] {
        let request = told[name.as_str()];
        assert_eq!((&request["unknown"], &request["confirmations"]), (&true.into(), &1.into()), "{request}");
        let kinds: BTreeSet<&str> =
            request["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
        assert!(kinds.is_superset(&["instructed", "planned", "confirmed", "completed"].into()), "{request}");
        places.extend(request["entries"].as_array().unwrap().iter().map(|entry| entry["entry"].as_u64().unwrap()));
        // The places are those that its certificate proves.
        assert!(places.is_superset(&proven_places(file)), "{request}");
    }
    let others = of_acme[0]["others"].as_array().unwrap().len() as u64;
    assert_eq!(account["lost"].as_u64(), Some(places.len() as u64 + others), "{account}");
    assert_eq!(account["lost_unknown"], 0, "{account}");
    // For people, too; run again, all of it is told again.
    if !s.deployment.is_running() {
        let again = s.recovered_by_quittance(&["--output", "json"]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        let again: Value = serde_json::from_slice(&again.stdout).unwrap();
        assert_eq!(again["lost_of_customers"], account["lost_of_customers"]);
        let nowhere = s.recovered_by_quittance(&["--from", "/nowhere"]);
        assert!(!nowhere.status.success(), "its exit code is that of the recovery");
        let text = String::from_utf8(s.recovered_by_quittance(&[]).stdout).unwrap();
        let count = before.len() - 1;
        let told =
            format!("customers/acme: {count} requests lack entries; {count} of them the store does not know at all");
        assert!(text.contains("nothing to recover") && text.contains(&told), "{text}");
        assert!(before[1..].iter().all(|(name, _)| text.contains(&format!("  {name}: instructed"))), "{text}");
    }
}

/// Of the entries that a certificate opens.
fn proven_places(certificate: &[u8]) -> BTreeSet<u64> {
    let file: Value = serde_json::from_slice(certificate).unwrap();
    let place = |entry: &Value| {
        let proof = TlogProof::parse(entry["proof"].as_str().unwrap().as_bytes()).unwrap();
        proof.index
    };
    file["certificate"]["entries"].as_array().unwrap().iter().map(place).collect()
}

async fn recovered_and_going_on(s: &mut Scene, before: &[(String, Vec<u8>)], watched: String, restored_while_up: bool) {
    let account = s.ledger_json("recover");
    let (from, to) = (account["from"].as_u64().unwrap(), account["to"].as_u64().unwrap());
    assert!(from < to, "{account}");
    assert_eq!(account["lost"].as_u64().unwrap() + account["placed"].as_u64().unwrap(), to - from, "{account}");
    let ranges = account["lost_entries"].as_array().unwrap();
    assert_eq!(ranges.last().unwrap()[1].as_u64(), Some(to - 1), "{account}");
    is_told_what_was_lost(s, &account, before);
    assert!(account["backup_ends"].is_string() && account["open_requests"].is_array(), "{account}");
    if !restored_while_up {
        let whole = s.ledger_json("fsck");
        assert_eq!((whole["entries"].as_u64(), &whole["first"]), (Some(to), &Value::Null));
        assert_eq!(whole["lost"], account["lost"]);
        s.deployment.launch().await;
    }
    let (again, file) = s.certified(30).await;
    s.is_heard_of(&again, watched).await;
    s.still_grows();
    let outside = s.outside("fsck", &["--output", "json"]);
    assert!(outside.status.success(), "{}", String::from_utf8_lossy(&outside.stderr));
    // What was issued before stands, also of requests that the database knows no more.
    let keys = s.deployment.path("log.vkey");
    for (n, file) in before.iter().map(|(_, file)| file).chain([&file]).enumerate() {
        let path = s.deployment.path(&format!("certificate-{n}.json"));
        fs::write(&path, file).unwrap();
        let verified = Command::new(binary("quittance"))
            .args(["verify", path.to_str().unwrap(), "--key", keys.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
    let acme = s.acme().await;
    assert_eq!(certificate(&acme, &before[0].0, "").await.certificate, before[0].1);
    let lost = v1::GetCertificateRequest { name: before.last().unwrap().0.clone(), ..Default::default() };
    let unknown = acme.evidence().get_certificate(lost).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "the database does not know it");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_restored_file_goes_on_where_the_log_was() {
    let mut s = scene(StoreKind::Sqlite).await;
    let mut all = vec![s.certified(1).await];
    s.deployment.terminate().await;
    let (store, backup) = (s.deployment.data().join("quittance.db"), s.deployment.path("backup.db"));
    fs::copy(&store, &backup).unwrap();
    s.deployment.launch().await;
    for person in 2..5 {
        all.push(s.certified(person).await);
    }
    s.still_grows();
    let watched = s.watched().await;
    s.deployment.kill();
    fs::copy(&backup, &store).unwrap();
    for side in ["-wal", "-shm"] {
        drop(fs::remove_file(s.deployment.data().join(format!("quittance.db{side}"))));
    }
    s.deployment.launch().await;
    s.is_halted().await;
    // One process at a time has the file.
    let refused = s.ledger(&["recover"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use by another quittanced"));
    s.deployment.terminate().await;
    let damaged = s.ledger(&["fsck"]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("restored from a backup"));
    recovered_and_going_on(&mut s, &all, watched, false).await;
}

/// `pg_dump` and `pg_restore` as the server's superuser runs them.
fn as_superuser(tool: &str, arguments: &[&str]) {
    let tool = format!("{}/{tool}", test_server("QUITTANCE_TEST_POSTGRES_BIN"));
    let output = Command::new(&tool).args(arguments).output().unwrap();
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_restored_dump_goes_on_where_the_log_was_while_the_service_runs() {
    let mut s = scene(StoreKind::Postgres).await;
    let admin = test_server("QUITTANCE_TEST_POSTGRES_URL");
    let name = s.deployment.store_url().rsplit('/').next().unwrap().to_owned();
    let database = admin.replace("/postgres", &format!("/{name}"));
    let dump = s.deployment.path("dump");
    let mut all = vec![s.certified(1).await];
    as_superuser("pg_dump", &["-Fc", "-f", dump.to_str().unwrap(), "-d", &database]);
    for person in 2..5 {
        all.push(s.certified(person).await);
    }
    s.still_grows();
    let watched = s.watched().await;
    s.deployment.kill();
    let pool = Pool::open(&ConnectOptions::new(admin)).unwrap();
    pool.run_script(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    pool.run_script(&format!("CREATE DATABASE {name} OWNER {name}")).await.unwrap();
    as_superuser("pg_restore", &["-d", &database, dump.to_str().unwrap()]);
    s.deployment.launch().await;
    s.is_halted().await;
    recovered_and_going_on(&mut s, &all, watched, true).await;
}
