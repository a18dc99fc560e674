//! Files that are on disk when it is said that they are: whole or not at all, or behind what was there.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// The old file or the new one, whatever happens; and on disk when it answers.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    File::open(folder)?.sync_all()
}

/// Behind what is there; on disk when it answers. A crash may leave a part of it.
pub(crate) fn extend(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().append(true).create(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if is_new { File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
}

/// One writer at a time in a folder, also among processes. `None`: another is at it.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let folder = File::open(folder)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}
