//! The RocksDB engine, on `OptimisticTransactionDB`. No other file knows rocksdb.
//!
//! Small records lie in `records`, compressed on the lower levels. Large values lie in the blob
//! files of `values`, so that compaction does not move them.

mod open;
mod room;

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DB, Direction, ErrorKind, IteratorMode, OptimisticTransactionDB,
    OptimisticTransactionOptions, ReadOptions, SingleThreaded, WriteOptions,
};

use crate::store::disk::engine::{Engine, EngineError, Family, Opened, Transaction, Visit};
use open::Opening;
pub use open::RocksSettings;

/// How many data files are open at once, unless the settings say otherwise.
const DATA_FILES_MAX: u32 = 1024;
/// How often closing is tried while reads in progress hold the database, and the pause between:
/// five seconds together.
const CLOSE_TRIES: usize = 500;
const CLOSE_AGAIN: Duration = Duration::from_millis(10);

/// A database, as it was opened.
enum Database {
    /// For reads and writes.
    Open(OptimisticTransactionDB<SingleThreaded>),
    /// For reads, as the disk has no room to open it for writes.
    ReadOnly(DB),
}

/// A RocksDB database that can be closed and opened again.
pub struct Rocks {
    access: RwLock<Access>,
    dir: PathBuf,
    opening: Opening,
    sync: bool,
    /// Held locked, as a database that is open for reads alone does not lock itself.
    _lock: File,
    /// Which directory it is: device and number.
    found: Mutex<(u64, u64)>,
}

/// Its lock is held for moments only: each read takes a share of the database along.
enum Access {
    Open(Arc<Database>),
    /// It is being opened, or that failed; `full`: since the disk is full.
    Closed {
        full: bool,
    },
}

impl std::fmt::Debug for Rocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rocks")
    }
}

fn failed(error: &rocksdb::Error) -> EngineError {
    let text = error.to_string();
    // RocksDB's kind of error does not tell; the first two are the system's words
    let full = ["No space left on device", "Disk quota exceeded", "Space limit reached"];
    if full.iter().any(|words| text.contains(words)) {
        EngineError::Full(text)
    } else if text.contains("Too many open files") {
        EngineError::NoDescriptor(text)
    } else {
        EngineError::Failed(text)
    }
}

impl Rocks {
    /// Opens the database in `dir`, or makes one, with `cache_bytes` of cache. With `sync`, commits
    /// wait for the disk.
    ///
    /// # Errors
    /// As for [`Self::open_with`].
    pub fn open(dir: &Path, cache_bytes: usize, sync: bool) -> Result<Self, EngineError> {
        Self::open_with(dir, RocksSettings { cache_bytes, data_files_max: DATA_FILES_MAX, sync })
    }

    /// Opens the database in `dir`, or makes one. A database on a full disk is opened for reads;
    /// then all writes fail with [`EngineError::Full`] until [`Engine::reopen`] succeeds.
    ///
    /// # Errors
    /// When another process has it open, or RocksDB cannot open it.
    pub fn open_with(dir: &Path, settings: RocksSettings) -> Result<Self, EngineError> {
        let lock = lock(dir)?;
        let found = room::number(dir)?;
        let opening = Opening::new(settings);
        room::clean(dir);
        let database = match room::is_enough(dir).and_then(|()| opening.open(dir, true)) {
            Err(EngineError::Full(why)) if room::holds_database(dir) => {
                tracing::error!(
                    why,
                    "the disk is full: free space; until then this node serves reads alone"
                );
                opening.open_reads(dir)?
            }
            opened => opened?,
        };
        let access = RwLock::new(Access::Open(Arc::new(database)));
        let found = Mutex::new(found);
        let sync = settings.sync;
        Ok(Self { access, dir: dir.to_owned(), opening, sync, _lock: lock, found })
    }

