//! Rectification, restriction and its lifting, access.

use quittance_connectors::{Connector as _, SubjectError, SubjectResult};
use quittance_domain::{
    action::{Action, Correction, CorrectionTarget, IdentifierChange},
    identifier::{Identifier, IdentifierKind},
};

use quittance_sql::Engine;

use crate::harness::{Db, carried_out, ctx, email, found, lines, on_all_engines, other, read, replace, sets, subject};

on_all_engines!(
    replaced,
    replaced_however_it_is_written,
    a_value_that_the_column_would_round,
    a_wrong_old_value_changes_nothing,
    one_record,
    statements_are_appended_once,
    a_corrected_identifier,
    a_changed_identifier_goes_along,
    a_changed_identifier_that_is_refused,
    what_cannot_be_corrected,
    long_and_strange_values,
    restricted_and_lifted,
    rows_without_a_marker,
    exported_in_pages,
);

async fn seed(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), name varchar(50), restricted varchar(5) not null default 'no');
         CREATE TABLE orders (id integer primary key, person integer, note text, city varchar(20), restricted varchar(5) not null default 'no');
         INSERT INTO person (id, email, name) VALUES (1, 'a@x.nl', 'Ann'), (2, 'b@x.nl', 'Ann');
         INSERT INTO orders (id, person, note, city) VALUES (1, 1, 'Ann', 'Rome'), (2, 1, 'ann', 'Rome'), (3, 1, null, 'Oslo'), (4, 2, 'Ann', 'Rome');",
    )
    .await;
}

const MAP: &str = "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, name: display_name}, erase: mask, restriction: {field: restricted, set: 'yes', clear: 'no'}}
  orders: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {note: message, city: {category: city, rectify: false}}, erase: mask, restriction: {field: restricted, set: 'yes', clear: 'no'}}\n";

async fn act(db: &Db, corrections: Vec<Correction>) -> (SubjectResult<()>, Vec<SubjectResult<Vec<String>>>) {
    let c = db.connector(MAP);
    let ctx = ctx(Action::Rectification);
    let mut ann = subject(&[email("a@x.nl")]);
    ann.corrections = corrections;
    let subjects = [ann];
    let sets = sets(&c, &ctx, &subjects).await;
    let done = c.act(&ctx, &subjects, &sets).await.unwrap().remove(0);
    if done.is_ok() {
        // A rerun finds the same to be done, and does it no second time.
        assert_eq!(c.act(&ctx, &subjects, &sets).await.unwrap(), [Ok(())]);
    }
    (done, read(&c, &ctx, &subjects, &sets).await)
}

async fn replaced(db: &Db) {
    seed(db).await;
    let (done, outcomes) =
        act(db, vec![replace("orders", "note", "Ann", "Anna"), replace("person", "name", "Ann", "Anna")]).await;
    done.unwrap();
    assert_eq!(
        outcomes,
        [Ok(vec!["orders.message RECTIFIED 1".to_owned(), "person.display_name RECTIFIED 1".to_owned()])]
    );
    assert_eq!(
        db.dump("id, note", "orders").await,
        ["1|Anna", "2|ann", "3|-", "4|Ann"],
        "neither another case nor another person"
    );
    assert_eq!(db.dump("id, name", "person").await, ["1|Anna", "2|Ann"]);
}

