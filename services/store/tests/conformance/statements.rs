//! Listens to the statements that the store sends: all that the suite makes it send are checked, and a case may keep some.

use std::sync::{Arc, Mutex, Once};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Every other table is the deployment's: small, and a reference table on Citus.
pub const CUSTOMERS_TABLES: &[&str] = &[
    "agreements",
    "certificates",
    "confirmations",
    "deadline_statements",
    "extensions",
    "kept_rows",
    "key_epoch_uses",
    "ledger_batches",
    "ledger_entries",
    "match_sets",
    "package_records",
    "packages",
    "replay_matches",
    "replay_shares",
    "requests",
    "restrictions",
    "subject_heads",
    "subject_lines",
    "suppressions",
    "task_waits",
    "tasks",
];

/// The named list (docs/ARCHITECTURE.md, "Tables"): the sequencer looks for what is staged.
const CROSSES_CUSTOMERS: &[&str] = &["FROM ledger_batches WHERE first_index IS NULL"];

/// Stands before what a case asks by itself, which may well be of all customers.
const BY_THE_CASE: &str = "/* by the case */ ";

pub fn by_the_case(sql: &str) -> String {
    format!("{BY_THE_CASE}{sql}")
}

/// What is wrong with a statement: it reads or writes a customer's table without naming the customer for it (I8, and Citus's rule).
pub fn objection(sql: &str) -> Option<&'static str> {
    if sql.contains(BY_THE_CASE) || CROSSES_CUSTOMERS.iter().any(|named| sql.contains(named)) {
        return None;
    }
    let words = sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
    let words: Vec<&str> = words.chain([""]).collect();
    let mut named = 0;
    for pair in words.windows(3).filter(|w| CUSTOMERS_TABLES.contains(&w[1])) {
        match pair[0] {
            "FROM" | "JOIN" | "UPDATE" | "USING" => named += 1,
            "INTO" if pair[2] != "customer_id" => return Some("a row is inserted without its customer"),
            _ => {}
        }
    }
    // By the argument, or by a row that is named so itself.
    let conditions = sql.matches("customer_id = $1").count() + sql.matches("customer_id = c.customer_id").count();
    (conditions < named).then_some("a table is not narrowed to its customer")
}

/// Keeps statements, or checks each.
#[derive(Clone, Default)]
pub struct Statements {
    kept: Option<Arc<Mutex<Vec<String>>>>,
}

impl Statements {
    pub fn keep() -> Self {
        Self { kept: Some(Arc::default()) }
    }

    pub fn all(&self) -> Vec<String> {
        self.kept.iter().flat_map(|kept| kept.lock().unwrap().clone()).collect()
    }

    /// From now on, for all cases: a statement that breaks the rule fails the case that made the store send it.
    pub fn check_all() {
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| tracing::subscriber::set_global_default(Self::default()).unwrap());
    }
}

impl Visit for Statements {
    fn record_str(&mut self, field: &Field, sql: &str) {
        if field.name() != "sql" {
            return;
        }
        match &self.kept {
            Some(kept) => kept.lock().unwrap().push(sql.to_owned()),
            None => {
                if let Some(objection) = objection(sql) {
                    panic!("{objection}: {sql}");
                }
            }
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Subscriber for Statements {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "quittance::sql"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_statement_that_forgets_the_customer_is_heard() {
    for fine in [
        "SELECT 1 FROM tasks WHERE customer_id = $1",
        "SELECT 1 FROM ready WHERE ready_us <= $1",
        "INSERT INTO tasks (customer_id, request_id) SELECT $1, request_id FROM v WHERE true ON CONFLICT DO NOTHING",
        "UPDATE tasks SET state = 'x' FROM v WHERE tasks.customer_id = $1 AND tasks.request_id = v.request_id",
        "SELECT 1 FROM customers c WHERE EXISTS (SELECT 1 FROM requests r WHERE r.customer_id = c.customer_id)",
    ] {
        assert_eq!(objection(fine), None, "{fine}");
    }
    for forgetful in [
        "SELECT 1 FROM tasks",
        "SELECT 1 FROM tasks WHERE request_id = $1",
        "SELECT 1 FROM tasks t JOIN requests r ON r.request_id = t.request_id WHERE t.customer_id = $1",
        "DELETE FROM task_waits\n WHERE on_request_id = $1",
        "UPDATE requests SET state = 'x' WHERE request_id IN (SELECT request_id FROM tasks WHERE customer_id = $1)",
        "INSERT INTO tasks (request_id) SELECT $1",
    ] {
        assert!(objection(forgetful).is_some(), "{forgetful}");
    }
}
