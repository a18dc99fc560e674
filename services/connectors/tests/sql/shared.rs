//! Rows of two people: when one is erased, the other keeps theirs.

use quittance_connectors::{BatchContext, Connector as _, ConnectorError, RowFate, Subject, SubjectError};
use quittance_domain::{
    action::{Action, Correction, CorrectionTarget},
    identifier::IdentifierKind,
    system::SystemScope,
};

use quittance_sql::Engine;

use crate::harness::{
    Db, carried_out, ctx, email, findings, found, marked, marks, on_all_engines, other, phone, read, replace, sets,
    subject, user,
};

on_all_engines!(
    redacted_for_one,
    an_identifier_that_others_bear_too,
    both_in_one_batch,
    the_last_one_is_told_even_when_the_other_went_elsewhere,
    deleted_where_the_map_says_so,
    another_identifier_is_not_another_person,
    one_rule_at_a_time,
    about_one_and_by_another,
    by_one_and_about_another,
    by_one_and_about_another_in_one_batch,
    by_one_and_kept_for_a_while,
    by_one_below_what_is_anothers,
    one_persons_depth_is_not_anothers,
    by_one_with_a_field_that_is_retained,
    owned_under_another_name,
    restricted_by_one_and_about_another,
    about_one_and_kept_for_a_while,
    owned_and_named_by_nothing_of_ones_own,
    corrected_for_one,
    corrected_where_nobody_else_owns_it,
    restricted_for_one
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

fn corrected(target: CorrectionTarget, collection: &str, field: &str) -> Subject {
    let correction = Correction { collection: collection.to_owned(), field: field.to_owned(), target };
    Subject { corrections: vec![correction], ..subject(&[email("a@x.nl")]) }
}

fn record(key: &str, new: &str) -> CorrectionTarget {
    CorrectionTarget::Record { key: vec![key.to_owned()], new: new.to_owned() }
}

/// The other party's name may be the same as the subject's.
async fn corrected_for_one(db: &Db) {
    seed(db).await;
    db.sql("INSERT INTO messages VALUES (6, 'b@x.nl', 'A', 'a@x.nl', 'from another A')").await;
    let c = db.connector(MAP);
    // What an erasure takes along is not therefore the subject's to correct.
    let deleted = db.connector(&MAP.replace("third_party", "shared: delete, third_party"));
    let ctx = ctx(Action::Rectification);
    let subjects =
        [Subject { corrections: vec![replace("messages", "sender_name", "A", "Anna")], ..subject(&[email("a@x.nl")]) }];
    for c in [&deleted, &c] {
        db.sql("UPDATE messages SET sender_name = 'A' WHERE sender_name = 'Anna'").await;
        let outcomes = carried_out(c, &ctx, &subjects).await;
        assert_eq!(outcomes, [["messages.display_name RECTIFIED 3"]]);
        let names = ["1|Anna", "2|B", "3|Anna", "4|Anna", "5|B", "6|A"];
        assert_eq!(db.dump("id, sender_name", "messages").await, names);
    }
    let append = CorrectionTarget::Append { statement: "Disputed.".to_owned() };
    let outcomes = carried_out(&c, &ctx, &[corrected(append, "messages", "body")]).await;
    assert_eq!(outcomes, [["messages.message RECTIFIED 3"]]);
    assert_eq!(db.dump("id", "messages WHERE body LIKE '%Disputed.'").await, ["1", "3", "4"]);
    // Named outright, somebody is to look at it; one's own part of it may be corrected.
    let told = found(&c, &ctx, &[corrected(record("6", "Anna"), "messages", "sender_name")]).await;
    assert!(other(told[0].as_ref().unwrap_err()).starts_with("messages.sender_name"), "{told:?}");
    carried_out(&c, &ctx, &[corrected(record("6", "anna@x.nl"), "messages", "recipient")]).await;
    assert_eq!(
        db.dump("sender, sender_name, recipient, body", "messages WHERE id = 6").await,
        ["b@x.nl|A|anna@x.nl|from another A"]
    );
    // What hangs on it is as little the subject's alone.
    let outcomes = carried_out(&c, &ctx, &[corrected(record("3", "III"), "attachment", "name")]).await;
    assert_eq!(outcomes, [["attachment.media RECTIFIED 1"]]);
    let told = found(&c, &ctx, &[corrected(record("1", "I"), "attachment", "name")]).await;
    assert!(other(told[0].as_ref().unwrap_err()).starts_with("attachment.name"), "{told:?}");
}

/// Of a row with two owners no column says whose it is.
async fn corrected_where_nobody_else_owns_it(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100));
         CREATE TABLE note (id integer primary key, sender integer, recipient integer, body varchar(20));
         INSERT INTO person VALUES (1, 'a@x.nl'), (2, 'b@x.nl');
         INSERT INTO note VALUES (1, 1, 2, 'x'), (2, 1, 1, 'x'), (3, 1, null, 'x'), (4, 2, 1, 'x');",
    )
    .await;
    for shared in ["delete", "redact"] {
        let c = db.connector(&format!(
            "  person: {{key: [id], identifiers: [{{kind: email, field: email}}], fields: {{email: email}}, erase: delete}}
  note: {{key: [id], owned_by: [{{collection: person, fields: {{sender: id}}}}, {{collection: person, fields: {{recipient: id}}}}], fields: {{body: message}}, erase: delete, shared: {shared}}}\n"
        ));
        let warned = findings(&c.check(&SystemScope::AllCustomers).await.unwrap())
            .iter()
            .any(|f| f.contains("needs a person, unless you say"));
        assert_eq!(warned, shared == "redact", "an erasure of it");
        db.sql("UPDATE note SET body = 'x'").await;
        let ctx = ctx(Action::Rectification);
        let subjects =
            [Subject { corrections: vec![replace("note", "body", "x", "y")], ..subject(&[email("a@x.nl")]) }];
        assert_eq!(carried_out(&c, &ctx, &subjects).await, [["note.message RECTIFIED 2"]]);
        assert_eq!(db.dump("id, body", "note").await, ["1|x", "2|y", "3|y", "4|x"]);
        let told = found(&c, &ctx, &[corrected(record("4", "y"), "note", "body")]).await;
        assert!(other(told[0].as_ref().unwrap_err()).starts_with("note.body"), "{told:?}");
    }
}

