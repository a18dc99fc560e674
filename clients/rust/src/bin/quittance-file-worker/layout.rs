//! Where a subject's files lie, and which paths may be touched at all.
//!
//! `<root>/<customer key>/<kind>/<identifier>/`, as in `acme/email/anna%40example.com/`. Keys and identifiers come from outside: they are
//! percent-encoded so that none can be a path, and links are never followed.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use quittance_client::{
    api::{Identifier, IdentifierKind, LeasedTask},
    worker::BackendError,
};

/// In a subject's folder: processing is restricted. No data of the subject's.
pub const MARKER: &str = ".restricted";
/// Most file systems allow 255 bytes for a name; an encoded identifier may be longer and is then named by its digest.
const NAME_MAX: usize = 200;

/// The root folder.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// A file, by its path below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAt {
    pub path: String,
    pub size: u64,
}

/// A name for one folder: never empty, never hidden, never a path.
pub fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+') || (byte == b'.' && at > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(name, "%{byte:02X}");
        }
    }
    if name.is_empty() {
        return "%".to_owned();
    }
    if name.len() > NAME_MAX {
        return format!("~{}", hex(digest(&SHA256, text.as_bytes()).as_ref()));
    }
    name
}

/// What [`encode`] made a name of. `None` for a name of other people's making, which nothing is looked for under either.
fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty() && encode(&text) == name).then_some(text)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn kind_name(kind: IdentifierKind) -> Option<&'static str> {
    Some(match kind {
        IdentifierKind::Unspecified => return None,
        IdentifierKind::Email => "email",
        IdentifierKind::Phone => "phone",
        IdentifierKind::UserId => "user_id",
        IdentifierKind::DirectoryObjectId => "directory_object_id",
        IdentifierKind::CustomerKey => "customer_key",
    })
}

/// A subject's folder that gets another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub from: String,
    pub to: String,
}

impl Move {
    /// Where a path goes that lies in the folder, or is it.
    pub fn of(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&self.from)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", self.to))
    }
}

fn folder_of(customer: &str, identifier: &Identifier) -> Result<String, BackendError> {
    let kind = kind_name(identifier.kind())
        .ok_or_else(|| not_allowed("an identifier is of a kind that this worker does not know: update it"))?;
    if identifier.value.is_empty() {
        return Err(not_allowed("an identifier is empty"));
    }
    Ok(format!("{customer}/{kind}/{}", encode(&identifier.value)))
}

/// Trouble with the disk, without the path that would name the subject.
pub fn trouble(what: &str) -> impl FnOnce(io::Error) -> BackendError {
    move |error| BackendError::Retry(format!("{what}: {}", error.kind()))
}

fn not_allowed(what: &str) -> BackendError {
    BackendError::NeedsAttention(what.to_owned())
}

/// What is left out of a replay is not erased again: so a name that leads back to nobody fails it.
fn refuse_digests(names: &[String], what: &str) -> Result<(), BackendError> {
    if names.iter().any(|name| name.starts_with('~')) { Err(not_allowed(what)) } else { Ok(()) }
}

