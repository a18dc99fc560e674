//! Each thing that the check of a map against the live schema can say.

use quittance_connectors::Connector as _;
use quittance_domain::{ids::CustomerId, system::SystemScope};
use quittance_sql::Engine;

use crate::harness::{Db, findings, on_all_engines};

on_all_engines!(
    nothing_to_say,
    missing_things,
    masks_that_fail,
    masks_that_indexes_and_references_forbid,
    foreign_keys,
    keys_and_anchors,
    keys_of_customers,
    indexes,
    indexes_that_fold_otherwise,
    links_that_lead_to_more_than_one,
    markers,
    names_that_read_otherwise,
    whole_numbers_with_a_point,
    engines
);

async fn found(db: &Db, map: &str) -> Vec<String> {
    found_for(db, map, &[("acme", "acme")]).await
}

/// With these customers and their keys; without any, for all.
async fn found_for(db: &Db, map: &str, customers: &[(&str, &str)]) -> Vec<String> {
    let keys = customers.iter().map(|(id, key)| (CustomerId::new(id).unwrap(), (*key).to_owned()));
    let scope = if customers.is_empty() { SystemScope::AllCustomers } else { SystemScope::Customers(keys.collect()) };
    findings(&db.connector(map).check(&scope).await.unwrap())
}

#[track_caller]
fn has(found: &[String], start: &str, part: &str) {
    assert!(found.iter().any(|f| f.starts_with(start) && f.contains(part)), "no {start:?} … {part:?} in {found:#?}");
}

fn errors(found: &[String]) -> Vec<&String> {
    found.iter().filter(|f| f.starts_with('E')).collect()
}

async fn nothing_to_say(db: &Db) {
    crate::erasure::w1(db).await;
    for erase in ["mask", "delete"] {
        let found = found(db, &crate::erasure::w1_map(erase)).await;
        assert_eq!(found.iter().filter(|f| !f.contains("no marker")).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}

async fn missing_things(db: &Db) {
    db.sql("CREATE TABLE person (id integer primary key, email varchar(100), city varchar(10));").await;
    let found = found(
        db,
        "  person: {key: [id], customer_field: tenant, identifiers: [{kind: email, field: emial}], yields: {user_id: uid}, fields: {emial: email, citty: city, zzzzzz: city}, erase: mask, restriction: {field: flag, set: x}}
  gone: {key: [id], owned_by: [{collection: person, fields: {person: nr}}], fields: {note: message}, erase: delete}\n",
    )
    .await;
    has(&found, "E collections.gone.table:", "not there");
    has(&found, "E collections.person.fields.citty:", "did you mean city?");
    has(&found, "E collections.person.identifiers[0].field:", "did you mean email?");
    has(&found, "E collections.person.customer_field:", "no column tenant");
    has(&found, "E collections.person.yields.user_id:", "no column uid");
    has(&found, "E collections.person.restriction.field:", "no column flag");
    assert!(found.iter().any(|f| f.ends_with("no column zzzzzz")), "{found:#?}");
}

async fn masks_that_fail(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100) not null, nick varchar(10) unique, age integer, born date, code varchar(20) unique, other integer not null);",
    )
    .await;
    let found = found(
        db,
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, nick: {category: user_name, erase: pseudonym}, age: {category: age, erase: pseudonym}, born: {category: age, erase: {constant: gone}}, code: {category: code, erase: {constant: a longer text than that}}}, points_at: [{collection: person, fields: {other: id}}], erase: mask}\n",
    )
    .await;
    has(&found, "E collections.person.fields.email:", "NOT NULL");
    has(&found, "E collections.person.fields.age:", "holds no pseudonym");
    has(&found, "E collections.person.fields.born:", "cannot hold the constant");
    has(&found, "E collections.person.fields.code:", "unique");
    has(&found, "E collections.person.points_at[0].mask:", "NOT NULL");
    if db.engine != Engine::Sqlite {
        // SQLite's lengths are decoration.
        has(&found, "E collections.person.fields.nick:", "holds 10 characters");
        has(&found, "E collections.person.fields.code:", "longer");
    }
}