    /// Opens the database in `dir` for reads alone, and keeps other processes from it meanwhile.
    /// Changes nothing in the directory.
    ///
    /// # Errors
    /// When there is no database, another process has it open, or RocksDB cannot open it.
    pub fn open_unchanged(dir: &Path, settings: RocksSettings) -> Result<Self, EngineError> {
        if !room::holds_database(dir) {
            let text = format!("{} holds no data of a node", dir.display());
            return Err(EngineError::Failed(text));
        }
        let (lock, found) = (lock(dir)?, room::number(dir)?);
        let opening = Opening::new(settings);
        let access = RwLock::new(Access::Open(Arc::new(opening.open_reads(dir)?)));
        let (dir, sync, found) = (dir.to_owned(), settings.sync, Mutex::new(found));
        Ok(Self { access, dir, opening, sync, _lock: lock, found })
    }

    fn database(&self) -> Result<Arc<Database>, EngineError> {
        match &*self.access.read().unwrap_or_else(PoisonError::into_inner) {
            Access::Open(database) => Ok(Arc::clone(database)),
            Access::Closed { full: true } => {
                Err(EngineError::Full("the database is being opened again".to_owned()))
            }
            Access::Closed { full: false } => Err(EngineError::Reopening),
        }
    }

    fn set_access(&self, access: Access) -> Access {
        let mut held = self.access.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, access)
    }

    /// Closes the database once the reads in progress have ended. If they do not end, it stays
    /// open.
    fn close(&self) -> Result<(), EngineError> {
        let Access::Open(mut database) = self.set_access(Access::Closed { full: false }) else {
            return Ok(());
        };
        for _ in 0..CLOSE_TRIES {
            match Arc::try_unwrap(database) {
                Ok(last) => {
                    drop(last);
                    return Ok(());
                }
                Err(shared) => database = shared,
            }
            std::thread::sleep(CLOSE_AGAIN);
        }
        self.set_access(Access::Open(database));
        Err(EngineError::Failed(
            "reads that take longer than 5 s keep the database open".to_owned(),
        ))
    }
}

impl Database {
    /// The handle of a family; `None`: an older kvs wrote the database, which has no such family
    /// and could not be given one, as it is open for reads.
    fn family(&self, family: Family) -> Result<Option<&ColumnFamily>, EngineError> {
        match self {
            Self::Open(database) => {
                let missing = || format!("family {} is missing", family.name());
                let handle = database.cf_handle(family.name());
                handle.map(Some).ok_or_else(|| EngineError::Failed(missing()))
            }
            Self::ReadOnly(database) => Ok(database.cf_handle(family.name())),
        }
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(family) = self.family(family)? else { return Ok(None) };
        let value = match self {
            Self::Open(database) => database.get_cf(family, key),
            Self::ReadOnly(database) => database.get_cf(family, key),
        };
        value.map_err(|error| failed(&error))
    }
}

/// An entry of a scan, as RocksDB gives it.
type RawEntry = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

