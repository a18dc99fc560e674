//! The worker against a service that hands out a few tasks.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use quittance_client::{
    Client,
    api::{connector_service_server::*, task_report::Result as Came, *},
    worker::{Backend, BackendError, KeySink, ReadBack, RecordSink, Worker, WorkerOptions},
};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    fn count(&self, what: &str) -> usize {
        self.all().iter().filter(|line| *line == what).count()
    }
    async fn until(&self, what: &str) {
        let seen = timeout(Duration::from_secs(10), async {
            while self.count(what) == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(seen.await.is_ok(), "{what} never came: {:?}", self.all());
    }
}

#[derive(Clone)]
struct Service {
    log: Log,
    tasks: Arc<Mutex<VecDeque<LeasedTask>>>,
    beats: Beats,
    unavailable: Arc<Mutex<u32>>,
    /// More tasks than this make an answer that no client takes.
    tasks_fit: u32,
}

/// What comes of heartbeats, and how the service tells how long leases live.
#[derive(Clone, Copy)]
enum Beats {
    Keep,
    /// Another has the task. The service is an older one: it tells a time only.
    Lose,
    /// They do not get through, and the service's clock is an hour ahead of the worker's.
    Fail,
}

/// A lease of 3 s, as the service tells of it.
fn term(beats: Beats) -> (Option<prost_types::Timestamp>, Option<prost_types::Duration>) {
    let lease = Duration::from_secs(3);
    let passes = SystemTime::now() + lease;
    let duration = prost_types::Duration::try_from(lease).ok();
    match beats {
        Beats::Keep => (Some(passes.into()), duration),
        Beats::Lose => (Some(passes.into()), None),
        Beats::Fail => (Some((passes + Duration::from_secs(3_600)).into()), duration),
    }
}

#[tonic::async_trait]
impl ConnectorService for Service {
    async fn lease_tasks(&self, request: Request<LeaseTasksRequest>) -> Result<Response<LeaseTasksResponse>, Status> {
        assert_eq!(request.get_ref().system, "systems/files");
        let (lease_expire_time, lease_duration) = term(self.beats);
        if request.get_ref().tasks_max > self.tasks_fit {
            let tasks = vec![LeasedTask { match_set: vec![0; 17 << 20], ..LeasedTask::default() }];
            self.log.add("too much");
            return Ok(Response::new(LeaseTasksResponse { tasks, lease_expire_time, lease_duration }));
        }
        let mut tasks: Vec<_> = self.tasks.lock().unwrap().drain(..).collect();
        if tasks.is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
        for task in &mut tasks {
            task.lease = 7;
        }
        Ok(Response::new(LeaseTasksResponse { tasks, lease_expire_time, lease_duration }))
    }

    async fn extend_leases(
        &self,
        request: Request<ExtendLeasesRequest>,
    ) -> Result<Response<ExtendLeasesResponse>, Status> {
        self.log.add("beat");
        let (lease_expire_time, lease_duration) = term(self.beats);
        let lost = match self.beats {
            Beats::Keep => vec![],
            Beats::Lose => request.into_inner().leases.into_iter().map(|l| l.task).collect(),
            Beats::Fail => return Err(Status::unavailable("soon")),
        };
        Ok(Response::new(ExtendLeasesResponse { lease_expire_time, lost, lease_duration }))
    }

    async fn save_match_sets(
        &self,
        request: Request<SaveMatchSetsRequest>,
    ) -> Result<Response<SaveMatchSetsResponse>, Status> {
        for set in request.into_inner().match_sets {
            self.log.add(format!("saved {}", String::from_utf8_lossy(&set.match_set)));
        }
        Ok(Response::new(SaveMatchSetsResponse::default()))
    }

    async fn upload_records(
        &self,
        request: Request<Streaming<UploadRecordsRequest>>,
    ) -> Result<Response<UploadRecordsResponse>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.unwrap();
        assert!(matches!(first.part, Some(upload_records_request::Part::Lease(Lease { lease: 7, .. }))));
        let mut record_count = 0;
        while parts.message().await?.is_some() {
            record_count += 1;
        }
        Ok(Response::new(UploadRecordsResponse { record_count }))
    }

    async fn upload_held_keys(
        &self,
        request: Request<Streaming<UploadHeldKeysRequest>>,
    ) -> Result<Response<UploadHeldKeysResponse>, Status> {
        use upload_held_keys_request::Part;
        let mut parts = request.into_inner();
        let mut key_count = 0;
        while let Some(part) = parts.message().await? {
            match part.part.unwrap() {
                Part::Lease(lease) => assert_eq!(lease.lease, 7),
                Part::Keys(page) => key_count += page.keys.len() as u64,
                Part::End(end) => {
                    self.log.add(format!("held {key_count} of {}", end.key_count));
                    return Ok(Response::new(UploadHeldKeysResponse { key_count, left_out_count: 0 }));
                }
                Part::NeedsAttention(failed) => self.log.add(format!("attention {}", failed.reason)),
            }
        }
        self.log.add("held keys were cut");
        Err(Status::unavailable("cut"))
    }

    async fn report_outcomes(
        &self,
        request: Request<ReportOutcomesRequest>,
    ) -> Result<Response<ReportOutcomesResponse>, Status> {
        {
            let mut left = self.unavailable.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return Err(Status::unavailable("soon"));
            }
        }
        for report in request.into_inner().reports {
            self.log.add(match report.result.unwrap() {
                Came::Done(done) => format!("done {}", done.outcomes[0].count),
                Came::Resolved(found) => format!("resolved {}", found.identifiers.len()),
                Came::Awaiting(_) => "awaiting".to_owned(),
                Came::Retry(failed) => format!("retry {}", failed.reason),
                Came::NeedsAttention(failed) => format!("attention {}", failed.reason),
            });
        }
        Ok(Response::new(ReportOutcomesResponse::default()))
    }
}

