//! The checker finds what is wrong: a small run that is whole is damaged in one place at a time, and each damage must be found.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr as _,
    time::Duration,
};

use quittance_chaos::{Options, StoreKind};
use quittance_chaos_check::{Manifest, Rule, check};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, sqlite::SqliteConnectOptions};

/// How to break a promise, and by which rule that must be found.
struct Damage {
    what: &'static str,
    found_by: Rule,
    inflict: Inflict,
}

enum Inflict {
    /// A statement on the store.
    Store(&'static str),
    Crm(&'static str),
    Shop(&'static str),
    Files(fn(&Manifest)),
}

/// That was carried out: what was declined has neither tasks nor confirmations to damage.
const ONE_ERASURE: &str =
    "(SELECT t.request_id FROM requests t JOIN ledger_entries e ON e.request_id = t.request_id AND e.kind = 'planned'
    WHERE t.action = 'ERASURE' ORDER BY t.request_id LIMIT 1)";

fn damages() -> Vec<Damage> {
    let damage = |what, found_by, inflict| Damage { what, found_by, inflict };
    vec![
        damage(
            "a confirmation is deleted",
            Rule::OneConfirmationEach,
            Inflict::Store("DELETE FROM confirmations WHERE system_id = 'crm' AND request_id = {one}"),
        ),
        damage(
            "a confirmation counts one more",
            Rule::ConfirmationTrue,
            Inflict::Store("UPDATE confirmations SET body = replace(body, '\"count\":2', '\"count\":3') WHERE request_id = {one}"),
        ),
        damage(
            "a confirmation is not what the ledger says",
            Rule::EntryOfEvent,
            Inflict::Store("UPDATE confirmations SET body = replace(body, '\"by\":\"', '\"by\":\"x') WHERE request_id = {one}"),
        ),
        damage(
            "what came in time is marked late",
            Rule::LateMark,
            Inflict::Store("UPDATE confirmations SET late = 1 - late WHERE system_id = 'shop' AND request_id = {one}"),
        ),
        damage(
            "a due date is moved",
            Rule::LateMark,
            Inflict::Store("UPDATE requests SET due_us = due_us + 1 WHERE request_id = {one}"),
        ),
        damage(
            "an acknowledged request is gone, with all that is about it",
            Rule::AcknowledgedIsDurable,
            Inflict::Store("DELETE FROM confirmations WHERE request_id = {one}; DELETE FROM tasks WHERE request_id = {one};
                            DELETE FROM requests WHERE request_id = {one}"),
        ),
        damage(
            "a request that nobody sent",
            Rule::OnlyWhatWasSent,
            Inflict::Store("UPDATE requests SET idempotency_id = zeroblob(16) WHERE request_id = {one}"),
        ),
        damage(
            "a request that is open",
            Rule::RequestComplete,
            Inflict::Store("UPDATE requests SET state = 'IN_PROGRESS', closed_us = NULL WHERE request_id = {one}"),
        ),
        damage(
            "a task that is not done",
            Rule::OneTaskEach,
            Inflict::Store("UPDATE tasks SET state = 'PENDING' WHERE system_id = 'crm' AND request_id = {one}"),
        ),
        damage(
            "a system that was left out",
            Rule::OneTaskEach,
            Inflict::Store("DELETE FROM tasks WHERE system_id = 'print' AND request_id = {one};
                            DELETE FROM confirmations WHERE system_id = 'print' AND request_id = {one}"),
        ),
        damage(
            "a payload that is not what was committed to",
            Rule::Leaf,
            Inflict::Store("UPDATE ledger_entries SET payload = CAST(replace(CAST(payload AS TEXT), 'crm', 'CRM') AS BLOB)
                            WHERE kind = 'planned' AND request_id = {one}"),
        ),
        damage(
            "an entry that is gone from the store",
            Rule::Place,
            Inflict::Store("DELETE FROM ledger_entries WHERE kind = 'completed' AND request_id = {one}"),
        ),
        damage(
            "an entry that is there twice",
            Rule::EntryOfEvent,
            Inflict::Store("INSERT INTO ledger_entries (customer_id, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset)
                            SELECT customer_id, zeroblob(16), request_id, kind, payload, salt, leaf, batch_id, batch_offset
                            FROM ledger_entries WHERE kind = 'completed' AND request_id = {one}"),
        ),
        damage(
            "entries that were never given a place",
            Rule::Place,
            Inflict::Store("UPDATE ledger_batches SET first_index = NULL WHERE batch_id =
                            (SELECT batch_id FROM ledger_entries WHERE kind = 'completed' AND request_id = {one})"),
        ),
        damage(
            "a request needs a key that is destroyed",
            Rule::DestroyedKeys,
            Inflict::Store("UPDATE requests SET key_epoch = '1' WHERE request_id = {one}"),
        ),
        damage(
            "a subject is told by a key that is destroyed",
            Rule::DestroyedKeys,
            Inflict::Store(
                "INSERT INTO subject_heads (customer_id, pseudonym, request_id)
                 VALUES ('acme', x'0000000100000000000000000000000000000000', x'00000000000000000000000000000000')",
            ),
        ),
        damage("a leaf in a bundle is altered", Rule::Checkpoint, Inflict::Files(|m| alter(&first_file(m, "tile/entries"), 2))),
        damage("a hash in a tile is altered", Rule::Tiles, Inflict::Files(|m| alter(&first_file(m, "tile/0"), 0))),
        damage("a tile is gone", Rule::Tiles, Inflict::Files(|m| remove_all(m, "tile/0"))),
        damage("the checkpoint is not the log's", Rule::Checkpoint, Inflict::Files(|m| alter(&m.published.join("checkpoint"), 100))),
        damage("the log falls back", Rule::OnlyGrows, Inflict::Files(fall_back)),
        damage("a neighbour's row is touched", Rule::NeighbourRows, Inflict::Crm("UPDATE customer SET remark = 'x' WHERE email = 'person3@example.com' AND tenant = 'bolt'")),
        damage("a neighbour's order is gone", Rule::NeighbourRows, Inflict::Shop("DELETE FROM order_line WHERE order_id = 2000006 AND line = 1")),
        damage("a row comes from nowhere", Rule::NeighbourRows, Inflict::Shop("INSERT INTO account VALUES ('U-x', 'acme', 'x', '0')")),
        damage("a neighbour's file is gone", Rule::NeighbourRows, Inflict::Files(|m| {
            fs::remove_file(m.apps.files.join("cedar/email/person7%40example.com/letter.txt")).unwrap();
        })),
        damage("an erased address is back", Rule::SubjectRows, Inflict::Crm(
            "INSERT INTO address SELECT id, 'home', 'Street ' || id || ' home', 'City', '0' FROM customer WHERE email IS NULL ORDER BY id LIMIT 1")),
        damage("an erased name is back", Rule::SubjectRows, Inflict::Crm(
            "UPDATE customer SET name = 'Name' WHERE id = (SELECT min(id) FROM customer WHERE email IS NULL)")),
        damage("an acknowledgement of what is nowhere", Rule::AcknowledgedIsDurable, Inflict::Files(|m| append(&m.journal,
            r#"{"at_us":1,"event":"acknowledged","customer":"acme","request_id":"00000000-0000-4000-8000-000000000000","name":"customers/acme/requests/00000000-0000-7000-8000-000000000000"}"#))),
        damage("what a customer authorised is not recorded so", Rule::EntryOfEvent, Inflict::Files(|m| refer(&m.journal, true))),
        damage("what a customer declined was done", Rule::RequestComplete, Inflict::Files(|m| refer(&m.journal, false))),
        damage("an extension is recorded that nobody asked for", Rule::EntryOfEvent, Inflict::Store(
            "UPDATE ledger_entries SET kind = 'extended' WHERE kind = 'planned' AND request_id = {one}")),
        damage("somebody's name in a log", Rule::SilentLogs, Inflict::Files(|m| append(&m.logs[0], "found person0@example.com"))),
        damage("a panic", Rule::NoPanic, Inflict::Files(|m| append(&m.logs[0], "thread 'main' panicked at src/main.rs:1:1:"))),
    ]
}

/// The first by name that is there, below a published folder.
fn first_file(manifest: &Manifest, below: &str) -> PathBuf {
    let mut folder = manifest.published.join(below);
    loop {
        let mut entries: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        // Partial tiles: the widest is the one that counts.
        entries.sort_by_key(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name.ends_with(".p"), std::cmp::Reverse(name.parse::<u64>().unwrap_or_default()), name)
        });
        folder = entries.remove(0);
        if folder.is_file() {
            return folder;
        }
    }
}

fn alter(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn remove_all(manifest: &Manifest, below: &str) {
    fs::remove_dir_all(manifest.published.join(below)).unwrap();
}

fn append(path: &Path, line: &str) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, format!("{text}{line}\n")).unwrap();
}

/// Says of something that the customer instructed itself that it was referred.
fn refer(journal: &Path, authorised: bool) {
    let text = fs::read_to_string(journal).unwrap();
    let mut done = false;
    let line = |line: &str| {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        if !done && event["event"] == "sent" && event.get("referred").is_none() {
            event["referred"] = serde_json::json!({ "authorised": authorised });
            done = true;
        }
        format!("{event}\n")
    };
    let lines: String = text.lines().map(line).collect();
    assert!(done, "nobody instructed anything");
    fs::write(journal, lines).unwrap();
}

/// An early checkpoint that was seen is published again.
fn fall_back(manifest: &Manifest) {
    let published = manifest.published.join("checkpoint");
    let last = fs::read_to_string(&published).unwrap();
    let journal = fs::read_to_string(&manifest.journal).unwrap();
    let seen = journal.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut notes =
        seen.filter(|line| line["event"] == "seen_checkpoint").map(|line| line["note"].as_str().unwrap().to_owned());
    // On a busy machine the clients may have seen the last one twice, and little before it.
    let size = |note: &str| note.lines().nth(1).map_or(0, |size| size.parse::<u64>().unwrap());
    let early = notes.find(|note| 0 < size(note) && size(note) < size(&last));
    fs::write(published, early.expect("a checkpoint before the last one was seen")).unwrap();
}

/// A copy of a whole run, with its own manifest.
fn copy(run: &Path, to: &Path) -> Manifest {
    assert!(Command::new("cp").arg("-a").arg(run.join(".")).arg(to).status().unwrap().success());
    let path = to.join("manifest.json");
    let manifest = fs::read_to_string(&path).unwrap();
    fs::write(path, manifest.replace(run.to_str().unwrap(), to.to_str().unwrap())).unwrap();
    Manifest::read(to).unwrap()
}

async fn change(url: &str, statements: &str) {
    let options = SqliteConnectOptions::from_str(url).unwrap().foreign_keys(false);
    let mut connection = options.connect().await.unwrap();
    let mut changed = 0;
    for statement in statements.split(';') {
        let statement = AssertSqlSafe(statement.replace("{one}", ONE_ERASURE));
        changed += connection.execute(sqlx::query(statement)).await.unwrap().rows_affected();
    }
    assert!(changed > 0, "nothing was damaged: {statements}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_a_finished_run_is_found() {
    let options = Options {
        seed: 1,
        lasts: Duration::from_secs(8),
        apart: Duration::from_secs(1),
        store: StoreKind::Sqlite,
        faults: false,
        people: 16,
        pace: Duration::from_millis(50),
        settle: Duration::from_secs(120),
    };
    let outcome = quittance_chaos::run(&options, &|line| println!("{line}")).await.unwrap();
    assert!(outcome.findings.is_empty(), "{:#?}", outcome.findings);
    println!("{:?}", outcome.figures);
    assert!(outcome.figures.keys_destroyed > 0, "no key was rotated");
    for damage in damages() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = copy(&outcome.folder, folder.path());
        match damage.inflict {
            Inflict::Store(statements) => change(&manifest.store, statements).await,
            Inflict::Crm(statement) => change(&manifest.apps.crm, statement).await,
            Inflict::Shop(statement) => change(&manifest.apps.shop, statement).await,
            Inflict::Files(inflict) => inflict(&manifest),
        }
        let found = check(&manifest).await.unwrap().findings;
        assert!(found.iter().any(|f| f.rule == damage.found_by), "{}: {found:#?}", damage.what);
    }
    fs::remove_dir_all(outcome.folder).unwrap();
}

#[test]
fn the_checker_uses_nothing_of_the_service() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../chaos-check/Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    assert!(!dependencies.contains("quittance"), "{dependencies}");
}
