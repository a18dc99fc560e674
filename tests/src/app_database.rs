//! Two application databases as a processor has them: `crm` is keyed by email and yields the user id that `shop` is keyed by.
//! Seeded from a number, so that what must be gone and what must be whole is known without asking the service.

use std::{collections::BTreeMap, path::Path};

use quittance_sql::{Column, ConnectOptions, Engine, Pool, Rows, Val};
use uuid::Uuid;

use crate::deployment::{postgres_database, test_server};

pub struct AppDatabase {
    pub pool: Pool,
    /// For the server's secret.
    pub url: String,
}

/// Rows that belong to each subject of `crm`: one customer, two addresses, three messages.
pub const CRM_ROWS: u64 = 6;
/// And of `shop`: one account, two orders, four lines.
pub const SHOP_ROWS: u64 = 7;

pub fn email(n: u64) -> String {
    format!("subject{n}@example.com")
}

pub fn user_id(n: u64) -> String {
    format!("U-{n:06}")
}

/// What an erasure in `crm` comes to, to the row.
pub const CRM_ERASED: [&str; 8] = [
    "crm address address ERASED VERIFIED 2",
    "crm address city ERASED VERIFIED 2",
    "crm customer email ERASED VERIFIED 1",
    "crm customer first_name ERASED VERIFIED 1",
    "crm customer message ERASED VERIFIED 1",
    "crm customer phone ERASED VERIFIED 1",
    "crm message email ERASED VERIFIED 3",
    "crm message message ERASED VERIFIED 3",
];

/// And in `shop`.
pub const SHOP_ERASED: [&str; 4] = [
    "shop account display_name ERASED VERIFIED 1",
    "shop account user_name ERASED VERIFIED 1",
    "shop order_line message ERASED VERIFIED 4",
    "shop orders message ERASED VERIFIED 2",
];

pub const CRM_MAP: &str = "
version: 1
max_rows_per_subject: 100
collections:
  customer:
    key: [id]
    identifiers:
      - {kind: email, field: email}
    yields: {user_id: user_id}
    fields:
      email: email
      user_id: {category: user_name, erase: keep}
      name: {category: first_name, erase: {constant: erased}}
      phone: phone
      remark: {category: message, erase: set_null}
    erase: mask
    restriction: {field: restricted, set: '1', clear: '0'}
  address:
    key: [customer_id, kind]
    owned_by:
      - {collection: customer, fields: {customer_id: id}}
    fields:
      street: address
      city: city
    erase: delete
    restriction: {field: restricted, set: '1', clear: '0'}
  message:
    key: [id]
    identifiers:
      - {kind: email, field: sender_email}
    fields:
      sender_email: email
      body: message
    erase: mask
    restriction: {field: restricted, set: '1', clear: '0'}
";

pub const SHOP_MAP: &str = "
version: 1
max_rows_per_subject: 100
collections:
  account:
    key: [user_id]
    identifiers:
      - {kind: user_id, field: user_id}
    fields:
      user_id: user_name
      nickname: display_name
    erase: delete
    restriction: {field: restricted, set: '1', clear: '0'}
  orders:
    key: [id]
    owned_by:
      - {collection: account, fields: {user_id: user_id}}
    fields:
      note: message
    erase: delete
    restriction: {field: restricted, set: '1', clear: '0'}
  order_line:
    key: [order_id, line]
    owned_by:
      - {collection: orders, fields: {order_id: id}}
    fields:
      engraving: message
    erase: delete
    restriction: {field: restricted, set: '1', clear: '0'}
";

