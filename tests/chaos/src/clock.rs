//! One process's clock, stepped by libfaketime. Its steady clock, by which it measures how long it waits, goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Failure;

/// Where with-servers.sh found the library.
const LIBRARY: &str = "QUITTANCE_TEST_FAKETIME";

#[derive(Clone)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// `None` where there is no library: clocks are then left alone.
    pub fn new(folder: &Path, name: &str) -> Result<Option<Self>, Failure> {
        let Some(library) = std::env::var_os(LIBRARY).map(PathBuf::from).filter(|path| path.is_file()) else {
            return Ok(None);
        };
        let clock = Self { library, offset: folder.join(format!("{name}.clock")) };
        clock.step(0)?;
        Ok(Some(clock))
    }

    /// It is so many seconds off from now on, or from a second later.
    pub fn step(&self, by: i64) -> Result<(), Failure> {
        // Never half a file: it is read at any moment.
        let next = self.offset.with_extension("next");
        fs::write(&next, format!("{by:+}\n"))?;
        Ok(fs::rename(next, &self.offset)?)
    }

    pub fn give(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}
