//! What the handlers share.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use quittance_dispatch::{Clock, ConnectorRegistry, DispatchHandle, TopologyCache, remote::RemoteDesk};
use quittance_domain::{
    agreement::Agreement,
    ids::{CustomerId, RequestId, SystemId},
};
use quittance_store::{RequestRow, Store, TaskRow, Topology};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    agreements::AgreementCache,
    config::ServerLimits,
    error::{ApiError, ApiResult, Violation},
    evidence::EvidenceDesk,
    preview_places::PreviewPlaces,
    seats::Seats,
};

pub struct App {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub topology: Arc<TopologyCache>,
    pub agreements: AgreementCache,
    pub connectors: Arc<ConnectorRegistry>,
    pub dispatch: DispatchHandle,
    pub remote: RemoteDesk,
    pub limits: ServerLimits,
    pub evidence: EvidenceDesk,
    /// Whether the log is halted: nothing is changed then, and nothing signed.
    pub halted: watch::Receiver<bool>,
    /// Cancelled when the process drains: streams end then.
    pub drain: CancellationToken,
    pub watches: Arc<Seats>,
    pub bulk_streams: Arc<Seats>,
    pub preview_places: PreviewPlaces,
}

impl App {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What changes something, or signs, asks this first.
    pub fn not_halted(&self) -> ApiResult<()> {
        if *self.halted.borrow() { Err(ApiError::LedgerHalted) } else { Ok(()) }
    }

    pub fn at_risk(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.limits.at_risk_days))
    }

    /// The agreement in force. No request and no plan before it is.
    pub async fn agreement(&self, customer: &CustomerId) -> ApiResult<Arc<Agreement>> {
        self.in_force(self.agreements.refresh(&self.store, customer).await?)
    }

    /// As [`App::agreement`], or as it was a moment ago: for whoever has the store look whether it still is.
    pub async fn known_agreement(&self, customer: &CustomerId) -> ApiResult<Arc<Agreement>> {
        match self.in_force(self.agreements.get(&self.store, customer).await?) {
            Err(_) => self.agreement(customer).await,
            known => known,
        }
    }

    fn in_force(&self, agreement: Arc<Agreement>) -> ApiResult<Arc<Agreement>> {
        if !agreement.is_in_force(self.now()) {
            return Err(ApiError::NoAgreement("the agreement is not in force yet".to_owned()));
        }
        Ok(agreement)
    }

    /// One request as the API gives it.
    pub async fn request(&self, customer: &CustomerId, id: RequestId) -> ApiResult<quittance_api::v1::Request> {
        let (request, tasks) = self.store.request(customer, id).await?;
        self.shown(customer, &request, &tasks, None).await
    }

    /// A request that was read. `agreement`: one that is at hand, and need not be read if it is the request's.
    pub async fn shown(
        &self,
        customer: &CustomerId,
        request: &RequestRow,
        tasks: &[TaskRow],
        agreement: Option<&Agreement>,
    ) -> ApiResult<quittance_api::v1::Request> {
        let mut shown = crate::convert::request_to(customer, request, tasks, self.now(), self.at_risk());
        if request.action.concerns_recipients() {
            let recipients = match agreement.filter(|a| i64::from(a.version) == request.agreement_version) {
                Some(agreement) => &agreement.recipients,
                None => &self.store.agreement(customer, request.agreement_version).await?.recipients,
            };
            shown.recipients = crate::convert::recipients_to(customer, request, recipients);
        }
        Ok(shown)
    }
}

/// No task goes to a system outside the agreement's countries: checked at registration, at every new agreement, and at planning.
pub fn check_countries(customer: &CustomerId, agreement: &Agreement, topology: &Topology) -> ApiResult<()> {
    let mine = topology.systems.iter().filter(|s| s.customer_key(customer).is_some());
    for system in mine {
        check_country(customer, agreement, &system.id, system.country, "agreement.allowed_countries")?;
    }
    Ok(())
}

pub fn check_country(
    customer: &CustomerId,
    agreement: &Agreement,
    system: &SystemId,
    country: quittance_domain::country::Country,
    field: &str,
) -> ApiResult<()> {
    if agreement.allowed_countries.contains(&country) {
        return Ok(());
    }
    Err(ApiError::CountryNotAllowed(Violation {
        field: field.to_owned(),
        message: format!("{system:?} is in {country}, which the agreement with {customer:?} does not allow"),
    }))
}
