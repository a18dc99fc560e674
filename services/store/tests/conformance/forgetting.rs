//! What is over is forgotten, what lives lives on, and whoever is interrupted is followed by somebody who goes on (I7).

use std::{collections::BTreeSet, fs, time::Duration};

use quittance_domain::{
    Timestamp,
    action::RestrictionGround::UnlawfulProcessing,
    agreement::Agreement,
    ids::{RequestId, SystemId},
    task::TaskState,
};
use quittance_ledger::{Event, RecordedEvent};
use quittance_store::{
    EpochState, Forgetting, Intake, KeyTurn, LeaseQuery, RequestFilter, Store, StoreError, SubjectSecrets,
};
use uuid::Uuid;

use crate::{harness::TestStore, world::*};

/// Of an epoch, where nobody asks for a rotation.
const EPOCH: Duration = Duration::from_secs(7 * 86_400);

pub fn forgetting(store: &Store) -> Forgetting {
    Forgetting::new(store.clone(), Uuid::new_v4().to_string(), EPOCH)
}

/// Turns until nothing is to be done, and gives what was done. What has to settle is given its time.
pub async fn turn_all(forgetting: &mut Forgetting, from: Timestamp) -> Vec<KeyTurn> {
    let mut now = from;
    let mut turns = Vec::new();
    let mut waited = 0;
    while waited < 50 {
        match again!(forgetting.turn(now)).unwrap() {
            KeyTurn::Idle => return turns,
            KeyTurn::Waits | KeyTurn::Elsewhere => {
                waited += 1;
                now = now.checked_add(Duration::from_secs(5)).unwrap();
                tokio::task::yield_now().await;
            }
            turn @ KeyTurn::Stuck { .. } => {
                turns.push(turn);
                return turns;
            }
            turn => turns.push(turn),
        }
    }
    panic!("it does not end: {turns:?}");
}

/// An operator's rotation, from begin to end.
pub async fn rotate(t: &TestStore, now: Timestamp) -> Vec<KeyTurn> {
    t.ask_for_rotation().await.unwrap();
    turn_all(&mut forgetting(t), now).await
}

pub async fn states(t: &TestStore) -> Vec<(u32, EpochState)> {
    t.key_epochs().await.unwrap().iter().rev().map(|e| (e.number, e.state)).collect()
}

