//! What is owned goes along, however deep; what merely points is only made to forget.

use quittance_connectors::{Connector as _, SubjectError};
use quittance_domain::action::Action;

use crate::harness::{
    Db, carried_out, ctx, email, found, marked, marks, on_all_engines, other, refused, sets, subject, user,
};

on_all_engines!(
    a_chain_of_its_own,
    a_ring,
    two_tables_in_a_ring,
    pointers,
    deeper_than_anybody_goes,
    the_guard,
    other_types,
    links_beside_the_key,
    keys_filled_with_zeros,
    a_cascade_takes_nothing_along_that_is_not_the_subjects,
    a_cascade_takes_nothing_along_that_arrives_meanwhile,
    two_owners_of_one_collection,
    a_second_owner_however_the_row_was_reached,
);

async fn a_chain_of_its_own(db: &Db) {
    db.sql(
        "CREATE TABLE comment (id integer primary key, parent integer, author varchar(100), body varchar(50), FOREIGN KEY (parent) REFERENCES comment (id));
         INSERT INTO comment VALUES (1, null, 'a@x.nl', 'r'), (2, 1, 'b@x.nl', 'r'), (3, 2, 'c@x.nl', 'r'), (4, 3, null, null), (10, null, 'b@x.nl', 'r'), (11, 10, 'c@x.nl', 'r');",
    )
    .await;
    let c = db.connector(
        "  comment: {key: [id], identifiers: [{kind: email, field: author}], owned_by: [{collection: comment, fields: {parent: id}}], fields: {author: email, body: message}, erase: delete, shared: delete}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(outcomes, [["comment.* ERASED 1", "comment.email ERASED 3", "comment.message ERASED 3"]]);
    assert_eq!(db.dump("id", "comment").await, ["10", "11"]);
}

async fn a_ring(db: &Db) {
    db.sql(
        "CREATE TABLE member (id integer primary key, sponsor integer, email varchar(100), FOREIGN KEY (sponsor) REFERENCES member (id));
         INSERT INTO member VALUES (1, null, 'a@x.nl'), (2, 1, 'b@x.nl'), (3, 2, 'c@x.nl'), (4, null, 'd@x.nl');
         UPDATE member SET sponsor = 3 WHERE id = 1;",
    )
    .await;
    let c = db.connector(
        "  member: {key: [id], identifiers: [{kind: email, field: email}], owned_by: [{collection: member, fields: {sponsor: id}}], fields: {email: email}, erase: delete, shared: delete}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(outcomes, [["member.email ERASED 3"]]);
    assert_eq!(db.dump("id", "member").await, ["4"]);
}

async fn two_tables_in_a_ring(db: &Db) {
    db.sql(
        "CREATE TABLE a (id integer primary key, b_id integer, email varchar(100));
         CREATE TABLE b (id integer primary key, a_id integer, note varchar(20), FOREIGN KEY (a_id) REFERENCES a (id));",
    )
    .await;
    if db.engine != quittance_sql::Engine::Sqlite {
        db.sql("ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b_id) REFERENCES b(id);").await;
    }
    db.sql(
        "INSERT INTO a VALUES (1, null, 'a@x.nl'), (2, null, 'b@x.nl'); INSERT INTO b VALUES (1, 1, 'n'), (2, 2, 'n');
         UPDATE a SET b_id = id;",
    )
    .await;
    let c = db.connector(
        "  a: {key: [id], identifiers: [{kind: email, field: email}], owned_by: [{collection: b, fields: {b_id: id}}], fields: {email: email}, erase: delete}
  b: {key: [id], owned_by: [{collection: a, fields: {a_id: id}}], fields: {note: message}, erase: delete}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(outcomes, [["a.email ERASED 1", "b.message ERASED 1"]]);
    assert_eq!((db.dump("id", "a").await, db.dump("id", "b").await), (vec!["2".to_owned()], vec!["2".to_owned()]));
}

async fn pointers(db: &Db) {
    db.sql(
        "CREATE TABLE employee (id integer primary key, email varchar(100), manager_id integer, FOREIGN KEY (manager_id) REFERENCES employee (id));
         CREATE TABLE team (id integer primary key, name varchar(20), contact integer, head varchar(50));
         INSERT INTO employee VALUES (1, 'boss@x.nl', null), (2, 'b@x.nl', 1), (3, 'c@x.nl', 1), (4, 'd@x.nl', 2);
         INSERT INTO team VALUES (1, 'red', 1, 'boss@x.nl'), (2, 'blue', 2, 'b@x.nl');",
    )
    .await;
    let c = db.connector(
        "  employee: {key: [id], identifiers: [{kind: email, field: email}], points_at: [{collection: employee, fields: {manager_id: id}, category: manager}], fields: {email: email}, erase: delete}
  team: {key: [id], points_at: [{collection: employee, fields: {contact: id}}, {collection: employee, fields: {head: email}, mask: pseudonym, category: user_name}]}\n",
    );
    let boss = subject(&[email("boss@x.nl")]);
    let name = boss.pseudonym.clone();
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[boss]).await;
    assert_eq!(
        outcomes,
        [[
            "employee.email ERASED 1",
            "employee.manager ERASED 2",
            "team.reference ERASED 1",
            "team.user_name PSEUDONYMISED 1"
        ]]
    );
    assert_eq!(db.dump("id, email, manager_id", "employee").await, ["2|b@x.nl|-", "3|c@x.nl|-", "4|d@x.nl|2"]);
    assert_eq!(
        db.dump("id, name, contact, head", "team").await,
        [format!("1|red|-|{name}"), "2|blue|2|b@x.nl".to_owned()]
    );
}

async fn deeper_than_anybody_goes(db: &Db) {
    db.sql("CREATE TABLE node (id integer primary key, parent integer, owner varchar(20));").await;
    let rows: Vec<String> = (1..=80)
        .map(|n| {
            format!(
                "({n}, {}, {})",
                if n == 1 { "null".to_owned() } else { (n - 1).to_string() },
                if n == 1 { "'u'" } else { "null" }
            )
        })
        .collect();
    db.sql(&format!("INSERT INTO node VALUES {};", rows.join(","))).await;
    let c = db.connector(
        "  node: {key: [id], identifiers: [{kind: user_id, field: owner}], owned_by: [{collection: node, fields: {parent: id}}], fields: {owner: user_name}, erase: delete}\n",
    );
    let found = found(&c, &ctx(Action::Erasure), &[subject(&[user("u")])]).await;
    assert!(other(found[0].as_ref().unwrap_err()).contains("64 levels"));
}

async fn the_guard(db: &Db) {
    crate::erasure::w1(db).await;
    let map = format!("version: 1\nmax_rows_per_subject: 13\ncollections:\n{}", crate::erasure::w1_map("mask"));
    let c = db.connector(&map);
    db.sql("DELETE FROM message WHERE sender_email = 'c2@example.com';").await;
    let subjects = [subject(&[email("c1@example.com")]), subject(&[email("c2@example.com")])];
    let found = found(&c, &ctx(Action::Erasure), &subjects).await;
    assert_eq!(found[0], Err(SubjectError::TooManyRows { rows: 14, allowed: 13 }));
    assert_eq!(found[1].as_ref().unwrap().rows(), 9, "only that subject waits");
}

async fn other_types(db: &Db) {
    let (uuid, when) = match db.engine {
        quittance_sql::Engine::Postgres => ("uuid", "timestamptz"),
        quittance_sql::Engine::MySql => (db.uuid(), "datetime(6)"),
        quittance_sql::Engine::Sqlite => ("text", "datetime"),
    };
    db.sql(&format!(
        "CREATE TABLE person (id {uuid} primary key, email varchar(100));
         CREATE TABLE visit (person {uuid}, at {when}, price numeric(10,2), page varchar(50), PRIMARY KEY (person, at, price));
         INSERT INTO person VALUES ('0190a1b2-0000-7000-8000-000000000001', 'a@x.nl'), ('0190a1b2-0000-7000-8000-000000000002', 'b@x.nl');
         INSERT INTO visit VALUES ('0190a1b2-0000-7000-8000-000000000001', '2026-01-01 10:00:00.125', 1.50, 'p'), ('0190a1b2-0000-7000-8000-000000000001', '2026-01-01 10:00:00.125', 2.50, 'q'), ('0190a1b2-0000-7000-8000-000000000002', '2026-01-01 10:00:00.125', 1.50, 'r');"
    ))
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: directory_object_id, field: id}, {kind: email, field: email}], fields: {id: {category: user_name, erase: keep}, email: email}, erase: mask}
  visit: {key: [person, at, price], owned_by: [{collection: person, fields: {person: id}}], fields: {page: cookie}, erase: mask}\n",
    );
    let id = quittance_domain::identifier::IdentifierKind::DirectoryObjectId;
    let outcomes =
        carried_out(&c, &ctx(Action::Erasure), &[subject(&[(id, "0190A1B2-0000-7000-8000-000000000001")])]).await;
    assert_eq!(outcomes, [["person.email ERASED 1", "visit.cookie ERASED 2"]]);
    assert_eq!(db.dump("page", "visit").await, ["-", "-", "r"]);
}

