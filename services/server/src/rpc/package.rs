//! `PackageService`: access packages go to the customer alone, and are streamed, never held whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quittance_api::v1::{self, download_package_response::Part, package_service_server::PackageService};
use quittance_connectors::Record;
use quittance_domain::{
    action::Action,
    agreement::ProcessingFacts,
    ids::{CustomerId, RequestId, SystemId, parse_request_name, request_name},
    request::RequestState,
};
use quittance_ledger::Withheld;
use quittance_store::{PackageRow, StoreError};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::answer;
use crate::{
    app::App,
    auth::{Caller, caller},
    convert::{id, time_to},
    error::{ApiError, ApiResult},
    status::to_status,
};

/// The category of a record that has none, as outcomes have it.
const ANY: &str = "*";
/// Records that a slow reader may leave unread.
const UNREAD_MAX: usize = 64;

pub struct Packages(pub Arc<App>);

type DownloadStream = tokio_stream::wrappers::ReceiverStream<Result<v1::DownloadPackageResponse, Status>>;

#[tonic::async_trait]
impl PackageService for Packages {
    type DownloadPackageStream = DownloadStream;

    async fn get_package(
        &self,
        request: Request<v1::GetPackageRequest>,
    ) -> Result<Response<v1::GetPackageResponse>, Status> {
        answer(get(&self.0, request).await)
    }

    async fn review_package(
        &self,
        request: Request<v1::ReviewPackageRequest>,
    ) -> Result<Response<v1::ReviewPackageResponse>, Status> {
        answer(review(&self.0, request).await)
    }

    async fn download_package(
        &self,
        request: Request<v1::DownloadPackageRequest>,
    ) -> Result<Response<Self::DownloadPackageStream>, Status> {
        answer(download(&self.0, request).await)
    }
}

fn own(caller: &Caller, name: &str) -> ApiResult<(CustomerId, RequestId)> {
    let request = name.strip_suffix("/package").unwrap_or_default();
    let (customer, request) = id(parse_request_name(request), "name")?;
    caller.as_customer(&customer)?;
    Ok((customer, request))
}

async fn read(app: &App, customer: &CustomerId, request: RequestId) -> ApiResult<v1::Package> {
    let (row, _) = app.store.request(customer, request).await?;
    if row.action != Action::Access {
        return Err(ApiError::NotFound("the package: only an access request has one"));
    }
    let summary = app.store.package(customer, request).await?;
    let done = matches!(row.state, RequestState::Completed | RequestState::CompletedWithExceptions);
    let state = match (done, summary.released_at, summary.third_party) {
        _ if row.forgotten_at.is_some() => v1::PackageState::Forgotten,
        (false, ..) => v1::PackageState::Compiling,
        (true, None, 1..) => v1::PackageState::AwaitingReview,
        (true, ..) => v1::PackageState::Released,
    };
    let released_at = summary.released_at.or(row.closed_at).filter(|_| state == v1::PackageState::Released);
    Ok(v1::Package {
        name: format!("{}/package", request_name(customer, request)),
        state: state.into(),
        record_count: summary.records,
        third_party_record_count: summary.third_party,
        third_party_withheld: summary.third_party_withheld,
        release_time: released_at.map(time_to),
    })
}

async fn get(app: &App, request: Request<v1::GetPackageRequest>) -> ApiResult<v1::GetPackageResponse> {
    let (customer, id) = own(&caller(&request)?, &request.get_ref().name)?;
    Ok(v1::GetPackageResponse { package: Some(read(app, &customer, id).await?) })
}

async fn review(app: &App, request: Request<v1::ReviewPackageRequest>) -> ApiResult<v1::ReviewPackageResponse> {
    let caller = caller(&request)?;
    let (customer, id) = own(&caller, &request.get_ref().name)?;
    match read(app, &customer, id).await?.state() {
        v1::PackageState::AwaitingReview => {
            let withheld = match request.get_ref().withhold_third_party {
                true => Some(third_party(app, &customer, id).await?),
                false => None,
            };
            app.store.release_package(&customer, id, &caller.principal(), withheld, app.now()).await?;
        }
        v1::PackageState::Released => {
            return Err(ApiError::WrongState("the package is released already".to_owned()));
        }
        v1::PackageState::Forgotten => return Err(StoreError::Forgotten.into()),
        v1::PackageState::Compiling | v1::PackageState::Unspecified => {
            return Err(ApiError::WrongState(
                "systems are still being asked: wait for the request to complete".to_owned(),
            ));
        }
    }
    Ok(v1::ReviewPackageResponse { package: Some(read(app, &customer, id).await?) })
}

