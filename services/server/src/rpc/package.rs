//! `PackageService`: access packages go to the customer alone, and are streamed, never held whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quittance_api::{
    record_parts,
    v1::{self, download_package_response::Part, package_service_server::PackageService},
};
use quittance_connectors::Record;
use quittance_domain::{
    action::Action,
    agreement::ProcessingFacts,
    data_map::DataMap,
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
    auth::{Caller, Standing, caller, standing},
    convert::{id, time_to},
    error::{ApiError, ApiResult},
    status::to_status,
};

/// The collection or category of a record that has none in the data map, as outcomes have it.
const ANY: &str = "*";
/// Parts of a record are no shorter than this.
const PART_BYTES_MIN: usize = 64 << 10;
/// Records, or parts of them, that a slow reader may leave unread.
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
    if matches!(row.state, RequestState::Declined | RequestState::Cancelled) {
        return Err(ApiError::NotFound("the package: the request was declined or cancelled"));
    }
    let summary = app.store.package(customer, request).await?;
    let done = matches!(row.state, RequestState::Completed | RequestState::CompletedWithExceptions);
    let state = match (done, summary.released_at, summary.third_party) {
        // As it was when they were counted: of one that is forgotten meanwhile only some may be there.
        _ if summary.forgotten => v1::PackageState::Forgotten,
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
    // What is counted stands for ever: by what is known now, not a moment ago.
    let topology = app.topology.present().await?;
    let page = app.limits.package_page;
    let mut after = (String::new(), -1_i64);
    let mut counts: BTreeMap<(SystemId, String, String), u64> = BTreeMap::new();
    loop {
        let rows = app.store.third_party_records(customer, id, (&after.0, after.1), page).await?;
        if rows.is_empty() {
            break;
        }
        for PackageRow { system, number, record } in rows {
            let map = topology.system(&system).map(|system| &system.map);
            let (collection, categories) = counted(map.map(|map| &**map), parsed(&record)?);
            for category in categories {
                *counts.entry((system.clone(), collection.clone(), category)).or_default() += 1;
            }
            after = (system.as_str().to_owned(), number);
        }
    }
    let line = |((system, collection, category), count)| Withheld { system, collection, category, count };
    Ok(counts.into_iter().map(line).collect())
}

/// As what a record is counted: in the data map's words alone. What stands in the log is never forgotten (I7), and the map may have
/// changed since the record came.
fn counted(map: Option<&DataMap>, record: Record) -> (String, BTreeSet<String>) {
    let Some(map) = map.filter(|map| map.collection(&record.collection).is_some()) else {
        return (ANY.to_owned(), BTreeSet::from([ANY.to_owned()]));
    };
    let filled = record.fields.into_iter().filter(|field| field.value.is_some());
    let mut categories: BTreeSet<String> = filled
        .map(
            |field| if map.has_category(&record.collection, &field.category) { field.category } else { ANY.to_owned() },
        )
        .collect();
    if categories.is_empty() {
        categories.insert(ANY.to_owned());
    }
    (record.collection, categories)
}

async fn download(app: &Arc<App>, request: Request<v1::DownloadPackageRequest>) -> ApiResult<DownloadStream> {
    let (customer, id) = own(&caller(&request)?, &request.get_ref().name)?;
    let standing = standing(&request)?;
    let bytes_max = match usize::try_from(request.get_ref().record_bytes_max) {
        Ok(0) => usize::MAX,
        Ok(bytes @ PART_BYTES_MIN..) => bytes,
        _ => return Err(ApiError::field("record_bytes_max", format!("at least {PART_BYTES_MIN}, or 0"))),
    };
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
        let what = (package, facts);
        if let Err(error) = stream_out(&app, &standing, (&customer, id), what, bytes_max, &sender).await {
            // Nobody there to hear it: the client is gone.
            let _ = sender.send(Err(to_status(error))).await;
        }
    });
    Ok(DownloadStream::new(stream))
}

async fn stream_out(
    app: &App,
    standing: &Standing,
    (customer, id): (&CustomerId, RequestId),
    (package, facts): (v1::Package, ProcessingFacts),
    bytes_max: usize,
    sender: &mpsc::Sender<Result<v1::DownloadPackageResponse, Status>>,
) -> ApiResult<()> {
    let with_third_party = !package.third_party_withheld;
    let withheld = if with_third_party { 0 } else { package.third_party_record_count };
    let whole = package.record_count.saturating_sub(withheld);
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
        standing.check()?;
        let records = app.store.package_records(customer, id, (&after.0, after.1), with_third_party, page).await?;
        if records.is_empty() {
            break;
        }
        for row in records {
            let record = record_to(row.system.resource_name(), &row.record)?;
            after = (row.system.as_str().to_owned(), row.number);
            for message in record_parts(record, bytes_max) {
                if sender.send(part(message)).await.is_err() {
                    return Ok(());
                }
            }
            sent += 1;
        }
        // However slow the reader: no page is read before the last one is taken, and memory holds one.
        if sender.reserve_many(UNREAD_MAX).await.is_err() {
            return Ok(());
        }
    }
    if sent != whole {
        // A package is released as it is, and loses records by being forgotten alone: its key goes last.
        return Err(StoreError::Forgotten.into());
    }
    // Nobody there to hear it: the client is gone.
    let _ = sender.send(part(Part::Trailer(v1::PackageTrailer { record_count: sent }))).await;
    Ok(())
}

pub(super) fn parsed(stored: &[u8]) -> ApiResult<Record> {
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

#[cfg(test)]
mod tests {
    use quittance_connectors::RecordField;
    use quittance_domain::data_map::MapKind;

    use super::*;

    const MAP: &str = "
version: 1
collections:
  notes:
    key: [id]
    identifiers:
      - {kind: email, field: author}
    fields:
      author: email
      body: message
    erase: mask
";

    fn record(collection: &str, categories: &[&str]) -> Record {
        let field = |category: &&str| RecordField {
            name: "body".to_owned(),
            category: (*category).to_owned(),
            value: Some("text".to_owned()),
        };
        let fields = categories.iter().map(field).collect();
        Record { collection: collection.to_owned(), key: vec!["1".to_owned()], fields, third_party: true }
    }

    #[test]
    fn what_a_worker_calls_a_category_does_not_reach_the_log() {
        let map = DataMap::parse(MAP, MapKind::Sql).unwrap();
        let of = |categories: &[&str]| {
            let (collection, categories) = counted(Some(&map), record("notes", categories));
            assert_eq!(collection, "notes");
            categories.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of(&["message", "email", "message"]), ["email", "message"]);
        assert_eq!(of(&["message", "notes about Jan de Vries"]), ["*", "message"]);
        assert_eq!(of(&[]), ["*"]);
        for map in [None, Some(&map)] {
            let (collection, categories) = counted(map, record("Jan de Vries", &["message"]));
            assert_eq!((collection.as_str(), categories), ("*", BTreeSet::from(["*".to_owned()])));
        }
    }
}
