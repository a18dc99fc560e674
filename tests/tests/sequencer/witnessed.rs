//! Witnesses: where they are required nothing is published without them; where not, their signatures are added; and no witness, however
//! it behaves, keeps the log from growing or spoils what it publishes.

use std::time::{Duration, Instant};

use quittance_ledger::checkpoint::{self, SignedHead};
use quittance_log_client::{HttpClient, Witness};
use quittance_sequencer::{Direct, LogStatus, Sequencer, Witnesses};
use quittance_tests::{
    StoreKind,
    witness::{Manner, TestWitness},
};

use crate::{bed::Bed, faulty::Faulty};

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
async fn until(bed: &Bed, sequencer: &mut Sequencer, witnesses: &[&TestWitness], size: u64, signed: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        sequencer.turn(true).await;
        assert_eq!(*sequencer.status().borrow(), LogStatus::Writing);
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