/// Does what the task's customer key says.
struct Scripted(Log);

impl Backend for Scripted {
    async fn find(&self, task: &LeasedTask) -> Result<Vec<u8>, BackendError> {
        match task.customer_key.as_str() {
            "retry" => Err(BackendError::Retry("later".to_owned())),
            "wordy" => Err(BackendError::NeedsAttention("502\nBad Gateway\n".to_owned())),
            "panic" => panic!("a defect"),
            "standstill" => {
                // The tests have one thread: as a stopped process, nothing of the worker goes on, its heartbeat neither.
                std::thread::sleep(Duration::from_secs(4));
                Ok(b"found late".to_vec())
            }
            _ => Ok([task.match_set.as_slice(), b"+found"].concat()),
        }
    }

    async fn act(&self, task: &LeasedTask, match_set: &[u8]) -> Result<(), BackendError> {
        self.0.add(format!("acted {}", String::from_utf8_lossy(match_set)));
        if task.customer_key == "slow" {
            sleep(Duration::from_secs(4)).await;
            self.0.add("slow ended");
        }
        Ok(())
    }

    fn can_tell_held_keys(&self) -> bool {
        true
    }

    async fn held_keys(&self, sink: &mut KeySink) -> Result<(), BackendError> {
        for n in 0..1234 {
            sink.send("acme", Identifier { value: format!("U-{n}"), ..Identifier::default() }).await?;
        }
        Ok(())
    }

    async fn records(&self, task: &LeasedTask, _: &[u8], sink: RecordSink) -> Result<(), BackendError> {
        for _ in 0..100 {
            sink.send(PackageRecord::default()).await?;
        }
        if task.customer_key == "half" { Err(BackendError::Retry("half".to_owned())) } else { Ok(()) }
    }

    async fn read_back(&self, _: &LeasedTask, match_set: &[u8], records: u64) -> Result<ReadBack, BackendError> {
        let count = if records > 0 { records } else { match_set.len() as u64 };
        Ok(ReadBack::Done(TaskDone { outcomes: vec![Outcome { count, ..Outcome::default() }], evidence: None }))
    }
}

#[tokio::test]
async fn what_a_system_holds_is_said_with_its_end() {
    let replay = |key: &str| LeasedTask {
        name: "systems/files/replays/1".to_owned(),
        work: Work::Replay.into(),
        ..task(key, Action::Unspecified)
    };
    let running = run(vec![replay("all")], Beats::Keep, 0).await;
    running.log.until("held 1234 of 1234").await;
    let all = running.end().await;
    assert!(!all.iter().any(|line| line.starts_with("beat") || line.starts_with("done")), "{all:?}");
}

fn task(key: &str, action: Action) -> LeasedTask {
    LeasedTask {
        name: format!("customers/c/requests/{key}/tasks/files"),
        work: Work::Act.into(),
        action: action.into(),
        customer_key: key.to_owned(),
        ..LeasedTask::default()
    }
}

struct Running {
    log: Log,
    drain: CancellationToken,
    worker: tokio::task::JoinHandle<Result<(), quittance_client::ClientError>>,
}

async fn run(tasks: Vec<LeasedTask>, beats: Beats, unavailable: u32) -> Running {
    run_where(tasks, beats, unavailable, u32::MAX).await
}

async fn run_where(tasks: Vec<LeasedTask>, beats: Beats, unavailable: u32, tasks_fit: u32) -> Running {
    let log = Log::default();
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Service {
        log: log.clone(),
        tasks: Arc::new(Mutex::new(tasks.into())),
        beats,
        unavailable: Arc::new(Mutex::new(unavailable)),
        tasks_fit,
    };
    let server = Server::builder().add_service(ConnectorServiceServer::new(service));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let client = Client::connect(format!("http://{address}"), "token").await.unwrap();
    let drain = CancellationToken::new();
    let options = WorkerOptions { concurrency: 2, in_hand: 8, ..WorkerOptions::default() };
    let worker = Worker::new(client, "files", "w", Scripted(log.clone())).options(options).run(drain.clone());
    Running { log, drain, worker: tokio::spawn(worker) }
}

