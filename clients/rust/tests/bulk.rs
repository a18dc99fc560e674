//! A batch over a service that cuts the stream.

use std::{
    collections::HashSet,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::stream;
use quittance_client::{
    Client,
    api::{request_service_server::*, *},
    bulk::{self, BulkOptions},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

#[derive(Default)]
struct Intake {
    known: Mutex<HashSet<String>>,
    streams: AtomicU32,
    /// Streams to cut after two chunks: one acknowledged, one durable with its acknowledgement lost.
    cuts: u32,
}

/// As `tonic::async_trait` would write it, which sees the macro's call only.
macro_rules! not_here {
    ($($method:ident($request:ident) -> $response:ident),* $(,)?) => {$(
        fn $method<'s, 'f>(&'s self, _: Request<$request>) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'f>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented("not here")) })
        }
    )*};
}

#[derive(Clone)]
struct Shared(Arc<Intake>);

#[tonic::async_trait]
impl RequestService for Shared {
    type BatchCreateRequestsStream = ReceiverStream<Result<BatchCreateRequestsResponse, Status>>;
    type WatchRequestsStream = stream::Empty<Result<WatchRequestsResponse, Status>>;

    async fn batch_create_requests(
        &self,
        request: Request<Streaming<BatchCreateRequestsRequest>>,
    ) -> Result<Response<Self::BatchCreateRequestsStream>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer token");
        let mut chunks = request.into_inner();
        let cut = self.0.streams.fetch_add(1, Ordering::SeqCst) < self.0.cuts;
        assert_eq!(chunks.message().await?.unwrap().parent, "customers/acme");
        let (sender, receiver) = mpsc::channel(16);
        let intake = self.0.clone();
        tokio::spawn(async move {
            let mut taken = 0;
            while let Ok(Some(chunk)) = chunks.message().await {
                let mut answer = BatchCreateRequestsResponse::default();
                for item in chunk.items {
                    answer.last_number = item.number;
                    if item.number % 10 == 0 {
                        answer.errors.push(BatchItemError { number: item.number, ..Default::default() });
                    } else if intake.known.lock().unwrap().insert(item.request_id.clone()) {
                        answer.created += 1;
                        answer.names.push(format!("customers/acme/requests/{}", item.request_id));
                    } else {
                        answer.repeated_count += 1;
                        answer.names.push(format!("customers/acme/requests/{}", item.request_id));
                    }
                }
                taken += 1;
                let answer = if cut && taken == 2 { Err(Status::unavailable("cut")) } else { Ok(answer) };
                let ended = answer.is_err();
                if sender.send(answer).await.is_err() || ended {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn watch_requests(
        &self,
        _: Request<WatchRequestsRequest>,
    ) -> Result<Response<Self::WatchRequestsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    not_here!(
        create_request(CreateRequestRequest) -> CreateRequestResponse,
        preview_request(PreviewRequestRequest) -> PreviewRequestResponse,
        get_request(GetRequestRequest) -> GetRequestResponse,
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

async fn serve(cuts: u32) -> (Arc<Intake>, Client) {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let intake = Arc::new(Intake { cuts, ..Intake::default() });
    let service = RequestServiceServer::new(Shared(intake.clone()));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    (intake, Client::connect(format!("http://{address}"), "token").await.unwrap())
}

fn items(count: u64) -> impl futures::Stream<Item = BatchItem> + Unpin {
    stream::iter((1..=count).map(|number| BatchItem { number, request_id: format!("id-{number}"), request: None }))
}

fn small() -> BulkOptions {
    BulkOptions { chunk_size: 7, chunks_in_flight: 3, errors_kept: 4, attempts: 3, ..BulkOptions::default() }
}

#[tokio::test]
async fn every_item_is_answered_once_however_often_the_stream_is_cut() {
    let (intake, client) = serve(2).await;
    let mut names = HashSet::new();
    let options = small();
    let report = bulk::create_requests(&client, "customers/acme", items(100), &options, |answer, _| {
        names.extend(answer.names.iter().cloned());
    });
    let report = report.await.unwrap();
    assert_eq!((report.answered(), report.failed, report.cuts), (100, 10, 2));
    // The chunks whose acknowledgement was lost.
    assert!(report.repeated > 0);
    assert_eq!(report.errors.len(), 4);
    assert_eq!(names.len(), 90);
    assert_eq!(intake.known.lock().unwrap().len(), 90);
}

#[tokio::test]
async fn an_empty_row_and_a_row_out_of_order_end_well() {
    let (_, client) = serve(0).await;
    let report = bulk::create_requests(&client, "customers/acme", items(0), &small(), |_, _| {}).await.unwrap();
    assert_eq!(report.answered(), 0);
    let wrong = stream::iter([5, 5].map(|number| BatchItem { number, ..BatchItem::default() }));
    let error = bulk::create_requests(&client, "customers/acme", wrong, &small(), |_, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("numbers must rise"), "{error}");
}

#[tokio::test]
async fn a_service_that_stays_away_is_given_up() {
    let client = Client::builder("http://127.0.0.1:1").connect_lazy().await.unwrap();
    let error = bulk::create_requests(&client, "", items(10), &small(), |_, _| {}).await.unwrap_err();
    assert!(error.error.is_retryable());
    assert_eq!((error.report.answered(), error.report.cuts), (0, 2));
}
