//! A fault at every write: the lease, places with tiles and head, tiles and checkpoint in the folder, the highest checkpoint, the
//! published one.

use std::{collections::BTreeSet, fs, sync::mpsc, time::Duration};

use quittance_ledger::checkpoint::{LogKeys, SignedHead};
use quittance_sequencer::{Direct, LogFiles, LogStatus, Sequencer};
use quittance_tests::StoreKind;

use crate::{
    bed::{Bed, stage},
    faulty::{Failure, Faulty, Which},
};

/// Entries that are staged before each turn: within a tile, over its end, with two transactions.
const ROUNDS: [usize; 3] = [1, 300, 213];

fn all() -> usize {
    ROUNDS.iter().sum()
}

async fn turn(bed: &Bed, sequencer: &mut Sequencer<Faulty>) {
    let before = bed.published().await;
    sequencer.turn(true).await;
    for (before, after) in before.iter().zip(bed.published().await) {
        let size = |signed: Option<&SignedHead>| signed.map(|signed| signed.head.size);
        assert!(size(before.as_ref()) <= size(after.as_ref()), "what is published never shrinks");
    }
}

async fn settle(bed: &Bed, sequencer: &mut Sequencer<Faulty>) {
    turn(bed, sequencer).await;
    turn(bed, sequencer).await;
    assert_eq!(*sequencer.status().borrow(), LogStatus::Writing);
}

/// The writes of a run without faults, by which each of them is then failed.
async fn undisturbed(bed: &Bed) -> Vec<String> {
    bed.clear().await;
    let writes = Faulty::default();
    let mut sequencer = bed.sequencer(writes.clone());
    for round in ROUNDS {
        bed.stage(round).await;
        turn(bed, &mut sequencer).await;
    }
    bed.is_one_log_of(all(), &writes.signed()).await;
    assert_eq!(writes.signed().len(), 1 + ROUNDS.len(), "the empty log's, and one of each turn");
    writes.writes()
}

async fn one_fault(bed: &Bed, at: usize, how: Failure, killed: bool) {
    bed.clear().await;
    let faulty = Faulty::fail(at, how);
    let mut signed = BTreeSet::new();
    let mut sequencer = bed.sequencer(faulty.clone());
    let mut dead = false;
    for round in ROUNDS {
        bed.stage(round).await;
        turn(bed, &mut sequencer).await;
        if killed && !dead && faulty.writes().len() > at {
            // Its place is taken by another process, once its lease has passed.
            dead = true;
            bed.an_hour_later();
            sequencer = bed.sequencer(Faulty(faulty.0.clone()));
        }
    }
    settle(bed, &mut sequencer).await;
    signed.append(&mut faulty.signed());
    bed.is_one_log_of(all(), &signed).await;
}

