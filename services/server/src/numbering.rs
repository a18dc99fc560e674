//! Whether a system looks people up by the numbers of another's rows.

use quittance_connectors::{Finding, FindingSeverity};
use quittance_domain::{
    data_map::Collection,
    identifier::IdentifierKind,
    system::{System, SystemScope},
};
use quittance_store::Topology;

/// Of one system a row's own key is yielded as a user id, and in another a row is found where it is the key: if each database numbers its rows
/// for itself, these are different people. Told where it can be meant otherwise, for nobody but the operator knows.
pub fn numbered_apart(topology: &Topology, system: &System) -> Vec<Finding> {
    let others = topology.systems.iter().filter(|other| other.id != system.id && share_customers(other, system));
    let mut findings = Vec::new();
    for other in others {
        for (yielding, looking) in [(&**other, system), (system, &**other)] {
            for y in yielding.map.collections.iter().filter_map(yields_its_key) {
                for (c, rule) in looking.map.collections.iter().filter_map(is_found_by_its_key) {
                    let field = if looking.id == system.id {
                        format!("collections.{}.identifiers[{rule}].field", c.name)
                    } else {
                        format!("collections.{}.yields.{}", y.name, IdentifierKind::UserId)
                    };
                    let message = format!(
                        "the key of {} in {} is yielded as a user_id, and the key of {} in {} is looked for by it: unless both number people alike, \
                         they are different people, and other people's rows would be erased",
                        y.name, yielding.id, c.name, looking.id
                    );
                    findings.push(Finding { severity: FindingSeverity::Warning, field, message });
                }
            }
        }
    }
    findings
}

fn share_customers(a: &System, b: &System) -> bool {
    match (&a.scope, &b.scope) {
        (SystemScope::Customers(a), SystemScope::Customers(b)) => a.keys().any(|customer| b.contains_key(customer)),
        _ => true,
    }
}

fn is_key(c: &Collection, field: &str) -> bool {
    matches!(c.key.as_slice(), [key] if key == field)
}

fn yields_its_key(c: &Collection) -> Option<&Collection> {
    c.yields.iter().any(|y| y.kind == IdentifierKind::UserId && is_key(c, &y.field)).then_some(c)
}

fn is_found_by_its_key(c: &Collection) -> Option<(&Collection, usize)> {
    let by_key = |rule: &quittance_domain::data_map::IdentifierRule| {
        rule.kind == IdentifierKind::UserId && is_key(c, &rule.field)
    };
    c.identifiers.iter().position(by_key).map(|rule| (c, rule))
}
