//! Failing and full disks: a preloaded library (`LD_PRELOAD`) makes the n-th call that changes a
//! file fail, and as many after it as the test says.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::preload;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// EIO: a broken disk.
    Io = 5,
    /// ENOSPC: a full disk.
    Full = 28,
}

/// Which future calls fail.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// The number of calls that succeed before the first failure.
    pub after: u64,
    /// The number of calls that then fail; `u64::MAX`: until [`Faults::heal`].
    pub count: u64,
    /// The number of calls from one failure to the next; 0: no repetition.
    pub again: u64,
    pub error: Errno,
    /// Whether a failing write leaves half of its bytes.
    pub half: bool,
}

/// The positions in the control file, as in `faults.c`.
#[derive(Clone, Copy)]
enum Field {
    Calls = 0,
    First = 1,
    Failing = 2,
    Again = 3,
    Error = 4,
    Half = 5,
    Failed = 6,
    Last = 7,
}

/// The number of positions.
const FIELDS: u64 = 8;

/// Makes calls of one node fail, over all its starts.
pub struct Faults {
    control: File,
    pub environment: Vec<(String, String)>,
}

impl Faults {
    /// Faults for calls below `data_dir`, which is created; `dir` gets the library and the control
    /// file.
    ///
    /// # Errors
    /// When the library cannot be built.
    pub fn new(dir: &Path, data_dir: &Path) -> Result<Self, String> {
        let library = preload::build(dir, "faults.c")?;
        fs::create_dir_all(data_dir).expect("a directory");
        let path = dir.join("faults.control");
        let options = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let control = options.expect("a control file");
        control.set_len(FIELDS * 8).expect("room for a few numbers");
        let text = |path: &Path| path.to_str().expect("a path of text").to_owned();
        let environment = vec![
            ("LD_PRELOAD".to_owned(), text(&library)),
            ("KVS_FAULTS_CONTROL".to_owned(), text(&path)),
            ("KVS_FAULTS_DIR".to_owned(), text(data_dir)),
        ];
        Ok(Self { control, environment })
    }

    fn get(&self, field: Field) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, field as u64 * 8).expect("it can be read");
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, field: Field, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), field as u64 * 8).expect("it is written");
    }

    /// The number of calls so far.
    pub fn calls(&self) -> u64 {
        self.get(Field::Calls)
    }

    /// The number of failed calls so far.
    pub fn failed(&self) -> u64 {
        self.get(Field::Failed)
    }

    /// The call that failed last.
    pub fn last(&self) -> char {
        u8::try_from(self.get(Field::Last)).map_or('?', char::from)
    }

    /// Makes calls fail from now on.
    pub fn fail(&self, failure: Failure) {
        self.set(Field::Failing, 0);
        self.set(Field::Error, failure.error as u64);
        self.set(Field::Half, u64::from(failure.half));
        let first = self.calls() + failure.after + 1;
        self.set(Field::Again, if failure.again > 0 { first + failure.again } else { 0 });
        self.set(Field::First, first);
        self.set(Field::Failing, failure.count);
    }

    /// Ends all failures.
    pub fn heal(&self) {
        self.set(Field::Failing, 0);
        self.set(Field::Again, 0);
    }
}
