//! Witnesses: where they are required nothing is published without them; where not, their signatures are added; and no witness, however
//! it behaves, keeps the log from growing or spoils what it publishes.

use std::time::{Duration, Instant};

use quittance_ledger::checkpoint::{self, SignedHead};
use quittance_log_client::{HttpClient, Witness};
use quittance_sequencer::{Direct, LogStatus, Sequencer, Witnesses, Writes};
use quittance_tests::{
    StoreKind,
    witness::{Manner, TestWitness},
};

use crate::{
    bed::Bed,
    faulty::{Failure, Faulty, Which},
};

const WITHIN: Duration = Duration::from_millis(400);

async fn witness(bed: &Bed, seed: u8, manner: Manner) -> TestWitness {
    TestWitness::start(&format!("witness.example/{seed}"), seed, bed.log(), manner).await
}

fn asked(witnesses: &[&TestWitness], required: usize) -> Witnesses {
    let client = HttpClient::new(None, WITHIN).unwrap();
    let all = witnesses.iter().map(|w| Witness::new(client.clone(), &w.url(), w.key())).collect();
    Witnesses::new(all, required, WITHIN).unwrap()
}

/// Of the published checkpoint, in the store and in the folder: its size, and how many of these witnesses signed it.
async fn published(bed: &Bed, witnesses: &[&TestWitness]) -> [(u64, usize); 2] {
    let keys: Vec<_> = witnesses.iter().map(|w| w.key()).collect();
    bed.published().await.map(|signed| {
        let Some(SignedHead { head, note }) = signed else { return (0, 0) };
        let verified = checkpoint::verify(&note, &bed.log(), &keys).expect("nothing but valid signatures is published");
        assert_eq!(verified.unknown_signatures, 0);
        (head.size, verified.cosignatures.len())
    })
}

