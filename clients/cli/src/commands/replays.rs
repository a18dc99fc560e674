//! `quittance systems replay …`: after a system was restored from a backup.

use std::time::Duration;

use clap::Args;
use quittance_api::v1;
use quittance_client::{Backoff, Client, ClientError, retrying};
use serde::Serialize;
use tokio::time::{sleep, timeout_at};

use super::{missing, requests::wait::deadline};
use crate::{
    args::{Global, RequestId},
    failure::{Done, End, Failure},
    output::{Output, note},
    resource,
    short_names::short,
    table::Table,
    times::{self, text_or_none},
};

const PAUSE: Duration = Duration::from_secs(1);
/// A worker that comes as often as it should has come by then.
const SILENCE_TOLD_AFTER: u32 = 15;

#[derive(Args)]
pub struct Start {
    system: String,
    /// When the backup was taken that the system was restored from: what was confirmed before is in it.
    #[arg(long, value_parser = times::parse, value_name = "TIME")]
    snapshot_time: prost_types::Timestamp,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// More identifiers to act upon wait for a person.
    #[arg(long, default_value_t = 0, value_name = "COUNT", hide_default_value = true)]
    max_matches: u64,
    /// A larger share of the keys that the system holds waits for a person, in percent.
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100), hide_default_value = true)]
    max_share: u32,
    /// Wait until every follow-up request is closed, or a person must look.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    request_id: RequestId,
}

#[derive(Args)]
pub struct Named {
    /// `systems/{system}/replays/{replay}`
    replay: String,
}

#[derive(Args)]
pub struct Approve {
    /// `systems/{system}/replays/{replay}`
    replay: String,
    /// Wait until every follow-up request is closed.
    #[arg(long)]
    wait: bool,
}

#[derive(Serialize)]
struct Replay {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_time: Option<String>,
    dry_run: bool,
    matches_max: u64,
    share_percent_max: u32,
    state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    asked_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    decided_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unattended_since_time: Option<String>,
    keys_read: u64,
    keys_matched: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shares: Vec<Share>,
}

#[derive(Serialize)]
struct Share {
    customer: String,
    erasures: u64,
    restrictions: u64,
    liftings: u64,
    rectifications: u64,
    unreachable: u64,
    follow_ups: u64,
    follow_ups_open: u64,
    waiting: u64,
}

#[derive(Serialize)]
struct Finding {
    request: String,
    action: String,
    kind: String,
    identifier_changed: bool,
}

