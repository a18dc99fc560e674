//! `RequestService`

use std::sync::Arc;

use quittance_api::v1::{self, request_service_server::RequestService};
use quittance_connectors::carry;
use quittance_domain::{
    data_map::DataMap,
    ids::{CustomerId, IdError, RequestId, TaskKey, parse_request_name},
    outcome::{EvidenceKind, OutcomeKind},
    task::TaskState,
};
use quittance_store::{Instructed, RequestFilter, TimelinessFilter, despite_conflicts};
use tonic::{Request, Response, Status, Streaming};

use super::{
    answer, batch,
    intake::{Desk, Rules, Sent, read_item, taken_in_before},
    preview,
    statement::{self, Stated},
    watch,
};
use crate::{
    app::App,
    auth::{Caller, caller, standing},
    convert::{
        action_from, evidence_from, id, new_request, opt_time_from, outcomes_from, page_size, parent,
        request_state_from, request_to, required, required_text, task_state_to, task_to, text_within, time_from,
        timeliness_from, wait_to,
    },
    error::{ApiError, ApiResult},
    page_token,
    status::to_status,
};

const REASON_BYTES_MAX: usize = 512;
const WORDS_BYTES_MAX: usize = 16 << 10;

pub struct Requests(pub Arc<App>);

#[tonic::async_trait]
impl RequestService for Requests {
    type BatchCreateRequestsStream = batch::BatchStream;
    type WatchRequestsStream = watch::WatchStream;

    async fn create_request(
        &self,
        request: Request<v1::CreateRequestRequest>,
    ) -> Result<Response<v1::CreateRequestResponse>, Status> {
        answer(create(&self.0, request).await)
    }

    async fn batch_create_requests(
        &self,
        request: Request<Streaming<v1::BatchCreateRequestsRequest>>,
    ) -> Result<Response<Self::BatchCreateRequestsStream>, Status> {
        let caller = caller(&request).map_err(to_status)?;
        let standing = standing(&request).map_err(to_status)?;
        Ok(Response::new(batch::run(self.0.clone(), (caller, standing), request.into_inner())))
    }

    async fn preview_request(
        &self,
        request: Request<v1::PreviewRequestRequest>,
    ) -> Result<Response<v1::PreviewRequestResponse>, Status> {
        answer(preview_one(&self.0, request).await)
    }

    async fn get_request(
        &self,
        request: Request<v1::GetRequestRequest>,
    ) -> Result<Response<v1::GetRequestResponse>, Status> {
        answer(get(&self.0, request).await)
    }

    async fn list_requests(
        &self,
        request: Request<v1::ListRequestsRequest>,
    ) -> Result<Response<v1::ListRequestsResponse>, Status> {
        answer(list(&self.0, request).await)
    }

    async fn watch_requests(
        &self,
        request: Request<v1::WatchRequestsRequest>,
    ) -> Result<Response<Self::WatchRequestsStream>, Status> {
        answer(watch_all(&self.0, request).await)
    }

    async fn refer_request(
        &self,
        request: Request<v1::ReferRequestRequest>,
    ) -> Result<Response<v1::ReferRequestResponse>, Status> {
        answer(refer(&self.0, request).await)
    }

    async fn authorise_request(
        &self,
        request: Request<v1::AuthoriseRequestRequest>,
    ) -> Result<Response<v1::AuthoriseRequestResponse>, Status> {
        answer(authorise(&self.0, request).await)
    }

    async fn decline_request(
        &self,
        request: Request<v1::DeclineRequestRequest>,
    ) -> Result<Response<v1::DeclineRequestResponse>, Status> {
        answer(decline(&self.0, request).await)
    }

    async fn object_to_request(
        &self,
        request: Request<v1::ObjectToRequestRequest>,
    ) -> Result<Response<v1::ObjectToRequestResponse>, Status> {
        answer(object(&self.0, request).await)
    }

    async fn cancel_request(
        &self,
        request: Request<v1::CancelRequestRequest>,
    ) -> Result<Response<v1::CancelRequestResponse>, Status> {
        answer(cancel(&self.0, request).await)
    }

    async fn extend_request(
        &self,
        request: Request<v1::ExtendRequestRequest>,
    ) -> Result<Response<v1::ExtendRequestResponse>, Status> {
        answer(extend(&self.0, request).await)
    }

    async fn retry_task(
        &self,
        request: Request<v1::RetryTaskRequest>,
    ) -> Result<Response<v1::RetryTaskResponse>, Status> {
        answer(retry_task(&self.0, request).await)
    }

