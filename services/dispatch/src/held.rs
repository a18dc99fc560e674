//! What an erasure holds stays restricted while it is held, whoever has a restriction lifted (Art. 17(3)). Only what was kept of the erasures
//! tells: the data say of a row's marker neither who has set it nor why, and a retention that runs holds nothing that nobody had erased.

use std::collections::HashSet;

use quittance_connectors::{MatchSet, RowFate};
use quittance_domain::ids::{CustomerId, SystemId};
use quittance_store::{Store, StoreResult};

/// So that a person knows why.
pub(crate) const UNKNOWN: &str = "what is kept of an erasure at this system does not open, and may hold what was found: it stays restricted. Restore \
                                  the record and retry, or lift what is not held in the data and resolve the task";

/// Collection and key of rows.
type Rows = HashSet<(String, Vec<String>)>;

/// Says in the match sets of liftings what is held by now, and for each whether that was news. `None`: of no row it can be told.
pub(crate) async fn leave_held(
    store: &Store,
    customer: &CustomerId,
    system: &SystemId,
    sets: &mut [&mut MatchSet],
) -> StoreResult<Option<Vec<bool>>> {
    let rows = sets.iter().flat_map(|set| &set.collections);
    let found: Rows =
        rows.flat_map(|(name, rows)| rows.iter().map(move |row| (name.clone(), row.key.clone()))).collect();
    let mut held = Rows::new();
    let (mut after, mut more) = (None, !found.is_empty());
    while more {
        let page = store.kept_at(customer, system, after).await?;
        if page.unsealable {
            return Ok(None);
        }
        for bytes in &page.rows {
            let Ok(kept) = serde_json::from_slice::<MatchSet>(bytes) else { return Ok(None) };
            for (name, rows) in kept.collections {
                let rows = rows.into_iter().filter(|row| row.fate != RowFate::Unpoint);
                held.extend(rows.map(|row| (name.clone(), row.key)).filter(|row| found.contains(row)));
            }
        }
        (after, more) = (page.next, page.next.is_some());
    }
    let is_held = |name: &str, key: &[String]| !held.is_empty() && held.contains(&(name.to_owned(), key.to_vec()));
    Ok(Some(sets.iter_mut().map(|set| set.hold(is_held)).collect()))
}
