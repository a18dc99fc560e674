//! Does the tasks of one remote system.
//!
//! A [`Backend`] says how the system is searched and changed; [`Worker`] does the rest: leases tasks, keeps the leases alive, stores what
//! was found *before* anything is changed, acts, reads back, reports. After a crash the task is leased again and brings the stored match
//! set along, so that the rerun reports what was really done (I4). A task whose lease is lost, or has passed by our own monotonic clock, is
//! dropped at once: its futures are not polled again, so a backend must not hand work to threads that go on without it.
//!
//! Tasks hold identifiers in the clear. Log their names, never the tasks (I10).

mod attempt;
mod backend;
mod held;
mod leases;
mod outbox;

use std::{sync::Arc, time::Duration};

pub use backend::{Backend, BackendError, KeySink, ReadBack, RecordSink};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

use self::{
    attempt::{Attempt, failed},
    leases::{Leases, Term},
    outbox::{Outbox, Posted},
};
use crate::{
    Backoff, Client, ClientError,
    api::{Lease, LeaseTasksRequest, LeaseTasksResponse, LeasedTask, TaskMatchSet, TaskReport, Work, task_report},
};

/// How hard to work.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Tasks worked on at once.
    pub concurrency: usize,
    /// Tasks leased at once, those that wait their turn included. 1 to 1,000.
    pub in_hand: usize,
    /// How long the service may hold a question for work open. At most 60 s.
    pub wait: Duration,
    /// After the drain began: how long tasks that were begun may take to end. What is not done by then is left to the lease.
    pub drain_timeout: Duration,
    /// After the drain began: how long a report is tried again that cannot be delivered. The lease brings its task back.
    pub drain_delivery: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: 8,
            in_hand: 64,
            wait: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(25),
            drain_delivery: Duration::from_secs(5),
        }
    }
}

/// A worker of one system.
pub struct Worker<B> {
    client: Client,
    system: String,
    name: String,
    backend: Arc<B>,
    options: WorkerOptions,
}

/// What the tasks in hand share.
struct Shared<B> {
    client: Client,
    backend: Arc<B>,
    leases: Arc<Leases>,
    turns: Semaphore,
    saves: Outbox<TaskMatchSet>,
    reports: Outbox<TaskReport>,
    drain: CancellationToken,
}

impl<B: Backend> Worker<B> {
    /// `system` is `systems/{system}`, or the bare id; `name` is the worker's own, for the record.
    pub fn new(client: Client, system: &str, name: &str, backend: B) -> Self {
        let system = if system.starts_with("systems/") { system.to_owned() } else { format!("systems/{system}") };
        Self { client, system, name: name.to_owned(), backend: Arc::new(backend), options: WorkerOptions::default() }
    }

    #[must_use]
    pub fn options(mut self, options: WorkerOptions) -> Self {
        self.options = options;
        self
    }

    /// Works until `drain` is cancelled, then ends what was begun and gives back what was not. An error is one that waiting does not
    /// mend: a wrong token, a worker that may not serve this system.
    pub async fn run(self, drain: CancellationToken) -> Result<(), ClientError> {
        // A child: the caller's own token stays as it is when we end for another reason.
        let drain = drain.child_token();
        let leases = Arc::new(Leases::default());
        let beating = CancellationToken::new();
        let heart =
            tokio::spawn(leases::keep(leases.clone(), self.client.clone(), self.system.clone(), beating.clone()));
        let stopping = outbox::Drain { begun: drain.clone(), patience: self.options.drain_delivery };
        let shared = Arc::new(Shared {
            client: self.client.clone(),
            backend: self.backend.clone(),
            leases,
            turns: Semaphore::new(self.options.concurrency.max(1)),
            saves: Outbox::open(self.client.clone(), self.system.clone(), stopping.clone()),
            reports: Outbox::open(self.client.clone(), self.system.clone(), stopping),
            drain: drain.clone(),
        });
        let mut tasks = JoinSet::new();
        let ended = self.lease_until_drained(&shared, &mut tasks, &drain).await;
        // Those that wait for a turn see it too, where leasing ended with an error.
        drain.cancel();
        let all_ended = timeout(self.options.drain_timeout, async { while tasks.join_next().await.is_some() {} }).await;
        if all_ended.is_err() {
            tracing::warn!(
                tasks = tasks.len(),
                "tasks were still under way when the drain's time was over; their leases will pass"
            );
            tasks.shutdown().await;
        }
        beating.cancel();
        if heart.await.is_err() {
            tracing::error!("the heartbeat did not end well");
        }
        ended
    }

