//! A small disk of its own under the embedded store, that can be filled: a tmpfs, where we may mount one.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Failure;

pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// `None` where we may not mount: the disk is then never full.
    pub fn mount(folder: &Path, megabytes: u64) -> Result<Option<Self>, Failure> {
        fs::create_dir_all(folder)?;
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        Ok(mounted.is_ok_and(|status| status.success()).then(|| Self { folder: folder.to_owned() }))
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// To the last byte.
    pub fn fill(&self) -> Result<(), Failure> {
        let mut filler = fs::File::create(self.filler())?;
        for piece in [1 << 20, 1 << 12, 1] {
            let piece = vec![0; piece];
            while filler.write_all(&piece).is_ok() {}
        }
        Ok(())
    }

    pub fn empty(&self) -> Result<(), Failure> {
        Ok(fs::remove_file(self.filler())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // At the end of the run: lazily, since a process may still be on its way out.
        drop(Command::new("umount").arg("-l").arg(&self.folder).status());
    }
}
