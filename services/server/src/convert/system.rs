//! Systems and their data maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use quittance_api::v1;
use quittance_domain::{
    country::Country,
    data_map::{DataMap, DataMapError, MapKind},
    identifier::IdentifierKind,
    ids::{CustomerId, SystemId},
    system::{ConnectorKind, Registration, System, SystemLimits, SystemRole, SystemScope},
};

use super::{
    enums::{connector_from, connector_to, identifier_kind_from, identifier_kind_to, role_from, role_to},
    id, required_text, text_within, time_to,
};
use crate::error::{ApiError, ApiResult, Violation};

const DAY_S: u64 = 86_400;

pub fn map_violations(error: DataMapError) -> ApiError {
    let violation = |p: quittance_domain::data_map::Problem| Violation {
        field: if p.field.is_empty() { "data_map_yaml".to_owned() } else { format!("data_map_yaml.{}", p.field) },
        message: format!("line {}: {}", p.line, p.message),
    };
    ApiError::InvalidDataMap(error.problems.into_iter().map(violation).collect())
}

/// A system as it shall be registered, with the first version of its map.
pub fn registration_from(system_id: &str, s: &v1::System) -> ApiResult<System> {
    let at = |name: &str| format!("system.{name}");
    let connector = connector_from(s.connector, &at("connector"))?;
    let kind = if connector == ConnectorKind::Sql { MapKind::Sql } else { MapKind::Declared };
    let map = DataMap::parse(&s.data_map_yaml, kind).map_err(|error| map_violations(error).below("system"))?;
    let registration = Registration {
        id: id(SystemId::new(system_id), "system_id")?,
        display_name: required_text(&s.display_name, 256, &at("display_name"))?,
        role: role_from(s.role, &at("role"))?,
        country: Country::parse(&s.country).map_err(|e| ApiError::field(at("country"), e))?,
        connector,
        connection_secret: secret(connector, &s.connection_secret, &at("connection_secret"))?,
        scope: scope(s)?,
        accepts: kinds(&s.accepts, &at("accepts"))?,
        yields: kinds(&s.yields, &at("yields"))?,
        settle_after_s: u32::try_from(seconds(s.settle_after.as_ref(), DAY_S, &at("settle_after"))?)
            .unwrap_or(u32::MAX),
        backup_retention_s: seconds(s.backup_retention.as_ref(), 3650 * DAY_S, &at("backup_retention"))?,
        grace_period_s: seconds(s.grace_period.as_ref(), 365 * DAY_S, &at("grace_period"))?,
        limits: limits(s.limits.as_ref())?,
    };
    let system = System { registration, map_version: 1, map: Arc::new(map) };
    check_reach(&system, "accepts").map_err(|error| error.below("system"))?;
    check_recipient(&system)?;
    Ok(system)
}

/// It is told, and nothing is asked of it.
fn check_recipient(system: &System) -> ApiResult<()> {
    if system.role != SystemRole::Recipient {
        return Ok(());
    }
    if system.connector != ConnectorKind::Remote {
        return Err(ApiError::field("system.connector", "a recipient is told by a worker: say CONNECTOR_KIND_REMOTE"));
    }
    if !system.yields().is_empty() {
        return Err(ApiError::field("system.yields", "a recipient gives no identifiers away"));
    }
    Ok(())
}

/// What a map must also say because of whose system it is. `accepts` is the field that could name an identifier.
pub fn check_reach(system: &System, accepts: &str) -> ApiResult<()> {
    if system.accepts().is_empty() {
        return Err(ApiError::field(
            accepts,
            "the system can be reached by no identifier: name the kinds that it accepts",
        ));
    }
    let message = "several customers share this system: name the column that says whose a row is";
    let violations: Vec<_> = system
        .unconfined(&system.map)
        .map(|c| Violation {
            field: format!("data_map_yaml.collections.{}.customer_field", c.name),
            message: message.to_owned(),
        })
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(ApiError::InvalidDataMap(violations)) }
}

fn secret(connector: ConnectorKind, name: &str, field: &str) -> ApiResult<Option<String>> {
    match (connector, name) {
        (ConnectorKind::Remote, "") => Ok(None),
        (ConnectorKind::Remote, _) => Err(ApiError::field(field, "a remote system's worker connects to us")),
        (ConnectorKind::Sql, name) => {
            // The id's rules keep it from being a path.
            id(SystemId::new(name), field)?;
            Ok(Some(name.to_owned()))
        }
    }
}