/// A number, a time or a document is the same in more than one spelling; the database keeps its own.
async fn replaced_however_it_is_written(db: &Db) {
    let (when, flag, document) = match db.engine {
        Engine::Postgres => ("timestamptz", "boolean", "jsonb"),
        Engine::MySql => ("datetime(6)", "tinyint", "integer"),
        Engine::Sqlite => ("datetime", "integer", "integer"),
    };
    db.sql(&format!(
        "CREATE TABLE person (id integer primary key, email varchar(100), score numeric(10,2), seen {when}, agreed {flag}, profile {document}, code varchar(10));
         INSERT INTO person VALUES (1, 'a@x.nl', 4.50, '2026-01-01 10:00:00', '1', '7', '4.5'), (2, 'a@x.nl', 4.25, '2026-01-01 10:00:01', '0', '8', '4.50');"
    ))
    .await;
    let c = db.connector("  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, score: score, seen: seen, agreed: agreed, profile: profile, code: code}, erase: mask}\n");
    let mut corrections = vec![replace("person", "score", "04.5", "5"), replace("person", "code", "4.50", "5")];
    if db.engine != Engine::Sqlite {
        // Its dates are any text.
        corrections.push(replace("person", "seen", "2026-01-01T10:00:00", "2026-01-02T10:00"));
    }
    if db.engine == Engine::Postgres {
        corrections[2] = replace("person", "seen", "2026-01-01T12:00:00+02:00", "2026-01-02T10:00:00Z");
        corrections.push(replace("person", "agreed", "TRUE", "no"));
        corrections.push(replace("person", "profile", " 7 ", "{\"b\":[1, 2],  \"a\": null}"));
    }
    let mut one = subject(&[email("a@x.nl")]);
    one.corrections = corrections;
    let (ctx, subjects) = (ctx(Action::Rectification), [one]);
    let known = sets(&c, &ctx, &subjects).await;
    for _ in 0..2 {
        assert_eq!(c.act(&ctx, &subjects, &known).await.unwrap(), [Ok(())]);
        let said = read(&c, &ctx, &subjects, &known).await.remove(0).unwrap();
        assert_eq!(said.len(), subjects[0].corrections.len());
        assert!(said.iter().all(|line| line.ends_with("RECTIFIED 1")), "{said:?}");
    }
    // What is text is taken to the letter.
    assert_eq!(db.dump("id, code", "person").await, ["1|4.5", "2|5"]);
    if db.engine == Engine::Postgres {
        assert_eq!(
            db.dump("id, score, seen AT TIME ZONE 'UTC', agreed, profile", "person").await,
            ["1|5.00|2026-01-02 10:00:00|false|{\"a\": null, \"b\": [1, 2]}", "2|4.25|2026-01-01 10:00:01|false|8"]
        );
    }
}

/// 5.005 is not 5.01, and nobody has said 5.01.
async fn a_value_that_the_column_would_round(db: &Db) {
    let seconds = match db.engine {
        Engine::Postgres => "timestamp(0)",
        Engine::MySql => "datetime",
        Engine::Sqlite => "text",
    };
    db.sql(&format!(
        "CREATE TABLE person (id integer primary key, email varchar(100), score numeric(10,2), name varchar(20), seen {seconds});
         INSERT INTO person VALUES (1, 'a@x.nl', 4.50, 'A', '2026-01-01 10:00:00'), (2, 'b@x.nl', 4.50, 'B', '2026-01-01 10:00:00');"
    ))
    .await;
    let c = db.connector("  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, score: score, name: display_name, seen: seen}, erase: mask}\n");
    let ctx = ctx(Action::Rectification);
    let corrected = |who: &str, field: &str, new: &str| {
        let target = CorrectionTarget::Record {
            key: vec![(if who == "a@x.nl" { "1" } else { "2" }).to_owned()],
            new: new.to_owned(),
        };
        let named = Correction { collection: "person".to_owned(), field: field.to_owned(), target };
        quittance_connectors::Subject {
            corrections: vec![replace("person", "name", "A", "Anna"), named],
            ..subject(&[email(who)])
        }
    };
    let mut other = corrected("b@x.nl", "score", "5.000");
    other.corrections.remove(0);
    for (field, new) in [("score", "5.005"), ("seen", "2026-01-02 10:00:00.5")] {
        let subjects = [other.clone(), corrected("a@x.nl", field, new)];
        let sets = sets(&c, &ctx, &subjects).await;
        let acted = c.act(&ctx, &subjects, &sets).await;
        if db.engine == Engine::Sqlite {
            // It holds what it is given.
            assert_eq!(acted.unwrap(), [Ok(()), Ok(())]);
            assert!(read(&c, &ctx, &subjects, &sets).await.iter().all(Result::is_ok));
            db.sql("UPDATE person SET name = 'A' WHERE id = 1").await;
            continue;
        }
        // Of the batch nothing is done, and whoever called splits it.
        let why = crate::harness::refused(acted);
        assert!(why.starts_with(&format!("person.{field} is of type")), "{why}");
        assert_eq!(db.dump("id, name, score", "person").await, ["1|A|4.50", "2|B|4.50"]);
    }
    carried_out(&c, &ctx, &[other]).await;
    assert_eq!(db.dump("id, name", "person WHERE score = 5").await, ["2|B"]);
}

