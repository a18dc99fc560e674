//! Files that the command line names.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// A file's text; `-` is standard input.
pub fn text(path: &Path) -> Result<String, Failure> {
    let read = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    read.map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))
}

/// A file's bytes, if they are no more than `limit`; `-` is standard input.
pub fn bytes(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let source = if path.as_os_str() == "-" {
        Ok(Box::new(io::stdin()) as Box<dyn Read>)
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut bytes = Vec::new();
    // One more than allowed is enough to be refused.
    let read = source.and_then(|source| source.take(limit as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
    if bytes.len() > limit {
        return Err(Failure::Usage(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// A file that appears under its name only when it is whole, readable by its owner alone.
pub struct Draft {
    file: BufWriter<File>,
    draft: PathBuf,
    path: PathBuf,
}

fn unwritten(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::Other(format!("{path} cannot be written: {error}"))
}

impl Draft {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(".part");
        let draft = PathBuf::from(draft);
        let mut options = OpenOptions::new();
        // Anew: an older draft may be readable by others.
        drop(fs::remove_file(&draft));
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = BufWriter::new(options.open(&draft).map_err(unwritten(&draft))?);
        Ok(Self { file, draft, path: path.to_owned() })
    }

    pub fn put(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        write(&mut self.file).map_err(unwritten(&self.draft))
    }

    pub fn whole(mut self) -> Result<(), Failure> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.map_err(unwritten(&self.draft))?;
        fs::rename(&self.draft, &self.path).map_err(unwritten(&self.path))
    }

    /// Half of it is of no use to anybody.
    pub fn cut(self) {
        drop(fs::remove_file(&self.draft));
    }
}

/// Writes a whole file at once, as a [`Draft`] is written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut draft = Draft::open(path)?;
    match draft.put(|file| file.write_all(bytes)) {
        Ok(()) => draft.whole(),
        Err(failure) => {
            draft.cut();
            Err(failure)
        }
    }
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
