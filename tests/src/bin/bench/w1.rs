//! Workload W1: one application database of five tables, 14 rows for each customer in it, and what erasing one means.

use std::time::Duration;

use quittance_sql::{ConnectOptions, Pool};
use quittance_tests::deployment::{postgres_database, test_server};

use crate::{
    Failure,
    measure::{cpu_of_family, parent},
    results::Machine,
};

/// Whether erasing masks a subject's fields, or deletes its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Erasure {
    Mask,
    Delete,
}

const SCHEMA: &str = "
DROP TABLE IF EXISTS message, payment, orders, address, customer CASCADE;
CREATE TABLE customer (id integer PRIMARY KEY, email text, name text, phone text, city text);
CREATE TABLE address (id integer PRIMARY KEY, customer_id integer REFERENCES customer (id), street text, city text, zip text);
CREATE TABLE orders (id integer PRIMARY KEY, customer_id integer REFERENCES customer (id), total numeric(10, 2), note text);
CREATE TABLE payment (id integer PRIMARY KEY, order_id integer REFERENCES orders (id), card_name text, amount numeric(10, 2));
CREATE TABLE message (id integer PRIMARY KEY, sender_email text, body text);";

/// 1 customer, 2 addresses, 3 orders, 3 payments, 5 messages; `{n}` times.
const SEED: &str = "
INSERT INTO customer SELECT c, 'c' || c || '@example.com', 'Name ' || c || ' ' || md5('n' || c),
    '+4670' || lpad(c::text, 7, '0'), 'City ' || (c % 97) FROM generate_series(1, {n}) c;
INSERT INTO address SELECT (c - 1) * 2 + k, c, 'Street ' || c || '-' || k, 'City ' || (c % 97), lpad((c % 99999)::text, 5, '0')
    FROM generate_series(1, {n}) c, generate_series(1, 2) k;
INSERT INTO orders SELECT (c - 1) * 3 + k, c, (c % 500) + k, 'Note ' || md5('o' || c || '-' || k)
    FROM generate_series(1, {n}) c, generate_series(1, 3) k;
INSERT INTO payment SELECT id, id, 'Name ' || customer_id, total FROM orders;
INSERT INTO message SELECT (c - 1) * 5 + k, 'c' || c || '@example.com',
    'Hello, this is message ' || k || ' of customer ' || c || '. ' || repeat(md5('m' || c || '-' || k), 4)
    FROM generate_series(1, {n}) c, generate_series(1, 5) k;
CREATE INDEX customer_email ON customer (email);
CREATE INDEX address_customer ON address (customer_id);
CREATE INDEX orders_customer ON orders (customer_id);
CREATE INDEX payment_order ON payment (order_id);
CREATE INDEX message_sender ON message (sender_email);";

/// For the wide part: the rows are many customers', and the column says whose.
const TENANTS: &str = "
ALTER TABLE customer ADD COLUMN tenant text;
ALTER TABLE message ADD COLUMN tenant text;
UPDATE customer SET tenant = 'w' || ((id - 1) % {tenants} + 1);
UPDATE message m SET tenant = c.tenant FROM customer c WHERE c.email = m.sender_email;";

/// `{erase}`: mask or delete. `{tenant}`: nothing, or the customer's column.
const MAP: &str = "
version: 1
max_rows_per_subject: 100
collections:
  customer:
    key: [id]{tenant}
    identifiers: [{kind: email, field: email, match: exact}]
    fields: {email: email, name: display_name, phone: phone, city: city}
    erase: {erase}
  address:
    key: [id]
    owned_by: [{collection: customer, fields: {customer_id: id}}]
    fields: {street: address, city: city, zip: address}
    erase: {erase}
  orders:
    key: [id]
    owned_by: [{collection: customer, fields: {customer_id: id}}]
    fields: {note: message}
    erase: {erase}
  payment:
    key: [id]
    owned_by: [{collection: orders, fields: {order_id: id}}]
    fields: {card_name: financial}
    erase: {erase}
  message:
    key: [id]{tenant}
    identifiers: [{kind: email, field: sender_email, match: exact}]
    fields: {sender_email: email, body: message}
    erase: {erase}
";

/// Each change of the table of customers takes so long, however many it changes.
const SLOW: &str = "
CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({ms} / 1000.0); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER UPDATE ON customer FOR EACH STATEMENT EXECUTE FUNCTION slow();";

/// Rows that hold anything of a subject's still, those that are gone, and those that hold what must stay.
const LEFT: &str = "SELECT
    (SELECT count(*) FROM customer WHERE num_nonnulls(email, name, phone, city) > 0)
  + (SELECT count(*) FROM address WHERE num_nonnulls(street, city, zip) > 0)
  + (SELECT count(*) FROM orders WHERE note IS NOT NULL)
  + (SELECT count(*) FROM payment WHERE card_name IS NOT NULL)
  + (SELECT count(*) FROM message WHERE num_nonnulls(sender_email, body) > 0)";
const ROWS: &str = "SELECT (SELECT count(*) FROM customer) + (SELECT count(*) FROM address)
  + (SELECT count(*) FROM orders) + (SELECT count(*) FROM payment) + (SELECT count(*) FROM message)";

