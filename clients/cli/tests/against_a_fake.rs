//! The program itself, against a small service of our own: what it sends, what it says, and how it ends.

use std::{
    collections::HashMap,
    io::Write as _,
    net::SocketAddr,
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use futures::stream;
use quittance_api::v1::{evidence_service_server::*, key_service_server::*, request_service_server::*, *};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request as Call, Response, Status, Streaming, transport::Server};

/// The reference of a request says how it ends.
#[derive(Default)]
struct Known {
    /// By name: the request, and how often it was looked at.
    requests: HashMap<String, (Request, u32)>,
    by_id: HashMap<String, String>,
    /// How often a certificate was asked for.
    certificates: u32,
    /// How often the epochs were asked for.
    epoch_lists: u32,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Known>>);

/// As `tonic::async_trait` would write it, which sees the macro's call only.
macro_rules! not_here {
    ($($method:ident($request:ident) -> $response:ident),* $(,)?) => {$(
        fn $method<'s, 'f>(&'s self, _: Call<$request>) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented("not here")) })
        }
    )*};
}

impl Fake {
    fn take(&self, parent: &str, id: &str, mut request: Request) -> (Request, bool) {
        let mut known = self.0.lock().unwrap();
        if let Some(name) = known.by_id.get(id) {
            return (known.requests[name].0.clone(), true);
        }
        request.name = format!("{parent}/requests/{id}");
        request.identifiers.clear();
        request.state = RequestState::InProgress.into();
        known.by_id.insert(id.to_owned(), request.name.clone());
        known.requests.insert(request.name.clone(), (request.clone(), 0));
        (request, false)
    }
}

#[tonic::async_trait]
impl RequestService for Fake {
    type BatchCreateRequestsStream = ReceiverStream<Result<BatchCreateRequestsResponse, Status>>;
    type WatchRequestsStream = stream::Empty<Result<WatchRequestsResponse, Status>>;

    async fn create_request(
        &self,
        call: Call<CreateRequestRequest>,
    ) -> Result<Response<CreateRequestResponse>, Status> {
        if call.metadata().get("authorization").is_none_or(|token| token != "Bearer secret-token") {
            return Err(Status::unauthenticated("the token is not known"));
        }
        let create = call.into_inner();
        let (request, _) = self.take(&create.parent, &create.request_id, create.request.unwrap());
        Ok(Response::new(CreateRequestResponse { request: Some(request) }))
    }

    async fn get_request(&self, call: Call<GetRequestRequest>) -> Result<Response<GetRequestResponse>, Status> {
        let mut known = self.0.lock().unwrap();
        let Some((request, looks)) = known.requests.get_mut(&call.get_ref().name) else {
            return Err(Status::not_found("no such request"));
        };
        *looks += 1;
        let mut request = request.clone();
        let ended = *looks > 1;
        let state = match request.reference.as_str() {
            "exceptions" if ended => RequestState::CompletedWithExceptions,
            "never" => RequestState::InProgress,
            "declined" if ended => RequestState::Declined,
            _ if ended => RequestState::Completed,
            _ => RequestState::InProgress,
        };
        request.state = state.into();
        let task = if ended { TaskState::Confirmed } else { TaskState::Running };
        request.tasks = vec![Task { system: "systems/crm-nl".to_owned(), state: task.into(), ..Task::default() }];
        Ok(Response::new(GetRequestResponse { request: Some(request) }))
    }