/// Whose restriction a row says that is two people's, nobody can see in it.
async fn restricted_for_one(db: &Db) {
    seed(db).await;
    db.sql("ALTER TABLE messages ADD restricted varchar(5)").await;
    let map = MAP.replace("third_party: true", "restriction: {field: restricted, set: 'yes'}");
    let map = map.replace(
        "fields: {name: media}, erase: delete",
        "fields: {name: media}, erase: delete, restriction: {field: name, set: 'yes', clear: 'no'}",
    );
    let c = db.connector(&map);
    let people = [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")])];
    for one in &people {
        carried_out(&c, &ctx(Action::Restriction), std::slice::from_ref(one)).await;
    }
    let beside_others = BatchContext { others_restricted: true, ..ctx(Action::LiftRestriction) };
    let lifted = carried_out(&c, &beside_others, &people[..1]).await;
    assert_eq!(
        lifted,
        [[
            "attachment.media RESTRICTION_LIFTED 1",
            "messages.display_name RESTRICTION_LIFTED 2",
            "messages.email RESTRICTION_LIFTED 2",
            "messages.message RESTRICTION_LIFTED 2"
        ]]
    );
    assert_eq!(db.dump("id, restricted", "messages").await, ["1|yes", "2|yes", "3|-", "4|-", "5|yes"]);
    assert_eq!(db.dump("id, name", "attachment").await, ["1|yes", "3|no"]);
    // The last one's, with whom all goes.
    carried_out(&c, &ctx(Action::LiftRestriction), &people[1..]).await;
    assert_eq!(db.dump("id, restricted", "messages").await, ["1|-", "2|-", "3|-", "4|-", "5|-"]);
}

async fn both_in_one_batch(db: &Db) {
    seed(db).await;
    let c = db.connector(MAP);
    let subjects = [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")])];
    let ctx = ctx(Action::Erasure);
    let first = sets(&c, &ctx, &subjects).await;
    // Whoever would be the last of a message is left for later: then it is found to be theirs alone.
    let done = c.act(&ctx, &subjects, &first).await.unwrap();
    assert_eq!(done, [Ok(()), Err(SubjectError::FindAgain)]);
    assert_eq!(
        read(&c, &ctx, &subjects[..1], &first[..1]).await[0].clone().unwrap()[1..],
        ["messages.display_name ERASED 3", "messages.email ERASED 4", "messages.message ERASED 3"]
    );
    assert_eq!(
        db.dump("id, sender, sender_name, recipient, body", "messages").await,
        ["1|-|-|b@x.nl|-", "2|b@x.nl|B|-|hi a", "5|b@x.nl|B|c@x.nl|hi c"],
        "the other one is as it was"
    );
    let mut then = first[1].clone();
    assert!(then.absorb(sets(&c, &ctx, &subjects[1..]).await.remove(0)));
    // Between find and act, and after a crash, it is the same.
    for _ in 0..2 {
        assert_eq!(c.act(&ctx, &subjects[1..], std::slice::from_ref(&then)).await.unwrap(), [Ok(())]);
        assert_eq!(
            read(&c, &ctx, &subjects[1..], std::slice::from_ref(&then)).await[0].clone().unwrap(),
            [
                "attachment.media ERASED 1",
                "messages.display_name ERASED 2",
                "messages.email ERASED 3",
                "messages.message ERASED 2"
            ]
        );
    }
    assert_eq!(db.dump("id, sender, sender_name, recipient, body", "messages").await, ["5|-|-|c@x.nl|-"]);
    assert_eq!(db.dump("id", "attachment").await, Vec::<String>::new(), "what hung on them went with them");
}

/// The other one went between find and act, in a batch of its own.
async fn the_last_one_is_told_even_when_the_other_went_elsewhere(db: &Db) {
    seed(db).await;
    let c = db.connector(MAP);
    let ctx = ctx(Action::Erasure);
    let (a, b) = ([subject(&[email("a@x.nl")])], [subject(&[email("b@x.nl")])]);
    let shared = sets(&c, &ctx, &b).await;
    carried_out(&c, &ctx, &a).await;
    assert_eq!(c.act(&ctx, &b, &shared).await.unwrap(), [Err(SubjectError::FindAgain)]);
    carried_out(&c, &ctx, &b).await;
    assert_eq!(db.dump("id, recipient", "messages").await, ["5|c@x.nl"]);
    // A rerun of what was done before is none of this.
    assert_eq!(c.act(&ctx, &b, &shared).await.unwrap(), [Ok(())]);
}

async fn deleted_where_the_map_says_so(db: &Db) {
    seed(db).await;
    let c = db.connector(&MAP.replace("third_party: true", "shared: delete"));
    // Whom it goes with is said of erasure: shown, it is two people's all the same (Art. 15(4)).
    let a = [subject(&[email("a@x.nl")])];
    let shown = sets(&c, &ctx(Action::Access), &a).await;
    let (exported, _) = c.export(&ctx(Action::Access), &a[0], &shown[0], None, 100).await.unwrap().unwrap();
    let mut marks: Vec<_> =
        exported.records.iter().map(|r| format!("{} {} {}", r.collection, r.key[0], r.third_party)).collect();
    marks.sort();
    let expected = [
        "attachment 1 true",
        "attachment 3 false",
        "messages 1 true",
        "messages 2 true",
        "messages 3 false",
        "messages 4 false",
    ];
    assert_eq!(marks, expected);
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

/// A guest's number, or an account of several people: looked for elsewhere it would bring the others' rows.
async fn an_identifier_that_others_bear_too(db: &Db) {
    let yields = async |map: &str, who: &[(IdentifierKind, &str)]| {
        let ctx = BatchContext { resolving: true, ..ctx(Action::Access) };
        let c = db.connector(map);
        let mut found = c.find(&ctx, &[subject(who)]).await;
        // Where the table was altered, each connection that had prepared the statement before refuses it once.
        for _ in 0..10 {
            if matches!(found, Err(ConnectorError::Unavailable(_))) {
                found = c.find(&ctx, &[subject(who)]).await;
            }
        }
        let found = found.unwrap().remove(0).unwrap();
        (found.yielded.iter().map(|i| i.value().expose().clone()).collect::<Vec<_>>(), found.leads_to().is_err())
    };
    db.sql(
        "CREATE TABLE orders (id integer primary key, email varchar(100), phone varchar(40), account varchar(20), code varchar(20) unique);
         CREATE INDEX orders_account ON orders (account);
         INSERT INTO orders VALUES (1, 'A@x.nl', '070-123 45 67', '0', 'k1'), (2, 'b@x.nl', '', '0', 'k2'), (3, 'c@x.nl', '070-123 45 67', '7', 'k3'),
           (4, 'C@x.nl\n', 'n/a', '7', 'k4'), (5, '', '-', '7', 'k5'), (6, 'd@x.nl', '', null, null), (7, 'e@x.nl', '', '8', 'k7'),
           (8, 'old@x.nl', '', '8', 'k8'), (9, 'e@x.nl', '', '8', 'k9'),
           (10, '', '+31612345678', '9', 'k10'), (11, '', '+31611111111', '9', 'k11'), (12, '', '0031612345678', '9', 'k12'), (13, '', '', '9', 'k13'),
           (14, 'f@x.nl', '+31612345670', '10', 'k14'), (15, 'anon-0123', '', '10', 'k15')",
    )
    .await;
    let map = |yields: &str| {
        format!(
            "  orders: {{key: [id], identifiers: [{{kind: email, field: email}}, {{kind: phone, field: phone}}], yields: {{{yields}}}, fields: {{email: {{category: email, erase: pseudonym}}, phone: phone}}, erase: mask}}\n"
        )
    };
    let account = map("user_id: account");
    let one = |value: &str, others: bool| (vec![value.to_owned()], others);
    assert_eq!(yields(&account, &[email("a@x.nl")]).await, one("0", true));
    // Nobody is named by a blank, by what is no number, or by what we put there; and one's own row is one's own, whatever else stands on it.
    let by_both = [email("c@x.nl"), phone("+31612000000")];
    assert_eq!(yields(&account, &by_both).await, one("7", false));
    assert_eq!(yields(&account, &[email("f@x.nl")]).await, one("10", false));
    assert_eq!(yields(&account, &[email("d@x.nl")]).await, (vec![], false));
    assert_eq!(yields(&account, &[email("e@x.nl")]).await, one("8", true));
    assert_eq!(yields(&account, &[email("e@x.nl"), email("old@x.nl")]).await, one("8", false));
    // A stranger between two spellings of one's own number.
    assert_eq!(yields(&account, &[phone("+31612345678")]).await, one("9", true));
    assert_eq!(yields(&account, &[phone("+31612345678"), phone("+31611111111")]).await, one("9", false));
    // Of what the database keeps unique nobody is asked.
    assert_eq!(yields(&map("user_id: code"), &[email("a@x.nl")]).await, one("k1", false));
    // An address is compared as others will look for it.
    db.sql("UPDATE orders SET account = 'Info@Shop.nl' WHERE id = 6; UPDATE orders SET account = 'info@shop.nl', email = 'g@x.nl' WHERE id = 5").await;
    assert_eq!(yields(&map("email: account"), &[email("d@x.nl")]).await, one("info@shop.nl", true));
    // However it is spelled, for so it will be looked for; and whoever owns the row, where it names nobody.
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100));
         CREATE TABLE number (id integer primary key, person integer, phone varchar(40));
         INSERT INTO person VALUES (1, 'a@x.nl'), (2, 'b@x.nl'), (3, 'c@x.nl');
         INSERT INTO number VALUES (1, 1, '+31201234567'), (2, 2, '+31 (0)20 123 45 67'), (3, 3, '+31 20 7654321'), (4, 3, '0031207654321'), (5, null, '+31207654321')",
    )
    .await;
    let household = "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  number: {key: [id], owned_by: [{collection: person, fields: {person: id}}], yields: {phone: phone}, fields: {phone: phone}, erase: delete}\n";
    assert_eq!(yields(household, &[email("a@x.nl")]).await, one("+31201234567", true));
    assert_eq!(yields(household, &[email("c@x.nl")]).await, one("+31207654321", false));
    if db.engine == Engine::Postgres {
        db.sql("CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level1', deterministic = false); ALTER TABLE number ALTER phone TYPE text COLLATE folding").await;
        assert_eq!(yields(household, &[email("a@x.nl")]).await, one("+31201234567", true));
    }
}

