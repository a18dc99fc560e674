//! Rows of two people, of whom all are erased: in one batch, and in batches that run at the same moment.

use quittance_api::v1;
use quittance_sql::{ConnectOptions, Engine, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::email,
    deployment::postgres_database,
    scenario::{by_email, completed, create_customer, new_id, register, system},
};

const PERSONS: u64 = 14;

const MAP: &str = "
version: 1
collections:
  message:
    key: [id]
    identifiers:
      - {kind: email, field: sender, redacts: [sender, body]}
      - {kind: email, field: recipient}
    fields:
      sender: email
      recipient: email
      body: message
    erase: delete
  attachment:
    key: [id]
    owned_by:
      - {collection: message, fields: {message: id}}
    fields:
      name: media
    erase: delete
";

/// Each has written to each of the others, with an attachment.
async fn mail(engine: Engine, deployment: &Deployment) -> AppDatabase {
    let url = match engine {
        Engine::Postgres => postgres_database().await,
        _ => format!("sqlite:{}", deployment.folder.path().join("mail.db").display()),
    };
    let pool = Pool::open(&ConnectOptions { create: true, ..ConnectOptions::new(url.clone()) }).unwrap();
    let mut script = "CREATE TABLE message (id INTEGER PRIMARY KEY, sender VARCHAR(100), recipient VARCHAR(100), body VARCHAR(100));
         CREATE TABLE attachment (id INTEGER PRIMARY KEY, message INTEGER NOT NULL REFERENCES message (id), name VARCHAR(20));
         CREATE INDEX sent ON message (sender); CREATE INDEX received ON message (recipient); CREATE INDEX hangs ON attachment (message);"
        .to_owned();
    let pairs = (0..=PERSONS).flat_map(|a| (0..=PERSONS).filter(move |b| *b != a).map(move |b| (a, b)));
    for (n, (from, to)) in pairs.enumerate() {
        script.push_str(&format!(
            "INSERT INTO message VALUES ({n}, '{}', '{}', 'hello'); INSERT INTO attachment VALUES ({n}, {n}, 'photo');",
            email(from),
            email(to)
        ));
    }
    pool.run_script(&script).await.unwrap();
    AppDatabase { pool, url }
}

async fn what_nobody_is_left_of_goes_as_a_whole(store: StoreKind, engine: Engine) {
    let deployment = Deployment::start(store).await;
    let mail = mail(engine, &deployment).await;
    deployment.secret("mail", &mail.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    let limits = Some(v1::SystemLimits { concurrency: 4, batches_per_second: 0, batch_size: 5 });
    let mail_system = v1::System { limits, ..system("acme", v1::ConnectorKind::Sql, "mail", MAP) };
    register(&operator, "mail", mail_system).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    // All but one.
    let item = |number: u64| v1::BatchItem {
        number,
        request_id: new_id(),
        request: Some(by_email(v1::Action::Erasure, email(number))),
    };
    let chunk = v1::BatchCreateRequestsRequest { parent: String::new(), items: (0..PERSONS).map(item).collect() };
    let mut acks = acme.requests().batch_create_requests(tokio_stream::iter([chunk])).await.unwrap().into_inner();
    let names = acks.message().await.unwrap().unwrap().names;
    assert_eq!(names.len(), usize::try_from(PERSONS).unwrap());
    for name in names {
        let request = completed(&acme, &name).await;
        assert_eq!(request.state(), v1::RequestState::Completed, "{request:#?}");
    }
    let n = i64::try_from(PERSONS).unwrap();
    // What is left is the last one's own half of what was written with the others.
    assert_eq!(mail.count("SELECT count(*) FROM message").await, 2 * n);
    assert_eq!(mail.count("SELECT count(*) FROM message WHERE sender IS NULL AND recipient IS NULL").await, 0);
    let last = email(PERSONS);
    let kept = format!("SELECT count(*) FROM message WHERE sender = '{last}' AND recipient IS NULL AND body = 'hello'");
    assert_eq!(mail.count(&kept).await, n);
    assert_eq!(mail.count("SELECT count(*) FROM attachment").await, 2 * n, "what hung on the others is gone");
}

#[tokio::test]
async fn what_nobody_is_left_of_goes_as_a_whole_sqlite() {
    what_nobody_is_left_of_goes_as_a_whole(StoreKind::Sqlite, Engine::Sqlite).await;
}

#[tokio::test]
async fn what_nobody_is_left_of_goes_as_a_whole_postgres() {
    what_nobody_is_left_of_goes_as_a_whole(StoreKind::Postgres, Engine::Postgres).await;
}
