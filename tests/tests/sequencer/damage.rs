//! What was altered is found: at the start where it is near the right edge, by the scrub anywhere. Nothing is signed then, until it is
//! whole again.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use quittance_domain::Timestamp;
use quittance_ledger::{
    checkpoint::Checkpoint,
    cosignature::cosign,
    key::{KeyType, SEED_BYTES, SignerKey},
    note::SignedNote,
    tree::{HASH_BYTES, MerkleHash, TreeHead},
};
use quittance_log_client::{PublishedLog, audit};
use quittance_sequencer::{Direct, Doubt, LogKeyRing, LogStatus, Scrub, Sequencer, Writes, check_all};
use quittance_sql::Val;
use quittance_store::{LogCheckpoint, ScrubProgress};
use quittance_tests::StoreKind;
use tokio_util::sync::CancellationToken;

use crate::{
    bed::Bed,
    faulty::{Failure, Faulty, Which},
};

/// Entries of the log that is damaged: two full tiles and a partial one, and a level above them.
const ENTRIES: usize = 600;

/// One value of the store: where it is, and which of its bytes is altered.
struct Place {
    table: &'static str,
    column: &'static str,
    row: String,
    byte: usize,
    text: bool,
}

fn tile(row: &str, byte: usize) -> Place {
    Place { table: "ledger_tiles", column: "content", row: row.to_owned(), byte, text: false }
}

/// The entry that has this place.
fn at(place: u64) -> String {
    format!(
        "entry_id = (SELECT e.entry_id FROM ledger_entries e JOIN ledger_batches b ON b.batch_id = e.batch_id
                     WHERE b.first_index + e.batch_offset = {place})"
    )
}

impl Place {
    async fn read(&self, bed: &Bed) -> Vec<u8> {
        let Self { table, column, row, .. } = self;
        let sql = format!("SELECT {column} FROM {table} WHERE {row}");
        let row = bed.raw().await.fetch_one(&sql, Vec::<Val>::new()).await.unwrap().unwrap();
        if self.text { row.text(0).unwrap().into_bytes() } else { row.bytes(0).unwrap() }
    }

    async fn write(&self, bed: &Bed, value: Vec<u8>) {
        let Self { table, column, row, .. } = self;
        let value = if self.text { Val::from(String::from_utf8(value).unwrap()) } else { Val::from(value) };
        let mut tx = bed.raw().await;
        let changed = tx.execute(&format!("UPDATE {table} SET {column} = $1 WHERE {row}"), vec![value]).await.unwrap();
        assert_eq!(changed, 1);
        tx.commit().await.unwrap();
    }
}

fn why<W: Writes>(sequencer: &Sequencer<W>) -> String {
    match &*sequencer.status().borrow() {
        LogStatus::Halted(halt) => halt.to_string(),
        status => format!("{status:?}"),
    }
}

async fn signed_size(bed: &Bed) -> u64 {
    bed.published().await[0].as_ref().map_or(0, |signed| signed.head.size)
}

