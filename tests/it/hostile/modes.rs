//! Other users of the machine: what a node writes is its owner's alone, and what is wider is warned
//! of.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::Site;
use crate::support::node::Surroundings;

/// `path` and everything below it, with modes.
fn modes(path: &Path) -> Vec<(PathBuf, u32)> {
    let found = fs::symlink_metadata(path).expect("it is there");
    let mut all = vec![(path.to_owned(), found.permissions().mode() & 0o777)];
    if found.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            all.extend(modes(&entry.expect("an entry").path()));
        }
    }
    all
}

#[tokio::test]
async fn a_node_keeps_what_it_writes_from_other_users() {
    let site = Site::clustered();
    let mut place = site.place("n1", &[]);
    place.surround(Surroundings::shell("umask 000; exec \"$@\""));
    let node = place.start().await;
    node.client.put("/kv/small", "secret").await.expect(201);
    for number in 0..3 {
        node.client.put(&format!("/kv/{number}"), vec![number; 9 << 20]).await.expect(201);
    }
    // the database writes its files anew
    let mut node = node.kill_and_restart().await;
    let dir = node.place.data_dir();
    let found = modes(&dir);
    assert!(found.iter().any(|(path, _)| path.extension().is_some_and(|end| end == "blob")));
    for (path, mode) in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode & !expected, 0, "{}: {mode:o}", path.display());
    }
    assert!(!node.log().contains("other users"), "{}", node.log());
    node.stop().await;
    for path in [dir.clone(), site.file("secret").into()] {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
    }
    let node = node.restart().await;
    for (path, what) in [(dir.to_str().expect("text"), "data"), (&*site.file("secret"), "secret")] {
        node.logs(&["WARN", path, what, "chmod -R go= "]).await;
    }
}