/// What there is of records with third parties' data, in counts: once the request is complete it does not change any more.
async fn third_party(app: &App, customer: &CustomerId, id: RequestId) -> ApiResult<Vec<Withheld>> {
    let page = app.limits.package_page;
    let mut after = (String::new(), -1_i64);
    let mut counts: BTreeMap<(SystemId, String, String), u64> = BTreeMap::new();
    loop {
        let rows = app.store.third_party_records(customer, id, (&after.0, after.1), page).await?;
        let full = rows.len() == page as usize;
        for PackageRow { system, number, record } in rows {
            let record = parsed(&record)?;
            let filled = record.fields.into_iter().filter(|field| field.value.is_some());
            let mut categories: BTreeSet<String> = filled.map(|field| field.category).collect();
            if categories.is_empty() {
                categories.insert(ANY.to_owned());
            }
            for category in categories {
                *counts.entry((system.clone(), record.collection.clone(), category)).or_default() += 1;
            }
            after = (system.as_str().to_owned(), number);
        }
        if !full {
            break;
        }
    }
    let line = |((system, collection, category), count)| Withheld { system, collection, category, count };
    Ok(counts.into_iter().map(line).collect())
}

async fn download(app: &Arc<App>, request: Request<v1::DownloadPackageRequest>) -> ApiResult<DownloadStream> {
    let (customer, id) = own(&caller(&request)?, &request.get_ref().name)?;
    let package = read(app, &customer, id).await?;
    match package.state() {
        v1::PackageState::Released => {}
        v1::PackageState::AwaitingReview => return Err(ApiError::PackageAwaitingReview),
        v1::PackageState::Forgotten => return Err(StoreError::Forgotten.into()),
        v1::PackageState::Compiling | v1::PackageState::Unspecified => {
            return Err(ApiError::WrongState(
                "systems are still being asked: wait for the request to complete".to_owned(),
            ));
        }
    }
    let facts = app.store.customer(&customer).await?.agreement.facts;
    let (sender, stream) = mpsc::channel(UNREAD_MAX);
    let app = app.clone();
    tokio::spawn(async move {
        if let Err(error) = stream_out(&app, &customer, id, package, facts, &sender).await {
            // Nobody there to hear it: the client is gone.
            let _ = sender.send(Err(to_status(error))).await;
        }
    });
    Ok(DownloadStream::new(stream))
}

async fn stream_out(
    app: &App,
    customer: &CustomerId,
    id: RequestId,
    package: v1::Package,
    facts: ProcessingFacts,
    sender: &mpsc::Sender<Result<v1::DownloadPackageResponse, Status>>,
) -> ApiResult<()> {
    let with_third_party = !package.third_party_withheld;
    let header = v1::PackageHeader {
        package: Some(package),
        purposes: facts.purposes,
        recipients: facts.recipients,
        source: facts.source,
        automated_decisions: facts.automated_decisions,
        controller: facts.controller,
    };
    let part = |part| Ok(v1::DownloadPackageResponse { part: Some(part) });
    if sender.send(part(Part::Header(header))).await.is_err() {
        return Ok(());
    }
    let page = app.limits.package_page;
    let (mut after, mut sent) = ((String::new(), -1_i64), 0_u64);
    loop {
        let records = app.store.package_records(customer, id, (&after.0, after.1), with_third_party, page).await?;
        let full = records.len() == page as usize;
        for row in records {
            let record = record_to(row.system.resource_name(), &row.record)?;
            after = (row.system.as_str().to_owned(), row.number);
            if sender.send(part(Part::Record(record))).await.is_err() {
                return Ok(());
            }
            sent += 1;
        }
        if !full {
            break;
        }
    }
    // Nobody there to hear it: the client is gone.
    let _ = sender.send(part(Part::Trailer(v1::PackageTrailer { record_count: sent }))).await;
    Ok(())
}

fn parsed(stored: &[u8]) -> ApiResult<Record> {
    let broken = |_| StoreError::Inconsistent { table: "package_records", what: "it does not parse" };
    Ok(serde_json::from_slice(stored).map_err(broken)?)
}

fn record_to(system: String, stored: &[u8]) -> ApiResult<v1::PackageRecord> {
    let record = parsed(stored)?;
    let field =
        |f: quittance_connectors::RecordField| v1::RecordField { name: f.name, category: f.category, value: f.value };
    Ok(v1::PackageRecord {
        system,
        collection: record.collection,
        key: record.key,
        fields: record.fields.into_iter().map(field).collect(),
        third_party: record.third_party,
    })
}
