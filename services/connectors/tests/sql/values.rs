//! What values read as, whatever their type and length: none is left out, and none is another one.

use quittance_connectors::{Connector as _, Record, Subject, SubjectError, SubjectResult, sql::SqlConnector};
use quittance_domain::{action::Action, identifier::IdentifierKind, system::SystemScope};
use quittance_sql::Engine;

use crate::harness::{
    Db, carried_out, ctx, email, findings, found, on, on_all_engines, other, phone, refused, replace, sets, subject,
};

on_all_engines!(long_bytes, the_subjects_by_something_else, long_records);

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

/// Between the find and the page, what made it the subject's was changed for something else that does.
async fn the_subjects_by_something_else(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), phone varchar(20), name varchar(20));
         INSERT INTO person VALUES (1, 'a@x.nl', null, 'Ann'), (2, 'a@x.nl', null, 'Anna'), (3, 'a@x.nl', null, 'A.');",
    )
    .await;
    let c = db.connector("  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: phone, field: phone}], fields: {email: email, phone: phone, name: display_name}, erase: mask}\n");
    let (ctx, ann) = (ctx(Action::Access), subject(&[email("a@x.nl"), phone("+31612345678")]));
    let set = sets(&c, &ctx, std::slice::from_ref(&ann)).await.remove(0);
    db.sql("UPDATE person SET email = null, phone = '+31612345678' WHERE id = 1; UPDATE person SET email = 'b@x.nl' WHERE id = 2; DELETE FROM person WHERE id = 3;").await;
    let (exported, next) = c.export(&ctx, &ann, &set, None, 500).await.unwrap().unwrap();
    let names: Vec<&str> = exported.records.iter().map(|record| values(record)[2]).collect();
    assert_eq!((names, next), (vec!["Ann"], None));
}

/// A page of them is as many as are held in memory without trouble.
async fn long_records(db: &Db) {
    let long = match db.engine {
        Engine::Postgres | Engine::MySql => "repeat('x', 2000000)",
        Engine::Sqlite => "hex(zeroblob(1000000))",
    };
    let text = if db.engine == Engine::MySql { "longtext" } else { "text" };
    let rows: Vec<String> =
        (0..30).map(|i| format!("({i}, 'a@x.nl', {})", if i % 2 == 0 { long } else { "'short'" })).collect();
    db.sql(&format!("CREATE TABLE letter (id integer primary key, email varchar(100), words {text});")).await;
    for row in rows {
        db.sql(&format!("INSERT INTO letter VALUES {row};")).await;
    }
    let c = db.connector("  letter: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, words: message}, erase: delete}\n");
    let (records, pages) = accessed(&c, &subject(&[email("a@x.nl")])).await.unwrap();
    let mut ids: Vec<u32> = records.iter().map(|record| record.key[0].parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..30).collect::<Vec<_>>());
    assert!(pages > 1, "thirty megabytes in one page");
}

/// Real numbers, in full and no longer than they are, wherever SQLite keeps them.
#[tokio::test]
async fn real_numbers() {
    on(Engine::Sqlite, async |db: &Db| {
        db.sql(
            "CREATE TABLE person (id real primary key, email text, score real, price decimal(10, 2), seen datetime, any_ any);
             CREATE TABLE visit (id integer primary key, person real, page text);
             INSERT INTO person VALUES (1.0 / 3, 'a@x.nl', 1.0 / 3, 1.5, 2460000.123456789, 0.1 + 0.2), (0.333333333333333, 'b@x.nl', 1.5, 4.50, null, null);
             INSERT INTO visit VALUES (1, 1.0 / 3, 'p'), (2, 0.333333333333333, 'q');",
        )
        .await;
        let c = db.connector(
            "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, score: other, price: other, seen: other, any_: other}, erase: delete}
  visit: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {page: cookie}, erase: delete}\n",
        );
        let mut ann = subject(&[email("a@x.nl")]);
        let (records, _) = accessed(&c, &ann).await.unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(values(&records[0])[1..], ["0.3333333333333333", "1.5", "2460000.123456789", "0.30000000000000004"]);
        assert_eq!(values(&records[1]), ["p"]);
        ann.corrections = vec![replace("person", "price", "1.5", "1.25"), replace("person", "score", "0.3333333333333333", "2.0")];
        carried_out(&c, &ctx(Action::Rectification), std::slice::from_ref(&ann)).await;
        assert_eq!(db.dump("email, price, score", "person").await, ["a@x.nl|1.25|2.0", "b@x.nl|4.5|1.5"]);
        carried_out(&c, &ctx(Action::Erasure), std::slice::from_ref(&ann)).await;
        assert_eq!((db.dump("email", "person").await, db.dump("page", "visit").await), (vec!["b@x.nl".to_owned()], vec!["q".to_owned()]));
    })
    .await;
}