async fn a_wrong_old_value_changes_nothing(db: &Db) {
    seed(db).await;
    let (done, _) =
        act(db, vec![replace("person", "name", "Ann", "Anna"), replace("orders", "note", "nope", "x")]).await;
    assert_eq!(done, Err(SubjectError::OldValueMismatch { collection: "orders".to_owned(), field: "note".to_owned() }));
    assert_eq!(db.dump("id, name", "person").await, ["1|Ann", "2|Ann"]);
}

async fn one_record(db: &Db) {
    seed(db).await;
    let record = |key: &str| Correction {
        collection: "orders".to_owned(),
        field: "note".to_owned(),
        target: CorrectionTarget::Record { key: vec![key.to_owned()], new: "new".to_owned() },
    };
    let (done, outcomes) = act(db, vec![record("2"), record("3")]).await;
    done.unwrap();
    assert_eq!(outcomes, [Ok(vec!["orders.message RECTIFIED 2".to_owned()])]);
    let (done, _) = act(db, vec![record("4")]).await;
    assert!(matches!(done, Err(SubjectError::OldValueMismatch { .. })), "somebody else's record");
    assert_eq!(db.dump("id, note", "orders").await, ["1|Ann", "2|new", "3|new", "4|Ann"]);
}

async fn statements_are_appended_once(db: &Db) {
    seed(db).await;
    let target = CorrectionTarget::Append { statement: "The subject disagrees.".to_owned() };
    let append = Correction { collection: "orders".to_owned(), field: "note".to_owned(), target };
    let (done, outcomes) = act(db, vec![append]).await;
    done.unwrap();
    assert_eq!(outcomes, [Ok(vec!["orders.message RECTIFIED 3".to_owned()])]);
    assert_eq!(
        db.dump("id, note", "orders").await,
        ["1|Ann\nThe subject disagrees.", "2|ann\nThe subject disagrees.", "3|The subject disagrees.", "4|Ann"]
    );
}

async fn a_corrected_identifier(db: &Db) {
    seed(db).await;
    let (done, outcomes) =
        act(db, vec![replace("person", "email", "a@x.nl", "anna@x.nl"), replace("person", "name", "Ann", "Anna")])
            .await;
    done.unwrap();
    assert_eq!(
        outcomes,
        [Ok(vec!["person.display_name RECTIFIED 1".to_owned(), "person.email RECTIFIED 1".to_owned()])]
    );
    assert_eq!(db.dump("id, email, name", "person").await, ["1|anna@x.nl|Anna", "2|b@x.nl|Ann"]);
}

fn renamed(kind: IdentifierKind, old: &str, new: &str) -> IdentifierChange {
    IdentifierChange {
        kind,
        collection: "elsewhere".to_owned(),
        field: "elsewhere".to_owned(),
        old: Some(Identifier::normalise(kind, old).unwrap()),
        new: Identifier::normalise(kind, new).unwrap(),
        named_at: Default::default(),
    }
}

