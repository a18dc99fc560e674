//! W1 as many small customers have it: one request each, every one a batch of its own, in one database that they share.

use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _};
use quittance_api::v1;
use quittance_client::Client;
use quittance_tests::{
    Deployment, StoreKind,
    scenario::{by_email, create_customer, new_id, register, system},
};

use crate::{
    Failure, Sizes,
    measure::{Probe, per_s},
    w1::{Erasure, W1, email, map},
};

const IN_FLIGHT: usize = 32;

/// `(tenant, subject)` each.
async fn create_all(operator: &Client, requests: impl Iterator<Item = (u64, u64)>) -> Result<(), Failure> {
    futures::stream::iter(requests)
        .map(|(tenant, subject)| async move {
            let request = v1::CreateRequestRequest {
                request_id: new_id(),
                parent: format!("customers/w{tenant}"),
                request: Some(by_email(v1::Action::Erasure, email(subject))),
            };
            operator.requests().create_request(request).await.map(drop)
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(())
}

pub async fn wide(w1: &W1, sizes: &Sizes) -> Result<f64, Failure> {
    let tenants = sizes.wide;
    w1.seed_tenants(tenants).await?;
    let deployment = Deployment::start(StoreKind::Postgres).await;
    deployment.secret("w1", &w1.url);
    let operator = deployment.operator().await;
    let customers: Vec<String> = (1..=tenants).map(|n| format!("w{n}")).collect();
    futures::stream::iter(&customers)
        .for_each_concurrent(IN_FLIGHT, |customer| create_customer(&operator, customer))
        .await;
    let shared = v1::System {
        customers: Vec::new(),
        all_customers: true,
        ..system("w1", v1::ConnectorKind::Sql, "w1", &map(Erasure::Mask, true))
    };
    register(&operator, "w1", shared).await?;
    let probe = Probe::of(&deployment)?;
    // A second subject of some tenants, so that the server is warm.
    let warm_up = tenants / 10;
    create_all(&operator, (1..=warm_up).map(|n| (n, n + tenants))).await?;
    probe.until_none_is_open().await?;

    let begun = Instant::now();
    create_all(&operator, (1..=tenants).map(|n| (n, n))).await?;
    let taken_in = begun.elapsed();
    probe.until_none_is_open().await?;
    let time = begun.elapsed();
    crate::say(&format!(
        "  taken in after {:.2} s, completed after {:.2} s",
        taken_in.as_secs_f64(),
        time.as_secs_f64()
    ));
    probe.completed("w%", tenants + warm_up).await?;
    w1.verify(tenants + warm_up, Erasure::Mask).await?;
    Ok(per_s(tenants, time))
}