async fn what_is_altered_at_the_right_edge_stops_signing(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    bed.stage(ENTRIES).await;
    let mut sequencer = bed.sequencer(Direct);
    sequencer.turn(true).await;
    sequencer.turn(true).await;
    let doubt = sequencer.doubt();
    let cases = [
        (tile("level = -1 AND tile_index = 2", 34 * 7 + 9), "entry 519"),
        (tile("level = 0 AND tile_index = 2", 40), "root"),
        (tile("level = 1 AND tile_index = 0", 3), "root"),
        (Place { table: "ledger_log", column: "root", row: "id = 1".to_owned(), byte: 0, text: false }, "root"),
        (
            Place { table: "ledger_log", column: "checkpoint", row: "id = 1".to_owned(), byte: 12, text: true },
            "checkpoint",
        ),
    ];
    let mut staged = ENTRIES;
    for (place, told) in cases {
        let before = signed_size(&bed).await;
        assert_eq!(before, staged as u64);
        let good = place.read(&bed).await;
        let mut bad = good.clone();
        bad[place.byte] ^= 1;
        place.write(&bed, bad).await;
        doubt.raise();
        bed.stage(1).await;
        staged += 1;
        sequencer.turn(true).await;
        assert!(why(&sequencer).contains(told), "{told}: {}", why(&sequencer));
        // Nor does another replica, to which it has given the log.
        let mut other = bed.sequencer(Direct);
        other.turn(true).await;
        assert!(why(&other).contains(told), "{told}: {}", why(&other));
        assert_eq!(bed.store.log_halted().await.unwrap().unwrap(), why(&sequencer), "every replica knows");
        let state = bed.store.log_state().await.unwrap();
        assert!(state.checkpoint.unwrap().size == before && state.head.size == before, "nothing is written");
        // Repaired, it goes on by itself.
        place.write(&bed, good).await;
        sequencer.turn(true).await;
        assert_eq!(*sequencer.status().borrow(), LogStatus::Writing);
        assert_eq!(bed.store.log_halted().await.unwrap(), None);
        assert_eq!(signed_size(&bed).await, staged as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_what_is_altered_at_the_right_edge_stops_signing() {
    what_is_altered_at_the_right_edge_stops_signing(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_what_is_altered_at_the_right_edge_stops_signing() {
    what_is_altered_at_the_right_edge_stops_signing(StoreKind::Postgres).await;
}

/// Whatever becomes of the word to the others: nothing is signed, everybody gets to know, and repaired it goes on.
async fn a_halt_is_told_whatever_write_fails(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    let root = Place { table: "ledger_log", column: "root", row: "id = 1".to_owned(), byte: 0, text: false };
    let writes = ["halt", "release", "go on"];
    for (which, how) in
        writes.iter().flat_map(|write| [Failure::Lost, Failure::DoneAndReportedFailed].map(|how| (*write, how)))
    {
        for killed in [false, true] {
            bed.clear().await;
            let faulty = Faulty::failing(Which::Named(which, 0), how);
            let mut sequencer = bed.sequencer(faulty.clone());
            bed.stage(300).await;
            sequencer.turn(true).await;
            let good = root.read(&bed).await;
            let mut bad = good.clone();
            bad[root.byte] ^= 1;
            root.write(&bed, bad).await;
            sequencer.doubt().raise();
            bed.stage(1).await;
            for _ in 0..2 {
                sequencer.turn(true).await;
                assert!(matches!(*sequencer.status().borrow(), LogStatus::Halted(_)), "{which} {how:?}");
                if killed {
                    bed.an_hour_later();
                    sequencer = bed.sequencer(Faulty(faulty.0.clone()));
                }
            }
            sequencer.turn(true).await;
            assert!(bed.store.log_halted().await.unwrap().is_some(), "{which} {how:?}: every replica knows");
            assert_eq!(signed_size(&bed).await, 300);
            root.write(&bed, good).await;
            for _ in 0..3 {
                sequencer.turn(true).await;
            }
            assert_eq!(*sequencer.status().borrow(), LogStatus::Writing, "{which} {how:?}");
            assert_eq!(bed.store.log_halted().await.unwrap(), None);
            assert!(faulty.writes().iter().any(|write| write == which), "{which}");
            bed.is_one_log_of(301, &faulty.signed()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_halt_is_told_whatever_write_fails() {
    a_halt_is_told_whatever_write_fails(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_halt_is_told_whatever_write_fails() {
    a_halt_is_told_whatever_write_fails(StoreKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_outside_the_database_that_is_altered_stops_signing() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    bed.stage(3).await;
    bed.sequencer(Direct).turn(true).await;
    bed.an_hour_later();
    for path in [bed.files().highest, bed.public().join("checkpoint")] {
        let good = fs::read(&path).unwrap();
        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        let mut sequencer = bed.sequencer(Direct);
        sequencer.turn(true).await;
        assert!(why(&sequencer).contains("is no checkpoint of this log"), "{}", why(&sequencer));
        fs::write(&path, good).unwrap();
        sequencer.turn(true).await;
        assert_eq!(*sequencer.status().borrow(), LogStatus::Writing);
        bed.an_hour_later();
    }
}

/// A log that is written and scrubbed, as a process does it.
struct Running {
    status: tokio::sync::watch::Receiver<LogStatus>,
    drain: CancellationToken,
    tasks: tokio::task::JoinHandle<((), ())>,
}

impl Running {
    fn start(bed: &Bed) -> Self {
        let (sequencer, drain) = (bed.sequencer(Direct), CancellationToken::new());
        let status = sequencer.status();
        let now = Arc::new(Timestamp::now);
        let every = Duration::from_millis(500);
        let scrub = Scrub::new(bed.store.clone(), now, every, sequencer.status(), sequencer.doubt())
            .with_folder(Some(&bed.public()), &bed.keys);
        let (a, b) = (drain.clone(), drain.clone());
        let tasks = tokio::spawn(async move { tokio::join!(sequencer.run(a), scrub.run(b)) });
        Self { status, drain, tasks }
    }

    async fn until(&mut self, good: impl FnMut(&LogStatus) -> bool) -> LogStatus {
        let waited = tokio::time::timeout(Duration::from_secs(20), self.status.wait_for(good)).await;
        waited.expect("it comes to that").unwrap().clone()
    }

    async fn stop(self) {
        self.drain.cancel();
        self.tasks.await.unwrap();
    }
}

async fn the_scrub_names_the_first_entry_that_was_altered(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    bed.stage(ENTRIES).await;
    let mut running = Running::start(&bed);
    running.until(|status| *status == LogStatus::Writing).await;
    let entry = |column, row, byte| Place { table: "ledger_entries", column, row, byte, text: false };
    let cases = [
        (tile("level = -1 AND tile_index = 0", 34 * 5 + 9), "entry 5 "),
        (tile("level = 0 AND tile_index = 1", 40), "entry 257 "),
        (entry("payload", at(17), 0), "entry 17 "),
        (entry("salt", at(300), 31), "entry 300 "),
        (entry("leaf", at(301), 31), "entry 301 "),
    ];
    for (place, told) in cases {
        let good = place.read(&bed).await;
        let mut bad = good.clone();
        bad[place.byte] ^= 1;
        place.write(&bed, bad).await;
        let halted = running.until(|status| matches!(status, LogStatus::Halted(_))).await;
        let LogStatus::Halted(halt) = halted else { unreachable!() };
        assert!(halt.to_string().contains(told), "{told}: {halt}");
        // Also after a restart, without waiting for the scrub to come by again.
        running.stop().await;
        let signed = signed_size(&bed).await;
        bed.stage(1).await;
        running = Running::start(&bed);
        running.until(|status| matches!(status, LogStatus::Halted(_))).await;
        assert_eq!(signed_size(&bed).await, signed);
        place.write(&bed, good).await;
        running.until(|status| *status == LogStatus::Writing).await;
    }
    // An entry that is gone, and one that is in two places.
    for sql in [
        format!("UPDATE ledger_entries SET batch_offset = batch_offset + 1000000 WHERE {}", at(40)),
        "UPDATE ledger_entries SET batch_offset = batch_offset - 999999 WHERE batch_offset >= 1000000".to_owned(),
    ] {
        let mut tx = bed.raw().await;
        tx.execute_script(&sql).await.unwrap();
        tx.commit().await.unwrap();
        let halted = running.until(|status| matches!(status, LogStatus::Halted(_))).await;
        let LogStatus::Halted(halt) = halted else { unreachable!() };
        assert!(halt.to_string().contains("entry 40 ") && halt.to_string().contains("no entry"), "{halt}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_the_scrub_names_the_first_entry_that_was_altered() {
    the_scrub_names_the_first_entry_that_was_altered(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_the_scrub_names_the_first_entry_that_was_altered() {
    the_scrub_names_the_first_entry_that_was_altered(StoreKind::Postgres).await;
}

async fn until(done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done()
}

/// The published folder is a copy that must not rot in silence: whole tiles, those of a level above, partial ones, and what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_published_tile_that_rots_is_written_again_from_the_store() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    // Partial tiles of earlier checkpoints lie beside the full ones.
    for more in [100, 200, 300] {
        bed.stage(more).await;
        bed.sequencer(Direct).turn(true).await;
        bed.an_hour_later();
    }
    let mut running = Running::start(&bed);
    running.until(|status| *status == LogStatus::Writing).await;
    let all = [
        "tile/entries/000",
        "tile/0/001",
        "tile/1/000.p/2",
        "tile/entries/002.p/88",
        "tile/0/002.p/88",
        "tile/0/000.p/100",
        "tile/entries/001.p/44",
    ];
    let path = |name: &str| bed.public().join(name);
    let good: Vec<Vec<u8>> = all.iter().map(|name| fs::read(path(name)).unwrap()).collect();
    for (name, good) in all.iter().zip(&good) {
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        fs::write(path(name), bad).unwrap();
    }
    fs::write(path("tile/entries/001"), b"cut").unwrap();
    let repaired = || all.iter().zip(&good).all(|(name, good)| fs::read(path(name)).is_ok_and(|bytes| bytes == *good));
    assert!(until(repaired).await, "each is as it was");
    assert!(until(|| fs::read(path("tile/entries/001")).is_ok_and(|bytes| bytes.len() == 34 * 256)).await);
    // One that was taken away comes back; a narrower one than is needed does not.
    for name in ["tile/0/000", "tile/0/002.p/88", "tile/0/000.p/100"] {
        fs::remove_file(path(name)).unwrap();
    }
    assert!(until(|| path("tile/0/000").exists() && path("tile/0/002.p/88").exists()).await);
    assert!(!path("tile/0/000.p/100").exists());
    // The log goes on all the while.
    assert_eq!(*running.status.borrow(), LogStatus::Writing);
    bed.stage(1).await;
    assert!(until(|| path("tile/0/002.p/89").exists()).await);
    running.stop().await;
    let published = PublishedLog::folder(bed.public());
    let head = bed.published().await[1].clone().unwrap().head;
    assert!(audit(&published, &head, |_| ()).await.unwrap().is_whole());
}

/// What the store itself has wrong is never copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_does_not_spoil_what_is_published() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    bed.stage(ENTRIES).await;
    bed.sequencer(Direct).turn(true).await;
    bed.an_hour_later();
    let published = fs::read(bed.public().join("tile/0/001")).unwrap();
    let place = tile("level = 0 AND tile_index = 1", 40);
    let mut bad = place.read(&bed).await;
    bad[place.byte] ^= 1;
    place.write(&bed, bad).await;
    let mut running = Running::start(&bed);
    running.until(|status| matches!(status, LogStatus::Halted(_))).await;
    assert_eq!(fs::read(bed.public().join("tile/0/001")).unwrap(), published);
    running.stop().await;
}

/// A scrub by itself, from this entry on, until it notes that it is at another one. No sequencer is there to halt at what it reads.
async fn scrub_alone(bed: &Bed, from: u64, until: u64) {
    let begun_at = Some(Timestamp::now());
    bed.store.note_scrub(&ScrubProgress { next: from, begun_at }).await.unwrap();
    let (_writing, status) = tokio::sync::watch::channel(LogStatus::Writing);
    let every = Duration::from_millis(100);
    let scrub = Scrub::new(bed.store.clone(), Arc::new(Timestamp::now), every, status, Doubt::default())
        .with_folder(Some(&bed.public()), &bed.keys);
    let drain = CancellationToken::new();
    let running = tokio::spawn(scrub.run(drain.clone()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while bed.store.scrub_progress().await.unwrap().next != until {
        assert!(Instant::now() < deadline, "the scrub goes from {from} to {until}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drain.cancel();
    running.await.unwrap();
}

/// Everything once in its time and no more often; what was looked at before a restart is not looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_goes_on_where_it_stood_and_begins_anew_when_its_time_has_come() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    bed.stage(ENTRIES).await;
    bed.sequencer(Direct).turn(true).await;
    let (_writing, status) = tokio::sync::watch::channel(LogStatus::Writing);
    // A process that is stopped at once takes one step.
    let step = async || {
        let every = Duration::from_secs(3600);
        let scrub = Scrub::new(bed.store.clone(), bed.now(), every, status.clone(), Doubt::default());
        let stopped = CancellationToken::new();
        stopped.cancel();
        scrub.run(stopped).await;
        bed.store.scrub_progress().await.unwrap()
    };
    let begun_at = Some((bed.now())());
    for (next, whose) in [(256, "the first"), (512, "another"), (600, "the last"), (600, "it rests")] {
        let here = step().await;
        assert_eq!((here.next, here.begun_at), (next, begun_at), "{whose}");
    }
    bed.an_hour_later();
    let anew = step().await;
    assert!(anew.next < ENTRIES as u64 && anew.begun_at == Some((bed.now())()), "{anew:?}");
}

/// Where the store is what rots, the folder is the copy that would repair it.
#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_store_is_never_written_into_the_published_folder() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    bed.stage(600).await;
    bed.sequencer(Direct).turn(true).await;
    let path = |name: &str| bed.public().join(name);
    // Partial tiles at the right edge are checked against nothing but the root; the other hash of this one proves the first bundle.
    let above = tile("level = 1 AND tile_index = 0", 40);
    let whole = above.read(&bed).await;
    let mut bad = whole.clone();
    bad[above.byte] ^= 1;
    above.write(&bed, bad.clone()).await;
    let published = fs::read(path("tile/1/000.p/2")).unwrap();
    assert!(published == whole && published != bad);
    scrub_alone(&bed, 512, 0).await;
    assert_eq!(fs::read(path("tile/1/000.p/2")).unwrap(), published);
    // What the store cannot prove, it does not repair either.
    let leaves = fs::read(path("tile/0/000")).unwrap();
    fs::write(path("tile/0/000"), b"rotten").unwrap();
    scrub_alone(&bed, 0, 256).await;
    assert_eq!(fs::read(path("tile/0/000")).unwrap(), b"rotten");
    above.write(&bed, whole).await;
    scrub_alone(&bed, 1, 0).await;
    assert_eq!(fs::read(path("tile/0/000")).unwrap(), leaves);
}

/// What tells the time of certificates is looked at, too: each kept checkpoint, however many there are, and whoever signed it.
async fn fsck_names_a_kept_checkpoint_that_is_none_of_the_log(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    let seed = [7; SEED_BYTES];
    let witness = SignerKey::from_seed("witness.example/w".parse().unwrap(), KeyType::CosignatureV1, &seed).unwrap();
    let cosigned = |note: &SignedNote| {
        let mut note = note.clone();
        note.add(cosign(&witness, &Checkpoint::parse(note.text()).unwrap(), 1_900_000_000).unwrap()).unwrap();
        note
    };
    let mut sequencer = bed.sequencer(Direct);
    // More than are looked at in one step.
    for _ in 0..70 {
        bed.stage(4).await;
        sequencer.turn(true).await;
        let signed = bed.published().await[0].clone().unwrap();
        let (size, note) = (signed.head.size, cosigned(&signed.note).to_string());
        let epoch = bed.store.log_state().await.unwrap().epoch;
        bed.store.keep_checkpoint(epoch, &LogCheckpoint { size, note }, 1).await.unwrap();
    }
    let keys = bed.audit_keys(&[witness.verifier().clone()]);
    let looked = async || check_all(&bed.store, &keys, &bed.files(), |_, _| ()).await.unwrap();
    let found = looked().await;
    assert!(found.findings.is_whole() && found.damaged_checkpoints == 0, "{found:?}");

    let stranger = LogKeyRing::open(&bed.folder.path().join("stranger"), "log.example", None, Timestamp::UNIX_EPOCH);
    let stranger = stranger.unwrap();
    let root = MerkleHash([1; HASH_BYTES]);
    let forked = cosigned(&bed.keys.sign(TreeHead { size: 8, root }).unwrap().note).to_string();
    let damages = [
        (8, "nonsense".to_owned(), "note"),
        (8, forked, "another one than was signed"),
        (276, kept_note(&bed, 280).await, "its note is of 280 entries"),
        // Byte by byte good, and not ours.
        (8, cosigned(&stranger.sign(TreeHead { size: 8, root }).unwrap().note).to_string(), "key"),
        // The last signature is the witness's.
        (276, altered_signature(&kept_note(&bed, 276).await), "signature"),
    ];
    for (size, note, told) in damages {
        let place = Place {
            table: "ledger_checkpoints",
            column: "note",
            row: format!("tree_size = {size}"),
            byte: 0,
            text: true,
        };
        let good = place.read(&bed).await;
        place.write(&bed, note.into_bytes()).await;
        let found = looked().await;
        let what = found.findings.first.clone().expect(told).what;
        assert!(
            what.contains(&format!("the kept checkpoint of {size} entries: ")) && what.contains(told),
            "{told}: {what}"
        );
        assert_eq!((found.damaged_checkpoints, found.findings.damaged_portions), (1, 0));
        place.write(&bed, good).await;
    }
    // One of a tree that the log never had.
    let beyond = cosigned(&bed.keys.sign(TreeHead { size: 999, root }).unwrap().note).to_string();
    let mut tx = bed.raw().await;
    let sql = "INSERT INTO ledger_checkpoints (tree_size, cosigned, note) VALUES (999, 1, $1)";
    tx.execute(sql, vec![Val::from(beyond)]).await.unwrap();
    tx.commit().await.unwrap();
    let what = looked().await.findings.first.unwrap().what;
    assert!(what.contains("of 999 entries: the log has 280 entries"), "{what}");
}

async fn kept_note(bed: &Bed, size: u64) -> String {
    bed.store.kept_checkpoints(size, 1).await.unwrap().remove(0).note
}

fn altered_signature(note: &str) -> String {
    let at = note.trim_end().len() - 10;
    let other = if &note[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &note[..at], &note[at + 1..])
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_fsck_names_a_kept_checkpoint_that_is_none_of_the_log() {
    fsck_names_a_kept_checkpoint_that_is_none_of_the_log(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_fsck_names_a_kept_checkpoint_that_is_none_of_the_log() {
    fsck_names_a_kept_checkpoint_that_is_none_of_the_log(StoreKind::Postgres).await;
}