fn key_files(t: &TestStore) -> BTreeSet<String> {
    let files = fs::read_dir(t.file("keys")).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn ring_of(epochs: &[u32]) -> BTreeSet<String> {
    epochs
        .iter()
        .map(|n| format!("epoch-{n}.key"))
        .chain(["pseudonym-1.key", "suppression-1.key"].map(str::to_owned))
        .collect()
}

async fn sealed_under(t: &TestStore, epoch: &str) -> i64 {
    t.count(&format!("SELECT count(*) FROM requests WHERE key_epoch = '{epoch}'")).await
}

async fn subject(t: &TestStore, acme: &Customer, id: RequestId) -> Option<SubjectSecrets> {
    t.subject(&acme.id, id).await.unwrap()
}

/// A request that is closed, with a match set and a record.
async fn closed(t: &TestStore, acme: &Customer, crm: &SystemId, person: &str, now: Timestamp) -> RequestId {
    let id = acme.instruct(now, access(person)).await;
    let task = claim_one(t, crm, now).await;
    t.save_match_sets(crm, now, &[(&task, format!("rows of {person}").into_bytes())]).await.unwrap();
    let record = vec![(format!("record of {person}").into_bytes(), false)];
    t.add_records(&task.key, task.lease, now, 0, record).await.unwrap();
    assert!(acme.report(&task, now, done(crm)).await.is_empty());
    id
}

async fn agree(t: &TestStore, acme: &mut Customer, retention_days: u16) {
    let agreement = Agreement { retention_days, ..acme.agreement.clone() };
    acme.agreement = t.create_agreement(&acme.id, new_id(), agreement, at(0)).await.unwrap();
}

pub async fn what_is_over_is_forgotten_and_what_lives_lives_on(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let over = closed(t, &acme, &crm, "over", at(1)).await;
    let kept = closed(t, &acme, &crm, "kept", day(2)).await;
    let cancelled = acme.instruct(at(2), erasure("cancelled")).await;
    acme.cancel(cancelled, at(3)).await.unwrap();
    let running = acme.instruct(day(30), erasure("running")).await;
    let task = claim_one(t, &crm, day(31)).await;
    let pending = acme.instruct(day(30), erasure("pending")).await;
    let cursor = t.changes_now(&acme.id).await.unwrap();
    let turns = rotate(t, day(31)).await;
    let turned = KeyTurn::TurnedOver { epoch: 1, forgotten: 2, rewrapped: 3 };
    let covered = KeyTurn::Covered { epoch: 1, subjects: 2 };
    let destroyed = [KeyTurn::Rewrapped(1), KeyTurn::Destroyed(1), KeyTurn::Recorded(1), KeyTurn::Logged(1)];
    assert_eq!(turns, [[KeyTurn::Begun(2), turned, covered].as_slice(), &destroyed].concat());
    assert_eq!(states(t).await, [(1, EpochState::Logged), (2, EpochState::Current)]);
    assert_eq!(key_files(t), ring_of(&[2]));
    assert_eq!((sealed_under(t, "").await, sealed_under(t, "1").await, sealed_under(t, "2").await), (2, 0, 3));
    for (table, id) in [("match_sets", "kept"), ("package_records", "kept")] {
        assert_eq!(t.count(&format!("SELECT count(*) FROM {table}")).await, 1, "{table}: {id}");
    }
    let bytes =
        "SELECT coalesce(sum(length(sealed_subject) + length(wrapped_key) + length(content_mac)), 0) FROM requests
                 WHERE key_epoch = ''";
    assert_eq!(t.count(&format!("SELECT CAST(({bytes}) AS BIGINT)")).await, 0);
    // What was done stays on record, and nobody's person does.
    for id in [over, cancelled] {
        assert_eq!(acme.request(id).await.forgotten_at, Some(day(31)));
        assert!(subject(t, &acme, id).await.is_none());
        assert!(!t.ledger_entries(&acme.id, id).await.unwrap().is_empty());
    }
    assert!(acme.task(over, &crm).await.confirmation.is_some());
    let records = t.package_records(&acme.id, over, ("", -1), true, 10).await;
    assert!(matches!(records, Err(StoreError::Forgotten)));
    let forgotten = async |id| t.package(&acme.id, id).await.unwrap().forgotten;
    assert_eq!((forgotten(over).await, forgotten(kept).await), (true, false));
    // Whoever watches sees it.
    let now = t.changes_now(&acme.id).await.unwrap();
    let changed = t.changed_requests(&acme.id, (&cursor, &now), None, 10).await.unwrap();
    assert_eq!(changed.iter().map(|(row, _)| row.id).collect::<BTreeSet<_>>(), BTreeSet::from([over, cancelled]));
    // What lives opens, under the new key; what is at work was not disturbed.
    assert_eq!(subject(t, &acme, kept).await.unwrap().identifiers, [email("kept")]);
    let records = t.package_records(&acme.id, kept, ("", -1), true, 10).await.unwrap();
    assert_eq!(records[0].record, b"record of kept");
    assert!(t.save_match_sets(&crm, day(31), &[(&task, b"rows".to_vec())]).await.unwrap().is_empty());
    assert!(acme.report(&task, day(31), done(&crm)).await.is_empty());
    let next = claim_one(t, &crm, day(31)).await;
    assert_eq!((next.key.request, next.subject.identifiers), (pending, vec![email("pending")]));
    assert!(acme.request(running).await.forgotten_at.is_none());
    // And the day after, everything goes that is over by then.
    let turns = rotate(t, day(62)).await;
    assert!(turns.contains(&KeyTurn::TurnedOver { epoch: 2, forgotten: 2, rewrapped: 1 }), "{turns:?}");
    assert_eq!(key_files(t), ring_of(&[3]));
}

pub async fn what_comes_under_a_forgotten_requests_id_is_no_repetition_of_it(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let sent = erasure("mara");
    let id = acme.instruct(at(1), sent.clone()).await;
    acme.confirm_next(&crm, at(2)).await;
    rotate(t, day(31)).await;
    assert!(acme.request(id).await.forgotten_at.is_some());
    // Nobody can tell any more whether it is the same: it may be somebody else's erasure, which is not done by saying that it was.
    let other = Intake { idempotency: sent.idempotency, ..erasure("noor") };
    for again in [sent, other] {
        assert_eq!(acme.take(day(31), vec![again]).await.unwrap(), [Err(StoreError::RequestIdForgotten)]);
    }
    let listed = t.list_requests(&acme.id, &RequestFilter::default(), None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
}

pub async fn an_epoch_ends_by_itself_and_no_sooner(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    closed(t, &acme, &crm, "mara", at(1)).await;
    let mut keeper = forgetting(t);
    // The first look dates it.
    assert_eq!(keeper.turn(day(40)).await.unwrap(), KeyTurn::Idle);
    assert_eq!(keeper.turn(day(46)).await.unwrap(), KeyTurn::Idle);
    assert_eq!(states(t).await, [(1, EpochState::Current)]);
    let turns = turn_all(&mut keeper, day(47)).await;
    assert_eq!((turns.first(), turns.last()), (Some(&KeyTurn::Begun(2)), Some(&KeyTurn::Logged(1))));
    assert_eq!(keeper.turn(day(53)).await.unwrap(), KeyTurn::Idle);
    assert_eq!(keeper.turn(day(54)).await.unwrap(), KeyTurn::Begun(3));
}

pub async fn the_agreement_in_force_says_how_long_is_kept(t: &TestStore) {
    let (mut acme, crm) = acme_and_crm(t).await;
    assert_eq!(acme.agreement.retention_days, 30);
    let mut bolt = customer(t, "bolt").await;
    agree(t, &mut bolt, 0).await;
    let short = closed(t, &bolt, &crm, "bolt", day(1)).await;
    let long = closed(t, &acme, &crm, "acme", day(1)).await;
    agree(t, &mut acme, 90).await;
    rotate(t, day(31)).await;
    assert_eq!(bolt.request(short).await.forgotten_at, Some(day(31)));
    assert_eq!(acme.request(long).await.forgotten_at, None);
    rotate(t, day(90)).await;
    assert_eq!(acme.request(long).await.forgotten_at, None);
    rotate(t, day(91)).await;
    assert_eq!(acme.request(long).await.forgotten_at, Some(day(91)));
}

/// Turns are steps that each can be the last of a process.
pub async fn a_rotation_goes_on_wherever_it_was_interrupted(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let bolt = customer(t, "bolt").await;
    drop((acme, bolt));
    let mut now = day(40);
    let mut epoch = 1;
    for survived in 0.. {
        let living = {
            let (acme, bolt) = (again_customer(t, "acme").await, again_customer(t, "bolt").await);
            closed(t, &acme, &crm, "over", now).await;
            closed(t, &bolt, &crm, "over", now).await;
            acme.instruct(now.checked_add(Duration::from_secs(31 * 86_400)).unwrap(), erasure("living")).await
        };
        now = now.checked_add(Duration::from_secs(31 * 86_400)).unwrap();
        t.ask_for_rotation().await.unwrap();
        let mut done = Vec::new();
        {
            let mut keeper = forgetting(t);
            while done.len() < survived {
                now = now.checked_add(Duration::from_secs(15)).unwrap();
                match keeper.turn(now).await.unwrap() {
                    KeyTurn::Idle => break,
                    turn => done.push(turn),
                }
            }
        }
        t.close().await;
        t.open("keys").await.unwrap();
        // Its lease has passed.
        now = now.checked_add(Duration::from_secs(60)).unwrap();
        turn_all(&mut forgetting(t), now).await;
        epoch += 1;
        assert_eq!(key_files(t), ring_of(&[epoch]), "after {survived} turns");
        assert_eq!(states(t).await.last(), Some(&(epoch, EpochState::Current)));
        assert!(states(t).await.iter().rev().skip(1).all(|(_, state)| *state == EpochState::Logged));
        let forgotten = "SELECT count(*) FROM requests WHERE closed_us IS NOT NULL AND forgotten_us IS NULL";
        assert_eq!(t.count(forgotten).await, 0, "after {survived} turns");
        assert_eq!(t.count("SELECT count(*) FROM requests WHERE closed_us IS NULL").await, 1);
        let of_epoch = format!("\"epoch\":{}", epoch - 1);
        assert_eq!(destructions(t).await.iter().filter(|text| text.contains(&of_epoch)).count(), 2);
        let acme = again_customer(t, "acme").await;
        assert_eq!(subject(t, &acme, living).await.unwrap().identifiers, [email("living")]);
        acme.confirm_next(&crm, now).await;
        drop(acme);
        if done.len() < survived {
            assert!(survived > 7, "{done:?}");
            break;
        }
    }
}

async fn again_customer(t: &TestStore, id: &str) -> Customer {
    let row = t.customer(&quittance_domain::ids::CustomerId::new(id).unwrap()).await.unwrap();
    Customer { store: (**t).clone(), id: row.id, agreement: row.agreement }
}

async fn destructions(t: &TestStore) -> Vec<String> {
    let rows =
        t.rows("SELECT payload FROM ledger_entries WHERE kind = 'key_destroyed' ORDER BY entry_id", vec![]).await;
    rows.iter().map(|row| String::from_utf8(row.bytes(0).unwrap()).unwrap()).collect()
}

/// Folder and database are two places: one may have what the other has not yet.
pub async fn what_the_folder_has_before_the_database_is_taken(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    closed(t, &acme, &crm, "mara", at(1)).await;
    // It was made, and nobody was told.
    let next = t.file("keys").join("epoch-2.key");
    fs::copy(t.file("keys").join("epoch-1.key"), &next).unwrap();
    fs::write(&next, [7; 32]).unwrap();
    t.ask_for_rotation().await.unwrap();
    let mut keeper = forgetting(t);
    while keeper.turn(day(31)).await.unwrap() != KeyTurn::Rewrapped(1) {}
    assert_eq!(fs::read(&next).unwrap(), [7; 32]);
    // It was being destroyed: renamed, half overwritten; and a name of it was left from when it was made.
    let old = t.file("keys").join("epoch-1.key");
    fs::hard_link(&old, t.file("keys").join("epoch-1.key.0123")).unwrap();
    fs::rename(&old, t.file("keys").join("epoch-1.key.destroyed")).unwrap();
    drop((acme, keeper));
    t.close().await;
    t.open("keys").await.unwrap();
    turn_all(&mut forgetting(t), day(32)).await;
    assert_eq!(key_files(t), ring_of(&[2]));
    assert_eq!(states(t).await, [(1, EpochState::Logged), (2, EpochState::Current)]);
}

/// It was restored from where the ring is kept, or another replica's folder had it.
pub async fn a_destroyed_key_that_comes_back_is_destroyed_again(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    closed(t, &acme, &crm, "mara", at(1)).await;
    let (old, away) = (t.file("keys").join("epoch-1.key"), t.file("away"));
    fs::copy(&old, &away).unwrap();
    rotate(t, day(31)).await;
    drop(acme);
    t.close().await;
    fs::copy(&away, &old).unwrap();
    t.open("keys").await.unwrap();
    assert_eq!(key_files(t), ring_of(&[2]));
}

pub async fn a_key_that_something_needs_is_not_destroyed(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let over = closed(t, &acme, &crm, "over", at(1)).await;
    let broken = acme.instruct(at(2), erasure("broken")).await;
    let fine = acme.instruct(day(31), erasure("fine")).await;
    t.change(
        "UPDATE requests SET wrapped_key = (SELECT o.wrapped_key FROM requests o ORDER BY request_id LIMIT 1)
         WHERE state = 'IN_PROGRESS' AND request_id = (SELECT r.request_id FROM requests r WHERE r.state = 'IN_PROGRESS'
           ORDER BY r.request_id LIMIT 1)",
    )
    .await;
    let stuck = |epoch| KeyTurn::Stuck { epoch, requests: 1 };
    let turns = rotate(t, day(31)).await;
    assert_eq!(turns.last(), Some(&stuck(1)));
    assert_eq!(states(t).await, [(1, EpochState::Closed), (2, EpochState::Current)]);
    assert_eq!(key_files(t), ring_of(&[1, 2]));
    // All others go on, in this rotation and in the next.
    assert!(acme.request(over).await.forgotten_at.is_some());
    assert_eq!(subject(t, &acme, fine).await.unwrap().identifiers, [email("fine")]);
    let turns = rotate(t, day(38)).await;
    assert!(turns.contains(&KeyTurn::Destroyed(2)), "{turns:?}");
    assert_eq!(states(t).await, [(1, EpochState::Closed), (2, EpochState::Logged), (3, EpochState::Current)]);
    // A person has looked: what nobody can open is over at last.
    acme.cancel(broken, day(39)).await.unwrap();
    let turns = turn_all(&mut forgetting(t), day(69)).await;
    assert!(turns.contains(&KeyTurn::TurnedOver { epoch: 1, forgotten: 1, rewrapped: 0 }), "{turns:?}");
    assert_eq!(states(t).await[0], (1, EpochState::Logged));
    assert_eq!(subject(t, &acme, fine).await.unwrap().identifiers, [email("fine")]);
}

/// The customer said no while a worker was at it. What the worker does then is still recorded.
pub async fn what_a_worker_still_holds_is_not_forgotten_under_its_hands(t: &TestStore) {
    let (mut acme, crm) = acme_and_crm(t).await;
    agree(t, &mut acme, 0).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    t.object_to_request(&acme.id, id, "operators/kim", "looks unlawful", at(3)).await.unwrap();
    t.decline_request(&acme.id, id, "customers/acme", "withdrawn", at(4)).await.unwrap();
    rotate(t, at(5)).await;
    assert_eq!(acme.request(id).await.forgotten_at, None);
    assert!(t.save_match_sets(&crm, at(6), &[(&task, b"rows".to_vec())]).await.unwrap().is_empty());
    // It never says anything, and long after its lease it comes too late.
    rotate(t, at(2 + LEASE_S + 600)).await;
    assert!(acme.request(id).await.forgotten_at.is_some());
    assert_eq!(acme.task_state(id, &crm).await, TaskState::NeedsAttention);
    assert_eq!(t.save_match_sets(&crm, at(6), &[(&task, b"rows".to_vec())]).await.unwrap(), [id]);
    let remote = vec![(id, task.lease, b"rows".to_vec())];
    assert_eq!(t.save_remote_match_sets(&acme.id, &crm, at(6), remote).await.unwrap(), [id]);
    assert_eq!(acme.report(&task, at(6), done(&crm)).await, [id]);
    assert_eq!(t.count("SELECT count(*) FROM match_sets").await, 0);
    // With evidence, it is confirmed all the same.
    t.resolve_task(
        &acme.key(id, &crm),
        confirmation(&crm, quittance_domain::outcome::OutcomeKind::Erased),
        "operators/kim",
        day(1),
    )
    .await
    .unwrap();
}

pub async fn a_package_of_any_size_is_forgotten(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(1)).await;
    for page in 0..9_i64 {
        let records = (0..5_000).map(|_| (b"record".to_vec(), false)).collect();
        t.add_records(&task.key, task.lease, at(2), page * 5_000, records).await.unwrap();
    }
    acme.report(&task, at(3), done(&crm)).await;
    t.ask_for_rotation().await.unwrap();
    let mut keeper = forgetting(t);
    assert_eq!(keeper.turn(day(31)).await.unwrap(), KeyTurn::Begun(2));
    let nothing_yet = KeyTurn::TurnedOver { epoch: 1, forgotten: 0, rewrapped: 0 };
    assert_eq!(keeper.turn(day(31)).await.unwrap(), nothing_yet);
    // Nobody is given half of it; and if it is interrupted here, the rest goes by whoever comes next, whatever was agreed on since.
    assert!(acme.request(id).await.forgotten_at.is_some());
    agree(t, &mut acme.clone(), 300).await;
    let turns = turn_all(&mut forgetting(t), day(32)).await;
    assert_eq!(turns[..2], [nothing_yet, KeyTurn::TurnedOver { epoch: 1, forgotten: 1, rewrapped: 0 }]);
    assert_eq!(t.count("SELECT count(*) FROM package_records").await, 0);
}

pub async fn the_log_tells_every_customer_of_a_destroyed_key_once(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let bolt = customer(t, "bolt").await;
    customer(t, "idle").await;
    for person in ["a", "b"] {
        closed(t, &acme, &crm, person, at(1)).await;
    }
    acme.instruct(at(1), erasure("c")).await;
    bolt.instruct(at(1), erasure("c")).await;
    rotate(t, day(31)).await;
    let sql = "SELECT customer_id, payload FROM ledger_entries WHERE kind = 'key_destroyed' ORDER BY customer_id";
    let rows = t.rows(sql, vec![]).await;
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            let recorded = RecordedEvent::read(&row.bytes(1).unwrap()).unwrap();
            assert_eq!(
                (recorded.customer.as_str(), recorded.request.uuid()),
                (row.text(0).unwrap().as_str(), Uuid::nil())
            );
            let Event::KeyDestroyed { epoch, forgotten, rewrapped, destroyed_us } = recorded.event else { panic!() };
            assert!(destroyed_us >= day(31).as_microsecond());
            (recorded.customer.to_string(), epoch, forgotten, rewrapped)
        })
        .collect();
    assert_eq!(told, [("acme".to_owned(), 1, 2, 1), ("bolt".to_owned(), 1, 0, 1)]);
    assert_eq!(t.count("SELECT count(*) FROM key_epoch_uses").await, 0);
}

