//! Names that are words of SQL, and values that would like to be.

use quittance_domain::action::Action;
use quittance_sql::Engine;

use crate::harness::{Db, carried_out, ctx, email, on_all_engines, phone, sets, subject, user};

on_all_engines!(
    reserved_and_hostile_names,
    tricky_values,
    several_collations,
    as_people_write_them,
    other_alphabets_and_locales
);

async fn reserved_and_hostile_names(db: &Db) {
    let q = |name: &str| match db.engine {
        Engine::MySql => format!("`{}`", name.replace('`', "``")),
        _ => format!("\"{}\"", name.replace('"', "\"\"")),
    };
    let (table, group, select, odd) = (q("order"), q("group"), q("select"), q("a\"b`c $1 'd"));
    db.sql(&format!(
        "CREATE TABLE {table} ({group} integer primary key, {select} varchar(50), {odd} varchar(50));
         INSERT INTO {table} VALUES (1, 'u', 'x'), (2, 'v', 'y');"
    ))
    .await;
    let c = db.connector(
        "  order: {key: [group], identifiers: [{kind: user_id, field: select}], fields: {select: user_name, \"a\\\"b`c $1 'd\": message}, erase: mask}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[user("u")])]).await;
    assert_eq!(outcomes, [["order.message ERASED 1", "order.user_name ERASED 1"]]);
    assert_eq!(db.dump(&format!("{group}, {select}"), &table).await, ["1|-", "2|v"]);
}

async fn tricky_values(db: &Db) {
    db.sql("CREATE TABLE person (id varchar(100) primary key, name varchar(100)); CREATE TABLE note (id integer primary key, person varchar(100), body varchar(50));").await;
    let ids = [
        "o'brien",
        "a\"b",
        "back\\slash",
        "x'; DROP TABLE person; --",
        "日本語😀",
        "{\"json\": [1]}",
        "$1",
        "%",
        "null",
        "{rows}",
        "ab",
        "a\u{301}",
    ];
    let quoted = |text: &str| {
        let text = text.replace('\'', "''");
        if db.engine == Engine::MySql { text.replace('\\', "\\\\") } else { text }
    };
    for (n, id) in ids.iter().enumerate() {
        db.sql(&format!(
            "INSERT INTO person VALUES ('{0}', 'n'); INSERT INTO note VALUES ({n}, '{0}', 'b');",
            quoted(id)
        ))
        .await;
    }
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: user_id, field: id}], fields: {id: {category: user_name, erase: keep}, name: display_name}, erase: mask}
  note: {key: [id], owned_by: [{collection: person, fields: {person: id}}], fields: {body: message}, erase: delete}\n",
    );
    for (n, id) in ids.iter().enumerate() {
        let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[user(id)])]).await;
        assert_eq!(outcomes, [["note.message ERASED 1", "person.display_name ERASED 1"]], "{id}");
        assert_eq!(db.dump("id", "note").await.len(), ids.len() - n - 1, "{id}");
    }
}

/// Columns that think more texts equal than we do, where the engine has such.
async fn several_collations(db: &Db) {
    let kinds: &[&str] = match db.engine {
        Engine::Postgres => {
            db.sql("CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level1', deterministic = false); CREATE EXTENSION IF NOT EXISTS citext;").await;
            &["citext", "text collate folding", "char(12)", "varchar(20)"]
        }
        Engine::MySql => &[
            "varchar(20) character set latin1 collate latin1_swedish_ci",
            "varchar(20) character set utf8mb4 collate utf8mb4_bin",
            "char(20) character set utf8mb3 collate utf8mb3_general_ci",
            "varchar(20) character set utf8mb4 collate utf8mb4_unicode_520_ci",
        ],
        Engine::Sqlite => &["text collate nocase", "text collate rtrim", "varchar(20)", "", "blob"],
    };
    for kind in kinds {
        db.sql(&format!(
            "DROP TABLE IF EXISTS person; CREATE TABLE person (id integer primary key, login {kind}, email {kind});
             CREATE INDEX person_login ON person (login);
             INSERT INTO person VALUES (1, 'Abc', 'Abc@x.nl'), (2, 'abc', 'd@x.nl'), (3, 'ábc', 'é@x.nl');"
        ))
        .await;
        let c = db.connector(
            "  person: {key: [id], identifiers: [{kind: user_id, field: login}, {kind: email, field: email}], fields: {login: user_name, email: email}, erase: delete}\n",
        );
        let blob = *kind == "blob";
        if !blob {
            carried_out(&c, &ctx(Action::Erasure), &[subject(&[user("abc")])]).await;
            assert_eq!(db.dump("id", "person").await, ["1", "3"], "{kind}");
            carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("ABC@x.nl")])]).await;
            assert_eq!(db.dump("id", "person").await, ["3"], "{kind}");
        }
    }
}

