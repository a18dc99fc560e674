//! Records of access packages: whole, in order, of the confirmed attempt only.

use quittance_domain::ids::{RequestId, SystemId};
use quittance_ledger::Withheld;
use quittance_store::{LeasedTask, StoreError, StoreResult};

use crate::{harness::TestStore, world::*};

async fn add(t: &TestStore, task: &LeasedTask, now: i64, first: i64, records: &[(&str, bool)]) -> StoreResult<()> {
    let records = records.iter().map(|(record, third)| (record.as_bytes().to_vec(), *third)).collect();
    t.add_records(&task.key, task.lease, at(now), first, records).await
}

/// All pages of two records each.
async fn read(t: &TestStore, customer: &Customer, id: RequestId, third_party: bool) -> Vec<(SystemId, i64, String)> {
    let mut all: Vec<(SystemId, i64, String)> = Vec::new();
    loop {
        let after = all.last().map_or(("", -1), |(system, number, _)| (system.as_str(), *number));
        let page = t.package_records(&customer.id, id, after, third_party, 2).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page.into_iter().map(|r| (r.system, r.number, String::from_utf8(r.record).unwrap())));
    }
}

pub async fn records_come_back_in_their_order(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let mut expected = Vec::new();
    for system in [&shop, &crm] {
        let task = claim_one(t, system, at(2)).await;
        for page in 0..3_i64 {
            let texts: Vec<String> = (0..4).map(|n| format!("{{\"of\":\"{system}\",\"n\":\"å{page}{n}\"}}")).collect();
            let records: Vec<(&str, bool)> = texts.iter().map(|text| (text.as_str(), false)).collect();
            add(t, &task, 3, page * 4, &records).await.unwrap();
            expected.extend((0..4).map(|n| (system.clone(), page * 4 + n, texts[usize::try_from(n).unwrap()].clone())));
        }
        acme.report(&task, at(4), done(system)).await;
    }
    expected.sort();
    assert_eq!(read(t, &acme, id, true).await, expected);
    let package = t.package(&acme.id, id).await.unwrap();
    assert_eq!((package.records, package.third_party, package.released_at), (24, 0, None));
}

/// An upload that was cut counts for nothing, and one that stood still writes nothing once its task is confirmed.
pub async fn an_upload_counts_when_it_is_whole(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    let page = |texts: &[&str]| texts.iter().map(|text| (text.as_bytes().to_vec(), false)).collect::<Vec<_>>();
    let leases = [(id, task.lease), (id, task.lease + 1)];
    let uploaded = async || t.uploaded(&acme.id, &crm, &leases).await.unwrap();
    t.upload_records(&task.key, task.lease, at(3), 0, page(&["cut"])).await.unwrap();
    assert_eq!(uploaded().await, [(id, false)].into());
    t.upload_records(&task.key, task.lease, at(3), 0, page(&["a", "b"])).await.unwrap();
    t.upload_records(&task.key, task.lease, at(3), 2, page(&["c"])).await.unwrap();
    assert_eq!(uploaded().await, [(id, false)].into());
    t.finish_upload(&task.key, task.lease, at(3)).await.unwrap();
    assert_eq!(uploaded().await, [(id, true)].into());
    let of = async |lease, after| t.uploaded_records(&task.key, lease, after, 2).await.unwrap();
    let numbers = async |lease, after| of(lease, after).await.iter().map(|row| row.number).collect::<Vec<_>>();
    assert_eq!((numbers(task.lease, -1).await, numbers(task.lease, 1).await), (vec![0, 1], vec![2]));
    assert!(numbers(task.lease + 1, -1).await.is_empty());
    acme.report(&task, at(4), done(&crm)).await;
    let late = t.upload_records(&task.key, task.lease, at(4), 0, page(&["late"])).await;
    assert_eq!(late.unwrap_err(), StoreError::LeaseLost);
    assert_eq!(t.finish_upload(&task.key, task.lease, at(4)).await.unwrap_err(), StoreError::LeaseLost);
    let expected = ["a", "b", "c"].iter().enumerate();
    let expected: Vec<_> =
        expected.map(|(n, text)| (crm.clone(), i64::try_from(n).unwrap(), (*text).to_owned())).collect();
    assert_eq!(read(t, &acme, id, true).await, expected);
    assert!(uploaded().await.is_empty());
}

