//! SQLite counts no scans; its plans say whether there are any. (The other two are measured, in `tests/sql/plans.rs`.)

use std::sync::Arc;

use quittance_domain::data_map::{DataMap, MapKind};
use quittance_sql::{Column, ConnectOptions, Pool, Rows};

use super::{
    plan::{Plan, Statement},
    schema::Schema,
    statements::key_batch,
};

const MAP: &str = "version: 1
collections:
  person:
    key: [id]
    customer_field: tenant
    identifiers: [{kind: user_id, field: login}, {kind: email, field: email}]
    yields: {user_id: login}
    points_at: [{collection: person, fields: {boss: id}}]
    fields: {login: user_name, email: {category: email, erase: pseudonym}}
    erase: mask
    restriction: {field: flag, set: 'yes'}
  note: {key: [person, nr], owned_by: [{collection: person, fields: {person: id}}, {collection: person, fields: {nr: id}}], fields: {body: message}, erase: delete}
  badge: {key: [code], identifiers: [{kind: user_id, field: login}], fields: {login: user_name}, erase: delete}
  tag: {key: [nr, code], customer_field: tenant, identifiers: [{kind: user_id, field: login}], fields: {login: user_name}, erase: delete}
";

#[tokio::test]
async fn sqlite_scans_no_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = ConnectOptions::new(format!("sqlite:{}", dir.path().join("t.db").display()));
    options.create = true;
    let pool = Pool::open(&options).unwrap();
    pool.run_script(
        "CREATE TABLE person (id integer primary key, tenant text, login text, email text, boss integer, flag text);
         CREATE TABLE note (person integer, nr integer, body text, PRIMARY KEY (person, nr)) WITHOUT ROWID;
         CREATE INDEX l ON person (login); CREATE INDEX e ON person (lower(email)); CREATE INDEX b ON person (boss); CREATE INDEX n ON note (nr);
         CREATE TABLE badge (code text collate nocase, login text unique); CREATE UNIQUE INDEX c ON badge (code collate binary);
         CREATE TABLE tag (code text collate nocase, nr integer, tenant text, login text unique, PRIMARY KEY (code, nr)) WITHOUT ROWID;",
    )
    .await
    .unwrap();
    let map = Arc::new(DataMap::parse(MAP, MapKind::Sql).unwrap());
    let mut tx = pool.begin().await.unwrap();
    let schema = Schema::load(&mut tx, &map).await.unwrap();
    let plan = Plan::compile(&map, pool.engine(), &schema).unwrap();
    for of in &plan.collections {
        let s = &of.statements;
        let by_key = key_batch(of).len();
        let mut statements: Vec<(&Statement, usize)> = vec![(&s.left, by_key), (&s.delete, by_key)];
        statements
            .extend([&s.mask, &s.mark, &s.unmark, &s.marked, &s.unmarked].into_iter().flatten().map(|s| (s, by_key)));
        statements.extend(s.redact.iter().flatten().map(|s| (s, by_key)));
        let pseudonym = usize::from(of.pseudonym);
        for find in &s.roots {
            statements.push((&find.all, 2 + pseudonym));
            statements.extend(find.left.iter().map(|left| (left, 2 + pseudonym)));
        }
        statements.extend(s.children.iter().map(|find| (&find.all, 2 + pseudonym)));
        statements.extend(s.owners.iter().chain(s.yielded.iter().flatten()).map(|asked| (asked, 2)));
        statements.extend(s.pointers.iter().map(|pointer| (pointer, 2)));
        statements.extend(s.unpoint.iter().map(|unpoint| (unpoint, 2 + of.key.len() + 1)));
        for (statement, columns) in statements {
            let rows = Rows::new(vec![Column::texts(["1"]); columns]);
            let sql = format!("EXPLAIN QUERY PLAN {}", statement.sql);
            let steps = tx.fetch_rows(&sql, statement.args(Some("acme")), rows).await.unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.text(3).unwrap()).collect();
            // `v` is the batch itself, read once, and `w` what was found by it.
            let batch = |step: &String| step.contains("json_each") || matches!(step.as_str(), "SCAN v" | "SCAN w");
            let table = |step: &String| step.starts_with("SCAN") && !batch(step);
            let scanned = steps.iter().any(table);
            assert!(!scanned, "{}\n{steps:#?}", statement.sql);
        }
    }
}