/// Blanks that were pasted along, capitals beyond ASCII, a trunk zero: the same person. And not the neighbours.
async fn as_people_write_them(db: &Db) {
    written(db, "").await;
    if db.engine == Engine::MySql {
        written(db, "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin").await;
    }
}

async fn written(db: &Db, collation: &str) {
    db.sql("DROP TABLE IF EXISTS person").await;
    db.sql(&format!(
        "CREATE TABLE person (id integer primary key, email varchar(100) {collation}, phone varchar(40), other varchar(100), name varchar(20), mark varchar(10));
         INSERT INTO person (id, email, phone, other, name) VALUES
           (1, 'Ann@X.nl ', null, null, 'a'), (2, ' ann@x.nl', null, null, 'a'), (3, 'ann@x.nl\r\n', null, 'ann@x.nl\t', 'a'), (4, '\tANN@x.nl', null, null, 'a'),
           (5, ' ann@x.nl ', null, null, 'a'), (6, 'xann@x.nl', null, null, 'b'), (7, 'ann@x.nlx', null, null, 'b'), (8, 'a nn@x.nl', null, null, 'b'),
           (9, 'ИВАН.ПЕТРОВ@ПОЧТА.РФ', null, null, 'i'), (10, 'Иван.Петров@почта.рф ', null, null, 'i'), (11, 'иван.петров@почта.рф', null, null, 'i'),
           (12, 'иван.петрова@почта.рф', null, null, 'b'), (17, 'ИвАн.Петров@Почта.рФ\n', null, null, 'i'), (18, 'Åsa.Öman@X.se', null, 'åsa.öman@x.SE', 'å'),
           (13, null, '+31 (0)6 1234 5678', null, 'p'), (14, null, '0031 06-12345678', null, 'p'), (15, null, '+31 6 12345678', null, 'p'),
           (16, null, '+31 (0)6 1234 5679', null, 'b')",
    ))
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}, {kind: email, field: other}, {kind: phone, field: phone}],
    fields: {email: email, other: email, phone: phone, name: {category: display_name, erase: {constant: gone}}}, erase: mask, restriction: {field: mark, set: held}}\n",
    );
    let people = [
        subject(&[email("ann@x.nl")]),
        subject(&[email("Иван.Петров@почта.рф")]),
        subject(&[phone("+31612345678")]),
        subject(&[email("åsa.öman@x.se")]),
    ];
    let marked = carried_out(&c, &ctx(Action::Restriction), &people).await;
    assert_eq!(marked.len(), 4);
    assert_eq!(db.dump("id", "person WHERE mark = 'held'").await.len(), 13);
    carried_out(&c, &ctx(Action::Erasure), &people).await;
    let left = db.dump("id", "person WHERE name <> 'gone'").await;
    assert_eq!(left, ["12", "16", "6", "7", "8"]);
    assert_eq!(
        db.dump("id", "person WHERE name = 'gone' AND (email IS NOT NULL OR phone IS NOT NULL OR other IS NOT NULL)")
            .await,
        [""; 0]
    );
}