async fn every_write_fails_in_every_way(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    let writes = undisturbed(&bed).await;
    for step in ["hold", "append", "publish", "outside/checkpoint", "0.ids", "public/checkpoint", "public/tile/0/000"] {
        assert!(writes.iter().any(|write| write.ends_with(step)), "{step} is among {writes:?}");
    }
    for (at, write) in writes.iter().enumerate() {
        let file = write.contains('/');
        for how in [Failure::Lost, Failure::DoneAndReportedFailed, Failure::Torn] {
            if how == Failure::Torn && !file {
                continue;
            }
            for killed in [false, true] {
                one_fault(&bed, at, how, killed).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_the_log_is_one_whatever_write_fails() {
    every_write_fails_in_every_way(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_the_log_is_one_whatever_write_fails() {
    every_write_fails_in_every_way(StoreKind::Postgres).await;
}

/// One sequencer stands still within a write until another has taken over, or has to wait for it; then both go on.
async fn one_take_over(bed: &Bed, at: usize, how: Failure) {
    bed.clear().await;
    let faulty = Faulty::fail(at, how);
    let ((waits, waiting), (go, gone)) = (mpsc::channel(), mpsc::channel());
    faulty.gate(waits, gone);
    let (mut old, other) = (bed.sequencer(faulty.clone()), Faulty::default());
    let mut new = bed.sequencer(other.clone());
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            runtime.block_on(async {
                for round in ROUNDS {
                    bed.stage(round).await;
                    old.turn(true).await;
                }
            });
        });
        waiting.recv().unwrap();
        bed.an_hour_later();
        let quick = scope.spawn(|| {
            runtime.block_on(async {
                for _ in 0..2 {
                    bed.stage(40).await;
                    new.turn(true).await;
                }
            });
        });
        // Where the old one holds the log's row, the new one has to wait for it.
        for _ in 0..30 {
            if quick.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        go.send(()).unwrap();
        slow.join().unwrap();
        quick.join().unwrap();
    });
    bed.an_hour_later();
    settle(bed, &mut new).await;
    turn(bed, &mut old).await;
    let signed = faulty.signed().union(&other.signed()).cloned().collect();
    bed.is_one_log_of(all() + 80, &signed).await;
}

async fn every_write_is_overtaken(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    let writes = undisturbed(&bed).await;
    for at in 0..writes.len() {
        for how in [Failure::LateBefore, Failure::LateAfter] {
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(one_take_over(&bed, at, how));
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_the_log_is_one_though_the_former_sequencer_still_lives() {
    every_write_is_overtaken(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_the_log_is_one_though_the_former_sequencer_still_lives() {
    every_write_is_overtaken(StoreKind::Postgres).await;
}

/// The transaction that stages an entry commits after later ones have their places, or never.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_entry_that_is_committed_late_is_found_and_one_that_is_lost_leaves_no_gap() {
    let bed = Bed::new(StoreKind::Postgres).await;
    let writes = Faulty::default();
    let mut sequencer = bed.sequencer(writes.clone());
    let (mut late, mut lost) = (bed.raw().await, bed.raw().await);
    stage(&mut late, 2).await;
    stage(&mut lost, 2).await;
    bed.stage(5).await;
    turn(&bed, &mut sequencer).await;
    assert_eq!(bed.places().await.len(), 5);
    late.commit().await.unwrap();
    lost.rollback().await.unwrap();
    turn(&bed, &mut sequencer).await;
    bed.is_one_log_of(7, &writes.signed()).await;
}

/// More than one turn can write: signing does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_that_is_set_later_is_filled_and_nothing_waits_for_it() {
    let mut bed = Bed::new(StoreKind::Sqlite).await;
    bed.batch = 40_000;
    let mut before = bed.sequencer_with(Faulty::default(), LogFiles { publish: None, ..bed.files() });
    for _ in 0..5 {
        bed.stage(28_000).await;
        before.turn(true).await;
    }
    drop(before);
    bed.an_hour_later();
    let writes = Faulty::default();
    let mut sequencer = bed.sequencer(writes.clone());
    for turn in 0..4 {
        bed.stage(10).await;
        sequencer.turn(true).await;
        let [store, folder] = bed.published().await.map(|signed| signed.map_or(0, |signed| signed.head.size));
        assert_eq!(store, 140_000 + 10 * (turn + 1));
        assert_eq!(folder, if turn < 2 { 0 } else { store }, "its checkpoint comes when all its tiles are there");
    }
    bed.is_one_log_of(140_040, &writes.signed()).await;
}

/// What stands is signed by a key that was added, without a new entry, so that the older ones can go. Whatever fails, nothing is left that
/// these alone have signed.
async fn a_key_that_is_added_signs_what_stands(kind: StoreKind) {
    let mut bed = Bed::new(kind).await;
    // A log without entries is signed outside alone.
    bed.sequencer(Direct).turn(true).await;
    let left = LogKeys::new(vec![bed.add_key()]).unwrap();
    bed.an_hour_later();
    bed.sequencer(Direct).turn(true).await;
    assert!(SignedHead::read(&fs::read(bed.files().highest).unwrap(), &left).is_ok());
    for (write, how) in ["outside/checkpoint", "publish", "public/checkpoint"]
        .into_iter()
        .flat_map(|write| [Failure::Lost, Failure::DoneAndReportedFailed].map(|how| (write, how)))
    {
        for killed in [false, true] {
            bed.clear().await;
            bed.stage(3).await;
            bed.sequencer(Direct).turn(true).await;
            bed.an_hour_later();
            let left = LogKeys::new(vec![bed.add_key()]).unwrap();
            let faulty = Faulty::failing(Which::Named(write, 0), how);
            let mut sequencer = bed.sequencer(faulty.clone());
            turn(&bed, &mut sequencer).await;
            assert!(faulty.has_failed(), "{write}");
            if killed {
                bed.an_hour_later();
                sequencer = bed.sequencer(Faulty(faulty.0.clone()));
            }
            settle(&bed, &mut sequencer).await;
            let row = bed.store.log_state().await.unwrap().checkpoint.unwrap().note.into_bytes();
            let files = [bed.files().highest, bed.public().join("checkpoint")].map(|path| fs::read(path).unwrap());
            for note in [row].iter().chain(&files) {
                assert_eq!(SignedHead::read(note, &left).unwrap().head.size, 3, "{write} {how:?}");
            }
            bed.is_one_log_of(3, &faulty.signed()).await;
            let written = faulty.writes().iter().filter(|write| *write != "hold").count();
            settle(&bed, &mut sequencer).await;
            let after = faulty.writes().iter().filter(|write| *write != "hold").count();
            assert_eq!(after, written, "signed once, it rests");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_key_that_is_added_signs_what_stands() {
    a_key_that_is_added_signs_what_stands(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_key_that_is_added_signs_what_stands() {
    a_key_that_is_added_signs_what_stands(StoreKind::Postgres).await;
}
