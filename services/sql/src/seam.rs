//! Where a test stands between a piece of work and its databases: it chooses what comes next, breaks it, or bends a statement, and
//! everything above and below is what runs in production (`tests/simulation`).
//!
//! Nothing that is configured can set it: it holds for the future that is handed to [`through`], and for no other. Without one, asking
//! for it is a look at a thread's own variable.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;

use crate::SqlError;

/// What becomes of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Commit,
    /// The transaction is rolled back, and its caller told that it was committed: a lie, to see who finds out.
    Pretend,
}

/// Each call is made right before what it is named after, and what it waits for holds that up. An error is what the caller gets in its
/// place; the transaction is then rolled back.
#[async_trait]
pub trait Seam: Send + Sync {
    async fn begin(&self) -> Result<(), SqlError>;

    /// Gives what is sent.
    async fn statement<'a>(&self, sql: &'a str) -> Result<Cow<'a, str>, SqlError>;

    async fn commit(&self) -> Result<Ending, SqlError>;

    /// It is durable by now: an error is a connection that broke before the answer came.
    async fn committed(&self) -> Result<(), SqlError>;
}

tokio::task_local! {
    static SEAM: Arc<dyn Seam>;
}

/// Does a piece of work whose transactions all go through the seam.
pub async fn through<T>(seam: Arc<dyn Seam>, work: impl Future<Output = T>) -> T {
    SEAM.scope(seam, work).await
}

fn present() -> Option<Arc<dyn Seam>> {
    SEAM.try_with(Arc::clone).ok()
}

pub(crate) async fn begin() -> Result<(), SqlError> {
    match present() {
        Some(seam) => seam.begin().await,
        None => Ok(()),
    }
}

pub(crate) async fn statement(sql: &str) -> Result<Cow<'_, str>, SqlError> {
    match present() {
        Some(seam) => seam.statement(sql).await,
        None => Ok(Cow::Borrowed(sql)),
    }
}

pub(crate) async fn commit() -> Result<Ending, SqlError> {
    match present() {
        Some(seam) => seam.commit().await,
        None => Ok(Ending::Commit),
    }
}

pub(crate) async fn committed() -> Result<(), SqlError> {
    match present() {
        Some(seam) => seam.committed().await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{ConnectOptions, Pool, SqlErrorKind};

    /// Notes what it sees, and does as it is told at the commit.
    #[derive(Default)]
    struct Noting {
        seen: Mutex<Vec<String>>,
        pretends: bool,
        breaks_after: bool,
    }

    impl Noting {
        fn note(&self, what: &str) {
            self.seen.lock().unwrap().push(what.to_owned());
        }
    }

    #[async_trait]
    impl Seam for Noting {
        async fn begin(&self) -> Result<(), SqlError> {
            self.note("begin");
            Ok(())
        }

        async fn statement<'a>(&self, sql: &'a str) -> Result<Cow<'a, str>, SqlError> {
            self.note(sql);
            Ok(Cow::Owned(sql.replace("(1)", "(2)")))
        }

        async fn commit(&self) -> Result<Ending, SqlError> {
            self.note("commit");
            Ok(if self.pretends { Ending::Pretend } else { Ending::Commit })
        }

        async fn committed(&self) -> Result<(), SqlError> {
            self.note("committed");
            if self.breaks_after { Err(SqlError::plain(SqlErrorKind::Unavailable, "IO")) } else { Ok(()) }
        }
    }

    async fn insert(pool: &Pool) -> Result<(), SqlError> {
        let mut tx = pool.begin().await?;
        tx.execute("INSERT INTO t VALUES (1)", vec![]).await?;
        tx.commit().await
    }

    async fn rows(pool: &Pool) -> Vec<i64> {
        let mut tx = pool.begin_read().await.unwrap();
        tx.fetch("SELECT n FROM t", vec![]).await.unwrap().iter().map(|row| row.i64(0).unwrap()).collect()
    }

    #[tokio::test]
    async fn work_goes_through_its_seam_and_other_work_does_not() {
        let options = ConnectOptions { connections_max: 1, ..ConnectOptions::new("sqlite::memory:") };
        let pool = Pool::open(&options).unwrap();
        pool.run_script("CREATE TABLE t (n INTEGER)").await.unwrap();

        let seam = Arc::new(Noting::default());
        through(seam.clone(), insert(&pool)).await.unwrap();
        assert_eq!(*seam.seen.lock().unwrap(), ["begin", "INSERT INTO t VALUES (1)", "commit", "committed"]);
        assert_eq!(rows(&pool).await, [2], "the bent statement is what was sent");
        insert(&pool).await.unwrap();
        assert_eq!(rows(&pool).await, [2, 1]);

        through(Arc::new(Noting { pretends: true, ..Noting::default() }), insert(&pool)).await.unwrap();
        assert_eq!(rows(&pool).await, [2, 1], "what was only pretended is not there");
        let broken = Noting { breaks_after: true, ..Noting::default() };
        through(Arc::new(broken), insert(&pool)).await.unwrap_err();
        assert_eq!(rows(&pool).await, [2, 1, 2], "it was done before the answer was lost");
    }
}
