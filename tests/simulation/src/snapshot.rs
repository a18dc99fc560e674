//! What the store holds, read by its own statements and not by the service's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quittance_sql::{ConnectOptions, Pool, SqlError};
use serde::de::DeserializeOwned;

/// Customer and id, the latter in hex.
pub type Rid = (String, String);
/// A request at a system.
pub type TaskId = (Rid, String);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub idempotency: String,
    pub action: String,
    pub state: String,
    pub open_tasks: i64,
    pub exceptions: i64,
    pub created_us: i64,
    pub first_due_us: i64,
    pub due_us: i64,
    pub closed_us: Option<i64>,
    pub generation: i64,
    pub agreement: i64,
    pub urgency: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    pub work: String,
    pub state: String,
    pub lease: i64,
    pub run_at_us: i64,
    pub reason: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Confirmed {
    pub at_us: i64,
    pub late: bool,
    pub body: String,
}

/// A ledger entry. It never changes, but that it gets its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub request: Rid,
    /// With whom it was staged, and where among them.
    pub batch: String,
    pub offset: i64,
    pub kind: String,
    pub payload: String,
    pub salt: String,
    pub leaf: String,
}

/// What a request, or what is kept of it, is sealed under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Empty: its key is gone.
    pub epoch: String,
    /// The beginning of the wrapped key, in hex.
    pub wrapped: String,
    pub forgotten_us: Option<i64>,
    pub bytes: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epoch {
    pub state: String,
    pub closed_us: Option<i64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    pub tree_size: i64,
    pub root: String,
    pub checkpoint: String,
    pub checkpoint_size: i64,
}

/// What did not change since the last one is shared with it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub generation: i64,
    pub systems: Arc<BTreeSet<String>>,
    pub requests: Arc<BTreeMap<Rid, Request>>,
    pub tasks: Arc<BTreeMap<TaskId, Task>>,
    pub confirmations: Arc<BTreeMap<TaskId, Confirmed>>,
    pub match_sets: Arc<BTreeSet<TaskId>>,
    /// By request, system and lease.
    pub records: Arc<BTreeMap<(TaskId, i64), u64>>,
    /// The latest date that each request was extended to.
    pub extended: Arc<BTreeMap<Rid, i64>>,
    /// Customer and id of each batch of ledger entries: the place of its first, once it has one.
    pub batches: Arc<BTreeMap<(String, String), Option<i64>>>,
    pub entries: usize,
    /// Those that the last snapshot had not.
    pub new_entries: Arc<Vec<(i64, Entry)>>,
    pub log: Option<Log>,
    /// Days of each version of each customer's agreement.
    pub windows: Arc<BTreeMap<(String, i64), u16>>,
    pub sealed: Arc<BTreeMap<Rid, Sealed>>,
    /// Under which epoch what is kept for the ends of holds is.
    pub kept: Arc<BTreeSet<(TaskId, String)>>,
    pub epochs: Arc<BTreeMap<i64, Epoch>>,
    pub rotation_asked: bool,
    /// Keys are to be rotated, or a rotation is not through.
    pub keys_turn: bool,
    /// When the first task of each system may be leased.
    pub due_us: Arc<BTreeMap<String, i64>>,
    /// A request under way was planned with older systems.
    pub lacks_systems: bool,
    /// An entry waits for its place, or for a checkpoint over it.
    pub unsigned: bool,
}

/// Tables that are written, as a set of the lists below that are read from them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Written(i64);

/// Which tables the lists are read from.
const LISTS: [&str; 17] = [
    "requests",
    "tasks",
    "confirmations",
    "match_sets",
    "package_records",
    "extensions",
    "ledger_batches",
    "ledger_entries",
    "ledger_log",
    "systems",
    "deployment",
    "agreements",
    "requests",
    "kept_rows",
    "key_epochs",
    "key_rotation",
    "ledger_entries",
];

impl Written {
    const ALL: Self = Self((1 << LISTS.len()) - 1);

    /// By a statement: no trigger and no cascade writes what its text does not name.
    pub fn by(sql: &str) -> Self {
        let mut written = 0;
        for verb in ["INTO", "UPDATE", "DELETE FROM"] {
            for (at, verb) in sql.match_indices(verb) {
                let behind = sql[at + verb.len()..].trim_start();
                let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
                for (n, _) in LISTS.iter().enumerate().filter(|(_, table)| **table == &behind[..end]) {
                    written |= 1 << n;
                }
            }
        }
        Self(written)
    }

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has(self, list: usize) -> bool {
        self.0 & 1 << list != 0
    }
}