pub async fn large_records_make_small_pages(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    for (number, bytes) in [9 << 20, 1, 5 << 20, 5 << 20, 1].into_iter().enumerate() {
        add(t, &task, 3, i64::try_from(number).unwrap(), &[("x".repeat(bytes).as_str(), false)]).await.unwrap();
    }
    acme.report(&task, at(4), done(&crm)).await;
    let (mut pages, mut after) = (Vec::new(), -1);
    loop {
        let page = t.package_records(&acme.id, id, (crm.as_str(), after), true, 200).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.number;
        pages.push(page.iter().map(|row| row.record.len()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![9 << 20], vec![1, 5 << 20, 5 << 20], vec![1]], "each ends with the record that fills it");
}

pub async fn records_are_refused_under_a_lost_lease(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let old = claim_one(t, &crm, at(2)).await;
    add(t, &old, 3, 0, &[("old 0", false), ("old 1", false)]).await.unwrap();
    assert_eq!(add(t, &old, 2 + LEASE_S, 2, &[("old 2", false)]).await, Err(StoreError::LeaseLost), "it has passed");
    let new = claim_one(t, &crm, at(2 + LEASE_S)).await;
    add(t, &new, 70, 0, &[("new 0", false)]).await.unwrap();
    for first in [0, 2] {
        assert_eq!(add(t, &old, 71, first, &[("late", false)]).await, Err(StoreError::LeaseLost));
    }
    acme.report(&new, at(72), done(&crm)).await;
    assert_eq!(add(t, &new, 73, 1, &[("afterwards", false)]).await, Err(StoreError::LeaseLost), "it is confirmed");
    assert_eq!(read(t, &acme, id, true).await, [(crm, 0, "new 0".to_owned())]);
}

pub async fn a_second_upload_replaces_the_first(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    add(t, &task, 3, 0, &[("a", false), ("b", true), ("c", false)]).await.unwrap();
    add(t, &task, 4, 0, &[("d", false)]).await.unwrap();
    add(t, &task, 4, 1, &[("e", false)]).await.unwrap();
    acme.report(&task, at(5), done(&crm)).await;
    let texts: Vec<String> = read(t, &acme, id, true).await.into_iter().map(|(.., text)| text).collect();
    assert_eq!(texts, ["d", "e"]);
    assert_eq!(t.count("SELECT count(*) FROM package_records").await, 2);
}

/// An upload of nothing replaces, too.
pub async fn an_empty_upload_leaves_nothing(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    add(t, &task, 3, 0, &[("a", false)]).await.unwrap();
    add(t, &task, 4, 0, &[]).await.unwrap();
    acme.report(&task, at(5), done(&crm)).await;
    assert!(read(t, &acme, id, true).await.is_empty());
}

pub async fn only_the_confirmed_attempts_records_are_listed(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let shop = register(t, "shop", &[Email], &[]).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let first = claim_one(t, &crm, at(2)).await;
    add(t, &first, 3, 0, &[("first 0", false), ("first 1", true)]).await.unwrap();
    assert!(read(t, &acme, id, true).await.is_empty(), "nothing is confirmed yet");
    assert_eq!(t.package(&acme.id, id).await.unwrap().records, 0);
    let second = claim_one(t, &crm, at(2 + LEASE_S)).await;
    // It was found that nothing is held any more: the second attempt uploads nothing.
    acme.report(&second, at(70), done(&crm)).await;
    assert!(read(t, &acme, id, true).await.is_empty());
    let package = t.package(&acme.id, id).await.unwrap();
    assert_eq!((package.records, package.third_party), (0, 0));
    let task = claim_one(t, &shop, at(80)).await;
    add(t, &task, 81, 0, &[("shop 0", false)]).await.unwrap();
    acme.report(&task, at(82), done(&shop)).await;
    assert_eq!(read(t, &acme, id, true).await, [(shop, 0, "shop 0".to_owned())]);
}

/// What an operator gave up has no records, whatever a former attempt had sent.
pub async fn a_task_ended_by_hand_has_no_records(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    add(t, &task, 3, 0, &[("half of it", false)]).await.unwrap();
    acme.report(&task, at(4), attention()).await;
    let given_up = confirmation(&crm, quittance_domain::outcome::OutcomeKind::Unconfirmed);
    t.resolve_task(&acme.key(id, &crm), given_up, "operators/kim", at(5)).await.unwrap();
    assert!(read(t, &acme, id, true).await.is_empty());
}

pub async fn third_parties_records_are_left_out_on_demand(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    let task = claim_one(t, &crm, at(2)).await;
    let records = [("mine", false), ("a chat", true), ("mine too", false), ("a mail", true)];
    add(t, &task, 3, 0, &records).await.unwrap();
    acme.report(&task, at(4), done(&crm)).await;
    let texts = async |third| {
        let all = read(t, &acme, id, third).await;
        all.into_iter().map(|(_, number, text)| (number, text)).collect::<Vec<_>>()
    };
    assert_eq!(texts(true).await.len(), 4);
    assert_eq!(texts(false).await, [(0, "mine".to_owned()), (2, "mine too".to_owned())]);
    assert_eq!(t.package(&acme.id, id).await.unwrap().third_party, 2);
    // Alone, a page at a time, as whoever counts them reads them.
    let first = t.third_party_records(&acme.id, id, ("", -1), 1).await.unwrap();
    let second = t.third_party_records(&acme.id, id, (crm.as_str(), first[0].number), 5).await.unwrap();
    assert_eq!(first.iter().chain(&second).map(|row| row.number).collect::<Vec<_>>(), [1, 3]);
}

pub async fn the_first_release_stands(t: &TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), access("mara")).await;
    acme.confirm_next(&crm, at(2)).await;
    let line = Withheld { system: crm.clone(), collection: "chats".to_owned(), category: "text".to_owned(), count: 2 };
    t.release_package(&acme.id, id, "customers/acme", Some(vec![line]), at(3)).await.unwrap();
    let second = t.release_package(&acme.id, id, "customers/acme", None, at(4)).await;
    assert!(matches!(second, Err(StoreError::WrongState(_))), "its decision does not count, and it is told so");
    let package = t.package(&acme.id, id).await.unwrap();
    assert_eq!((package.released_at, package.third_party_withheld), (Some(at(3)), true));
    // It is on record once, with what it says; and not without the release.
    let reviews = async || t.rows("SELECT payload FROM ledger_entries WHERE kind = 'reviewed'", vec![]).await;
    let found = reviews().await;
    assert_eq!(found.len(), 1);
    let text = String::from_utf8(found[0].bytes(0).unwrap()).unwrap();
    let said = "\"withheld\":[{\"system\":\"crm\",\"collection\":\"chats\",\"category\":\"text\",\"count\":2}]";
    assert!(text.contains(said), "{text}");
    let next = acme.instruct(at(5), access("nora")).await;
    acme.confirm_next(&crm, at(6)).await;
    t.change("ALTER TABLE ledger_entries RENAME TO away").await;
    assert!(t.release_package(&acme.id, next, "customers/acme", None, at(7)).await.is_err());
    t.change("ALTER TABLE away RENAME TO ledger_entries").await;
    assert_eq!(t.package(&acme.id, next).await.unwrap().released_at, None);
    assert_eq!(reviews().await.len(), 1);
}
