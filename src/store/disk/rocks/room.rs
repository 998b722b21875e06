//! Tries out whether the disk has room.
//!
//! The free space that a file system reports may be reserved for others, or beyond a quota. Only
//! writing a file tells.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::EngineError;

/// The file that is written and removed again.
const FILE: &str = "room";
/// What must be free beyond the size of the logs: several times the largest write.
const SPARE_BYTES: u64 = 32 << 20;

/// Checks that there is room to write the logs in `dir` to tables, with a reserve.
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

/// Removes the file, also one that a killed process has left.
pub(super) fn clean(dir: &Path) {
    // usually it is not there; otherwise the next try overwrites it
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
            // a log that is removed meanwhile needs no room
            sum += entry.metadata().map_or(0, |found| found.len());
        }
    }
    Ok(sum)
}