fn visit_all(
    entries: impl Iterator<Item = RawEntry>,
    visit: &mut Visit<'_>,
) -> Result<(), EngineError> {
    for entry in entries {
        let (key, value) = entry.map_err(|e| failed(&e))?;
        if visit(&key, &value) == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(())
}

/// Keeps other processes from the database. The lock ends with the file, and with the process.
fn lock(dir: &Path) -> Result<File, EngineError> {
    let refused = |error: io::Error| EngineError::Failed(format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(refused)?;
    let file = File::open(dir).map_err(refused)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(EngineError::Locked { path: dir.display().to_string() })
        }
        // a file system without locks: the database has its own while it is open for writes
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

impl Engine for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.database()?.get(family, key)?.map(Bytes::from))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mode = IteratorMode::From(from, Direction::Forward);
        let database = self.database()?;
        let Some(family) = database.family(family)? else { return Ok(()) };
        match &*database {
            Database::Open(open) => visit_all(open.iterator_cf_opt(family, options, mode), visit),
            Database::ReadOnly(open) => {
                visit_all(open.iterator_cf_opt(family, options, mode), visit)
            }
        }
    }

    fn opened(&self) -> Result<Box<dyn Opened + '_>, EngineError> {
        let database = self.database()?;
        if matches!(*database, Database::ReadOnly(_)) {
            return Err(EngineError::Full("the database is open for reads alone".to_owned()));
        }
        Ok(Box::new(OpenedDatabase { database, sync: self.sync }))
    }

    /// After a failed write or flush RocksDB refuses writes until it is opened again, even when the
    /// cause is gone. Opening takes room on the disk, since the logs are written to tables. Without
    /// that room the database stays open, or is opened, for reads.
    fn reopen(&self) -> Result<(), EngineError> {
        room::find(&self.dir)?;
        if !room::holds_database(&self.dir) {
            // a directory that is empty now has lost its disk: do not make a new database in it
            let text = format!("{} holds no database any more", self.dir.display());
            return Err(EngineError::Failed(text));
        }
        self.close()?;
        let failure = match self.opening.open(&self.dir, false) {
            Ok(database) => {
                *self.found.lock().unwrap_or_else(PoisonError::into_inner) =
                    room::number(&self.dir)?;
                self.set_access(Access::Open(Arc::new(database)));
                return Ok(());
            }
            Err(error) => error,
        };
        let full = matches!(failure, EngineError::Full(_));
        let reads = if full { self.opening.open_reads(&self.dir).ok() } else { None };
        self.set_access(match reads {
            Some(database) => Access::Open(Arc::new(database)),
            None => Access::Closed { full },
        });
        Err(failure)
    }

    fn free_bytes(&self) -> Result<Option<u64>, EngineError> {
        let found = room::number(&self.dir)?;
        if found != *self.found.lock().unwrap_or_else(PoisonError::into_inner)
            || !room::holds_database(&self.dir)
        {
            let text = format!("{} is not the directory that was opened", self.dir.display());
            return Err(EngineError::Failed(text));
        }
        Ok(room::free_bytes(&self.dir))
    }

    fn used_bytes(&self) -> Result<Option<u64>, EngineError> {
        room::used_bytes(&self.dir).map(Some)
    }
}

struct OpenedDatabase {
    database: Arc<Database>,
    sync: bool,
}

impl Opened for OpenedDatabase {
    fn begin(&self) -> Box<dyn Transaction + '_> {
        let mut write = WriteOptions::default();
        write.set_sync(self.sync);
        let options = OptimisticTransactionOptions::default();
        let Database::Open(open) = &*self.database else {
            unreachable!("only a database that is open for writes is kept open for them")
        };
        let transaction = open.transaction_opt(&write, &options);
        Box::new(RocksTransaction { database: &self.database, transaction })
    }
}

struct RocksTransaction<'a> {
    database: &'a Database,
    transaction: rocksdb::Transaction<'a, OptimisticTransactionDB<SingleThreaded>>,
}

impl RocksTransaction<'_> {
    fn family(&self, family: Family) -> Result<&ColumnFamily, EngineError> {
        let handle = self.database.family(family)?;
        Ok(handle.unwrap_or_else(|| unreachable!("a database that takes writes has all families")))
    }
}

impl Transaction for RocksTransaction<'_> {
    fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let family = self.family(family)?;
        let value =
            self.transaction.get_for_update_cf(family, key, true).map_err(|e| failed(&e))?;
        Ok(value.map(Bytes::from))
    }

    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let family = self.family(family)?;
        self.transaction.put_cf(family, key, value).map_err(|e| failed(&e))
    }

    fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError> {
        let family = self.family(family)?;
        self.transaction.delete_cf(family, key).map_err(|e| failed(&e))
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        self.transaction.commit().map_err(|error| {
            assert!(
                error.kind() != ErrorKind::Busy,
                "a conflict, though there is one writer only: {error}"
            );
            failed(&error)
        })
    }
}

#[cfg(test)]
mod tests;
