//! A skewed wall clock for one node: a library that the test builds and preloads (`LD_PRELOAD`),
//! and a file with the skew.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::preload;

/// The built library. Cheap to share among nodes.
pub struct Skew {
    library: PathBuf,
}

/// The clock of one node.
pub struct SkewedClock {
    file: fs::File,
    pub environment: Vec<(String, String)>,
}

impl Skew {
    /// Builds the library into `dir`.
    ///
    /// # Errors
    /// When there is no C compiler, or it fails.
    pub fn build(dir: &Path) -> Result<Self, String> {
        Ok(Self { library: preload::build(dir, "skew.c")? })
    }

    /// A clock without skew that reads its skew from the file `name`.
    pub fn clock(&self, name: &Path) -> SkewedClock {
        fs::write(name, [0; 8]).expect("a file for a clock");
        let file = fs::OpenOptions::new().write(true).open(name).expect("it is there");
        let text = |path: &Path| path.to_str().expect("a path of text").to_owned();
        let environment = vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("KVS_SKEW_FILE".to_owned(), text(name)),
        ];
        SkewedClock { file, environment }
    }
}

impl SkewedClock {
    /// Sets the skew, effective immediately.
    pub fn set(&self, millis: i64) {
        // one write of eight bytes, so that a reader never sees a mixture
        let nanos = (millis * 1_000_000).to_ne_bytes();
        self.file.write_all_at(&nanos, 0).expect("the clock is set");
    }
}
