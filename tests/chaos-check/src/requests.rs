//! Requests, tasks and confirmations in the store, against what clients were told and what the ledger says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::{
    CheckError,
    entries::{Ledger, Recorded, digest},
    finding::{Report, Rule},
    journal::{Event, Line, Sent},
    keys::OF_NO_REQUEST,
    people::Outcomes,
    rows::{As, Database},
};

struct Request {
    idempotency: String,
    state: String,
    action: String,
    open_tasks: String,
    first_due_us: i64,
    due_us: i64,
    closed_us: Option<i64>,
    tasks: BTreeMap<String, String>,
    confirmations: BTreeMap<String, Vec<Confirmation>>,
}

struct Confirmation {
    body: Value,
    confirmed_us: i64,
    late: bool,
}

/// By customer and request (32 hexadecimal digits).
type Requests = HashMap<(String, String), Request>;

fn number(text: Option<String>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(i64::MIN)
}

async fn read(store: &mut Database, report: &mut Report) -> Result<Requests, CheckError> {
    let mut requests = Requests::new();
    let columns = [
        ("customer_id", As::Plain),
        ("request_id", As::Uuid),
        ("idempotency_id", As::Uuid),
        ("state", As::Plain),
        ("action", As::Plain),
        ("open_tasks", As::Plain),
        ("first_due_us", As::Plain),
        ("due_us", As::Plain),
        ("closed_us", As::Plain),
    ];
    store
        .each("requests", &columns, |row| {
            let row: [Option<String>; 9] = row.try_into().unwrap_or_default();
            let [customer, request, idempotency, state, action, open_tasks, first_due, due, closed] = row;
            let key = (customer.unwrap_or_default(), request.unwrap_or_default());
            let request = Request {
                idempotency: idempotency.unwrap_or_default(),
                state: state.unwrap_or_default(),
                action: action.unwrap_or_default(),
                open_tasks: open_tasks.unwrap_or_default(),
                first_due_us: number(first_due),
                due_us: number(due),
                closed_us: closed.and_then(|text| text.parse().ok()),
                tasks: BTreeMap::new(),
                confirmations: BTreeMap::new(),
            };
            let known = requests.insert(key, request).is_some();
            report.expect(!known, Rule::OnlyWhatWasSent, || "a request stands there twice".to_owned());
        })
        .await?;
    let columns =
        [("customer_id", As::Plain), ("request_id", As::Uuid), ("system_id", As::Plain), ("state", As::Plain)];
    store
        .each("tasks", &columns, |row| {
            report.figures.tasks += 1;
            let [customer, request, system, state] = row.try_into().unwrap_or_default();
            let (customer, request) = (customer.unwrap_or_default(), request.unwrap_or_default());
            let (system, state) = (system.unwrap_or_default(), state.unwrap_or_default());
            match requests.get_mut(&(customer.clone(), request.clone())) {
                Some(found) => {
                    let again = found.tasks.insert(system, state).is_some();
                    report.expect(!again, Rule::OneTaskEach, || format!("{customer}/{request} has a task twice"));
                }
                None => report.find(Rule::OneTaskEach, format!("a task is of no request: {customer}/{request}")),
            }
        })
        .await?;
    let columns = [
        ("customer_id", As::Plain),
        ("request_id", As::Uuid),
        ("system_id", As::Plain),
        ("body", As::Plain),
        ("confirmed_us", As::Plain),
        ("late", As::Plain),
    ];
    store
        .each("confirmations", &columns, |row| {
            report.figures.confirmations += 1;
            let row: [Option<String>; 6] = row.try_into().unwrap_or_default();
            let [customer, request, system, body, confirmed, late] = row;
            let (customer, request) = (customer.unwrap_or_default(), request.unwrap_or_default());
            let confirmation = Confirmation {
                body: serde_json::from_str(&body.unwrap_or_default()).unwrap_or_default(),
                confirmed_us: number(confirmed),
                late: late.as_deref() == Some("1"),
            };
            report.figures.late += u64::from(confirmation.late);
            match requests.get_mut(&(customer.clone(), request.clone())) {
                Some(found) => {
                    found.confirmations.entry(system.unwrap_or_default()).or_default().push(confirmation);
                }
                None => {
                    report.find(Rule::OneConfirmationEach, format!("one is of no request: {customer}/{request}"));
                }
            }
        })
        .await?;
    report.figures.requests = requests.len() as u64;
    Ok(requests)
}

