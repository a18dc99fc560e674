//! No deadline passes in silence: lists, the log, and whoever watches.

use std::{
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use quittance_api::v1;
use quittance_tests::{
    Deployment, StoreKind,
    deployment::binary,
    scenario::{by_email, create, create_customer, register, remote_files},
};

/// Due in so many seconds, by the controller's own date.
fn due_in(seconds: u64, email: &str) -> v1::Request {
    let due = SystemTime::now() + Duration::from_secs(seconds);
    v1::Request { controller_due_time: Some(due.into()), ..by_email(v1::Action::Erasure, email) }
}

async fn late_requests_are_seen(store: StoreKind) {
    let settings = [("QUITTANCED_DISPATCH__DEADLINE_SWEEP_S", "1")];
    let deployment = Deployment::start_with(store, &settings).await;
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    // Nobody works for it.
    register(&operator, "slow", remote_files("Slow")).await.unwrap();
    let token = deployment.customer_token("acme");
    let acme = deployment.client(&token).await;
    let mut watch = acme.requests().watch_requests(v1::WatchRequestsRequest::default()).await.unwrap().into_inner();
    let far = create(&acme, due_in(20 * 86_400, "far@example.com")).await.unwrap();
    let later = create(&acme, due_in(3 * 86_400, "later@example.com")).await.unwrap();
    let soon = create(&acme, due_in(5, "soon@example.com")).await.unwrap();
    assert_eq!((far.timeliness(), soon.timeliness()), (v1::Timeliness::OnTrack, v1::Timeliness::AtRisk));

    let list = async |timeliness: v1::Timeliness, page_token: String| {
        let filter = v1::RequestFilter { timeliness: vec![timeliness.into()], ..v1::RequestFilter::default() };
        let request = v1::ListRequestsRequest { page_size: 1, page_token, filter: Some(filter), ..Default::default() };
        acme.requests().list_requests(request).await.unwrap().into_inner()
    };
    let page = list(v1::Timeliness::AtRisk, String::new()).await;
    assert_eq!(page.requests[0].name, soon.name);
    let next = list(v1::Timeliness::AtRisk, page.next_page_token).await;
    assert_eq!(next.requests[0].name, later.name, "a later page is of the same query");
    assert!(next.next_page_token.is_empty());
    assert!(list(v1::Timeliness::Overdue, String::new()).await.requests.is_empty());

    let id = soon.name.rsplit('/').next().unwrap();
    let told = |text: &str| deployment.log().lines().filter(|l| l.contains(text) && l.contains(id)).count();
    let until = Instant::now() + Duration::from_secs(30);
    while told("a request is overdue") == 0 {
        assert!(Instant::now() < until, "nobody says so");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(list(v1::Timeliness::Overdue, String::new()).await.requests[0].name, soon.name);
    // A few sweeps more.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((told("time is running out"), told("a request is overdue")), (1, 1), "{}", deployment.log());
    assert!(deployment.log().contains("slow=PENDING"), "with what holds it");
    let mut seen = Vec::new();
    while seen.last() != Some(&v1::Timeliness::Overdue) {
        let changed = tokio::time::timeout(Duration::from_secs(10), watch.message()).await.expect("it changed");
        if let Some(request) = changed.unwrap().unwrap().request.filter(|r| r.name == soon.name) {
            seen.push(request.timeliness());
        }
    }

    // Issued by itself, and checked by nothing but the file and the log's key.
    let folder = deployment.folder.path();
    let save = |options: &[&str]| {
        let ran = Command::new(binary("quittance"))
            .args(["--endpoint", &deployment.endpoint(), "interim-statement", &soon.name])
            .args(options)
            .env("QUITTANCE_TOKEN", &token)
            .output()
            .unwrap();
        (ran.status.success(), String::from_utf8(ran.stderr).unwrap())
    };
    let (file, key) = (folder.join("deadline.json"), folder.join("log.vkey"));
    let until = Instant::now() + Duration::from_secs(30);
    while !save(&["--at-deadline", file.to_str().unwrap()]).0 {
        assert!(Instant::now() < until, "no statement is issued");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let history = std::fs::read(deployment.data().join("ledger/keys/history.json")).unwrap();
    let history: serde_json::Value = serde_json::from_slice(&history).unwrap();
    std::fs::write(&key, history[0]["vkey"].as_str().unwrap()).unwrap();
    let verified = Command::new(binary("quittance")).arg("verify").arg(&file).arg("--key").arg(&key).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("interim"), "it is called what it is");
    let first = std::fs::read(&file).unwrap();
    assert!(save(&["--at-deadline", file.to_str().unwrap()]).0);
    assert_eq!(std::fs::read(&file).unwrap(), first, "the same ever after");
    let ask = v1::GetInterimStatementRequest { name: far.name.clone(), ..Default::default() };
    let in_time = acme.evidence().get_interim_statement(ask).await.unwrap().into_inner();
    assert!(in_time.deadline_statement.is_empty() && in_time.deadline_statement_time.is_none());

    let at_risk = |token: &str, more: &[&str]| {
        let mut cli = Command::new(binary("quittance"));
        cli.args(["--endpoint", &deployment.endpoint(), "requests", "list", "--at-risk"]).args(more);
        let done = cli.env("QUITTANCE_TOKEN", token).output().unwrap();
        (done.status.success(), String::from_utf8(done.stdout).unwrap())
    };
    let (_, out) = at_risk(&token, &[]);
    assert!(out.contains(&soon.name) && out.contains("overdue") && !out.contains(&far.name), "{out}");
    // What there is to do today, whosever it is: for operators.
    create_customer(&operator, "beta").await;
    let customers = vec![v1::SystemCustomer { customer: "customers/beta".to_owned(), key: String::new() }];
    register(&operator, "theirs", v1::System { customers, ..remote_files("Theirs") }).await.unwrap();
    let beta = deployment.client(&deployment.customer_token("beta")).await;
    let theirs = create(&beta, due_in(5, "soon@example.org")).await.unwrap();
    let (_, out) = at_risk(deployment.operator_token(), &["--all-customers"]);
    assert!(out.contains(&soon.name) && out.contains(&theirs.name) && !out.contains(&far.name), "{out}");
    let (_, out) = at_risk(deployment.operator_token(), &["--all-customers", "--limit", "1", "--output", "json"]);
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!(at_risk(&token, &["--all-customers"]), (false, String::new()));
}

#[tokio::test]
async fn late_requests_are_seen_sqlite() {
    late_requests_are_seen(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn late_requests_are_seen_postgres() {
    late_requests_are_seen(StoreKind::Postgres).await;
}
