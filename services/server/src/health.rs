//! What the process can do at the moment: told to whoever probes it, and to whoever calls.
//!
//! `""` is SERVING in every process until it drains: liveness. Each service of the API is, where the process has that role: whether reads may
//! come here. [`WRITES`] is SERVING only while something can be changed as well. A halted log turns it off in every replica at once: another
//! replica would not help, and taking all of them out of rotation would end the reads, too. [`WORKER`] and [`LEDGER`] tell who has which role.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use quittance_api::v1::{
    connector_service_server::SERVICE_NAME as CONNECTORS, customer_service_server::SERVICE_NAME as CUSTOMERS,
    evidence_service_server::SERVICE_NAME as EVIDENCE, key_service_server::SERVICE_NAME as KEYS,
    package_service_server::SERVICE_NAME as PACKAGES, request_service_server::SERVICE_NAME as REQUESTS,
    system_service_server::SERVICE_NAME as SYSTEMS,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{Request, Response},
    },
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::layer::{LayerFn, layer_fn};

use crate::{config::RunRole, error::ApiError, status::to_status};

/// Not a service: what to ask the health service for about changes.
pub const WRITES: &str = "quittance.v1.Writes";
/// Not services either: that this process carries requests out, and that it may write the log.
pub const WORKER: &str = "quittance.v1.Worker";
pub const LEDGER: &str = "quittance.v1.Ledger";
const API: [&str; 7] = [CUSTOMERS, SYSTEMS, REQUESTS, PACKAGES, CONNECTORS, EVIDENCE, KEYS];

/// What a process with these roles answers for. Any other name is unknown to it.
fn names(roles: &[RunRole]) -> Vec<&'static str> {
    let of = |role: &RunRole| match role {
        RunRole::Api => API.to_vec(),
        RunRole::Worker => vec![WORKER],
        RunRole::Ledger => vec![LEDGER],
    };
    std::iter::once("").chain(roles.iter().flat_map(of)).collect()
}

/// Keeps the health service's answers true until the process drains.
pub async fn report(
    health: HealthReporter,
    roles: Vec<RunRole>,
    mut halted: watch::Receiver<bool>,
    drain: CancellationToken,
) {
    let mut names = names(&roles);
    for name in &names {
        health.set_service_status(*name, ServingStatus::Serving).await;
    }
    if roles.contains(&RunRole::Api) {
        names.push(WRITES);
    }
    loop {
        let writes = if *halted.borrow_and_update() { ServingStatus::NotServing } else { ServingStatus::Serving };
        if roles.contains(&RunRole::Api) {
            health.set_service_status(WRITES, writes).await;
        }
        tokio::select! {
            () = drain.cancelled() => break,
            changed = halted.changed() => if changed.is_err() { drain.cancelled().await },
        }
    }
    for name in names {
        health.set_service_status(name, ServingStatus::NotServing).await;
    }
}

/// Refuses what changes something while the log is halted.
pub fn while_halted<S>(halted: watch::Receiver<bool>) -> LayerFn<impl Fn(S) -> WhileHalted<S> + Clone> {
    layer_fn(move |inner| WhileHalted { inner, halted: halted.clone() })
}

#[derive(Clone)]
pub struct WhileHalted<S> {
    inner: S,
    halted: watch::Receiver<bool>,
}

impl<S> Service<Request<Body>> for WhileHalted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if *self.halted.borrow() && begins_something(request.uri().path()) {
            return Either::Right(ready(Ok(to_status(ApiError::LedgerHalted).into_http())));
        }
        Either::Left(self.inner.call(request))
    }
}

/// Methods are named after Google's AIPs: what only reads says so, and what is not known here is taken to change something. Workers go on:
/// what they have begun is recorded, and new work is not leased to them ([`quittance_store::Store::ready_work`]).
fn begins_something(path: &str) -> bool {
    const READS: [&str; 6] = ["Get", "List", "Watch", "Preview", "Download", "Test"];
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else { return false };
    service.starts_with("quittance.") && service != CONNECTORS && !READS.iter().any(|read| method.starts_with(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_answers_for_what_its_roles_do_and_for_nothing_else() {
        assert_eq!(names(&[RunRole::Worker]), ["", WORKER]);
        assert_eq!(names(&[RunRole::Ledger]), ["", LEDGER]);
        let api = names(&[RunRole::Api]);
        assert!(api.contains(&REQUESTS) && api.len() == 1 + API.len(), "{api:?}");
    }

    #[test]
    fn while_the_log_is_halted_reading_and_reporting_go_on_and_nothing_new_begins() {
        let path = |service: &str, method: &str| format!("/{service}/{method}");
        for (service, method) in [
            (REQUESTS, "CreateRequest"),
            (REQUESTS, "BatchCreateRequests"),
            (REQUESTS, "ResolveTask"),
            (CUSTOMERS, "CreateAgreement"),
            (SYSTEMS, "RegisterSystem"),
            (PACKAGES, "ReviewPackage"),
            (KEYS, "RotateKeys"),
            (REQUESTS, "SomethingNew"),
        ] {
            assert!(begins_something(&path(service, method)), "{method}");
        }
        for (service, method) in [
            (REQUESTS, "GetRequest"),
            (REQUESTS, "WatchRequests"),
            (REQUESTS, "PreviewRequest"),
            (EVIDENCE, "ListConfirmations"),
            (PACKAGES, "DownloadPackage"),
            (CONNECTORS, "ReportOutcomes"),
            ("grpc.health.v1.Health", "Check"),
        ] {
            assert!(!begins_something(&path(service, method)), "{method}");
        }
    }
}
