//! TLS as it is really spoken: our own listener with its clients, and databases of ours and of systems, verified against an authority.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use quittance_api::v1;
use quittance_client::{Client, ClientError};
use quittance_sql::{ConnectOptions, Pool, Val};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_ERASED, CRM_MAP, email},
    authority::Authority,
    deployment::binary,
    scenario::{
        by_email, certificate, completed, create, create_customer, outcomes, register, remote_files, system, wait_for,
    },
    servers::OwnServer,
};
use tonic::Code;

use crate::scene::{QUICK, Scene};

const SUBJECTS: u64 = 5;

fn quittance(endpoint: &str, token: &str, more: &[&str]) -> Output {
    let mut command = Command::new(binary("quittance"));
    command.args(["--endpoint", endpoint, "--timeout", "10s"]).args(more).args(["customers", "list"]);
    command.env("QUITTANCE_TOKEN", token).env_remove("QUITTANCE_CA_FILE").output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn the_api_speaks_tls_to_who_knows_its_authority_and_tells_the_others_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("the operator's own authority");
    let identity = authority.server("localhost", folder.path());
    let ca_file = authority.file(folder.path(), "ca.pem");
    let (pem, key) = (identity.certificate.to_str().unwrap(), identity.key.to_str().unwrap());
    let settings = [("QUITTANCED_TLS_CERTIFICATE", pem), ("QUITTANCED_TLS_KEY", key)];
    let deployment = Deployment::start_with(StoreKind::Sqlite, &settings).await;
    let (token, plain) = (deployment.operator_token(), deployment.endpoint());
    let by_address = plain.replace("http://", "https://");
    let by_name = by_address.replace("127.0.0.1", "localhost");

    // The library: a call each way, and a stream.
    let operator = Client::builder(&by_name).token(token).ca_file(&ca_file).connect().await.unwrap();
    create_customer(&operator, "acme").await;
    let named = Client::builder(&by_address).token(token).ca_file(&ca_file).server_name("localhost");
    let listed = named.connect().await.unwrap().customers().list_customers(v1::ListCustomersRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().customers.len(), 1);

    let refused = async |endpoint: &str, ca: Option<&Path>, advice: &str| {
        let mut builder = Client::builder(endpoint).token(token);
        if let Some(ca) = ca {
            builder = builder.ca_file(ca);
        }
        let lazy = match ca {
            Some(ca) => Client::builder(endpoint).token(token).ca_file(ca),
            None => Client::builder(endpoint).token(token),
        };
        let call = async |client: Client| {
            let list = v1::ListCustomersRequest::default();
            client.customers().list_customers(list).await.map_err(ClientError::from).map(drop)
        };
        let eager = match builder.connect().await {
            Ok(client) => call(client).await,
            Err(error) => Err(error),
        };
        for error in [eager.unwrap_err(), call(lazy.connect_lazy().await.unwrap()).await.unwrap_err()] {
            assert!(error.to_string().contains(advice), "{error}");
        }
    };
    let strange = Authority::new("somebody else's").file(folder.path(), "strange.pem");
    refused(&by_name, None, "--ca-file").await;
    refused(&by_name, Some(&strange), "--ca-file").await;
    refused(&by_address, Some(&ca_file), "another name").await;
    // Whoever hears the alert says that it is TLS; who finds the connection closed, that it may be.
    refused(&plain, None, "https://").await;

    // The command line.
    let ca = ca_file.to_str().unwrap();
    let listed = quittance(&by_name, token, &["--ca-file", ca]);
    assert!(listed.status.success(), "{}", told(&listed));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("acme"));
    for (endpoint, more, advice) in [
        (&by_name, vec![], "--ca-file"),
        (&by_address, vec!["--ca-file", ca], "another name"),
        (&plain, vec![], "https://"),
    ] {
        let refused = quittance(endpoint, token, &more);
        assert_eq!(refused.status.code(), Some(1), "{endpoint}");
        assert!(told(&refused).contains(advice), "{endpoint}: {}", told(&refused));
    }
    // And a worker, from beside.
    register(&operator, "print", remote_files("Print shop")).await.unwrap();
    let root = deployment.path("files");
    fs::create_dir_all(&root).unwrap();
    let mut worker = Command::new(binary("quittance-file-worker"))
        .args(["--endpoint", &by_name, "--ca-file", ca, "--system", "print", "--name", "w", "--root"])
        .arg(&root)
        .env("QUITTANCE_TOKEN", deployment.connector_token("print"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let token = deployment.customer_token("acme");
    let acme = Client::builder(&by_name).token(token).ca_file(&ca_file).connect().await.unwrap();
    let request = create(&acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    let done = completed(&acme, &request.name).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(done.state(), v1::RequestState::Completed);
}

#[tokio::test]
async fn https_to_a_port_without_tls_says_so() {
    let deployment = Deployment::start(StoreKind::Sqlite).await;
    let endpoint = deployment.endpoint().replace("http://", "https://");
    let error = Client::connect(&endpoint, deployment.operator_token()).await.unwrap_err();
    assert!(error.to_string().contains("speaks no TLS"), "{error}");
    let refused = quittance(&endpoint, deployment.operator_token(), &[]);
    assert!(told(&refused).contains("speaks no TLS"), "{}", told(&refused));
}

#[tokio::test]
async fn a_certificate_without_its_key_and_a_network_without_tls_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let started = |settings: &[(&str, &str)]| {
        let mut command = Command::new(binary("quittanced"));
        command.arg("--data-dir").arg(folder.path()).envs(settings.iter().copied());
        let ended = command.output().unwrap();
        assert!(!ended.status.success());
        told(&ended)
    };
    let half = started(&[("QUITTANCED_TLS_CERTIFICATE", "server.pem")]);
    assert!(half.contains("tls_certificate and tls_key go together"), "{half}");
    let open = started(&[("QUITTANCED_LISTEN", "0.0.0.0:0")]);
    assert!(open.contains("only a loopback address"), "{open}");
    let missing = [("QUITTANCED_TLS_CERTIFICATE", "nowhere.pem"), ("QUITTANCED_TLS_KEY", "nowhere.key")];
    let missing = started(&[&missing[..], &[("QUITTANCED_LISTEN", "127.0.0.1:0")]].concat());
    assert!(missing.contains("nowhere.pem"), "{missing}");
}

/// A system whose database is verified; what cannot be is told, tried again, and never confirmed.
async fn a_systems_database_is_verified(server: &OwnServer, user: &str) {
    let s = Scene::on(StoreKind::Sqlite, &[]).await;
    let folder = server.folder.path();
    let known = server.authority.file(folder, "ca.pem");
    let strange = Authority::new("somebody else's").file(folder, "strange.pem");
    let as_user = |url: String| url.replacen("admin@", user, 1).replacen("root@", user, 1);
    let at = |host: &str, ca: &Path| as_user(server.database_url(host, "crm", &server.verified(ca)));
    let crm = AppDatabase::crm_at(server.database_url("127.0.0.1", "crm", ""), SUBJECTS).await;

    // Registered only where it can be verified.
    let sql = || system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP);
    let (wrong_authority, wrong_name) = (at("localhost", &strange), at("127.0.0.1", &known));
    let no_file = at("localhost", &folder.join("nowhere.pem"));
    for (url, code) in [(&wrong_authority, "TLS_AUTHORITY"), (&wrong_name, "TLS_NAME"), (&no_file, "NO_FILE")] {
        s.deployment.secret("crm", url);
        let refused = register(&s.operator, "crm", sql()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains(code), "{refused}");
    }
    s.deployment.secret("crm", &at("localhost", &known));
    register(&s.operator, "crm", sql()).await.unwrap();
    let erase = async |n: u64| create(&s.acme, by_email(v1::Action::Erasure, email(n))).await.unwrap().name;
    let done = completed(&s.acme, &erase(0).await).await;
    assert_eq!(outcomes(&done), CRM_ERASED);

    for (n, url, code) in [(1, &wrong_authority, "TLS_AUTHORITY"), (2, &wrong_name, "TLS_NAME")] {
        s.deployment.secret("crm", url);
        let test = v1::TestSystemRequest { name: "systems/crm".to_owned() };
        let findings = s.operator.systems().test_system(test).await.unwrap().into_inner().findings;
        assert!(findings[0].error && findings[0].field == "connection", "{findings:?}");
        assert!(findings[0].message.contains(code), "{findings:?}");
        let name = erase(n).await;
        let tried = |r: &v1::Request| r.tasks[0].reason.contains(code) && r.tasks[0].attempts >= 2;
        let waiting = wait_for(&s.acme, &name, tried).await;
        assert!(waiting.state() == v1::RequestState::InProgress && waiting.tasks[0].confirmation.is_none());
        let untouched = format!("SELECT count(*) FROM customer WHERE id = {n} AND email IS NOT NULL");
        assert_eq!(crm.count(&untouched).await, 1);
        s.deployment.secret("crm", &at("localhost", &known));
        let done = completed(&s.acme, &name).await;
        assert_eq!(
            (done.state(), outcomes(&done)),
            (v1::RequestState::Completed, CRM_ERASED.map(str::to_owned).to_vec())
        );
    }
}

