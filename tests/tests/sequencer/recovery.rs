//! A database that was restored from a backup: its log stops, and comes back from the published tiles, proven or not at all.

use std::{fs, ops::Range};

use quittance_ledger::audit::Damage;
use quittance_log_client::PublishedLog;
use quittance_sequencer::{
    CheckpointFile, Direct, Halt, LogStatus, RecoverError, Recovered, Writes, accept_store, check_all, recover,
};
use quittance_tests::StoreKind;

use crate::{
    bed::Bed,
    faulty::{Failure, Faulty},
};

const TABLES: [&str; 6] =
    ["ledger_entries", "ledger_batches", "ledger_tiles", "ledger_checkpoints", "ledger_lost", "ledger_log"];

async fn script(bed: &Bed, statement: impl Fn(&str) -> String) {
    let mut tx = bed.raw().await;
    let script: Vec<String> = TABLES.iter().map(|table| statement(table)).collect();
    tx.execute_script(&script.join("; ")).await.unwrap();
    tx.commit().await.unwrap();
}

async fn back_up(bed: &Bed) {
    script(bed, |table| format!("CREATE TABLE backup_of_{table} AS SELECT * FROM {table}")).await;
}

async fn restore(bed: &Bed) {
    script(bed, |table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM backup_of_{table}")).await;
}

async fn recovered(bed: &Bed) -> Result<Recovered, RecoverError> {
    recovered_by(bed, &Direct).await
}

async fn recovered_by<W: Writes>(bed: &Bed, writes: &W) -> Result<Recovered, RecoverError> {
    let highest = CheckpointFile::highest(bed.files().highest);
    let published = PublishedLog::folder(bed.public());
    recover(writes, &bed.store, bed.now(), &bed.log(), &highest, &published, |_| ()).await
}

async fn written(bed: &Bed) -> LogStatus {
    bed.an_hour_later();
    let mut sequencer = bed.sequencer(Direct);
    sequencer.turn(true).await;
    sequencer.turn(true).await;
    sequencer.status().borrow().clone()
}

async fn whole(bed: &Bed) -> (Option<Damage>, u64, u64) {
    let found = check_all(&bed.store, &bed.audit_keys(&[]), &bed.files(), |_, _| ()).await.unwrap();
    (found.findings.first, found.staged, found.lost)
}

async fn a_restored_log_comes_back(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    bed.stage(300).await;
    assert_eq!(written(&bed).await, LogStatus::Writing);
    // At the time of the backup some entries wait for their places; after it, more come.
    bed.stage(5).await;
    bed.stage_together(35).await;
    back_up(&bed).await;
    assert_eq!(written(&bed).await, LogStatus::Writing);
    for more in [1, 500, 9_000] {
        bed.stage(more).await;
        while bed.store.staged_count().await.unwrap() > 0 {
            assert_eq!(written(&bed).await, LogStatus::Writing);
        }
    }
    let before = bed.published().await[0].clone().unwrap().head;
    assert_eq!(before.size, 300 + 40 + 9_501);
    let requests = bed.requests().await;
    restore(&bed).await;
    // Taken in by somebody who did not look.
    bed.stage(7).await;
    let halted = LogStatus::Halted(Halt::Shorter { size: 300, signed: before.size });
    assert_eq!(written(&bed).await, halted);
    bed.an_hour_later();
    let done = recovered(&bed).await.unwrap();
    assert_eq!((done.from, done.to, done.placed), (300, before.size, 40));
    assert_eq!(done.lost, vec![Range { start: 340, end: before.size }]);
    assert_eq!(bed.indexed(340..before.size), requests[340..], "whose they were is known outside");
    assert_eq!(bed.store.log_state().await.unwrap().head, before);
    assert_eq!(whole(&bed).await, (None, 7, 9_501));
    // The sequencer goes on from there, and nothing has two places.
    assert_eq!(written(&bed).await, LogStatus::Writing);
    assert_eq!(bed.published().await.map(|signed| signed.unwrap().head.size), [before.size + 7; 2]);
    assert_eq!(whole(&bed).await, (None, 0, 9_501));
    let placed: Vec<u64> = bed.places().await.into_iter().filter_map(|(at, _)| at).collect();
    let expected: Vec<u64> = (0..340).chain(before.size..before.size + 7).collect();
    assert_eq!(placed, expected);
    // Once is enough.
    bed.an_hour_later();
    let again = recovered(&bed).await.unwrap();
    assert_eq!((again.from, again.to, again.lost.len()), (before.size + 7, before.size + 7, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_restored_log_comes_back() {
    a_restored_log_comes_back(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_restored_log_comes_back() {
    a_restored_log_comes_back(StoreKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_brought_back_that_was_not_signed() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    bed.stage(10).await;
    written(&bed).await;
    back_up(&bed).await;
    bed.stage(600).await;
    written(&bed).await;
    restore(&bed).await;
    bed.an_hour_later();
    let unchanged = bed.store.log_state().await.unwrap().head;
    for (path, byte, told) in [
        ("tile/entries/001", 40, "entry 257 "),
        ("tile/entries/000", 34 * 20 + 5, "entry 20 "),
        ("tile/entries/002.p/98", 5, "entry 512 "),
    ] {
        let path = bed.public().join(path);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[byte] ^= 1;
        fs::write(&path, bad).unwrap();
        let refused = recovered(&bed).await.unwrap_err();
        bed.an_hour_later();
        assert!(matches!(refused, RecoverError::Tiles { .. }), "{refused}");
        assert!(refused.to_string().contains(told), "{told}: {refused}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(recovered(&bed).await, Err(RecoverError::Tiles { .. })));
        bed.an_hour_later();
        fs::write(&path, good).unwrap();
        assert_eq!(bed.store.log_state().await.unwrap().head, unchanged);
    }
    // Nothing is left outside the database: nobody can tell that it was restored, so nothing is signed until an operator has said.
    fs::rename(bed.files().highest, bed.folder.path().join("kept")).unwrap();
    fs::rename(bed.public(), bed.folder.path().join("kept-public")).unwrap();
    bed.stage(1).await;
    assert_eq!(written(&bed).await, LogStatus::Halted(Halt::NothingOutside { size: 10 }));
    assert!(whole(&bed).await.0.unwrap().to_string().contains("no checkpoint of it is left outside the database"));
    assert_eq!(accept_store(&bed.store, &bed.keys, &bed.files()).await.unwrap(), 10);
    assert_eq!(written(&bed).await, LogStatus::Writing);
    let refused = accept_store(&bed.store, &bed.keys, &bed.files()).await.unwrap_err();
    assert!(matches!(refused, RecoverError::SomethingOutside(11)), "{refused}");
    // It was restored after all: what was signed turns up, and is of another log.
    fs::rename(bed.folder.path().join("kept"), bed.files().highest).unwrap();
    fs::remove_dir_all(bed.public()).unwrap();
    fs::rename(bed.folder.path().join("kept-public"), bed.public()).unwrap();
    bed.an_hour_later();
    let refused = recovered(&bed).await.unwrap_err();
    assert!(matches!(refused, RecoverError::Halt(Halt::Forked { .. })), "{refused}");
}

/// Where the file outside the database is gone, too, the published checkpoint still tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_comes_back_by_its_published_checkpoint_alone() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    bed.stage(10).await;
    written(&bed).await;
    back_up(&bed).await;
    bed.stage(5).await;
    written(&bed).await;
    restore(&bed).await;
    fs::remove_file(bed.files().highest).unwrap();
    assert_eq!(written(&bed).await, LogStatus::Halted(Halt::Shorter { size: 10, signed: 15 }));
    bed.an_hour_later();
    assert_eq!(recovered(&bed).await.unwrap().lost, vec![Range { start: 10, end: 15 }]);
    assert_eq!(written(&bed).await, LogStatus::Writing);
    bed.stage(3).await;
    written(&bed).await;
    assert_eq!(whole(&bed).await, (None, 0, 5));
}

/// A recovery that any of its writes ends, lost or done, is run again, and the log is whole.
async fn a_recovery_is_finished_by_the_next_whatever_write_fails(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    bed.stage(10).await;
    assert_eq!(written(&bed).await, LogStatus::Writing);
    bed.stage_together(35).await;
    back_up(&bed).await;
    assert_eq!(written(&bed).await, LogStatus::Writing);
    // Two transactions.
    for more in [1, 8_500] {
        bed.stage(more).await;
        while bed.store.staged_count().await.unwrap() > 0 {
            assert_eq!(written(&bed).await, LogStatus::Writing);
        }
    }
    let before = bed.published().await[0].clone().unwrap().head;
    let undisturbed = Faulty::default();
    restore(&bed).await;
    bed.an_hour_later();
    fs::remove_file(bed.files().highest).unwrap();
    recovered_by(&bed, &undisturbed).await.unwrap();
    let writes = undisturbed.writes();
    for step in ["hold", "recover", "release", "outside/checkpoint"] {
        assert!(writes.iter().any(|write| write.ends_with(step)), "{step} is among {writes:?}");
    }
    for (at, write) in writes.iter().enumerate() {
        for how in [Failure::Lost, Failure::DoneAndReportedFailed, Failure::Torn] {
            if how == Failure::Torn && !write.contains('/') {
                continue;
            }
            restore(&bed).await;
            fs::remove_file(bed.files().highest).unwrap();
            bed.an_hour_later();
            let failed = recovered_by(&bed, &Faulty::fail(at, how)).await;
            assert!(failed.is_err(), "{write} {how:?}");
            bed.an_hour_later();
            recovered(&bed).await.unwrap();
            assert_eq!(bed.store.log_state().await.unwrap().head, before, "{write} {how:?}");
            assert_eq!(bed.store.lost_entries(0..before.size).await.unwrap(), vec![45..before.size], "{write} {how:?}");
            let highest = CheckpointFile::highest(bed.files().highest).read(&bed.log()).unwrap().unwrap();
            assert_eq!(highest.head, before);
            let placed: Vec<u64> = bed.places().await.into_iter().filter_map(|(at, _)| at).collect();
            assert_eq!(placed, (0..45).collect::<Vec<u64>>(), "{write} {how:?}: each has its own place back");
        }
    }
    assert_eq!(whole(&bed).await, (None, 0, 8_501));
    assert_eq!(written(&bed).await, LogStatus::Writing);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_recovery_is_finished_by_the_next_whatever_write_fails() {
    a_recovery_is_finished_by_the_next_whatever_write_fails(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_recovery_is_finished_by_the_next_whatever_write_fails() {
    a_recovery_is_finished_by_the_next_whatever_write_fails(StoreKind::Postgres).await;
}
