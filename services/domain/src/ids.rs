//! Every id is its own type, declared here and nowhere else, so that one can never be passed for another.

use std::fmt;

use uuid::Uuid;

/// Why a text is not an id of the wanted kind. The text itself is not repeated: callers name the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("must be 1 to 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit")]
    Slug,
    #[error("must be a UUID, and not the nil one")]
    Uuid,
    #[error("must have the form {0}")]
    Form(&'static str),
}

fn is_slug(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| inner(b) || b == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

macro_rules! slug_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $form:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Takes the bare id, as in `acme`.
            pub fn new(text: &str) -> Result<Self, IdError> {
                if is_slug(text) { Ok(Self(text.into())) } else { Err(IdError::Slug) }
            }

            /// Takes the resource name, as in AIP-122.
            pub fn from_resource_name(name: &str) -> Result<Self, IdError> {
                name.strip_prefix($prefix).and_then(|rest| Self::new(rest).ok()).ok_or(IdError::Form($form))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn resource_name(&self) -> String {
                format!("{}{}", $prefix, self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            pub fn parse(text: &str) -> Result<Self, IdError> {
                // The nil one is what a program has that never made one: two such requests would be one.
                Uuid::try_parse(text).ok().filter(|id| !id.is_nil()).map(Self).ok_or(IdError::Uuid)
            }

            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

slug_id!(
    /// The controller; the tenant. In every key of every table of a customer's (I8).
    CustomerId, "customers/", "customers/{customer}"
);
slug_id!(
    /// A storage backend or a sub-processor.
    SystemId, "systems/", "systems/{system}"
);
slug_id!(
    /// Somebody to whom a customer's data was disclosed (Art. 19); named in its agreement.
    RecipientId, "recipients/", "recipients/{recipient}"
);
uuid_id!(
    /// A request, UUIDv7 made by the service: sorts by the time it was taken in.
    RequestId
);
uuid_id!(
    /// The caller's own id of a create or a change (AIP-155): sent twice, it is one (I2).
    IdempotencyId
);
uuid_id!(
    /// One entry that the ledger holds or will hold.
    EntryId
);
uuid_id!(
    /// One replay of what was instructed at a system since a snapshot of it.
    ReplayId
);

/// One instruction at one system. A request has exactly one for every system (I3), so the pair is its key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TaskKey {
    pub customer: CustomerId,
    pub request: RequestId,
    pub system: SystemId,
}

const REQUEST_FORM: &str = "customers/{customer}/requests/{request}";
const TASK_FORM: &str = "customers/{customer}/requests/{request}/tasks/{system}";

/// `customers/{customer}/requests/{request}`
pub fn request_name(customer: &CustomerId, request: RequestId) -> String {
    format!("customers/{customer}/requests/{request}")
}

pub fn parse_request_name(name: &str) -> Result<(CustomerId, RequestId), IdError> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["customers", customer, "requests", request] => {
            let customer = CustomerId::new(customer).map_err(|_| IdError::Form(REQUEST_FORM))?;
            let request = RequestId::parse(request).map_err(|_| IdError::Form(REQUEST_FORM))?;
            Ok((customer, request))
        }
        _ => Err(IdError::Form(REQUEST_FORM)),
    }
}

const REPLAY_FORM: &str = "systems/{system}/replays/{replay}";

/// `systems/{system}/replays/{replay}`
pub fn replay_name(system: &SystemId, replay: ReplayId) -> String {
    format!("systems/{system}/replays/{replay}")
}

pub fn parse_replay_name(name: &str) -> Result<(SystemId, ReplayId), IdError> {
    let (system, replay) = name.split_once("/replays/").ok_or(IdError::Form(REPLAY_FORM))?;
    let system = SystemId::from_resource_name(system).map_err(|_| IdError::Form(REPLAY_FORM))?;
    Ok((system, ReplayId::parse(replay).map_err(|_| IdError::Form(REPLAY_FORM))?))
}

impl TaskKey {
    /// `customers/{customer}/requests/{request}/tasks/{system}`
    pub fn resource_name(&self) -> String {
        format!("customers/{}/requests/{}/tasks/{}", self.customer, self.request, self.system)
    }

    pub fn from_resource_name(name: &str) -> Result<Self, IdError> {
        let (request, system) = name.rsplit_once("/tasks/").ok_or(IdError::Form(TASK_FORM))?;
        let (customer, request) = parse_request_name(request).map_err(|_| IdError::Form(TASK_FORM))?;
        let system = SystemId::new(system).map_err(|_| IdError::Form(TASK_FORM))?;
        Ok(Self { customer, request, system })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_names_read_back() {
        let key = TaskKey {
            customer: CustomerId::new("acme").unwrap(),
            request: RequestId::new(Uuid::from_u128(7)),
            system: SystemId::new("crm-1").unwrap(),
        };
        assert_eq!(TaskKey::from_resource_name(&key.resource_name()), Ok(key));
    }

    #[test]
    fn names_of_another_form_are_refused() {
        for bad in ["", "acme", "customers/", "customers/Acme", "customers/a/b", "customers/-a", "customers/a\0"] {
            assert!(CustomerId::from_resource_name(bad).is_err(), "{bad:?}");
        }
        for bad in ["customers/acme/requests/1", "customers/acme/requests", "requests/x"] {
            assert!(parse_request_name(bad).is_err(), "{bad:?}");
        }
        assert!(CustomerId::new(&"a".repeat(64)).is_err());
    }
}
