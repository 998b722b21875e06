//! Directory trees as records: what is taken, and what is skipped and why.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::tree::walk;
use super::write::VALUE_BYTES_MAX;
use crate::model::ContentType;

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
    let outside = tempfile::NamedTempFile::new().unwrap();
    for (to, name) in [
        (Path::new("a"), "link"),
        (Path::new("."), "loop"),
        (Path::new("round"), "round"),
        (outside.path(), "out"),
        (Path::new("closed/f"), "into"),
    ] {
        std::os::unix::fs::symlink(to, root.join(name)).unwrap();
    }
    let socket = root.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let (taken, left) = names(root, false);
    assert_eq!(taken, ["a", "b/ü x.txt", "link"]);
    let reported = |word: &str| left.iter().filter(|line| line.contains(word)).count();
    assert_eq!((left.len(), reported("not a regular")), (8, 1), "{left:?}");
    assert_eq!((reported("leads nowhere"), reported("leads out")), (1, 1), "{left:?}");
    assert_eq!(reported("a link to a directory"), 1, "{left:?}");
    assert_eq!((reported("--private"), reported("not UTF-8")), (3, 1), "{left:?}");
    let all = ["a", "b/ü x.txt", "closed/f", "into", "link", "secret"];
    assert_eq!(names(root, true).0, all);
}

#[test]
fn a_volume_of_kubernetes_is_read_through_its_links() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(&root.join("..2026_11_27_12_00_00.1/app.yaml"), 0o644);
    write(&root.join("..2026_11_27_12_00_00.1/sub.json"), 0o644);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
    link("..2026_11_27_12_00_00.1", "..data");
    link("..data/app.yaml", "app.yaml");
    link("..data/sub.json", "sub.json");
    let (taken, left) = names(root, false);
    assert_eq!(taken, ["app.yaml", "sub.json"]);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|line| line.contains("begins with `..`")), "{left:?}");
    walk(root, false, |item| {
        if let Ok(line) = item {
            assert_eq!(line.value, line.key.as_str().as_bytes());
            assert_ne!(line.content_type, ContentType::octet_stream());
        }
        true
    });
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
