//! A person is one person to the store under every epoch's key, and after it (I4, I7).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_lc_rs::{
    cipher::{AES_256, EncryptingKey, UnboundCipherKey},
    hmac,
};
use quittance_domain::{
    action::RestrictionGround::UnlawfulProcessing, ids::RequestId, request::RequestState, task::TaskState,
};
use quittance_store::{EpochState, KeyTurn, Store};
use tokio::task::JoinSet;

use crate::{
    attacker::copy_ring,
    forgetting::{forgetting, rotate, states},
    harness::TestStore,
    renaming::change,
    world::*,
};

/// All that the tables tell subjects by.
async fn names(t: &TestStore) -> BTreeSet<Vec<u8>> {
    let sql = "SELECT pseudonym FROM subject_heads UNION SELECT pseudonym FROM subject_lines UNION SELECT pseudonym FROM restrictions";
    t.rows(sql, vec![]).await.iter().map(|row| row.bytes(0).unwrap()).collect()
}

/// As in a store whose present epoch an older build has begun.
async fn as_of_an_older_build(t: &TestStore) {
    t.change("UPDATE key_epochs SET subject_form = ''").await;
    t.refresh_keys().await.unwrap();
}

/// How far a rotation has come when more is instructed about the same persons.
#[derive(Clone, Copy, PartialEq)]
enum Rotated {
    /// The new epoch has begun, and nothing is turned over yet.
    Begun,
    Through,
}

async fn rotated(t: &TestStore, how: Rotated) {
    match how {
        Rotated::Through => drop(rotate(t, at(10)).await),
        Rotated::Begun => {
            t.ask_for_rotation().await.unwrap();
            let mut keeper = forgetting(t);
            // What is left of the one before comes first, and some of it has to settle.
            for seconds in 0.. {
                if let KeyTurn::Begun(_) = keeper.turn(at(10 + seconds * 40)).await.unwrap() {
                    break;
                }
                assert!(seconds < 50, "no epoch begins");
            }
            keeper.release().await.unwrap();
        }
    }
}

pub async fn whoever_is_instructed_about_again_is_the_same_person(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    // An old store's names are bare, the next epoch's too, and those after it are covered: every step of the way.
    as_of_an_older_build(t).await;
    acme.instruct(at(1), restriction("noor", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    let mut line = vec![acme.instruct(at(3), access("mara")).await];
    let mut lengths = Vec::new();
    for how in [Rotated::Begun, Rotated::Through, Rotated::Begun, Rotated::Through, Rotated::Begun, Rotated::Begun] {
        rotated(t, how).await;
        // In a line behind what was instructed before, on whatever side of the rotation; twice in a chunk, too.
        line.push(acme.instruct(at(11), access("mara")).await);
        line.extend(acme.instruct_all(at(12), vec![access("mara"), access("siu"), access("mara")]).await);
        let siu = line.remove(line.len() - 2);
        acme.cancel(siu, at(13)).await.unwrap();
        assert_eq!(due_at(&acme, &crm, &line).await, line[..1]);
        // The restriction stands.
        let held = acme.instruct(at(14), erasure("noor")).await;
        assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer);
        acme.cancel(held, at(15)).await.unwrap();
        // One in the middle goes.
        acme.cancel(line.remove(line.len() / 2), at(16)).await.unwrap();
        lengths.extend(names(t).await.iter().map(Vec::len).collect::<BTreeSet<_>>());
    }
    assert_eq!(BTreeSet::from_iter(lengths), BTreeSet::from([16, 20]));
    rotated(t, Rotated::Through).await;
    assert_eq!(names(t).await.len(), 2);
    for (n, id) in line.iter().enumerate() {
        assert_eq!(due_at(&acme, &crm, &line).await, [*id], "step {n}");
        assert_eq!(acme.confirm_next(&crm, at(100)).await, *id);
    }
    assert_eq!(t.count("SELECT count(*) FROM subject_heads").await, 0);
    // What the customer wants all the same ends it.
    let erased = acme.instruct(at(101), erasure("noor")).await;
    rotated(t, Rotated::Begun).await;
    acme.authorise(erased, at(102)).await.unwrap();
    rotated(t, Rotated::Through).await;
    acme.confirm_next(&crm, at(103)).await;
    assert!(names(t).await.is_empty(), "nobody is known any more");
}

pub async fn a_person_keeps_its_place_by_a_new_name(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("noor", UnlawfulProcessing)).await;
    rotated(t, Rotated::Begun).await;
    acme.instruct(at(11), change("noor", "n.lind", &crm)).await;
    rotated(t, Rotated::Begun).await;
    for name in ["noor", "n.lind"] {
        let held = acme.instruct(at(21), erasure(name)).await;
        assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer, "{name}");
    }
}

