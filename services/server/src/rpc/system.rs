//! `SystemService`

use std::sync::Arc;

use quittance_api::v1::{self, system_service_server::SystemService};
use quittance_connectors::{ConnectorError, Finding, FindingSeverity};
use quittance_domain::{
    data_map::{DataMap, MapKind},
    ids::SystemId,
    system::{ConnectorKind, System, SystemScope},
};
use tonic::{Request, Response, Status};

use super::{answer, replay};
use crate::{
    app::{App, check_country},
    auth::caller,
    convert::{
        check_reach, id, idempotency, keys_from, map_violations, page_size, registration_from, required, system_to,
    },
    error::{ApiError, ApiResult, Violation},
    numbering::numbered_apart,
    page_token,
};

pub struct Systems(pub Arc<App>);

#[tonic::async_trait]
impl SystemService for Systems {
    async fn register_system(
        &self,
        request: Request<v1::RegisterSystemRequest>,
    ) -> Result<Response<v1::RegisterSystemResponse>, Status> {
        answer(register(&self.0, request).await)
    }

    async fn get_system(
        &self,
        request: Request<v1::GetSystemRequest>,
    ) -> Result<Response<v1::GetSystemResponse>, Status> {
        answer(get(&self.0, request).await)
    }

    async fn list_systems(
        &self,
        request: Request<v1::ListSystemsRequest>,
    ) -> Result<Response<v1::ListSystemsResponse>, Status> {
        answer(list(&self.0, request).await)
    }

    async fn test_system(
        &self,
        request: Request<v1::TestSystemRequest>,
    ) -> Result<Response<v1::TestSystemResponse>, Status> {
        answer(test(&self.0, request).await)
    }

    async fn update_data_map(
        &self,
        request: Request<v1::UpdateDataMapRequest>,
    ) -> Result<Response<v1::UpdateDataMapResponse>, Status> {
        answer(update_map(&self.0, request).await)
    }

    async fn add_system_customers(
        &self,
        request: Request<v1::AddSystemCustomersRequest>,
    ) -> Result<Response<v1::AddSystemCustomersResponse>, Status> {
        answer(add_customers(&self.0, request).await)
    }

    async fn replay_erasures(
        &self,
        request: Request<v1::ReplayErasuresRequest>,
    ) -> Result<Response<v1::ReplayErasuresResponse>, Status> {
        answer(replay::start(&self.0, request).await)
    }

    async fn get_replay(
        &self,
        request: Request<v1::GetReplayRequest>,
    ) -> Result<Response<v1::GetReplayResponse>, Status> {
        answer(replay::get(&self.0, request).await)
    }

    async fn list_replays(
        &self,
        request: Request<v1::ListReplaysRequest>,
    ) -> Result<Response<v1::ListReplaysResponse>, Status> {
        answer(replay::list(&self.0, request).await)
    }

    async fn approve_replay(
        &self,
        request: Request<v1::ApproveReplayRequest>,
    ) -> Result<Response<v1::ApproveReplayResponse>, Status> {
        answer(replay::approve(&self.0, request).await)
    }

    async fn cancel_replay(
        &self,
        request: Request<v1::CancelReplayRequest>,
    ) -> Result<Response<v1::CancelReplayResponse>, Status> {
        answer(replay::cancel(&self.0, request).await)
    }

    async fn list_replay_findings(
        &self,
        request: Request<v1::ListReplayFindingsRequest>,
    ) -> Result<Response<v1::ListReplayFindingsResponse>, Status> {
        answer(replay::findings(&self.0, request).await)
    }
}

/// Pages through customers, so that ten thousand of them are not held at once.
const CUSTOMERS_PAGE: u32 = 500;

