//! `CustomerService`

use std::sync::Arc;

use quittance_api::v1::{self, customer_service_server::CustomerService};
use quittance_domain::ids::CustomerId;
use quittance_store::NewCustomer;
use tonic::{Request, Response, Status};

use super::answer;
use crate::{
    app::{App, check_countries},
    auth::{Caller, caller},
    convert::{agreement_from, agreement_to, customer_to, id, idempotency, page_size, required, required_text},
    error::{ApiError, ApiResult},
    page_token,
};

pub struct Customers(pub Arc<App>);

#[tonic::async_trait]
impl CustomerService for Customers {
    async fn create_customer(
        &self,
        request: Request<v1::CreateCustomerRequest>,
    ) -> Result<Response<v1::CreateCustomerResponse>, Status> {
        answer(create(&self.0, request).await)
    }

    async fn get_customer(
        &self,
        request: Request<v1::GetCustomerRequest>,
    ) -> Result<Response<v1::GetCustomerResponse>, Status> {
        answer(get(&self.0, request).await)
    }

    async fn list_customers(
        &self,
        request: Request<v1::ListCustomersRequest>,
    ) -> Result<Response<v1::ListCustomersResponse>, Status> {
        answer(list(&self.0, request).await)
    }

    async fn create_agreement(
        &self,
        request: Request<v1::CreateAgreementRequest>,
    ) -> Result<Response<v1::CreateAgreementResponse>, Status> {
        answer(create_agreement(&self.0, request).await)
    }

    async fn list_agreements(
        &self,
        request: Request<v1::ListAgreementsRequest>,
    ) -> Result<Response<v1::ListAgreementsResponse>, Status> {
        answer(list_agreements(&self.0, request).await)
    }
}

async fn create(app: &App, request: Request<v1::CreateCustomerRequest>) -> ApiResult<v1::CreateCustomerResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let customer = required(r.customer.as_ref(), "customer")?;
    let new = NewCustomer {
        id: id(CustomerId::new(&r.customer_id), "customer_id")?,
        idempotency: idempotency(&r.request_id, "request_id")?,
        display_name: required_text(&customer.display_name, 256, "customer.display_name")?,
        agreement: agreement_from(required(r.agreement.as_ref(), "agreement")?, "agreement")?,
    };
    check_countries(&new.id, &new.agreement, &*app.topology.refresh().await?)?;
    let created = app.store.create_customer(new, app.now()).await?;
    app.agreements.keep(&created.id, created.agreement.clone());
    Ok(v1::CreateCustomerResponse { customer: Some(customer_to(&created)) })
}

/// The named customer, if the caller may see it.
fn visible(caller: &Caller, name: &str, field: &str) -> ApiResult<CustomerId> {
    let named = id(CustomerId::from_resource_name(name), field)?;
    caller.customer(Some(named), field)
}

async fn get(app: &App, request: Request<v1::GetCustomerRequest>) -> ApiResult<v1::GetCustomerResponse> {
    let customer = visible(&caller(&request)?, &request.get_ref().name, "name")?;
    let customer = app.store.customer(&customer).await?;
    Ok(v1::GetCustomerResponse { customer: Some(customer_to(&customer)) })
}

async fn list(app: &App, request: Request<v1::ListCustomersRequest>) -> ApiResult<v1::ListCustomersResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let size = page_size(r.page_size)?;
    let after = page_token::read("customers", &r.page_token)?.unwrap_or_default();
    let customers = app.store.list_customers(after, size + 1).await?;
    let (customers, next_page_token) =
        page_token::page(customers, size, |c| page_token::issue("customers", c.id.as_str()));
    Ok(v1::ListCustomersResponse { customers: customers.iter().map(customer_to).collect(), next_page_token })
}

async fn create_agreement(
    app: &App,
    request: Request<v1::CreateAgreementRequest>,
) -> ApiResult<v1::CreateAgreementResponse> {
    caller(&request)?.operator()?;
    let r = request.into_inner();
    let customer = id(CustomerId::from_resource_name(&r.parent), "parent")?;
    let key = idempotency(&r.request_id, "request_id")?;
    let agreement = agreement_from(required(r.agreement.as_ref(), "agreement")?, "agreement")?;
    // It is the one in force from now on. (CreateCustomer's may be of a day to come: there is none before it that it would end.)
    if !agreement.is_in_force(app.now()) {
        return Err(ApiError::field("agreement.signed_time", "lies in the future: record it when it is signed"));
    }
    check_countries(&customer, &agreement, &*app.topology.refresh().await?)?;
    let agreement = app.store.create_agreement(&customer, key, agreement, app.now()).await?;
    Ok(v1::CreateAgreementResponse { agreement: Some(agreement_to(&agreement)) })
}

async fn list_agreements(
    app: &App,
    request: Request<v1::ListAgreementsRequest>,
) -> ApiResult<v1::ListAgreementsResponse> {
    let customer = visible(&caller(&request)?, &request.get_ref().parent, "parent")?;
    let agreements = app.store.list_agreements(&customer).await?;
    Ok(v1::ListAgreementsResponse { agreements: agreements.iter().map(agreement_to).collect() })
}