pub fn email(n: u64) -> String {
    format!("c{n}@example.com")
}

/// The `i`th customer of a walk in scattered order over all of them, each once.
pub fn scattered(i: u64, subjects: u64) -> u64 {
    1 + (i * 7919) % subjects
}

pub fn map(erasure: Erasure, tenant: bool) -> String {
    let erase = if erasure == Erasure::Delete { "delete" } else { "mask" };
    let tenant = if tenant { "\n    customer_field: tenant" } else { "" };
    MAP.replace("{erase}", erase).replace("{tenant}", tenant)
}

pub struct W1 {
    /// For the server's secret and for connections by hand. The role owns this database and nothing else.
    pub url: String,
    pub subjects: u64,
    /// The server's first process.
    postmaster: u32,
    pool: Pool,
    admin: Pool,
}

/// The first column of the first row.
pub async fn number(pool: &Pool, sql: &str) -> Result<i64, Failure> {
    let mut tx = pool.begin_read().await?;
    Ok(tx.fetch_one(sql, Vec::new()).await?.ok_or("no row")?.i64(0)?)
}

async fn text(pool: &Pool, sql: &str) -> Result<String, Failure> {
    let mut tx = pool.begin_read().await?;
    Ok(tx.fetch_one(sql, Vec::new()).await?.ok_or("no row")?.text(0)?)
}

/// Seeding and looking may take as long as they take.
pub fn patient(url: String) -> ConnectOptions {
    ConnectOptions { statement_timeout: Duration::from_secs(600), ..ConnectOptions::new(url) }
}

/// As the server's superuser, in the database of another's URL.
pub fn as_admin(url: &str) -> Result<Pool, Failure> {
    let admin = test_server("QUITTANCE_TEST_POSTGRES_URL");
    let server = admin.rsplit_once('/').ok_or("the URL names no database")?.0;
    let database = url.rsplit_once('/').ok_or("the URL names no database")?.1;
    Ok(Pool::open(&patient(format!("{server}/{database}")))?)
}

impl W1 {
    pub async fn create(subjects: u64) -> Result<Self, Failure> {
        let url = postgres_database().await;
        let admin = as_admin(&url)?;
        let postmaster = parent(u32::try_from(number(&admin, "SELECT pg_backend_pid()::bigint").await?)?)?;
        let w1 = Self { pool: Pool::open(&patient(url.clone()))?, admin, postmaster, url, subjects };
        // What is written by hand must cost what it costs everywhere.
        for (setting, default) in [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")] {
            let found = text(&w1.admin, &format!("SELECT current_setting('{setting}')")).await?;
            if found != default {
                return Err(format!("PostgreSQL's {setting} is {found}: figures are only good with {default}").into());
            }
        }
        Ok(w1)
    }

    pub async fn machine(&self) -> Result<Machine, Failure> {
        let postgresql = text(&self.admin, "SELECT current_setting('server_version')").await?;
        Ok(Machine { cores: std::thread::available_parallelism()?.get(), postgresql })
    }

    pub const fn postmaster(&self) -> u32 {
        self.postmaster
    }

    /// Processor time of the whole PostgreSQL so far.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        cpu_of_family(self.postmaster)
    }

    /// Whole again: every part works on rows that nobody has erased, in fresh pages, with a checkpoint just done.
    pub async fn seed(&self) -> Result<(), Failure> {
        self.pool.run_script(SCHEMA).await?;
        self.pool.run_script(&SEED.replace("{n}", &self.subjects.to_string())).await?;
        self.settle().await
    }

    /// As [`W1::seed`], of so many tenants.
    pub async fn seed_tenants(&self, tenants: u64) -> Result<(), Failure> {
        self.seed().await?;
        self.pool.run_script(&TENANTS.replace("{tenants}", &tenants.to_string())).await?;
        self.pool.run_script("VACUUM FULL").await?;
        self.settle().await
    }

    /// Until it is seeded again.
    pub async fn slow_down(&self, ms: u32) -> Result<(), Failure> {
        Ok(self.pool.run_script(&SLOW.replace("{ms}", &ms.to_string())).await?)
    }

    async fn settle(&self) -> Result<(), Failure> {
        self.pool.run_script("VACUUM ANALYZE").await?;
        Ok(self.admin.run_script("CHECKPOINT").await?)
    }

    /// Fails unless exactly so many subjects' data is gone, and nothing else is.
    pub async fn verify(&self, erased: u64, erasure: Erasure) -> Result<(), Failure> {
        const ROWS_OF_ONE: u64 = 14;
        let rows = u64::try_from(number(&self.pool, ROWS).await?)?;
        let filled = u64::try_from(number(&self.pool, LEFT).await?)?;
        let whole = (self.subjects - erased) * ROWS_OF_ONE;
        let expected = if erasure == Erasure::Delete { whole } else { self.subjects * ROWS_OF_ONE };
        if (rows, filled) == (expected, whole) {
            return Ok(());
        }
        Err(format!("{rows} rows, {filled} of them filled; {expected} and {whole} were expected").into())
    }

    pub async fn close(&self) {
        self.pool.close().await;
        self.admin.close().await;
    }
}
