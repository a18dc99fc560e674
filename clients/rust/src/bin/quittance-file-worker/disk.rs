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

/// Puts an empty file where there is none. One that is there stays: the folder is never without its mark meanwhile.
pub fn mark(file: &Path) -> io::Result<()> {
    match create(file, b"") {
        // Its writer may have died before it was on disk.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => file.parent().map_or(Ok(()), sync_folder),
        done => done,
    }
}

/// Writes a file, and what an earlier attempt has left of it anew. In its place: a draft beside it would be one more of the subject's files to
/// whoever looks after a crash. A link that stands there is not followed.
pub fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    delete(file)?;
    create(file, content)
}

fn create(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut out = File::create_new(file)?;
    out.write_all(content)?;
    out.sync_all()?;
    file.parent().map_or(Ok(()), sync_folder)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        time::{Duration, Instant},
    };

    use super::*;

    /// `make chaos`, seed 3866181568: a worker was killed between a draft and its name, and the next one counted the draft.
    #[test]
    fn whoever_looks_meanwhile_finds_no_file_that_is_not_meant_to_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let meant = BTreeSet::from(["mark", "statement"].map(str::to_owned));
        let mut seen = BTreeSet::new();
        // For as long as it takes to have looked often, and between all writes: who of the two runs when is not ours to say.
        let looked_enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !looked_enough.load(Relaxed) {
                    mark(&folder.path().join("mark")).unwrap();
                    write(&folder.path().join("statement"), b"not so").unwrap();
                    delete(&folder.path().join("mark")).unwrap();
                    delete(&folder.path().join("statement")).unwrap();
                }
            });
            let begun = Instant::now();
            let mut looks = 0;
            while (looks < 500 || !seen.is_superset(&meant)) && begun.elapsed() < Duration::from_secs(60) {
                // A file may go while it is read who is there.
                let names = fs::read_dir(folder.path()).unwrap().map_while(Result::ok).map(|entry| entry.file_name());
                seen.extend(names.map(|name| name.into_string().unwrap()));
                looks += 1;
            }
            looked_enough.store(true, Relaxed);
        });
        assert_eq!(seen, meant);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let [link, target] = ["link", "target"].map(|name| folder.path().join(name));
        fs::write(&target, "somebody else's").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&link, b"not so").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"somebody else's");
        assert_eq!(fs::read(&link).unwrap(), b"not so");
    }
}