/// Reads them all at once, as lists of lists. Those that `$2` has no bit of are not looked for.
const SQL: &str = "
SELECT json_group_array(json_array(customer_id, hex(request_id), hex(idempotency_id), action, state, open_tasks, exceptions, created_us,
    first_due_us, due_us, closed_us, systems_generation, agreement_version, urgency)) FROM requests WHERE $2 & 1
UNION ALL SELECT json_group_array(json_array(customer_id, hex(request_id), system_id, work, state, lease, run_at_us, reason)) FROM tasks
    WHERE $2 & 2
UNION ALL SELECT json_group_array(json_array(customer_id, hex(request_id), system_id, confirmed_us, late, body)) FROM confirmations
    WHERE $2 & 4
UNION ALL SELECT json_group_array(json_array(customer_id, hex(request_id), system_id)) FROM match_sets WHERE $2 & 8
UNION ALL SELECT json_group_array(json_array(customer_id, request_id, system_id, lease, n)) FROM
    (SELECT customer_id, hex(request_id) AS request_id, system_id, lease, count(*) AS n FROM package_records WHERE $2 & 16 GROUP BY 1, 2, 3, 4)
UNION ALL SELECT json_group_array(json_array(customer_id, request_id, due)) FROM
    (SELECT customer_id, hex(request_id) AS request_id, max(due_us) AS due FROM extensions WHERE $2 & 32 GROUP BY 1, 2)
UNION ALL SELECT json_group_array(json_array(customer_id, hex(batch_id), first_index)) FROM ledger_batches WHERE $2 & 64
UNION ALL SELECT json_group_array(json_array(rowid, customer_id, hex(request_id), kind, CAST(payload AS TEXT), hex(salt), hex(leaf),
    hex(batch_id), batch_offset)) FROM (SELECT rowid, * FROM ledger_entries WHERE $2 & 128 AND rowid > $1 ORDER BY rowid)
UNION ALL SELECT json_group_array(json_array(tree_size, hex(root), checkpoint, checkpoint_size)) FROM ledger_log WHERE $2 & 256
UNION ALL SELECT json_group_array(system_id) FROM systems WHERE $2 & 512
UNION ALL SELECT json_group_array(systems_generation) FROM deployment WHERE $2 & 1024
UNION ALL SELECT json_group_array(json_array(customer_id, version, body ->> 'window_days')) FROM agreements WHERE $2 & 2048
UNION ALL SELECT json_group_array(json_array(customer_id, hex(request_id), key_epoch, hex(substr(wrapped_key, 1, 16)), forgotten_us,
    length(sealed_subject))) FROM requests WHERE $2 & 4096
UNION ALL SELECT json_group_array(json_array(customer_id, hex(request_id), system_id, key_epoch)) FROM kept_rows WHERE $2 & 8192
UNION ALL SELECT json_group_array(json_array(epoch, state, closed_us)) FROM key_epochs WHERE $2 & 16384
UNION ALL SELECT json_group_array(asked) FROM key_rotation WHERE $2 & 32768
UNION ALL SELECT json_array(CASE WHEN $2 & 65536 THEN (SELECT count(*) FROM ledger_entries) END)";

/// Which of the lists has the ledger's entries: of these only the new ones are read, for they are most of a store.
const ENTRIES: usize = 7;
const NO_ENTRIES: &str = "[]";

/// After so many reads of what was written, all is read: nothing else may be another than it was.
const ALL_EVERY: u64 = 16;