/// Children hang on a column of their owner that is not its key, and of another type.
async fn links_beside_the_key(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, code varchar(20), nr varchar(20), email varchar(100));
         CREATE TABLE note (id integer primary key, code varchar(20), body varchar(20));
         CREATE TABLE tag (id integer primary key, nr integer, body varchar(20));
         INSERT INTO person VALUES (1, 'X', '12', 'a@x.nl'), (2, 'x', 'none', 'b@x.nl'), (3, null, '013', 'c@x.nl');
         INSERT INTO note VALUES (1, 'X', 'n'), (2, 'x', 'n'), (3, null, 'n'); INSERT INTO tag VALUES (1, 12, 't'), (2, 13, 't');",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  note: {key: [id], owned_by: [{collection: person, fields: {code: code}}], fields: {body: message}, erase: delete}
  tag: {key: [id], owned_by: [{collection: person, fields: {nr: nr}}], fields: {body: message}, erase: mask}\n",
    );
    let subjects = [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")]), subject(&[email("c@x.nl")])];
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &subjects).await;
    assert_eq!(outcomes[0], ["note.message ERASED 1", "person.email ERASED 1", "tag.message ERASED 1"]);
    assert_eq!(outcomes[1], ["note.message ERASED 1", "person.email ERASED 1"]);
    assert_eq!(outcomes[2], ["person.email ERASED 1"]);
    assert_eq!(db.dump("id", "note").await, ["3"]);
    assert_eq!(db.dump("id, body", "tag").await, ["1|-", "2|t"]);
}

