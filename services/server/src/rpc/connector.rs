//! `ConnectorService`: remote workers, on the same leases as the ones in this process.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::SignedDuration;
use prost::Message as _;
use quittance_api::{
    WORKER_PROTOCOL,
    v1::{
        self, connector_service_server::ConnectorService, task_report::Result as TaskResult,
        upload_held_keys_request::Part as HeldPart, upload_records_request::Part,
    },
};
use quittance_connectors::{Record, RecordField};
use quittance_dispatch::{KeyMatcher, as_planned, remote::AnswerBounds};
use quittance_domain::{
    Timestamp,
    action::{Action, IdentifierChange},
    identifier::Identifier,
    ids::{CustomerId, RequestId, SystemId, TaskKey, parse_replay_name, replay_name},
    outcome::{Confirmation, EvidenceKind, OutcomeKind},
    replay::ReplayState,
    request::KNOWN_MAX,
    system::{SubjectShare, System},
    task::Work,
};
use quittance_store::{Instructed, LeasedBatch, LeasedTask, ReplayLease, Report, ReportResult};
use tonic::{Request, Response, Status, Streaming};

use super::{
    answer,
    package::parsed,
    statement::{self, Stated},
};
use crate::{
    app::App,
    auth::{Caller, caller, standing},
    convert::{
        action_to, correction_to, evidence_from, id, identifier_from, identifier_kind_from, identifier_to,
        outcomes_from, required, required_text, text_within, time_to, work_to,
    },
    error::{ApiError, ApiResult},
};

/// How often a waiting worker's system is looked at for a replay.
const LOOK_FOR_REPLAYS: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(60);
const TASKS_DEFAULT: u32 = 100;
const TASKS_MAX: u32 = 1000;
/// Opened for one answer, whatever is asked for.
const TASKS_AT_ONCE: u32 = 100;
/// Read for one answer, the first task excepted: with names and keys, and a match set of 1 MiB, it stays below the 4 MiB that gRPC clients
/// take unless told otherwise.
const ANSWER_BYTES: usize = 2 << 20;
/// Records that are stored in one transaction, where they are large: bounds memory.
const UPLOAD_PAGE_BYTES: usize = 8 << 20;
const CHECK_AFTER_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);
const REASON_BYTES_MAX: usize = 512;
/// What stands in each part of a record that goes out in several: its key's values together, and a field's name.
const RECORD_KEY_BYTES_MAX: usize = 16 << 10;
const FIELD_NAME_BYTES_MAX: usize = 1 << 10;
/// First wait of a remote retry; the worker has its own backoff beside it.
const RETRY_WAIT: SignedDuration = SignedDuration::from_secs(2);

pub struct Connectors(pub Arc<App>);

#[tonic::async_trait]
impl ConnectorService for Connectors {
    async fn lease_tasks(
        &self,
        request: Request<v1::LeaseTasksRequest>,
    ) -> Result<Response<v1::LeaseTasksResponse>, Status> {
        answer(lease(&self.0, request).await)
    }

    async fn extend_leases(
        &self,
        request: Request<v1::ExtendLeasesRequest>,
    ) -> Result<Response<v1::ExtendLeasesResponse>, Status> {
        answer(extend(&self.0, request).await)
    }

    async fn save_match_sets(
        &self,
        request: Request<v1::SaveMatchSetsRequest>,
    ) -> Result<Response<v1::SaveMatchSetsResponse>, Status> {
        answer(save_match_sets(&self.0, request).await)
    }

    async fn upload_records(
        &self,
        request: Request<Streaming<v1::UploadRecordsRequest>>,
    ) -> Result<Response<v1::UploadRecordsResponse>, Status> {
        answer(upload(&self.0, request).await)
    }

    async fn upload_held_keys(
        &self,
        request: Request<Streaming<v1::UploadHeldKeysRequest>>,
    ) -> Result<Response<v1::UploadHeldKeysResponse>, Status> {
        answer(upload_held_keys(&self.0, request).await)
    }

