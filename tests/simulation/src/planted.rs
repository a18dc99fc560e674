//! Defects that are put into the running service on purpose, to see that the simulation finds each of them. They are planted at the
//! store's seam, by bending a statement's text or pretending a commit, or in what a connector answers: the service's own code has no
//! switch for them.

use quittance_sql::Ending;

/// One defect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Planted {
    /// A worker whose lease has passed may report.
    DropFencing,
    /// The customer is told that its requests are taken in, and they are not committed.
    AcknowledgeBeforeCommit,
    /// Match sets are said to be stored, and are not.
    ActBeforeMatchSet,
    /// Nobody is told that work is due.
    LoseWakeUps,
    /// A ledger entry that has its place gets another one.
    AppendTwice,
    /// Every entry is staged twice.
    StageTwice,
    /// Confirmations have no ledger entry.
    ForgetEntry,
    /// A checkpoint is signed over a tree that was not committed.
    SignBeforeCommit,
    /// Nothing is planned at the last system.
    SkipSystem,
    /// A request completes with its first confirmation.
    CompleteWithOpenTask,
    /// A later instruction does not wait for an earlier one about the same person.
    ForgetOrder,
    /// What was confirmed after its time is not said to be late.
    HideLateness,
    /// An extension moves the first due date, too.
    MoveFirstDate,
    /// Two customers' keys at a system are taken for each other.
    SwapCustomers,
    /// A customer can act on another's request.
    LetTrespass,
    /// An objection does not stop what has not begun.
    IgnoreObjection,
    /// The same request sent twice is taken for a new one.
    ForgetRepeats,
    /// New requests go on under the first epoch's key, destroyed or not.
    ReuseDestroyedKey,
    /// A key is said to be re-wrapped under the current epoch, and goes on under the old one.
    RewrapInName,
    /// An epoch's key is destroyed, and nobody looked what is under it.
    DestroyKeyInUse,
    /// What is over is re-wrapped, and not forgotten.
    KeepWhatIsOver,
    /// A confirmation is told before what it says is committed at the system.
    ConfirmBeforeCommit,
    /// Read-back trusts what the act answered, and does not look.
    TrustAct,
    /// Read-back sees the system as it was when the act was done.
    StaleReadBack,
}

impl Planted {
    pub const ALL: &'static [Self] = &[
        Self::DropFencing,
        Self::AcknowledgeBeforeCommit,
        Self::ActBeforeMatchSet,
        Self::LoseWakeUps,
        Self::AppendTwice,
        Self::StageTwice,
        Self::ForgetEntry,
        Self::SignBeforeCommit,
        Self::SkipSystem,
        Self::CompleteWithOpenTask,
        Self::ForgetOrder,
        Self::HideLateness,
        Self::MoveFirstDate,
        Self::SwapCustomers,
        Self::LetTrespass,
        Self::IgnoreObjection,
        Self::ForgetRepeats,
        Self::ReuseDestroyedKey,
        Self::RewrapInName,
        Self::DestroyKeyInUse,
        Self::KeepWhatIsOver,
        Self::ConfirmBeforeCommit,
        Self::TrustAct,
        Self::StaleReadBack,
    ];
}

/// What is known of a transaction on its way.
#[derive(Default)]
pub struct Bending {
    pretend: bool,
}

