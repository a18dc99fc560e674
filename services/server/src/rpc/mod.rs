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

use tonic::{Response, Status};

use crate::{error::ApiResult, status::to_status};

/// The last step of every handler.
pub fn answer<T>(result: ApiResult<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(to_status)
}
