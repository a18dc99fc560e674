//! W1 end to end: requests go in over the network, and the clock stops when the last of them is COMPLETED.

use std::time::{Duration, Instant};

use quittance_api::v1;
use quittance_client::{
    Client,
    bulk::{BulkOptions, create_requests},
};
use quittance_tests::{
    Deployment,
    scenario::{by_email, create_customer, new_id, register, system},
};

use crate::{
    Failure, Sizes,
    measure::{Probe, cpu, per_s},
    w1::{Erasure, W1, email, map, scattered},
};

pub struct Done {
    pub per_s: f64,
    /// Processor time a request: of the server, and of PostgreSQL.
    pub server_ms: f64,
    pub postgresql_ms: f64,
}

/// Streams erasures in, a thousand a chunk; each is durable when this answers.
pub async fn stream_in(client: &Client, emails: impl Iterator<Item = String>) -> Result<u64, Failure> {
    let item = |(number, email): (u64, String)| v1::BatchItem {
        number,
        request_id: new_id(),
        request: Some(by_email(v1::Action::Erasure, email)),
    };
    let items = futures::stream::iter((1..).zip(emails).map(item));
    let options = BulkOptions { chunk_size: 1000, ..BulkOptions::default() };
    let report = create_requests(client, "", items, &options, |_, _| {}).await?;
    if report.failed > 0 {
        return Err(format!("{} requests were refused: {:?}", report.failed, report.errors.first()).into());
    }
    Ok(report.created)
}

/// A customer with W1 as its only system; all its subjects erased, by a server that has warmed up on some of them before.
pub async fn erase_all(deployment: &Deployment, w1: &W1, sizes: &Sizes, erasure: Erasure) -> Result<Done, Failure> {
    let name = if erasure == Erasure::Delete { "w1-delete" } else { "w1-mask" };
    w1.seed().await?;
    deployment.secret(name, &w1.url);
    let operator = deployment.operator().await;
    create_customer(&operator, name).await;
    register(&operator, name, system(name, v1::ConnectorKind::Sql, name, &map(erasure, false))).await?;
    let client = deployment.client(&deployment.customer_token(name)).await;
    let probe = Probe::of(deployment)?;
    stream_in(&client, (0..sizes.warm_up).map(|i| email(scattered(i, w1.subjects)))).await?;
    probe.until_none_is_open().await?;
    w1.verify(sizes.warm_up, erasure).await?;

    w1.seed().await?;
    let (server_before, postgresql_before) = (cpu(deployment.pid())?, w1.cpu()?);
    let begun = Instant::now();
    let created = stream_in(&client, (0..w1.subjects).map(|i| email(scattered(i, w1.subjects)))).await?;
    let taken_in = begun.elapsed();
    probe.until_none_is_open().await?;
    let time = begun.elapsed();
    let ms = |used: Duration| used.as_secs_f64() * 1000.0 / created as f64;
    let (server_ms, postgresql_ms) = (ms(cpu(deployment.pid())? - server_before), ms(w1.cpu()? - postgresql_before));
    crate::say(&format!(
        "  {created} taken in after {:.2} s, completed after {:.2} s; CPU a request: server {server_ms:.2} ms, PostgreSQL {postgresql_ms:.2} ms",
        taken_in.as_secs_f64(),
        time.as_secs_f64()
    ));
    probe.completed(name, sizes.warm_up + w1.subjects).await?;
    w1.verify(w1.subjects, erasure).await?;
    Ok(Done { per_s: per_s(created, time), server_ms, postgresql_ms })
}