/// Senders, workers and two replicas that both turn epochs over, all at once.
pub async fn what_is_taken_in_while_keys_rotate_is_never_lost(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let other = if t.is_postgres() { t.another("keys").await.unwrap() } else { (**t).clone() };
    let elsewhere = Customer { store: other.clone(), ..acme.clone() };
    let mut senders = tokio::task::JoinSet::new();
    for (n, customer) in [&acme, &elsewhere, &acme, &elsewhere].into_iter().cloned().enumerate() {
        senders.spawn(async move {
            let mut sent = Vec::new();
            for chunk in 0..25 {
                let chunk = (0..8).map(|i| erasure(&format!("p{n}-{chunk}-{i}"))).collect();
                sent.extend(customer.instruct_all(at(1), chunk).await);
            }
            sent
        });
    }
    let mut keepers = tokio::task::JoinSet::new();
    for store in [(**t).clone(), other.clone()] {
        keepers.spawn(async move {
            let mut keeper = forgetting(&store);
            let mut now = at(10);
            let mut destroyed = 0;
            // Each holds the lease for a while; by this clock, it has always passed.
            for _ in 0..400 {
                now = now.checked_add(Duration::from_secs(31)).unwrap();
                if destroyed < 3 {
                    store.ask_for_rotation().await.unwrap();
                }
                if let KeyTurn::Destroyed(_) = again!(keeper.turn(now)).unwrap() {
                    destroyed += 1;
                }
                tokio::task::yield_now().await;
            }
            destroyed
        });
    }
    let sent: Vec<RequestId> = senders.join_all().await.into_iter().flatten().collect();
    let destroyed: u32 = keepers.join_all().await.into_iter().sum();
    assert!(destroyed > 3, "{destroyed}");
    assert_eq!(sent.len(), 800);
    rotate(t, day(2)).await;
    let living = t.key_epochs().await.unwrap();
    let living: Vec<u32> = living.iter().filter(|e| e.state == EpochState::Current).map(|e| e.number).collect();
    assert_eq!(key_files(t), ring_of(&living));
    assert_eq!(sealed_under(t, &living[0].to_string()).await, 800);
    let mut opened = 0;
    while let Some(batch) = claim(&other, &crm, day(2)).await {
        opened += batch.tasks.len();
        assert!(batch.tasks.iter().all(|task| task.subject.identifiers.len() == 1));
    }
    assert_eq!(opened, 800);
    other.close().await;
}

