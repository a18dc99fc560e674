//! The one authentication layer. Every handler acts for the [`Caller`] that it puts into the request, and for nobody else (I8).

use std::{collections::BTreeSet, sync::Arc};

use quittance_domain::ids::{CustomerId, SystemId};
use tonic::{Request, Status, service::Interceptor};

use crate::{
    error::{ApiError, ApiResult},
    status::to_status,
    tokens::{TokenTable, sha256_hex},
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    Operator,
    /// Speaks for one customer.
    Customer(CustomerId),
    /// A worker of these systems.
    Connector(BTreeSet<SystemId>),
}

/// Who calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    pub name: String,
    pub role: Role,
}

fn not_allowed(what: &str) -> ApiError {
    ApiError::NotAllowed(format!("only {what} may do this"))
}

impl Caller {
    /// As it stands in the record.
    pub fn principal(&self) -> String {
        match &self.role {
            Role::Operator => format!("operator/{}", self.name),
            Role::Customer(customer) => format!("customer/{customer}/{}", self.name),
            Role::Connector(_) => format!("connector/{}", self.name),
        }
    }

    pub fn operator(&self) -> ApiResult<()> {
        if self.role == Role::Operator { Ok(()) } else { Err(not_allowed("an operator")) }
    }

    /// The customer alone; never an operator in its name.
    pub fn as_customer(&self, named: &CustomerId) -> ApiResult<()> {
        match &self.role {
            // Another customer's is "not there", as if it did not exist.
            Role::Customer(own) if own == named => Ok(()),
            Role::Customer(_) => Err(ApiError::NotFound("the resource")),
            _ => Err(not_allowed("the customer")),
        }
    }

    /// The customer whose data is meant: the caller's own, or, for an operator, the one that it names.
    pub fn customer(&self, named: Option<CustomerId>, field: &str) -> ApiResult<CustomerId> {
        match (&self.role, named) {
            (Role::Customer(own), Some(named)) if *own != named => Err(ApiError::NotFound("the resource")),
            (Role::Customer(own), _) => Ok(own.clone()),
            (Role::Operator, Some(named)) => Ok(named),
            (Role::Operator, None) => Err(ApiError::field(field, "an operator names the customer")),
            (Role::Connector(_), _) => Err(not_allowed("a customer or an operator")),
        }
    }

    pub fn system(&self, system: &SystemId) -> ApiResult<()> {
        match &self.role {
            Role::Connector(systems) if systems.contains(system) => Ok(()),
            Role::Connector(_) => Err(ApiError::NotAllowed(format!("this token is not for {system:?}"))),
            _ => Err(not_allowed("a connector")),
        }
    }
}

/// What a stream is open by. It may be open for days, and the token be taken away meanwhile.
#[derive(Clone)]
pub struct Standing {
    tokens: Arc<TokenTable>,
    digest: String,
    caller: Caller,
}

impl Standing {
    /// Whether the token still is the caller's.
    pub fn check(&self) -> ApiResult<()> {
        let now = self.tokens.by_digest(&self.digest);
        if now.as_ref() == Some(&self.caller) { Ok(()) } else { Err(ApiError::Unauthenticated) }
    }
}

/// Puts the caller into the request, or refuses it.
#[derive(Clone)]
pub struct Authenticate {
    tokens: Arc<TokenTable>,
}

impl Authenticate {
    pub const fn new(tokens: Arc<TokenTable>) -> Self {
        Self { tokens }
    }
}

impl Interceptor for Authenticate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        let token = header.and_then(|h| h.strip_prefix("Bearer ").or_else(|| h.strip_prefix("bearer ")));
        let digest = token.map(|t| sha256_hex(t.trim())).unwrap_or_default();
        let caller = self.tokens.by_digest(&digest).ok_or_else(|| to_status(ApiError::Unauthenticated))?;
        request.extensions_mut().insert(Standing { tokens: self.tokens.clone(), digest, caller: caller.clone() });
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// The caller of a request that has passed the layer.
pub fn caller<T>(request: &Request<T>) -> ApiResult<Caller> {
    request.extensions().get::<Caller>().cloned().ok_or(ApiError::Unauthenticated)
}

/// Of a stream's request.
pub fn standing<T>(request: &Request<T>) -> ApiResult<Standing> {
    request.extensions().get::<Standing>().cloned().ok_or(ApiError::Unauthenticated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(id: &str) -> CustomerId {
        CustomerId::new(id).unwrap()
    }

    #[test]
    fn a_customer_acts_for_itself_only() {
        let acme = Caller { name: "erp".into(), role: Role::Customer(customer("acme")) };
        assert_eq!(acme.customer(None, "parent").unwrap(), customer("acme"));
        assert!(matches!(acme.customer(Some(customer("other")), "parent"), Err(ApiError::NotFound(_))));
        assert!(acme.operator().is_err());
        assert!(acme.system(&SystemId::new("crm").unwrap()).is_err());
    }

    #[test]
    fn an_operator_never_speaks_as_the_customer() {
        let ops = Caller { name: "ops".into(), role: Role::Operator };
        assert!(ops.as_customer(&customer("acme")).is_err());
        assert!(ops.customer(None, "parent").is_err());
    }
}
