//! Issues interim statements by itself: of requests that are overdue, once for each due time that passed with something open (I3).

use std::{sync::Arc, time::Duration};

use quittance_dispatch::ClockTrust;
use quittance_domain::ids::{CustomerId, RequestId};
use quittance_store::DeadlineStatement;

use crate::{app::App, error::ApiResult, evidence};

/// Looks now and then, until the process drains.
pub async fn run(app: Arc<App>, every: Duration, trust: ClockTrust) {
    while !app.drain.is_cancelled() {
        // Issued once, and never again: not by a clock that cannot be right.
        if trust.holds(app.clock.as_ref())
            && let Err(error) = sweep(&app).await
        {
            tracing::warn!(%error, "statements of overdue requests could not be issued: tried again soon");
        }
        tokio::select! {
            () = app.drain.cancelled() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}

async fn sweep(app: &App) -> ApiResult<()> {
    for customer in app.store.customers_without_deadline_statement().await? {
        // The others are not kept waiting by one customer's trouble.
        if let Err(error) = issue_all(app, &customer).await {
            tracing::warn!(%customer, %error, "statements of a customer's overdue requests could not be issued: tried again soon");
        }
    }
    Ok(())
}

async fn issue_all(app: &App, customer: &CustomerId) -> ApiResult<()> {
    while issue_some(app, customer).await? && !app.drain.is_cancelled() {}
    Ok(())
}

/// Answers whether one was issued: then there may be more.
async fn issue_some(app: &App, customer: &CustomerId) -> ApiResult<bool> {
    let mut issued = false;
    for id in app.store.without_deadline_statement(customer).await? {
        match issue(app, customer, id).await {
            Ok(done) => issued |= done,
            // The others are not kept waiting by one that cannot be proven.
            Err(error) => tracing::error!(%customer, request = %id, %error, "an overdue request has no statement"),
        }
    }
    Ok(issued)
}

async fn issue(app: &App, customer: &CustomerId, id: RequestId) -> ApiResult<bool> {
    let (request, tasks) = app.store.request(customer, id).await?;
    // By the clock of whoever marked it; a statement by ours would say that it is not late.
    if app.now() <= request.due_at {
        return Ok(false);
    }
    // While the log does not cover its entries, nothing can be proven: the next look finds it again.
    let Some(content) = evidence::sign(app, customer, &request, &tasks, request.closed_at).await? else {
        return Ok(false);
    };
    let statement = DeadlineStatement { due_at: request.due_at, content, issued_at: app.now() };
    let kept = app.store.keep_deadline_statement(customer, id, &statement).await?;
    if kept {
        tracing::warn!(%customer, request = %id, due = %request.due_at, "the due time passed: an interim statement was issued");
    }
    Ok(kept)
}
