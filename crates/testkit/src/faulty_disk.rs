//! A disk whose calls fail with EIO when a test says so, under a real process.
//!
//! A library is preloaded into the process, so it works without rights and on kernels without the device mapper. It
//! sees calls through libc, which is how the store reads, writes and syncs files; syncing folders goes past it.

use crate::tools::run;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Reading at an offset.
    Read,
    /// Writing at an offset.
    Write,
    /// Syncing a file.
    Sync,
}

impl Call {
    const fn switch(self) -> &'static str {
        match self {
            Call::Read => "read",
            Call::Write => "write",
            Call::Sync => "sync",
        }
    }
}

/// The library, built, and its switches.
#[derive(Debug)]
pub struct FaultyDisk {
    library: PathBuf,
    switches: PathBuf,
    below: PathBuf,
}

impl FaultyDisk {
    /// Builds the library in `folder`, for files below `below`. All calls succeed at first.
    ///
    /// # Errors
    /// Why there is no library: no compiler, most likely.
    pub fn build(folder: &Path, below: &Path) -> Result<FaultyDisk, String> {
        let (library, switches) = (folder.join("faulty_disk.so"), folder.join("switches"));
        fs::create_dir_all(&switches).map_err(|error| error.to_string())?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/faulty_disk.c");
        let [source, built] = [&source, &library].map(|path| path.to_string_lossy());
        run(&["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &built, &source, "-ldl"])?;
        Ok(FaultyDisk { library, switches, below: below.to_owned() })
    }

    /// What the process must find in its environment.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAULTY_SWITCHES", self.switches.clone()),
            ("FAULTY_BELOW", self.below.clone()),
        ]
    }

    /// Lets calls of one kind fail from now on.
    ///
    /// # Errors
    /// When the switch can't be set.
    pub fn fail(&self, call: Call) -> io::Result<()> {
        fs::write(self.switches.join(call.switch()), "")
    }

    /// Lets calls of one kind succeed again.
    ///
    /// # Errors
    /// When they did not fail.
    pub fn heal(&self, call: Call) -> io::Result<()> {
        fs::remove_file(self.switches.join(call.switch()))
    }
}