const KEYED: &str = "  reader: {key: [id], identifiers: [{kind: email, field: mail}, {kind: phone, field: phone}], fields: {mail: email, phone: phone, backup: email}, yields: {email: backup}, erase: mask}
  post: {key: [id], identifiers: [{kind: email, field: author}], fields: {words: message}, erase: delete}
  vote: {key: [id], owned_by: [{collection: reader, fields: {reader: id}}], fields: {mail: email}, erase: delete}\n";

async fn seed_readers(db: &Db) {
    db.sql(
        "CREATE TABLE reader (id integer primary key, mail varchar(40), phone varchar(40), backup varchar(40));
         CREATE TABLE post (id integer primary key, author varchar(40), words varchar(40));
         CREATE TABLE vote (id integer primary key, reader integer, mail varchar(40));
         INSERT INTO reader VALUES (1, 'A@x.nl', '+31 6-12345678', 'a@X.nl'), (2, 'b@x.nl', '+31 6-12345679', 'a@x.nl');
         INSERT INTO post VALUES (1, 'a@x.NL', 'hello'), (2, 'b@x.nl', 'hello');
         INSERT INTO vote VALUES (1, 1, 'a@x.nl'), (2, 2, 'a@x.nl');",
    )
    .await;
}

async fn a_changed_identifier_goes_along(db: &Db) {
    seed_readers(db).await;
    let c = db.connector(KEYED);
    let ctx = ctx(Action::Rectification);
    let mut ann = subject(&[email("a@x.nl"), (IdentifierKind::Phone, "+31612345678")]);
    ann.identifier_changes = vec![
        renamed(IdentifierKind::Email, "a@x.nl", "Anna@x.nl"),
        renamed(IdentifierKind::Phone, "+31612345678", "+31687654321"),
    ];
    let mut nobody = subject(&[email("n@x.nl")]);
    nobody.identifier_changes = vec![renamed(IdentifierKind::Email, "n@x.nl", "m@x.nl")];
    let subjects = [ann, nobody];
    let before = sets(&c, &ctx, &subjects).await;
    assert_eq!(c.act(&ctx, &subjects, &before).await.unwrap(), [Ok(()), Ok(())]);
    // What is an identifier, in whatever form it stood there; not the same word elsewhere, and not a neighbour's row.
    let readers = ["1|anna@x.nl|+31687654321|anna@x.nl", "2|b@x.nl|+31 6-12345679|a@x.nl"];
    assert_eq!(db.dump("id, mail, phone, backup", "reader").await, readers);
    assert_eq!(db.dump("id, author", "post").await, ["1|anna@x.nl", "2|b@x.nl"]);
    assert_eq!(db.dump("id, mail", "vote").await, ["1|a@x.nl", "2|a@x.nl"]);
    // The rerun after a crash finds nothing under the old ones, and says what was done all the same.
    assert!(sets(&c, &ctx, &subjects).await.iter().all(quittance_connectors::MatchSet::is_empty));
    assert_eq!(c.act(&ctx, &subjects, &before).await.unwrap(), [Ok(()), Ok(())]);
    let said = read(&c, &ctx, &subjects, &before).await;
    let rectified = ["post.* RECTIFIED 1", "reader.email RECTIFIED 1", "reader.phone RECTIFIED 1"];
    assert_eq!(said[0].clone().unwrap(), rectified);
    assert_eq!(said[1].clone().unwrap(), ["*.* NOT_HELD 0"]);
    // What comes under the old one meanwhile is no success yet.
    db.sql("INSERT INTO post VALUES (3, 'a@x.nl', 'late');").await;
    assert_eq!(read(&c, &ctx, &subjects, &before).await[0], Err(SubjectError::NotYet { rows: 1 }));
}

