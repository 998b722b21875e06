//! Reads a directory tree as records: the path of each regular file below the root becomes a key.
//!
//! Follows a link to a regular file inside the tree, and no other: that is how Kubernetes lays out
//! a volume of a `ConfigMap`. Skips names that begin with `..`, which are the other half of such a
//! volume. Skips files that not everybody may read, and files in directories below the root that
//! not everybody may enter, unless asked to take them: an import must not publish private data by
//! accident. Reports each skipped entry with the reason.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::lines::{Lifetime, Line};
use super::media;
use super::write::VALUE_BYTES_MAX;
use crate::model::{ContentType, Key};

const OTHERS_MAY_READ: u32 = 0o004;
const OTHERS_MAY_ENTER: u32 = 0o001;
const USE_PRIVATE: &str = "import it with --private";

/// Calls `each` with every entry below `root`, in the order of names: a record, or the text for an
/// entry that was skipped. Stops when `each` returns false.
pub fn walk(root: &Path, private: bool, mut each: impl FnMut(Result<Line, String>) -> bool) {
    let mut entries = WalkDir::new(root).follow_links(false).sort_by_file_name().into_iter();
    while let Some(entry) = entries.next() {
        let item = match entry {
            Ok(entry) if entry.depth() > 0 && is_hidden_twice(&entry) => {
                if entry.file_type().is_dir() {
                    entries.skip_current_dir();
                }
                Err(format!("{}: a name that begins with `..`", entry.path().display()))
            }
            Ok(entry) if entry.file_type().is_dir() => {
                if private || entry.depth() == 0 || is_open(entry.path()) {
                    continue;
                }
                entries.skip_current_dir();
                let path = entry.path().display();
                Err(format!("{path}: a directory that not everybody may enter ({USE_PRIVATE})"))
            }
            Ok(entry) => read(root, &entry, private)
                .map_err(|reason| format!("{}: {reason}", entry.path().display())),
            Err(error) => Err(match error.path() {
                Some(path) => format!("{}: {}", path.display(), reason(&error)),
                None => error.to_string(),
            }),
        };
        if !each(item) {
            return;
        }
    }
}

fn reason(error: &walkdir::Error) -> String {
    error.io_error().map_or_else(|| error.to_string(), ToString::to_string)
}

/// True for `..data` and `..2026_11_27_12_00_00.123`.
fn is_hidden_twice(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b"..")
}

/// True if everybody may enter the directory.
fn is_open(dir: &Path) -> bool {
    let found = fs::symlink_metadata(dir);
    found.is_ok_and(|found| found.permissions().mode() & OTHERS_MAY_ENTER != 0)
}

fn read(root: &Path, entry: &DirEntry, private: bool) -> Result<Line, String> {
    let key = key(root, entry.path())?;
    let path = if entry.file_type().is_symlink() {
        followed(root, entry.path(), private)?
    } else {
        entry.path().to_owned()
    };
    // opening a device or a pipe could block
    if !fs::metadata(&path).map_err(|e| e.to_string())?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let file = File::open(&path).map_err(|e| e.to_string())?;
    // ask the open file, because the path may name another file by now
    let metadata = file.metadata().map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if !private && metadata.permissions().mode() & OTHERS_MAY_READ == 0 {
        return Err(format!("not readable by everybody ({USE_PRIVATE})"));
    }
    let mut value = Vec::new();
    file.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value).map_err(|e| e.to_string())?;
    if value.len() > VALUE_BYTES_MAX {
        return Err("larger than 16 MiB".to_owned());
    }
    let content_type = media::type_of(entry.path()).unwrap_or_else(ContentType::octet_stream);
    Ok(Line { key, content_type, value, life: Lifetime::Endless })
}

/// The file inside the tree that a link leads to in the end.
fn followed(root: &Path, link: &Path, private: bool) -> Result<PathBuf, String> {
    let root = fs::canonicalize(root).map_err(|e| e.to_string())?;
    let target = fs::canonicalize(link).map_err(|e| format!("a link that leads nowhere: {e}"))?;
    let Ok(below) = target.strip_prefix(&root) else {
        return Err("a link that leads out of the directory".to_owned());
    };
    if target.is_dir() {
        return Err("a link to a directory".to_owned());
    }
    let inner = below.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
    if !private && !inner.map(|dir| root.join(dir)).all(|dir| is_open(&dir)) {
        return Err(format!(
            "a link into a directory that not everybody may enter ({USE_PRIVATE})"
        ));
    }
    Ok(target)
}

fn key(root: &Path, path: &Path) -> Result<Key, String> {
    let below = path.strip_prefix(root).map_err(|e| e.to_string())?;
    let mut segments = Vec::new();
    for name in below {
        segments.push(name.to_str().ok_or("its name is not UTF-8")?);
    }
    Key::parse(&segments.join("/")).map_err(|e| e.to_string())
}