/// A replica that was asleep meanwhile: what it has in memory goes as soon as it looks, and nothing is sealed with it before.
pub async fn a_replica_seals_nothing_under_an_old_key_and_keeps_none(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let other = t.another("keys").await.unwrap();
    assert!(other.subject(&acme.id, id).await.unwrap().is_some());
    let wrapped = t.rows("SELECT wrapped_key FROM requests", vec![]).await[0].bytes(0).unwrap();
    t.ask_for_rotation().await.unwrap();
    let mut keeper = forgetting(t);
    assert_eq!(keeper.turn(at(10)).await.unwrap(), KeyTurn::Begun(2));
    let asleep = Customer { store: other.clone(), ..acme.clone() };
    asleep.instruct(at(11), erasure("noor")).await;
    assert_eq!((sealed_under(t, "1").await, sealed_under(t, "2").await), (1, 1));
    // Nothing is on record before every replica has had its time to drop it.
    assert!(matches!(keeper.turn(at(12)).await.unwrap(), KeyTurn::TurnedOver { .. }));
    assert_eq!(keeper.turn(at(12)).await.unwrap(), KeyTurn::Covered { epoch: 1, subjects: 1 });
    assert_eq!(keeper.turn(at(12)).await.unwrap(), KeyTurn::Rewrapped(1));
    assert_eq!(keeper.turn(at(13)).await.unwrap(), KeyTurn::Waits);
    assert_eq!(keeper.turn(at(30)).await.unwrap(), KeyTurn::Destroyed(1));
    assert_eq!(keeper.turn(at(31)).await.unwrap(), KeyTurn::Waits);
    assert_eq!(key_files(t), ring_of(&[2]));
    // As a reader has it that read just before: it still opens, until the replica looks.
    let mut tx = t.raw().await;
    let sql =
        crate::statements::by_the_case("UPDATE requests SET key_epoch = '1', wrapped_key = $1 WHERE request_id = $2");
    tx.execute(&sql, vec![wrapped.into(), id.uuid().into()]).await.unwrap();
    tx.commit().await.unwrap();
    assert!(other.subject(&acme.id, id).await.unwrap().is_some());
    other.refresh_keys().await.unwrap();
    assert_eq!(other.subject(&acme.id, id).await.map(|_| ()), Err(StoreError::NoEpochKey(1)));
    let ready = other.ready_work(at(40), std::slice::from_ref(&crm)).await.unwrap();
    let query = LeaseQuery { worker: "worker", now: at(40), expires_at: at(60), tasks_max: 10 };
    let batch = other.lease(&ready[0], &query).await.unwrap();
    assert_eq!(batch.tasks.iter().map(|task| task.subject.identifiers.clone()).collect::<Vec<_>>(), [[email("noor")]]);
    other.close().await;
}