    async fn report_outcomes(
        &self,
        request: Request<v1::ReportOutcomesRequest>,
    ) -> Result<Response<v1::ReportOutcomesResponse>, Status> {
        answer(report(&self.0, request).await)
    }
}

/// The system that is meant, if the caller works for it.
async fn system_of(app: &App, caller: &Caller, name: &str) -> ApiResult<Arc<System>> {
    let id = id(SystemId::from_resource_name(name), "system")?;
    caller.system(&id)?;
    let topology = app.topology.get().await?;
    if let Some(system) = topology.system(&id) {
        return Ok(system.clone());
    }
    app.topology.refresh().await?.system(&id).cloned().ok_or(ApiError::NotFound("the system"))
}

/// A task that the caller's system has; anything else is not there.
fn task_of(system: &SystemId, lease: Option<&v1::Lease>, field: &str) -> ApiResult<(TaskKey, i64)> {
    let lease = required(lease, field)?;
    let key = id(TaskKey::from_resource_name(&lease.task), &format!("{field}.task"))?;
    if key.system != *system {
        return Err(ApiError::field(format!("{field}.task"), "is of another system"));
    }
    Ok((key, i64::try_from(lease.lease).unwrap_or(i64::MAX)))
}

fn bounded<T>(items: &[T], field: &str) -> ApiResult<()> {
    if items.len() > TASKS_MAX as usize {
        return Err(ApiError::field(field, format!("at most {TASKS_MAX}")));
    }
    Ok(())
}

/// Calls may name tasks of several customers; each transaction is one customer's.
fn by_customer<T>(items: Vec<(CustomerId, T)>) -> std::collections::BTreeMap<CustomerId, Vec<T>> {
    let mut grouped = std::collections::BTreeMap::new();
    for (customer, item) in items {
        grouped.entry(customer).or_insert_with(Vec::new).push(item);
    }
    grouped
}

fn names(customer: &CustomerId, system: &SystemId, ids: Vec<RequestId>) -> impl Iterator<Item = String> {
    ids.into_iter()
        .map(move |request| TaskKey { customer: customer.clone(), request, system: system.clone() }.resource_name())
}

/// How long a lease lives from when the call came. The worker counts it from when it sent the call, which was earlier: so what the call waited
/// for work belongs to it, and neither that nor the worker's own clock shortens or prolongs the lease.
fn lease_duration(app: &App, came: Instant, expires_at: Timestamp) -> Option<prost_types::Duration> {
    let left = Duration::try_from(app.now().duration_until(expires_at)).unwrap_or_default();
    prost_types::Duration::try_from(came.elapsed() + left).ok()
}

async fn lease(app: &App, request: Request<v1::LeaseTasksRequest>) -> ApiResult<v1::LeaseTasksResponse> {
    let came = Instant::now();
    let caller = caller(&request)?;
    let r = request.into_inner();
    let system = system_of(app, &caller, &r.system).await?;
    let worker = id(SystemId::new(&r.worker), "worker")?;
    if r.protocol.max(1) != WORKER_PROTOCOL {
        return Err(ApiError::WorkerProtocol { ours: WORKER_PROTOCOL, theirs: r.protocol });
    }
    let tasks_max = match r.tasks_max {
        0 => TASKS_DEFAULT,
        n if n <= TASKS_MAX => n.min(TASKS_AT_ONCE),
        _ => return Err(ApiError::field("tasks_max", format!("at most {TASKS_MAX}"))),
    };
    let bounds = AnswerBounds { tasks_max, bytes_max: ANSWER_BYTES };
    let wait = r.wait.map_or(Duration::ZERO, |w| Duration::try_from(w).unwrap_or(WAIT_MAX)).min(WAIT_MAX);
    let principal = format!("{}/{worker}", caller.principal());
    let until = Instant::now() + wait;
    loop {
        if r.replays
            && let Some(leased) = app.remote.lease_replay(&system.id, &principal).await?
        {
            return Ok(replay_task(app, came, leased));
        }
        let left = until.saturating_duration_since(Instant::now());
        let wait = if r.replays { left.min(LOOK_FOR_REPLAYS) } else { left };
        let leased = tokio::select! {
            leased = app.remote.lease(&system, &principal, bounds, wait) => leased?,
            () = app.drain.cancelled() => return Ok(v1::LeaseTasksResponse::default()),
        };
        match leased {
            Some(leased) => return Ok(hand_out(app, came, &system, leased)),
            None if wait == left => return Ok(v1::LeaseTasksResponse::default()),
            None => {}
        }
    }
}