#[tokio::test]
async fn postgresql_is_spoken_to_with_verified_tls() {
    let server = OwnServer::postgres().await;
    let admin = Pool::open(&ConnectOptions::new(server.url("127.0.0.1", ""))).unwrap();
    admin.run_script("CREATE DATABASE crm").await.unwrap();
    a_systems_database_is_verified(&server, "admin@").await;

    // And the service's own store: every connection of it, from the start to the certificate.
    admin.run_script("CREATE ROLE quittance LOGIN").await.unwrap();
    admin.run_script("CREATE DATABASE store OWNER quittance").await.unwrap();
    let folder = server.folder.path();
    let known = server.authority.file(folder, "ca.pem");
    let strange = Authority::new("somebody else's").file(folder, "strange.pem");
    let store = |host: &str, ca: &Path| {
        server.database_url(host, "store", &server.verified(ca)).replacen("admin@", "quittance@", 1)
    };
    let file = folder.join("store-url");
    fs::write(&file, store("localhost", &known)).unwrap();
    let file_setting = file.display().to_string();
    let settings: Vec<_> =
        QUICK.iter().copied().chain([("QUITTANCED_STORE_URL_FILE", file_setting.as_str())]).collect();
    let mut deployment = Deployment::start_with(StoreKind::Sqlite, &settings).await;
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    let crm = AppDatabase::crm(quittance_sql::Engine::Sqlite, deployment.folder.path(), SUBJECTS).await;
    deployment.secret("crm", &crm.url);
    register(&operator, "crm", system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP)).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let request = create(&acme, by_email(v1::Action::Erasure, email(1))).await.unwrap();
    assert_eq!(outcomes(&completed(&acme, &request.name).await), CRM_ERASED);
    certificate(&acme, &request.name, "").await;
    let connections =
        "SELECT count(*), count(*) FILTER (WHERE s.ssl) FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
                       WHERE a.usename = 'quittance'";
    let mut tx = admin.begin_read().await.unwrap();
    let row = tx.fetch_one(connections, Vec::<Val>::new()).await.unwrap().unwrap();
    assert!(row.i64(0).unwrap() > 0 && row.i64(0).unwrap() == row.i64(1).unwrap(), "all of them");
    drop(tx);

    deployment.kill();
    for (url, code) in [(store("localhost", &strange), "TLS_AUTHORITY"), (store("127.0.0.1", &known), "TLS_NAME")] {
        fs::write(&file, url).unwrap();
        let refused = deployment.command().output().unwrap();
        assert!(!refused.status.success());
        assert!(told(&refused).contains(code), "{}", told(&refused));
    }
    fs::write(&file, store("localhost", &known)).unwrap();
    deployment.launch().await;
}

#[tokio::test]
async fn mariadb_is_spoken_to_with_verified_tls() {
    let server = OwnServer::mariadb().await;
    let admin = Pool::open(&ConnectOptions::new(server.url("127.0.0.1", ""))).unwrap();
    admin.run_script("CREATE DATABASE crm").await.unwrap();
    // Without TLS the server would not let this one in.
    admin.run_script("CREATE USER app@'%' IDENTIFIED BY 'secret' REQUIRE SSL").await.unwrap();
    admin.run_script("GRANT ALL ON crm.* TO app@'%'; GRANT PROCESS ON *.* TO app@'%'").await.unwrap();
    a_systems_database_is_verified(&server, "app:secret@").await;
}