/// Notes about customers, by whoever wrote them.
const NOTES: &str = "  customer: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}
  note: {key: [id], identifiers: [{kind: email, field: author, redacts: [author, author_name]}], owned_by: [{collection: customer, fields: {customer_id: id}}], fields: {author: email, author_name: display_name, body: message}, erase: delete}
  scan: {key: [id], owned_by: [{collection: note, fields: {note_id: id}}], fields: {name: media}, erase: delete}\n";

async fn notes(db: &Db) {
    db.sql(
        "CREATE TABLE customer (id integer primary key, email varchar(100));
         CREATE TABLE note (id integer primary key, customer_id integer, author varchar(100), author_name varchar(20), body varchar(50), booked_on date, FOREIGN KEY (customer_id) REFERENCES customer (id));
         CREATE TABLE scan (id integer primary key, note_id integer, name varchar(20), FOREIGN KEY (note_id) REFERENCES note (id));
         INSERT INTO customer VALUES (1, 'lea@x.nl'), (2, 'tom@x.nl');
         INSERT INTO note VALUES (1, 1, 'tom@x.nl', 'Tom', 'rude', '2024-06-14'), (2, 1, 'Lea@x.nl', 'Lea', 'own', '2024-06-14'), (3, 1, ' ', null, 'nobody', '2024-06-14'), (4, 2, 'ann@x.nl', 'Ann', 'his', '2024-06-14');
         INSERT INTO scan VALUES (1, 1, 'one'), (2, 2, 'two');",
    )
    .await;
}

