//! `PreviewRequest`: what a request would touch. Finds, and changes nothing.

use std::time::Duration;

use quittance_api::v1;
use quittance_connectors::{BatchContext, MatchSet, RowFate, Subject};
use quittance_domain::{
    agreement::Agreement,
    ids::CustomerId,
    request::{NewRequest, known_identifiers},
    system::{ConnectorKind, SubjectShare, System},
    window,
};

use super::intake::{check_corrections, notices};
use crate::{
    app::{App, check_countries},
    convert::{identifier_change_to, time_to},
    error::{ApiError, ApiResult},
};

/// A preview is asked by a person: longer than this nobody waits.
const TIME_LIMIT: Duration = Duration::from_secs(10);

pub async fn run(
    app: &App,
    customer: &CustomerId,
    mut request: NewRequest,
    notify: &[String],
) -> ApiResult<v1::PreviewRequestResponse> {
    let agreement = app.agreement(customer).await?;
    let topology = app.topology.get().await?;
    check_countries(customer, &agreement, &topology)?;
    check_corrections(customer, &topology, &mut request)?;
    let changes = request.identifier_changes.iter();
    let identifier_changes = changes.map(|c| identifier_change_to(c.kind, &c.collection, &c.field)).collect();
    request.notices = notices(customer, &agreement, &topology, notify)?;
    request.check(app.now()).map_err(|e| ApiError::from(e).below("request"))?;
    let zone = window::zone(&agreement.time_zone).map_err(|e| ApiError::field("agreement.time_zone", e))?;
    let due = window::due_at(app.now(), agreement.window_days, &zone, request.controller_due_at)
        .map_err(|e| ApiError::field("request.controller_due_time", e))?;
    let mut systems = Vec::new();
    for system in topology.systems.iter().filter(|s| s.holds_data_of(customer)) {
        systems.push(ask(app, customer, &agreement, &request, system).await);
    }
    systems.extend(request.notices.iter().map(|notice| v1::SystemPreview {
        system: notice.system.resource_name(),
        remark: "a recipient: it is told when all else is confirmed".to_owned(),
        ..v1::SystemPreview::default()
    }));
    Ok(v1::PreviewRequestResponse { systems, due_time: Some(time_to(due)), identifier_changes })
}

async fn ask(
    app: &App,
    customer: &CustomerId,
    agreement: &Agreement,
    request: &NewRequest,
    system: &System,
) -> v1::SystemPreview {
    let not_asked = |remark: String| v1::SystemPreview {
        system: system.id.resource_name(),
        collections: Vec::new(),
        asked: false,
        remark,
    };
    if system.connector == ConnectorKind::Remote {
        return not_asked("a remote system: its worker is asked when the request runs".to_owned());
    }
    let known = known_identifiers(&request.identifiers, &request.identifier_changes);
    let SubjectShare { identifiers, corrections, identifier_changes } =
        system.share(&known, &request.corrections, &request.identifier_changes);
    if identifiers.is_empty() {
        return not_asked("none of these identifiers; it may be reached by one that another system yields".to_owned());
    }
    let ctx = BatchContext {
        customer: customer.clone(),
        customer_key: system.customer_key(customer),
        action: request.action,
        now: app.now(),
        time_zone: agreement.time_zone.clone(),
        time_limit: TIME_LIMIT,
    };
    let subject = Subject { identifiers, pseudonym: String::new(), corrections, identifier_changes };
    let connector = match app.connectors.get(system, i64::from(system.map_version)).await {
        Ok(connector) => connector,
        Err(error) => return not_asked(error.to_string()),
    };
    match connector.find(&ctx, std::slice::from_ref(&subject)).await.map(|mut found| found.pop()) {
        Err(error) => not_asked(error.to_string()),
        Ok(None) => not_asked("the system gave no answer".to_owned()),
        Ok(Some(Err(error))) => not_asked(error.to_string()),
        Ok(Some(Ok(found))) => v1::SystemPreview {
            system: system.id.resource_name(),
            collections: counts(&found.match_set),
            asked: true,
            remark: String::new(),
        },
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