    async fn resolve_task(
        &self,
        request: Request<v1::ResolveTaskRequest>,
    ) -> Result<Response<v1::ResolveTaskResponse>, Status> {
        answer(resolve_task(&self.0, request).await)
    }
}

/// The request that is meant, if the caller may see it.
pub fn visible(caller: &Caller, name: &str, field: &str) -> ApiResult<(CustomerId, RequestId)> {
    let (customer, request) = id(parse_request_name(name), field)?;
    Ok((caller.customer(Some(customer), field)?, request))
}

/// As [`visible`], for what only the customer itself may say.
fn own(caller: &Caller, name: &str) -> ApiResult<(CustomerId, RequestId)> {
    let (customer, request) = id(parse_request_name(name), "name")?;
    caller.as_customer(&customer)?;
    Ok((customer, request))
}

async fn take_one(
    app: &App,
    caller: &Caller,
    customer: CustomerId,
    request_id: &str,
    request: Option<&v1::Request>,
    referred: Option<String>,
) -> ApiResult<v1::Request> {
    let desk = Desk { customer, by: caller.principal() };
    let read = |rules: &Rules| read_item(app, &desk, rules, request_id, request, referred.clone());
    match desk.take_one(app, read).await {
        Err(refused) if refused.is_of_the_instruction() => {
            let sent = Sent { request_id, request, referred: referred.as_deref() };
            match taken_in_before(app, &desk, &[sent]).await?.pop().flatten() {
                Some(taken) => app.request(&desk.customer, taken?.id()).await,
                None => Err(refused),
            }
        }
        taken => taken,
    }
}

async fn create(app: &App, request: Request<v1::CreateRequestRequest>) -> ApiResult<v1::CreateRequestResponse> {
    let caller = caller(&request)?;
    let r = request.into_inner();
    let customer = caller.customer(parent(&r.parent, "parent")?, "parent")?;
    let request = take_one(app, &caller, customer, &r.request_id, r.request.as_ref(), None).await?;
    Ok(v1::CreateRequestResponse { request: Some(request) })
}

async fn preview_one(app: &App, request: Request<v1::PreviewRequestRequest>) -> ApiResult<v1::PreviewRequestResponse> {
    let caller = caller(&request)?;
    let r = request.into_inner();
    let customer = caller.customer(parent(&r.parent, "parent")?, "parent")?;
    let sent = required(r.request.as_ref(), "request")?;
    let new = new_request(sent, app.now(), "request")?;
    preview::run(app, &customer, new, &sent.notify_recipients).await
}

async fn get(app: &App, request: Request<v1::GetRequestRequest>) -> ApiResult<v1::GetRequestResponse> {
    let (customer, id) = visible(&caller(&request)?, &request.get_ref().name, "name")?;
    let mut request = app.request(&customer, id).await?;
    let waiting = task_state_to(TaskState::Waiting);
    if request.tasks.iter().any(|task| task.state == waiting) {
        for wait in app.store.task_waits(&customer, id).await? {
            let system = wait.system.resource_name();
            // As it was a moment ago: what has been freed since waits for nothing.
            if let Some(task) = request.tasks.iter_mut().find(|task| task.system == system && task.state == waiting) {
                task.waits.push(wait_to(&customer, &wait));
            }
        }
    }
    Ok(v1::GetRequestResponse { request: Some(request) })
}

/// An operator's misspelt customer has no requests, and is no reason to be at ease.
async fn not_misspelt(app: &App, caller: &Caller, customer: &CustomerId) -> ApiResult<()> {
    if caller.operator().is_ok() {
        app.store.customer(customer).await?;
    }
    Ok(())
}

