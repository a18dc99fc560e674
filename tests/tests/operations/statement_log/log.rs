//! What PostgreSQL's log says of the statements that were sent to one of its databases (`log_statement = 'all'`).

use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Statement {
    pub sql: String,
    /// `$1` first.
    pub arguments: Vec<Option<String>>,
}

/// From BEGIN to its end; a statement outside of any is one of its own.
#[derive(Debug, Default)]
pub struct Transaction {
    pub statements: Vec<Statement>,
}

/// How `tests/with-servers.sh` has a line begin: time, `[`process`] `, database. What a message has more lines of begins with a tab.
fn message<'a>(line: &'a str, database: &str) -> Option<(&'a str, &'a str)> {
    let (before, after) = line.split_once("] ")?;
    let message = after.strip_prefix(database)?.strip_prefix(' ')?;
    Some((before.rsplit_once('[')?.1, message))
}

/// A statement's text, of a message that is one.
fn statement(message: &str) -> Option<&str> {
    let message = message.strip_prefix("LOG:  ")?;
    let prepared = || Some(message.strip_prefix("execute ")?.split_once(": ")?.1);
    message.strip_prefix("statement: ").or_else(prepared)
}

/// `$1 = 'it''s', $2 = NULL`
fn arguments(text: &str) -> Vec<Option<String>> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((_, value)) = rest.split_once(" = ") {
        let Some(quoted) = value.strip_prefix('\'') else {
            all.push(None);
            rest = value;
            continue;
        };
        let (mut read, mut chars) = (String::new(), quoted.char_indices().peekable());
        let mut end = quoted.len();
        while let Some((at, c)) = chars.next() {
            if c == '\'' && chars.next_if(|(_, next)| *next == '\'').is_none() {
                end = at + 1;
                break;
            }
            read.push(c);
        }
        all.push(Some(read));
        rest = &quoted[end..];
    }
    all
}

/// All transactions that a database has seen, in the order of their ends.
pub fn transactions(log: &str, database: &str) -> Vec<Transaction> {
    // By their process: its messages, each with all its lines.
    let mut messages: Vec<(&str, String)> = Vec::new();
    let mut ours = false;
    for line in log.lines() {
        if let Some(more) = line.strip_prefix('\t') {
            if let Some((_, message)) = messages.last_mut().filter(|_| ours) {
                message.push('\n');
                message.push_str(more);
            }
            continue;
        }
        let begun = message(line, database);
        ours = begun.is_some();
        messages.extend(begun.map(|(process, text)| (process, text.to_owned())));
    }
    let mut open: BTreeMap<&str, Transaction> = BTreeMap::new();
    let mut ended: Vec<Transaction> = Vec::new();
    // Where a message with arguments belongs: to what its process has sent last.
    let mut last_alone = false;
    for (process, message) in &messages {
        if let Some(sql) = statement(message) {
            let one = Statement { sql: sql.to_owned(), arguments: Vec::new() };
            last_alone = false;
            if sql.starts_with("BEGIN") {
                ended.extend(open.insert(process, Transaction { statements: vec![one] }));
            } else if sql.starts_with("COMMIT") || sql.starts_with("ROLLBACK") {
                ended.extend(open.remove(process));
            } else if let Some(transaction) = open.get_mut(process) {
                transaction.statements.push(one);
            } else {
                last_alone = true;
                ended.push(Transaction { statements: vec![one] });
            }
        } else if let Some(detail) = message.strip_prefix("DETAIL:  ")
            && detail.to_lowercase().starts_with("parameters: ")
        {
            let transaction = if last_alone { ended.last_mut() } else { open.get_mut(process) };
            if let Some(statement) = transaction.and_then(|transaction| transaction.statements.last_mut()) {
                statement.arguments = arguments(detail);
            }
        }
    }
    ended.extend(open.into_values());
    ended
}

#[test]
fn statements_are_read_with_their_arguments_by_their_transactions() {
    let log = "2026-11-23 01:02:03.456 UTC [7] q1 LOG:  statement: BEGIN; SET LOCAL quittance.customer_id = 'quill'\n\
               2026-11-23 01:02:03.456 UTC [8] q2 LOG:  statement: SELECT 'of another database'\n\
               \t, 2\n\
               2026-11-23 01:02:03.457 UTC [9] q1 LOG:  statement: SELECT 1\n\
               2026-11-23 01:02:03.457 UTC [7] q1 LOG:  execute sqlx_s_3: SELECT 2\n\
               \tFROM tasks\n\
               2026-11-23 01:02:03.457 UTC [7] q1 DETAIL:  parameters: $1 = 'it''s = 3', $2 = NULL, $3 = '{a,''b''}'\n\
               2026-11-23 01:02:03.458 UTC [7] q1 LOG:  statement: COMMIT\n";
    let read: Vec<Vec<String>> = transactions(log, "q1")
        .into_iter()
        .map(|t| t.statements.into_iter().map(|s| format!("{} {:?}", s.sql, s.arguments)).collect())
        .collect();
    assert_eq!(
        read,
        [
            vec!["SELECT 1 []".to_owned()],
            vec![
                "BEGIN; SET LOCAL quittance.customer_id = 'quill' []".to_owned(),
                "SELECT 2\nFROM tasks [Some(\"it's = 3\"), None, Some(\"{a,'b'}\")]".to_owned(),
            ]
        ]
    );
}
