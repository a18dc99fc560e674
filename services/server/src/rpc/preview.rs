//! `PreviewRequest`: what a request would touch. Finds, and changes nothing.

use std::{sync::Arc, time::Duration};

use quittance_api::v1;
use quittance_connectors::{BatchContext, MatchSet, RowFate, Subject};
use quittance_domain::{
    agreement::Agreement,
    identifier::Identifier,
    ids::CustomerId,
    request::{KNOWN_MAX, NewRequest, known_identifiers},
    system::{ConnectorKind, SubjectShare, System},
    window,
};
use tokio::time::{Instant, timeout_at};

use super::intake::{check_corrections, notices};
use crate::{
    app::{App, check_countries},
    convert::{identifier_change_to, time_to},
    error::{ApiError, ApiResult},
};

/// A preview is asked by a person: longer than this nobody waits for one system,
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// nor so long for those that ask it already.
const PLACE_WAIT: Duration = Duration::from_secs(2);
const BUSY: &str = "not asked: it takes no more previews now; try again shortly";
const OUT_OF_TIME: &str = "not asked to the end: the time for one preview was over";
/// From system to system by what each yields: hardly any chain is longer.
const ROUNDS_MAX: usize = 4;

pub async fn run(
    app: &App,
    customer: &CustomerId,
    mut request: NewRequest,
    notify: &[String],
) -> ApiResult<v1::PreviewRequestResponse> {
    let agreement = app.agreement(customer).await?;
    let topology = app.topology.present().await?;
    check_countries(customer, &agreement, &topology)?;
    check_corrections(customer, &topology, &mut request)?;
    let changes = request.identifier_changes.iter();
    let identifier_changes = changes.map(|c| identifier_change_to(c.kind, &c.collection, &c.field)).collect();
    request.notices = notices(customer, &agreement, &topology, notify)?;
    request.check(app.now()).map_err(|e| ApiError::from(e).below("request"))?;
    let zone = window::zone(&agreement.time_zone).map_err(|e| ApiError::field("agreement.time_zone", e))?;
    let due = window::due_at(app.now(), agreement.window_days, &zone, request.controller_due_at)
        .map_err(|e| ApiError::field("request.controller_due_time", e))?;
    let mine: Vec<&Arc<System>> = topology.systems.iter().filter(|s| s.holds_data_of(customer)).collect();
    let mut known = known_identifiers(&request.identifiers, &request.identifier_changes);
    let deadline = Instant::now() + Duration::from_secs(app.limits.preview_s);
    let mut asked: Vec<Asked> = mine.iter().map(|_| Asked::default()).collect();
    for _ in 0..ROUNDS_MAX {
        let before = known.len();
        for (system, asked) in mine.iter().zip(&mut asked) {
            let accepted = system.accepts();
            let by = known.iter().filter(|i| accepted.contains(&i.kind())).count();
            // Asked again only where it can be asked by more than before.
            if asked.preview.is_some() && by == asked.by {
                continue;
            }
            let (preview, yielded) = ask(app, customer, &agreement, &request, &known, system, deadline).await;
            *asked = Asked { by, preview: Some(preview) };
            for identifier in yielded {
                if known.len() < KNOWN_MAX && !known.contains(&identifier) {
                    known.push(identifier);
                }
            }
        }
        if known.len() == before {
            break;
        }
    }
    let mut systems: Vec<v1::SystemPreview> = asked.into_iter().filter_map(|asked| asked.preview).collect();
    systems.extend(request.notices.iter().map(|notice| v1::SystemPreview {
        system: notice.system.resource_name(),
        remark: "a recipient: it is told when all else is confirmed".to_owned(),
        ..v1::SystemPreview::default()
    }));
    Ok(v1::PreviewRequestResponse { systems, due_time: Some(time_to(due)), identifier_changes })
}

/// By how many identifiers a system was asked, and what it said.
#[derive(Default)]
struct Asked {
    by: usize,
    preview: Option<v1::SystemPreview>,
}

/// What the system says, and the identifiers that its rows give away for others.
async fn ask(
    app: &App,
    customer: &CustomerId,
    agreement: &Agreement,
    request: &NewRequest,
    known: &[Identifier],
    system: &System,
    deadline: Instant,
) -> (v1::SystemPreview, Vec<Identifier>) {
    let not_asked = |remark: String| {
        let system = system.id.resource_name();
        (v1::SystemPreview { system, collections: Vec::new(), asked: false, remark }, Vec::new())
    };
    if system.connector == ConnectorKind::Remote {
        return not_asked("a remote system: its worker is asked when the request runs".to_owned());
    }
    let SubjectShare { identifiers, corrections, identifier_changes } =
        system.share(known, &request.corrections, &request.identifier_changes);
    if identifiers.is_empty() {
        let remark =
            "none of these identifiers, nor of those that the other systems yield: a remote one may yield it yet";
        return not_asked(remark.to_owned());
    }
    if Instant::now() >= deadline {
        return not_asked(OUT_OF_TIME.to_owned());
    }
    let place_by = deadline.min(Instant::now() + PLACE_WAIT);
    let Ok(_place) = timeout_at(place_by, app.preview_places.take(system.limits, &system.id)).await else {
        return not_asked(BUSY.to_owned());
    };
    let ctx = BatchContext {
        customer: customer.clone(),
        customer_key: system.customer_key(customer),
        action: request.action,
        resolving: true,
        others_restricted: false,
        now: app.now(),
        time_zone: agreement.time_zone.clone(),
        time_limit: TIME_LIMIT,
        // It changes nothing.
        commit_before: Instant::now(),
    };
    let subject = Subject { identifiers, pseudonym: String::new(), corrections, identifier_changes };
    let connector = match app.connectors.get(system).await {
        Ok(connector) => connector,
        Err(error) => return not_asked(error.to_string()),
    };
    let Ok(found) = timeout_at(deadline, connector.find(&ctx, std::slice::from_ref(&subject))).await else {
        return not_asked(OUT_OF_TIME.to_owned());
    };
    match found.map(|mut found| found.pop()) {
        Err(error) => not_asked(error.to_string()),
        Ok(None) => not_asked("the system gave no answer".to_owned()),
        Ok(Some(Err(error))) => not_asked(error.to_string()),
        Ok(Some(Ok(found))) => {
            let collections = counts(&found.match_set);
            let (yielded, remark) = match found.leads_to() {
                Ok(yielded) => (yielded, String::new()),
                Err(error) => (Vec::new(), error.to_string()),
            };
            (v1::SystemPreview { system: system.id.resource_name(), collections, asked: true, remark }, yielded)
        }
    }
}

fn counts(match_set: &MatchSet) -> Vec<v1::CollectionPreview> {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    match_set
        .collections
        .iter()
        .map(|(collection, rows)| v1::CollectionPreview {
            collection: collection.clone(),
            rows: count(rows.len()),
            held_rows: count(rows.iter().filter(|r| r.fate == RowFate::Hold).count()),
        })
        .collect()
}