impl Layout {
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { root })
    }

    pub fn customer_folder(task: &LeasedTask) -> Result<String, BackendError> {
        if task.customer_key.is_empty() {
            return Err(not_allowed("the task names no customer key: set one for the customer at this system"));
        }
        Ok(encode(&task.customer_key))
    }

    /// The customers that have a folder, by their keys.
    pub fn customers(&self) -> Result<Vec<String>, BackendError> {
        let names = self.folders_in(&self.root)?;
        refuse_digests(
            &names,
            "a customer's folder is named by the digest of a long key, which cannot be said: look at it by hand",
        )?;
        Ok(names.iter().filter_map(|name| decode(name)).collect())
    }

    /// Whose folders there are: the identifiers of a kind that a customer's subjects have.
    pub fn held(&self, customer_key: &str, kind: IdentifierKind) -> Result<Vec<Identifier>, BackendError> {
        let Some(kind_name) = kind_name(kind) else { return Ok(Vec::new()) };
        let names = self.folders_in(&self.root.join(encode(customer_key)).join(kind_name))?;
        refuse_digests(
            &names,
            "a folder is named by the digest of a long identifier, which cannot be said: look at it by hand",
        )?;
        let held = |name: &String| Some(Identifier { kind: kind.into(), value: decode(name)? });
        Ok(names.iter().filter_map(held).collect())
    }

    /// Names of folders, links left out. None where the folder is not there.
    fn folders_in(&self, place: &Path) -> Result<Vec<String>, BackendError> {
        let entries = match fs::read_dir(place) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(trouble("a folder cannot be read")(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(trouble("a folder cannot be read"))?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            names.extend(entry.file_name().into_string().ok().filter(|_| is_folder));
        }
        Ok(names)
    }

    /// The folders that may hold the subject's files, one per identifier; whether they are there is another matter.
    pub fn subject_folders(task: &LeasedTask) -> Result<Vec<String>, BackendError> {
        let customer = Self::customer_folder(task)?;
        let mut folders = Vec::new();
        for identifier in &task.identifiers {
            let folder = folder_of(&customer, identifier)?;
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        if folders.is_empty() {
            // I5: without an identifier nothing was looked for, so nothing can be said.
            return Err(not_allowed("the task brings no identifier: nothing can be looked for"));
        }
        Ok(folders)
    }

    /// From which folder to which the subject's files go when an identifier changes.
    pub fn moves(task: &LeasedTask) -> Result<Vec<Move>, BackendError> {
        let customer = Self::customer_folder(task)?;
        let mut moves = Vec::new();
        for change in &task.identifier_changes {
            let (Some(old), Some(new)) = (&change.old_identifier, &change.new_identifier) else {
                return Err(not_allowed("a change of an identifier lacks a half: update the worker"));
            };
            moves.push(Move { from: folder_of(&customer, old)?, to: folder_of(&customer, new)? });
        }
        Ok(moves)
    }

    /// The place of a path below the root. It must lie in this customer's folder, and no folder on the way may be a link: match sets
    /// come back from outside.
    pub fn place(&self, customer: &str, path: &str) -> Result<PathBuf, BackendError> {
        let relative = Path::new(path);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.is_empty() || relative.components().next() != Some(Component::Normal(customer.as_ref())) {
            return Err(not_allowed("a stored path leads out of the customer's folder: look at the match set"));
        }
        let mut place = self.root.clone();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            place.push(part);
            match fs::symlink_metadata(&place) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => {
                    return Err(not_allowed(
                        "a link or a file stands where a folder is expected: nothing was touched behind it",
                    ));
                }
                // Not there is fine: then nothing below it is there either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(trouble("a folder cannot be looked at")(error)),
            }
        }
        Ok(self.root.join(relative))
    }

    /// Whether something with this name is there; a link counts, and is not followed.
    pub fn is_there(&self, customer: &str, path: &str) -> Result<bool, BackendError> {
        match fs::symlink_metadata(self.place(customer, path)?) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(trouble("a file cannot be looked at")(error)),
        }
    }

    /// All files in a subject's folder and below, by path, without the marker. Empty where there is no such folder.
    pub fn files_in(&self, customer: &str, folder: &str) -> Result<Vec<FileAt>, BackendError> {
        let mut files = Vec::new();
        let mut open = vec![folder.to_owned()];
        while let Some(folder_now) = open.pop() {
            let place = self.place(customer, &folder_now)?;
            match fs::symlink_metadata(&place) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(not_allowed("a link or a file stands where the subject's folder is expected")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(trouble("a folder cannot be looked at")(error)),
            }
            for entry in fs::read_dir(place).map_err(trouble("a folder cannot be read"))? {
                let entry = entry.map_err(trouble("a folder cannot be read"))?;
                let Ok(name) = entry.file_name().into_string() else {
                    return Err(not_allowed("a file's name is not UTF-8: rename it, then try again"));
                };
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    // Gone since the folder was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(trouble("a file cannot be looked at")(error)),
                };
                let path = format!("{folder_now}/{name}");
                if meta.is_dir() {
                    open.push(path);
                } else if !(name == MARKER && folder_now == folder) {
                    files.push(FileAt { path, size: meta.len() });
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_identifier_is_a_path() {
        for (text, name) in [
            ("anna@example.com", "anna%40example.com"),
            ("..", "%2E."),
            (".", "%2E"),
            ("../../etc", "%2E.%2F..%2Fetc"),
            ("", "%"),
            ("a/b", "a%2Fb"),
            ("a%2Fb", "a%252Fb"),
        ] {
            assert_eq!(encode(text), name);
        }
        let long = encode(&"/".repeat(256));
        assert!(long.len() < 100 && long.starts_with('~') && !long.contains('/'));
    }

    #[test]
    fn names_lead_back_to_whom_they_name() {
        for text in ["anna@example.com", "..", "a/b", "a%2Fb", "Åsa", "+31612345678"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
        for name in ["%", "", "%4", "anna@example.com", "%40%zz", "%ff"] {
            assert_eq!(decode(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_that_leads_back_to_nobody_fails_the_replay() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::open(root.path()).unwrap();
        fs::create_dir_all(root.path().join("acme/email/anna%40example.com")).unwrap();
        assert_eq!(layout.customers(), Ok(vec!["acme".to_owned()]));
        assert_eq!(layout.held("acme", IdentifierKind::Email).unwrap().len(), 1);
        let long = encode(&"k".repeat(256));
        fs::create_dir_all(root.path().join(format!("acme/email/{long}"))).unwrap();
        assert!(layout.held("acme", IdentifierKind::Email).is_err());
        fs::create_dir_all(root.path().join(long)).unwrap();
        assert!(layout.customers().is_err());
    }

    #[test]
    fn paths_out_of_the_customers_folder_are_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("acme/email/a")).unwrap();
        fs::create_dir_all(root.path().join("other")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.path().join("other"), root.path().join("acme/email/link")).unwrap();
        let layout = Layout::open(root.path()).unwrap();
        assert!(layout.place("acme", "acme/email/a/file").is_ok());
        for bad in ["", "/etc/passwd", "acme/../other/x", "other/email/a/x", "acme/./x/../../y", "acme/email/link/x"] {
            assert!(layout.place("acme", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn without_an_identifier_nothing_is_claimed() {
        let task = |identifiers| LeasedTask { customer_key: "acme".to_owned(), identifiers, ..LeasedTask::default() };
        assert!(Layout::subject_folders(&task(vec![])).is_err());
        let email = Identifier { kind: IdentifierKind::Email.into(), value: "a@b.nl".to_owned() };
        assert_eq!(
            Layout::subject_folders(&task(vec![email.clone(), email])),
            Ok(vec!["acme/email/a%40b.nl".to_owned()])
        );
    }
}