    async fn batch_create_requests(
        &self,
        call: Call<Streaming<BatchCreateRequestsRequest>>,
    ) -> Result<Response<Self::BatchCreateRequestsStream>, Status> {
        let mut chunks = call.into_inner();
        let parent = chunks.message().await?.unwrap().parent;
        let (sender, receiver) = mpsc::channel(16);
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = chunks.message().await {
                let mut answer = BatchCreateRequestsResponse::default();
                for item in chunk.items {
                    answer.last_number = item.number;
                    let (request, repeated) = fake.take(&parent, &item.request_id, item.request.unwrap());
                    if repeated {
                        answer.repeated_count += 1;
                    } else {
                        answer.created += 1;
                    }
                    answer.names.push(request.name);
                }
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn watch_requests(
        &self,
        _: Call<WatchRequestsRequest>,
    ) -> Result<Response<Self::WatchRequestsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    not_here!(
        preview_request(PreviewRequestRequest) -> PreviewRequestResponse,
        list_requests(ListRequestsRequest) -> ListRequestsResponse,
        refer_request(ReferRequestRequest) -> ReferRequestResponse,
        authorise_request(AuthoriseRequestRequest) -> AuthoriseRequestResponse,
        decline_request(DeclineRequestRequest) -> DeclineRequestResponse,
        object_to_request(ObjectToRequestRequest) -> ObjectToRequestResponse,
        cancel_request(CancelRequestRequest) -> CancelRequestResponse,
        extend_request(ExtendRequestRequest) -> ExtendRequestResponse,
        retry_task(RetryTaskRequest) -> RetryTaskResponse,
        resolve_task(ResolveTaskRequest) -> ResolveTaskResponse,
    );
}

/// A certificate is there at the third look, if at all.
#[tonic::async_trait]
impl EvidenceService for Fake {
    async fn get_certificate(
        &self,
        call: Call<GetCertificateRequest>,
    ) -> Result<Response<GetCertificateResponse>, Status> {
        let call = call.into_inner();
        let mut known = self.0.lock().unwrap();
        known.certificates += 1;
        if known.certificates < 3 || known.requests[&call.name].0.reference == "never" {
            let details =
                tonic_types::ErrorDetails::with_error_info("CERTIFICATE_NOT_ISSUED", "quittance", HashMap::new());
            return Err(<Status as tonic_types::StatusExt>::with_error_details(
                tonic::Code::FailedPrecondition,
                "there is no certificate yet",
                details,
            ));
        }
        Ok(Response::new(GetCertificateResponse {
            certificate: b"{certificate}".to_vec(),
            subject_opening: b"{opening}".to_vec(),
            document: call.document_language.into_bytes(),
        }))
    }

    not_here! {
        list_confirmations(ListConfirmationsRequest) -> ListConfirmationsResponse,
        get_interim_statement(GetInterimStatementRequest) -> GetInterimStatementResponse,
        get_inclusion_proof(GetInclusionProofRequest) -> GetInclusionProofResponse,
        get_consistency_proof(GetConsistencyProofRequest) -> GetConsistencyProofResponse,
    }
}

fn epoch(number: u32, state: KeyEpochState) -> KeyEpoch {
    KeyEpoch { number, state: state.into(), ..KeyEpoch::default() }
}

/// A rotation is through at the third look; in between the service is away.
#[tonic::async_trait]
impl KeyService for Fake {
    async fn rotate_keys(&self, _: Call<RotateKeysRequest>) -> Result<Response<RotateKeysResponse>, Status> {
        Ok(Response::new(RotateKeysResponse { epochs: vec![epoch(1, KeyEpochState::Current)] }))
    }

    async fn list_key_epochs(&self, _: Call<ListKeyEpochsRequest>) -> Result<Response<ListKeyEpochsResponse>, Status> {
        let mut known = self.0.lock().unwrap();
        known.epoch_lists += 1;
        let old = match known.epoch_lists {
            1 => KeyEpochState::Closed,
            2 => return Err(Status::unavailable("soon")),
            _ => KeyEpochState::Logged,
        };
        Ok(Response::new(ListKeyEpochsResponse { epochs: vec![epoch(2, KeyEpochState::Current), epoch(1, old)] }))
    }
}

async fn serve() -> (Fake, String) {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let fake = Fake::default();
    let server = Server::builder()
        .add_service(RequestServiceServer::new(fake.clone()))
        .add_service(EvidenceServiceServer::new(fake.clone()))
        .add_service(KeyServiceServer::new(fake.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (fake, endpoint)
}

/// Runs the program on a thread of its own, so that the fake can answer.
async fn quittance(endpoint: &str, args: &[&str], input: &'static str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quittance"));
    command.args(args).env_clear();
    command.env("QUITTANCE_ENDPOINT", endpoint).env("QUITTANCE_TOKEN", "secret-token");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const CREATE: [&str; 8] =
    ["requests", "create", "--customer", "acme", "--action", "erasure", "--email", "anna@example.com"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_says_how_a_request_ended() {
    let (_, endpoint) = serve().await;
    for (reference, timeout, code) in
        [("fine", "1m", 0), ("exceptions", "1m", 3), ("never", "1s", 4), ("declined", "1m", 1)]
    {
        let args = [&CREATE[..], &["--reference", reference, "--wait", "--timeout", timeout]].concat();
        let output = quittance(&endpoint, &args, "").await;
        assert_eq!(output.status.code(), Some(code), "{reference}: {}", err(&output));
        assert!(err(&output).contains("crm-nl: running"), "{}", err(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_one_document_with_short_names() {
    let (_, endpoint) = serve().await;
    let id = "0b9b2f0e-7f0e-4f43-8a47-3f0a4a1f0a11";
    let args = [&CREATE[..], &["--request-id", id, "--output", "json"]].concat();
    for _ in 0..2 {
        let output = quittance(&endpoint, &args, "").await;
        assert!(output.status.success(), "{}", err(&output));
        let request: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(request["name"], format!("customers/acme/requests/{id}"));
        assert_eq!((&request["action"], &request["state"]), (&"erasure".into(), &"in_progress".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_with_what_to_do_and_without_secrets() {
    let (_, endpoint) = serve().await;
    let wrong_token = quittance(&endpoint, &[&CREATE[..], &["--token", "other-secret"]].concat(), "").await;
    assert_eq!(wrong_token.status.code(), Some(1));
    assert!(err(&wrong_token).contains("UNAUTHENTICATED"), "{}", err(&wrong_token));
    let nobody = quittance("http://127.0.0.1:1", &["systems", "list"], "").await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains("check the endpoint"), "{}", err(&nobody));
    let usage = quittance(&endpoint, &["requests", "create", "--action", "erase"], "").await;
    assert_eq!(usage.status.code(), Some(2));
    let unnamed = quittance(&endpoint, &["requests", "get", "17"], "").await;
    assert_eq!(unnamed.status.code(), Some(2));
    let contradicted = ["requests", "get", "customers/acme/requests/17", "--customer", "globex"];
    let contradicted = quittance(&endpoint, &contradicted, "").await;
    assert_eq!(contradicted.status.code(), Some(2));
    for output in [wrong_token, nobody, usage, unnamed, contradicted] {
        let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), err(&output));
        assert!(!all.contains("secret") && !all.contains("anna"), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_resumes_under_its_id() {
    let (fake, endpoint) = serve().await;
    let csv = "email,user_id\na@example.com,1\nb@example.com,2\n,\nc@example.com,3\n";
    let args = [
        "requests",
        "batch",
        "--customer",
        "acme",
        "--action",
        "erasure",
        "--file",
        "-",
        "--batch-id",
        "march",
        "--chunk-size",
        "2",
        "--output",
        "json",
        "--wait",
        "--timeout",
        "1m",
    ];
    for (created, repeated) in [(3, 0), (0, 3)] {
        let output = quittance(&endpoint, &args, csv).await;
        assert_eq!(output.status.code(), Some(1), "one line names nobody: {}", err(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["created"], &report["repeated"]), (&created.into(), &repeated.into()));
        assert_eq!(report["errors"][0]["line"], 4);
        assert_eq!(report["requests"]["completed"], 3);
        assert_eq!(report["requests"]["systems"][0]["confirmed"], 3);
        assert!(err(&output).contains("line 4: it names nobody"), "{}", err(&output));
    }
    assert_eq!(fake.0.lock().unwrap().requests.len(), 3);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_input_breaks_off_did_not_go_well() {
    let (fake, endpoint) = serve().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut input = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut feeder = listener.accept().unwrap().0;
    // What is closed with something unread is reset: the program's next read fails.
    input.write_all(b"unread").unwrap();
    feeder.write_all(b"email\na@example.com\nb@exam").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_quittance"));
    command.args(["requests", "batch", "--customer", "acme", "--action", "erasure", "--file", "-"]);
    command.args(["--batch-id", "march", "--chunk-size", "1", "--output", "json"]);
    command.env_clear().env("QUITTANCE_ENDPOINT", endpoint).env("QUITTANCE_TOKEN", "secret-token");
    command.stdin(std::os::fd::OwnedFd::from(input)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().unwrap();
    while fake.0.lock().unwrap().requests.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    drop(feeder);
    let output = tokio::task::spawn_blocking(|| running.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "no summary: {}", String::from_utf8_lossy(&output.stdout));
    let told = err(&output);
    assert!(told.contains("could not be read beyond line 2") && told.contains("--batch-id march"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_is_waited_for_though_the_service_is_away_meanwhile() {
    let (fake, endpoint) = serve().await;
    let output = quittance(&endpoint, &["keys", "rotate", "--wait", "--timeout", "1m"], "").await;
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(fake.0.lock().unwrap().epoch_lists, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_waited_for_and_its_opening_is_for_its_owner_alone() {
    let (_, endpoint) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let id = "0b9b2f0e-7f0e-4f43-8a47-3f0a4a1f0a11";
    let created = [&CREATE[..], &["--request-id", id, "--reference", "fine", "--wait"]].concat();
    assert_eq!(quittance(&endpoint, &created, "").await.status.code(), Some(0));
    let get = ["requests", "certificate", id, "--customer", "acme"];
    let early = quittance(&endpoint, &get, "").await;
    assert_eq!(early.status.code(), Some(1));
    assert!(err(&early).contains("CERTIFICATE_NOT_ISSUED"), "{}", err(&early));
    let (out, opening, document) = (path("certificate.json"), path("opening.json"), path("certificate.pdf"));
    let files = ["--out", &out, "--opening", &opening, "--document", &document, "--language", "nl", "--wait"];
    let output = quittance(&endpoint, &[&get[..], &files].concat(), "").await;
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for (file, content) in [(&out, "{certificate}"), (&opening, "{opening}"), (&document, "nl")] {
        assert_eq!(std::fs::read_to_string(file).unwrap(), content);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&opening).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let printed = quittance(&endpoint, &get, "").await;
    assert_eq!(printed.stdout, b"{certificate}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_certificate_of_a_request_that_is_open() {
    let (_, endpoint) = serve().await;
    let id = "0b9b2f0e-7f0e-4f43-8a47-3f0a4a1f0a12";
    let created = [&CREATE[..], &["--request-id", id, "--reference", "never"]].concat();
    assert_eq!(quittance(&endpoint, &created, "").await.status.code(), Some(0));
    let get = ["requests", "certificate", id, "--customer", "acme", "--wait"];
    let output = quittance(&endpoint, &get, "").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("CERTIFICATE_NOT_ISSUED"), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_are_written_without_a_service() {
    let output = quittance("http://127.0.0.1:1", &["completion", "bash"], "").await;
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("interim-statement"));
}
