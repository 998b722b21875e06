//! Losses of power: takes the unsynced writes of a killed process off its disk.
//!
//! A preloaded library (`LD_PRELOAD`) records the syncs. The model is mild: directories are durable
//! immediately, and synced bytes never change.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::preload;

/// The record of what one node has synced, over all its starts.
pub struct Power {
    log: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl Power {
    /// Keeps the record in `dir`.
    ///
    /// # Errors
    /// When the library cannot be built.
    pub fn new(dir: &Path) -> Result<Self, String> {
        let library = preload::build(dir, "power.c")?;
        let log = dir.join("power.log");
        let text = |path: &Path| path.to_str().expect("a path of text").to_owned();
        let environment = vec![
            ("LD_PRELOAD".to_owned(), text(&library)),
            ("KVS_POWER_LOG".to_owned(), text(&log)),
        ];
        Ok(Self { log, environment })
    }

    /// Cuts every file in `dir` to its synced length; returns the number of bytes lost. Kill the
    /// node first.
    pub fn cut(&self, dir: &Path) -> u64 {
        let synced = self.synced();
        let dir = dir.canonicalize().expect("the directory is there");
        let mut lost = 0;
        for entry in fs::read_dir(&dir).expect("the directory is there") {
            let path = entry.expect("it can be read").path();
            let length = path.metadata().expect("it is there").len();
            let kept = synced.get(&path).copied().unwrap_or_default();
            // the log for people is not data
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_file() && length > kept && !name.starts_with("LOG") {
                let file = OpenOptions::new().write(true).open(&path).expect("it is ours");
                file.set_len(kept).expect("it is cut");
                lost += length - kept;
            }
        }
        lost
    }

    /// The synced length of each file.
    fn synced(&self) -> HashMap<PathBuf, u64> {
        let mut synced = HashMap::new();
        let notes = fs::read_to_string(&self.log).expect("the process has synced something");
        for line in notes.lines() {
            let (what, rest) = line.split_once(' ').expect("a note");
            if what == "S" {
                let (size, path) = rest.split_once(' ').expect("a size and a path");
                synced.insert(path.into(), size.parse().expect("a size"));
            } else {
                let (from, to) = rest.split_once('\t').expect("two paths");
                let moved = synced.remove(Path::new(from)).unwrap_or_default();
                synced.insert(to.into(), moved);
            }
        }
        synced
    }
}
