//! What the database does when asked by hand: prepared statements one subject a transaction, and a thousand subjects at once.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

use crate::{
    Failure, Sizes,
    measure::{median, per_s},
    say,
    w1::{Erasure, W1, email, scattered},
};

/// Subjects of one set-based transaction.
const SET: u64 = 1_000;

/// One subject a transaction, one client, every statement prepared once.
pub async fn single(w1: &W1, sizes: &Sizes) -> Result<f64, Failure> {
    let mut rates = Vec::new();
    for _ in 0..sizes.rounds {
        w1.seed().await?;
        let mut connection = PgConnection::connect(&w1.url).await?;
        for i in 0..sizes.warm_up / 10 {
            erase_one(&mut connection, &email(scattered(i, w1.subjects))).await?;
        }
        let begun = Instant::now();
        for i in sizes.warm_up / 10..sizes.warm_up / 10 + sizes.single {
            erase_one(&mut connection, &email(scattered(i, w1.subjects))).await?;
        }
        rates.push(per_s(sizes.single, begun.elapsed()));
        connection.close().await?;
        w1.verify(sizes.warm_up / 10 + sizes.single, Erasure::Mask).await?;
    }
    Ok(median(rates))
}

async fn erase_one(connection: &mut PgConnection, email: &str) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    let id: i32 = sqlx::query_scalar("SELECT id FROM customer WHERE email = $1 FOR UPDATE")
        .bind(email)
        .fetch_one(&mut *tx)
        .await?;
    for sql in [
        "UPDATE payment p SET card_name = NULL FROM orders o WHERE o.id = p.order_id AND o.customer_id = $1",
        "UPDATE orders SET note = NULL WHERE customer_id = $1",
        "UPDATE address SET street = NULL, city = NULL, zip = NULL WHERE customer_id = $1",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *tx).await?;
    }
    let messages = "UPDATE message SET sender_email = NULL, body = NULL WHERE sender_email = $1";
    sqlx::query(messages).bind(email).execute(&mut *tx).await?;
    let customer = "UPDATE customer SET email = NULL, name = NULL, phone = NULL, city = NULL WHERE id = $1";
    sqlx::query(customer).bind(id).execute(&mut *tx).await?;
    tx.commit().await
}

const MASK_SET: &str = "BEGIN;
UPDATE {t} t SET cid = c.id FROM customer c WHERE c.email = t.email;
UPDATE payment p SET card_name = NULL FROM orders o, {t} t WHERE o.id = p.order_id AND o.customer_id = t.cid;
UPDATE orders o SET note = NULL FROM {t} t WHERE o.customer_id = t.cid;
UPDATE address a SET street = NULL, city = NULL, zip = NULL FROM {t} t WHERE a.customer_id = t.cid;
UPDATE message m SET sender_email = NULL, body = NULL FROM {t} t WHERE m.sender_email = t.email;
UPDATE customer c SET email = NULL, name = NULL, phone = NULL, city = NULL FROM {t} t WHERE c.id = t.cid;
COMMIT";

/// Children first.
const DELETE_SET: &str = "BEGIN;
UPDATE {t} t SET cid = c.id FROM customer c WHERE c.email = t.email;
DELETE FROM payment p USING orders o, {t} t WHERE o.id = p.order_id AND o.customer_id = t.cid;
DELETE FROM orders o USING {t} t WHERE o.customer_id = t.cid;
DELETE FROM address a USING {t} t WHERE a.customer_id = t.cid;
DELETE FROM message m USING {t} t WHERE m.sender_email = t.email;
DELETE FROM customer c USING {t} t WHERE c.id = t.cid;
COMMIT";

/// Who they are is in the session's own tables beforehand: that is not counted.
struct Clerk {
    connection: PgConnection,
    sets: Vec<String>,
}

impl Clerk {
    async fn new(w1: &W1, numbers: impl Iterator<Item = u64>) -> Result<Self, Failure> {
        let mut clerk = Self { connection: PgConnection::connect(&w1.url).await?, sets: Vec::new() };
        for number in numbers {
            let table = format!("t{number}");
            let (subjects, from) = (w1.subjects, number * SET);
            let fill = format!(
                "CREATE TEMP TABLE {table} (email text PRIMARY KEY, cid integer);
                 INSERT INTO {table} (email) SELECT 'c' || (1 + (g * 7919) % {subjects}) || '@example.com'
                   FROM generate_series({from}, {from} + {SET} - 1) g;
                 ANALYZE {table}"
            );
            clerk.connection.execute(sqlx::raw_sql(AssertSqlSafe(fill))).await?;
            clerk.sets.push(table);
        }
        Ok(clerk)
    }

    async fn work(mut self, statements: &str) -> Result<(), sqlx::Error> {
        for table in &self.sets {
            let script = statements.replace("{t}", table);
            self.connection.execute(sqlx::raw_sql(AssertSqlSafe(script))).await?;
        }
        self.connection.close().await
    }
}

/// What it came to.
pub struct Rate {
    pub per_s: f64,
    /// PostgreSQL's processor time a subject.
    pub postgresql_ms: f64,
}

/// All subjects, a thousand a transaction: the better of one and two clients.
pub async fn set_based(w1: &W1, sizes: &Sizes, erasure: Erasure) -> Result<Rate, Failure> {
    let mut best = Rate { per_s: f64::MIN, postgresql_ms: f64::NAN };
    for clients in [1, 2] {
        let (mut rates, mut ms) = (Vec::new(), Vec::new());
        for _ in 0..sizes.rounds {
            let (time, cpu) = set_round(w1, clients, erasure).await?;
            rates.push(per_s(w1.subjects, time));
            ms.push(1000.0 / per_s(w1.subjects, cpu));
        }
        let rate = Rate { per_s: median(rates), postgresql_ms: median(ms) };
        say(&format!(
            "  {clients} client(s): {:.0} subjects/s, CPU a subject {:.2} ms",
            rate.per_s, rate.postgresql_ms
        ));
        if rate.per_s > best.per_s {
            best = rate;
        }
    }
    Ok(best)
}

/// Gives the time on the clock and PostgreSQL's processor time.
async fn set_round(w1: &W1, clients: u64, erasure: Erasure) -> Result<(Duration, Duration), Failure> {
    w1.seed().await?;
    let statements = if erasure == Erasure::Delete { DELETE_SET } else { MASK_SET };
    let mut clerks = Vec::new();
    for client in 0..clients {
        clerks.push(Clerk::new(w1, (0..w1.subjects / SET).filter(|set| set % clients == client)).await?);
    }
    let (cpu, begun) = (w1.cpu()?, Instant::now());
    let mut at_work: JoinSet<_> = clerks.into_iter().map(|clerk| clerk.work(statements)).collect();
    while let Some(done) = at_work.join_next().await {
        done??;
    }
    let (time, cpu) = (begun.elapsed(), w1.cpu()? - cpu);
    w1.verify(w1.subjects, erasure).await?;
    Ok((time, cpu))
}