/// The row is the subject's by its owner, and the other's by name.
async fn about_one_and_by_another(db: &Db) {
    notes(db).await;
    let c = db.connector(NOTES);
    let lea = [subject(&[email("lea@x.nl")])];
    assert_eq!(
        marks(&c, &lea[0]).await,
        marked(&[
            ("customer", "1", false),
            ("note", "2", false),
            ("note", "1", true),
            ("note", "3", false),
            ("scan", "1", true),
            ("scan", "2", false)
        ])
    );
    // What is about her she may correct, and not the other's name.
    let corrected = |target, field| corrected_by(&lea[0], target, field);
    carried_out(&c, &ctx(Action::Rectification), &[corrected(record("1", "polite"), "body")]).await;
    let told = found(&c, &ctx(Action::Rectification), &[corrected(record("1", "Tim"), "author_name")]).await;
    assert!(other(told[0].as_ref().unwrap_err()).starts_with("note.author_name"), "{told:?}");

    let erasure = ctx(Action::Erasure);
    let known = sets(&c, &erasure, &lea).await;
    // And again, as after a crash.
    for _ in 0..2 {
        assert_eq!(c.act(&erasure, &lea, &known).await.unwrap(), [Ok(())]);
        let said = read(&c, &erasure, &lea, &known).await;
        assert_eq!(
            said,
            [Ok([
                "customer.email ERASED 1",
                "note.display_name ERASED 1",
                "note.email ERASED 2",
                "note.message ERASED 3",
                "scan.media ERASED 1"
            ]
            .map(str::to_owned)
            .to_vec())]
        );
    }
    let left = ["1|1|tom@x.nl|Tom|-", "4|2|ann@x.nl|Ann|his"];
    assert_eq!(db.dump("id, customer_id, author, author_name, body", "note").await, left);
    assert_eq!(db.dump("id", "scan").await, ["1"], "what hangs on a shared row is shared");
    // The last one takes the row along.
    carried_out(&c, &erasure, &[subject(&[email("tom@x.nl")])]).await;
    assert_eq!(db.dump("id, author, body", "note").await, ["4|ann@x.nl|-"]);
    // Where the map says so, it goes with its owner.
    db.sql(
        "INSERT INTO customer VALUES (3, 'eve@x.nl'); INSERT INTO note VALUES (5, 3, 'ann@x.nl', 'Ann', 'hers', null)",
    )
    .await;
    let c = db.connector(&NOTES.replacen(
        "body: message}, erase: delete",
        "body: message}, erase: delete, shared: delete",
        1,
    ));
    carried_out(&c, &erasure, &[subject(&[email("eve@x.nl")])]).await;
    assert_eq!(db.dump("id", "note").await, ["4"]);
}