/// About nobody: what the system holds is asked for, whosever it is.
fn replay_task(app: &App, came: Instant, (lease, expires_at): (ReplayLease, Timestamp)) -> v1::LeaseTasksResponse {
    let task = v1::LeasedTask {
        name: replay_name(&lease.replay.system, lease.replay.id),
        lease: u64::try_from(lease.epoch).unwrap_or_default(),
        work: v1::Work::Replay.into(),
        ..v1::LeasedTask::default()
    };
    v1::LeaseTasksResponse {
        tasks: vec![task],
        lease_expire_time: Some(time_to(expires_at)),
        lease_duration: lease_duration(app, came, expires_at),
    }
}

fn hand_out(
    app: &App,
    came: Instant,
    system: &System,
    (batch, shares): (LeasedBatch, Vec<SubjectShare>),
) -> v1::LeaseTasksResponse {
    let customer_key = system.customer_key(&batch.customer).unwrap_or_default();
    let out = |(task, share)| task_out(share, &customer_key, batch.work, batch.action, task);
    v1::LeaseTasksResponse {
        tasks: batch.tasks.into_iter().zip(shares).map(out).collect(),
        lease_expire_time: Some(time_to(batch.expires_at)),
        lease_duration: lease_duration(app, came, batch.expires_at),
    }
}

fn task_out(share: SubjectShare, customer_key: &str, work: Work, action: Action, task: LeasedTask) -> v1::LeasedTask {
    let replacement = |change: &IdentifierChange| {
        let (old, new) = (identifier_to(change.old.as_ref()?), identifier_to(&change.new));
        Some(v1::IdentifierReplacement { old_identifier: Some(old), new_identifier: Some(new) })
    };
    v1::LeasedTask {
        name: task.key.resource_name(),
        lease: u64::try_from(task.lease).unwrap_or_default(),
        work: work_to(work),
        action: action_to(action),
        identifiers: share.identifiers.iter().map(identifier_to).collect(),
        corrections: share.corrections.iter().map(correction_to).collect(),
        match_set: task.match_set.unwrap_or_default(),
        customer_key: customer_key.to_owned(),
        due_time: Some(time_to(task.due_at)),
        identifier_changes: share.identifier_changes.iter().filter_map(replacement).collect(),
    }
}

async fn extend(app: &App, request: Request<v1::ExtendLeasesRequest>) -> ApiResult<v1::ExtendLeasesResponse> {
    let came = Instant::now();
    let caller = caller(&request)?;
    let r = request.into_inner();
    let system = system_of(app, &caller, &r.system).await?;
    bounded(&r.leases, "leases")?;
    let mut leases = Vec::with_capacity(r.leases.len());
    for (i, lease) in r.leases.iter().enumerate() {
        let (key, lease) = task_of(&system.id, Some(lease), &format!("leases[{i}]"))?;
        leases.push((key.customer, (key.request, lease)));
    }
    let expires_at = app.remote.lease_expiry();
    let mut lost = Vec::new();
    for (customer, leases) in by_customer(leases) {
        let gone = app.store.extend_leases(&customer, &system.id, &leases, app.now(), expires_at).await?;
        lost.extend(names(&customer, &system.id, gone));
    }
    Ok(v1::ExtendLeasesResponse {
        lease_expire_time: Some(time_to(expires_at)),
        lost,
        lease_duration: lease_duration(app, came, expires_at),
    })
}