async fn masks_that_indexes_and_references_forbid(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, tenant varchar(20) not null, login varchar(50) not null, nick varchar(50), mail varchar(50) not null, code varchar(50), UNIQUE (tenant, nick), UNIQUE (mail), UNIQUE (code, id));
         CREATE TABLE badge (id integer primary key, holder varchar(50), FOREIGN KEY (holder) REFERENCES person (mail));",
    )
    .await;
    if db.engine != Engine::MySql {
        db.sql("CREATE UNIQUE INDEX person_login ON person (lower(login))").await;
    }
    let gone = "erase: {constant: gone}";
    let map = format!(
        "  person: {{key: [id], customer_field: tenant, identifiers: [{{kind: user_id, field: id}}], fields: {{id: {{category: user_name, erase: keep}}, login: {{category: user_name, {gone}}}, nick: {{category: user_name, {gone}}}, mail: {{category: email, erase: pseudonym}}, code: {{category: code, {gone}}}}}, erase: mask}}\n"
    );
    let told = found(db, &map).await;
    has(&told, "E collections.person.fields.nick:", "unique");
    has(&told, "E collections.person.fields.mail:", "badge refers to mail");
    assert_eq!(
        told.iter().filter(|t| t.starts_with("E collections.person.fields.login:")).count(),
        usize::from(db.engine != Engine::MySql)
    );
    assert!(!told.iter().any(|t| t.starts_with("E collections.person.fields.code:")), "{told:?}");
}

async fn foreign_keys(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100));
         CREATE TABLE covered (id integer primary key, person integer, FOREIGN KEY (person) REFERENCES person (id));
         CREATE TABLE masked (id integer primary key, person integer, note varchar(10), FOREIGN KEY (person) REFERENCES person (id));
         CREATE TABLE taken (id integer primary key, person integer, note varchar(10), FOREIGN KEY (person) REFERENCES person (id) ON DELETE CASCADE);
         CREATE TABLE blocks (id integer primary key, person integer, FOREIGN KEY (person) REFERENCES person (id));
         CREATE TABLE carried (id integer primary key, person integer, FOREIGN KEY (person) REFERENCES person (id) ON DELETE CASCADE);
         CREATE TABLE changed (id integer primary key, person integer, FOREIGN KEY (person) REFERENCES person (id) ON DELETE SET NULL);
         CREATE TABLE points (id integer primary key, person integer, FOREIGN KEY (person) REFERENCES person (id));",
    )
    .await;
    let map = "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  covered: {key: [id], owned_by: [{collection: person, fields: {person: id}}], erase: delete}
  masked: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {note: message}, erase: mask}
  taken: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {note: message}, erase: mask}
  points: {key: [id], points_at: [{collection: person, fields: {person: id}}]}\n";
    let found = found(db, map).await;
    has(&found, "E collections.person.erase:", "blocks.person refers to it and would stop the deletion");
    has(&found, "E collections.person.erase:", "would carry carried.person away");
    has(&found, "E collections.person.erase:", "would change changed.person");
    has(&found, "E collections.person.erase:", "masked.person keeps its row");
    has(&found, "E collections.person.erase:", "taken.person keeps its row");
    assert_eq!(errors(&found).len(), 5, "{found:#?}");
}

async fn keys_and_anchors(db: &Db) {
    db.sql("CREATE TABLE person (id integer, nr integer not null, email varchar(100), booked integer, PRIMARY KEY (id, nr));").await;
    let map = "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete, retain: {ground: law, anchor: booked, period: P1Y}}\n";
    let found = found(db, map).await;
    has(&found, "E collections.person.key:", "no unique index");
    has(&found, "E collections.person.retain.anchor:", "cannot be counted");
    let found = self::found(db, &map.replace("[id]", "[id, nr]")).await;
    assert!(!found.iter().any(|f| f.contains(".key:")), "{found:#?}");
}

