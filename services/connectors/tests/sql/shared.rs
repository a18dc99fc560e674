//! Rows of two people: when one is erased, the other keeps theirs.

use quittance_connectors::Connector as _;
use quittance_domain::action::Action;

use crate::harness::{Db, carried_out, ctx, email, on_all_engines, read, sets, subject};

on_all_engines!(
    redacted_for_one,
    both_in_one_batch,
    deleted_where_the_map_says_so,
    another_identifier_is_not_another_person,
    one_rule_at_a_time
);

const MAP: &str = "  messages: {key: [id], identifiers: [{kind: email, field: sender, redacts: [sender, sender_name, body]}, {kind: email, field: recipient}], fields: {sender: email, sender_name: display_name, recipient: email, body: message}, erase: delete, third_party: true}
  attachment: {key: [id], owned_by: [{collection: messages, fields: {message: id}}], fields: {name: media}, erase: delete}\n";

async fn seed(db: &Db) {
    db.sql(
        "CREATE TABLE messages (id integer primary key, sender varchar(100), sender_name varchar(50), recipient varchar(100), body varchar(50));
         CREATE TABLE attachment (id integer primary key, message integer, name varchar(20));
         INSERT INTO messages VALUES (1, 'a@x.nl', 'A', 'b@x.nl', 'hi b'), (2, 'b@x.nl', 'B', 'a@x.nl', 'hi a'), (3, 'a@x.nl', 'A', 'a@x.nl', 'note'), (4, 'a@x.nl', 'A', null, 'draft'), (5, 'b@x.nl', 'B', 'c@x.nl', 'hi c');
         INSERT INTO attachment VALUES (1, 1, 'one'), (3, 3, 'three');",
    )
    .await;
}

async fn redacted_for_one(db: &Db) {
    seed(db).await;
    let c = db.connector(MAP);
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(
        outcomes,
        [[
            "attachment.media ERASED 1",
            "messages.display_name ERASED 3",
            "messages.email ERASED 4",
            "messages.message ERASED 3"
        ]]
    );
    assert_eq!(
        db.dump("id, sender, sender_name, recipient, body", "messages").await,
        ["1|-|-|b@x.nl|-", "2|b@x.nl|B|-|hi a", "5|b@x.nl|B|c@x.nl|hi c"]
    );
    assert_eq!(db.dump("id", "attachment").await, ["1"], "what hangs on a shared row is shared");
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("b@x.nl")])]).await;
    // The first message is nobody else's by now, and goes with its attachment.
    assert_eq!(
        outcomes,
        [[
            "attachment.media ERASED 1",
            "messages.display_name ERASED 2",
            "messages.email ERASED 3",
            "messages.message ERASED 2"
        ]]
    );
    assert_eq!(db.dump("id, sender, recipient, body", "messages").await, ["5|-|c@x.nl|-"]);
}

async fn both_in_one_batch(db: &Db) {
    seed(db).await;
    let c = db.connector(MAP);
    let subjects = [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")])];
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &subjects).await;
    assert_eq!(
        outcomes[0][1..],
        ["messages.display_name ERASED 3", "messages.email ERASED 4", "messages.message ERASED 3"]
    );
    assert_eq!(
        db.dump("id, sender, sender_name, recipient, body", "messages").await,
        ["1|-|-|-|-", "2|-|-|-|-", "5|-|-|c@x.nl|-"]
    );
}

async fn deleted_where_the_map_says_so(db: &Db) {
    seed(db).await;
    let c = db.connector(&MAP.replace("third_party", "shared: delete, third_party"));
    carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(db.dump("id", "messages").await, ["5"]);
    assert_eq!(db.dump("id", "attachment").await, Vec::<String>::new());
}

async fn another_identifier_is_not_another_person(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), phone varchar(50), name varchar(20));
         INSERT INTO person VALUES (1, 'a@x.nl', '+31612345678', 'A');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: phone, field: phone}, {kind: user_id, field: id}], fields: {id: {category: user_name, erase: keep}, email: email, phone: phone, name: display_name}, erase: mask}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(outcomes, [["person.display_name ERASED 1", "person.email ERASED 1", "person.phone ERASED 1"]]);
}

/// The row changes hands between find and act: what was redacted for the sender must not be redacted because the recipient still matches.
async fn one_rule_at_a_time(db: &Db) {
    db.sql(
        "CREATE TABLE messages (id integer primary key, sender varchar(100), sender_name varchar(50), cc varchar(100), recipient varchar(100), body varchar(50));
         INSERT INTO messages VALUES (1, 'a@x.nl', 'A', 'a@x.nl', 'b@x.nl', 'hi');",
    )
    .await;
    let c = db.connector(
        "  messages: {key: [id], identifiers: [{kind: email, field: sender, redacts: [sender, sender_name, body]}, {kind: email, field: cc}, {kind: email, field: recipient}], fields: {sender: email, sender_name: display_name, cc: email, recipient: email, body: message}, erase: delete}\n",
    );
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("a@x.nl")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    db.sql("UPDATE messages SET sender = 'z@x.nl', sender_name = 'Z', body = 'new';").await;
    c.act(&ctx, &subjects, &sets).await.unwrap()[0].clone().unwrap();
    assert_eq!(db.dump("sender, sender_name, cc, recipient, body", "messages").await, ["z@x.nl|Z|-|b@x.nl|new"]);
    assert!(read(&c, &ctx, &subjects, &sets).await[0].is_ok());
}