async fn save_match_sets(
    app: &App,
    request: Request<v1::SaveMatchSetsRequest>,
) -> ApiResult<v1::SaveMatchSetsResponse> {
    let caller = caller(&request)?;
    let r = request.into_inner();
    let system = system_of(app, &caller, &r.system).await?;
    bounded(&r.match_sets, "match_sets")?;
    let mut sets = Vec::with_capacity(r.match_sets.len());
    for (i, set) in r.match_sets.into_iter().enumerate() {
        let (key, lease) = task_of(&system.id, set.lease.as_ref(), &format!("match_sets[{i}].lease"))?;
        if set.match_set.len() > app.limits.match_set_bytes_max {
            let message = format!("is longer than {} bytes", app.limits.match_set_bytes_max);
            return Err(ApiError::field(format!("match_sets[{i}].match_set"), message));
        }
        sets.push((key.customer, (key.request, lease, set.match_set)));
    }
    let mut lost = Vec::new();
    for (customer, sets) in by_customer(sets) {
        let gone = app.store.save_remote_match_sets(&customer, &system.id, app.now(), sets).await?;
        lost.extend(names(&customer, &system.id, gone));
    }
    Ok(v1::SaveMatchSetsResponse { lost })
}

async fn upload(
    app: &App,
    request: Request<Streaming<v1::UploadRecordsRequest>>,
) -> ApiResult<v1::UploadRecordsResponse> {
    let (caller, standing) = (caller(&request)?, standing(&request)?);
    let mut stream = request.into_inner();
    let cut = |_| ApiError::Unavailable("the stream was cut: upload again from the start".to_owned());
    let first = stream.message().await.map_err(cut)?.and_then(|m| m.part);
    let Some(Part::Lease(lease)) = first else { return Err(ApiError::field("lease", "comes first")) };
    let key = id(TaskKey::from_resource_name(&lease.task), "lease.task")?;
    let system = system_of(app, &caller, &key.system.resource_name()).await?;
    let (key, lease) = task_of(&system.id, Some(&lease), "lease")?;
    let planned = app.store.instructed(&key.customer, &system.id, &[key.request].into()).await?;
    let (_, version) = planned.get(&key.request).ok_or(ApiError::NotFound("the request"))?;
    let version = version.ok_or(ApiError::NotFound("the task"))?;
    let pinned = as_planned(&app.store, &system, version).await?;
    let page = app.limits.package_page as usize;
    let mut records: Vec<(Vec<u8>, bool)> = Vec::with_capacity(page);
    let (mut stored, mut bytes) = (0_i64, 0);
    loop {
        let record = match stream.message().await.map_err(cut)?.map(|m| m.part) {
            None => break,
            Some(Some(Part::Record(record))) => record,
            Some(_) => return Err(ApiError::field("record", "only records follow the lease")),
        };
        let number = stored + i64::try_from(records.len()).unwrap_or(i64::MAX);
        let size = record.encoded_len();
        if size > app.limits.record_bytes_max {
            let message = format!("is longer than {} bytes: send it as several records", app.limits.record_bytes_max);
            return Err(ApiError::field(format!("record[{number}]"), message));
        }
        records.push(record_from([&system, &pinned], record, number)?);
        bytes += size;
        if records.len() == page || bytes >= UPLOAD_PAGE_BYTES {
            standing.check()?;
            store_page(app, &key, lease, &mut stored, &mut records).await?;
            bytes = 0;
        }
    }
    standing.check()?;
    if !records.is_empty() || stored == 0 {
        store_page(app, &key, lease, &mut stored, &mut records).await?;
    }
    app.store.finish_upload(&key, lease, app.now()).await?;
    Ok(v1::UploadRecordsResponse { record_count: u64::try_from(stored).unwrap_or_default() })
}