/// Replicas that do not share the folder: whoever lacks the key says so, and neither seals with another one.
pub async fn a_replica_with_a_folder_of_its_own_seals_nothing(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(t.file("own")).unwrap();
    for name in ["epoch-1.key", "pseudonym-1.key"] {
        fs::copy(t.file("keys").join(name), t.file("own").join(name)).unwrap();
    }
    let other = t.another("own").await.unwrap();
    let apart = Customer { store: other.clone(), ..acme.clone() };
    apart.instruct(at(1), erasure("mara")).await;
    t.ask_for_rotation().await.unwrap();
    assert_eq!(forgetting(t).turn(at(2)).await.unwrap(), KeyTurn::Begun(2));
    assert_eq!(apart.take_once(at(3), vec![erasure("noor")]).await.map(|_| ()), Err(StoreError::NoEpochKey(2)));
    // Or it had made one itself.
    fs::copy(t.file("own").join("epoch-1.key"), t.file("own").join("epoch-2.key")).unwrap();
    let refused = apart.take_once(at(3), vec![erasure("noor")]).await;
    assert!(matches!(&refused, Err(StoreError::KeyRing(text)) if text.contains("another key")), "{refused:?}");
    acme.instruct(at(4), erasure("siu")).await;
    other.close().await;
}