async fn list(app: &App, request: Request<v1::ListRequestsRequest>) -> ApiResult<v1::ListRequestsResponse> {
    let caller = caller(&request)?;
    let r = request.into_inner();
    let customer = caller.customer(parent(&r.parent, "parent")?, "parent")?;
    let size = page_size(r.page_size)?;
    not_misspelt(app, &caller, &customer).await?;
    let f = r.filter.unwrap_or_default();
    let states = f.states.iter().enumerate();
    let actions = f.actions.iter().enumerate();
    let filter = RequestFilter {
        states: states
            .map(|(i, s)| request_state_from(*s, &format!("filter.states[{i}]")))
            .collect::<Result<_, _>>()?,
        actions: actions.map(|(i, a)| action_from(*a, &format!("filter.actions[{i}]"))).collect::<Result<_, _>>()?,
        due_before: opt_time_from(f.due_before.as_ref(), "filter.due_before")?,
        needs_attention: f.needs_attention,
        reference: text_within(&f.reference, 128, "filter.reference")?,
        timeliness: None,
    };
    let timeliness = f.timeliness.iter().enumerate();
    let timeliness: Vec<_> =
        timeliness.map(|(i, t)| timeliness_from(*t, &format!("filter.timeliness[{i}]"))).collect::<Result<_, _>>()?;
    // The clock goes on between pages, and is no part of the query.
    let query = format!("requests/{customer}/{filter:?}/{timeliness:?}");
    let filter = RequestFilter {
        timeliness: Some(TimelinessFilter {
            any_of: timeliness,
            now: app.now(),
            at_risk: app.at_risk().unsigned_abs(),
        }),
        ..filter
    };
    let before = page_token::read(&query, &r.page_token)?;
    let before = before.map(|b| RequestId::parse(b).map_err(|_: IdError| ApiError::InvalidPageToken)).transpose()?;
    let rows = app.store.list_requests(&customer, &filter, before, size + 1).await?;
    let (rows, next_page_token) = page_token::page(rows, size, |r| page_token::issue(&query, &r.id.to_string()));
    let (now, at_risk) = (app.now(), app.at_risk());
    Ok(v1::ListRequestsResponse {
        requests: rows.iter().map(|r| request_to(&customer, r, &[], now, at_risk)).collect(),
        next_page_token,
    })
}

async fn watch_all(app: &Arc<App>, request: Request<v1::WatchRequestsRequest>) -> ApiResult<watch::WatchStream> {
    let (caller, standing) = (caller(&request)?, standing(&request)?);
    let r = request.into_inner();
    let customer = caller.customer(parent(&r.parent, "parent")?, "parent")?;
    not_misspelt(app, &caller, &customer).await?;
    watch::run(app.clone(), standing, customer, watch::read_token(&r.resume_token)?)
}

async fn refer(app: &App, request: Request<v1::ReferRequestRequest>) -> ApiResult<v1::ReferRequestResponse> {
    let caller = caller(&request)?;
    caller.operator()?;
    let r = request.into_inner();
    let customer = caller.customer(parent(&r.parent, "parent")?, "parent")?;
    if r.words.len() > WORDS_BYTES_MAX {
        return Err(ApiError::field("words", format!("is longer than {WORDS_BYTES_MAX} bytes")));
    }
    let request = take_one(app, &caller, customer, &r.request_id, r.request.as_ref(), Some(r.words)).await?;
    Ok(v1::ReferRequestResponse { request: Some(request) })
}

async fn authorise(
    app: &App,
    request: Request<v1::AuthoriseRequestRequest>,
) -> ApiResult<v1::AuthoriseRequestResponse> {
    let caller = caller(&request)?;
    let (customer, id) = own(&caller, &request.get_ref().name)?;
    let agreement = app.agreement(&customer).await?;
    let topology = app.topology.refresh().await?;
    crate::app::check_countries(&customer, &agreement, &topology)?;
    let by = caller.principal();
    despite_conflicts(|| app.store.authorise_request(&customer, id, &agreement, &topology, &by, app.now())).await?;
    app.dispatch.wake();
    Ok(v1::AuthoriseRequestResponse { request: Some(app.request(&customer, id).await?) })
}

async fn decline(app: &App, request: Request<v1::DeclineRequestRequest>) -> ApiResult<v1::DeclineRequestResponse> {
    let caller = caller(&request)?;
    let r = request.get_ref();
    let (customer, id) = own(&caller, &r.name)?;
    let reason = required_text(&r.reason, REASON_BYTES_MAX, "reason")?;
    let by = caller.principal();
    despite_conflicts(|| app.store.decline_request(&customer, id, &by, &reason, app.now())).await?;
    Ok(v1::DeclineRequestResponse { request: Some(app.request(&customer, id).await?) })
}

async fn object(app: &App, request: Request<v1::ObjectToRequestRequest>) -> ApiResult<v1::ObjectToRequestResponse> {
    let caller = caller(&request)?;
    caller.operator()?;
    let r = request.get_ref();
    let (customer, id) = visible(&caller, &r.name, "name")?;
    let reason = required_text(&r.reason, REASON_BYTES_MAX, "reason")?;
    let by = caller.principal();
    despite_conflicts(|| app.store.object_to_request(&customer, id, &by, &reason, app.now())).await?;
    Ok(v1::ObjectToRequestResponse { request: Some(app.request(&customer, id).await?) })
}