const CRM_SCHEMA: &[&str] = &[
    "CREATE TABLE customer (id INTEGER PRIMARY KEY, email VARCHAR(255), user_id VARCHAR(64), name VARCHAR(255),
       phone VARCHAR(64), remark VARCHAR(255), restricted VARCHAR(8) DEFAULT '0')",
    "CREATE TABLE address (customer_id INTEGER NOT NULL, kind VARCHAR(16) NOT NULL, street VARCHAR(255), city VARCHAR(255),
       restricted VARCHAR(8) DEFAULT '0', PRIMARY KEY (customer_id, kind),
       FOREIGN KEY (customer_id) REFERENCES customer (id))",
    "CREATE TABLE message (id INTEGER PRIMARY KEY, sender_email VARCHAR(255), body VARCHAR(255),
       restricted VARCHAR(8) DEFAULT '0')",
    "CREATE INDEX customer_email ON customer (email)",
    "CREATE INDEX message_sender ON message (sender_email)",
];

const SHOP_SCHEMA: &[&str] = &[
    "CREATE TABLE account (user_id VARCHAR(64) PRIMARY KEY, nickname VARCHAR(255), restricted VARCHAR(8) DEFAULT '0')",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id VARCHAR(64) NOT NULL, note VARCHAR(255),
       restricted VARCHAR(8) DEFAULT '0', FOREIGN KEY (user_id) REFERENCES account (user_id))",
    "CREATE TABLE order_line (order_id INTEGER NOT NULL, line INTEGER NOT NULL, engraving VARCHAR(255),
       restricted VARCHAR(8) DEFAULT '0', PRIMARY KEY (order_id, line),
       FOREIGN KEY (order_id) REFERENCES orders (id))",
    "CREATE INDEX orders_user ON orders (user_id)",
];

async fn database(engine: Engine, folder: &Path, name: &str) -> AppDatabase {
    let (url, create) = match engine {
        Engine::Sqlite => (format!("sqlite:{}", folder.join(format!("{name}.db")).display()), true),
        Engine::Postgres => (postgres_database().await, false),
        Engine::MySql => {
            let admin = test_server("QUITTANCE_TEST_MARIADB_URL");
            let database = format!("q{}", Uuid::now_v7().simple());
            let pool = Pool::open(&ConnectOptions::new(admin.clone())).unwrap();
            pool.run_script(&format!("CREATE DATABASE {database}")).await.unwrap();
            (format!("{admin}/{database}"), false)
        }
    };
    let pool = Pool::open(&ConnectOptions { create, ..ConnectOptions::new(url.clone()) }).unwrap();
    AppDatabase { pool, url }
}

impl AppDatabase {
    /// Customers, addresses and messages of subjects `0..subjects`.
    pub async fn crm(engine: Engine, folder: &Path, subjects: u64) -> Self {
        database(engine, folder, "crm").await.with_crm(subjects).await
    }

    /// The same in a database of a server of the test's own.
    pub async fn crm_at(url: String, subjects: u64) -> Self {
        let pool = Pool::open(&ConnectOptions::new(url.clone())).unwrap();
        Self { pool, url }.with_crm(subjects).await
    }

    async fn with_crm(self, subjects: u64) -> Self {
        for statement in CRM_SCHEMA {
            self.pool.run_script(statement).await.unwrap();
        }
        let n = |i: u64| i64::try_from(i).unwrap();
        let all = 0..subjects;
        self.insert(
            "customer (id, email, user_id, name, phone, remark)",
            vec![
                Column::i64s(all.clone().map(n)),
                Column::texts(all.clone().map(email)),
                Column::texts(all.clone().map(user_id)),
                Column::texts(all.clone().map(|i| format!("Name {i}"))),
                Column::texts(all.clone().map(|i| format!("+3161{i:07}"))),
                Column::texts(all.clone().map(|i| format!("Remark {i}"))),
            ],
        )
        .await;
        let two = all.clone().flat_map(|i| [(i, "home"), (i, "work")]).collect::<Vec<_>>();
        self.insert(
            "address (customer_id, kind, street, city)",
            vec![
                Column::i64s(two.iter().map(|(i, _)| n(*i))),
                Column::texts(two.iter().map(|(_, kind)| *kind)),
                Column::texts(two.iter().map(|(i, kind)| format!("Street {i} {kind}"))),
                Column::texts(two.iter().map(|(i, _)| format!("City {}", i % 7))),
            ],
        )
        .await;
        let three = all.flat_map(|i| [(i, 0), (i, 1), (i, 2)]).collect::<Vec<_>>();
        self.insert(
            "message (id, sender_email, body)",
            vec![
                Column::i64s(three.iter().map(|(i, k)| n(i * 3 + k))),
                Column::texts(three.iter().map(|(i, _)| email(*i))),
                Column::texts(three.iter().map(|(i, k)| format!("Message {k} of {i}"))),
            ],
        )
        .await;
        self
    }