fn corrected_by(subject: &Subject, target: CorrectionTarget, field: &str) -> Subject {
    let correction = Correction { collection: "note".to_owned(), field: field.to_owned(), target };
    Subject { corrections: vec![correction], ..subject.clone() }
}

/// Notes are retained by the map. What is said of this person's when they are erased, and when the hold has ended: then nobody knows identifiers any
/// more, and a rerun says the same.
async fn kept_for_a_while(db: &Db, who: &str) -> [Vec<String>; 2] {
    notes(db).await;
    let retained = "body: message}, erase: delete, retain: {ground: Wwft, anchor: booked_on, period: P5Y}";
    let c = db.connector(&NOTES.replacen("body: message}, erase: delete", retained, 1));
    let (mut ctx, who) = (ctx(Action::Erasure), [subject(&[email(who)])]);
    let known = sets(&c, &ctx, &who).await;
    c.act(&ctx, &who, &known).await.unwrap()[0].clone().unwrap();
    let said = read(&c, &ctx, &who, &known).await.remove(0).unwrap();
    let held = [known[0].held_at(ctx.now).unwrap().0];
    let nobody = [Subject { identifiers: Vec::new(), ..who[0].clone() }];
    ctx.now = "2040-01-01T00:00:00Z".parse().unwrap();
    let mut ends = Vec::new();
    for _ in 0..2 {
        assert_eq!(c.act(&ctx, &nobody, &held).await.unwrap(), [Ok(())]);
        ends.push(read(&c, &ctx, &nobody, &held).await.remove(0).unwrap());
    }
    assert_eq!(ends[0], ends[1]);
    [said, ends.remove(0)]
}

/// When the hold ends, the row is as little the subject's alone as before.
async fn about_one_and_kept_for_a_while(db: &Db) {
    let [said, _] = kept_for_a_while(db, "lea@x.nl").await;
    assert_eq!(said[1], "note.display_name RETAINED 2 (Wwft) until 2029-06-14T22:00:00Z");
    let left = ["1|tom@x.nl|Tom|-", "4|ann@x.nl|Ann|his"];
    assert_eq!(db.dump("id, author, author_name, body", "note").await, left);
}

/// And so it is for who is named, and who by then is known by what the row was found by.
async fn by_one_and_kept_for_a_while(db: &Db) {
    let [said, at_the_end] = kept_for_a_while(db, "ann@x.nl").await;
    assert_eq!(said[0], "note.display_name RETAINED 1 (Wwft) until 2029-06-14T22:00:00Z");
    assert_eq!(at_the_end, ["note.display_name ERASED 1", "note.email ERASED 1"]);
    assert_eq!(db.dump("id, author, author_name, body", "note WHERE id = 4").await, ["4|-|-|his"]);
}

/// An address book, or one's own second address: nothing in the row says that any of it is the owner's.
async fn owned_and_named_by_nothing_of_ones_own(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100));
         CREATE TABLE address (id integer primary key, person integer, email varchar(100));
         INSERT INTO person VALUES (1, 'a@x.nl'), (2, 'b@x.nl'); INSERT INTO address VALUES (1, 1, 'a2@x.nl'), (2, 2, 'B@x.nl'), (3, 2, null);",
    )
    .await;
    let map = |more: &str| {
        format!(
            "  person: {{key: [id], identifiers: [{{kind: email, field: email}}], fields: {{email: email}}, erase: delete}}
  address: {{key: [id], identifiers: [{{kind: email, field: email}}], owned_by: [{{collection: person, fields: {{person: id}}}}], fields: {{email: email}}, erase: delete{more}}}\n"
        )
    };
    let c = db.connector(&map(""));
    let warned = findings(&c.check(&SystemScope::AllCustomers).await.unwrap());
    assert!(
        warned.iter().any(|f| f.starts_with("W collections.address.owned_by: a row that names somebody else in email"))
    );
    let people = [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")])];
    let told = found(&c, &ctx(Action::Erasure), &people).await;
    assert!(other(told[0].as_ref().unwrap_err()).contains("names somebody else"), "{told:?}");
    assert_eq!(told[1].as_ref().unwrap().rows(), 3);
    // What the map says of it decides: it is the owner's own name, or goes in any case.
    for more in [", yields: {email: email}", ", shared: delete"] {
        let c = db.connector(&map(more));
        assert_eq!(sets(&c, &ctx(Action::Erasure), &people[..1]).await[0].rows(), 2);
        assert!(
            findings(&c.check(&SystemScope::AllCustomers).await.unwrap())
                .iter()
                .all(|f| !f.contains("names somebody else"))
        );
    }
}

