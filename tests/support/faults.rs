//! Disks that fail or are full: a library that is loaded into the process (`LD_PRELOAD`) makes the
//! n-th call fail by which it changes its files, and those after it as long as the test says.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::preload;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// EIO
    Io = 5,
    /// ENOSPC
    Full = 28,
}

/// The failing calls to come.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// How many calls go well before the first that fails.
    pub after: u64,
    /// How many fail from there on; `u64::MAX`: until [`Faults::heal`].
    pub count: u64,
    /// How many calls after the first that fails another one does; 0: none.
    pub again: u64,
    pub error: Errno,
    /// Writes that fail leave half of their bytes.
    pub half: bool,
}

/// Where a number stands in the control file, as `faults.c` has it.
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

/// How many fields there are.
const FIELDS: u64 = 8;

/// Makes calls of one node fail, over all its starts.
pub struct Faults {
    control: File,
    pub environment: Vec<(String, String)>,
}

impl Faults {
    /// For calls below `data_dir`, which is made; keeps its files in `dir`.
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

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.get(Field::Calls)
    }

    /// How many have failed.
    pub fn failed(&self) -> u64 {
        self.get(Field::Failed)
    }

    /// What the call that failed last was to do.
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

    /// No call fails any more.
    pub fn heal(&self) {
        self.set(Field::Failing, 0);
        self.set(Field::Again, 0);
    }
}
