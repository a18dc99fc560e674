//! What a database holds: the identifiers in the columns by which its rows are found, whosever they are.
//!
//! By the rows' keys, a page at a time: one pass over each table, whatever its size, in statements that end soon, and nothing is held
//! between them. Rows that come in behind the place where it stands were not in the backup that the database was restored from.

use quittance_domain::{
    data_map::Matching,
    identifier::{Identifier, IdentifierKind},
};
use quittance_sql::{Engine, Tx, Val};

use super::{
    failure,
    identify::{is, is_sought},
    plan::{CollectionPlan, Plan, RulePlan},
    schema::Column,
};
use crate::{ConnectorError, HeldKey, HeldPage, HeldPlace};

/// One page from `after` on, of one collection.
pub(super) async fn page(
    plan: &Plan,
    after: Option<&HeldPlace>,
    rows_max: usize,
    tx: &mut Tx,
) -> Result<HeldPage, ConnectorError> {
    let beginning = HeldPlace { collection: 0, key: Vec::new() };
    let place = after.unwrap_or(&beginning);
    let Some(of) = plan.collections.get(place.collection) else { return Ok(HeldPage::default()) };
    let next_collection = (place.collection + 1 < plan.collections.len())
        .then(|| HeldPlace { collection: place.collection + 1, key: Vec::new() });
    if of.rules.is_empty() {
        return Ok(HeldPage { keys: Vec::new(), next: next_collection });
    }
    let (sql, args) = statement(plan, of, place, rows_max.max(1));
    let rows = tx.fetch(&sql, args).await.map_err(failure)?;
    let (keys_at, texts) = (of.key.len(), of.key.len() + usize::from(of.customer.is_some()));
    let mut keys = Vec::new();
    for row in &rows {
        let customer_key = match of.customer {
            Some(_) => match row.opt_text(keys_at).map_err(failure)? {
                Some(key) => Some(key),
                // Nobody's row.
                None => continue,
            },
            None => None,
        };
        for (r, (rule, map)) in of.rules.iter().zip(&plan.map_of(place.collection).identifiers).enumerate() {
            let stored = row.opt_text(texts + r).map_err(failure)?;
            let identifier = stored.and_then(|stored| held(plan.dialect.engine, rule, map.kind, &stored));
            keys.extend(identifier.map(|identifier| HeldKey { customer_key: customer_key.clone(), identifier }));
        }
    }
    let next = match rows.last() {
        Some(last) if rows.len() >= rows_max.max(1) => {
            let key = (0..of.key.len()).map(|k| last.text(k)).collect::<Result<Vec<_>, _>>().map_err(failure)?;
            if key == place.key {
                // A key whose text does not lead back to it: rather nothing than the same page for ever.
                let name = &plan.map_of(place.collection).name;
                return Err(ConnectorError::Refused(format!(
                    "collection {name}: its rows cannot be paged by their key"
                )));
            }
            Some(HeldPlace { collection: place.collection, key })
        }
        _ => next_collection,
    };
    Ok(HeldPage { keys, next })
}

/// The identifier by which this value is found, if there is one.
fn held(engine: Engine, rule: &RulePlan, kind: IdentifierKind, stored: &str) -> Option<Identifier> {
    let identifier = match rule.matching {
        Matching::Digits => Identifier::normalise_held(kind, stored),
        Matching::Exact | Matching::CaseInsensitive => Identifier::normalise(kind, stored),
    };
    identifier.ok().filter(|identifier| is(rule, identifier, stored) && is_sought(engine, rule, stored))
}

fn statement(plan: &Plan, of: &CollectionPlan, place: &HeldPlace, rows_max: usize) -> (String, Vec<Val>) {
    let d = plan.dialect;
    let columns = of.key.iter().chain(&of.customer).chain(of.rules.iter().map(|rule| &rule.column));
    let what: Vec<String> = columns.map(|column| d.text(column)).collect();
    let order: Vec<String> = of.key.iter().map(|column| d.ordered(column).0).collect();
    let behind = if place.key.is_empty() { String::new() } else { format!(" WHERE {}", behind(plan, &of.key, 1)) };
    let sql = format!(
        "SELECT {} FROM {} q{behind} ORDER BY {} LIMIT {rows_max}",
        what.join(", "),
        of.table,
        order.join(", ")
    );
    (sql, place.key.iter().map(|text| Val::from(text.clone())).collect())
}

/// Behind a key, in an order that the key's own index has on every engine: the first column bounds the range.
fn behind(plan: &Plan, key: &[Column], number: usize) -> String {
    let Some((first, rest)) = key.split_first() else { return "1 = 0".to_owned() };
    let (name, value) = plan.dialect.ordered(first);
    let value = value.replace("{value}", &text_argument(plan.dialect.engine, number));
    match rest {
        [] => format!("{name} > {value}"),
        rest => format!("{name} >= {value} AND ({name} > {value} OR {})", behind(plan, rest, number + 1)),
    }
}

fn text_argument(engine: Engine, number: usize) -> String {
    match engine {
        // So that the server takes it for the text that is sent, whatever it is cast to.
        Engine::Postgres => format!("${number}::text"),
        Engine::MySql | Engine::Sqlite => format!("${number}"),
    }
}
