//! What values read as, whatever their type and length: none is left out, and none is another one.

use quittance_connectors::{Connector as _, Record, Subject, SubjectResult, sql::SqlConnector};
use quittance_domain::{action::Action, identifier::IdentifierKind, system::SystemScope};
use quittance_sql::Engine;

use crate::harness::{Db, carried_out, ctx, email, findings, on, on_all_engines, refused, replace, sets, subject};

on_all_engines!(long_bytes);

/// All that an access gives of a person, and how many pages it took.
async fn accessed(c: &SqlConnector, person: &Subject) -> SubjectResult<(Vec<Record>, usize)> {
    let ctx = ctx(Action::Access);
    let set = sets(c, &ctx, std::slice::from_ref(person)).await.remove(0);
    let (mut records, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let (exported, next) = c.export(&ctx, person, &set, after, 500).await.unwrap()?;
        records.extend(exported.records);
        (pages, after) = (pages + 1, next);
        if after.is_none() {
            return Ok((records, pages));
        }
    }
}

/// By field, in the order of the map; NULL as `-`.
fn values(record: &Record) -> Vec<&str> {
    record.fields.iter().map(|field| field.value.as_deref().unwrap_or("-")).collect()
}

/// For which the registration is refused.
async fn errors(c: &SqlConnector) -> Vec<String> {
    let mut told = findings(&c.check(&SystemScope::AllCustomers).await.unwrap());
    told.retain(|finding| finding.starts_with('E'));
    told
}

/// As hexadecimal they are longer than what servers take in one packet.
async fn long_bytes(db: &Db) {
    let (of, bytes) = match db.engine {
        Engine::Postgres => ("bytea", "convert_to(repeat('K', 9000000), 'UTF8')"),
        Engine::MySql => ("longblob", "repeat('K', 9000000)"),
        Engine::Sqlite => ("blob", "CAST(replace(hex(zeroblob(4500000)), '0', 'K') AS BLOB)"),
    };
    db.sql(&format!(
        "CREATE TABLE person (id integer primary key, email varchar(100), photo {of}); INSERT INTO person VALUES (1, 'a@x.nl', {bytes}), (2, 'a@x.nl', null);"
    ))
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, photo: image}, erase: mask}\n",
    );
    let (records, _) = accessed(&c, &subject(&[email("a@x.nl")])).await.unwrap();
    let read: Vec<&str> = records.iter().map(|record| values(record)[1]).collect();
    let digits = read[0].trim_start_matches("\\x");
    assert_eq!((digits.len(), read[1]), (18_000_000, "-"));
    assert!(digits.as_bytes().chunks(2).all(|byte| byte == b"4B" || byte == b"4b"));
}

/// They are numbers, to whoever reads, corrects or looks for them.
#[tokio::test]
async fn bits() {
    on(Engine::MySql, async |db: &Db| {
        db.sql(
            "CREATE TABLE person (id bit(8) primary key, email varchar(100), opted_in bit(1), rights bit(16), wide bit(64), flag bit(1) not null default b'0');
             CREATE TABLE visit (id integer primary key, person bit(8), page varchar(20), flag bit(1));
             INSERT INTO person VALUES (49, 'a@x.nl', b'1', b'11001000', 18446744073709551615, b'0'), (1, 'b@x.nl', b'0', 7, 0, b'0');
             INSERT INTO visit VALUES (1, 49, 'p', null), (2, 1, 'q', null);",
        )
        .await;
        let c = db.connector(
            "  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: customer_key, field: id}], fields: {email: email, opted_in: {category: preference, erase: {constant: '1'}}, rights: preference, wide: other, id: {category: user_id, erase: keep}}, erase: mask, restriction: {field: flag, set: '1', clear: '0'}}
  visit: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {page: cookie}, erase: delete, restriction: {field: flag, set: '1'}}\n",
        );
        assert_eq!(errors(&c).await, Vec::<String>::new());
        for person in [subject(&[email("a@x.nl")]), subject(&[(IdentifierKind::CustomerKey, "49")])] {
            let (records, _) = accessed(&c, &person).await.unwrap();
            assert_eq!(values(&records[0]), ["a@x.nl", "1", "200", "18446744073709551615", "49"]);
            assert_eq!((records.len(), values(&records[1])), (2, vec!["p"]));
        }
        let mut ann = subject(&[email("a@x.nl")]);
        ann.corrections = vec![replace("person", "opted_in", "1", "0"), replace("person", "rights", "200", "1")];
        carried_out(&c, &ctx(Action::Rectification), std::slice::from_ref(&ann)).await;
        assert_eq!(db.dump("id + 0, opted_in + 0, rights + 0", "person").await, ["1|0|7", "49|0|1"]);
        for wrong in ["yes", "65536", "-1"] {
            ann.corrections = vec![replace("person", "rights", "1", wrong)];
            let sets = sets(&c, &ctx(Action::Rectification), std::slice::from_ref(&ann)).await;
            refused(c.act(&ctx(Action::Rectification), std::slice::from_ref(&ann), &sets).await);
        }
        carried_out(&c, &ctx(Action::Restriction), std::slice::from_ref(&ann)).await;
        assert_eq!(db.dump("id + 0, flag + 0", "person").await, ["1|0", "49|1"]);
        assert_eq!(db.dump("id, flag + 0", "visit").await, ["1|1", "2|-"]);
        let erased = carried_out(&c, &ctx(Action::Erasure), std::slice::from_ref(&ann)).await;
        assert_eq!(erased, [["person.email ERASED 1", "person.other ERASED 1", "person.preference ERASED 1", "visit.cookie ERASED 1"]]);
        assert_eq!(db.dump("id + 0, opted_in + 0, rights + 0", "person").await, ["1|0|7", "49|1|-"]);
        assert_eq!(db.dump("page", "visit").await, ["q"]);
    })
    .await;
}
