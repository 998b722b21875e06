//! Builds the small C libraries that tests preload into a node (`LD_PRELOAD`).

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds `tests/support/{source}` into `dir`.
///
/// # Errors
/// When there is no C compiler.
pub fn build(dir: &Path, source: &str) -> Result<PathBuf, String> {
    let library = dir.join(source).with_extension("so");
    let root = std::env::var("CARGO_MANIFEST_DIR");
    let root = root.unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
        .args([&library, &Path::new(&root).join("tests/support").join(source)])
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "tests/support/{source} cannot be compiled: {said}");
    Ok(library)
}
