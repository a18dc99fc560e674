//! The store's seam (`quittance_sql::Seam`), as an actor has it: it parks before a transaction, breaks what the seed says, and bends what a
//! planted fault wants bent.

use std::{
    borrow::Cow,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use quittance_sql::{Ending, Seam, SqlError, SqlErrorKind};

use crate::{
    plan::{Fault, Moment},
    planted::{Bending, Planted},
    snapshot::Written,
    world::{ReplicaId, World},
};

pub struct ActorSeam {
    world: Arc<World>,
    replica: ReplicaId,
    planted: Option<Planted>,
    bending: Mutex<Bending>,
    /// By what it has sent and not committed yet; by what it rolled back, too.
    written: Mutex<Written>,
}

impl ActorSeam {
    pub fn new(world: Arc<World>, replica: ReplicaId, planted: Option<Planted>) -> Arc<Self> {
        Arc::new(Self { world, replica, planted, bending: Mutex::default(), written: Mutex::default() })
    }

    async fn befall(&self, moment: Moment) -> Result<(), SqlError> {
        match self.world.moment(moment) {
            None => Ok(()),
            Some(Fault::Break) => Err(error(SqlErrorKind::Unavailable, "IO")),
            Some(Fault::Conflict) => Err(error(SqlErrorKind::Conflict, "5")),
            Some(Fault::Crash) => {
                self.world.crash(self.replica);
                pending().await
            }
            // In the middle of a transaction nobody stands still: on one writer that would be a pause of everybody's.
            Some(Fault::Pause { seconds }) if moment == Moment::Begin => {
                self.world.pause(self.replica, Duration::from_secs(seconds.into()));
                self.world.park("the end of a pause", self.world.now()).await;
                Ok(())
            }
            Some(Fault::Pause { .. }) => Ok(()),
        }
    }

    fn bend<T>(&self, bend: impl FnOnce(Planted, &mut Bending) -> T) -> Option<T> {
        let planted = self.planted?;
        Some(bend(planted, &mut self.bending.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// As much of a statement as tells it from the others.
const SHOWN: usize = 72;

fn error(kind: SqlErrorKind, code: &str) -> SqlError {
    SqlError { kind, code: code.to_owned(), table: String::new(), constraint: String::new() }
}

#[async_trait]
impl Seam for ActorSeam {
    async fn begin(&self) -> Result<(), SqlError> {
        self.world.park("a transaction", self.world.now()).await;
        self.bend(|_, bending| *bending = Bending::default());
        self.befall(Moment::Begin).await
    }

    async fn statement<'a>(&self, sql: &'a str) -> Result<Cow<'a, str>, SqlError> {
        self.befall(Moment::Statement).await?;
        self.world.tell(sql.get(..SHOWN).unwrap_or(sql));
        let bent = self.bend(|planted, bending| planted.bend(sql, bending)).flatten();
        let sent = bent.map_or(Cow::Borrowed(sql), Cow::Owned);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        *written = written.and(Written::by(&sent));
        Ok(sent)
    }

    async fn commit(&self) -> Result<Ending, SqlError> {
        self.befall(Moment::Commit).await?;
        Ok(self.bend(|planted, bending| planted.ending(bending)).unwrap_or(Ending::Commit))
    }

    async fn committed(&self) -> Result<(), SqlError> {
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        self.world.note_commit(written);
        self.befall(Moment::Committed).await
    }
}
