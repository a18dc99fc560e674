//! Several statements in one round trip, on the engine where round trips cost.
//!
//! A statement that needs nothing of another's result travels with it. Each is written for itself, so that the other engines run them one
//! after the other, from the same text.

use std::fmt::Write as _;

use crate::{Engine, Row, Rows, SqlError, Tx, Val, params::rewrite};

/// One of the statements, with what it takes.
#[derive(Debug)]
pub struct Part {
    sql: String,
    args: Vec<Val>,
    /// What stands in the place of `{rows}`. Without rows in it the statement has nothing to do.
    rows: Option<Rows>,
}

impl Part {
    pub fn new(sql: impl Into<String>, args: Vec<Val>, rows: Rows) -> Self {
        Self { sql: sql.into(), args, rows: Some(rows) }
    }

    /// Without a batch.
    pub fn plain(sql: impl Into<String>, args: Vec<Val>) -> Self {
        Self { sql: sql.into(), args, rows: None }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.as_ref().is_some_and(Rows::is_empty)
    }

    fn bind(self, engine: Engine) -> (String, Vec<Val>) {
        let mut args = self.args;
        match self.rows {
            Some(rows) => (rows.bind(engine, &self.sql, &mut args), args),
            None => (self.sql, args),
        }
    }

    /// Its text, with its arguments behind those of the parts before it.
    fn append(self, all: &mut Vec<Val>) -> String {
        let before = all.len();
        let sql = rewrite(&self.sql, |text, number| {
            // Writing to a String cannot fail.
            let _ = write!(text, "${}", before + number);
        });
        all.extend(self.args);
        match self.rows {
            Some(rows) => rows.bind(Engine::Postgres, &sql, all),
            None => sql,
        }
    }
}

/// One statement of several that change rows; `answer`: one of them that returns some.
fn as_one(answer: Option<Part>, beside: Vec<Part>) -> (String, Vec<Val>) {
    let mut args = Vec::new();
    let select = if answer.is_some() { "SELECT * FROM w0" } else { "SELECT 1 WHERE false" };
    let mut text = String::from("WITH ");
    for (n, part) in answer.into_iter().chain(beside).enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}w{n} AS ({})", part.append(&mut args));
    }
    let _ = write!(text, " {select}");
    (text, args)
}

fn union(parts: Vec<Part>) -> (String, Vec<Val>) {
    let mut args = Vec::new();
    let mut text = String::new();
    for part in parts {
        let union = if text.is_empty() { "" } else { " UNION ALL " };
        let _ = write!(text, "{union}({})", part.append(&mut args));
    }
    (text, args)
}

impl Tx {
    /// Runs statements that change rows. On PostgreSQL they are one statement: none sees what another does, and no two may change one row.
    pub async fn execute_together(&mut self, parts: Vec<Part>) -> Result<(), SqlError> {
        let mut parts: Vec<Part> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        if self.engine() == Engine::Postgres && parts.len() > 1 {
            parts.iter().for_each(|part| Self::tell(&part.sql));
            let (sql, args) = as_one(None, parts);
            self.send(&sql, args).await?;
            return Ok(());
        }
        for part in parts.drain(..) {
            let (sql, args) = part.bind(self.engine());
            self.execute(&sql, args).await?;
        }
        Ok(())
    }

    /// As [`Tx::execute_together`], and gives what `answer` returns.
    pub async fn fetch_with(&mut self, answer: Part, beside: Vec<Part>) -> Result<Vec<Row>, SqlError> {
        let beside: Vec<Part> = beside.into_iter().filter(|part| !part.is_empty()).collect();
        if answer.is_empty() {
            self.execute_together(beside).await?;
            return Ok(Vec::new());
        }
        if self.engine() == Engine::Postgres && !beside.is_empty() {
            beside.iter().chain([&answer]).for_each(|part| Self::tell(&part.sql));
            let (sql, args) = as_one(Some(answer), beside);
            return self.send_for_rows(&sql, args).await;
        }
        self.execute_together(beside).await?;
        let (sql, args) = answer.bind(self.engine());
        self.fetch(&sql, args).await
    }

    /// Asks for rows of one shape, and gives them all: a column says whose they are. On PostgreSQL it is one statement, in which a part without rows stays, so that
    /// the text, and the plan with it, is the same for every batch.
    pub async fn fetch_together(&mut self, parts: Vec<Part>) -> Result<Vec<Row>, SqlError> {
        if parts.iter().all(Part::is_empty) {
            return Ok(Vec::new());
        }
        if self.engine() == Engine::Postgres && parts.len() > 1 {
            parts.iter().for_each(|part| Self::tell(&part.sql));
            let (sql, args) = union(parts);
            return self.send_for_rows(&sql, args).await;
        }
        let mut found = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (sql, args) = part.bind(self.engine());
            found.extend(self.fetch(&sql, args).await?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Column, ConnectOptions, Pool};

    fn parts() -> Vec<Part> {
        let rows = || Rows::new(vec![Column::i64s([1, 2])]);
        vec![
            Part::new("WITH v(n) AS ({rows}) INSERT INTO a (c, n) SELECT $1, n FROM v", vec!["x$1".into()], rows()),
            Part::plain("UPDATE b SET c = $2 WHERE d = $1 AND e = '$1'", vec![1.into(), 2.into()]),
        ]
    }

    #[test]
    fn each_keeps_its_own_arguments() {
        let (sql, args) = as_one(None, parts());
        assert_eq!(
            sql,
            "WITH w0 AS (WITH v(n) AS (SELECT unnest($2::bigint[])) INSERT INTO a (c, n) SELECT $1, n FROM v), \
             w1 AS (UPDATE b SET c = $4 WHERE d = $3 AND e = '$1') SELECT 1 WHERE false"
        );
        let batch = Val::I64Array(vec![Some(1), Some(2)]);
        assert!(args == vec![Val::from("x$1"), batch, Val::from(1), Val::from(2)]);
    }

    #[tokio::test]
    async fn elsewhere_they_run_one_after_the_other() {
        let pool = Pool::open(&ConnectOptions::new("sqlite::memory:")).unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute_script("CREATE TABLE a (c, n); CREATE TABLE b (c, d, e); INSERT INTO b VALUES (0, 1, '$1')")
            .await
            .unwrap();
        let nothing = Part::new("WITH v(n) AS ({rows}) INSERT INTO a SELECT n FROM v", vec![], Rows::default());
        tx.execute_together(parts().into_iter().chain([nothing]).collect()).await.unwrap();
        let answer = Part::plain("DELETE FROM b RETURNING c", vec![]);
        let answered = tx.fetch_with(answer, parts()).await.unwrap();
        assert_eq!(answered[0].i64(0).unwrap(), 2);
        let asked = ["SELECT n FROM a WHERE n < $1", "SELECT count(*) FROM b WHERE 0 < $1"];
        let found = tx.fetch_together(asked.map(|sql| Part::plain(sql, vec![2.into()])).into()).await.unwrap();
        assert_eq!(found.iter().map(|row| row.i64(0).unwrap()).collect::<Vec<_>>(), [1, 1, 0]);
    }
}
