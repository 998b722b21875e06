//! The files into which a node puts what it sets aside when it begins anew.
//!
//! They lie in `set-aside` in the data directory, one for each life of the node, in the form of
//! `kvs export`, tombstones included. Nothing deletes them but people.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::http;
use crate::model::{Key, Record, Timestamp};
use crate::replication::Aside;

/// Where one life of a node sets records aside. The file is made with the first of them.
pub(super) struct AsideFile(PathBuf);

impl AsideFile {
    /// That of the life that began at `began`.
    pub(super) fn new(data_dir: &Path, began: Timestamp) -> Self {
        let name = format!("{}.ndjson", began.rfc3339().replace(':', ""));
        Self(data_dir.join("set-aside").join(name))
    }

    /// The file, whether it is there or not.
    pub(super) fn into_path(self) -> PathBuf {
        self.0
    }
}

impl Aside for AsideFile {
    fn keep(&self, records: &[(Key, Record)]) -> io::Result<()> {
        let Self(path) = self;
        let mut lines = Vec::new();
        for (key, record) in records {
            http::write_record_line(key, record, &mut lines)?;
        }
        assert!(lines.ends_with(b"\n") || records.is_empty(), "the file holds whole lines");
        let dir = path.parent().unwrap_or(Path::new("."));
        let is_new = !path.exists();
        fs::create_dir_all(dir)?;
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        if is_new {
            File::open(dir)?.sync_all()?;
            tracing::warn!(
                "what the cluster does not hold is set aside in {}; `kvs import` reads it",
                path.display()
            );
        }
        Ok(())
    }
}
