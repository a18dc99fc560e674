//! What a transaction may touch, so that the tables can be spread by customer: rows of one customer, and each statement says of which; and the
//! list of those that touch several.

use super::log::{Statement, Transaction};

/// A transaction that may touch several customers' rows.
pub struct Crossing {
    /// Stands in the statement that does so, and in no other.
    pub says: &'static str,
    pub why: &'static str,
}

/// All that touch rows of several customers (docs/ARCHITECTURE.md, "Tables").
pub const CROSSINGS: &[Crossing] = &[
    Crossing {
        says: "INSERT INTO systems",
        why: "a system that customers share is registered for all of them at once",
    },
    Crossing { says: "WHERE c.idempotency_id = $1", why: "a customer that is created twice by one call's id is one" },
    Crossing { says: "c.customer_id > $1 ORDER BY", why: "operators list customers" },
    Crossing { says: "FROM ready", why: "the dispatcher looks for who has work that is due" },
    Crossing {
        says: "FROM ledger_batches WHERE first_index IS NULL",
        why: "the sequencer gives staged entries their places in the one log",
    },
    Crossing { says: "UPDATE ledger_batches SET first_index", why: "and these are written" },
    Crossing {
        says: "FROM ledger_batches WHERE first_index IS NOT NULL",
        why: "the newest place in the one log is read",
    },
    Crossing { says: "e.batch_offset AS place", why: "entries are read by their places in the one log" },
    Crossing { says: "SET state = 'REWRAPPED'", why: "that nothing is under a key epoch is proven for all customers" },
    Crossing { says: "r.key_epoch = CAST($1", why: "and once more before its key is destroyed" },
    Crossing {
        says: "FROM customers c WHERE EXISTS (SELECT 1 FROM requests r\n",
        why: "customers with requests that lack a system are looked for",
    },
    Crossing { says: "r.urgency = 0 AND r.due_us <= $1", why: "customers with requests that run late are looked for" },
    Crossing { says: "AND r.urgency = $1)", why: "customers with overdue requests are looked for" },
    Crossing { says: "k.follow_request_id IS NULL", why: "customers with holds that have ended are looked for" },
    Crossing { says: "FROM customers c WHERE c.customer_id >= $2", why: "forgetting walks from customer to customer" },
    Crossing {
        says: "FROM customers c WHERE c.customer_id > $1 AND (EXISTS (SELECT 1 FROM subject_heads",
        why: "and from one with subjects that an old key covers to the next",
    },
    Crossing { says: "replay_shares s", why: "replays, of which each customer has a share" },
    Crossing { says: "FROM key_epoch_uses u", why: "customers who are to be told of a destroyed key are looked for" },
    Crossing {
        says: "FROM suppressions",
        why: "customers whose pseudonyms have expired, or may be in a restored system",
    },
    Crossing { says: "FROM replay_matches m", why: "customers of whom a replay has matched something are looked for" },
];

const ONE_CUSTOMER: &str = "SET LOCAL quittance.customer_id = '";
const DEPLOYMENT: &str = "SET LOCAL quittance.scope = 'deployment'";

pub struct Rules<'a> {
    /// Tables whose rows are each a customer's.
    pub tables: &'a [String],
    /// All that there are. Their names stand in no other word.
    pub customers: &'a [&'a str],
}

/// The names behind FROM, JOIN, UPDATE, USING and INTO, each with the word that follows.
fn tables(sql: &str) -> Vec<(String, String)> {
    let words = sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.chain([""]).collect();
    let names = words.windows(3).filter(|w| matches!(w[0], "FROM" | "JOIN" | "UPDATE" | "USING" | "INTO"));
    names.map(|w| (w[1].to_owned(), if w[0] == "INTO" { w[2].to_owned() } else { String::new() })).collect()
}