async fn keys_of_customers(db: &Db) {
    let bytes = if db.engine == Engine::Postgres { "bytea" } else { "blob" };
    db.sql(&format!(
        "CREATE TABLE person (id integer primary key, tenant integer, code varchar(20), raw {bytes}, email varchar(100));"
    ))
    .await;
    let map = |column: &str| {
        format!(
            "  person: {{key: [id], customer_field: {column}, identifiers: [{{kind: email, field: email}}], fields: {{email: email}}, erase: delete}}\n"
        )
    };
    let about = async |column: &str, customers: &[(&str, &str)]| {
        let told = found_for(db, &map(column), customers).await;
        told.into_iter().filter(|f| f.contains("person.customer_field")).collect::<Vec<_>>()
    };
    let strange = [("acme", "acme"), ("bolt", "7"), ("cogs", "3m"), ("dyno", "007")];
    assert_eq!(about("code", &strange).await, [""; 0]);
    assert_eq!(about("code", &[]).await, [""; 0]);
    assert_eq!(about("tenant", &strange[1..2]).await, [""; 0]);
    has(&about("raw", &strange).await, "E ", "a customer's key is text");
    let (told, all) = (about("tenant", &strange).await, about("tenant", &[]).await);
    if db.engine == Engine::Sqlite {
        // Its integer columns hold any text.
        assert_eq!([told, all].concat(), [""; 0]);
    } else {
        has(&told, "E ", "cannot hold the key of acme and 2 others");
        has(&all, "W ", "a customer's id is its key");
    }
}

async fn indexes(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, login varchar(50), email varchar(100), phone varchar(50), tenant varchar(20));
         CREATE TABLE note (id integer primary key, person integer, body varchar(20));",
    )
    .await;
    let map = "  person: {key: [id], customer_field: tenant, identifiers: [{kind: user_id, field: login}, {kind: email, field: email}, {kind: phone, field: phone}], fields: {login: user_name, email: email, phone: phone}, erase: mask}
  note: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {body: message}, erase: delete}\n";
    let before = found(db, map).await;
    has(&before, "W collections.person.identifiers[0].field:", "no index on login");
    has(&before, "W collections.person.identifiers[1].field:", "email");
    has(&before, "W collections.person.identifiers[2].field:", "the digits of phone");
    has(&before, "W collections.note.owned_by[0].fields:", "no index on person");
    let lower = if db.engine == Engine::MySql { "email" } else { "lower(email)" };
    db.sql(&format!(
        "CREATE INDEX i1 ON person (tenant, login); CREATE INDEX i2 ON person ({lower}); CREATE INDEX i3 ON note (person);"
    ))
    .await;
    let after = found(db, map).await;
    let left: Vec<&String> = after.iter().filter(|f| f.contains("no index")).collect();
    assert_eq!(left.len(), 1, "{left:#?}");
    assert!(left[0].contains("digits"));
}

/// An index in a locale of another alphabet does not answer what we ask.
async fn indexes_that_fold_otherwise(db: &Db) {
    let (ascii, turkish, lower) = match db.engine {
        Engine::Postgres => ("collate \"C\"", "collate \"tr-x-icu\"", ["lower(email)", "lower(other)"]),
        Engine::MySql => ("collate utf8mb4_unicode_ci", "collate utf8mb4_turkish_ci", ["email", "other"]),
        Engine::Sqlite => return,
    };
    db.sql(&format!(
        "CREATE TABLE person (id integer primary key, email varchar(100) {ascii}, other varchar(100) {turkish});
         CREATE INDEX person_email ON person ({}); CREATE INDEX person_other ON person ({});",
        lower[0], lower[1]
    ))
    .await;
    let map = "  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: email, field: other}], fields: {email: email, other: email}, erase: delete}\n";
    let about = async || found(db, map).await.into_iter().filter(|f| f.contains("no index")).collect::<Vec<_>>();
    let told = about().await;
    has(&told, "W collections.person.identifiers[1].field:", "no index on lower(other");
    assert_eq!(told.len(), 1, "{told:?}");
    if db.engine == Engine::Postgres {
        db.sql("CREATE INDEX person_other_c ON person (lower(other COLLATE \"C\"))").await;
        assert_eq!(about().await, [""; 0]);
    }
}

