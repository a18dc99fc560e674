//! Files that the command line names.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// A file's text; `-` is standard input.
pub fn text(path: &Path) -> Result<String, Failure> {
    let read = if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    read.map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))
}

/// A YAML file (JSON is YAML, too).
pub fn yaml<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    parse_yaml(&text(path)?).map_err(|problem| Failure::Usage(format!("{}: {problem}", path.display())))
}

/// Errors tell the place and not the text: a request's file holds identifiers.
pub fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! {
        // `NO` is a country, and `on` a name.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// Lower-case hex digest of a file of any size.
pub fn sha256(path: &Path) -> Result<String, Failure> {
    let unreadable = |error| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk).map_err(unreadable)? {
            0 => break,
            read => context.update(&chunk[..read]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A path that a file names is meant from that file's own folder.
pub fn beside(file: &Path, named: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if file.as_os_str() != "-" => folder.join(named),
        _ => named.to_owned(),
    }
}