/// A row that could not be looked for again is never left out, nor said to be as instructed: a person is told.
async fn keys_that_do_not_lead_back(db: &Db, keys: &[&str], of: &str) {
    for (i, key) in keys.iter().enumerate() {
        let script = format!(
            "CREATE TABLE t{i} (id {of} unique, email varchar(100), flag varchar(5)); INSERT INTO t{i} VALUES ({key}, 'a@x.nl', null);"
        );
        let mysql = db.engine == Engine::MySql;
        let any = |script| format!("SET SESSION sql_mode = ''; {script} SET SESSION sql_mode = DEFAULT;");
        db.sql(&if mysql { any(script) } else { script }).await;
        let c = db.connector(&format!("  t{i}: {{key: [id], identifiers: [{{kind: email, field: email}}], fields: {{email: email}}, erase: mask, restriction: {{field: flag, set: 'yes'}}}}\n"));
        for action in
            [Action::Access, Action::Erasure, Action::Restriction, Action::LiftRestriction, Action::Rectification]
        {
            let found = found(&c, &ctx(action), &[subject(&[email("a@x.nl")])]).await;
            let told = found[0].as_ref().map_or_else(other, |_| "found");
            assert!(told.contains("not found again"), "{key} {action:?}: {told}");
        }
    }
}

#[tokio::test]
async fn keys_of_sqlite_that_do_not_lead_back() {
    on(Engine::Sqlite, async |db: &Db| {
        keys_that_do_not_lead_back(db, &["CAST('k' AS BLOB)", "x'ff00'", "null"], "text").await;
    })
    .await;
}

/// What hangs on it would be missing.
#[tokio::test]
async fn links_that_do_not_lead_back() {
    on(Engine::Sqlite, async |db: &Db| {
        db.sql(
            "CREATE TABLE person (id integer primary key, code text unique, email text); CREATE TABLE visit (id integer primary key, code text, page text);
             INSERT INTO person VALUES (1, CAST('k' AS BLOB), 'a@x.nl'), (2, 'l', 'b@x.nl'), (3, null, 'c@x.nl');
             INSERT INTO visit VALUES (1, CAST('k' AS BLOB), 'p'), (2, 'l', 'q');",
        )
        .await;
        let c = db.connector(
            "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  visit: {key: [id], owned_by: [{collection: person, fields: {code: code}}], fields: {page: cookie}, erase: delete}\n",
        );
        let people = [email("a@x.nl"), email("b@x.nl"), email("c@x.nl")].map(|name| subject(&[name]));
        let found = found(&c, &ctx(Action::Erasure), &people).await;
        assert!(other(found[0].as_ref().unwrap_err()).contains("not found again"));
        carried_out(&c, &ctx(Action::Erasure), &people[1..]).await;
        assert_eq!((db.dump("email", "person").await, db.dump("page", "visit").await), (vec!["a@x.nl".to_owned()], vec!["p".to_owned()]));
    })
    .await;
}

/// A date that MySQL casts no text to.
#[tokio::test]
async fn keys_of_mysql_that_do_not_lead_back() {
    on(Engine::MySql, async |db: &Db| {
        if !db.mariadb {
            keys_that_do_not_lead_back(db, &["'0000-00-00'"], "date").await;
        }
    })
    .await;
}

/// `0612345678` is a phone number, and 612345678 is none: what keeps texts as they are is compared to the letter.
#[tokio::test]
async fn texts_in_columns_of_no_type() {
    on(Engine::Sqlite, async |db: &Db| {
        for (table, of, strict) in [("bare", "", ""), ("kept", "any", " STRICT")] {
            db.sql(&format!(
                "CREATE TABLE {table} (id integer primary key, email text, tel {of}) {strict};
                 INSERT INTO {table} VALUES (1, 'a@x.nl', '0612345678'), (2, 'a@x.nl', 612345678);"
            ))
            .await;
            let c = db.connector(&format!("  {table}: {{key: [id], identifiers: [{{kind: email, field: email}}, {{kind: customer_key, field: tel}}], fields: {{email: email, tel: phone}}, erase: mask}}\n"));
            let (records, _) = accessed(&c, &subject(&[(IdentifierKind::CustomerKey, "612345678")])).await.unwrap();
            assert_eq!((records.len(), values(&records[0])[1]), (1, "612345678"));
            let mut ann = subject(&[email("a@x.nl")]);
            ann.corrections = vec![replace(table, "tel", "612345678", "0698765432")];
            carried_out(&c, &ctx(Action::Rectification), std::slice::from_ref(&ann)).await;
            assert_eq!(db.dump("id, tel", table).await, ["1|0612345678", "2|0698765432"]);
        }
    })
    .await;
}

/// Another time zone, or another digit of a long number, is another value.
#[tokio::test]
async fn values_that_are_only_alike() {
    on(Engine::Postgres, async |db: &Db| {
        db.sql(
            "CREATE TABLE person (id integer primary key, email text, calls time with time zone, about jsonb);
             INSERT INTO person VALUES (1, 'a@x.nl', '10:00:00+02', '{\"n\": 123456789012345678901}');",
        )
        .await;
        let c = db.connector("  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, calls: other, about: other}, erase: mask}\n");
        let ctx = ctx(Action::Rectification);
        for (field, old) in [("calls", "10:00:00+05"), ("about", "{\"n\": 123456789012345678902}")] {
            let mut ann = subject(&[email("a@x.nl")]);
            ann.corrections = vec![replace("person", field, old, "null")];
            let sets = sets(&c, &ctx, std::slice::from_ref(&ann)).await;
            let done = c.act(&ctx, std::slice::from_ref(&ann), &sets).await.unwrap();
            let (collection, field) = ("person".to_owned(), field.to_owned());
            assert_eq!(done, [Err(SubjectError::OldValueMismatch { collection, field })]);
        }
    })
    .await;
}
