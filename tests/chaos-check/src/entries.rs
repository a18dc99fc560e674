//! Ledger entries in the store: each opens its leaf, has its place in the log, and no place has two.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    CheckError,
    finding::{Report, Rule},
    rows::{As, Database},
    tree::Hash,
};

/// What the ledger says of one request.
#[derive(Default)]
pub struct Recorded {
    pub instructed: u64,
    pub planned: BTreeSet<String>,
    /// State, late.
    pub completed: Vec<(String, bool)>,
    /// By system: the confirmation's digest, late.
    pub confirmed: BTreeMap<String, Vec<(Hash, bool)>>,
    pub closed_otherwise: u64,
    pub authorised: u64,
    /// The due times that it was given later.
    pub extended: Vec<i64>,
    /// Epochs whose keys it says are destroyed.
    pub destroyed: Vec<u32>,
}

/// By customer and request (32 hexadecimal digits).
pub type Ledger = HashMap<(String, String), Recorded>;

/// The same for the same statement, however its members are ordered.
pub fn digest(statement: &Value) -> Hash {
    Sha256::digest(statement.to_string()).into()
}

struct Batch {
    first: Option<u64>,
    leaves: Vec<u8>,
}

pub async fn check(
    store: &mut Database,
    published: Option<&[Hash]>,
    report: &mut Report,
) -> Result<Ledger, CheckError> {
    let mut batches = HashMap::new();
    let columns =
        [("customer_id", As::Plain), ("batch_id", As::Uuid), ("leaves", As::Bytes), ("first_index", As::Plain)];
    store
        .each("ledger_batches", &columns, |row| {
            let [customer, batch, leaves, first] = row.try_into().unwrap_or_default();
            let leaves = hex::decode(leaves.unwrap_or_default()).unwrap_or_default();
            let first = first.and_then(|text| text.parse().ok());
            batches.insert((customer.unwrap_or_default(), batch.unwrap_or_default()), Batch { first, leaves });
        })
        .await?;
    let mut ledger = Ledger::new();
    let mut placed: Vec<bool> = vec![false; published.map_or(0, <[Hash]>::len)];
    let columns = [
        ("customer_id", As::Plain),
        ("request_id", As::Uuid),
        ("kind", As::Plain),
        ("payload", As::Bytes),
        ("salt", As::Bytes),
        ("leaf", As::Bytes),
        ("batch_id", As::Uuid),
        ("batch_offset", As::Plain),
    ];
    store
        .each("ledger_entries", &columns, |row| {
            let row: [Option<String>; 8] = row.try_into().unwrap_or_default();
            let [customer, request, kind, payload, salt, leaf, batch, offset] = row.map(Option::unwrap_or_default);
            report.figures.entries += 1;
            let name = || format!("entry {kind} of {customer}/{request}");
            let bytes = |text: &str| hex::decode(text).unwrap_or_default();
            let payload = bytes(&payload);
            let opened: Hash = Sha256::new()
                .chain_update(b"quittance/v1/entry\0")
                .chain_update(bytes(&salt))
                .chain_update(&payload)
                .finalize()
                .into();
            report.expect(bytes(&leaf) == opened, Rule::Leaf, || format!("{} does not open its leaf", name()));
            let offset = offset.parse().unwrap_or(usize::MAX);
            match batches.get(&(customer.clone(), batch)) {
                Some(Batch { first: Some(first), leaves }) => {
                    let in_batch = leaves.as_chunks::<32>().0.get(offset);
                    report.expect(in_batch == Some(&opened), Rule::Leaf, || format!("{} is not in its batch", name()));
                    let place = usize::try_from(*first).unwrap_or(usize::MAX).saturating_add(offset);
                    match published.map(|entries| entries.get(place)) {
                        Some(Some(entry)) if *entry == opened => {
                            report.expect(!placed[place], Rule::Place, || format!("place {place} has two entries"));
                            placed[place] = true;
                        }
                        Some(Some(_)) => report.find(Rule::Place, format!("{} is not at place {place}", name())),
                        Some(None) => report.find(Rule::Place, format!("{} is not published", name())),
                        None => {}
                    }
                }
                _ => report.find(Rule::Place, format!("{} has no place", name())),
            }
            match serde_json::from_slice::<Value>(&payload) {
                Ok(payload) => {
                    let says = |member: &str| payload[member].as_str().unwrap_or_default().replace('-', "");
                    let same = says("request") == request
                        && payload["customer"] == customer.as_str()
                        && payload["kind"] == kind.as_str();
                    report.expect(same, Rule::EntryOfEvent, || format!("{} is of something else", name()));
                    record(ledger.entry((customer, request)).or_default(), &kind, &payload["event"]);
                }
                Err(_) => report.find(Rule::EntryOfEvent, format!("{} is no event", name())),
            }
        })
        .await?;
    let empty = placed.iter().filter(|placed| !**placed).count();
    report.expect(empty == 0, Rule::Place, || format!("{empty} entries of the log are of no event in the store"));
    Ok(ledger)
}

fn record(recorded: &mut Recorded, kind: &str, event: &Value) {
    let late = event["late"] == true;
    match kind {
        "instructed" => recorded.instructed += 1,
        "planned" => {
            let systems = event["systems"].as_array().into_iter().flatten();
            recorded.planned.extend(systems.filter_map(|s| s["system"].as_str()).map(str::to_owned));
        }
        "confirmed" => {
            let system = event["confirmation"]["system"].as_str().unwrap_or_default().to_owned();
            recorded.confirmed.entry(system).or_default().push((digest(&event["confirmation"]), late));
        }
        "completed" => recorded.completed.push((event["state"].as_str().unwrap_or_default().to_owned(), late)),
        "authorised" => recorded.authorised += 1,
        "extended" => recorded.extended.push(event["due_us"].as_i64().unwrap_or_default()),
        "closed" => recorded.closed_otherwise += 1,
        "key_destroyed" => {
            recorded.destroyed.push(event["epoch"].as_u64().and_then(|n| n.try_into().ok()).unwrap_or_default());
        }
        _ => {}
    }
}
