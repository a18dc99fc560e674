//! The published folder (C2SP tlog-tiles): where a tile lies, and its first bytes.

use std::{fs, path::Path};

pub const WIDTH: u64 = 256;

/// `level` as the path has it: `entries`, or a number.
fn path(level: &str, index: u64, width: u64) -> String {
    let mut groups = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        groups = format!("x{:03}/{groups}", rest % 1000);
        rest /= 1000;
    }
    let partial = if width < WIDTH { format!(".p/{width}") } else { String::new() };
    format!("tile/{level}/{groups}{partial}")
}

/// The bytes of a tile that has `width` elements in the tree, each of `bytes`. The full tile may stand for a partial one.
pub fn read(folder: &Path, level: &str, index: u64, width: u64, bytes: usize) -> Result<Vec<u8>, String> {
    let wanted = usize::try_from(width).unwrap_or(usize::MAX).saturating_mul(bytes);
    for width in [width, WIDTH] {
        let Ok(mut content) = fs::read(folder.join(path(level, index, width))) else { continue };
        if content.len() < wanted {
            return Err(format!("{} is too short", path(level, index, width)));
        }
        content.truncate(wanted);
        return Ok(content);
    }
    Err(format!("{} is not there", path(level, index, width)))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(path("0", 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path("entries", 0, 112), "tile/entries/000.p/112");
        assert_eq!(path("3", 1000, 256), "tile/3/x001/000");
    }
}