impl Running {
    async fn end(self) -> Vec<String> {
        self.drain.cancel();
        timeout(Duration::from_secs(10), self.worker).await.unwrap().unwrap().unwrap();
        self.log.all()
    }
}

#[tokio::test]
async fn what_was_found_is_kept_before_anything_is_touched() {
    let mut again = task("plain", Action::Erasure);
    again.match_set = b"earlier".to_vec();
    let running = run(vec![again], Beats::Keep, 2).await;
    running.log.until("done 13").await;
    assert_eq!(running.end().await, ["saved earlier+found", "acted earlier+found", "done 13"]);
}

#[tokio::test]
async fn records_are_streamed_and_half_a_stream_is_no_confirmation() {
    let running = run(vec![task("whole", Action::Access), task("half", Action::Access)], Beats::Keep, 0).await;
    running.log.until("done 100").await;
    running.log.until("retry half").await;
    assert_eq!(running.end().await.iter().filter(|line| line.starts_with("done")).count(), 1);
}

#[tokio::test]
async fn trouble_is_reported_as_what_it_is() {
    let mut resolve = task("resolve", Action::Erasure);
    resolve.work = Work::Resolve.into();
    let mut tasks: Vec<_> = ["retry", "panic", "wordy"].map(|key| task(key, Action::Erasure)).into();
    tasks.push(resolve);
    let running = run(tasks, Beats::Keep, 0).await;
    running.log.until("retry later").await;
    running.log.until("attention 502 Bad Gateway").await;
    running.log.until("attention the worker has a defect: it panicked; see its own log").await;
    running.log.until("resolved 0").await;
    let all = running.end().await;
    assert!(!all.iter().any(|line| line.starts_with("acted")), "{all:?}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_asked_for_in_parts() {
    let running = run_where(vec![task("plain", Action::Erasure)], Beats::Keep, 0, 2).await;
    running.log.until("done 6").await;
    let all = running.end().await;
    assert_eq!(all[..2], ["too much", "too much"], "8 and 4 do not fit, 2 do: {all:?}");
}

#[tokio::test]
async fn a_lease_lives_while_work_goes_on() {
    let running = run(vec![task("slow", Action::Erasure)], Beats::Keep, 0).await;
    // The lease alone would be over after 3 s.
    running.log.until("done 6").await;
    assert!(running.log.count("beat") >= 2);
    running.end().await;
}

#[tokio::test]
async fn a_task_whose_lease_is_lost_is_dropped() {
    let running = run(vec![task("slow", Action::Erasure)], Beats::Lose, 0).await;
    running.log.until("beat").await;
    sleep(Duration::from_secs(4)).await;
    let all = running.end().await;
    assert!(!all.iter().any(|line| line == "slow ended" || line.starts_with("done")), "{all:?}");
}

#[tokio::test]
async fn a_clock_that_is_behind_prolongs_no_lease() {
    let running = run(vec![task("slow", Action::Erasure)], Beats::Fail, 0).await;
    running.log.until("acted +found").await;
    sleep(Duration::from_secs(5)).await;
    assert!(running.log.count("beat") >= 2, "{:?}", running.log.all());
    let all = running.end().await;
    assert!(!all.iter().any(|line| line == "slow ended" || line.starts_with("done")), "{all:?}");
}

#[tokio::test]
async fn nothing_is_touched_under_a_lease_that_passed_while_the_worker_stood_still() {
    let running = run(vec![task("standstill", Action::Erasure)], Beats::Fail, 0).await;
    sleep(Duration::from_secs(6)).await;
    let all = running.end().await;
    assert!(!all.iter().any(|line| line.starts_with("acted") || line.starts_with("done")), "{all:?}");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_service_that_is_gone() {
    // It answers nothing but "not now", as a proxy does whose server is gone.
    let running = run(vec![task("plain", Action::Erasure)], Beats::Keep, u32::MAX).await;
    running.log.until("acted +found").await;
    let begun = std::time::Instant::now();
    let all = running.end().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(!all.iter().any(|line| line.starts_with("done")), "{all:?}");
}

#[tokio::test]
async fn a_drain_ends_what_was_begun_and_gives_back_the_rest() {
    let tasks = (0..4)
        .map(|n| LeasedTask { name: format!("customers/c/requests/{n}/tasks/files"), ..task("slow", Action::Erasure) });
    let running = run(tasks.collect(), Beats::Keep, 0).await;
    running.log.until("acted +found").await;
    let all = running.end().await;
    let done = all.iter().filter(|line| line.starts_with("done")).count();
    let back = all.iter().filter(|line| line.starts_with("retry the worker was stopped")).count();
    assert_eq!((done, back), (2, 2), "{all:?}");
}
