//! The application databases, row by row: what they hold, and which columns name a row.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    CheckError,
    manifest::Apps,
    rows::{As, Database, Texts},
};

/// One table, as `chaos` makes it.
pub struct Table {
    pub system: &'static str,
    pub name: &'static str,
    /// Those of the key first.
    pub columns: &'static [&'static str],
    pub key: usize,
    /// Column and category of what is personal.
    pub fields: &'static [(&'static str, &'static str)],
}

pub const TABLES: [Table; 6] = [
    Table {
        system: "crm",
        name: "customer",
        columns: &["id", "tenant", "email", "user_id", "name", "phone", "remark", "restricted"],
        key: 1,
        fields: &[
            ("email", "email"),
            ("user_id", "user_name"),
            ("name", "first_name"),
            ("phone", "phone"),
            ("remark", "message"),
        ],
    },
    Table {
        system: "crm",
        name: "address",
        columns: &["customer_id", "kind", "street", "city", "restricted"],
        key: 2,
        fields: &[("street", "address"), ("city", "city")],
    },
    Table {
        system: "crm",
        name: "message",
        columns: &["id", "tenant", "sender_email", "body", "restricted"],
        key: 1,
        fields: &[("sender_email", "email"), ("body", "message")],
    },
    Table {
        system: "shop",
        name: "account",
        columns: &["user_id", "tenant", "nickname", "restricted"],
        key: 1,
        fields: &[("user_id", "user_name"), ("nickname", "display_name")],
    },
    Table {
        system: "shop",
        name: "orders",
        columns: &["id", "user_id", "note", "restricted"],
        key: 1,
        fields: &[("note", "message")],
    },
    Table {
        system: "shop",
        name: "order_line",
        columns: &["order_id", "line", "engraving", "restricted"],
        key: 2,
        fields: &[("engraving", "message")],
    },
];

/// The worker's files: path below its root, and SHA-256.
pub const FILES: Table = Table { system: "print", name: "files", columns: &["path", "sha256"], key: 1, fields: &[] };

impl Table {
    /// Where a column stands; every caller names one of its own.
    pub fn at(&self, column: &str) -> usize {
        self.columns.iter().position(|c| *c == column).unwrap_or(usize::MAX)
    }
}

/// All rows of all tables.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub tables: BTreeMap<String, Vec<Texts>>,
}

impl Snapshot {
    pub async fn take(apps: &Apps) -> Result<Self, CheckError> {
        let mut tables = BTreeMap::new();
        for (system, url) in [("crm", &apps.crm), ("shop", &apps.shop)] {
            let mut database = Database::open(url).await?;
            for table in TABLES.iter().filter(|table| table.system == system) {
                let columns: Vec<(&str, As)> = table.columns.iter().map(|c| (*c, As::Plain)).collect();
                tables.insert(table.name.to_owned(), database.all(table.name, &columns).await?);
            }
        }
        let mut files = Vec::new();
        read_files(&apps.files, &apps.files, &mut files)?;
        tables.insert(FILES.name.to_owned(), files);
        Ok(Self { tables })
    }

    pub fn read(path: &Path) -> Result<Self, CheckError> {
        let text = fs::read(path).map_err(|e| CheckError::File(path.to_owned(), e))?;
        serde_json::from_slice(&text).map_err(|e| CheckError::Form(path.to_owned(), e))
    }

    pub fn write(&self, path: &Path) -> Result<(), CheckError> {
        let text = serde_json::to_vec(self).map_err(|e| CheckError::Form(path.to_owned(), e))?;
        fs::write(path, text).map_err(|e| CheckError::File(path.to_owned(), e))
    }
}

fn read_files(root: &Path, folder: &Path, rows: &mut Vec<Texts>) -> Result<(), CheckError> {
    let trouble = |path: &Path| {
        let path = path.to_owned();
        |e: io::Error| CheckError::File(path, e)
    };
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(trouble(folder))? {
        entries.push(entry.map_err(trouble(folder))?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read_files(root, &path, rows)?;
        } else {
            let content = fs::read(&path).map_err(trouble(&path))?;
            let below = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            rows.push(vec![Some(below), Some(hex::encode(Sha256::digest(content)))]);
        }
    }
    Ok(())
}