/// The same the other way round: what names the subject goes, and the row stays for whom it is about.
async fn by_one_and_about_another(db: &Db) {
    notes(db).await;
    db.sql("INSERT INTO note VALUES (5, null, 'tom@x.nl', 'Tom', 'nobody', '2024-06-14'), (7, 2, 'tom@x.nl', 'Tom', 'own', '2024-06-14')").await;
    db.sql("INSERT INTO scan VALUES (7, 7, 'seven')").await;
    let c = db.connector(NOTES);
    let (tom, lea) = ([subject(&[email("tom@x.nl")])], [subject(&[email("lea@x.nl")])]);
    let shown = sets(&c, &ctx(Action::Access), &tom).await;
    let (exported, _) = c.export(&ctx(Action::Access), &tom[0], &shown[0], None, 100).await.unwrap().unwrap();
    let mut marks: Vec<_> =
        exported.records.iter().map(|r| format!("{} {} {}", r.collection, r.key[0], r.third_party)).collect();
    marks.sort();
    assert_eq!(
        marks,
        [
            "customer 2 false",
            "note 1 true",
            "note 4 true",
            "note 5 false",
            "note 7 false",
            "scan 1 true",
            "scan 7 false"
        ]
    );
    // His name he may correct, and not what is said of her.
    let corrected = |target, field| corrected_by(&tom[0], target, field);
    carried_out(&c, &ctx(Action::Rectification), &[corrected(record("1", "Thomas"), "author_name")]).await;
    let told = found(&c, &ctx(Action::Rectification), &[corrected(record("1", "polite"), "body")]).await;
    assert!(other(told[0].as_ref().unwrap_err()).starts_with("note.body"), "{told:?}");

    let erasure = ctx(Action::Erasure);
    let known = sets(&c, &erasure, &tom).await;
    // And again, as after a crash.
    for _ in 0..2 {
        assert_eq!(c.act(&erasure, &tom, &known).await.unwrap(), [Ok(())]);
        let said = read(&c, &erasure, &tom, &known).await.remove(0).unwrap();
        assert_eq!(
            said,
            [
                "customer.email ERASED 1",
                "note.display_name ERASED 3",
                "note.email ERASED 3",
                "note.message ERASED 3",
                "scan.media ERASED 1"
            ]
        );
        let left = ["1|1|-|-|rude", "2|1|Lea@x.nl|Lea|own", "3|1| |-|nobody", "4|2|ann@x.nl|Ann|-"];
        assert_eq!(db.dump("id, customer_id, author, author_name, body", "note").await, left);
        assert_eq!(db.dump("id", "scan").await, ["1", "2"], "what hangs on a shared row is shared");
    }
    assert!(sets(&c, &erasure, &tom).await[0].is_empty(), "nothing leads to him any more");
    // The last one takes the rows along.
    carried_out(&c, &erasure, &lea).await;
    assert_eq!(db.dump("id, author, body", "note").await, ["4|ann@x.nl|-"]);
    assert_eq!(db.dump("id", "scan").await, [""; 0]);
    // Whom erasure has left nothing of is nobody.
    carried_out(&c, &erasure, &[subject(&[email("ann@x.nl")])]).await;
    assert_eq!(db.dump("id", "note").await, [""; 0]);
}

/// Author and customer at once, whoever comes first: the second one is told to look again, and takes the row along.
async fn by_one_and_about_another_in_one_batch(db: &Db) {
    db.sql("CREATE TABLE customer (id integer primary key, email varchar(100)); CREATE TABLE note (id integer primary key, customer_id integer, author varchar(100), author_name varchar(20), body varchar(50)); CREATE TABLE scan (id integer primary key, note_id integer, name varchar(20));").await;
    let (tom, lea) = (subject(&[email("tom@x.nl")]), subject(&[email("lea@x.nl")]));
    let erasure = ctx(Action::Erasure);
    let reset = async |db: &Db| {
        db.sql("DELETE FROM scan; DELETE FROM note; DELETE FROM customer; INSERT INTO customer VALUES (1, 'lea@x.nl'), (2, 'tom@x.nl'); INSERT INTO note VALUES (1, 1, 'tom@x.nl', 'Tom', 'rude'); INSERT INTO scan VALUES (1, 1, 'one')").await;
    };
    for erase in ["mask", "delete"] {
        for (subjects, left) in
            [([tom.clone(), lea.clone()], "1|-|-|rude"), ([lea.clone(), tom.clone()], "1|tom@x.nl|Tom|-")]
        {
            reset(db).await;
            let c = db.connector(&NOTES.replacen("erase: mask", &format!("erase: {erase}"), 1));
            let first = sets(&c, &erasure, &subjects).await;
            assert_eq!(c.act(&erasure, &subjects, &first).await.unwrap(), [Ok(()), Err(SubjectError::FindAgain)]);
            assert_eq!(db.dump("id, author, author_name, body", "note").await, [left]);
            assert!(read(&c, &erasure, &subjects[..1], &first[..1]).await[0].is_ok());
            // A rerun of what was done before is none of this.
            assert_eq!(c.act(&erasure, &subjects[..1], &first[..1]).await.unwrap(), [Ok(())]);
            let mut then = first[1].clone();
            assert!(then.absorb(sets(&c, &erasure, &subjects[1..]).await.remove(0)));
            for _ in 0..2 {
                let then = std::slice::from_ref(&then);
                assert_eq!(c.act(&erasure, &subjects[1..], then).await.unwrap(), [Ok(())]);
                let said = read(&c, &erasure, &subjects[1..], then).await.remove(0).unwrap();
                assert!(said.contains(&"scan.media ERASED 1".to_owned()), "{said:?}");
            }
            assert_eq!(db.dump("id", "note").await, [""; 0]);
            assert_eq!(c.act(&erasure, &subjects, &[first[0].clone(), then]).await.unwrap(), [Ok(()), Ok(())]);
            // One of them went between the other's find and act, in a batch of its own.
            reset(db).await;
            let known = sets(&c, &erasure, &subjects[1..]).await;
            carried_out(&c, &erasure, &subjects[..1]).await;
            assert_eq!(c.act(&erasure, &subjects[1..], &known).await.unwrap(), [Err(SubjectError::FindAgain)]);
            carried_out(&c, &erasure, &subjects[1..]).await;
            assert_eq!(db.dump("id", "note").await, [""; 0]);
        }
    }
}

