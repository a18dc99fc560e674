//! A halted log: what it was altered in, or lost, must be known before anything else is done.

use std::time::Duration;

use quittance_store::KeyTurn;

use crate::{forgetting, harness::TestStore, kept, replays, world::*};

pub async fn while_the_log_is_halted_nothing_begins_and_no_key_goes(t: &TestStore) {
    let (acme, _, crm) = replays::acme_bolt_and_crm(t).await;
    kept::holding(t, &acme, &crm, "mara").await;
    acme.instruct(at(4), erasure("noor")).await;
    t.start_replay(&replays::asked(&crm, at(1)), at(5)).await.unwrap();
    t.ask_for_rotation().await.unwrap();
    let later = day(200);
    t.begin_log("log.example").await.unwrap();
    let epoch =
        t.hold_log("ledger", at(6), later.checked_add(Duration::from_secs(60)).unwrap()).await.unwrap().unwrap();

    t.halt_log(epoch, Some("altered")).await.unwrap();
    assert!(claim(t, &crm, later).await.is_none());
    assert!(replays::lease(t, &crm, later).await.is_none());
    assert!(t.customers_with_ended_holds(later).await.unwrap().is_empty());
    let before = forgetting::states(t).await;
    assert_eq!(again!(forgetting::forgetting(t).turn(later)).unwrap(), KeyTurn::Waits);
    assert_eq!(forgetting::states(t).await, before);

    t.halt_log(epoch, None).await.unwrap();
    assert!(replays::lease(t, &crm, later).await.is_some());
    assert_eq!(t.customers_with_ended_holds(later).await.unwrap(), std::slice::from_ref(&acme.id));
    assert!(matches!(again!(forgetting::forgetting(t).turn(later)).unwrap(), KeyTurn::Begun(_)));
    assert!(claim(t, &crm, later).await.is_some());
}