async fn store_page(
    app: &App,
    key: &TaskKey,
    lease: i64,
    stored: &mut i64,
    records: &mut Vec<(Vec<u8>, bool)>,
) -> ApiResult<()> {
    let page = std::mem::take(records);
    let count = i64::try_from(page.len()).unwrap_or(i64::MAX);
    app.store.upload_records(key, lease, app.now(), *stored, page).await?;
    *stored += count;
    Ok(())
}

async fn upload_held_keys(
    app: &App,
    request: Request<Streaming<v1::UploadHeldKeysRequest>>,
) -> ApiResult<v1::UploadHeldKeysResponse> {
    let caller = caller(&request)?;
    let standing = standing(&request)?;
    let mut stream = request.into_inner();
    let cut = |_| ApiError::Unavailable("the stream was cut: the work is leased again".to_owned());
    let first = stream.message().await.map_err(cut)?.and_then(|m| m.part);
    let Some(HeldPart::Lease(lease)) = first else { return Err(ApiError::field("lease", "comes first")) };
    let (system, replay) = id(parse_replay_name(&lease.task), "lease.task")?;
    let system = system_of(app, &caller, &system.resource_name()).await?;
    let epoch = i64::try_from(lease.lease).unwrap_or(i64::MAX);
    let lease = app.store.replay_lease(&system.id, replay, epoch, app.now()).await?;
    let (store, clock, lease_for) = (app.store.clone(), app.clock.clone(), app.remote.lease_for());
    let mut matcher = KeyMatcher::begin(store, clock, lease_for, lease.clone(), &system).await?;
    let mut sent = 0_u64;
    loop {
        let part = stream.message().await.map_err(cut)?.and_then(|m| m.part);
        standing.check()?;
        match part {
            Some(HeldPart::Keys(page)) => {
                bounded(&page.keys, "keys.keys")?;
                for (i, key) in page.keys.into_iter().enumerate() {
                    take_key(&mut matcher, key, &format!("keys.keys[{i}]")).await?;
                    sent += 1;
                }
                matcher.hold().await?;
            }
            Some(HeldPart::End(end)) if end.key_count == sent => break,
            Some(HeldPart::End(_)) => {
                return Err(ApiError::Unavailable("not all keys came: the work is leased again".to_owned()));
            }
            Some(HeldPart::NeedsAttention(failed)) => {
                let reason = required_text(&failed.reason, REASON_BYTES_MAX, "needs_attention.reason")?;
                let now = app.now();
                app.store.move_replay(&lease, ReplayState::Failed, &reason, now, now).await?;
                return Ok(v1::UploadHeldKeysResponse { key_count: sent, left_out_count: 0 });
            }
            Some(HeldPart::Lease(_)) => return Err(ApiError::field("lease", "comes once")),
            // A stream that is reset ends like one that is through: the end is said.
            None => return Err(ApiError::Unavailable("the stream was cut: the work is leased again".to_owned())),
        }
    }
    let left_out_count = matcher.finish().await?;
    Ok(v1::UploadHeldKeysResponse { key_count: sent, left_out_count })
}

async fn take_key(matcher: &mut KeyMatcher, key: v1::HeldKey, field: &str) -> ApiResult<()> {
    let sent = required(key.identifier.as_ref(), &format!("{field}.identifier"))?;
    let kind = identifier_kind_from(sent.kind, &format!("{field}.identifier.kind"))?;
    let whose = Some(key.customer_key.as_str()).filter(|key| !key.is_empty());
    let known = match Identifier::normalise_held(kind, &sent.value) {
        Ok(identifier) => matcher.take(whose, identifier).await?,
        Err(why) => matcher.leave_out(whose, kind, why),
    };
    known.map_err(|unknown| ApiError::field(format!("{field}.customer_key"), unknown))
}