/// A post's owner owns what hangs on it, by however many steps; and whose the steps between are, their owners tell.
/// Somebody's rows own one another more deeply than anybody goes; what waits of others is judged all the same. And a long thread of one's own, each row of
/// which names its author, is not deep.
async fn one_persons_depth_is_not_anothers(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100));
         CREATE TABLE note (id integer primary key, about integer, author varchar(100));
         CREATE TABLE node (id integer primary key, parent integer, author varchar(100));
         INSERT INTO person VALUES (1, 'lea@x.nl'), (2, 'tom@x.nl');
         INSERT INTO note VALUES (1, 1, 'tom@x.nl');",
    )
    .await;
    let parent = |n: usize, first: usize| if n == first { "null".to_owned() } else { (n - 1).to_string() };
    let deep = (1..=80).map(|n| format!("({n}, {}, {})", parent(n, 1), if n == 1 { "'x@x.nl'" } else { "null" }));
    let thread = (101..=200).map(|n| format!("({n}, {}, 'u@x.nl')", parent(n, 101)));
    let rows: Vec<String> = deep.chain(thread).collect();
    db.sql(&format!("INSERT INTO node VALUES {};", rows.join(","))).await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  note: {key: [id], identifiers: [{kind: email, field: author}], owned_by: [{collection: person, fields: {about: id}}], fields: {author: email}, erase: delete}
  node: {key: [id], identifiers: [{kind: email, field: author}], owned_by: [{collection: node, fields: {parent: id}}], fields: {author: email}, erase: delete}\n",
    );
    let subjects = ["x@x.nl", "tom@x.nl", "u@x.nl"].map(|who| subject(&[email(who)]));
    let found = found(&c, &ctx(Action::Erasure), &subjects).await;
    assert!(other(found[0].as_ref().unwrap_err()).contains("64 levels"));
    let of = |n: usize, collection: &str| &found[n].as_ref().unwrap().collections[collection];
    assert!(of(1, "note").iter().all(|row| row.fate == RowFate::Redact), "it is Lea's, too");
    assert!(of(2, "node").len() == 100 && of(2, "node").iter().all(|row| row.fate == RowFate::Delete));
}

async fn by_one_below_what_is_anothers(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), name varchar(20), login varchar(40));
         CREATE TABLE post (id integer primary key, person_id integer, title varchar(20));
         CREATE TABLE reply (id integer primary key, post_id integer, parent integer, author varchar(100), body varchar(20));
         INSERT INTO person VALUES (1, 'lea@x.nl', 'Lea', 'lea'), (2, 'tom@x.nl', 'Tom', 'tom'), (3, null, '[erased]', 'anon-0123');
         INSERT INTO post VALUES (1, 1, 'hers'), (2, 2, 'his'), (3, 3, 'old'), (4, null, 'none');
         INSERT INTO reply VALUES (1, 1, null, 'tom@x.nl', 'x'), (2, null, 1, 'tom@x.nl', 'x'), (3, 2, null, 'tom@x.nl', 'x'),
           (4, null, 3, 'tom@x.nl', 'x'), (5, 3, null, 'tom@x.nl', 'x'), (6, null, 5, 'tom@x.nl', 'x'), (7, 4, null, null, 'x'), (8, null, 7, 'tom@x.nl', 'x'),
           (9, null, 10, 'tom@x.nl', 'x'), (10, null, 9, 'tom@x.nl', 'x'), (11, 1, null, null, 'x'), (12, null, 11, 'tom@x.nl', 'x'),
           (13, null, 14, 'tom@x.nl', 'x'), (14, null, 13, 'ann@x.nl', 'x'), (15, null, 12, 'tom@x.nl', 'x'), (16, 99, 99, 'tom@x.nl', 'x');",
    )
    .await;
    let map = "  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: user_id, field: id}], fields: {id: {category: user_name, erase: keep}, email: email, name: {category: display_name, erase: {constant: '[erased]'}}, login: {category: title, erase: pseudonym}}, erase: mask}
  post: {key: [id], owned_by: [{collection: person, fields: {person_id: id}}], fields: {title: message}, erase: delete}
  reply: {key: [id], identifiers: [{kind: email, field: author}], owned_by: [{collection: post, fields: {post_id: id}}, {collection: reply, fields: {parent: id}}], fields: {author: email, body: message}, erase: delete}\n";
    let c = db.connector(map);
    let tom = [subject(&[email("tom@x.nl")])];
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &tom).await;
    assert_eq!(
        outcomes,
        [[
            "person.display_name ERASED 1",
            "person.email ERASED 1",
            "person.title PSEUDONYMISED 1",
            "post.message ERASED 1",
            "reply.email ERASED 13",
            "reply.message ERASED 8"
        ]]
    );
    assert_eq!(
        db.dump("id, author", "reply").await,
        ["11|-", "12|-", "13|-", "14|ann@x.nl", "15|-", "1|-", "2|-", "7|-"]
    );
    // Where the map says so, it goes with whoever wrote it.
    db.sql("UPDATE reply SET author = 'tom@x.nl' WHERE id IN (1, 2)").await;
    let c =
        db.connector(&map.replace("author: email, body: message}", "author: email, body: message}, shared: delete"));
    carried_out(&c, &ctx(Action::Erasure), &tom).await;
    assert_eq!(db.dump("id", "reply").await, ["11", "12", "13", "14", "15", "7"]);
}