/// What the column's collation takes for a capital is not what we do: those people are found all the same, and only those.
async fn other_alphabets_and_locales(db: &Db) {
    match db.engine {
        Engine::Postgres => {
            db.sql("CREATE COLLATION turkish (provider = icu, locale = 'tr-u-ks-level2', deterministic = false);")
                .await;
            let turkish = ["varchar(100) collate \"tr-x-icu\"", "text collate turkish", "citext collate \"tr-x-icu\""];
            all_cased(db, &turkish).await;
            all_cased(db, &["varchar(100)", "text collate \"C\"", "citext", "name"]).await;
            for (encoding, columns) in [
                ("UTF8", ["varchar(100)", "citext", "citext collate \"en-x-icu\""].as_slice()),
                ("SQL_ASCII", &["varchar(100)", "citext"]),
            ] {
                let locale = format!("ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
                let Some(db) = Db::with(Engine::Postgres, &locale).await else { return };
                all_cased(&db, columns).await;
                db.drop().await;
            }
        }
        Engine::MySql => {
            let newer: &[&str] = match db.mariadb {
                true => &["utf8mb4_uca1400_turkish_ai_ci"],
                false => &["utf8mb4_tr_0900_ai_ci", "utf8mb4_0900_ai_ci", "utf8mb4_0900_as_cs", "utf8mb4_0900_bin"],
            };
            let both = ["utf8mb4_turkish_ci", "utf8mb4_unicode_ci", "utf8mb4_bin"];
            for collation in both.iter().chain(newer) {
                cased(db, "person", &format!("varchar(100) character set utf8mb4 collate {collation}")).await;
            }
        }
        Engine::Sqlite => cased(db, "person", "text").await,
    }
}

/// Prepared statements do not outlive their table: each has a name of its own.
async fn all_cased(db: &Db, columns: &[&str]) {
    db.sql("CREATE EXTENSION IF NOT EXISTS citext;").await;
    for (n, column) in columns.iter().enumerate() {
        cased(db, &format!("person{}_{n}", columns.len()), column).await;
    }
}

async fn cased(db: &Db, table: &str, column: &str) {
    db.sql(&format!(
        "DROP TABLE IF EXISTS {table};
         CREATE TABLE {table} (id integer primary key, email {column} not null, friend {column}, note varchar(20));
         INSERT INTO {table} VALUES (1, 'Åsa@x.se', null, 'å'), (2, 'MIKE@X.COM', 'Åsa@X.se ', 'm'), (3, 'ÅSA.ÖBERG@PÅ.ÅÄÖ.SE ', null, 'ö'),
           (4, ' Mike@x.com', null, 'm'), (5, 'asa@x.se', null, 'b'), (6, 'mıke@x.com', null, 'b'), (7, 'åsa.öberg@på!åäö.se', null, 'b'), (8, 'mike@xacom', null, 'b'),
           (9, 'ΝΙΚΟΣ@X.GR', null, 'n'), (10, 'νικος@x.gr', null, 'n')",
    ))
    .await;
    let map = |erase: &str, more: &str| {
        format!(
            "  person: {{table: {table}, key: [id], identifiers: [{{kind: email, field: email}}, {{kind: email, field: friend}}], fields: {{email: {{category: email, erase: pseudonym}}, friend: email, note: {{category: message, erase: {{constant: gone}}}}}}, erase: {erase}{more}}}\n"
        )
    };
    let ids = async || db.dump("id", table).await;
    let asa = [subject(&[email("åsa@x.se")])];
    let shared = sets(&db.connector(&map("delete", ", shared: delete")), &ctx(Action::Erasure), &asa).await;
    assert_eq!(shared[0].rows(), 2, "{column}");
    carried_out(&db.connector(&map("delete", "")), &ctx(Action::Erasure), &asa).await;
    assert_eq!(ids().await, ["10", "2", "3", "4", "5", "6", "7", "8", "9"], "{column}");
    assert_eq!(db.dump("friend", &format!("{table} WHERE id = 2")).await, ["-"], "{column}");
    let others =
        [subject(&[email("mike@x.com")]), subject(&[email("åsa.öberg@på.åäö.se")]), subject(&[email("νικος@x.gr")])];
    let masked = carried_out(&db.connector(&map("mask", "")), &ctx(Action::Erasure), &others).await;
    assert_eq!(masked[0], ["person.email PSEUDONYMISED 2", "person.message ERASED 2"], "{column}");
    assert_eq!(masked[1], ["person.email PSEUDONYMISED 1", "person.message ERASED 1"], "{column}");
    assert_eq!(masked[2], ["person.email PSEUDONYMISED 2", "person.message ERASED 2"], "{column}");
    assert_eq!(db.dump("id", &format!("{table} WHERE note = 'b'")).await, ["5", "6", "7", "8"], "{column}");
}
