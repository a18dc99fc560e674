//! Intake: what is acknowledged is there once, whole, and planned with the systems of the moment (I1, I2, I3).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use quittance_domain::{
    action::{Action, IdentifierChange, RestrictionGround},
    agreement::Agreement,
    data_map::{DataMap, MapKind},
    identifier::IdentifierKind::{Email, UserId},
    ids::{CustomerId, RecipientId},
    request::{Notice, RequestState},
    system::{ConnectorKind, SystemRole, SystemScope},
    task::{TaskState, Work},
};
use quittance_store::{Intake, IntakeContext, StoreError, Taken, Topology};
use tokio::task::JoinSet;

use crate::{harness::TestStore, world::*};

pub async fn the_same_instruction_twice_is_one_request(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let sent = erasure("mara");
    let id = acme.instruct(at(1), sent.clone()).await;
    for now in [at(1), day(40)] {
        assert_eq!(acme.take(now, vec![sent.clone()]).await.unwrap(), vec![Ok(Taken::Repeated(id))]);
    }
    assert_eq!(t.count("SELECT count(*) FROM requests").await, 1);
    assert_eq!(t.count("SELECT count(*) FROM tasks").await, 1);
    assert_eq!(acme.request(id).await.created_at, at(1), "a repetition changes nothing");
}

pub async fn the_same_id_with_other_content_is_refused(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let sent = erasure("mara");
    acme.instruct(at(1), sent.clone()).await;
    let changes: [fn(&mut Intake); 6] = [
        |i| i.request.identifiers = vec![email("noor")],
        |i| i.request.identifiers.push(user("U-1")),
        |i| i.request.action = Action::Access,
        |i| i.request.reference = "ticket 7".to_owned(),
        |i| i.request.controller_due_at = Some(day(3)),
        |i| i.referred = Some(String::new()),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut other = sent.clone();
        change(&mut other);
        assert_eq!(acme.take(at(2), vec![other]).await.unwrap(), vec![Err(StoreError::RequestIdReused)], "change {n}");
    }
    assert_eq!(t.count("SELECT count(*) FROM requests").await, 1);
}

pub async fn an_instruction_twice_in_one_chunk_is_one_request(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let sent = erasure("mara");
    let mut other = sent.clone();
    other.request.identifiers = vec![email("noor")];
    let taken = acme.take(at(1), vec![sent.clone(), erasure("siu"), sent, other]).await.unwrap();
    let [Ok(Taken::Created(first)), Ok(Taken::Created(_)), second, third] = taken.as_slice() else {
        panic!("{taken:?}");
    };
    assert_eq!(*second, Ok(Taken::Repeated(*first)));
    assert_eq!(*third, Err(StoreError::RequestIdReused));
    assert_eq!(t.count("SELECT count(*) FROM requests").await, 2);
}

pub async fn an_id_is_a_customers_own(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let bolt = customer(t, "bolt").await;
    let sent = erasure("mara");
    let mine = acme.instruct(at(1), sent.clone()).await;
    let theirs = bolt.instruct(at(1), sent.clone()).await;
    assert_ne!(mine, theirs);
    assert_eq!(bolt.take(at(2), vec![sent]).await.unwrap(), vec![Ok(Taken::Repeated(theirs))]);
}

/// A caller that lost the first answer sends again while the first is still being taken in.
pub async fn an_instruction_sent_from_many_places_at_once_is_one_request(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    for round in 0..5 {
        let sent = vec![erasure(&format!("mara{round}")), erasure(&format!("noor{round}"))];
        let mut senders = JoinSet::new();
        for _ in 0..6 {
            let (acme, sent) = (acme.clone(), sent.clone());
            senders.spawn(async move { acme.take(at(1), sent).await.unwrap() });
        }
        let mut ids = HashSet::new();
        let mut first = 0;
        while let Some(taken) = senders.join_next().await {
            for taken in taken.unwrap() {
                match taken.unwrap() {
                    Taken::Created(id) => {
                        first += 1;
                        ids.insert(id);
                    }
                    Taken::Repeated(id) => {
                        ids.insert(id);
                    }
                }
            }
        }
        assert_eq!((first, ids.len()), (2, 2));
    }
    assert_eq!(t.count("SELECT count(*) FROM requests").await, 10);
}