/// The number is 42, however wide it is shown.
async fn keys_filled_with_zeros(db: &Db) {
    // The others have no such thing.
    let zeros = if db.engine == quittance_sql::Engine::MySql { "int(5) unsigned zerofill" } else { "integer" };
    db.sql(&format!(
        "CREATE TABLE person (id {zeros} primary key, tenant {zeros}, email varchar(100));
         CREATE TABLE note (id integer primary key, person integer, body varchar(20));
         CREATE TABLE tag (id {zeros} primary key, note integer, person {zeros}, body varchar(20));
         INSERT INTO person VALUES (42, 7, 'a@x.nl'), (43, 7, 'b@x.nl'), (44, 7, 'c@x.nl');
         INSERT INTO note VALUES (1, 42, 'n'), (2, 43, 'n'), (3, 44, 'n'); INSERT INTO tag VALUES (1, 1, 42, 't'), (2, 2, 43, 't'), (3, 3, 44, 't');"
    ))
    .await;
    let c = db.connector(
        "  person: {key: [id], customer_field: tenant, identifiers: [{kind: user_id, field: id}, {kind: email, field: email}], yields: {user_id: id}, fields: {id: user_name, email: email}, erase: delete}
  note: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {body: message}, erase: delete}
  tag: {key: [id], owned_by: [{collection: note, fields: {note: id}}, {collection: person, fields: {person: id}}], fields: {body: message}, erase: delete}\n",
    );
    let ctx = quittance_connectors::BatchContext { customer_key: Some("7".to_owned()), ..ctx(Action::Erasure) };
    let all = ["note.message ERASED 1", "person.email ERASED 1", "person.user_name ERASED 1", "tag.message ERASED 1"];
    assert_eq!(carried_out(&c, &ctx, &[subject(&[email("a@x.nl")])]).await, [all]);
    assert_eq!(carried_out(&c, &ctx, &[subject(&[user("43")])]).await, [all]);
    if db.engine == quittance_sql::Engine::MySql {
        // As people see it.
        assert_eq!(carried_out(&c, &ctx, &[subject(&[user("00044")])]).await, [all]);
        assert_eq!(db.dump("id", "note").await, [""; 0]);
    } else {
        assert_eq!(db.dump("id", "note").await, ["3"]);
    }
}

