//! Reads a directory tree as records: the path of each regular file below the root becomes a key.
//!
//! Follows no links. Skips files that not everybody may read, and directories below the root that
//! not everybody may enter, unless asked to take them: an import must not publish private data by
//! accident. Reports each skipped entry with the reason.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use super::lines::Line;
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
            Ok(entry) if entry.file_type().is_dir() => {
                if private || entry.depth() == 0 || is_open(&entry) {
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

/// True if everybody may enter the directory.
fn is_open(entry: &DirEntry) -> bool {
    entry.metadata().is_ok_and(|found| found.permissions().mode() & OTHERS_MAY_ENTER != 0)
}

fn read(root: &Path, entry: &DirEntry, private: bool) -> Result<Line, String> {
    if entry.file_type().is_symlink() {
        return Err("a symbolic link".to_owned());
    }
    if !entry.file_type().is_file() {
        return Err("not a regular file".to_owned());
    }
    let key = key(root, entry.path())?;
    let file = File::open(entry.path()).map_err(|e| e.to_string())?;
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
    Ok(Line { key, content_type: ContentType::octet_stream(), value, expires_at: None })
}

fn key(root: &Path, path: &Path) -> Result<Key, String> {
    let below = path.strip_prefix(root).map_err(|e| e.to_string())?;
    let mut segments = Vec::new();
    for name in below {
        segments.push(name.to_str().ok_or("its name is not UTF-8")?);
    }
    Key::parse(&segments.join("/")).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    fn write(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, path.file_name().unwrap().as_bytes()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn names(root: &Path, private: bool) -> (Vec<String>, Vec<String>) {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        walk(root, private, |item| {
            match item {
                Ok(line) => taken.push(line.key.to_string()),
                Err(reason) => left.push(reason),
            }
            true
        });
        (taken, left)
    }

    #[test]
    fn regular_readable_files_become_keys_and_the_rest_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(&root.join("b/ü x.txt"), 0o644);
        write(&root.join("a"), 0o604);
        write(&root.join("secret"), 0o640);
        write(&root.join("closed/f"), 0o644);
        fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o750)).unwrap();
        write(&root.join(OsStr::from_bytes(b"z\xff")), 0o644);
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        std::os::unix::fs::symlink(".", root.join("loop")).unwrap();
        let socket = root.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let (taken, left) = names(root, false);
        assert_eq!(taken, ["a", "b/ü x.txt"]);
        let reported = |word: &str| left.iter().filter(|line| line.contains(word)).count();
        assert_eq!(
            (left.len(), reported("symbolic link"), reported("not a regular")),
            (6, 2, 1),
            "{left:?}"
        );
        assert_eq!((reported("--private"), reported("not UTF-8")), (2, 1), "{left:?}");
        assert_eq!(names(root, true).0, ["a", "b/ü x.txt", "closed/f", "secret"]);
    }

    #[test]
    fn files_too_large_or_too_deep_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let large = File::create(dir.path().join("large")).unwrap();
        large.set_len(VALUE_BYTES_MAX as u64 + 1).unwrap();
        let exact = File::create(dir.path().join("exact")).unwrap();
        exact.set_len(VALUE_BYTES_MAX as u64).unwrap();
        let deep = dir.path().join(vec!["d".repeat(250); 5].join("/"));
        write(&deep, 0o644);
        let (taken, left) = names(dir.path(), true);
        assert_eq!(taken, ["exact"]);
        assert!(left[0].contains("1254 bytes") && left[1].contains("16 MiB"), "{left:?}");
    }

    #[test]
    fn a_walk_stops_when_the_caller_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            write(&dir.path().join(name), 0o644);
        }
        let mut seen = 0;
        walk(dir.path(), false, |_| {
            seen += 1;
            seen < 2
        });
        assert_eq!(seen, 2);
    }
}
