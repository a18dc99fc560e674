//! Streams: a bulk is acknowledged chunk by chunk and can be resumed; a watch misses no change.

use std::{collections::BTreeSet, fs, time::Duration};

use quittance_api::v1;
use quittance_client::Client;
use quittance_sql::{ConnectOptions, Engine, Pool};
use quittance_tests::{
    AppDatabase, Deployment, StoreKind,
    app_database::{CRM_MAP, email},
    scenario::{by_email, create, create_customer, new_id, register, remote_files, system},
};

async fn scene(subjects: u64) -> (Deployment, AppDatabase, Client) {
    let deployment = Deployment::start(StoreKind::Sqlite).await;
    let crm = AppDatabase::crm(Engine::Sqlite, deployment.folder.path(), subjects).await;
    deployment.secret("crm", &crm.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "crm", system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP)).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    (deployment, crm, acme)
}

fn item(number: u64, request_id: &str, email: String) -> v1::BatchItem {
    v1::BatchItem { number, request_id: request_id.to_owned(), request: Some(by_email(v1::Action::Erasure, email)) }
}

async fn send(acme: &Client, chunks: Vec<Vec<v1::BatchItem>>) -> Vec<v1::BatchCreateRequestsResponse> {
    let messages: Vec<_> =
        chunks.into_iter().map(|items| v1::BatchCreateRequestsRequest { parent: String::new(), items }).collect();
    let mut stream = acme.requests().batch_create_requests(tokio_stream::iter(messages)).await.unwrap().into_inner();
    let mut acks = Vec::new();
    while let Some(ack) = stream.message().await.unwrap() {
        acks.push(ack);
    }
    acks
}