    /// Accounts, orders and their lines of subjects `0..subjects`.
    pub async fn shop(engine: Engine, folder: &Path, subjects: u64) -> Self {
        let database = database(engine, folder, "shop").await;
        for statement in SHOP_SCHEMA {
            database.pool.run_script(statement).await.unwrap();
        }
        let n = |i: u64| i64::try_from(i).unwrap();
        let all = 0..subjects;
        database
            .insert(
                "account (user_id, nickname)",
                vec![Column::texts(all.clone().map(user_id)), Column::texts(all.clone().map(|i| format!("Nick {i}")))],
            )
            .await;
        let orders = all.flat_map(|i| [(i, i * 2), (i, i * 2 + 1)]).collect::<Vec<_>>();
        database
            .insert(
                "orders (id, user_id, note)",
                vec![
                    Column::i64s(orders.iter().map(|(_, order)| n(*order))),
                    Column::texts(orders.iter().map(|(i, _)| user_id(*i))),
                    Column::texts(orders.iter().map(|(_, order)| format!("Note {order}"))),
                ],
            )
            .await;
        let lines = orders.iter().flat_map(|(_, order)| [(*order, 1_i64), (*order, 2)]).collect::<Vec<_>>();
        database
            .insert(
                "order_line (order_id, line, engraving)",
                vec![
                    Column::i64s(lines.iter().map(|(order, _)| n(*order))),
                    Column::i64s(lines.iter().map(|(_, line)| *line)),
                    Column::texts(lines.iter().map(|(order, line)| format!("Engraving {order}/{line}"))),
                ],
            )
            .await;
        database
    }

    async fn insert(&self, target: &str, columns: Vec<Column>) {
        let mut tx = self.pool.begin().await.unwrap();
        let casts: Vec<&str> = columns.iter().map(|c| if matches!(c, Column::I64(_)) { "i" } else { "t" }).collect();
        let select: Vec<String> = casts
            .iter()
            .enumerate()
            .map(|(i, kind)| if *kind == "i" { format!("c{i} + 0") } else { format!("c{i}") })
            .collect();
        let names: Vec<String> = (0..casts.len()).map(|i| format!("c{i}")).collect();
        let (names, select) = (names.join(", "), select.join(", "));
        // MariaDB wants its WITH behind the INSERT; the others take it there too.
        let sql = format!("INSERT INTO {target} WITH v({names}) AS ({{rows}}) SELECT {select} FROM v");
        tx.execute_rows(&sql, vec![], Rows::new(columns)).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// One number.
    pub async fn count(&self, sql: &str) -> i64 {
        let mut tx = self.pool.begin_read().await.unwrap();
        tx.fetch(sql, Vec::<Val>::new()).await.unwrap()[0].i64(0).unwrap()
    }

    /// Whole rows as text, by table: what a neighbour must keep to the letter.
    pub async fn rows(&self, sql: &str, columns: usize) -> BTreeMap<String, Vec<Option<String>>> {
        let mut tx = self.pool.begin_read().await.unwrap();
        let rows = tx.fetch(sql, Vec::<Val>::new()).await.unwrap();
        rows.iter()
            .map(|row| {
                let values: Vec<Option<String>> = (0..columns).map(|i| row.opt_text(i).unwrap()).collect();
                (values[0].clone().unwrap_or_default().trim().to_owned(), values)
            })
            .collect()
    }
}
