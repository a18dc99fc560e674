//! Replays of `SystemService`: after a system was restored from a backup.

use jiff::SignedDuration;
use quittance_api::v1;
use quittance_domain::{
    ids::{IdError, ReplayId, SystemId, parse_replay_name},
    replay::ReplayGuard,
    system::SystemRole,
};
use quittance_store::{FindingPlace, NewReplay, ReplayFinding, ReplayRow};
use tonic::Request;
use uuid::Uuid;

use crate::{
    app::App,
    auth::caller,
    convert::{finding_of, id, idempotency, page_size, replay_to, required, time_from},
    error::{ApiError, ApiResult},
    page_token,
};

fn named(name: &str, field: &str) -> ApiResult<(SystemId, ReplayId)> {
    id(parse_replay_name(name), field)
}

async fn shown(app: &App, replay: &ReplayRow) -> ApiResult<v1::Replay> {
    Ok(replay_to(replay, &app.store.replay_shares(replay.id).await?, app.now()))
}

fn guard(r: &v1::ReplayErasuresRequest) -> ApiResult<ReplayGuard> {
    if r.share_percent_max > 100 {
        return Err(ApiError::field("share_percent_max", "at most 100"));
    }
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    Ok(ReplayGuard {
        matches_max: or(r.matches_max, ReplayGuard::MATCHES_DEFAULT),
        share_percent_max: or(r.share_percent_max.into(), ReplayGuard::SHARE_PERCENT_DEFAULT),
    })
}

pub async fn start(app: &App, request: Request<v1::ReplayErasuresRequest>) -> ApiResult<v1::ReplayErasuresResponse> {
    let caller = caller(&request)?;
    caller.operator()?;
    let r = request.into_inner();
    let idempotency = idempotency(&r.request_id, "request_id")?;
    let system = id(SystemId::from_resource_name(&r.system), "system")?;
    let snapshot_at = time_from(required(r.snapshot_time.as_ref(), "snapshot_time")?, "snapshot_time")?;
    let guard = guard(&r)?;
    let (system, ..) = app.store.system(&system).await?;
    let now = app.now();
    if system.role == SystemRole::Recipient {
        let why = "a recipient keeps the data on its own account: nothing is instructed there, and nothing is replayed";
        return Err(ApiError::WrongState(why.to_owned()));
    }
    if system.backup_retention_s == 0 {
        let why = "the system declares no backup_retention: nothing is kept of what was instructed there, and nothing can be replayed";
        return Err(ApiError::WrongState(why.to_owned()));
    }
    if snapshot_at > now {
        return Err(ApiError::field("snapshot_time", "is in the future"));
    }
    let backups = SignedDuration::from_secs(i64::try_from(system.backup_retention_s).unwrap_or(i64::MAX));
    if now.checked_sub(backups).is_ok_and(|oldest| snapshot_at < oldest) {
        let why = "is longer ago than the system's backups live: what was confirmed since is not known any more";
        return Err(ApiError::field("snapshot_time", why));
    }
    let new = NewReplay {
        id: ReplayId::new(Uuid::now_v7()),
        idempotency,
        system: system.id.clone(),
        snapshot_at,
        dry_run: r.dry_run,
        guard,
        by: caller.principal(),
    };
    let replay = app.store.start_replay(&new, now).await?;
    tracing::warn!(replay = %replay.id, system = %replay.system, by = replay.asked_by, dry_run = replay.dry_run, "a replay was asked for");
    Ok(v1::ReplayErasuresResponse { replay: Some(shown(app, &replay).await?) })
}

pub async fn get(app: &App, request: Request<v1::GetReplayRequest>) -> ApiResult<v1::GetReplayResponse> {
    caller(&request)?.operator()?;
    let (system, id) = named(&request.get_ref().name, "name")?;
    let replay = app.store.replay(&system, id).await?;
    Ok(v1::GetReplayResponse { replay: Some(shown(app, &replay).await?) })
}

pub async fn list(app: &App, request: Request<v1::ListReplaysRequest>) -> ApiResult<v1::ListReplaysResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let system = id(SystemId::from_resource_name(&r.parent), "parent")?;
    let size = page_size(r.page_size)?;
    let query = format!("replays {system}");
    let before = page_token::read(&query, &r.page_token)?;
    let before = before.map(ReplayId::parse).transpose().map_err(|_| ApiError::InvalidPageToken)?;
    let replays = app.store.list_replays(&system, before, size + 1).await?;
    let (replays, next_page_token) = page_token::page(replays, size, |r| page_token::issue(&query, &r.id.to_string()));
    Ok(v1::ListReplaysResponse {
        next_page_token,
        replays: replays.iter().map(|r| replay_to(r, &[], app.now())).collect(),
    })
}

pub async fn approve(app: &App, request: Request<v1::ApproveReplayRequest>) -> ApiResult<v1::ApproveReplayResponse> {
    let caller = caller(&request)?;
    caller.operator()?;
    let (system, id) = named(&request.get_ref().name, "name")?;
    let replay = app.store.approve_replay(&system, id, &caller.principal(), app.now()).await?;
    Ok(v1::ApproveReplayResponse { replay: Some(shown(app, &replay).await?) })
}

pub async fn cancel(app: &App, request: Request<v1::CancelReplayRequest>) -> ApiResult<v1::CancelReplayResponse> {
    let caller = caller(&request)?;
    caller.operator()?;
    let (system, id) = named(&request.get_ref().name, "name")?;
    let replay = app.store.cancel_replay(&system, id, &caller.principal(), app.now()).await?;
    Ok(v1::CancelReplayResponse { replay: Some(shown(app, &replay).await?) })
}

fn place(text: &str) -> Result<FindingPlace, IdError> {
    let (request, customer) = text.split_once('.').ok_or(IdError::Uuid)?;
    let request = Uuid::try_parse(request).map_err(|_| IdError::Uuid)?;
    Ok(FindingPlace { customer: customer.to_owned(), request })
}

pub async fn findings(
    app: &App,
    request: Request<v1::ListReplayFindingsRequest>,
) -> ApiResult<v1::ListReplayFindingsResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let (system, id) = named(&r.parent, "parent")?;
    let size = page_size(r.page_size)?;
    let query = format!("findings {id}");
    let after = page_token::read(&query, &r.page_token)?;
    let after = after.map(place).transpose().map_err(|_| ApiError::InvalidPageToken)?;
    let replay = app.store.replay(&system, id).await?;
    let found = app.store.replay_findings(&replay, after.as_ref(), size + 1).await?;
    let place = |f: &ReplayFinding| page_token::issue(&query, &format!("{}.{}", f.request, f.customer));
    let (found, next_page_token) = page_token::page(found, size, place);
    Ok(v1::ListReplayFindingsResponse { next_page_token, findings: found.iter().map(finding_of).collect() })
}
