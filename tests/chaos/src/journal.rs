//! The journal of a run: what stands in it as acknowledged is on disk before anybody goes on.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use quittance_chaos_check::journal::{Event, Line};

pub struct Journal(Arc<Mutex<File>>);

pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Journal {
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(File::create(path)?))))
    }

    /// A disk may take its time: nobody else waits for it.
    pub async fn write(&self, events: Vec<Event>) -> io::Result<()> {
        let mut lines = Vec::new();
        for event in events {
            serde_json::to_writer(&mut lines, &Line { at_us: now_us(), event })?;
            lines.push(b'\n');
        }
        let file = self.0.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(&lines)?;
            file.sync_data()
        });
        written.await.map_err(io::Error::other)?
    }
}
