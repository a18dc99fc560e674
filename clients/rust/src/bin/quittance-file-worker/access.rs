//! Art. 15: a record per file.

use std::{fs, fs::File, io, io::Read as _, path::Path};

use aws_lc_rs::digest::{Context, SHA256};
use quittance_client::api::{PackageRecord, RecordField};

use crate::layout::hex;

/// Longer texts are in the package by their digest only.
const TEXT_MAX: usize = 64 << 10;

fn field(name: &str, value: Option<String>) -> RecordField {
    RecordField { name: name.to_owned(), category: "file".to_owned(), value }
}

/// `None` where the file is gone by now. Read in pieces: a file may be larger than memory.
pub fn record(system: &str, path: &str, place: &Path) -> io::Result<Option<PackageRecord>> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let meta = match fs::symlink_metadata(place) {
        Ok(meta) => meta,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    // A link is told by its name alone: what it points at is not known to be the subject's.
    let (mut size, mut digest, mut text) = (meta.len(), None, None);
    if meta.is_file() {
        let mut file = match File::open(place) {
            Ok(file) => file,
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut context = Context::new(&SHA256);
        let mut head = Vec::new();
        let mut piece = vec![0; 64 << 10];
        size = 0;
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            context.update(&piece[..read]);
            size += read as u64;
            if head.len() <= TEXT_MAX {
                head.extend_from_slice(&piece[..read]);
            }
        }
        digest = Some(hex(context.finish().as_ref()));
        if head.len() <= TEXT_MAX {
            text = String::from_utf8(head).ok();
        }
    }
    // The folders above hold the identifier; the record names the file below them.
    let name = path.splitn(4, '/').nth(3).unwrap_or(path).to_owned();
    Ok(Some(PackageRecord {
        system: system.to_owned(),
        collection: "files".to_owned(),
        key: vec![name.clone()],
        fields: vec![
            field("name", Some(name)),
            field("size", Some(size.to_string())),
            field("sha256", digest),
            field("text", text),
        ],
        third_party: false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_in_the_record_up_to_a_size() {
        let folder = tempfile::tempdir().unwrap();
        let value = |content: &[u8], name: &str| {
            let place = folder.path().join("f");
            fs::write(&place, content).unwrap();
            let record = record("systems/s", "acme/email/x/sub/f", &place).unwrap().unwrap();
            assert_eq!(record.key, ["sub/f"]);
            record.fields.into_iter().find(|f| f.name == name).unwrap().value
        };
        assert_eq!(value(b"hello", "text").as_deref(), Some("hello"));
        assert_eq!(
            value(b"hello", "sha256").as_deref(),
            Some("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
        );
        assert_eq!(value(b"\xff\xfe", "text"), None);
        assert_eq!(value(&vec![b'a'; TEXT_MAX], "text").map(|t| t.len()), Some(TEXT_MAX));
        assert_eq!(value(&vec![b'a'; TEXT_MAX + 1], "text"), None);
        assert_eq!(value(&vec![b'a'; TEXT_MAX + 1], "size").as_deref(), Some("65537"));
        assert_eq!(record("systems/s", "acme/email/x/f", &folder.path().join("none")).unwrap(), None);
    }
}