/// The system with the map in force, and with the one that the task was planned with: a worker goes by one of them.
type EitherMap<'s> = [&'s System; 2];

fn record_from(systems: EitherMap<'_>, r: v1::PackageRecord, number: i64) -> ApiResult<(Vec<u8>, bool)> {
    if systems.iter().all(|system| system.map.collection(&r.collection).is_none()) {
        return Err(ApiError::field(format!("record[{number}].collection"), "is not in the system's data map"));
    }
    if r.key.iter().map(String::len).sum::<usize>() > RECORD_KEY_BYTES_MAX {
        let message = format!("is longer than {RECORD_KEY_BYTES_MAX} bytes");
        return Err(ApiError::field(format!("record[{number}].key"), message));
    }
    if let Some(i) = r.fields.iter().position(|field| field.name.len() > FIELD_NAME_BYTES_MAX) {
        let message = format!("is longer than {FIELD_NAME_BYTES_MAX} bytes");
        return Err(ApiError::field(format!("record[{number}].fields[{i}].name"), message));
    }
    // Categories are counted in the log, where nothing is ever forgotten: they are the data map's.
    let unknown = |field: &v1::RecordField| !systems.iter().any(|s| s.map.has_category(&r.collection, &field.category));
    if let Some(i) = r.fields.iter().position(unknown) {
        let field = format!("record[{number}].fields[{i}].category");
        return Err(ApiError::field(field, "is none of this collection in the system's data map"));
    }
    let field = |f: v1::RecordField| RecordField { name: f.name, category: f.category, value: f.value };
    // Whoever wrote the map knew of others' data there; the worker sees the record.
    let marked = |s: &&System| s.map.collection(&r.collection).is_some_and(|c| c.third_party);
    let third_party = r.third_party || systems.iter().any(marked);
    let fields = r.fields.into_iter().map(field).collect();
    let record = Record { collection: r.collection, key: r.key, fields, third_party };
    let bytes = serde_json::to_vec(&record).map_err(|e| ApiError::field(format!("record[{number}]"), e))?;
    Ok((bytes, record.third_party))
}

async fn report(app: &App, request: Request<v1::ReportOutcomesRequest>) -> ApiResult<v1::ReportOutcomesResponse> {
    let caller = caller(&request)?;
    let r = request.into_inner();
    let system = system_of(app, &caller, &r.system).await?;
    bounded(&r.reports, "reports")?;
    let mut sent = Vec::with_capacity(r.reports.len());
    for (i, report) in r.reports.into_iter().enumerate() {
        let field = format!("reports[{i}]");
        let (key, lease) = task_of(&system.id, report.lease.as_ref(), &format!("{field}.lease"))?;
        let result = report.result.ok_or_else(|| ApiError::field(format!("{field}.result"), "is required"))?;
        sent.push((key.customer, (key.request, lease, result, field)));
    }
    let mut reports = Vec::new();
    for (customer, sent) in by_customer(sent) {
        let requests = sent.iter().map(|(request, ..)| *request).collect();
        let instructed = app.store.instructed(&customer, &system.id, &requests).await?;
        let mut planned = HashMap::new();
        for version in instructed.values().filter_map(|(_, version)| *version) {
            if let Entry::Vacant(new) = planned.entry(version) {
                new.insert(as_planned(&app.store, &system, version).await?);
            }
        }
        let mut own = Vec::with_capacity(sent.len());
        let exports = |request| instructed.get(request).is_some_and(|(said, _)| said.action == Action::Access);
        let exporting: Vec<_> = sent.iter().filter(|(r, ..)| exports(r)).map(|(r, lease, ..)| (*r, *lease)).collect();
        let uploaded = match exporting.is_empty() {
            true => HashMap::new(),
            false => app.store.uploaded(&customer, &system.id, &exporting).await?,
        };
        for (request, lease, result, field) in sent {
            let (instructed, version) = instructed.get(&request).ok_or(ApiError::NotFound("the request"))?;
            let pinned = version.and_then(|version| planned.get(&version)).map_or(&*system, |planned| &**planned);
            let result = result_from(app, &caller, [&system, pinned], *instructed, result, &field)?;
            if let (ReportResult::Done(done), Some(uploaded)) = (&result, uploaded.get(&request)) {
                let key = TaskKey { customer: customer.clone(), request, system: system.id.clone() };
                let field = format!("{field}.done.outcomes");
                check_uploaded(done, *uploaded, &field)?;
                check_exported(app, (&key, lease), done, &field).await?;
            }
            own.push(Report { request, lease, result });
        }
        reports.push((customer, own));
    }
    let mut lost = Vec::new();
    for (customer, reports) in reports {
        let gone = app.store.report(&customer, &system.id, || app.now(), &reports).await?;
        lost.extend(names(&customer, &system.id, gone));
    }
    app.dispatch.wake();
    Ok(v1::ReportOutcomesResponse { lost })
}

