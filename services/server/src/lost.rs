//! What a restored database lacks, by customer and request, for the operator who has to tell them.

use std::collections::BTreeMap;

use quittance_domain::ids::{CustomerId, RequestId, request_name};
use quittance_ledger::Event;
use quittance_store::PlacedId;

#[derive(serde::Serialize)]
pub struct LostOfCustomer {
    customer: String,
    requests: Vec<LostRequest>,
    /// Entries that are about no request: destroyed keys, and replays.
    others: Vec<LostEntry>,
}

#[derive(serde::Serialize)]
struct LostRequest {
    request: String,
    /// Its instruction is among what was lost: the store does not know it at all.
    unknown: bool,
    /// Confirmations among what was lost.
    confirmations: u64,
    entries: Vec<LostEntry>,
}

#[derive(serde::Serialize)]
struct LostEntry {
    entry: u64,
    kind: String,
}

/// By request; without one for what is about none.
type Entries = BTreeMap<Option<RequestId>, Vec<LostEntry>>;

/// In the order of customers and requests, which is that of the requests' time.
pub fn by_customer(known: Vec<PlacedId>) -> Vec<LostOfCustomer> {
    let mut customers: BTreeMap<CustomerId, Entries> = BTreeMap::new();
    for PlacedId { place, customer, request, kind } in known {
        let request = Event::is_of_request(&kind).then(|| RequestId::new(request));
        let entries = customers.entry(customer).or_default().entry(request).or_default();
        entries.push(LostEntry { entry: place, kind });
    }
    customers.into_iter().map(|(customer, entries)| LostOfCustomer::new(&customer, entries)).collect()
}

impl LostOfCustomer {
    fn new(customer: &CustomerId, mut entries: Entries) -> Self {
        let others = entries.remove(&None).unwrap_or_default();
        let requests = entries.into_iter().filter_map(|(id, entries)| Some(LostRequest::new(customer, id?, entries)));
        Self { customer: customer.resource_name(), requests: requests.collect(), others }
    }
}

impl LostRequest {
    fn new(customer: &CustomerId, id: RequestId, entries: Vec<LostEntry>) -> Self {
        let count = |kind: &str| entries.iter().filter(|entry| entry.kind == kind).count() as u64;
        Self {
            request: request_name(customer, id),
            unknown: count(Event::INSTRUCTED) > 0,
            confirmations: count(Event::CONFIRMED),
            entries,
        }
    }

    fn kinds(&self) -> String {
        let mut counts: Vec<(&str, u64)> = Vec::new();
        for LostEntry { kind, .. } in &self.entries {
            match counts.iter_mut().find(|(known, _)| known == kind) {
                Some((_, count)) => *count += 1,
                None => counts.push((kind, 1)),
            }
        }
        let told = |(kind, count)| if count == 1 { String::from(kind) } else { format!("{count} {kind}") };
        counts.into_iter().map(told).collect::<Vec<_>>().join(", ")
    }
}

/// For people: all counts, and `shown` customers with as many requests each.
pub fn text(customers: &[LostOfCustomer], shown: usize) -> String {
    let mut text = String::new();
    for of in customers.iter().take(shown) {
        let LostOfCustomer { customer, requests, others } = of;
        let unknown = requests.iter().filter(|request| request.unknown).count();
        let confirmations: u64 = requests.iter().map(|request| request.confirmations).sum();
        text.push_str(&format!(
            "{customer}: {} requests lack entries; {unknown} of them the store does not know at all; \
             {confirmations} confirmations are lost\n",
            requests.len()
        ));
        for request in requests.iter().take(shown) {
            text.push_str(&format!("  {}: {}\n", request.request, request.kinds()));
        }
        if requests.len() > shown {
            text.push_str(&format!("  and {} more (--output json tells all)\n", requests.len() - shown));
        }
        if !others.is_empty() {
            text.push_str(&format!("  and {} entries about no request (destroyed keys, replays)\n", others.len()));
        }
    }
    if customers.len() > shown {
        text.push_str(&format!("and {} more customers (--output json tells all)\n", customers.len() - shown));
    }
    text
}
