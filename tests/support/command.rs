//! The command line: runs `kvs` as a user would and captures its output.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The binary to test: that of this build, or the one in `KVS_TEST_BIN`.
pub fn binary() -> OsString {
    std::env::var_os("KVS_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kvs").into())
}

/// The output and the exit status of a command.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

/// A command whose environment holds only the paths of programs and of temporary files.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs `kvs` with `arguments` and empty standard input.
pub fn kvs<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    kvs_with(arguments, b"")
}

/// Runs `kvs` with `arguments` and `input` on standard input.
pub fn kvs_with<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>, input: &[u8]) -> Ended {
    let mut command = clean(binary());
    command.args(arguments);
    finish(command, input)
}

/// Runs `command` until it ends.
pub fn finish(mut command: Command, input: &[u8]) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("its standard input");
    let ended = std::thread::scope(|scope| {
        // fails if the command needs no input and has closed it
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("the command ends")
    });
    let code = ended.status.code().expect("no signal ended it");
    let err = String::from_utf8(ended.stderr).expect("messages are text");
    assert!(!err.contains("panicked"), "{err}");
    Ended { code, out: ended.stdout, err }
}

impl Ended {
    /// Asserts the exit status.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.text(), self.err);
        self
    }

    /// Asserts the exit status, and one line on standard error that contains all of `words`.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) -> Self {
        let this = self.expect(code);
        assert_eq!(this.err.trim_end().lines().count(), 1, "{}", this.err);
        for word in words {
            assert!(this.err.contains(word), "{word:?} is missing: {}", this.err);
        }
        this
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }
}

/// The permission bits of the file at `path`.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}