/// What an access exports is in its package, or it was not exported (I5).
fn check_uploaded(done: &Confirmation, uploaded: bool, field: &str) -> ApiResult<()> {
    let exported = done.outcomes.iter().any(|outcome| outcome.outcome == OutcomeKind::Exported);
    match (exported, uploaded) {
        (true, false) => {
            let why = "EXPORTED, and no records were uploaded whole under this lease: upload them, or say NOT_HELD";
            Err(ApiError::field(field, why))
        }
        (false, true) => Err(ApiError::field(field, "records were uploaded under this lease, and none is EXPORTED")),
        _ => Ok(()),
    }
}

/// No more than was uploaded, collection by collection; of a great many records it is taken for true.
async fn check_exported(app: &App, leased: (&TaskKey, i64), done: &Confirmation, field: &str) -> ApiResult<()> {
    if done.outcomes.iter().all(|outcome| outcome.outcome != OutcomeKind::Exported) {
        return Ok(());
    }
    let Some(uploaded) = uploaded_by_collection(app, leased).await? else { return Ok(()) };
    let mut exported: HashMap<(&str, &str), u64> = HashMap::new();
    for (i, o) in done.outcomes.iter().enumerate().filter(|(_, o)| o.outcome == OutcomeKind::Exported) {
        // A category may stand on several lines, with a grade each. Of several categories each counts the same records.
        let sum = exported.entry((&o.collection, &o.category)).or_default();
        *sum = sum.saturating_add(o.count);
        let there = uploaded.get(&o.collection).copied().unwrap_or_default();
        if there < (*sum).max(1) {
            let why = format!(
                "EXPORTED {sum} of collection {}, of which {there} records were uploaded under this lease",
                o.collection
            );
            return Err(ApiError::field(format!("{field}[{i}].count"), why));
        }
    }
    Ok(())
}

/// Pages of an upload that are opened to count it, of some megabytes each: the worker's lease goes on meanwhile.
const COUNTED_PAGES_MAX: usize = 50;

/// `None`: there is more of it than is counted.
async fn uploaded_by_collection(app: &App, (key, lease): (&TaskKey, i64)) -> ApiResult<Option<HashMap<String, u64>>> {
    let (mut counts, mut after) = (HashMap::new(), -1);
    for _ in 0..COUNTED_PAGES_MAX {
        let page = app.store.uploaded_records(key, lease, after, app.limits.package_page).await?;
        let Some(last) = page.last() else { return Ok(Some(counts)) };
        after = last.number;
        for row in &page {
            *counts.entry(parsed(&row.record)?.collection).or_default() += 1;
        }
    }
    Ok(None)
}