    async fn lease_until_drained(
        &self,
        shared: &Arc<Shared<B>>,
        tasks: &mut JoinSet<()>,
        drain: &CancellationToken,
    ) -> Result<(), ClientError> {
        let in_hand = self.options.in_hand.clamp(1, 1_000);
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
        // Less after an answer that was too long, and more again by and by: what such an answer held stays under its leases for a while.
        let mut most = in_hand;
        while !drain.is_cancelled() {
            while tasks.try_join_next().is_some() {}
            let room = in_hand - tasks.len().min(in_hand);
            // A few at a time would make many small batches of what the service hands out in large ones.
            if room < in_hand.div_ceil(4) {
                tokio::select! {
                    () = drain.cancelled() => break,
                    _ = tasks.join_next() => continue,
                }
            }
            let sent = Instant::now();
            let answer = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                answer = self.lease(room.min(most)) => answer,
            };
            match answer {
                Ok(answer) => {
                    backoff.reset();
                    most = (most + 1).min(in_hand);
                    take(shared, tasks, answer, sent);
                }
                Err(error) if may_pass(&error) => {
                    if is_over_long(&error) {
                        most = room.min(most).div_ceil(2);
                    }
                    let wait = backoff.next_wait(error.retry_delay());
                    tracing::warn!(
                        error = error.brief(),
                        wait_ms = wait.as_millis(),
                        "no work can be had now; asking again"
                    );
                    tokio::select! {
                        () = drain.cancelled() => break,
                        () = sleep(wait) => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn lease(&self, room: usize) -> Result<LeaseTasksResponse, ClientError> {
        let wait = self.options.wait.min(Duration::from_secs(60));
        let mut request = Request::new(LeaseTasksRequest {
            system: self.system.clone(),
            worker: self.name.clone(),
            tasks_max: u32::try_from(room).unwrap_or(u32::MAX),
            wait: prost_types::Duration::try_from(wait).ok(),
            replays: self.backend.can_tell_held_keys(),
            protocol: quittance_api::WORKER_PROTOCOL,
        });
        request.set_timeout(wait + Duration::from_secs(15));
        Ok(self.client.connectors().lease_tasks(request).await?.into_inner())
    }
}

/// NOT_FOUND passes as soon as the system is registered.
fn may_pass(error: &ClientError) -> bool {
    error.is_retryable() || error.code() == Some(Code::NotFound) || is_over_long(error)
}

/// The answer is longer than this client takes. The service's own errors have a reason.
fn is_over_long(error: &ClientError) -> bool {
    error.code() == Some(Code::OutOfRange) && error.reason().is_none()
}

/// Puts leased tasks to work. They are under a heartbeat before anything else happens.
fn take<B: Backend>(shared: &Arc<Shared<B>>, tasks: &mut JoinSet<()>, answer: LeaseTasksResponse, sent: Instant) {
    if !answer.tasks.is_empty() {
        tracing::debug!(tasks = answer.tasks.len(), "leased");
    }
    let until = Term { duration: answer.lease_duration, expire_time: answer.lease_expire_time }.until(sent);
    for task in answer.tasks {
        if task.work() == Work::Replay {
            // Kept by what is sent of it, not by the heartbeat.
            let shared = shared.clone();
            tasks.spawn(async move { held::tell(&shared, &task, until).await });
            continue;
        }
        let lost = shared.leases.hold(&task.name, task.lease, until);
        let shared = shared.clone();
        tasks.spawn(async move {
            let (name, lease) = (task.name.clone(), task.lease);
            if shared.leases.while_held(&name, lease, lost, work(&shared, &task)).await.is_none() {
                tracing::warn!(task = %name, "the lease is lost; the task was dropped");
            }
            shared.leases.release(&name, lease);
        });
    }
}

/// One task, from its turn to its report.
async fn work<B: Backend>(shared: &Shared<B>, task: &LeasedTask) {
    let turn = tokio::select! {
        biased;
        () = shared.drain.cancelled() => None,
        turn = shared.turns.acquire() => turn.ok(),
    };
    let attempt = match turn {
        Some(_turn) => attempt::once(shared, task).await,
        None => Attempt::Report(task_report::Result::Retry(failed("the worker was stopped before it began"))),
    };
    let Attempt::Report(result) = attempt else {
        tracing::warn!(task = %task.name, "the lease is lost; nothing is reported");
        return;
    };
    let kind = match &result {
        task_report::Result::Done(_) => "done",
        task_report::Result::Resolved(_) => "resolved",
        task_report::Result::Awaiting(_) => "awaiting",
        task_report::Result::Retry(_) => "retry",
        task_report::Result::NeedsAttention(_) => "needs attention",
    };
    // The attempt may have taken longer than the lease lives, in one step.
    if !shared.leases.holds(&task.name, task.lease) {
        tracing::warn!(task = %task.name, "the lease has passed; nothing is reported");
        return;
    }
    let report = |result| TaskReport { lease: Some(lease_of(task)), result: Some(result) };
    match shared.reports.post(report(result)).await {
        Posted::Kept => tracing::info!(task = %task.name, result = kind, "reported"),
        Posted::Lost => tracing::warn!(task = %task.name, "the report came too late; the lease is lost"),
        Posted::Undelivered => tracing::warn!(task = %task.name, "not reported; the task comes back with its lease"),
        Posted::Refused(reason) => {
            tracing::error!(task = %task.name, reason, "the service refused the report");
            // Left alone, the task would come back and be refused for ever.
            let words = failed(&format!("the service refused the worker's report: {reason}"));
            shared.reports.post(report(task_report::Result::NeedsAttention(words))).await;
        }
    }
}

fn lease_of(task: &LeasedTask) -> Lease {
    Lease { task: task.name.clone(), lease: task.lease }
}
