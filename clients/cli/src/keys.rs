//! Public keys that the command line names: as text, or by a file that holds them.

use std::path::Path;

use quittance_verify::VerifierKey;

use crate::{failure::Failure, files};

/// More than a log has in a lifetime.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Each argument is a verifier key, or a file with one on every line.
pub fn read(arguments: &[String]) -> Result<Vec<VerifierKey>, Failure> {
    let mut keys = Vec::new();
    for argument in arguments {
        match argument.parse() {
            Ok(key) => keys.push(key),
            // No file is needed to see that a mistyped key is one.
            Err(fault) if argument.contains('+') && !Path::new(argument).exists() => {
                return Err(Failure::Usage(format!("the key {argument}: {fault}")));
            }
            Err(_) => keys.extend(of_file(Path::new(argument))?),
        }
    }
    Ok(keys)
}

fn of_file(path: &Path) -> Result<Vec<VerifierKey>, Failure> {
    let wrong = |fault: &dyn std::fmt::Display| Failure::Usage(format!("{}: {fault}", path.display()));
    let text = String::from_utf8(files::bytes(path, FILE_BYTES_MAX)?).map_err(|_| wrong(&"is not text"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Vec<VerifierKey> = lines.map(str::parse).collect::<Result<_, _>>().map_err(|fault| wrong(&fault))?;
    if keys.is_empty() { Err(wrong(&"holds no key")) } else { Ok(keys) }
}
