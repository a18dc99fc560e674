//! One file an RPC service. A handler parses, authorises, calls one command, converts.

pub mod batch;
pub mod connector;
pub mod customer;
pub mod evidence;
pub mod intake;
pub mod key;
pub mod package;
pub mod preview;
pub mod replay;
pub mod request;
pub mod statement;
pub mod system;
pub mod watch;

use std::time::Duration;

use tokio::sync::mpsc::{Sender, error::SendTimeoutError};
use tonic::{Response, Status};

use crate::{
    app::App,
    error::{ApiError, ApiResult},
    status::to_status,
};

/// The last step of every handler.
pub fn answer<T>(result: ApiResult<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(to_status)
}

/// The next of a stream's answers. `false`: nobody listens any more. Whoever reads nothing for long loses the stream, and does `then`.
async fn tell<T>(app: &App, stream: &Sender<Result<T, Status>>, next: T, then: &str) -> ApiResult<bool> {
    match stream.send_timeout(Ok(next), Duration::from_secs(app.limits.unread_s)).await {
        Ok(()) => Ok(true),
        Err(SendTimeoutError::Closed(_)) => Ok(false),
        Err(SendTimeoutError::Timeout(_)) => {
            Err(ApiError::Unavailable(format!("nothing was read for too long: {then}")))
        }
    }
}