/// The first epoch that a build of this schema begins is for those before it, which may still run beside.
pub async fn builds_side_by_side_tell_subjects_alike(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    assert!(names(t).await.is_empty());
    acme.instruct(at(1), access("mara")).await;
    assert_eq!(names(t).await.iter().map(Vec::len).collect::<Vec<_>>(), [20], "a new store has no others beside it");
    acme.instruct(at(1), access("siu")).await;
    let lengths = async || names(t).await.iter().map(Vec::len).collect::<BTreeSet<_>>();
    rotate(t, at(10)).await;
    assert_eq!(lengths().await, BTreeSet::from([20]));
    t.change("DELETE FROM subject_heads").await;
    as_of_an_older_build(t).await;
    acme.instruct(at(21), access("noor")).await;
    assert_eq!(lengths().await, BTreeSet::from([16]));
    rotate(t, at(30)).await;
    acme.instruct(at(31), access("noor")).await;
    assert_eq!(lengths().await, BTreeSet::from([16]));
    let turns = rotate(t, at(40)).await;
    assert!(turns.contains(&KeyTurn::Covered { epoch: 3, subjects: 1 }), "{turns:?}");
    assert_eq!(lengths().await, BTreeSet::from([20]));
}

/// Senders about the same few persons, customers who take some back, and two replicas that turn epochs over.
pub async fn a_line_is_never_broken_while_keys_rotate(t: &TestStore) {
    const PERSONS: usize = 6;
    let (acme, crm) = acme_and_crm(t).await;
    as_of_an_older_build(t).await;
    let other = if t.is_postgres() { t.another("keys").await.unwrap() } else { (**t).clone() };
    let elsewhere = Customer { store: other.clone(), ..acme.clone() };
    let mut senders: JoinSet<Vec<RequestId>> = JoinSet::new();
    for (n, customer) in [&acme, &elsewhere, &acme, &elsewhere].into_iter().cloned().enumerate() {
        senders.spawn(async move {
            let mut sent = Vec::new();
            for chunk in 0..20 {
                let persons = (0..3).map(|i| access(&format!("p{}", (n + chunk + i) % PERSONS))).collect();
                let mut ids = customer.instruct_all(at(1), persons).await;
                if chunk % 3 == 0 {
                    again!(customer.cancel(ids.remove(chunk % 2), at(2))).unwrap();
                }
                sent.extend(ids);
            }
            sent
        });
    }
    let mut keepers = JoinSet::new();
    for store in [(**t).clone(), other.clone()] {
        keepers.spawn(keep_turning(store));
    }
    let sent: Vec<RequestId> = senders.join_all().await.into_iter().flatten().collect();
    let covered: u64 = keepers.join_all().await.into_iter().sum();
    assert!(covered > 0, "nobody was covered anew by the walk");
    rotate(t, day(2)).await;
    assert_eq!(states(t).await.iter().filter(|(_, state)| *state != EpochState::Logged).count(), 1);
    // One name each; and whoever has none before it, is the first of its person.
    assert_eq!(names(t).await.len(), PERSONS);
    let lines = "SELECT count(*) FROM subject_lines l JOIN requests r ON r.customer_id = l.customer_id
                   AND r.request_id = l.after_request_id AND r.closed_us IS NULL";
    let lines = t.count(lines).await;
    assert_eq!(usize::try_from(lines).unwrap() + PERSONS, sent.len());
    // So of each person one request is due at a time, and none is left at the end.
    let mut done_of = 0;
    while let Some(batch) = claim(&other, &crm, day(2)).await {
        let persons: BTreeSet<_> = batch.tasks.iter().map(|task| task.subject.identifiers.clone()).collect();
        assert_eq!(persons.len(), batch.tasks.len(), "two of one person at once");
        for task in &batch.tasks {
            assert!(elsewhere.report(task, day(2), done(&crm)).await.is_empty());
            done_of += 1;
        }
    }
    assert_eq!(done_of, sent.len());
    for id in sent {
        assert_eq!(acme.task_state(id, &crm).await, TaskState::Confirmed);
    }
    assert!(names(t).await.is_empty());
    other.close().await;
}

async fn keep_turning(store: Store) -> u64 {
    let mut keeper = forgetting(&store);
    let (mut now, mut all) = (at(10), 0);
    // Each holds the lease for a while; by this clock, it has always passed.
    for n in 0..150 {
        now = now.checked_add(Duration::from_secs(31)).unwrap();
        if n < 100 {
            store.ask_for_rotation().await.unwrap();
        }
        match again!(keeper.turn(now)) {
            Ok(KeyTurn::Covered { subjects, .. }) => all += subjects,
            Ok(_) => {}
            // The other one has begun the next epoch.
            Err(quittance_store::StoreError::WrongState(_)) => {}
            Err(e) => panic!("{e}"),
        }
        tokio::task::yield_now().await;
    }
    all
}