async fn cancel(app: &App, request: Request<v1::CancelRequestRequest>) -> ApiResult<v1::CancelRequestResponse> {
    let caller = caller(&request)?;
    let r = request.get_ref();
    let (customer, id) = own(&caller, &r.name)?;
    let reason = text_within(&r.reason, REASON_BYTES_MAX, "reason")?;
    let by = caller.principal();
    despite_conflicts(|| app.store.cancel_request(&customer, id, &by, &reason, app.now())).await?;
    Ok(v1::CancelRequestResponse { request: Some(app.request(&customer, id).await?) })
}

async fn extend(app: &App, request: Request<v1::ExtendRequestRequest>) -> ApiResult<v1::ExtendRequestResponse> {
    let caller = caller(&request)?;
    let r = request.get_ref();
    let (customer, id) = own(&caller, &r.name)?;
    let due = time_from(required(r.due_time.as_ref(), "due_time")?, "due_time")?;
    let reason = required_text(&r.reason, REASON_BYTES_MAX, "reason")?;
    let by = caller.principal();
    despite_conflicts(|| app.store.extend_request(&customer, id, due, &by, &reason, app.now())).await?;
    Ok(v1::ExtendRequestResponse { request: Some(app.request(&customer, id).await?) })
}

/// The task that is meant; operators only.
fn operated(caller: &Caller, name: &str) -> ApiResult<TaskKey> {
    caller.operator()?;
    id(TaskKey::from_resource_name(name), "name")
}

async fn one_task(app: &App, key: &TaskKey) -> ApiResult<v1::Task> {
    let (request, tasks) = app.store.request(&key.customer, key.request).await?;
    let task = tasks.iter().find(|t| t.system == key.system).ok_or(ApiError::NotFound("the task"))?;
    Ok(task_to(&key.customer, &request, task, app.now()))
}

async fn retry_task(app: &App, request: Request<v1::RetryTaskRequest>) -> ApiResult<v1::RetryTaskResponse> {
    let caller = caller(&request)?;
    let key = operated(&caller, &request.get_ref().name)?;
    let carried = |stored: &[u8], from: &DataMap, to: &DataMap| carry(stored, from, to).map_err(|e| e.to_string());
    let by = caller.principal();
    despite_conflicts(|| app.store.retry_task(&key, &by, app.now(), &carried)).await?;
    app.dispatch.wake();
    Ok(v1::RetryTaskResponse { task: Some(one_task(app, &key).await?) })
}

async fn resolve_task(app: &App, request: Request<v1::ResolveTaskRequest>) -> ApiResult<v1::ResolveTaskResponse> {
    let caller = caller(&request)?;
    let r = request.get_ref();
    let key = operated(&caller, &r.name)?;
    let now = app.now();
    let (about, _) = app.store.request(&key.customer, key.request).await?;
    let evidence = evidence_from(r.evidence.as_ref(), now, "evidence")?;
    if matches!(evidence.kind, EvidenceKind::ReadBack | EvidenceKind::SystemReport) {
        // Only we read back, and only a worker hands on what its system said (I5).
        return Err(ApiError::field(
            "evidence.kind",
            "is not an operator's to give: a statement or a document's digest is",
        ));
    }
    let outcomes = outcomes_from(&r.outcomes, "outcomes")?;
    let topology = app.topology.get().await?;
    let system = topology.system(&key.system).ok_or(ApiError::NotFound("the task"))?;
    for (i, outcome) in outcomes.iter().enumerate() {
        if outcome.outcome == OutcomeKind::Exported {
            // What is in the package came from a worker, under the lease of its own report (I5).
            let message = "the package has no records of a task that is ended by hand: have a worker upload them, and retry the \
                 task; or give it up as UNCONFIRMED, with how the customer gets them as its basis";
            return Err(ApiError::field(format!("outcomes[{i}].outcome"), message));
        }
        let of_all = matches!(outcome.outcome, OutcomeKind::NotHeld | OutcomeKind::Notified | OutcomeKind::Unconfirmed);
        let everything = of_all && outcome.collection == "*";
        if !everything && !system.map.has_category(&outcome.collection, &outcome.category) {
            let message = "collection and category must stand in the system's data map";
            return Err(ApiError::field(format!("outcomes[{i}]"), message));
        }
    }
    let by = caller.principal();
    let stated = Stated { outcomes, evidence, by: by.clone() };
    let instructed = Instructed { action: about.action, at: about.created_at };
    let confirmation = statement::confirmation(system, instructed, stated, now, "")?;
    despite_conflicts(|| app.store.resolve_task(&key, confirmation.clone(), &by, now)).await?;
    app.dispatch.wake();
    Ok(v1::ResolveTaskResponse { task: Some(one_task(app, &key).await?) })
}