pub async fn check(
    store: &mut Database,
    systems: &[String],
    journal: &[Line],
    ledger: &Ledger,
    outcomes: &HashMap<String, Outcomes>,
    report: &mut Report,
) -> Result<(), CheckError> {
    let requests = read(store, report).await?;
    let sent = promised(journal, &requests, report);
    let none = Recorded::default();
    for ((customer, id), request) in &requests {
        let name = format!("{customer}/{id}");
        let Some(sent) = sent.get(&(customer.as_str(), request.idempotency.clone())) else {
            report.find(Rule::OnlyWhatWasSent, format!("{name} was sent by nobody"));
            continue;
        };
        report.expect(sent.action == request.action, Rule::OnlyWhatWasSent, || format!("{name} is another action"));
        dates(&name, request, sent, report);
        let recorded = ledger.get(&(customer.clone(), id.clone())).unwrap_or(&none);
        words_in_ledger(&name, sent, recorded, report);
        if sent.is_declined() {
            declined(&name, request, recorded, report);
            continue;
        }
        complete(&name, request, systems, report);
        in_ledger(&name, request, systems, recorded, report);
        if let Some(expected) = outcomes.get(&sent.request_id) {
            truth(&name, request, expected, report);
        }
    }
    for key in ledger.keys() {
        report.expect(key.1 == OF_NO_REQUEST || requests.contains_key(key), Rule::EntryOfEvent, || {
            format!("the ledger tells of {}/{}, which is not in the store", key.0, key.1)
        });
    }
    Ok(())
}