fn scope(s: &v1::System) -> ApiResult<SystemScope> {
    match (s.all_customers, s.customers.as_slice()) {
        (true, []) => Ok(SystemScope::AllCustomers),
        (true, _) => Err(ApiError::field("system.customers", "is empty with all_customers")),
        (false, []) => {
            Err(ApiError::field("system.customers", "name the customers whose data it may hold, or set all_customers"))
        }
        (false, customers) => Ok(SystemScope::Customers(keys_from(customers, "system.customers")?)),
    }
}

/// Customers with what the system's rows carry for each.
pub fn keys_from(customers: &[v1::SystemCustomer], field: &str) -> ApiResult<BTreeMap<CustomerId, String>> {
    let (mut keys, mut whose) = (BTreeMap::new(), BTreeMap::new());
    for (i, c) in customers.iter().enumerate() {
        let at = format!("{field}[{i}].customer");
        let customer = id(CustomerId::from_resource_name(&c.customer), &at)?;
        let key = text_within(&c.key, 256, &format!("{field}[{i}].key"))?;
        let key = if key.is_empty() { customer.as_str().to_owned() } else { key };
        if keys.insert(customer.clone(), key.clone()).is_some() {
            return Err(ApiError::field(at, "stands here twice"));
        }
        if let Some(other) = whose.insert(key, customer) {
            let message = format!("is {other}'s key as well: each would be shown, and erase, the other's rows");
            return Err(ApiError::field(format!("{field}[{i}].key"), message));
        }
    }
    Ok(keys)
}

fn kinds(kinds: &[i32], field: &str) -> ApiResult<BTreeSet<IdentifierKind>> {
    kinds.iter().enumerate().map(|(i, kind)| identifier_kind_from(*kind, &format!("{field}[{i}]"))).collect()
}

fn seconds(duration: Option<&prost_types::Duration>, seconds_max: u64, field: &str) -> ApiResult<u64> {
    let seconds = duration.map_or(Ok(0), |d| u64::try_from(d.seconds));
    match seconds {
        Ok(seconds) if seconds <= seconds_max => Ok(seconds),
        _ => Err(ApiError::field(field, format!("must be between 0 and {} days", seconds_max / DAY_S))),
    }
}

fn limits(limits: Option<&v1::SystemLimits>) -> ApiResult<SystemLimits> {
    let Some(l) = limits else { return Ok(SystemLimits::default()) };
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let default = SystemLimits::default();
    let limits = SystemLimits {
        concurrency: or(l.concurrency, default.concurrency),
        batches_per_second: l.batches_per_second,
        batch_size: or(l.batch_size, default.batch_size),
    };
    if limits.concurrency > SystemLimits::CONCURRENCY_MAX {
        let message = format!("at most {}", SystemLimits::CONCURRENCY_MAX);
        return Err(ApiError::field("system.limits.concurrency", message));
    }
    if limits.batch_size > SystemLimits::BATCH_SIZE_MAX {
        let message = format!("at most {}", SystemLimits::BATCH_SIZE_MAX);
        return Err(ApiError::field("system.limits.batch_size", message));
    }
    Ok(limits)
}

pub fn system_to(s: &System, yaml: &str, created_at: Timestamp) -> v1::System {
    let duration = |s: u64| Some(prost_types::Duration { seconds: i64::try_from(s).unwrap_or(i64::MAX), nanos: 0 });
    let (all_customers, customers) = match &s.scope {
        SystemScope::AllCustomers => (true, Vec::new()),
        SystemScope::Customers(keys) => {
            let one = |(customer, key): (&CustomerId, &String)| v1::SystemCustomer {
                customer: customer.resource_name(),
                key: key.clone(),
            };
            (false, keys.iter().map(one).collect())
        }
    };
    v1::System {
        name: s.id.resource_name(),
        display_name: s.display_name.clone(),
        role: role_to(s.role),
        country: s.country.as_str().to_owned(),
        connector: connector_to(s.connector),
        connection_secret: s.connection_secret.clone().unwrap_or_default(),
        customers,
        all_customers,
        accepts: s.accepts().into_iter().map(identifier_kind_to).collect(),
        yields: s.yields().into_iter().map(identifier_kind_to).collect(),
        settle_after: duration(s.settle_after_s.into()),
        backup_retention: duration(s.backup_retention_s),
        grace_period: duration(s.grace_period_s),
        data_map_yaml: yaml.to_owned(),
        data_map_version: s.map_version,
        limits: Some(v1::SystemLimits {
            concurrency: s.limits.concurrency,
            batches_per_second: s.limits.batches_per_second,
            batch_size: s.limits.batch_size,
        }),
        create_time: Some(time_to(created_at)),
    }
}
