//! What must be left of everybody, by the data maps and by what was instructed: worked out from the rows as they were before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};

use crate::{
    apps::{FILES, Snapshot, TABLES, Table},
    finding::{Report, Rule},
    journal::Sent,
    rows::Texts,
};

/// A row's table and key.
type Key = (&'static str, Texts);

/// `system/collection category OUTCOME count`.
pub type Outcomes = BTreeSet<String>;

pub struct Expected {
    rows: BTreeMap<Key, Texts>,
    /// Rows of those about whom something was instructed.
    instructed: BTreeSet<Key>,
    /// And their folders.
    folders: BTreeSet<String>,
    /// By the request's `request_id`.
    pub outcomes: HashMap<String, Outcomes>,
}

/// All that belongs to one person of one customer's.
#[derive(Default)]
struct Person {
    rows: BTreeMap<&'static str, Vec<Texts>>,
    folder: String,
}

fn key(table: &Table, row: &Texts) -> Key {
    (table.name, row[..table.key.min(row.len())].to_vec())
}

fn text<'a>(table: &Table, row: &'a Texts, column: &str) -> &'a str {
    row.get(table.at(column)).and_then(Option::as_deref).unwrap_or_default()
}

/// By customer and email. Rows that lead to nobody are left out: they must stay as they are.
fn people(before: &Snapshot) -> BTreeMap<(String, String), Person> {
    let mut people: BTreeMap<(String, String), Person> = BTreeMap::new();
    let [customer, address, message, account, orders, line] = &TABLES;
    let (mut by_id, mut by_user, mut by_order) = (HashMap::new(), HashMap::new(), HashMap::new());
    let rows = |table: &Table| before.tables.get(table.name).into_iter().flatten();
    for row in rows(customer) {
        let name = (text(customer, row, "tenant").to_owned(), text(customer, row, "email").to_owned());
        by_id.insert(text(customer, row, "id").to_owned(), name.clone());
        by_user.insert(text(customer, row, "user_id").to_owned(), name);
    }
    for row in rows(orders) {
        if let Some(name) = by_user.get(text(orders, row, "user_id")) {
            by_order.insert(text(orders, row, "id").to_owned(), name.clone());
        }
    }
    let mut give = |table: &Table, row: &Texts, name: Option<&(String, String)>| {
        let Some(name) = name else { return };
        let person = people.entry(name.clone()).or_insert_with(|| Person {
            folder: format!("{}/email/{}/", name.0, name.1.replace('@', "%40")),
            ..Person::default()
        });
        person.rows.entry(table.name).or_default().push(row.clone());
    };
    rows(customer).for_each(|row| give(customer, row, by_id.get(text(customer, row, "id"))));
    rows(address).for_each(|row| give(address, row, by_id.get(text(address, row, "customer_id"))));
    for row in rows(message) {
        let name = (text(message, row, "tenant").to_owned(), text(message, row, "sender_email").to_owned());
        give(message, row, Some(&name));
    }
    rows(account).for_each(|row| give(account, row, by_user.get(text(account, row, "user_id"))));
    rows(orders).for_each(|row| give(orders, row, by_order.get(text(orders, row, "id"))));
    rows(line).for_each(|row| give(line, row, by_order.get(text(line, row, "order_id"))));
    for row in rows(&FILES) {
        let path = text(&FILES, row, "path");
        let mut parts = path.split('/');
        let (tenant, _, email) = (parts.next(), parts.next(), parts.next());
        let name = tenant.zip(email).map(|(tenant, email)| (tenant.to_owned(), email.replace("%40", "@")));
        give(&FILES, row, name.as_ref());
    }
    people
}

/// Carries out on paper what was sent and not declined, in the order in which it was.
pub fn expect(before: &Snapshot, sent: &[&Sent], report: &mut Report) -> Expected {
    let mut people = people(before);
    let mut expected = Expected {
        rows: BTreeMap::new(),
        instructed: BTreeSet::new(),
        folders: BTreeSet::new(),
        outcomes: HashMap::new(),
    };
    for table in TABLES.iter().chain([&FILES]) {
        for row in before.tables.get(table.name).into_iter().flatten() {
            expected.rows.insert(key(table, row), row.clone());
        }
    }
    let everybody = people.len();
    let mut concerned: BTreeSet<(String, String)> = BTreeSet::new();
    for sent in sent {
        if sent.is_declined() {
            continue;
        }
        let name = (sent.customer.clone(), sent.email.clone());
        let Some(person) = people.get_mut(&name) else { continue };
        if concerned.insert(name) {
            expected.folders.insert(person.folder.clone());
            for table in TABLES.iter().chain([&FILES]) {
                for row in person.rows.get(table.name).into_iter().flatten() {
                    expected.instructed.insert(key(table, row));
                    expected.rows.remove(&key(table, row));
                }
            }
        }
        expected.outcomes.insert(sent.request_id.clone(), person.carry_out(sent));
    }
    for name in &concerned {
        for table in TABLES.iter().chain([&FILES]) {
            for row in people[name].rows.get(table.name).into_iter().flatten() {
                expected.rows.insert(key(table, row), row.clone());
            }
        }
    }
    report.figures.people = concerned.len() as u64;
    report.figures.neighbours = (everybody - concerned.len()) as u64;
    expected
}