/// Every promise that a client was given; gives what was sent, by customer and `request_id`.
fn promised<'j>(journal: &'j [Line], requests: &Requests, report: &mut Report) -> HashMap<(&'j str, String), &'j Sent> {
    let by_idempotency: HashMap<(&str, &str), &str> =
        requests.iter().map(|((customer, id), r)| ((customer.as_str(), r.idempotency.as_str()), id.as_str())).collect();
    let mut sent = HashMap::new();
    let mut answered: BTreeSet<&str> = BTreeSet::new();
    for line in journal {
        match &line.event {
            Event::Sent(what) => {
                report.figures.sent += 1;
                report.figures.referred += u64::from(what.referred.is_some());
                report.figures.declined += u64::from(what.is_declined());
                sent.insert((what.customer.as_str(), what.request_id.replace('-', "")), what);
            }
            Event::Acknowledged { customer, request_id, name } => {
                report.figures.acknowledgements += 1;
                answered.insert(request_id);
                let idempotency = request_id.replace('-', "");
                let known = by_idempotency.get(&(customer.as_str(), idempotency.as_str()));
                let named = known.map(|id| (*id).to_owned());
                report.expect(id_of(name) == named, Rule::AcknowledgedIsDurable, || {
                    format!("{name} was acknowledged, and {named:?} is there")
                });
            }
            Event::SeenCompleted { name } => {
                let mut parts = name.split('/').skip(1);
                let customer = parts.next().unwrap_or_default().to_owned();
                let found = id_of(name).and_then(|id| requests.get(&(customer, id)));
                let still = found.is_some_and(|request| request.closed_us.is_some());
                report.expect(still, Rule::AcknowledgedIsDurable, || format!("{name} was completed, and is not now"));
            }
            Event::SeenCheckpoint { .. } => {}
        }
    }
    for what in sent.values().filter(|what| !answered.contains(what.request_id.as_str())) {
        report.find(Rule::AcknowledgedIsDurable, format!("{} was never acknowledged", what.request_id));
    }
    sent
}

/// `customers/acme/requests/<uuid>`
fn id_of(name: &str) -> Option<String> {
    Some(name.rsplit('/').next()?.replace('-', ""))
}

fn complete(name: &str, request: &Request, systems: &[String], report: &mut Report) {
    let done = request.state == "COMPLETED" && request.closed_us.is_some() && request.open_tasks == "0";
    report.expect(done, Rule::RequestComplete, || {
        format!("{name} ({}) is {} with {} open tasks", request.action, request.state, request.open_tasks)
    });
    let planned: Vec<&String> = request.tasks.keys().collect();
    let mut wanted: Vec<&String> = systems.iter().collect();
    wanted.sort();
    report.expect(planned == wanted, Rule::OneTaskEach, || format!("{name} has tasks at {planned:?}"));
    for (system, state) in &request.tasks {
        report.expect(state == "CONFIRMED", Rule::OneTaskEach, || format!("{name} at {system} is {state}"));
        let confirmations = request.confirmations.get(system).map_or(0, Vec::len);
        report.expect(confirmations == 1, Rule::OneConfirmationEach, || {
            format!("{name} at {system} has {confirmations} confirmations")
        });
    }
    for system in request.confirmations.keys().filter(|system| !request.tasks.contains_key(*system)) {
        report.find(Rule::OneConfirmationEach, format!("{name} has a confirmation of {system}, and no task there"));
    }
}

/// Nothing was planned or done, and it is closed for good.
fn declined(name: &str, request: &Request, recorded: &Recorded, report: &mut Report) {
    let closed = request.state == "DECLINED" && request.closed_us.is_some() && request.open_tasks == "0";
    report.expect(closed, Rule::RequestComplete, || format!("{name} was declined, and is {}", request.state));
    let untouched = request.tasks.is_empty() && request.confirmations.is_empty();
    report.expect(untouched, Rule::OneTaskEach, || format!("{name} was declined, and has tasks or confirmations"));
    let told = recorded.instructed == 1 && recorded.closed_otherwise == 1;
    let nothing_else = recorded.planned.is_empty() && recorded.completed.is_empty() && recorded.confirmed.is_empty();
    report.expect(told && nothing_else, Rule::EntryOfEvent, || format!("{name}: declined, and recorded otherwise"));
}

/// What the customer said of it is there once, and nothing that it did not say.
fn words_in_ledger(name: &str, sent: &Sent, recorded: &Recorded, report: &mut Report) {
    let mut expect = |holds: bool, what: &str| report.expect(holds, Rule::EntryOfEvent, || format!("{name}: {what}"));
    let authorised = sent.referred.as_ref().is_some_and(|referred| referred.authorised);
    expect(recorded.authorised == u64::from(authorised), "not authorised as often as its customer did");
    let extended = sent.referred.as_ref().and_then(|referred| referred.extended_due_us);
    expect(recorded.extended.iter().eq(&extended), "not extended as often as its customer did, or otherwise");
}

/// Where nobody extended it, the first due date is the one that counts; what came behind it is marked.
fn dates(name: &str, request: &Request, sent: &Sent, report: &mut Report) {
    let right = match sent.referred.as_ref().and_then(|referred| referred.extended_due_us) {
        Some(extended) => request.due_us == extended && request.first_due_us < extended,
        None => request.due_us == request.first_due_us,
    };
    report.expect(right, Rule::LateMark, || format!("{name}: its due date moved otherwise than its customer said"));
    if let Some(due) = sent.controller_due_us {
        report.expect(request.due_us == due, Rule::LateMark, || {
            format!("{name} is not due when its customer must answer")
        });
    }
    for (system, confirmation) in request.confirmations.iter().flat_map(|(s, all)| all.iter().map(move |c| (s, c))) {
        let late = confirmation.confirmed_us > request.due_us;
        report.expect(late == confirmation.late, Rule::LateMark, || {
            format!("{name} at {system}: late is {late}, and recorded as {}", confirmation.late)
        });
    }
}

/// Each event has one entry, and it says the same.
fn in_ledger(name: &str, request: &Request, systems: &[String], recorded: &Recorded, report: &mut Report) {
    let mut expect = |holds: bool, what: &str| report.expect(holds, Rule::EntryOfEvent, || format!("{name}: {what}"));
    expect(recorded.instructed == 1, "not instructed exactly once");
    expect(recorded.closed_otherwise == 0, "closed in another way, too");
    expect(recorded.planned.iter().eq(systems.iter().collect::<BTreeSet<_>>()), "not planned for every system");
    let late = request.closed_us.is_some_and(|closed| closed > request.due_us);
    expect(recorded.completed == [(request.state.clone(), late)], "not completed exactly once, or late otherwise");
    for (system, confirmations) in &request.confirmations {
        let entries = recorded.confirmed.get(system);
        let same = match (confirmations.as_slice(), entries.map(Vec::as_slice)) {
            ([one], Some([(body, late)])) => digest(&one.body) == *body && one.late == *late,
            _ => false,
        };
        expect(same, &format!("{system}: its confirmation is not its one entry"));
    }
    let others = recorded.confirmed.keys().any(|system| !request.confirmations.contains_key(system));
    expect(!others, "an entry confirms what the store does not");
}

/// What systems said is what there was to do.
fn truth(name: &str, request: &Request, expected: &Outcomes, report: &mut Report) {
    let mut said = Outcomes::new();
    for (system, confirmation) in request.confirmations.iter().flat_map(|(s, all)| all.iter().map(move |c| (s, c))) {
        for outcome in confirmation.body["outcomes"].as_array().into_iter().flatten() {
            let text = |member: &str| outcome[member].as_str().unwrap_or_default().to_owned();
            let (collection, category, what) = (text("collection"), text("category"), text("outcome"));
            said.insert(format!("{system}/{collection} {category} {what} {}", outcome["count"]));
            report.expect(text("grade") == "VERIFIED", Rule::ConfirmationTrue, || {
                format!("{name} at {system} is not verified")
            });
        }
    }
    let (missing, more): (Vec<_>, Vec<_>) = (expected.difference(&said).collect(), said.difference(expected).collect());
    report.expect(missing.is_empty() && more.is_empty(), Rule::ConfirmationTrue, || {
        format!("{name} ({}) lacks {missing:?}, and says {more:?}", request.action)
    });
}