/// Order 7 of one customer, and order 7 of another.
async fn links_that_lead_to_more_than_one(db: &Db) {
    db.sql(
        "CREATE TABLE orders (tenant varchar(20), id integer, email varchar(100), code varchar(20), PRIMARY KEY (tenant, id));
         CREATE TABLE order_line (id integer primary key, tenant varchar(20), order_id integer, code varchar(20));
         CREATE UNIQUE INDEX order_code ON orders (code);
         CREATE TABLE gift (line integer primary key, code varchar(20), spare integer);",
    )
    .await;
    let map = |orders: &str, line: &str, link: &str| {
        format!(
            "  orders: {{key: [tenant, id], {orders}identifiers: [{{kind: email, field: email}}], fields: {{email: email}}, erase: delete}}
  order_line: {{key: [id], {line}owned_by: [{{collection: orders, fields: {{{link}}}}}], erase: delete}}\n"
        )
    };
    let (ours, place) = ("customer_field: tenant, ", "collections.order_line.owned_by[0].fields:");
    let about = async |map: &str| {
        let told = found(db, map).await;
        told.into_iter().filter(|f| f.contains("several rows")).collect::<Vec<_>>()
    };
    let told = about(&map(ours, "", "order_id: id")).await;
    has(&told, &format!("E {place}"), "name customer_field in order_line");
    assert_eq!(told.len(), 1, "{told:?}");
    // What says whose a row is, or that there is only one.
    for (line, link) in [
        (ours, "order_id: id"),
        ("", "tenant: tenant, order_id: id"),
        ("", "code: code"),
        ("", "tenant: tenant, code: code"),
    ] {
        assert_eq!(about(&map(ours, line, link)).await, [""; 0], "{line}{link}");
    }
    // One customer's alone, or the customer's own: both rows may be meant.
    has(&about(&map("", "", "order_id: id")).await, &format!("W {place}"), "id may be that of several rows of orders");
    has(&about(&map(ours, ours, "code: email")).await, &format!("W {place}"), "email");
    has(&about(&map(ours, "", "tenant: tenant, code: email")).await, &format!("W {place}"), "email");
    // What hangs on lines that are told apart by nothing but their order is as far from its customer; what points, too.
    let further = format!(
        "{}  gift: {{key: [line], owned_by: [{{collection: order_line, fields: {{code: code}}}}], points_at: [{{collection: orders, fields: {{spare: id}}}}], erase: delete}}\n",
        map(ours, ours, "order_id: id")
    );
    let told = about(&further).await;
    has(&told, "W collections.gift.owned_by[0].fields:", "no unique index says otherwise");
    has(&told, "E collections.gift.points_at[0].fields:", "name customer_field in gift");
    let told = about(&further.replace(&format!("key: [id], {ours}"), "key: [id], ")).await;
    has(&told, "W collections.gift.owned_by[0].fields:", "no unique index says otherwise");
}

async fn markers(db: &Db) {
    db.sql("CREATE TABLE person (id integer primary key, email varchar(100), booked date);").await;
    let map = "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete, retain: {ground: law, anchor: booked, period: P1Y}}\n";
    has(&found(db, map).await, "W collections.person.restriction:", "what is held is not marked");
    has(&found(db, map).await, "W collections.person.retain.anchor:", "may be NULL");
    db.sql(
        "CREATE TABLE marked (id integer primary key, email varchar(100), held integer not null default 0, until date,
           mail varchar(100) GENERATED ALWAYS AS (email) STORED);",
    )
    .await;
    let map = "  marked: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, mail: email}, erase: mask, restriction: {field: held, set: \"1\"}}\n";
    let told = found(db, map).await;
    has(&told, "E collections.marked.restriction.clear:", "NOT NULL: say what it holds");
    has(&told, "E collections.marked.fields.mail:", "made of other columns");
    let map = "  marked: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask, restriction: {field: until, set: \"yes\"}}\n";
    has(&found(db, map).await, "E collections.marked.restriction.set:", "cannot hold the constant");
    let map = "  marked: {key: [id], identifiers: [{kind: email, field: email}], yields: {user_id: held}, fields: {email: email}, erase: mask}
  note: {table: marked, key: [id], owned_by: [{collection: marked, fields: {held: id}}, {collection: marked, fields: {id: id}}], fields: {mail: email}, erase: delete}\n";
    let told = found(db, map).await;
    has(&told, "W collections.marked.yields.user_id:", "no index on held");
    has(&told, "W collections.note.owned_by:", "needs a person, unless you say shared: delete");
}

