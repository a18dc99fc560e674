//! A published log: below a URL, or in a folder of the same shape.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use quittance_ledger::{
    note::MAX_NOTE_BYTES,
    tile::{FULL_WIDTH, Tile, TileKind},
    tree::HASH_BYTES,
};

use crate::{FetchError, HttpClient, http::OK};

/// An entry of our logs with its length before it.
const BUNDLED_BYTES: usize = 2 + HASH_BYTES;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const NOT_FOUND: u16 = 404;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was asked for, and is not there. In a log that has it, that is damage.
    #[error("{0} is not there")]
    Missing(String),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{url} was answered with HTTP status {status}")]
    Status { url: String, status: u16 },
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, io::Error),
    #[error("{0} is no regular file")]
    NotAFile(PathBuf),
    #[error("{0} is longer than it is in this tree")]
    TooLong(PathBuf),
}

impl ReadError {
    /// Whether it was found to be wrong, and not only out of reach.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::NotAFile(_) | Self::TooLong(_) | Self::Fetch(FetchError::TooLong(_)))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NotALog {
    #[error("{0} is neither a folder nor a URL: give one like https://log.example/quittance")]
    Neither(String),
    #[error(transparent)]
    Http(#[from] FetchError),
}

#[derive(Clone, Debug)]
pub struct PublishedLog(Place);

#[derive(Clone, Debug)]
enum Place {
    Url { client: Box<HttpClient>, prefix: String },
    Folder(PathBuf),
}

impl PublishedLog {
    /// A URL, or else a folder.
    pub fn open(place: &str, ca_file: Option<&Path>) -> Result<Self, NotALog> {
        if place.starts_with("http://") || place.starts_with("https://") {
            let client = Box::new(HttpClient::new(ca_file, ANSWER_WITHIN)?);
            return Ok(Self(Place::Url { client, prefix: place.trim_end_matches('/').to_owned() }));
        }
        let folder = PathBuf::from(place);
        if folder.is_dir() { Ok(Self::folder(folder)) } else { Err(NotALog::Neither(place.to_owned())) }
    }

    pub const fn folder(folder: PathBuf) -> Self {
        Self(Place::Folder(folder))
    }

    pub async fn checkpoint(&self) -> Result<Vec<u8>, ReadError> {
        self.get("checkpoint", MAX_NOTE_BYTES).await
    }

    /// A tile as wide as it is asked for. Where a partial one is gone, the full one begins with it.
    pub async fn tile(&self, tile: Tile) -> Result<Vec<u8>, ReadError> {
        let each = if tile.kind() == TileKind::Entries { BUNDLED_BYTES } else { HASH_BYTES };
        let bytes = |tile: Tile| usize::from(tile.width()) * each;
        match self.get(&tile.to_string(), bytes(tile)).await {
            Err(ReadError::Missing(_)) if tile.width() < FULL_WIDTH => {
                let mut full = self.get(&tile.full().to_string(), bytes(tile.full())).await?;
                full.truncate(bytes(tile));
                Ok(full)
            }
            got => got,
        }
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Vec<u8>, ReadError> {
        match &self.0 {
            Place::Url { client, prefix } => {
                let url = format!("{prefix}/{path}");
                let answer = client.get(&url, limit).await?;
                match answer.status {
                    OK => Ok(answer.body),
                    NOT_FOUND => Err(ReadError::Missing(url)),
                    status => Err(ReadError::Status { url, status }),
                }
            }
            Place::Folder(folder) => read(folder.join(path), limit),
        }
    }
}

/// Whoever wrote the folder may mean us ill: what is no file could wait for ever, or have no end.
fn read(path: PathBuf, limit: usize) -> Result<Vec<u8>, ReadError> {
    let fault = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => ReadError::Missing(path.display().to_string()),
        _ => ReadError::File(path.clone(), e),
    };
    // Looked at first: to open a pipe is to wait for its writer.
    if !fs::metadata(&path).map_err(fault)?.is_file() {
        return Err(ReadError::NotAFile(path));
    }
    let mut bytes = Vec::new();
    // One more than allowed is enough to be refused.
    let read = File::open(&path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
    read.map_err(fault)?;
    if bytes.len() > limit { Err(ReadError::TooLong(path)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const LIMIT: usize = 100;

    fn folder_with(len: u64) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        File::create(&path).unwrap().set_len(len).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_longer_than_it_may_be_is_not_read_whole() {
        let (_folder, whole) = folder_with(LIMIT as u64);
        assert_eq!(read(whole, LIMIT).unwrap().len(), LIMIT);
        // Sparse: more than any memory holds.
        for len in [LIMIT as u64 + 1, 1 << 40] {
            let (_folder, long) = folder_with(len);
            let refused = read(long, LIMIT).unwrap_err();
            assert!(matches!(refused, ReadError::TooLong(_)) && refused.is_damage(), "{refused}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe, folder.path().to_owned(), PathBuf::from("/dev/zero")] {
            let refused = read(path, LIMIT).unwrap_err();
            assert!(matches!(refused, ReadError::NotAFile(_)) && refused.is_damage(), "{refused}");
        }
        assert!(matches!(read(folder.path().join("none"), LIMIT), Err(ReadError::Missing(_))));
    }
}