impl Planted {
    /// Gives the text that is sent instead.
    pub fn bend(self, sql: &str, bending: &mut Bending) -> Option<String> {
        let writes = |table: &str| sql.contains(table);
        match self {
            Self::DropFencing => bent(
                sql,
                &[
                    (" AND tasks.lease = v.lease", ""),
                    ("t.lease = v.lease AND", ""),
                    (" AND tasks.run_at_us + 0 > $3", ""),
                    (" AND t.run_at_us + 0 > $3", ""),
                ],
            ),
            Self::AcknowledgeBeforeCommit => {
                bending.pretend |= writes("INSERT INTO requests");
                None
            }
            Self::ActBeforeMatchSet => {
                bending.pretend |= writes("INSERT INTO match_sets");
                None
            }
            Self::SignBeforeCommit => {
                bending.pretend |= writes("UPDATE ledger_batches SET first_index");
                None
            }
            Self::LoseWakeUps if writes("INSERT INTO ready") => {
                bent(sql, &[("FROM v WHERE true", "FROM v WHERE false")])
            }
            Self::AppendTwice => bent(
                sql,
                &[
                    (
                        "FROM ledger_batches WHERE first_index IS NULL",
                        "FROM ledger_batches WHERE coalesce(first_index, 0) = 0",
                    ),
                    ("AND ledger_batches.first_index IS NULL", ""),
                ],
            ),
            Self::StageTwice if writes("INSERT INTO ledger_entries") => bent(
                sql,
                &[(
                    "SELECT $1, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset FROM v",
                    "SELECT $1, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset FROM v
                     UNION ALL SELECT $1, randomblob(16), request_id, kind, payload, salt, leaf, batch_id, batch_offset FROM v",
                )],
            ),
            Self::ForgetEntry if writes("INSERT INTO ledger_entries") => {
                bent(sql, &[("leaf, batch_id, batch_offset FROM v", "leaf, batch_id, batch_offset FROM v WHERE kind <> 'confirmed'")])
            }
            Self::SkipSystem => bent(
                sql,
                &[(
                    "ORDER BY s.system_id LIMIT $1",
                    "AND s.system_id <> (SELECT max(system_id) FROM systems) ORDER BY s.system_id LIMIT $1",
                )],
            ),
            Self::CompleteWithOpenTask => bent(sql, &[("requests.open_tasks = 1", "requests.open_tasks >= 1")]),
            Self::ForgetOrder => {
                bent(sql, &[("SET previous_request_id = subject_heads.request_id,", "SET previous_request_id = NULL,")])
            }
            Self::HideLateness => bent(sql, &[("body, $2, late FROM v", "body, $2, 0 FROM v")]),
            Self::MoveFirstDate => bent(sql, &[("SET due_us = $3,", "SET due_us = $3, first_due_us = $3,")]),
            Self::SwapCustomers => bent(
                sql,
                &[(
                    "SELECT s.body,",
                    "SELECT replace(replace(replace(s.body, '\"k-c0\"', '\"-\"'), '\"k-c1\"', '\"k-c0\"'), '\"-\"', '\"k-c1\"'),",
                )],
            ),
            Self::LetTrespass => bent(sql, &[("customer_id = $1 AND request_id = $2", "$1 = $1 AND request_id = $2")]),
            Self::IgnoreObjection if writes("reason = 'OBJECTED'") => {
                bent(sql, &[("state IN ('WAITING', 'PENDING')", "state IN ('WAITING')")])
            }
            Self::ForgetRepeats => bent(sql, &[("r.idempotency_id = v.idempotency_id", "false")]),
            Self::ReuseDestroyedKey => {
                bent(sql, &[("ground, key_epoch,\n                wrapped_key", "ground, '1', wrapped_key")])
            }
            Self::RewrapInName => {
                bent(sql, &[("key_epoch = $3, wrapped_key = v.wrapped_key FROM v", "key_epoch = $3 FROM v")])
            }
            Self::DestroyKeyInUse => bent(
                sql,
                &[
                    ("r.key_epoch = $1 AND r.key_epoch <> ''", "false"),
                    ("r.key_epoch = CAST($1 AS TEXT) AND r.key_epoch <> ''", "false"),
                ],
            ),
            Self::KeepWhatIsOver => bent(sql, &[("r.wrapped_key, r.closed_us, r.forgotten_us,", "r.wrapped_key, NULL, NULL,")]),
            _ => None,
        }
    }

    pub fn ending(self, bending: &Bending) -> Ending {
        if bending.pretend { Ending::Pretend } else { Ending::Commit }
    }
}

fn bent(sql: &str, changes: &[(&str, &str)]) -> Option<String> {
    let changed = changes.iter().fold(sql.to_owned(), |text, (from, to)| text.replace(from, to));
    (changed != sql).then_some(changed)
}
