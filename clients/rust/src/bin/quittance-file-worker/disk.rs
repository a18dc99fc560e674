//! Changes on disk that last: a file that is gone, or there, must stay so after the power fails, or the confirmation would lie.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// A folder's entries are on disk only once the folder itself is synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gone already is as good: an earlier attempt may have been here.
pub fn delete(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        done => done,
    }
}

/// Gives a file another place, in one step.
pub fn rename(file: &Path, to: &Path) -> io::Result<()> {
    let (Some(from_folder), Some(to_folder)) = (file.parent(), to.parent()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(to_folder)?;
    fs::rename(file, to)?;
    // First where it is now: after a power failure it may be in both places, never in none.
    for folder in to_folder.ancestors().take(3) {
        sync_folder(folder)?;
    }
    sync_folder(from_folder)
}

/// Deletes a folder and the folders below it as far as they are empty, and syncs the parent.
pub fn delete_empty_folders(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // What stays, for a file came meanwhile, must be on disk as it is now too.
    sync_folder(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            delete_empty_folders(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {}
        done => done?,
    }
    match folder.parent() {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// Writes a whole file or none.
pub fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|n| n.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let draft = folder.join(format!(".{name}.draft"));
    let mut out = File::create(&draft)?;
    out.write_all(content)?;
    out.sync_all()?;
    drop(out);
    fs::rename(&draft, file)?;
    sync_folder(folder)
}