/// Why nothing can be said of the store.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the store cannot be read: {0}")]
    Sql(#[from] SqlError),
    #[error("{0} was changed by no statement that says so: the simulation would have missed it")]
    Unsaid(&'static str),
}

/// Looks at a store from beside it.
pub struct Reader {
    pool: Pool,
    reads: u64,
    entries_seen: i64,
    texts: Vec<String>,
    last: Snapshot,
}

type RequestFields = (String, String, String, String, String, i64, i64, i64, i64, i64, Option<i64>, i64, i64, i64);
type TaskFields = (String, String, String, String, String, i64, i64, String);
type SealedFields = (String, String, String, String, Option<i64>, i64);
type EntryFields = (i64, String, String, String, String, String, String, String, i64);

#[expect(clippy::expect_used, reason = "the lists are the statement's own")]
fn list<T: DeserializeOwned>(text: &str) -> Vec<T> {
    serde_json::from_str(text).expect("a list of the snapshot")
}

impl Reader {
    pub fn open(url: &str) -> Result<Self, SqlError> {
        let options = ConnectOptions { connections_max: 1, ..ConnectOptions::new(url) };
        let (texts, last) = (Vec::new(), Snapshot::default());
        Ok(Self { pool: Pool::open(&options)?, reads: 0, entries_seen: 0, texts, last })
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn texts(&self, after: i64, written: Written) -> Result<Vec<String>, SqlError> {
        let mut tx = self.pool.begin_read().await?;
        let rows = tx.fetch(SQL, vec![after.into(), written.0.into()]).await?;
        tx.rollback().await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// A list that is another than it was when it was read last, though no statement said that it writes its table.
    fn unsaid(&self, texts: &[String], written: Written) -> Result<(), ReadError> {
        let was = |n: usize| if n == ENTRIES { Some(NO_ENTRIES) } else { self.texts.get(n).map(String::as_str) };
        let same = |n: &usize| was(*n).is_none_or(|was| was == texts[*n]);
        match (0..texts.len()).filter(|n| !written.has(*n)).find(|n| !same(n)) {
            Some(n) => Err(ReadError::Unsaid(LISTS[n])),
            None => Ok(()),
        }
    }

    /// All ledger entries, those that were seen before too, at the end.
    pub async fn entries(&self) -> Result<Vec<(i64, Entry)>, ReadError> {
        let mut texts = self.texts(0, Written::ALL).await?;
        let all = std::mem::replace(&mut texts[ENTRIES], NO_ENTRIES.to_owned());
        self.unsaid(&texts, Written::default())?;
        Ok(entries(&all))
    }

    /// What was written since the last read. `None`: it is as it was.
    pub async fn read(&mut self, written: Written) -> Result<Option<Snapshot>, ReadError> {
        self.reads += 1;
        let whole = self.texts.is_empty() || self.reads.is_multiple_of(ALL_EVERY);
        if written == Written::default() && !whole {
            return Ok(None);
        }
        let mut texts = self.texts(self.entries_seen, if whole { Written::ALL } else { written }).await?;
        if whole {
            self.unsaid(&texts, written)?;
        } else {
            for (n, text) in texts.iter_mut().enumerate().filter(|(n, _)| !written.has(*n) && *n != ENTRIES) {
                text.clone_from(&self.texts[n]);
            }
        }
        if texts == self.texts {
            return Ok(None);
        }
        let mut now = self.last.clone();
        for (n, text) in texts.iter().enumerate() {
            if self.texts.get(n) != Some(text) {
                now.take(n, text);
            }
        }
        self.texts = texts;
        self.entries_seen = now.new_entries.iter().map(|(id, _)| *id).fold(self.entries_seen, i64::max);
        let older = |r: &Request| r.state == "IN_PROGRESS" && r.generation < now.generation;
        now.lacks_systems = now.requests.values().any(older);
        let behind = |log: &Log| log.tree_size > log.checkpoint_size;
        now.unsigned = now.batches.values().any(Option::is_none) || now.log.as_ref().is_some_and(behind);
        let under_way = |epoch: &Epoch| !matches!(epoch.state.as_str(), "CURRENT" | "LOGGED");
        now.keys_turn = now.rotation_asked || now.epochs.values().any(under_way);
        self.last = now.clone();
        Ok(Some(now))
    }
}

impl Snapshot {
    /// Takes the `n`-th list of the statement.
    fn take(&mut self, n: usize, text: &str) {
        match n {
            0 => self.requests = Arc::new(list::<RequestFields>(text).into_iter().map(request).collect()),
            1 => {
                let task = |(c, r, s, work, state, lease, run_at_us, reason): TaskFields| {
                    (((c, r), s), Task { work, state, lease, run_at_us, reason })
                };
                let tasks: BTreeMap<TaskId, Task> = list(text).into_iter().map(task).collect();
                let mut due_us: BTreeMap<String, i64> = BTreeMap::new();
                for ((_, system), task) in tasks.iter().filter(|(_, task)| task.may_be_leased()) {
                    let due = due_us.entry(system.clone()).or_insert(task.run_at_us);
                    *due = (*due).min(task.run_at_us);
                }
                (self.tasks, self.due_us) = (Arc::new(tasks), Arc::new(due_us));
            }
            2 => {
                let confirmed = |(c, r, s, at_us, late, body): (String, String, String, i64, i64, String)| {
                    (((c, r), s), Confirmed { at_us, late: late == 1, body })
                };
                self.confirmations = Arc::new(list(text).into_iter().map(confirmed).collect());
            }
            3 => {
                let all = list::<(String, String, String)>(text).into_iter();
                self.match_sets = Arc::new(all.map(|(c, r, s)| ((c, r), s)).collect());
            }
            4 => {
                let all = list::<(String, String, String, i64, u64)>(text).into_iter();
                self.records = Arc::new(all.map(|(c, r, s, lease, n)| ((((c, r), s), lease), n)).collect());
            }
            5 => {
                let all = list::<(String, String, i64)>(text).into_iter();
                self.extended = Arc::new(all.map(|(c, r, due)| ((c, r), due)).collect());
            }
            6 => {
                let all = list::<(String, String, Option<i64>)>(text).into_iter();
                self.batches = Arc::new(all.map(|(customer, batch, at)| ((customer, batch), at)).collect());
            }
            ENTRIES => self.new_entries = Arc::new(entries(text)),
            8 => {
                let log = list::<(i64, String, String, i64)>(text).into_iter().next();
                self.log = log.map(|(tree_size, root, checkpoint, checkpoint_size)| Log {
                    tree_size,
                    root,
                    checkpoint,
                    checkpoint_size,
                });
            }
            9 => self.systems = Arc::new(list(text).into_iter().collect()),
            10 => self.generation = list::<i64>(text).first().copied().unwrap_or_default(),
            11 => {
                let all = list::<(String, i64, u16)>(text).into_iter();
                self.windows = Arc::new(all.map(|(c, version, days)| ((c, version), days)).collect());
            }
            12 => {
                let sealed = |(c, r, epoch, wrapped, forgotten_us, bytes): SealedFields| {
                    ((c, r), Sealed { epoch, wrapped, forgotten_us, bytes })
                };
                self.sealed = Arc::new(list(text).into_iter().map(sealed).collect());
            }
            13 => {
                let all = list::<(String, String, String, String)>(text).into_iter();
                self.kept = Arc::new(all.map(|(c, r, s, epoch)| (((c, r), s), epoch)).collect());
            }
            14 => {
                let all = list::<(i64, String, Option<i64>)>(text).into_iter();
                self.epochs = Arc::new(all.map(|(n, state, closed_us)| (n, Epoch { state, closed_us })).collect());
            }
            15 => self.rotation_asked = list::<i64>(text).first() == Some(&1),
            _ => self.entries = list::<usize>(text).first().copied().unwrap_or_default(),
        }
    }
}

fn entries(text: &str) -> Vec<(i64, Entry)> {
    let entry = |(id, customer, request, kind, payload, salt, leaf, batch, offset): EntryFields| {
        (id, Entry { request: (customer, request), batch, offset, kind, payload, salt, leaf })
    };
    list(text).into_iter().map(entry).collect()
}

fn request(r: RequestFields) -> (Rid, Request) {
    let request = Request {
        idempotency: r.2,
        action: r.3,
        state: r.4,
        open_tasks: r.5,
        exceptions: r.6,
        created_us: r.7,
        first_due_us: r.8,
        due_us: r.9,
        closed_us: r.10,
        generation: r.11,
        agreement: r.12,
        urgency: r.13,
    };
    ((r.0, r.1), request)
}

impl Request {
    pub fn is_open(&self) -> bool {
        self.closed_us.is_none()
    }

    pub fn is_completed(&self) -> bool {
        matches!(self.state.as_str(), "COMPLETED" | "COMPLETED_WITH_EXCEPTIONS")
    }
}

impl Task {
    pub fn may_be_leased(&self) -> bool {
        matches!(self.state.as_str(), "PENDING" | "RUNNING" | "AWAITING_CONFIRMATION")
    }
}