#[tokio::test]
async fn a_bulk_is_acknowledged_by_chunk_and_resumed_without_doubling() {
    const SUBJECTS: u64 = 300;
    let (_deployment, crm, acme) = scene(SUBJECTS).await;
    let ids: Vec<String> = (0..SUBJECTS).map(|_| new_id()).collect();
    let chunk = |range: std::ops::Range<u64>| -> Vec<v1::BatchItem> {
        range.map(|n| item(n, &ids[usize::try_from(n).unwrap()], email(n))).collect()
    };
    let first = send(&acme, vec![chunk(0..100), chunk(100..200)]).await;
    assert_eq!(first.iter().map(|a| (a.last_number, a.created)).collect::<Vec<_>>(), [(99, 100), (199, 100)]);
    // Resumed from before the cut, with one bad item and one reused id in it.
    let mut last = chunk(200..SUBJECTS);
    last.push(item(SUBJECTS, &new_id(), "not an address".to_owned()));
    last.push(item(SUBJECTS + 1, &ids[0], email(77)));
    let second = send(&acme, vec![chunk(100..200), last]).await;
    assert_eq!((second[0].created, second[0].repeated_count), (0, 100));
    assert_eq!(second[0].names, first[1].names);
    assert_eq!((second[1].created, second[1].errors.len()), (100, 2));
    let reasons: Vec<&str> = second[1].errors.iter().map(|e| e.reason.as_str()).collect();
    assert_eq!(reasons, ["INVALID_FIELD", "REQUEST_ID_REUSED"]);
    assert_eq!(second[1].errors[0].field, "request.identifiers[0].value");

    let done = async || {
        let open = v1::RequestFilter { states: vec![v1::RequestState::Completed.into()], ..Default::default() };
        let list = v1::ListRequestsRequest { page_size: 1000, filter: Some(open), ..Default::default() };
        acme.requests().list_requests(list).await.unwrap().into_inner().requests.len()
    };
    let wait = tokio::time::timeout(Duration::from_secs(60), async {
        while done().await < usize::try_from(SUBJECTS).unwrap() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    wait.await.expect("the bulk completes");
    assert_eq!(crm.count("SELECT count(*) FROM customer WHERE email IS NOT NULL").await, 0);
    assert_eq!(crm.count("SELECT count(*) FROM address").await, 0);
}

/// Chunks of one stream are taken in beside one another, but those that have something in common.
#[tokio::test]
async fn what_stands_twice_in_a_stream_is_taken_in_by_its_first_and_acknowledged_in_order() {
    let deployment = Deployment::start(StoreKind::Postgres).await;
    let crm = AppDatabase::crm(Engine::Sqlite, deployment.folder.path(), 1).await;
    deployment.secret("crm", &crm.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "crm", system("acme", v1::ConnectorKind::Sql, "crm", CRM_MAP)).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let ids: Vec<String> = (0..20).map(|_| new_id()).collect();
    // Each twice, in chunks that follow one another.
    let chunks: Vec<_> = (0..40_u64).map(|n| vec![item(n, &ids[n as usize / 2], email(1000 + n / 2))]).collect();
    let acks = send(&acme, chunks).await;
    assert_eq!(acks.iter().map(|a| a.last_number).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    for pair in acks.chunks(2) {
        assert_eq!((pair[0].created, pair[0].repeated_count), (1, 0));
        assert_eq!((pair[1].created, pair[1].repeated_count), (0, 1));
        assert_eq!(pair[0].names, pair[1].names);
    }
}

#[tokio::test]
async fn what_came_before_a_refused_chunk_is_acknowledged_before_the_stream_ends() {
    let (_deployment, _crm, acme) = scene(1).await;
    let chunk = |range: std::ops::Range<u64>| v1::BatchCreateRequestsRequest {
        parent: String::new(),
        items: range.map(|n| item(n, &new_id(), email(1000 + n))).collect(),
    };
    let sent = [chunk(0..500), chunk(500..1501), chunk(2000..2001)];
    let mut stream = acme.requests().batch_create_requests(tokio_stream::iter(sent)).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().expect("an acknowledgement");
    assert_eq!((first.last_number, first.created), (499, 500));
    let refused = stream.message().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    let list = v1::ListRequestsRequest { page_size: 1000, ..Default::default() };
    assert_eq!(acme.requests().list_requests(list).await.unwrap().into_inner().requests.len(), 500);
}

#[tokio::test]
async fn a_watch_sees_every_request_complete_and_resumes() {
    const REQUESTS: u64 = 20;
    let (_deployment, _crm, acme) = scene(REQUESTS).await;
    let watch = v1::WatchRequestsRequest::default();
    let mut stream = acme.requests().watch_requests(watch).await.unwrap().into_inner();
    let hello = stream.message().await.unwrap().unwrap();
    assert!(hello.request.is_none() && !hello.resume_token.is_empty());
    let mut names = BTreeSet::new();
    for n in 0..REQUESTS {
        names.insert(create(&acme, by_email(v1::Action::Erasure, email(n))).await.unwrap().name);
    }
    let seen = watch_until_completed(stream, names.clone()).await;
    assert_eq!(seen, names);
    // From the first token again: everything that came after it.
    let again = v1::WatchRequestsRequest { parent: String::new(), resume_token: hello.resume_token };
    let stream = acme.requests().watch_requests(again).await.unwrap().into_inner();
    assert_eq!(watch_until_completed(stream, names.clone()).await, names);
    let bad = v1::WatchRequestsRequest { parent: String::new(), resume_token: "made up".to_owned() };
    assert_eq!(acme.requests().watch_requests(bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

async fn watch_until_completed(
    mut stream: tonic::Streaming<v1::WatchRequestsResponse>,
    mut open: BTreeSet<String>,
) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let all = tokio::time::timeout(Duration::from_secs(30), async {
        while !open.is_empty() {
            let message = stream.message().await.unwrap().expect("the stream goes on");
            if let Some(request) = message.request
                && request.state() == v1::RequestState::Completed
            {
                open.remove(&request.name);
                seen.insert(request.name);
            }
        }
    });
    all.await.unwrap_or_else(|_| panic!("never seen to complete: {open:?}"));
    seen
}

/// A change is stamped when its transaction begins to write, and a busy database may commit it much later.
#[tokio::test]
async fn a_watch_sees_a_change_that_committed_long_after_its_stamp() {
    let deployment = Deployment::start(StoreKind::Postgres).await;
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    // Nobody works for it: nothing else changes the request.
    register(&operator, "slow", remote_files("Slow")).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let request = create(&acme, by_email(v1::Action::Erasure, email(0))).await.unwrap();
    let mut watch = acme.requests().watch_requests(v1::WatchRequestsRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().request.is_none());

    let store = Pool::open(&ConnectOptions::new(fs::read_to_string(deployment.path("store-url")).unwrap())).unwrap();
    let mut lock = store.begin().await.unwrap();
    lock.execute("LOCK TABLE ledger_entries IN EXCLUSIVE MODE", vec![]).await.unwrap();
    let extend = v1::ExtendRequestRequest {
        name: request.name.clone(),
        due_time: request.due_time.map(|due| prost_types::Timestamp { seconds: due.seconds + 86_400, ..due }),
        reason: "many systems".to_owned(),
    };
    let extending = tokio::spawn({
        let acme = acme.clone();
        async move { acme.requests().extend_request(extend).await.map(|_| ()) }
    });
    tokio::time::sleep(Duration::from_secs(7)).await;
    lock.rollback().await.unwrap();
    extending.await.unwrap().unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Some(changed) = watch.message().await.unwrap().unwrap().request {
                return changed;
            }
        }
    });
    let changed = seen.await.expect("the change is seen");
    assert_eq!(changed.name, request.name);
    assert_ne!(changed.due_time, changed.first_due_time);
}

/// Its place is others' then; and what it had not read is not taken for all that there was.
#[tokio::test]
async fn who_reads_nothing_loses_the_stream_and_is_told() {
    let settings = [("QUITTANCED_LIMITS__UNREAD_S", "1"), ("QUITTANCED_LIMITS__STREAMS_PER_CUSTOMER_MAX", "1")];
    let deployment = Deployment::start_with(StoreKind::Sqlite, &settings).await;
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    register(&operator, "slow", remote_files("Slow")).await.unwrap();
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let watch = async |resume_token: String| {
        let watch = v1::WatchRequestsRequest { resume_token, ..v1::WatchRequestsRequest::default() };
        acme.requests().watch_requests(watch).await.map(tonic::Response::into_inner)
    };
    let first = watch(String::new()).await.unwrap().message().await.unwrap().unwrap().resume_token;
    // More than lies in the buffers between us.
    let item = |n: u64| {
        let about = v1::Request { reference: "x".repeat(128), ..by_email(v1::Action::Erasure, email(n)) };
        v1::BatchItem { number: n, request_id: new_id(), request: Some(about) }
    };
    send(&acme, (0..12).map(|chunk| (chunk * 1000..(chunk + 1) * 1000).map(item).collect()).collect()).await;
    let mut unread = watch(first).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    while let Err(refused) = watch(String::new()).await {
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
        assert!(tokio::time::Instant::now() < deadline, "the place is not given up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let end = loop {
        match unread.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends as if that were all"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end}");
}

/// A stream may be open for days, and its token be taken away meanwhile.
#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let (deployment, crm, acme) = scene(5).await;
    let watch = v1::WatchRequestsRequest::default();
    let mut watched = acme.requests().watch_requests(watch).await.unwrap().into_inner();
    let (chunks, incoming) = tokio::sync::mpsc::channel(1);
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    let chunk = |n| v1::BatchCreateRequestsRequest { parent: String::new(), items: vec![item(n, &new_id(), email(n))] };
    chunks.send(chunk(1)).await.unwrap();
    let mut acks = acme.requests().batch_create_requests(incoming).await.unwrap().into_inner();
    assert_eq!(acks.message().await.unwrap().unwrap().created, 1);
    fs::write(deployment.path("data/tokens.toml"), "").unwrap();
    chunks.send(chunk(2)).await.unwrap();
    assert_eq!(acks.message().await.unwrap_err().code(), tonic::Code::Unauthenticated);
    let ended = async {
        loop {
            if let Err(status) = watched.message().await {
                return status;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the watch ends");
    assert_eq!(ended.code(), tonic::Code::Unauthenticated);
    let mut tx = crm.pool.begin_read().await.unwrap();
    let left = format!("SELECT count(*) FROM customer WHERE email = '{}'", email(2));
    assert_eq!(tx.fetch_one(&left, vec![]).await.unwrap().unwrap().i64(0).unwrap(), 1);
}
