//! Intake alone: requests for a customer whose only system is a remote one that nobody works.

use std::time::Instant;

use quittance_api::v1;
use quittance_tests::{
    Deployment,
    scenario::{create_customer, register, system},
};

use crate::{Failure, measure::per_s, service::stream_in};

const MAP: &str = "
version: 1
collections:
  people:
    identifiers: [{kind: email}]
    fields: {name: display_name}
";

/// Requests a second, from the first item sent until the last is acknowledged.
pub async fn intake(deployment: &Deployment, customer: &str, count: u64) -> Result<f64, Failure> {
    let operator = deployment.operator().await;
    create_customer(&operator, customer).await;
    register(&operator, customer, system(customer, v1::ConnectorKind::Remote, "", MAP)).await?;
    let client = deployment.client(&deployment.customer_token(customer)).await;
    let begun = Instant::now();
    let created = stream_in(&client, (0..count).map(|n| format!("p{n}@example.com"))).await?;
    if created != count {
        return Err(format!("{created} of {count} were taken in").into());
    }
    Ok(per_s(created, begun.elapsed()))
}
