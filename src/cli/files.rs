//! Reads and writes certificates, keys and secrets. Private files are private from their first byte
//! on, and no file is overwritten without `--force`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::CliError;

/// Reads no more than this of a file, far more than any certificate or key has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// The owner alone.
    Private,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Private => 0o600,
        }
    }
}

/// Creates `dir` and its missing parents, with mode 0700.
///
/// # Errors
/// [`CliError::File`].
pub fn make_dir(dir: &Path) -> Result<(), CliError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| CliError::File { verb: "create the directory", path: dir.into(), error })
}

/// Fails if one of `paths` exists and `force` is not set, so that a certificate and its key are
/// always written together.
///
/// # Errors
/// [`CliError::Usage`], which names the file and `--force`.
pub fn refuse_existing(paths: &[&Path], force: bool) -> Result<(), CliError> {
    match paths.iter().find(|path| !force && fs::symlink_metadata(path).is_ok()) {
        Some(path) => Err(exists(path)),
        None => Ok(()),
    }
}

fn exists(path: &Path) -> CliError {
    CliError::Usage(format!("{} exists; overwrite it with --force", path.display()))
}

/// Writes `text` to `path` and syncs it to the disk.
///
/// # Errors
/// [`CliError::File`], or [`CliError::Usage`] if the file exists and `force` is not set.
pub fn write(path: &Path, text: &str, access: Access, force: bool) -> Result<(), CliError> {
    let fail = |error| CliError::File { verb: "write", path: path.into(), error };
    if !force {
        return match create(path, text, access) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
            written => written.map_err(fail),
        };
    }
    // rename a new file over the old one, so that its mode and its open readers do not carry over
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new: PathBuf = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    create(&new, text, access).and_then(|()| fs::rename(&new, path)).map_err(fail)
}

/// Creates a file that must not exist. Removes it again if it cannot be written whole.
fn create(path: &Path, text: &str, access: Access) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Reads a text file, at most its first MiB.
///
/// # Errors
/// [`CliError::File`].
pub fn read(path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(CliError::File { verb: "read", path: path.into(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn private_files_stay_private_and_overwriting_takes_force() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        make_dir(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700);
        let path = inner.join("key");
        write(&path, "one", Access::Private, false).unwrap();
        assert_eq!((read(&path).unwrap().as_str(), mode(&path)), ("one", 0o600));
        let error = write(&path, "two", Access::Private, false).expect_err("it exists");
        assert!(error.to_string().contains("--force") && error.exit_code() == 2, "{error}");
        assert_eq!(read(&path).unwrap(), "one");
        assert!(refuse_existing(&[&path], false).is_err());
        assert!(refuse_existing(&[&path], true).is_ok());
    }

    #[test]
    fn force_replaces_a_readable_file_with_a_private_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        write(&path, "new", Access::Private, true).unwrap();
        assert_eq!((read(&path).unwrap().as_str(), mode(&path)), ("new", 0o600));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
