//! Keys of epochs that are destroyed: nothing that lives needs one, and each destruction is on record once (I7).

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    CheckError,
    entries::Ledger,
    finding::{Report, Rule},
    rows::{As, Database},
};

/// What a destruction is recorded under: it is of no request.
pub const OF_NO_REQUEST: &str = "00000000000000000000000000000000";

pub async fn check(store: &mut Database, ledger: &Ledger, report: &mut Report) -> Result<(), CheckError> {
    let mut epochs: BTreeMap<u32, bool> = BTreeMap::new();
    store
        .each("key_epochs", &[("epoch", As::Plain), ("state", As::Plain)], |row| {
            let [epoch, state] = row.try_into().unwrap_or_default();
            let destroyed = ["DESTROYED", "LOGGED"].contains(&state.unwrap_or_default().as_str());
            epochs.insert(epoch.unwrap_or_default().parse().unwrap_or_default(), destroyed);
        })
        .await?;
    report.figures.keys_destroyed = epochs.values().filter(|destroyed| **destroyed).count() as u64;
    let lives = |epoch: Option<u32>| epoch.is_some_and(|epoch| epochs.get(&epoch) == Some(&false));
    let mut dead = 0_u64;
    for table in ["requests", "kept_rows"] {
        store
            .each(table, &[("key_epoch", As::Plain)], |row| {
                let epoch = row.into_iter().flatten().next().unwrap_or_default();
                dead += u64::from(!epoch.is_empty() && !lives(epoch.parse().ok()));
            })
            .await?;
    }
    // The first four bytes say whose key covers a name.
    for table in ["subject_heads", "subject_lines", "restrictions"] {
        store
            .each(table, &[("pseudonym", As::Bytes)], |row| {
                let name = row.into_iter().flatten().next().unwrap_or_default();
                let epoch = name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                dead += u64::from(name.len() != 40 || !lives(epoch));
            })
            .await?;
    }
    report.expect(dead == 0, Rule::DestroyedKeys, || format!("{dead} rows need keys that are destroyed"));
    for ((customer, _), recorded) in ledger.iter().filter(|((_, request), _)| request == OF_NO_REQUEST) {
        let told: BTreeSet<u32> = recorded.destroyed.iter().copied().collect();
        let once = told.len() == recorded.destroyed.len();
        report.expect(once, Rule::DestroyedKeys, || format!("{customer} is told of a destruction twice"));
        let untrue = told.iter().filter(|epoch| epochs.get(epoch) != Some(&true)).count();
        report.expect(untrue == 0, Rule::DestroyedKeys, || format!("{customer} is told of keys that are there"));
    }
    Ok(())
}
