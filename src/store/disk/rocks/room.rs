//! Tells and tries out whether the disk has room, and whether the directory is still there.
//!
//! The free space that a file system reports may be reserved for others, or beyond a quota. Only
//! writing a file tells for certain.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::EngineError;

/// The file that is written and removed again.
const FILE: &str = "room";
/// The file that every database has.
const DATABASE_FILE: &str = "CURRENT";
/// What opening takes beyond the size of the logs.
const OPENING_BYTES: u64 = 1 << 20;
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

/// Whether there seems to be room to open the database in `dir`. Unlike [`find`] this writes
/// nothing, so that it costs nothing at each start.
pub(super) fn is_enough(dir: &Path) -> Result<(), EngineError> {
    let needed = log_bytes(dir).unwrap_or_default() + OPENING_BYTES;
    match free_bytes(dir) {
        Some(free) if free < needed => Err(EngineError::Full(format!(
            "{}: opening takes up to {needed} bytes, and {free} are free",
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Whether `dir` holds a database.
pub(super) fn holds_database(dir: &Path) -> bool {
    dir.join(DATABASE_FILE).exists()
}

/// What an unprivileged process may still write in `dir`; `None` where the system does not tell.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// What the files in `dir` take.
pub(super) fn used_bytes(dir: &Path) -> Result<u64, EngineError> {
    let refused = |error: io::Error| EngineError::Failed(format!("{}: {error}", dir.display()));
    let mut sum = 0;
    for entry in fs::read_dir(dir).map_err(refused)? {
        // a file that is removed meanwhile takes nothing
        sum += entry.and_then(|entry| entry.metadata()).map_or(0, |found| found.len());
    }
    Ok(sum)
}

/// Device and number of `dir`, which tell it from another one of its name.
pub(super) fn number(dir: &Path) -> Result<(u64, u64), EngineError> {
    let found = fs::metadata(dir)
        .map_err(|error| EngineError::Failed(format!("{}: {error}", dir.display())))?;
    Ok((found.dev(), found.ino()))
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
