//! MySQL has no limit for a statement that changes rows, and learns that its client has gone away only when the statement is over: one that was
//! given up would go on, and keep its locks from whoever tries again.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _, mysql::MySqlConnectOptions};

use crate::{
    error::SqlError,
    pool::{Pool, Tx},
};

/// What it takes to reach the server and end a session, at most.
const END_MAX: Duration = Duration::from_secs(10);

/// A statement that has been running for so many seconds is not the first of somebody else's.
const OLD_S: i64 = 2;
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Held while a transaction is at work on a server that does not end its statements by itself: dropped before [`Leash::release`], it has the server
/// end the session. By default it holds none.
#[derive(Default)]
#[must_use = "a leash that is dropped ends the session"]
pub struct Leash {
    held: Option<(Arc<MySqlConnectOptions>, i64)>,
}

impl Pool {
    /// Asks the server which session this is. On other engines than MySQL there is nothing to hold.
    pub async fn leash(&self, tx: &mut Tx) -> Result<Leash, SqlError> {
        let Self::MySql(pool) = self else { return Ok(Leash::default()) };
        let row = tx.fetch_one("SELECT CAST(CONNECTION_ID() AS SIGNED)", Vec::new()).await?;
        let session = row.map(|row| row.i64(0)).transpose()?;
        Ok(Leash { held: session.map(|session| (pool.connect_options(), session)) })
    }
}

impl Leash {
    /// The work has come to its end, whichever it was.
    pub fn release(mut self) {
        self.held = None;
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let (Some((options, session)), Ok(runtime)) = (self.held.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        // By a connection of its own: those of the pool may all be waiting for just such a session.
        runtime.spawn(async move {
            let end = async {
                let mut connection = options.connect().await?;
                // Where the statement has come to its end by itself, the session is another's by now, whose statements are young.
                let looks = format!(
                    "SELECT CAST(TIME AS SIGNED) FROM information_schema.PROCESSLIST WHERE ID = {session} AND COMMAND IN ('Query', 'Execute')"
                );
                while let Some(row) = sqlx::query(AssertSqlSafe(looks.clone())).fetch_optional(&mut connection).await? {
                    if row.try_get::<i64, _>(0)? >= OLD_S {
                        connection.execute(AssertSqlSafe(format!("KILL {session}"))).await?;
                        break;
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                connection.close().await
            };
            match tokio::time::timeout(END_MAX, end).await {
                Ok(Ok(())) => tracing::info!(session, "what was given up is over at the server"),
                Ok(Err(error)) => {
                    let error = SqlError::from(error);
                    tracing::warn!(session, %error, "what was given up may go on at the server until it is done");
                }
                Err(_) => tracing::warn!(session, "what was given up may go on at the server until it is done"),
            }
        });
    }
}
