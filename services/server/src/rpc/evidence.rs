//! `EvidenceService`

use std::sync::Arc;

use quittance_api::v1::{self, evidence_service_server::EvidenceService};
use quittance_document::Language;
use quittance_domain::task::TaskState;
use tonic::{Request, Response, Status};

use super::{answer, request::visible};
use crate::{
    app::App,
    auth::caller,
    convert::{task_state_to, time_to},
    error::{ApiError, ApiResult},
    evidence, log_proofs,
};

pub struct Evidence(pub Arc<App>);

#[tonic::async_trait]
impl EvidenceService for Evidence {
    async fn list_confirmations(
        &self,
        request: Request<v1::ListConfirmationsRequest>,
    ) -> Result<Response<v1::ListConfirmationsResponse>, Status> {
        answer(list(&self.0, request).await)
    }

    async fn get_interim_statement(
        &self,
        request: Request<v1::GetInterimStatementRequest>,
    ) -> Result<Response<v1::GetInterimStatementResponse>, Status> {
        answer(interim(&self.0, request).await)
    }

    async fn get_certificate(
        &self,
        request: Request<v1::GetCertificateRequest>,
    ) -> Result<Response<v1::GetCertificateResponse>, Status> {
        answer(certificate(&self.0, request).await)
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::GetInclusionProofResponse>, Status> {
        answer(inclusion(&self.0, request).await)
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::GetConsistencyProofResponse>, Status> {
        answer(consistency(&self.0, request).await)
    }
}

async fn list(app: &App, request: Request<v1::ListConfirmationsRequest>) -> ApiResult<v1::ListConfirmationsResponse> {
    let (customer, id) = visible(&caller(&request)?, &request.get_ref().parent, "parent")?;
    let request = app.request(&customer, id).await?;
    Ok(v1::ListConfirmationsResponse {
        confirmations: request.tasks.into_iter().filter_map(|t| t.confirmation).collect(),
    })
}

async fn interim(
    app: &App,
    request: Request<v1::GetInterimStatementRequest>,
) -> ApiResult<v1::GetInterimStatementResponse> {
    let (customer, id) = visible(&caller(&request)?, &request.get_ref().name, "name")?;
    let language = language(&request.get_ref().document_language)?;
    let request = app.request(&customer, id).await?;
    let confirmed = task_state_to(TaskState::Confirmed);
    let open = request.tasks.iter().filter(|t| t.state != confirmed);
    let open_systems: Vec<_> =
        open.map(|t| v1::OpenSystem { system: t.system.clone(), state: t.state, reason: t.reason.clone() }).collect();
    let statement = evidence::interim(app, &customer, id).await?.unwrap_or_default();
    let document = match language {
        Some(language) if !statement.is_empty() => evidence::document(app, statement.clone(), language).await?,
        _ => Vec::new(),
    };
    let (deadline_statement, issued) =
        app.store.deadline_statement(&customer, id).await?.map(|d| (d.content, d.issued_at)).unzip();
    Ok(v1::GetInterimStatementResponse {
        request: Some(request),
        state_time: Some(time_to(app.now())),
        open_systems,
        statement,
        deadline_statement: deadline_statement.unwrap_or_default(),
        deadline_statement_time: issued.map(time_to),
        document,
    })
}

async fn certificate(app: &App, request: Request<v1::GetCertificateRequest>) -> ApiResult<v1::GetCertificateResponse> {
    let caller = caller(&request)?;
    let (customer, id) = visible(&caller, &request.get_ref().name, "name")?;
    let language = language(&request.get_ref().document_language)?;
    let certificate = evidence::certificate(app, &customer, id).await?;
    let document = match language {
        None => Vec::new(),
        Some(language) => evidence::document(app, certificate.clone(), language).await?,
    };
    // For the customer alone: it holds the identifiers.
    let subject_opening = match caller.as_customer(&customer) {
        Ok(()) => evidence::subject_opening(app, &customer, id).await?,
        Err(_) => Vec::new(),
    };
    Ok(v1::GetCertificateResponse { certificate, subject_opening, document })
}

/// `None`: no document is asked for.
fn language(code: &str) -> ApiResult<Option<Language>> {
    match code {
        "" => Ok(None),
        "en" => Ok(Some(Language::English)),
        "nl" => Ok(Some(Language::Dutch)),
        _ => Err(ApiError::field("document_language", "is `en` or `nl`")),
    }
}

async fn inclusion(
    app: &App,
    request: Request<v1::GetInclusionProofRequest>,
) -> ApiResult<v1::GetInclusionProofResponse> {
    caller(&request)?;
    let index = count(request.get_ref().log_index, "log_index")?;
    let log = log_proofs::published(app).await?;
    let size = log.size_or_newest(count(request.get_ref().tree_size, "tree_size")?)?;
    let hashes = log_proofs::inclusion(app, &log, index, size).await?;
    Ok(v1::GetInclusionProofResponse { tree_size: size as i64, hashes, checkpoint: log.note })
}

async fn consistency(
    app: &App,
    request: Request<v1::GetConsistencyProofRequest>,
) -> ApiResult<v1::GetConsistencyProofResponse> {
    caller(&request)?;
    let old = count(request.get_ref().old_tree_size, "old_tree_size")?;
    let log = log_proofs::published(app).await?;
    let size = log.size_or_newest(count(request.get_ref().tree_size, "tree_size")?)?;
    let hashes = log_proofs::consistency(app, &log, old, size).await?;
    Ok(v1::GetConsistencyProofResponse { tree_size: size as i64, hashes, checkpoint: log.note })
}

fn count(value: i64, field: &str) -> ApiResult<u64> {
    u64::try_from(value).map_err(|_| ApiError::field(field, "is a number of entries, from 0"))
}