/// The foreign key knows no customers: what of another's hangs on the row, the database would delete.
async fn a_cascade_takes_nothing_along_that_is_not_the_subjects(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), tenant varchar(20));
         CREATE TABLE note (id integer primary key, person_id integer, body varchar(20), tenant varchar(20),
           FOREIGN KEY (person_id) REFERENCES person (id) ON DELETE CASCADE);
         INSERT INTO person VALUES (1, 'a@x.nl', 'acme'), (2, 'b@x.nl', 'acme');
         INSERT INTO note VALUES (1, 1, 'own', 'acme'), (2, 1, 'theirs', 'globex'), (3, 2, 'own', 'acme');",
    )
    .await;
    let map = "  person: {key: [id], customer_field: tenant, identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  note: {key: [id], customer_field: tenant, owned_by: [{collection: person, fields: {person_id: id}}], fields: {body: message}, erase: delete}\n";
    let c = db.connector(map);
    let mut ctx = ctx(Action::Erasure);
    ctx.customer_key = Some("acme".to_owned());
    let subjects = [subject(&[email("a@x.nl")])];
    let found = sets(&c, &ctx, &subjects).await;
    let why = refused(c.act(&ctx, &subjects, &found).await);
    assert!(why.contains("would carry rows of") && why.contains("note"), "{why}");
    assert_eq!(db.dump("id", "note").await, ["1", "2", "3"]);
    assert_eq!(db.dump("id", "person").await, ["1", "2"]);
    // Whose rows are all its own goes.
    let outcomes = carried_out(&c, &ctx, &[subject(&[email("b@x.nl")])]).await;
    assert_eq!(outcomes, [["note.message ERASED 1", "person.email ERASED 1"]]);
    assert_eq!(db.dump("id", "note").await, ["1", "2"]);
}

/// Another session's row that is not committed yet when the deletion begins, and is when it comes to the owner.
async fn a_cascade_takes_nothing_along_that_arrives_meanwhile(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100));
         CREATE TABLE note (id integer primary key, person_id integer, body varchar(20),
           FOREIGN KEY (person_id) REFERENCES person (id) ON DELETE CASCADE);
         CREATE TABLE visit (id integer primary key, person_id integer);
         INSERT INTO person VALUES (1, 'a@x.nl'), (2, 'b@x.nl');",
    )
    .await;
    // What owns something is looked at before anything is locked: MySQL reads as of then.
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  visit: {key: [id], owned_by: [{collection: person, fields: {person_id: id}}], erase: delete}\n",
    );
    let (ctx, subjects) = (ctx(Action::Erasure), [subject(&[email("a@x.nl")])]);
    let sets = sets(&c, &ctx, &subjects).await;
    let mut other = db.pool.begin().await.unwrap();
    other.execute("INSERT INTO note VALUES (1, 1, 'new')", Vec::new()).await.unwrap();
    let commit = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        other.commit().await.unwrap();
    };
    let (done, ()) = tokio::join!(c.act(&ctx, &subjects, &sets), commit);
    let why = refused(done);
    assert!(why.contains("would carry rows of"), "{why}");
    assert_eq!(
        (db.dump("id", "note").await, db.dump("id", "person").await),
        (vec!["1".into()], vec!["1".into(), "2".into()])
    );
}

