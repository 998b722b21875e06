//! Whether there is room on the disk: tried out, because only that tells.
//!
//! Free space that a file system announces may be reserved for others, or used up by a quota.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::EngineError;

/// The file that takes the room and gives it back.
const FILE: &str = "room";
/// What must be free besides what the logs hold: the largest write, several times.
const SPARE_BYTES: u64 = 32 << 20;

/// Finds room for all that the logs in `dir` hold, and then some; or says what there is instead.
pub(super) fn find(dir: &Path) -> Result<(), EngineError> {
    let tried = log_bytes(dir).and_then(|logs| take(dir, logs + SPARE_BYTES));
    clean(dir);
    tried.map_err(|error| {
        let text = format!("room in {}: {error}", dir.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineError::Full(text),
            _ => EngineError::Failed(text),
        }
    })
}

/// Removes what is left of a try, also of one that was killed.
pub(super) fn clean(dir: &Path) {
    // in most cases it is not there; otherwise the next try takes its place
    let _ = fs::remove_file(dir.join(FILE));
}

fn take(dir: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(dir.join(FILE))?;
    let chunk = vec![0; 1 << 20];
    for _ in 0..bytes.div_ceil(chunk.len() as u64) {
        file.write_all(&chunk)?;
    }
    file.sync_all()
}

fn log_bytes(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == "log") {
            // one that is dropped meanwhile holds nothing any more
            sum += entry.metadata().map_or(0, |found| found.len());
        }
    }
    Ok(sum)
}