pub fn compare(expected: &Expected, after: &Snapshot, report: &mut Report) {
    let mut there = BTreeMap::new();
    for table in TABLES.iter().chain([&FILES]) {
        for row in after.tables.get(table.name).into_iter().flatten() {
            there.insert(key(table, row), row.clone());
        }
    }
    let keys: BTreeSet<&Key> = expected.rows.keys().chain(there.keys()).collect();
    for key in keys {
        let (should, is) = (expected.rows.get(key), there.get(key));
        if should == is {
            continue;
        }
        let in_folder = || {
            let path = key.1.first().and_then(Option::as_deref).unwrap_or_default();
            key.0 == FILES.name && expected.folders.iter().any(|folder| path.starts_with(folder.as_str()))
        };
        let rule = match expected.instructed.contains(key) || in_folder() {
            true => Rule::SubjectRows,
            false => Rule::NeighbourRows,
        };
        report.find(rule, format!("{} {:?} should be {should:?} and is {is:?}", key.0, key.1));
    }
}

impl Person {
    fn files(&self) -> &[Texts] {
        self.rows.get(FILES.name).map_or(&[], Vec::as_slice)
    }

    fn marker(&self) -> String {
        format!("{}.restricted", self.folder)
    }

    /// The person's own files, without the worker's mark.
    fn own_files(&self) -> usize {
        let marker = self.marker();
        self.files().iter().filter(|row| row[0].as_ref() != Some(&marker)).count()
    }

    fn carry_out(&mut self, sent: &Sent) -> Outcomes {
        match sent.action.as_str() {
            "ERASURE" => {
                // The user id stays: invoices refer to it.
                let outcomes = self.outcomes("ERASED", &["user_id"]);
                self.erase();
                outcomes
            }
            "ACCESS" => self.outcomes("EXPORTED", &[]),
            "RESTRICTION" => {
                let outcomes = self.outcomes("RESTRICTED", &[]);
                self.mark("1");
                outcomes
            }
            "LIFT_RESTRICTION" => {
                let mut outcomes = self.outcomes("RESTRICTION_LIFTED", &[]);
                let lifted = |files| format!("{}/{} file RESTRICTION_LIFTED {files}", FILES.system, FILES.name);
                // Where the restriction was declined, the worker takes no mark off.
                if self.files().len() == self.own_files() && outcomes.remove(&lifted(self.own_files())) {
                    outcomes.insert(lifted(0));
                }
                self.mark("0");
                outcomes
            }
            "RECTIFICATION" => self.rectify(sent),
            _ => Outcomes::new(),
        }
    }

    /// One line for each category that any row of a collection holds, with how many rows do. `kept`: columns of `customer` that are left.
    fn outcomes(&self, what: &str, kept: &[&str]) -> Outcomes {
        let mut counts: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
        let mut held: BTreeSet<&str> = BTreeSet::new();
        for table in &TABLES {
            for row in self.rows.get(table.name).into_iter().flatten() {
                // What erasure masked is found no more.
                if matches!(table.name, "customer" | "message") && self.masked(table, row) {
                    continue;
                }
                held.insert(table.system);
                let kept = |column: &str| table.name == "customer" && kept.contains(&column);
                for (column, category) in table.fields {
                    if row[table.at(column)].is_some() && !kept(column) {
                        *counts.entry((table.system, table.name, category)).or_default() += 1;
                    }
                }
            }
        }
        let files = self.own_files();
        if files > 0 {
            held.insert(FILES.system);
            counts.insert((FILES.system, FILES.name, "file"), files);
        }
        let mut outcomes: Outcomes = counts
            .into_iter()
            .map(|((system, collection, category), count)| format!("{system}/{collection} {category} {what} {count}"))
            .collect();
        for system in ["crm", "shop", "print"] {
            if !held.contains(system) {
                outcomes.insert(not_held(system));
            }
        }
        outcomes
    }

    fn masked(&self, table: &Table, row: &Texts) -> bool {
        let identifier = if table.name == "customer" { "email" } else { "sender_email" };
        row[table.at(identifier)].is_none()
    }

    fn erase(&mut self) {
        let [customer, _, message, ..] = &TABLES;
        for row in self.rows.entry(customer.name).or_default() {
            for column in ["email", "phone", "remark"] {
                row[customer.at(column)] = None;
            }
            row[customer.at("name")] = Some("erased".to_owned());
        }
        for row in self.rows.entry(message.name).or_default() {
            row[message.at("sender_email")] = None;
            row[message.at("body")] = None;
        }
        for gone in ["address", "account", "orders", "order_line", FILES.name] {
            self.rows.remove(gone);
        }
    }

    fn mark(&mut self, value: &str) {
        for table in &TABLES {
            for row in self.rows.get_mut(table.name).into_iter().flatten() {
                row[table.at("restricted")] = Some(value.to_owned());
            }
        }
        let marker = self.marker();
        let files = self.rows.entry(FILES.name).or_default();
        files.retain(|row| row[0].as_ref() != Some(&marker));
        if value == "1" {
            files.push(vec![Some(marker), Some(hex::encode(Sha256::digest([])))]);
        }
    }

    fn rectify(&mut self, sent: &Sent) -> Outcomes {
        let Some(corrected) = &sent.corrected else { return Outcomes::new() };
        let [customer, ..] = &TABLES;
        for row in self.rows.entry(customer.name).or_default() {
            row[customer.at("name")] = Some(corrected.name.clone());
        }
        let statement = hex::encode(Sha256::digest(&corrected.statement));
        let path = format!("{}statement-1.txt", self.folder);
        self.rows.entry(FILES.name).or_default().push(vec![Some(path), Some(statement)]);
        Outcomes::from([
            "crm/customer first_name RECTIFIED 1".to_owned(),
            "print/files file RECTIFIED 1".to_owned(),
            not_held("shop"),
        ])
    }
}

fn not_held(system: &str) -> String {
    format!("{system}/* * NOT_HELD 0")
}