/// Turns until that many entries are published with that many signatures.
async fn until<W: Writes>(
    bed: &Bed,
    sequencer: &mut Sequencer<W>,
    witnesses: &[&TestWitness],
    size: u64,
    signed: usize,
) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        sequencer.turn(true).await;
        assert!(!matches!(*sequencer.status().borrow(), LogStatus::Halted(_)), "{:?}", *sequencer.status().borrow());
        let now = published(bed, witnesses).await;
        if now.iter().all(|(s, n)| *s == size && *n >= signed) {
            return;
        }
        assert!(Instant::now() < deadline, "{now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn some_turns(sequencer: &mut Sequencer, within: Duration) {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        sequencer.turn(true).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_witnesses_are_required_nothing_is_published_without_them() {
    for kind in [StoreKind::Sqlite, StoreKind::Postgres] {
        let bed = Bed::new(kind).await;
        let (one, two) = (witness(&bed, 1, Manner::Faithful).await, witness(&bed, 2, Manner::Silent).await);
        let both = [&one, &two];
        let mut sequencer = bed.sequencer(Direct).witnessed_by(asked(&both, 2));
        bed.stage(5).await;
        some_turns(&mut sequencer, WITHIN * 2).await;
        assert_eq!(published(&bed, &both).await, [(0, 0); 2]);
        // It is in the log, and what was signed is not forgotten.
        assert_eq!(bed.store.log_state().await.unwrap().head.size, 5);
        let highest = std::fs::read(bed.files().highest).unwrap();
        assert_eq!(SignedHead::read(&highest, &bed.log()).unwrap().head.size, 5);
        bed.stage(3).await;
        two.behave(Manner::Faithful);
        until(&bed, &mut sequencer, &both, 8, 2).await;
        // Killed while it waits: the next one goes on.
        one.behave(Manner::Status(500));
        bed.stage(1).await;
        some_turns(&mut sequencer, WITHIN).await;
        drop(sequencer);
        bed.an_hour_later();
        assert_eq!(published(&bed, &both).await, [(8, 2); 2]);
        one.behave(Manner::Faithful);
        let mut next = bed.sequencer(Direct).witnessed_by(asked(&both, 2));
        until(&bed, &mut next, &both, 9, 2).await;
        assert!(one.answered().contains(&409), "a new process learns from the witness what it signed last");
        bed.is_one_log_of(9, &Faulty::default().signed()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_witnesses_are_not_required_their_signatures_are_added_when_they_come() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    let slow = witness(&bed, 1, Manner::Slow(WITHIN / 2)).await;
    let down = witness(&bed, 2, Manner::Status(503)).await;
    let both = [&slow, &down];
    let mut sequencer = bed.sequencer(Direct).witnessed_by(asked(&both, 0));
    bed.stage(300).await;
    sequencer.turn(true).await;
    assert_eq!(published(&bed, &both).await, [(300, 0); 2], "it does not wait");
    until(&bed, &mut sequencer, &both, 300, 1).await;
    down.behave(Manner::Faithful);
    until(&bed, &mut sequencer, &both, 300, 2).await;
    bed.stage(300).await;
    until(&bed, &mut sequencer, &both, 600, 2).await;
    bed.is_one_log_of(600, &Faulty::default().signed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enough_witnesses_are_enough() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    let all = [
        witness(&bed, 1, Manner::Faithful).await,
        witness(&bed, 2, Manner::Silent).await,
        witness(&bed, 3, Manner::Faithful).await,
    ];
    let all = all.each_ref();
    let mut sequencer = bed.sequencer(Direct).witnessed_by(asked(&all, 2));
    for size in 1..=4 {
        bed.stage(1).await;
        let begun = Instant::now();
        until(&bed, &mut sequencer, &all, size, 2).await;
        assert!(begun.elapsed() < WITHIN * 3, "nobody waits for the silent one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_answers_nonsense_is_ignored_and_counted() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    let bad = witness(&bed, 1, Manner::Nonsense).await;
    let witnesses = asked(&[&bad], 1);
    let mut sequencer = bed.sequencer(Direct).witnessed_by(witnesses.clone());
    bed.stage(2).await;
    some_turns(&mut sequencer, WITHIN).await;
    assert_eq!(published(&bed, &[&bad]).await, [(0, 0); 2]);
    assert_eq!(witnesses.ignored() % 4, 0, "each of its lines is counted");
    assert!(witnesses.ignored() >= 4);
    for manner in [
        Manner::Status(403),
        Manner::Status(404),
        Manner::Status(422),
        Manner::Status(204),
        Manner::Size(1),
        Manner::Size(u64::MAX / 3),
        Manner::Riddles,
        Manner::Endless,
    ] {
        bad.behave(manner);
        let begun = bad.answered().len();
        let mut sequencer = bed.sequencer(Direct).witnessed_by(asked(&[&bad], 1));
        bed.an_hour_later();
        some_turns(&mut sequencer, WITHIN * 2).await;
        assert_eq!(published(&bed, &[&bad]).await, [(0, 0); 2], "{manner:?}");
        let times = bad.answered().len() - begun;
        assert!((1..=6).contains(&times), "{manner:?}: it was asked {times} times");
        assert_eq!(*sequencer.status().borrow(), LogStatus::Writing);
    }
    bad.behave(Manner::Faithful);
    bed.an_hour_later();
    let mut sequencer = bed.sequencer(Direct).witnessed_by(asked(&[&bad], 1));
    until(&bed, &mut sequencer, &[&bad], 2, 1).await;
}

/// The size and the witnesses' signatures of the first checkpoint beyond an entry that is kept for its time.
async fn kept(bed: &Bed, entry: u64, witness: &TestWitness) -> Option<(u64, usize)> {
    let row = bed.store.first_cosigned(entry, 1).await.unwrap()?;
    let signed = SignedHead::read(row.note.as_bytes(), &bed.log()).unwrap();
    assert_eq!(signed.head.size, row.size);
    let verified = checkpoint::verify(&signed.note, &bed.log(), &[witness.key()]).unwrap();
    Some((row.size, verified.cosignatures.len()))
}

/// What tells the time of an entry is the first checkpoint that a witness signed over it, whatever comes after.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_checkpoint_that_was_cosigned_is_kept_when_the_log_has_grown() {
    for (kind, required) in [(StoreKind::Sqlite, 1), (StoreKind::Postgres, 1), (StoreKind::Sqlite, 0)] {
        let bed = Bed::new(kind).await;
        let one = witness(&bed, 1, Manner::Faithful).await;
        let mut sequencer = bed.sequencer(Direct).witnessed_by(asked(&[&one], required));
        for size in [5, 300, 301] {
            bed.stage(size - usize::try_from(bed.store.log_state().await.unwrap().head.size).unwrap()).await;
            until(&bed, &mut sequencer, &[&one], size as u64, 1).await;
        }
        for (entry, first) in [(0, 5), (4, 5), (5, 300), (299, 300), (300, 301)] {
            assert_eq!(kept(&bed, entry, &one).await, Some((first, 1)), "entry {entry}");
        }
        assert_eq!(kept(&bed, 301, &one).await, None);
        assert_eq!(bed.store.first_cosigned(0, 2).await.unwrap(), None);
    }
}

/// Where they are not required, the log does not wait for a slow one; what it signs then is kept all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_slower_than_the_log_grows_still_tells_the_time() {
    let bed = Bed::new(StoreKind::Sqlite).await;
    let slow = witness(&bed, 1, Manner::Slow(WITHIN / 2)).await;
    let mut sequencer = bed.sequencer(Direct).witnessed_by(asked(&[&slow], 0));
    bed.stage(3).await;
    sequencer.turn(true).await;
    bed.stage(4).await;
    sequencer.turn(true).await;
    assert_eq!(published(&bed, &[&slow]).await, [(7, 0); 2], "it does not wait");
    until(&bed, &mut sequencer, &[&slow], 7, 1).await;
    assert_eq!((kept(&bed, 0, &slow).await, kept(&bed, 3, &slow).await), (Some((3, 1)), Some((7, 1))));
}

async fn one_fault(bed: &Bed, required: usize, which: Which, how: Failure, killed: bool) -> bool {
    bed.clear().await;
    // One that the log certainly outgrows: what it has signed then is kept.
    let outgrown = required == 0 && matches!(which, Which::Named("keep", _));
    let manner = match required {
        0 if outgrown => Manner::Slow(WITHIN / 2),
        0 => Manner::Slow(Duration::from_millis(15)),
        _ => Manner::Faithful,
    };
    let one = witness(bed, 1, manner).await;
    let faulty = Faulty::failing(which.clone(), how);
    let witnessed = |sequencer: Sequencer<Faulty>| sequencer.witnessed_by(asked(&[&one], required));
    let mut sequencer = witnessed(bed.sequencer(faulty.clone()));
    for more in [3, 300] {
        bed.stage(more).await;
        // One that it is to outgrow is given no time to answer about the first entries.
        for _ in 0..if outgrown { 1 } else { 4 } {
            sequencer.turn(true).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if killed {
            bed.an_hour_later();
            sequencer = witnessed(bed.sequencer(Faulty(faulty.0.clone())));
        }
    }
    until(bed, &mut sequencer, &[&one], 303, 1).await;
    bed.is_one_log_of(303, &faulty.signed()).await;
    assert_eq!(kept(bed, 302, &one).await, Some((303, 1)), "{which:?} {how:?}");
    // Of the first entries a time is known no later than of the last ones.
    assert!(kept(bed, 0, &one).await.is_some_and(|(size, signed)| [3, 303].contains(&size) && signed == 1));
    faulty.has_failed()
}

async fn a_witnessed_log_is_one_whatever_write_fails(kind: StoreKind) {
    let bed = Bed::new(kind).await;
    for (required, name, count) in [
        (1, "publish", 2),
        (1, "outside/checkpoint", 3),
        (1, "public/checkpoint", 2),
        (1, "append", 2),
        (0, "publish", 3),
        (0, "keep", 1),
    ] {
        for (at, how) in (0..count).flat_map(|at| [Failure::Lost, Failure::DoneAndReportedFailed].map(|how| (at, how)))
        {
            for killed in [false, true] {
                let failed = one_fault(&bed, required, Which::Named(name, at), how, killed).await;
                // A sequencer that is killed has forgotten what it asked, and a third time is published only if the witness is slower
                // than a turn.
                let may_not_come = (name == "keep" && killed) || (required == 0 && (name, at) == ("publish", 2));
                assert!(failed || may_not_come, "{name} {at} was never written");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_witnessed_log_is_one_whatever_write_fails() {
    a_witnessed_log_is_one_whatever_write_fails(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_witnessed_log_is_one_whatever_write_fails() {
    a_witnessed_log_is_one_whatever_write_fails(StoreKind::Postgres).await;
}