fn result_from(
    app: &App,
    caller: &Caller,
    systems: EitherMap<'_>,
    instructed: Instructed,
    result: TaskResult,
    field: &str,
) -> ApiResult<ReportResult> {
    let now = app.now();
    match result {
        TaskResult::Done(done) => {
            let confirmation = done_from(app, caller, systems, instructed, &done, &format!("{field}.done"))?;
            Ok(ReportResult::Done(confirmation))
        }
        TaskResult::Resolved(resolved) => {
            let field = format!("{field}.resolved.identifiers");
            if resolved.identifiers.len() > KNOWN_MAX {
                return Err(ApiError::field(field, format!("at most {KNOWN_MAX}: more than this are several persons")));
            }
            let yields: BTreeSet<_> = systems.iter().flat_map(|system| system.yields()).collect();
            let mut found = Vec::with_capacity(resolved.identifiers.len());
            for (i, identifier) in resolved.identifiers.iter().enumerate() {
                let identifier = identifier_from(identifier, &format!("{field}[{i}]"))?;
                if !yields.contains(&identifier.kind()) {
                    return Err(ApiError::field(format!("{field}[{i}].kind"), "the system does not yield this kind"));
                }
                found.push(identifier);
            }
            Ok(ReportResult::Resolved(found))
        }
        TaskResult::Awaiting(a) => {
            let after = a.check_after.and_then(|d| SignedDuration::try_from(Duration::try_from(d).ok()?).ok());
            let after = after.ok_or_else(|| ApiError::field(format!("{field}.awaiting.check_after"), "is required"))?;
            if after > CHECK_AFTER_MAX {
                return Err(ApiError::field(format!("{field}.awaiting.check_after"), "at most 7 days"));
            }
            let check_at = now.checked_add(after).unwrap_or(now);
            let reference = text_within(&a.reference, REASON_BYTES_MAX, &format!("{field}.awaiting.reference"))?;
            Ok(ReportResult::Awaiting { check_at, reference })
        }
        TaskResult::Retry(failed) => {
            let reason = required_text(&failed.reason, REASON_BYTES_MAX, &format!("{field}.retry.reason"))?;
            Ok(ReportResult::Retry { at: now.checked_add(RETRY_WAIT).unwrap_or(now), reason })
        }
        TaskResult::NeedsAttention(failed) => {
            let reason = required_text(&failed.reason, REASON_BYTES_MAX, &format!("{field}.needs_attention.reason"))?;
            Ok(ReportResult::Attention { reason })
        }
    }
}

fn done_from(
    app: &App,
    caller: &Caller,
    systems: EitherMap<'_>,
    instructed: Instructed,
    done: &v1::TaskDone,
    field: &str,
) -> ApiResult<Confirmation> {
    let now = app.now();
    let outcomes = outcomes_from(&done.outcomes, &format!("{field}.outcomes"))?;
    for (i, outcome) in outcomes.iter().enumerate() {
        if outcome.outcome == OutcomeKind::Unconfirmed {
            // The certificate says that a person did (I3).
            let message = "only an operator gives up: report needs_attention";
            return Err(ApiError::field(format!("{field}.outcomes[{i}].outcome"), message));
        }
        let whole = matches!(outcome.outcome, OutcomeKind::NotHeld | OutcomeKind::Notified);
        let everything = whole && outcome.collection == "*";
        if !everything && !systems.iter().any(|s| s.map.has_category(&outcome.collection, &outcome.category)) {
            return Err(ApiError::field(
                format!("{field}.outcomes[{i}]"),
                "collection and category must stand in the system's data map",
            ));
        }
    }
    let evidence = evidence_from(done.evidence.as_ref(), now, &format!("{field}.evidence"))?;
    if matches!(evidence.kind, EvidenceKind::ReadBack | EvidenceKind::OperatorStatement | EvidenceKind::DocumentDigest)
    {
        // Only we read back for ourselves, and only an operator states (I5).
        return Err(ApiError::field(format!("{field}.evidence.kind"), "is not a worker's to give"));
    }
    let stated = Stated { outcomes, evidence, by: caller.principal() };
    statement::confirmation(systems[0], instructed, stated, now, &format!("{field}."))
}
