//! The application databases: one crm and one shop that all customers share, and files. Customers have people of the same email
//! addresses, and every fourth person is a neighbour whom nobody instructs anything about.

use std::{fmt::Write as _, fs, path::Path};

use quittance_sql::{ConnectOptions, Pool};

use crate::Failure;

pub const CUSTOMERS: [&str; 3] = ["acme", "bolt", "cedar"];
const FILES: [&str; 3] = ["letter.txt", "label.txt", "photo.txt"];
/// Rows of one INSERT.
const ROWS: usize = 500;

pub const CRM_MAP: &str = "
version: 1
max_rows_per_subject: 100
collections:
  customer:
    key: [id]
    customer_field: tenant
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
    customer_field: tenant
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
    customer_field: tenant
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

const CRM: &[&str] = &[
    "CREATE TABLE customer (id INTEGER PRIMARY KEY, tenant VARCHAR(16) NOT NULL, email VARCHAR(255), user_id VARCHAR(64),
       name VARCHAR(255), phone VARCHAR(64), remark VARCHAR(255), restricted VARCHAR(8) DEFAULT '0')",
    "CREATE TABLE address (customer_id INTEGER NOT NULL REFERENCES customer (id), kind VARCHAR(16) NOT NULL,
       street VARCHAR(255), city VARCHAR(255), restricted VARCHAR(8) DEFAULT '0', PRIMARY KEY (customer_id, kind))",
    "CREATE TABLE message (id INTEGER PRIMARY KEY, tenant VARCHAR(16) NOT NULL, sender_email VARCHAR(255),
       body VARCHAR(255), restricted VARCHAR(8) DEFAULT '0')",
    "CREATE INDEX customer_email ON customer (tenant, lower(email))",
    "CREATE INDEX message_sender ON message (tenant, lower(sender_email))",
];

const SHOP: &[&str] = &[
    "CREATE TABLE account (user_id VARCHAR(64) PRIMARY KEY, tenant VARCHAR(16) NOT NULL, nickname VARCHAR(255),
       restricted VARCHAR(8) DEFAULT '0')",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id VARCHAR(64) NOT NULL REFERENCES account (user_id),
       note VARCHAR(255), restricted VARCHAR(8) DEFAULT '0')",
    "CREATE TABLE order_line (order_id INTEGER NOT NULL REFERENCES orders (id), line INTEGER NOT NULL,
       engraving VARCHAR(255), restricted VARCHAR(8) DEFAULT '0', PRIMARY KEY (order_id, line))",
    "CREATE INDEX orders_user ON orders (user_id)",
];

pub fn email(n: u64) -> String {
    format!("person{n}@example.com")
}

pub fn user_id(customer: &str, n: u64) -> String {
    format!("U-{customer}-{n:06}")
}

pub fn name(customer: &str, n: u64) -> String {
    format!("Name {customer} {n}")
}

/// Whom nobody instructs anything about.
pub fn is_neighbour(n: u64) -> bool {
    n % 4 == 3
}

async fn insert(pool: &Pool, into: &str, rows: Vec<String>) -> Result<(), Failure> {
    for some in rows.chunks(ROWS) {
        let mut sql = format!("INSERT INTO {into} VALUES ");
        for (at, row) in some.iter().enumerate() {
            write!(sql, "{}({row})", if at == 0 { "" } else { ", " })?;
        }
        pool.run_script(&sql).await?;
    }
    Ok(())
}

/// `people` of each customer, everywhere.
pub async fn make(crm: &str, shop: &str, files: &Path, people: u64) -> Result<(), Failure> {
    let open = |url: &str| Pool::open(&ConnectOptions { create: true, ..ConnectOptions::new(url.to_owned()) });
    let (crm, shop) = (open(crm)?, open(shop)?);
    for statement in CRM {
        crm.run_script(statement).await?;
    }
    for statement in SHOP {
        shop.run_script(statement).await?;
    }
    for (at, tenant) in (0..).zip(CUSTOMERS) {
        let number = |n: u64| at * 1_000_000 + n;
        let (mut customers, mut addresses, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        let (mut accounts, mut orders, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..people {
            let (id, email, user, name) = (number(n), email(n), user_id(tenant, n), name(tenant, n));
            customers.push(format!("{id}, '{tenant}', '{email}', '{user}', '{name}', '+3161{id:07}', 'Remark {id}'"));
            for kind in ["home", "work"] {
                addresses.push(format!("{id}, '{kind}', 'Street {id} {kind}', 'City {}'", n % 7));
            }
            for message in id * 3..id * 3 + 3 {
                messages.push(format!("{message}, '{tenant}', '{email}', 'Message {message}'"));
            }
            accounts.push(format!("'{user}', '{tenant}', 'Nick {id}'"));
            for order in id * 2..id * 2 + 2 {
                orders.push(format!("{order}, '{user}', 'Note {order}'"));
                lines.extend([1, 2].map(|line| format!("{order}, {line}, 'Engraving {order}/{line}'")));
            }
            let folder = files.join(tenant).join("email").join(email.replace('@', "%40"));
            fs::create_dir_all(&folder)?;
            for file in FILES {
                fs::write(folder.join(file), format!("{file} of {id}"))?;
            }
        }
        insert(&crm, "customer (id, tenant, email, user_id, name, phone, remark)", customers).await?;
        insert(&crm, "address (customer_id, kind, street, city)", addresses).await?;
        insert(&crm, "message (id, tenant, sender_email, body)", messages).await?;
        insert(&shop, "account (user_id, tenant, nickname)", accounts).await?;
        insert(&shop, "orders (id, user_id, note)", orders).await?;
        insert(&shop, "order_line (order_id, line, engraving)", lines).await?;
    }
    for pool in [crm, shop] {
        pool.run_script("ANALYZE").await?;
        pool.close().await;
    }
    Ok(())
}