/// A backup from before the last rotation, restored after it: what was sealed is gone, and nothing else is.
pub async fn a_database_from_before_a_rotation_is_of_use_again(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let over = closed(t, &acme, &crm, "over", at(1)).await;
    // It stands, and nobody is recognised by it any more: no reason to keep an epoch for ever.
    acme.instruct(at(1), restriction("kept", UnlawfulProcessing)).await;
    acme.confirm_next(&crm, at(1)).await;
    let open = acme.instruct(at(2), erasure("open")).await;
    drop(acme);
    t.close().await;
    fs::copy(t.file("store.db"), t.file("backup.db")).unwrap();
    t.open("keys").await.unwrap();
    rotate(t, day(7)).await;
    t.close().await;
    fs::copy(t.file("backup.db"), t.file("store.db")).unwrap();
    t.open("keys").await.unwrap();
    let acme = again_customer(t, "acme").await;
    let refused = acme.take_once(day(8), vec![erasure("new")]).await;
    assert_eq!(refused.map(|_| ()), Err(StoreError::NoEpochKey(1)));
    assert_eq!(rotate(t, day(8)).await.last(), Some(&KeyTurn::Stuck { epoch: 1, requests: 3 }));
    // What comes in from now on is done, whatever is due beside it.
    let new = acme.instruct(day(8), erasure("new")).await;
    let task = claim_one(t, &crm, day(8)).await;
    assert_eq!((task.key.request, task.subject.identifiers), (new, vec![email("new")]));
    assert_eq!(acme.task(open, &crm).await.reason, "KEY_MISSING");
    assert!(acme.task(over, &crm).await.confirmation.is_some());
    // And what nobody can open any more is over in its time.
    acme.cancel(open, day(8)).await.unwrap_err();
    t.object_to_request(&acme.id, open, "operators/kim", "its key is lost", day(8)).await.unwrap();
    t.decline_request(&acme.id, open, "customers/acme", "instructed anew", day(8)).await.unwrap();
    let turns = turn_all(&mut forgetting(t), day(38)).await;
    assert_eq!(turns.last(), Some(&KeyTurn::Logged(2)), "{turns:?}");
    assert_eq!(states(t).await[0], (1, EpochState::Logged));
}