async fn a_changed_identifier_that_is_refused(db: &Db) {
    db.sql(
        "CREATE TABLE account (mail varchar(40) primary key, name varchar(40));
         CREATE TABLE login (id integer primary key, mail varchar(40) unique, name varchar(40));
         INSERT INTO account VALUES ('a@x.nl', 'Ann'), ('b@x.nl', 'Ben');
         INSERT INTO login VALUES (1, 'a@x.nl', 'Ann'), (2, 'b@x.nl', 'Ben'), (3, 'c@x.nl', 'Cat');",
    )
    .await;
    let ctx = ctx(Action::Rectification);
    let change = |old: &str, new: &str| {
        let mut subject = subject(&[email(old)]);
        subject.identifier_changes = vec![renamed(IdentifierKind::Email, old, new)];
        subject
    };
    // A key is not ours to change: rows elsewhere may hang on it.
    let keyed = db.connector("  account: {key: [mail], identifiers: [{kind: email, field: mail}], fields: {mail: email, name: display_name}, erase: delete}\n");
    let found = found(&keyed, &ctx, &[change("a@x.nl", "z@x.nl"), change("n@x.nl", "z@x.nl")]).await;
    assert!(other(found[0].as_ref().unwrap_err()).starts_with("account.mail holds the changed identifier"));
    assert!(found[1].as_ref().unwrap().is_empty(), "who is not there needs nobody's attention");
    // The database refuses: nothing of the batch is done, and the batch is split by whoever called.
    let unique = db.connector("  login: {key: [id], identifiers: [{kind: email, field: mail}], fields: {mail: email, name: display_name}, erase: mask}\n");
    let subjects = [change("c@x.nl", "d@x.nl"), change("a@x.nl", "b@x.nl")];
    let sets = sets(&unique, &ctx, &subjects).await;
    crate::harness::refused(unique.act(&ctx, &subjects, &sets).await);
    assert_eq!(db.dump("id, mail", "login").await, ["1|a@x.nl", "2|b@x.nl", "3|c@x.nl"]);
}

async fn what_cannot_be_corrected(db: &Db) {
    seed(db).await;
    let c = db.connector(MAP);
    let mut subjects = vec![subject(&[email("a@x.nl")]); 4];
    subjects[0].corrections = vec![replace("orders", "city", "Rome", "Roma")];
    subjects[1].corrections = vec![replace("orders", "note", "Ann", "A\0")];
    subjects[2].corrections = vec![replace("person", "nme", "Ann", "Anna")];
    subjects[3].corrections = vec![replace("orders", "note", "Ann", "x"), replace("orders", "note", "Ann", "y")];
    let found = found(&c, &ctx(Action::Rectification), &subjects).await;
    let told: Vec<&str> = found.iter().map(|f| other(f.as_ref().unwrap_err())).collect();
    assert_eq!(
        told,
        [
            "orders.city cannot be rectified",
            "orders.note cannot hold a NUL character",
            "person.nme is not in the map",
            "two corrections name orders.note of one row",
        ]
    );
}

async fn long_and_strange_values(db: &Db) {
    seed(db).await;
    let strange = format!("'; DROP TABLE orders; -- \\ \" ` $1 {{rows}} % é 😀\r\n\t{}", "ö".repeat(20_000));
    let (done, _) = act(db, vec![replace("orders", "note", "Ann", &strange)]).await;
    done.unwrap();
    assert_eq!(db.dump("note", "orders WHERE id = 1").await, std::slice::from_ref(&strange));
    let (done, outcomes) = act(db, vec![replace("orders", "note", &strange, "plain")]).await;
    done.unwrap();
    assert_eq!(outcomes, [Ok(vec!["orders.message RECTIFIED 1".to_owned()])]);
}

