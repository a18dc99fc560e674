//! The one way in for instructions: single, streamed, referred.

use quittance_api::v1;
use quittance_domain::{action::CorrectionTarget, agreement::Agreement, ids::CustomerId, request::NewRequest};
use quittance_store::{Intake, IntakeContext, IntakeItem, StoreError, StoreResult, Topology};

use crate::{
    app::{App, check_countries},
    convert::{idempotency, new_request, request_to, required},
    error::{ApiError, ApiResult},
};

/// Systems may change while a chunk is prepared; more often than this they do not.
const TOPOLOGY_TRIES: u32 = 5;

/// Reads one instruction and checks it against the customer's systems.
pub fn read_item(
    app: &App,
    customer: &CustomerId,
    topology: &Topology,
    request_id: &str,
    request: Option<&v1::Request>,
    referred: Option<String>,
) -> ApiResult<Intake> {
    let idempotency = idempotency(request_id, "request_id")?;
    let request = new_request(required(request, "request")?, app.now(), "request")?;
    check_corrections(customer, topology, &request)?;
    Ok(Intake { idempotency, request, referred })
}

/// A correction names a field that some system of the customer's maps, and lets be corrected.
pub fn check_corrections(customer: &CustomerId, topology: &Topology, request: &NewRequest) -> ApiResult<()> {
    for (i, c) in request.corrections.iter().enumerate() {
        let at = |name: &str| format!("request.corrections[{i}].{name}");
        let mine = topology.systems.iter().filter(|s| s.customer_key(customer).is_some());
        let collections: Vec<_> = mine.filter_map(|s| s.map.collection(&c.collection)).collect();
        if collections.is_empty() {
            return Err(ApiError::field(at("collection"), "is in no system's data map"));
        }
        let fields: Vec<_> = collections.iter().filter_map(|col| col.field(&c.field).map(|f| (*col, f))).collect();
        if fields.is_empty() {
            return Err(ApiError::field(at("field"), "is in no system's data map"));
        }
        let Some((collection, _)) = fields.iter().find(|(_, f)| f.rectify) else {
            return Err(ApiError::field(at("field"), "the data map does not let it be corrected"));
        };
        if let CorrectionTarget::Record { key, .. } = &c.target
            && !collection.key.is_empty()
            && key.len() != collection.key.len()
        {
            return Err(ApiError::field(at("record.key"), format!("the key has {} values", collection.key.len())));
        }
    }
    Ok(())
}

/// What a chunk is taken in with.
pub struct Desk {
    pub customer: CustomerId,
    pub by: String,
    pub agreement: Agreement,
}

impl Desk {
    pub async fn open(app: &App, customer: CustomerId, by: String) -> ApiResult<Self> {
        let agreement = app.agreement(&customer).await?;
        Ok(Self { customer, by, agreement })
    }

    /// Takes a chunk in. When it answers, it is durable (I2).
    pub async fn take(&self, app: &App, items: &[Intake]) -> ApiResult<Vec<IntakeItem>> {
        let mut topology = app.topology.get().await?;
        for _ in 0..TOPOLOGY_TRIES {
            let taken = app.store.create_requests(&self.context(app, &topology)?, items).await;
            match with_these_systems(app, taken)? {
                Some(taken) => return Ok(taken),
                None => topology = app.topology.refresh().await?,
            }
        }
        Err(systems_change())
    }

    /// As [`Desk::take`] of one, and gives it as the API does.
    pub async fn take_one(&self, app: &App, item: &Intake) -> ApiResult<v1::Request> {
        let mut topology = app.topology.get().await?;
        for _ in 0..TOPOLOGY_TRIES {
            let taken = app.store.create_request(&self.context(app, &topology)?, item).await;
            match with_these_systems(app, taken)? {
                Some((request, tasks)) => {
                    return Ok(request_to(&self.customer, &request, &tasks, app.now(), app.at_risk()));
                }
                None => topology = app.topology.refresh().await?,
            }
        }
        Err(systems_change())
    }

    fn context<'a>(&'a self, app: &App, topology: &'a Topology) -> ApiResult<IntakeContext<'a>> {
        check_countries(&self.customer, &self.agreement, topology)?;
        Ok(IntakeContext {
            customer: &self.customer,
            by: &self.by,
            now: app.now(),
            agreement: &self.agreement,
            topology,
        })
    }
}

/// `None`: they changed meanwhile.
fn with_these_systems<T>(app: &App, taken: StoreResult<T>) -> ApiResult<Option<T>> {
    match taken {
        Err(StoreError::WrongState(_)) => Ok(None),
        taken => {
            app.dispatch.wake();
            Ok(Some(taken?))
        }
    }
}

fn systems_change() -> ApiError {
    ApiError::Unavailable("systems are being changed: try again".to_owned())
}