/// Nobody is found by a text in a list, nor by one that is rounded; what is yielded from there names nobody elsewhere.
async fn names_that_read_otherwise(db: &Db) {
    let (otherwise, alike): (&[&str], &[&str]) = match db.engine {
        Engine::Postgres => {
            db.sql("CREATE TYPE kind AS ENUM ('a'); CREATE TYPE pair AS (a text, b text); CREATE DOMAIN short AS varchar(20); CREATE DOMAIN shorter AS short;").await;
            (
                &["text[]", "jsonb", "json", "xml", "pair", "bytea", "float8", "date", "numeric(10,2)"],
                &["text", "varchar(20)", "citext", "bigint", "uuid", "numeric", "numeric(20)", "kind", "shorter"],
            )
        }
        Engine::MySql => (
            &["json", "set('a')", "varbinary(16)", "double", "date", "decimal(10,2)"],
            &["text", "varchar(20)", "bigint unsigned", db.uuid(), "decimal(20)", "enum('a')"],
        ),
        Engine::Sqlite => (
            &["json", "blob", "real", "float", "double precision"],
            &["text", "string", "integer", "floating point", "decimal(10,2)", "uuid", ""],
        ),
    };
    if db.engine == Engine::Postgres {
        db.sql("CREATE EXTENSION IF NOT EXISTS citext;").await;
    }
    for (types, refused) in [(otherwise, true), (alike, false)] {
        for (i, of) in types.iter().enumerate() {
            let table = format!("t{}{i}", u8::from(refused));
            db.sql(&format!("CREATE TABLE {table} (id integer primary key, name {of}, tenant {of});")).await;
            let map = format!(
                "  {table}: {{key: [id], customer_field: tenant, identifiers: [{{kind: customer_key, field: name}}], yields: {{user_id: name}}, fields: {{name: {{category: user_name, erase: keep}}}}, erase: mask}}\n"
            );
            let told = found_for(db, &map, &[]).await;
            for (place, what) in [
                ("customer_field:", "a customer's key is text"),
                ("identifiers[0].field:", "an identifier is text"),
                ("yields.user_id:", "an identifier is text"),
            ] {
                if refused {
                    has(&told, &format!("E collections.{table}.{place}"), what);
                }
            }
            assert_eq!(errors(&told).len(), if refused { 3 } else { 0 }, "{of}: {told:#?}");
        }
    }
}

/// `5.0` here is not `5` there.
async fn whole_numbers_with_a_point(db: &Db) {
    let of = if db.engine == Engine::Sqlite { "float" } else { "decimal(10,2)" };
    db.sql(&format!(
        "CREATE TABLE person (id integer primary key, email varchar(100), nr {of} unique); CREATE TABLE orders (id integer primary key, person {of}, again {of}, spare {of});"
    ))
    .await;
    let map = "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}
  orders: {key: [id], owned_by: [{collection: person, fields: {person: id}}, {collection: person, fields: {again: nr}}], points_at: [{collection: person, fields: {spare: id}}], erase: delete}\n";
    let told = found(db, map).await;
    has(&told, "E collections.orders.owned_by[0].fields:", "one reads 5 as 5.0");
    has(&told, "E collections.orders.points_at[0].fields:", "one reads 5 as 5.0");
    assert_eq!(errors(&told).len(), 2, "{told:#?}");
}

async fn engines(db: &Db) {
    let map = "  person: {key: [id], identifiers: [{kind: user_id, field: login}], fields: {login: user_name}, erase: delete}\n";
    match db.engine {
        Engine::MySql => {
            db.sql("CREATE TABLE person (id integer primary key, login varchar(50)) ENGINE = MyISAM;").await;
            has(&found(db, map).await, "E collections.person.table:", "MyISAM, which has no transactions");
        }
        Engine::Postgres => {
            db.sql(
                "CREATE TABLE base (id integer primary key, login bytea); CREATE VIEW person AS SELECT * FROM base;",
            )
            .await;
            let found = found(db, map).await;
            has(&found, "E collections.person.table:", "is a view");
            has(&found, "E collections.person.identifiers[0].field:", "an identifier is text");
        }
        Engine::Sqlite => {
            db.sql("CREATE TABLE base (id integer primary key, login text); CREATE VIEW person AS SELECT * FROM base;")
                .await;
            has(&found(db, map).await, "E collections.person.table:", "is a view");
        }
    }
}