/// Sender and recipient: what goes with either takes the other's copy. Unless the map says so, a person decides.
async fn two_owners_of_one_collection(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100));
         CREATE TABLE message (id integer primary key, sender integer, recipient integer, thread integer, body varchar(50));
         CREATE TABLE thread (id integer primary key, person integer);
         CREATE TABLE attachment (id integer primary key, message integer, name varchar(20));
         INSERT INTO attachment VALUES (1, 1, 'n'), (8, 8, 'n');
         INSERT INTO person VALUES (1, 'a@x.nl'), (2, 'b@x.nl'), (3, 'c@x.nl'), (4, 'd@x.nl');
         INSERT INTO thread VALUES (1, 3);
         INSERT INTO message VALUES (1, 1, 2, null, 'x'), (2, 3, null, null, 'x'), (3, 3, 3, null, 'x'), (4, 4, 2, null, 'x'), (5, 3, 0, null, 'x'), (6, 99, 3, null, 'x'),
           (7, 1, 2, 1, 'x'), (8, 1, 1, null, null);",
    )
    .await;
    let map = |shared: &str| {
        format!(
            "  person: {{key: [id], identifiers: [{{kind: email, field: email}}], fields: {{email: email}}, erase: delete}}
  thread: {{key: [id], owned_by: [{{collection: person, fields: {{person: id}}}}], erase: delete}}
  message: {{key: [id], owned_by: [{{collection: person, fields: {{sender: id}}}}, {{collection: person, fields: {{recipient: id}}}}, {{collection: thread, fields: {{thread: id}}}}], fields: {{body: message}}, erase: delete{shared}}}
  attachment: {{key: [id], owned_by: [{{collection: message, fields: {{message: id}}}}], fields: {{name: media}}, erase: delete}}\n"
        )
    };
    let c = db.connector(&map(""));
    let people = [subject(&[email("a@x.nl")]), subject(&[email("c@x.nl")])];
    let erasure = found(&c, &ctx(Action::Erasure), &people).await;
    let why = erasure[0].as_ref().unwrap_err().to_string();
    assert!(why.contains("collection message has another owner") && why.contains("shared: delete"), "{why}");
    // An owner that is nobody (0, 99) is nobody's claim, and what a thread leads to goes with the thread.
    assert_eq!(erasure[1].as_ref().unwrap().rows(), 7);
    // Both in one request: nobody else's.
    let both = [subject(&[email("a@x.nl"), email("b@x.nl"), email("d@x.nl")])];
    assert_eq!(sets(&c, &ctx(Action::Erasure), &both).await[0].rows(), 9);
    // It is shown to whom it is about, and marked as the other's too, whatever an erasure is to do.
    for shared in ["", ", shared: delete"] {
        let c = db.connector(&map(shared));
        assert_eq!(
            marks(&c, &people[0]).await,
            marked(&[
                ("person", "1", false),
                ("message", "1", true),
                ("message", "7", true),
                ("message", "8", false),
                ("attachment", "1", true),
                ("attachment", "8", false)
            ])
        );
    }

    carried_out(&c, &ctx(Action::Erasure), &people[1..]).await;
    assert_eq!(db.dump("id", "message").await, ["1", "4", "8"]);
    carried_out(&db.connector(&map(", shared: delete")), &ctx(Action::Erasure), &people[..1]).await;
    assert_eq!(db.dump("id", "message").await, ["4"]);
    assert_eq!(db.dump("id", "person").await, ["2", "4"]);
}

/// A conversation leads to its messages before their sender does; and the other one may be another customer's.
async fn a_second_owner_however_the_row_was_reached(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, tenant varchar(20), email varchar(100));
         CREATE TABLE conversation (id integer primary key, tenant varchar(20), starter varchar(100));
         CREATE TABLE message (id integer primary key, sender integer, recipient integer, conversation integer);
         INSERT INTO person VALUES (1, 'acme', 'a@x.nl'), (2, 'globex', 'b@x.nl'), (3, 'acme', 'c@x.nl');
         INSERT INTO conversation VALUES (1, 'acme', 'a@x.nl'), (2, 'acme', 'c@x.nl');
         INSERT INTO message VALUES (1, 1, 2, 1), (2, 3, 3, 2);",
    )
    .await;
    let c = db.connector(
        "  conversation: {key: [id], customer_field: tenant, identifiers: [{kind: email, field: starter}], fields: {starter: email}, erase: delete}
  person: {key: [id], customer_field: tenant, identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  message: {key: [id], owned_by: [{collection: conversation, fields: {conversation: id}}, {collection: person, fields: {sender: id}}, {collection: person, fields: {recipient: id}}], erase: delete}\n",
    );
    let acme = quittance_connectors::BatchContext { customer_key: Some("acme".to_owned()), ..ctx(Action::Erasure) };
    let people = [subject(&[email("a@x.nl")]), subject(&[email("c@x.nl")])];
    let erasure = found(&c, &acme, &people).await;
    assert!(matches!(&erasure[0], Err(SubjectError::Other(why)) if why.contains("another owner")), "{erasure:?}");
    assert_eq!(erasure[1].as_ref().unwrap().rows(), 3);
}