impl From<v1::Replay> for Replay {
    fn from(r: v1::Replay) -> Self {
        Self {
            state: short::<v1::ReplayState>(r.state),
            snapshot_time: text_or_none(r.snapshot_time.as_ref()),
            create_time: text_or_none(r.create_time.as_ref()),
            end_time: text_or_none(r.end_time.as_ref()),
            unattended_since_time: text_or_none(r.unattended_since_time.as_ref()),
            name: r.name,
            dry_run: r.dry_run,
            matches_max: r.matches_max,
            share_percent_max: r.share_percent_max,
            reason: r.reason,
            asked_by: r.asked_by,
            decided_by: r.decided_by,
            keys_read: r.keys_read,
            keys_matched: r.keys_matched,
            shares: r.shares.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::ReplayShare> for Share {
    fn from(s: v1::ReplayShare) -> Self {
        Self {
            customer: s.customer,
            erasures: s.erasures,
            restrictions: s.restrictions,
            liftings: s.liftings,
            rectifications: s.rectifications,
            unreachable: s.unreachable,
            follow_ups: s.follow_ups,
            follow_ups_open: s.follow_ups_open,
            waiting: s.waiting,
        }
    }
}

impl From<v1::ReplayFinding> for Finding {
    fn from(f: v1::ReplayFinding) -> Self {
        Self {
            action: short::<v1::Action>(f.action),
            kind: short::<v1::ReplayFindingKind>(f.kind),
            request: f.request,
            identifier_changed: f.identifier_changed,
        }
    }
}

impl Replay {
    fn fields(&self) -> Table {
        let mut table = Table::of_fields();
        table.field("replay", &self.name);
        table.field("snapshot", self.snapshot_time.as_deref().unwrap_or_default());
        table.field("state", &self.state);
        table.field("reason", &self.reason);
        table.field("dry run", if self.dry_run { "yes" } else { "" });
        table.field("asked by", &self.asked_by);
        table.field("decided by", &self.decided_by);
        table.field("asked", self.create_time.as_deref().unwrap_or_default());
        table.field("ended", self.end_time.as_deref().unwrap_or_default());
        table.field("unattended since", self.unattended_since_time.as_deref().unwrap_or_default());
        table.field("keys read", self.keys_read.to_string());
        table.field("keys matched", self.keys_matched.to_string());
        table
    }

    fn table(replays: &[Self]) -> Table {
        let mut table = Table::new(&["REPLAY", "SNAPSHOT", "STATE", "ASKED BY", "KEYS", "MATCHED"]);
        for r in replays {
            table.row([
                r.name.clone(),
                r.snapshot_time.clone().unwrap_or_default(),
                r.state.clone(),
                r.asked_by.clone(),
                r.keys_read.to_string(),
                r.keys_matched.to_string(),
            ]);
        }
        table
    }
}

impl Share {
    fn table(shares: &[Self]) -> Table {
        let mut table = Table::new(&[
            "CUSTOMER",
            "ERASE",
            "RESTRICT",
            "LIFT",
            "TO RECTIFY ANEW",
            "UNREACHABLE",
            "REQUESTS",
            "OPEN",
            "WAITING",
        ]);
        for s in shares {
            let counts = [
                s.erasures,
                s.restrictions,
                s.liftings,
                s.rectifications,
                s.unreachable,
                s.follow_ups,
                s.follow_ups_open,
                s.waiting,
            ];
            table.row(std::iter::once(s.customer.clone()).chain(counts.map(|count| count.to_string())));
        }
        table
    }
}

impl Finding {
    fn table(findings: &[Self]) -> Table {
        let mut table = Table::new(&["LOOK AT", "ACTION", "WHY"]);
        for f in findings {
            let why = match (f.kind.as_str(), f.identifier_changed) {
                ("rectification", true) => "undone, and it had changed an identifier: the customer instructs it anew",
                ("rectification", false) => "undone: the customer instructs it anew",
                ("unreachable", _) => "no identifier leads to the system: look by hand",
                (other, _) => other,
            };
            table.row([f.request.clone(), f.action.clone(), why.to_owned()]);
        }
        table
    }
}

async fn findings(client: &Client, parent: &str) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListReplayFindingsRequest { parent: parent.to_owned(), page_size: 1_000, page_token };
        let page = client.systems().list_replay_findings(request).await?.into_inner();
        findings.extend(page.findings.into_iter().map(Finding::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(findings);
        }
    }
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    replay: Replay,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

async fn show(client: &Client, replay: v1::Replay, out: &mut Output) -> Done {
    let state = replay.state();
    let shown = Shown { findings: findings(client, &replay.name).await?, replay: replay.into() };
    let end = match state {
        v1::ReplayState::Completed if shown.findings.is_empty() => End::Fine,
        v1::ReplayState::Completed => End::WithExceptions,
        v1::ReplayState::Cancelled | v1::ReplayState::Failed => End::Wrong,
        _ => End::StillOpen,
    };
    end.after(tell(&shown, out))
}

fn tell(shown: &Shown, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.document(shown);
    }
    out.table(&shown.replay.fields())?;
    if !shown.replay.shares.is_empty() {
        out.line("")?;
        out.table(&Share::table(&shown.replay.shares))?;
    }
    if !shown.findings.is_empty() {
        out.line("")?;
        out.table(&Finding::table(&shown.findings))?;
    }
    Ok(())
}

fn goes_on(state: v1::ReplayState) -> bool {
    use v1::ReplayState as State;
    matches!(state, State::Matching | State::Instructing | State::Confirming)
}

/// The replay as it is when it ends, when a person must look, or when the time is over.
async fn until_ended(client: &Client, mut replay: v1::Replay, global: &Global) -> Result<v1::Replay, Failure> {
    let deadline = deadline(global.timeout);
    let mut backoff = Backoff::default();
    let mut silent = 0;
    while goes_on(replay.state()) && timeout_at(deadline, sleep(PAUSE)).await.is_ok() {
        let request = v1::GetReplayRequest { name: replay.name.clone() };
        match client.systems().get_replay(request).await {
            Ok(answer) => {
                backoff.reset();
                replay = missing(answer.into_inner().replay)?;
                silent = if replay.unattended_since_time.is_some() { silent + 1 } else { 0 };
                if silent == SILENCE_TOLD_AFTER {
                    note("nobody works on the replay: does a worker run for the system that can say what it holds?");
                }
            }
            Err(status) => {
                let error = ClientError::from(status);
                if !error.is_retryable() || backoff.tries() >= 20 {
                    return Err(error.into());
                }
                sleep(backoff.next_wait(error.retry_delay())).await;
            }
        }
    }
    Ok(replay)
}

pub async fn start(start: Start, global: &Global, out: &mut Output) -> Done {
    let request = v1::ReplayErasuresRequest {
        request_id: start.request_id.get(),
        system: resource::system(&start.system),
        snapshot_time: Some(start.snapshot_time),
        dry_run: start.dry_run,
        matches_max: start.max_matches,
        share_percent_max: start.max_share,
    };
    let client = global.connect().await?;
    let answer =
        retrying(3, || async { client.systems().replay_erasures(request.clone()).await.map_err(ClientError::from) });
    let replay = missing(answer.await?.into_inner().replay)?;
    if !start.wait {
        show(&client, replay, out).await?;
        return Ok(End::Fine);
    }
    let replay = until_ended(&client, replay, global).await?;
    show(&client, replay, out).await
}

pub async fn list(system: &str, global: &Global, out: &mut Output) -> Done {
    let client = global.connect().await?;
    let mut replays = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListReplaysRequest { parent: resource::system(system), page_size: 1_000, page_token };
        let page = client.systems().list_replays(request).await?.into_inner();
        replays.extend(page.replays.into_iter().map(Replay::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    out.list(&replays, Replay::table)?;
    Ok(End::Fine)
}

pub async fn get(named: Named, global: &Global, out: &mut Output) -> Done {
    let client = global.connect().await?;
    let answer = client.systems().get_replay(v1::GetReplayRequest { name: named.replay }).await?.into_inner();
    show(&client, missing(answer.replay)?, out).await?;
    Ok(End::Fine)
}

pub async fn approve(approve: Approve, global: &Global, out: &mut Output) -> Done {
    let client = global.connect().await?;
    let request = v1::ApproveReplayRequest { name: approve.replay };
    let replay = missing(client.systems().approve_replay(request).await?.into_inner().replay)?;
    if !approve.wait {
        show(&client, replay, out).await?;
        return Ok(End::Fine);
    }
    let replay = until_ended(&client, replay, global).await?;
    show(&client, replay, out).await
}

pub async fn cancel(named: Named, global: &Global, out: &mut Output) -> Done {
    let client = global.connect().await?;
    let answer = client.systems().cancel_replay(v1::CancelReplayRequest { name: named.replay }).await?.into_inner();
    show(&client, missing(answer.replay)?, out).await?;
    Ok(End::Fine)
}