async fn check_agreements(app: &App, system: &System) -> ApiResult<()> {
    let country = |c: &quittance_store::CustomerRow| {
        check_country(&c.id, &c.agreement, &system.id, system.country, "system.country")
    };
    match &system.scope {
        SystemScope::Customers(keys) => {
            for customer in keys.keys() {
                country(&app.store.customer(customer).await?)?;
            }
        }
        SystemScope::AllCustomers => {
            let mut after = String::new();
            loop {
                let page = app.store.list_customers(&after, CUSTOMERS_PAGE).await?;
                page.iter().try_for_each(country)?;
                match page.last() {
                    Some(last) if page.len() == CUSTOMERS_PAGE as usize => after = last.id.as_str().to_owned(),
                    _ => break,
                }
            }
        }
    }
    Ok(())
}

/// What the live system says to the map. A remote one is asked by nobody: its worker comes to us.
async fn check_live(app: &App, system: &System) -> Result<Vec<Finding>, ConnectorError> {
    if system.connector == ConnectorKind::Remote {
        return Ok(Vec::new());
    }
    let mut findings = app.connectors.probe(system).await?.check(&system.scope).await?;
    let topology = app.topology.get().await.map_err(|e| ConnectorError::Unavailable(e.to_string()))?;
    findings.extend(numbered_apart(&topology, system));
    Ok(findings)
}

/// A system that is not there can't be checked, and so neither it nor its map can be taken.
fn unchecked(error: ConnectorError, refused: impl FnOnce(String) -> ApiError) -> ApiError {
    match error {
        ConnectorError::Unavailable(why) | ConnectorError::OutOfTime(why) => {
            ApiError::Unavailable(format!("the system cannot be checked: {why}"))
        }
        ConnectorError::Refused(why) => refused(why),
    }
}

fn refuse_errors(findings: &[Finding], yaml: &str) -> ApiResult<()> {
    let errors = findings.iter().filter(|f| f.severity == FindingSeverity::Error);
    let line_of = DataMap::lines(yaml);
    let violation = |f: &Finding| match f.field.as_str() {
        "" => Violation { field: "data_map_yaml".to_owned(), message: f.message.clone() },
        field => Violation {
            field: format!("data_map_yaml.{field}"),
            message: format!("line {}: {}", line_of(field), f.message),
        },
    };
    let violations: Vec<_> = errors.map(violation).collect();
    if violations.is_empty() { Ok(()) } else { Err(ApiError::InvalidDataMap(violations)) }
}

fn findings_to(findings: &[Finding]) -> Vec<v1::Finding> {
    let one = |f: &Finding| v1::Finding {
        field: f.field.clone(),
        message: f.message.clone(),
        error: f.severity == FindingSeverity::Error,
    };
    findings.iter().map(one).collect()
}

async fn read(app: &App, system: &SystemId) -> ApiResult<v1::System> {
    let (system, yaml, created_at) = app.store.system(system).await?;
    Ok(system_to(&system, &yaml, created_at))
}

async fn register(app: &App, request: Request<v1::RegisterSystemRequest>) -> ApiResult<v1::RegisterSystemResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let key = idempotency(&r.request_id, "request_id")?;
    let about = required(r.system.as_ref(), "system")?;
    let system = registration_from(&r.system_id, about)?;
    check_agreements(app, &system).await?;
    let refused = |why| ApiError::field("system.connection_secret", why);
    let findings = check_live(app, &system).await.map_err(|error| unchecked(error, refused))?;
    refuse_errors(&findings, &about.data_map_yaml).map_err(|error| error.below("system"))?;
    app.store.register_system(&system, &about.data_map_yaml, key, app.now()).await?;
    app.topology.refresh().await?;
    app.dispatch.wake();
    Ok(v1::RegisterSystemResponse { system: Some(read(app, &system.id).await?), findings: findings_to(&findings) })
}

async fn get(app: &App, request: Request<v1::GetSystemRequest>) -> ApiResult<v1::GetSystemResponse> {
    caller(&request)?.operator()?;
    let system = id(SystemId::from_resource_name(&request.get_ref().name), "name")?;
    Ok(v1::GetSystemResponse { system: Some(read(app, &system).await?) })
}