/// What somebody who has these keys would have to find in the tables, if this person were there.
fn looked_for(person: &str, ring: &BTreeMap<String, [u8; 32]>) -> BTreeSet<Vec<u8>> {
    let signed =
        |key: &[u8], message: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec();
    let of_acme = signed(&ring["pseudonym-1.key"], b"subject\0acme\0");
    let mara = email(person);
    let identifier = [mara.kind().as_str().as_bytes(), b"\0", mara.value().expose().as_bytes()].concat();
    let name = signed(&of_acme, &identifier)[..16].to_vec();
    let mut all = BTreeSet::from([name.clone()]);
    let epochs = ring.iter().filter_map(|(file, key)| Some((file.strip_prefix("epoch-")?.strip_suffix(".key")?, key)));
    for (number, key) in epochs {
        let cover = UnboundCipherKey::new(&AES_256, &signed(key, b"quittance/v1/subject-cover")).unwrap();
        let mut covered = name.clone();
        EncryptingKey::ecb(cover).unwrap().encrypt(&mut covered).unwrap();
        all.insert([number.parse::<u32>().unwrap().to_be_bytes().to_vec(), covered].concat());
    }
    all
}

/// Somebody has yesterday's tables and today's, all keys but the destroyed one, and somebody in mind.
pub async fn without_the_destroyed_key_nobody_can_be_looked_for(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    acme.instruct(at(1), restriction("kept", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(2)).await;
    let over = acme.instruct(at(3), access("over")).await;
    let (yesterday, mut ring) = (names(t).await, copy_ring(t));
    acme.cancel(over, at(4)).await.unwrap();
    rotate(t, at(10)).await;
    let today = names(t).await;
    ring.extend(copy_ring(t));
    let found = |person: &str, tables: &BTreeSet<Vec<u8>>, ring: &_| !looked_for(person, ring).is_disjoint(tables);
    // The attack works.
    assert!(found("over", &yesterday, &ring) && found("kept", &yesterday, &ring) && found("kept", &today, &ring));
    assert!(!found("nobody", &yesterday, &ring) && !found("over", &today, &ring));
    assert!(ring.remove("epoch-1.key").is_some() && ring.contains_key("epoch-2.key"));
    assert!(!found("over", &yesterday, &ring) && !found("kept", &yesterday, &ring));
}

/// Both join a line's rows by name; each would miss what the other has just changed.
pub async fn a_line_is_moved_or_covered_anew_by_one_at_a_time(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let ids = acme.instruct_all(at(1), vec![access("mara"), access("mara"), access("mara")]).await;
    rotated(t, Rotated::Begun).await;
    let mut others = t.raw().await;
    let alone = "SELECT customer_id FROM customers WHERE customer_id = 'acme' FOR NO KEY UPDATE";
    others.fetch(alone, vec![]).await.unwrap();
    let mut at_work: JoinSet<()> = JoinSet::new();
    let moves = acme.clone();
    at_work.spawn(async move { moves.cancel(ids[1], at(11)).await.unwrap() });
    let instructs = acme.clone();
    at_work.spawn(async move {
        instructs.instruct(at(11), access("mara")).await;
    });
    let mut keeper = forgetting(t);
    at_work.spawn(async move { while !matches!(keeper.turn(at(11)).await.unwrap(), KeyTurn::Rewrapped(1)) {} });
    let early = tokio::time::timeout(Duration::from_millis(500), at_work.join_next()).await;
    assert!(early.is_err(), "somebody did not wait");
    others.commit().await.unwrap();
    while let Some(done) = at_work.join_next().await {
        done.unwrap();
    }
    assert_eq!((names(t).await.len(), t.count("SELECT count(*) FROM subject_heads").await), (1, 1));
}

/// It was restored from elsewhere, after others had gone on without it.
pub async fn a_key_that_was_away_for_a_while_breaks_nothing(t: &mut TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    acme.instruct(at(1), access("mara")).await;
    acme.instruct(at(1), restriction("noor", UnlawfulProcessing)).await;
    rotated(t, Rotated::Begun).await;
    drop(acme);
    t.close().await;
    let (key, away) = (t.file("keys").join("epoch-1.key"), t.file("away.key"));
    std::fs::rename(&key, &away).unwrap();
    t.open("keys").await.unwrap();
    let turns = crate::forgetting::turn_all(&mut forgetting(t), at(40)).await;
    assert_eq!(turns.last(), Some(&KeyTurn::Stuck { epoch: 1, requests: 2 }), "{turns:?}");
    let row = t.customer(&quittance_domain::ids::CustomerId::new("acme").unwrap()).await.unwrap();
    let acme = Customer { store: (**t).clone(), id: row.id, agreement: row.agreement };
    acme.instruct(at(11), access("mara")).await;
    std::fs::rename(&away, &key).unwrap();
    t.refresh_keys().await.unwrap();
    acme.instruct(at(12), access("mara")).await;
    let held = acme.instruct(at(12), erasure("noor")).await;
    assert_eq!(acme.state(held).await, RequestState::AwaitingCustomer, "the restriction is known again");
    crate::forgetting::turn_all(&mut forgetting(t), at(200)).await;
    assert_eq!(
        states(t).await.iter().map(|(_, state)| *state).collect::<Vec<_>>(),
        [EpochState::Logged, EpochState::Current]
    );
    // One name each.
    assert_eq!((names(t).await.len(), t.count("SELECT count(*) FROM subject_heads").await), (2, 2));
}