/// What stands behind each `customer_id = `: an argument's value, or another row's customer.
fn conditions(statement: &Statement) -> (Vec<&str>, usize) {
    let (mut named, mut joined) = (Vec::new(), 0);
    for (at, condition) in statement.sql.match_indices("customer_id = ") {
        let behind = &statement.sql[at + condition.len()..];
        let end = |more: fn(char) -> bool| behind.find(|c| !more(c)).unwrap_or(behind.len());
        if let Some(number) = behind.strip_prefix('$') {
            let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            let place = number[..digits].parse::<usize>().unwrap_or_default();
            named.extend(statement.arguments.get(place.wrapping_sub(1)).and_then(Option::as_deref));
        } else if behind[..end(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))].ends_with(".customer_id") {
            joined += 1;
        }
    }
    (named, joined)
}

impl Rules<'_> {
    pub fn touched(&self, statement: &Statement) -> Vec<String> {
        tables(&statement.sql).into_iter().map(|(name, _)| name).filter(|name| self.tables.contains(name)).collect()
    }

    /// The customers that a transaction names anywhere.
    pub fn named(&self, transaction: &Transaction) -> Vec<&str> {
        let of = |statement: &Statement, customer: &str| {
            let mut texts = statement.arguments.iter().flatten().chain([&statement.sql]);
            texts.any(|text| text.contains(customer))
        };
        let all = self.customers.iter().copied();
        all.filter(|customer| transaction.statements.iter().any(|statement| of(statement, customer))).collect()
    }

    fn touching<'t>(&self, transaction: &'t Transaction) -> Vec<&'t Statement> {
        transaction.statements.iter().filter(|statement| !self.touched(statement).is_empty()).collect()
    }

    /// Whose a transaction is, if it is of one.
    fn customer<'t>(&'t self, transaction: &'t Transaction) -> Option<&'t str> {
        let set = transaction.statements[0].sql.split_once(ONE_CUSTOMER).and_then(|(_, name)| name.split('\'').next());
        set.or_else(|| self.named(transaction).first().copied())
    }

    /// Why a statement is not of rows of this one customer.
    fn stray(&self, statement: &Statement, customer: Option<&str>) -> Option<String> {
        let sql = &statement.sql;
        let touched = || tables(sql).into_iter().filter(|(name, _)| self.tables.contains(name));
        if touched().any(|(_, next)| !next.is_empty() && next != "customer_id") {
            return Some(format!("a row is inserted without its customer: {sql}"));
        }
        let read = touched().filter(|(_, next)| next.is_empty()).count();
        let (named, joined) = conditions(statement);
        if named.iter().any(|name| Some(*name) != customer) {
            return Some(format!("it is of {customer:?}, and asks for {named:?}: {sql}"));
        }
        let narrowed = read == 0 || (!named.is_empty() && named.len() + joined >= read);
        (!narrowed).then(|| format!("a statement is not narrowed to one customer: {sql}"))
    }

    /// Why a transaction is not one customer's.
    pub fn objection(&self, transaction: &Transaction) -> Option<String> {
        let (named, touching) = (self.named(transaction), self.touching(transaction));
        if named.len() > 1 {
            return Some(format!("it names {}", named.join(" and ")));
        }
        let begin = &transaction.statements[0].sql;
        if !touching.is_empty() && !begin.contains(ONE_CUSTOMER) && !begin.contains(DEPLOYMENT) {
            return Some("it does not say of whom it is".to_owned());
        }
        let customer = self.customer(transaction);
        touching.into_iter().find_map(|statement| self.stray(statement, customer))
    }

    /// Those of the named list by which a transaction may be what is objected to: each of its statements that strays is on the list.
    pub fn crossings(&self, transaction: &Transaction) -> Option<Vec<&'static Crossing>> {
        if !transaction.statements[0].sql.contains(DEPLOYMENT) {
            return None;
        }
        let customer = self.customer(transaction);
        let mut strays = self.touching(transaction);
        strays.retain(|statement| self.stray(statement, customer).is_some());
        if strays.is_empty() {
            // It names two, in what is of no customer.
            let names =
                |s: &&Statement| self.customers.iter().any(|c| s.arguments.iter().flatten().any(|a| a.contains(c)));
            strays.extend(transaction.statements.iter().filter(names));
        }
        strays.into_iter().map(|stray| CROSSINGS.iter().find(|crossing| stray.sql.contains(crossing.says))).collect()
    }
}