async fn list(app: &App, request: Request<v1::ListSystemsRequest>) -> ApiResult<v1::ListSystemsResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let size = page_size(r.page_size)?;
    let after = page_token::read("systems", &r.page_token)?.unwrap_or_default();
    let systems = app.store.list_systems(after, size + 1).await?;
    let (systems, next_page_token) =
        page_token::page(systems, size, |(s, ..)| page_token::issue("systems", s.id.as_str()));
    Ok(v1::ListSystemsResponse {
        systems: systems.iter().map(|(s, yaml, at)| system_to(s, yaml, *at)).collect(),
        next_page_token,
    })
}

async fn test(app: &App, request: Request<v1::TestSystemRequest>) -> ApiResult<v1::TestSystemResponse> {
    caller(&request)?.operator()?;
    let system = id(SystemId::from_resource_name(&request.get_ref().name), "name")?;
    let (system, ..) = app.store.system(&system).await?;
    let connection = |message: String, error| v1::Finding { field: "connection".to_owned(), message, error };
    if system.connector == ConnectorKind::Remote {
        let message = "a worker of its own does its tasks, and nothing was asked of it: `unattended_since_time` of an open task \
                       tells that none runs";
        return Ok(v1::TestSystemResponse { findings: vec![connection(message.to_owned(), false)] });
    }
    let findings = match check_live(app, &system).await {
        Ok(findings) => findings_to(&findings),
        Err(error) => vec![connection(error.to_string(), true)],
    };
    Ok(v1::TestSystemResponse { findings })
}

async fn update_map(app: &App, request: Request<v1::UpdateDataMapRequest>) -> ApiResult<v1::UpdateDataMapResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let key = idempotency(&r.request_id, "request_id")?;
    let (mut system, ..) = app.store.system(&id(SystemId::from_resource_name(&r.name), "name")?).await?;
    let kind = if system.connector == ConnectorKind::Sql { MapKind::Sql } else { MapKind::Declared };
    system.map = Arc::new(DataMap::parse(&r.data_map_yaml, kind).map_err(map_violations)?);
    check_reach(&system, "data_map_yaml")?;
    let refused = |why| ApiError::WrongState(format!("the system cannot be checked: {why}"));
    let findings = check_live(app, &system).await.map_err(|error| unchecked(error, refused))?;
    refuse_errors(&findings, &r.data_map_yaml)?;
    app.store.update_data_map(&system.id, &r.data_map_yaml, &system.map, key, app.now()).await?;
    app.topology.refresh().await?;
    Ok(v1::UpdateDataMapResponse { system: Some(read(app, &system.id).await?), findings: findings_to(&findings) })
}

/// Added at once.
const CUSTOMERS_MAX: usize = 1_000;

async fn add_customers(
    app: &App,
    request: Request<v1::AddSystemCustomersRequest>,
) -> ApiResult<v1::AddSystemCustomersResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let (mut system, yaml, _) = app.store.system(&id(SystemId::from_resource_name(&r.name), "name")?).await?;
    if r.customers.is_empty() || r.customers.len() > CUSTOMERS_MAX {
        return Err(ApiError::field("customers", format!("1 to {CUSTOMERS_MAX}")));
    }
    let added = keys_from(&r.customers, "customers")?;
    system.registration.scope = system.scope.with(&added).map_err(|e| ApiError::WrongState(e.to_string()))?;
    check_agreements(app, &system).await?;
    check_reach(&system, "name")?;
    let refused = |why| ApiError::WrongState(format!("the system cannot be checked: {why}"));
    let findings = check_live(app, &system).await.map_err(|error| unchecked(error, refused))?;
    refuse_errors(&findings, &yaml)?;
    app.store.add_customers(&system.id, &added).await?;
    app.topology.refresh().await?;
    app.dispatch.wake();
    Ok(v1::AddSystemCustomersResponse { system: Some(read(app, &system.id).await?), findings: findings_to(&findings) })
}