async fn restricted_and_lifted(db: &Db) {
    seed(db).await;
    let c = db.connector(MAP);
    let subjects = [subject(&[email("a@x.nl")])];
    let outcomes = carried_out(&c, &ctx(Action::Restriction), &subjects).await;
    assert_eq!(
        outcomes,
        [[
            "orders.city RESTRICTED 3",
            "orders.message RESTRICTED 2",
            "person.display_name RESTRICTED 1",
            "person.email RESTRICTED 1"
        ]]
    );
    assert_eq!(db.dump("id, restricted", "orders").await, ["1|yes", "2|yes", "3|yes", "4|no"]);
    assert_eq!(db.dump("id, restricted", "person").await, ["1|yes", "2|no"]);
    // A row that comes later is not restricted, and the statement is not made.
    let before = sets(&c, &ctx(Action::Restriction), &subjects).await;
    db.sql("INSERT INTO orders (id, person, note) VALUES (9, 1, 'late');").await;
    assert_eq!(read(&c, &ctx(Action::Restriction), &subjects, &before).await, [Err(SubjectError::NotYet { rows: 1 })]);
    let outcomes = carried_out(&c, &ctx(Action::LiftRestriction), &subjects).await;
    assert_eq!(outcomes[0][1], "orders.message RESTRICTION_LIFTED 3");
    assert_eq!(db.dump("restricted", "orders").await, ["no", "no", "no", "no", "no"]);
}

async fn rows_without_a_marker(db: &Db) {
    seed(db).await;
    let c = db.connector(&MAP.replace(
        "rectify: false}}, erase: mask, restriction: {field: restricted, set: 'yes', clear: 'no'}",
        "rectify: false}}, erase: mask",
    ));
    db.sql("DELETE FROM orders WHERE person = 2;").await;
    let (ctx, subjects) = (ctx(Action::Restriction), [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    let done = c.act(&ctx, &subjects, &sets).await.unwrap();
    assert_eq!(done, [Err(SubjectError::CannotRestrict { collection: "orders".to_owned() }), Ok(())]);
    assert_eq!(db.dump("id, restricted", "person").await, ["1|no", "2|yes"], "nothing is half-done");
}

async fn exported_in_pages(db: &Db) {
    seed(db).await;
    db.sql("UPDATE orders SET city = null, note = 'Δ\"x\"' WHERE id = 2;").await;
    let c = db.connector(MAP);
    let (ctx, subject) = (ctx(Action::Access), subject(&[email("a@x.nl")]));
    let set = sets(&c, &ctx, std::slice::from_ref(&subject)).await.remove(0);
    let mut after = None;
    let mut pages = Vec::new();
    loop {
        let (exported, next) = c.export(&ctx, &subject, &set, after, 3).await.unwrap().unwrap();
        let records: Vec<String> = exported
            .records
            .iter()
            .map(|r| {
                let fields = r
                    .fields
                    .iter()
                    .map(|f| format!("{}({})={}", f.name, f.category, f.value.as_deref().unwrap_or("-")));
                format!(
                    "{} {} {} {}",
                    r.collection,
                    r.key.join(","),
                    r.third_party,
                    fields.collect::<Vec<_>>().join(" ")
                )
            })
            .collect();
        pages.push((records, lines(&exported.outcomes)));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages.len(), 2);
    let mut records: Vec<String> = pages.iter().flat_map(|(records, _)| records.clone()).collect();
    records.sort();
    assert_eq!(
        records,
        [
            "orders 1 false note(message)=Ann city(city)=Rome",
            "orders 2 false note(message)=Δ\"x\" city(city)=-",
            "orders 3 false note(message)=- city(city)=Oslo",
            "person 1 false email(email)=a@x.nl name(display_name)=Ann",
        ]
    );
    assert_eq!(pages[0].0[0], "person 1 false email(email)=a@x.nl name(display_name)=Ann");
    let nobody = crate::harness::subject(&[email("nobody@x.nl")]);
    let none = c.export(&ctx, &nobody, &Default::default(), None, 3).await.unwrap().unwrap();
    assert_eq!((lines(&none.0.outcomes), none.1), (vec!["*.* NOT_HELD 0".to_owned()], None));
}