pub async fn what_cannot_be_planned_is_refused_alone(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let unusable = intake(Action::Erasure, &[user("U-1")]);
    let taken = acme.take(at(1), vec![erasure("mara"), unusable.clone(), erasure("noor")]).await.unwrap();
    assert!(matches!(
        taken.as_slice(),
        [Ok(Taken::Created(_)), Err(StoreError::Refused(reason)), Ok(Taken::Created(_))] if reason == "NO_USABLE_IDENTIFIER"
    ));
    // What was refused has left no trace: its id is still free.
    register(t, "shop", &[UserId], &[]).await;
    assert!(matches!(acme.take(at(2), vec![unusable]).await.unwrap().as_slice(), [Ok(Taken::Created(_))]));
}

pub async fn nothing_is_taken_in_where_there_is_no_system(t: &TestStore) {
    let acme = customer(t, "acme").await;
    let taken = acme.take(at(1), vec![erasure("mara")]).await.unwrap();
    assert_eq!(taken, vec![Err(StoreError::Refused("NO_SYSTEMS".to_owned()))]);
    assert_eq!(t.count("SELECT count(*) FROM ledger_entries").await, 0);
}

/// A failure in the middle of a chunk leaves nothing of it, and the same chunk can be sent again.
pub async fn a_chunk_is_taken_in_whole_or_not_at_all(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let chunk: Vec<_> = (0..20).map(|n| erasure(&format!("person{n}"))).collect();
    let tables = ["requests", "tasks", "subject_heads", "ready", "ledger_entries"];
    // The ledger is staged last: by then everything else of the chunk is written.
    t.change("ALTER TABLE ledger_entries RENAME TO ledger_entries_away").await;
    assert!(matches!(acme.take(at(1), chunk.clone()).await, Err(StoreError::Sql(_))));
    t.change("ALTER TABLE ledger_entries_away RENAME TO ledger_entries").await;
    for table in tables {
        assert_eq!(t.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    assert_eq!(acme.instruct_all(at(2), chunk).await.len(), 20);
    assert_eq!(t.count("SELECT count(*) FROM requests").await, 20);
}

pub async fn a_chunk_planned_with_other_systems_is_refused(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let present = t.topology().await.unwrap();
    for generation in [present.generation - 1, present.generation + 1] {
        let topology = Topology { generation, systems: present.systems.clone() };
        let ctx = IntakeContext {
            customer: &acme.id,
            by: "test",
            now: at(1),
            agreement: &acme.agreement,
            topology: &topology,
        };
        let refused = t.create_requests(&ctx, &[erasure("mara")]).await;
        assert!(matches!(refused, Err(StoreError::WrongState(_))), "{refused:?}");
    }
    for table in ["requests", "tasks", "ledger_entries"] {
        assert_eq!(t.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

pub async fn a_chunk_planned_by_an_agreement_that_has_changed_is_refused(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let shorter = Agreement { window_days: 7, ..acme.agreement.clone() };
    let shorter = t.create_agreement(&acme.id, new_id(), shorter, at(1)).await.unwrap();
    let topology = t.topology().await.unwrap();
    let ctx =
        IntakeContext { customer: &acme.id, by: "test", now: at(2), agreement: &acme.agreement, topology: &topology };
    assert_eq!(t.create_requests(&ctx, &[erasure("mara")]).await, Err(StoreError::AgreementChanged));
    assert_eq!(t.count("SELECT count(*) FROM requests").await, 0);
    let ctx = IntakeContext { agreement: &shorter, ..ctx };
    let (request, _) = t.create_request(&ctx, &erasure("mara")).await.unwrap();
    assert_eq!(request.agreement_version, i64::from(shorter.version));
}

/// Whatever becomes of it at once.
pub async fn what_is_taken_in_is_given_as_it_is_read(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    register(t, "shop", &[UserId], &[]).await;
    register(t, "directory", &[Email], &[UserId]).await;
    let topology = t.topology().await.unwrap();
    let mut renamed = intake(Action::Rectification, &[email("noor")]);
    renamed.request.identifier_changes = vec![IdentifierChange {
        kind: Email,
        collection: "customer".to_owned(),
        field: "email".to_owned(),
        old: Some(email("noor")),
        new: email("noor.new"),
        named_at: BTreeSet::from([system_id("crm")]),
    }];
    let mut dated = access("siu");
    dated.request.controller_due_at = Some(day(3));
    dated.request.subject_asked_at = Some(at(0));
    dated.request.reference = "ticket 7".to_owned();
    let mut referred = erasure("ben");
    referred.referred = Some("please".to_owned());
    let behind_another = erasure("siu");
    let restricted = [restriction("eve", RestrictionGround::NeededForLegalClaims), erasure("eve")];
    let [stands, waits] = restricted;
    for (n, sent) in [erasure("mara"), dated, behind_another, renamed, referred, stands, waits].into_iter().enumerate()
    {
        // The store keeps microseconds.
        let now = at(1).checked_add(std::time::Duration::from_nanos(1_234_567_891)).unwrap();
        let ctx =
            IntakeContext { customer: &acme.id, by: "test", now, agreement: &acme.agreement, topology: &topology };
        let taken = t.create_request(&ctx, &sent).await.unwrap();
        let read = t.request(&acme.id, taken.0.id).await.unwrap();
        assert_eq!(format!("{taken:?}"), format!("{read:?}"), "{n}");
    }
}

pub async fn every_change_of_systems_is_another_generation(t: &TestStore) {
    let before = t.generation().await.unwrap();
    let (crm, id) = (system("crm", &[Email], &[]), new_id());
    t.register_system(&crm, "version: 1", id, at(0)).await.unwrap();
    let registered = t.generation().await.unwrap();
    assert!(registered > before);
    t.register_system(&crm, "version: 1", id, at(0)).await.unwrap();
    assert_eq!(t.generation().await.unwrap(), registered, "a repetition changes nothing");
    let other = t.register_system(&crm, "version: 1 # other", id, at(0)).await;
    assert_eq!(other, Err(StoreError::RequestIdReused), "of another map it is no repetition");
    let other = t.register_system(&system("crm", &[Email, Phone], &[]), "version: 1", id, at(0)).await;
    assert_eq!(other, Err(StoreError::RequestIdReused));
    let again = t.register_system(&crm, "version: 1", new_id(), at(0)).await;
    assert_eq!(again, Err(StoreError::AlreadyExists("the system")));
    let id = new_id();
    t.update_data_map(&crm.id, "version: 1", &crm.map, id, at(0)).await.unwrap();
    assert!(t.generation().await.unwrap() > registered);
    t.update_data_map(&crm.id, "version: 1", &crm.map, id, at(0)).await.unwrap();
    let other = t.update_data_map(&crm.id, "version: 1 # other", &crm.map, id, at(0)).await;
    assert_eq!(other, Err(StoreError::RequestIdReused));
    assert_eq!(t.topology().await.unwrap().systems[0].map_version, 2);
}

/// UUIDv7: what was taken in later sorts later, inside a chunk too; both engines sort the 16 bytes.
pub async fn ids_sort_in_the_order_of_intake(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let mut ids = Vec::new();
    for chunk in 0..5 {
        let items = (0..50).map(|n| erasure(&format!("p{chunk}x{n}"))).collect();
        ids.extend(acme.instruct_all(at(1), items).await);
    }
    assert!(ids.is_sorted());
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 250);
    let stored = t.rows("SELECT request_id FROM requests ORDER BY request_id", vec![]).await;
    let stored: Vec<_> = stored.iter().map(|row| row.uuid(0).unwrap()).collect();
    assert_eq!(stored, ids.iter().map(|id| id.uuid()).collect::<Vec<_>>());
    assert!(stored.iter().all(|id| id.get_version_num() == 7));
}

pub async fn a_request_is_dated_by_its_agreement_or_the_controllers_date(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let plain = acme.request(acme.instruct(at(1), erasure("mara")).await).await;
    // 30 calendar days on, the last microsecond of the day in Amsterdam (summer time by then).
    assert_eq!(plain.first_due_at, "2026-03-31T21:59:59.999999Z".parse().unwrap());
    let mut sooner = erasure("noor");
    sooner.request.controller_due_at = Some(day(3));
    let sooner = acme.request(acme.instruct(at(1), sooner).await).await;
    assert_eq!((sooner.first_due_at, sooner.due_at), (day(3), day(3)));
    assert_eq!(sooner.controller_due_at, Some(day(3)));
}

pub async fn an_agreement_signed_meanwhile_leaves_open_requests_their_dates(t: &TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let before = acme.request(id).await;
    let shorter = quittance_domain::agreement::Agreement { window_days: 10, ..agreement() };
    let (request_id, signed) = (new_id(), at(2));
    let shorter = t.create_agreement(&acme.id, request_id, shorter, signed).await.unwrap();
    assert_eq!(shorter.version, 2);
    assert_eq!(t.create_agreement(&acme.id, request_id, shorter.clone(), signed).await.unwrap(), shorter, "once only");
    let other = quittance_domain::agreement::Agreement { window_days: shorter.window_days + 1, ..shorter.clone() };
    let reused = t.create_agreement(&acme.id, request_id, other, signed).await;
    assert!(matches!(reused, Err(StoreError::RequestIdReused)), "{reused:?}");
    let versions: Vec<u32> = t.list_agreements(&acme.id).await.unwrap().iter().map(|a| a.version).collect();
    assert_eq!(versions, [2, 1]);
    assert_eq!(t.customer(&acme.id).await.unwrap().agreement.version, 2);
    let after = acme.request(id).await;
    assert_eq!((after.due_at, after.agreement_version), (before.due_at, 1));
}

pub async fn a_customer_is_created_once(t: &TestStore) {
    let new = |id: &str, idempotency| quittance_store::NewCustomer {
        id: quittance_domain::ids::CustomerId::new(id).unwrap(),
        idempotency,
        display_name: id.to_owned(),
        agreement: agreement(),
    };
    let request_id = new_id();
    let mut creators = JoinSet::new();
    for _ in 0..6 {
        let (store, new) = ((**t).clone(), new("acme", request_id));
        creators.spawn(async move { store.create_customer(new, at(1)).await.map(|c| c.id) });
    }
    while let Some(created) = creators.join_next().await {
        assert_eq!(created.unwrap().unwrap().as_str(), "acme");
    }
    let reused = t.create_customer(new("bolt", request_id), at(1)).await;
    assert!(matches!(reused, Err(StoreError::RequestIdReused)));
    let mut other = new("acme", request_id);
    other.agreement.window_days += 1;
    assert!(matches!(t.create_customer(other, at(1)).await, Err(StoreError::RequestIdReused)));
    let taken = t.create_customer(new("acme", new_id()), at(1)).await;
    assert!(matches!(taken, Err(StoreError::AlreadyExists(_))));
    assert_eq!(t.count("SELECT count(*) FROM agreements").await, 1);
}

pub async fn a_request_has_exactly_one_task_for_every_system(t: &TestStore) {
    let acme = customer(t, "acme").await;
    for n in 0..7 {
        register(t, &format!("system-{n}"), &[Email], &[]).await;
    }
    register(t, "pbx", &[Phone], &[]).await;
    // A system that holds nothing of this customer's is no part of it.
    let mut foreign = system("foreign", &[Email], &[]);
    let bolt = customer(t, "bolt").await;
    foreign.registration.scope = SystemScope::Customers([(bolt.id.clone(), "bolt".to_owned())].into());
    t.register_system(&foreign, "version: 1", new_id(), at(0)).await.unwrap();
    let id = acme.instruct(at(1), erasure("mara")).await;
    let tasks: Vec<(String, TaskState)> =
        acme.tasks(id).await.into_iter().map(|task| (task.system.to_string(), task.state)).collect();
    let mut expected = vec![("pbx".to_owned(), TaskState::NeedsAttention)];
    expected.extend((0..7).map(|n| (format!("system-{n}"), TaskState::Pending)));
    assert_eq!(tasks, expected);
    assert_eq!(bolt.tasks(bolt.instruct(at(1), erasure("mara")).await).await.len(), 9);
    assert_eq!(acme.state(id).await, RequestState::InProgress);
}

fn at_keys<const N: usize>(customers: [&Customer; N]) -> BTreeMap<CustomerId, String> {
    customers.map(|c| (c.id.clone(), format!("tenant-{}", c.id))).into()
}

/// Signed up later: what is open of theirs gets its task, and the system's registration, sent again, is still the same.
pub async fn customers_are_added_to_a_system(t: &TestStore) {
    let (acme, bolt) = (customer(t, "acme").await, customer(t, "bolt").await);
    register(t, "mail", &[Email], &[]).await;
    let mut crm = system("crm", &[Email], &[]);
    crm.registration.scope = SystemScope::Customers(at_keys([&acme]));
    let key = new_id();
    t.register_system(&crm, "version: 1", key, at(0)).await.unwrap();
    let id = bolt.instruct(at(1), erasure("mara")).await;
    assert_eq!(bolt.tasks(id).await.len(), 1);
    let generation = t.generation().await.unwrap();
    t.add_customers(&crm.id, &at_keys([&acme, &bolt])).await.unwrap();
    assert_eq!(t.generation().await.unwrap(), generation + 1);
    t.add_customers(&crm.id, &at_keys([&bolt])).await.unwrap();
    assert_eq!(t.generation().await.unwrap(), generation + 1, "nothing is new");
    t.register_system(&crm, "version: 1", key, at(0)).await.unwrap();
    bolt.replan(at(2)).await;
    assert_eq!(bolt.tasks(id).await.len(), 2);
    let topology = t.topology().await.unwrap();
    assert_eq!(topology.system(&crm.id).unwrap().customer_key(&bolt.id).as_deref(), Some("tenant-bolt"));
    let others = [(bolt.id.clone(), "tenant-acme".to_owned())].into();
    assert!(matches!(t.add_customers(&crm.id, &others).await, Err(StoreError::WrongState(_))));
    let taken = [(CustomerId::new("cargo").unwrap(), "tenant-acme".to_owned())].into();
    assert!(matches!(t.add_customers(&crm.id, &taken).await, Err(StoreError::WrongState(_))));
    let everybodys = t.add_customers(&system_id("mail"), &at_keys([&bolt])).await;
    assert!(matches!(everybodys, Err(StoreError::WrongState(_))));
    let nowhere = t.add_customers(&system_id("nowhere"), &at_keys([&bolt])).await;
    assert!(matches!(nowhere, Err(StoreError::NotFound(_))));
}

/// What was planned for one customer's own database would be done to everybody's rows.
pub async fn a_system_is_not_shared_while_a_task_would_not_tell_whose_rows_are_meant(t: &TestStore) {
    let (acme, bolt) = (customer(t, "acme").await, customer(t, "bolt").await);
    let own = "version: 1\ncollections: {people: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}}";
    let shared = own.replace("key: [id]", "key: [id], customer_field: tenant");
    let mut crm = system("crm", &[], &[]);
    crm.registration.connector = ConnectorKind::Sql;
    crm.registration.scope = SystemScope::Customers(at_keys([&acme]));
    crm.map = Arc::new(DataMap::parse(own, MapKind::Sql).unwrap());
    t.register_system(&crm, own, new_id(), at(0)).await.unwrap();
    let open = acme.instruct(at(1), erasure("mara")).await;
    let refused = async |what: &str| match t.add_customers(&crm.id, &at_keys([&bolt])).await {
        Err(StoreError::WrongState(why)) => assert!(why.contains(what), "{why}"),
        other => panic!("{other:?}"),
    };
    refused("customer_field").await;
    let map = DataMap::parse(&shared, MapKind::Sql).unwrap();
    t.update_data_map(&crm.id, &shared, &map, new_id(), at(2)).await.unwrap();
    refused("by version 1 of its data map").await;
    assert_eq!(acme.confirm_next(&crm.id, at(3)).await, open);
    t.add_customers(&crm.id, &at_keys([&bolt])).await.unwrap();
    let back = t.update_data_map(&crm.id, own, &crm.map, new_id(), at(4)).await;
    assert!(
        matches!(back, Err(StoreError::WrongState(_))),
        "checked for one customer, and it comes when there are two"
    );
}

/// A task works with the map of the day on which it was planned.
pub async fn a_task_pins_the_version_of_its_map(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let before = acme.instruct(at(1), erasure("mara")).await;
    let mut map = system("crm", &[Email], &[]).map.as_ref().clone();
    map.max_rows_per_subject = 7;
    t.update_data_map(&crm, "version: 1 # narrower", &map, new_id(), at(2)).await.unwrap();
    let after = acme.instruct(at(3), erasure("noor")).await;
    let batch = claim(t, &crm, at(4)).await.unwrap();
    assert_eq!(batch.work, Work::Act);
    let versions: Vec<_> = batch.tasks.iter().map(|task| (task.key.request, task.map_version)).collect();
    assert_eq!(versions, [(before, 1), (after, 2)]);
    assert_eq!(t.data_map(&crm, 1).await.unwrap().max_rows_per_subject, 100);
    assert_eq!(t.data_map(&crm, 2).await.unwrap().max_rows_per_subject, 7);
}

/// At intake, when a customer authorises, and when systems were added meanwhile.
pub async fn a_recipient_has_a_task_only_where_it_is_to_be_told(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let mut bank = system("bank", &[Email], &[]);
    bank.registration.role = SystemRole::Recipient;
    t.register_system(&bank, "version: 1", new_id(), at(0)).await.unwrap();
    let notice = Notice { recipient: RecipientId::new("bank").unwrap(), system: bank.id.clone() };
    let telling = |person: &str| {
        let mut sent = erasure(person);
        sent.request.notices = vec![notice.clone()];
        sent
    };
    let (silent, told) = (acme.instruct(at(1), erasure("mara")).await, acme.instruct(at(1), telling("noor")).await);
    let referred = acme.instruct(at(1), Intake { referred: Some("words".to_owned()), ..telling("lena") }).await;
    acme.authorise(referred, at(2)).await.unwrap();
    let press = register(t, "press", &[Email], &[]).await;
    acme.replan(at(3)).await;
    assert_eq!(acme.request(told).await.notices, [notice]);
    for (id, systems) in [
        (silent, vec![crm.clone(), press.clone()]),
        (told, vec![bank.id.clone(), crm.clone(), press.clone()]),
        (referred, vec![bank.id.clone(), crm.clone(), press.clone()]),
    ] {
        let planned: Vec<_> = acme.tasks(id).await.into_iter().map(|task| task.system).collect();
        assert_eq!(planned, systems);
    }
    assert!(claim(t, &bank.id, at(4)).await.is_none(), "nobody is told of what is not done yet");
    work_off(&acme, &[crm, press], at(5)).await;
    assert_eq!(acme.state(silent).await, RequestState::Completed);
    assert_eq!(claim(t, &bank.id, at(6)).await.unwrap().tasks.len(), 2);
}
