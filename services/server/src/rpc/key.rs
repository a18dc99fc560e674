//! `KeyService`

use std::sync::Arc;

use quittance_api::v1::{self, key_service_server::KeyService};
use quittance_store::{EpochRow, EpochState};
use tonic::{Request, Response, Status};

use super::answer;
use crate::{app::App, auth::caller, convert::time_to, error::ApiResult};

pub struct Keys(pub Arc<App>);

#[tonic::async_trait]
impl KeyService for Keys {
    async fn list_key_epochs(
        &self,
        request: Request<v1::ListKeyEpochsRequest>,
    ) -> Result<Response<v1::ListKeyEpochsResponse>, Status> {
        answer(list(&self.0, request).await)
    }

    async fn rotate_keys(
        &self,
        request: Request<v1::RotateKeysRequest>,
    ) -> Result<Response<v1::RotateKeysResponse>, Status> {
        answer(rotate(&self.0, request).await)
    }
}

async fn list(app: &App, request: Request<v1::ListKeyEpochsRequest>) -> ApiResult<v1::ListKeyEpochsResponse> {
    caller(&request)?.operator()?;
    Ok(v1::ListKeyEpochsResponse { epochs: epochs(app).await? })
}

async fn rotate(app: &App, request: Request<v1::RotateKeysRequest>) -> ApiResult<v1::RotateKeysResponse> {
    let caller = caller(&request)?;
    caller.operator()?;
    // Before it is asked for: the rotation may begin at once, and who waits for it waits for what is newer than the newest of these.
    let epochs = epochs(app).await?;
    app.store.ask_for_rotation().await?;
    tracing::info!(by = caller.principal(), "a rotation of the keys is asked for");
    Ok(v1::RotateKeysResponse { epochs })
}

async fn epochs(app: &App) -> ApiResult<Vec<v1::KeyEpoch>> {
    Ok(app.store.key_epochs().await?.iter().map(epoch_to).collect())
}

fn epoch_to(epoch: &EpochRow) -> v1::KeyEpoch {
    let state = match epoch.state {
        EpochState::Current => v1::KeyEpochState::Current,
        EpochState::Closed => v1::KeyEpochState::Closed,
        EpochState::Rewrapped => v1::KeyEpochState::Rewrapped,
        EpochState::Destroyed => v1::KeyEpochState::Destroyed,
        EpochState::Logged => v1::KeyEpochState::Logged,
    };
    v1::KeyEpoch {
        number: epoch.number,
        state: state.into(),
        begin_time: epoch.current_at.map(time_to),
        close_time: epoch.closed_at.map(time_to),
        rewrap_time: epoch.rewrapped_at.map(time_to),
        destroy_time: epoch.destroyed_at.map(time_to),
        log_time: epoch.logged_at.map(time_to),
    }
}