/// The owner is the subject under another name: by the very column that the row was found by, or by what the row yields.
async fn owned_under_another_name(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100));
         CREATE TABLE visit (id integer primary key, person integer, page varchar(20));
         CREATE TABLE address (id integer primary key, person integer, email varchar(100));
         INSERT INTO person VALUES (7, 'a@x.nl'); INSERT INTO visit VALUES (1, 7, 'p'); INSERT INTO address VALUES (1, 7, 'a2@x.nl');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  visit: {key: [id], identifiers: [{kind: user_id, field: person}], owned_by: [{collection: person, fields: {person: id}}], fields: {page: cookie}, erase: delete}
  address: {key: [id], identifiers: [{kind: email, field: email}], yields: {email: email}, owned_by: [{collection: person, fields: {person: id}}], fields: {email: email}, erase: delete}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[user("7"), email("a2@x.nl")])]).await;
    assert_eq!(outcomes, [["address.email ERASED 1", "visit.cookie ERASED 1"]]);
    assert_eq!((db.dump("id", "visit").await.len(), db.dump("id", "address").await.len()), (0, 0));
}

/// What is to be retained of one's own part would be neither held nor erased.
async fn by_one_with_a_field_that_is_retained(db: &Db) {
    db.sql(
        "CREATE TABLE account (id integer primary key, email varchar(100));
         CREATE TABLE person (id integer primary key, account integer, email varchar(100), name varchar(20), iban varchar(20), closed_on date);
         INSERT INTO account VALUES (1, 'lea@x.nl');
         INSERT INTO person VALUES (1, 1, 'tom@x.nl', 'Tom', 'NL01', '2025-01-01'), (2, 1, 'ann@x.nl', 'Ann', null, '2025-01-01'), (3, 1, 'lea@x.nl', 'Lea', 'NL03', '2025-01-01')",
    )
    .await;
    let c = db.connector(
        "  account: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}
  person: {key: [id], identifiers: [{kind: email, field: email, redacts: [email, name, iban]}], owned_by: [{collection: account, fields: {account: id}}], fields: {email: email, name: display_name, iban: {category: financial, erase: {retain: {ground: Wwft, anchor: closed_on, period: P5Y}}}}, erase: mask}\n",
    );
    let people = [subject(&[email("tom@x.nl")]), subject(&[email("ann@x.nl")]), subject(&[email("lea@x.nl")])];
    let told = found(&c, &ctx(Action::Erasure), &people).await;
    assert!(other(told[0].as_ref().unwrap_err()).contains("iban is to be retained"), "{told:?}");
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &people[1..2]).await;
    assert_eq!(outcomes, [["person.display_name ERASED 1", "person.email ERASED 1"]]);
}

/// What is said of another's restriction stays said.
async fn restricted_by_one_and_about_another(db: &Db) {
    notes(db).await;
    db.sql("ALTER TABLE note ADD restricted varchar(5); ALTER TABLE customer ADD restricted varchar(5); ALTER TABLE scan ADD restricted varchar(5)").await;
    let marked = "restriction: {field: restricted, set: 'yes'}, erase:";
    let c = db.connector(&NOTES.replace("erase:", marked));
    let tom = [subject(&[email("tom@x.nl")])];
    carried_out(&c, &ctx(Action::Restriction), &tom).await;
    assert_eq!(db.dump("id, restricted", "note").await, ["1|yes", "2|-", "3|-", "4|yes"]);
    let beside_others = BatchContext { others_restricted: true, ..ctx(Action::LiftRestriction) };
    let lifted = carried_out(&c, &beside_others, &tom).await;
    assert_eq!(lifted, [["customer.email RESTRICTION_LIFTED 1"]]);
    assert_eq!(db.dump("id, restricted", "note").await, ["1|yes", "2|-", "3|-", "4|yes"]);
    carried_out(&c, &ctx(Action::LiftRestriction), &tom).await;
    assert_eq!(db.dump("id, restricted", "note").await, ["1|-", "2|-", "3|-", "4|-"]);
}
