//! The RocksDB engine, on `OptimisticTransactionDB`. No other file knows rocksdb.
//!
//! Small records lie in `records`, compressed on the lower levels. Large values lie in the blob
//! files of `values`, so that compaction does not move them.

mod room;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBCompressionType,
    DBRecoveryMode, Direction, ErrorKind, IteratorMode, OptimisticTransactionDB,
    OptimisticTransactionOptions, Options, ReadOptions, SingleThreaded, WriteOptions,
};

use crate::store::disk::engine::{Engine, EngineError, Family, Opened, Transaction, Visit};

/// The memory of each family for writes that are not in a table file yet.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// How large the write-ahead logs grow together before their content is written to tables.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Compactions move the live values of this part of the blob files, the oldest ones, to new files;
/// this part of garbage in them begins a compaction for that alone. So dropped values are freed,
/// and values that are seldom written are seldom moved.
const BLOB_GC_AGE_CUTOFF: f64 = 0.5;
const BLOB_GC_GARBAGE_MAX: f64 = 0.5;
/// How many text logs RocksDB keeps about itself, and how large each grows.
const INFO_LOGS_MAX: usize = 3;
const INFO_LOG_BYTES_MAX: usize = 4 << 20;

/// How often closing is tried while reads in progress hold the database, and the pause between:
/// five seconds together.
const CLOSE_TRIES: usize = 500;
const CLOSE_AGAIN: Duration = Duration::from_millis(10);

type Database = OptimisticTransactionDB<SingleThreaded>;

/// A RocksDB database that can be closed and opened again.
pub struct Rocks {
    access: RwLock<Access>,
    dir: PathBuf,
    cache: Cache,
    sync: bool,
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
    } else {
        EngineError::Failed(text)
    }
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    if family == Family::Values {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(0);
        options.set_blob_compression_type(DBCompressionType::Zstd);
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(BLOB_GC_AGE_CUTOFF);
        options.set_blob_gc_force_threshold(BLOB_GC_GARBAGE_MAX);
    }
    options
}

impl Rocks {
    /// Opens the database in `dir`, or makes one. With `sync`, commits wait for the disk.
    ///
    /// # Errors
    /// When another process has it open, or RocksDB cannot open it.
    pub fn open(dir: &Path, cache_bytes: usize, sync: bool) -> Result<Self, EngineError> {
        let cache = Cache::new_lru_cache(cache_bytes);
        let database = Self::open_database(dir, &cache, true)?;
        room::clean(dir);
        let access = RwLock::new(Access::Open(Arc::new(database)));
        Ok(Self { access, dir: dir.to_owned(), cache, sync })
    }

    /// A failed write may leave a part of itself at the end of a log. If opening then fails, too,
    /// after that log was written to tables, RocksDB reports a loss at the next attempt although
    /// nothing is lost. It must be told that a log may end like that.
    fn open_database(dir: &Path, cache: &Cache, make: bool) -> Result<Database, EngineError> {
        match Self::open_logs(dir, cache, make, DBRecoveryMode::PointInTime) {
            Err(EngineError::Failed(error)) if error.contains("Column family inconsistency") => {
                tracing::warn!(error, "a log ends in the middle of a write; opening once more");
                let mode = DBRecoveryMode::TolerateCorruptedTailRecords;
                Self::open_logs(dir, cache, make, mode)
            }
            opened => opened,
        }
    }

    fn open_logs(
        dir: &Path,
        cache: &Cache,
        make: bool,
        mode: DBRecoveryMode,
    ) -> Result<Database, EngineError> {
        let mut options = Options::default();
        options.create_if_missing(make);
        options.create_missing_column_families(true);
        options.set_keep_log_file_num(INFO_LOGS_MAX);
        options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        options.set_max_background_jobs(2);
        options.set_wal_recovery_mode(mode);
        options.set_max_total_wal_size(LOG_BYTES_MAX);
        // a commit is in one log and in several families. When a log cannot be synced since the
        // disk is full, RocksDB goes on by itself and writes its families to tables, one by one and
        // without that commit; cut short, the remaining families would replay it from the log
        options.set_atomic_flush(true);
        // RocksDB opens all families or none, so those of a newer format too: then it can be
        // refused
        let held = Database::list_cf(&options, dir);
        let mut names: Vec<String> = held.unwrap_or_default();
        let known = Family::ALL.map(Family::name);
        names.retain(|name| name != "default" && !known.contains(&name.as_str()));
        let mut families: Vec<_> = Family::ALL
            .iter()
            .map(|f| ColumnFamilyDescriptor::new(f.name(), family_options(*f, cache)))
            .collect();
        families.extend(names.iter().map(|n| ColumnFamilyDescriptor::new(n, Options::default())));
        Database::open_cf_descriptors(&options, dir, families)
            .map_err(|e| locked_or_failed(dir, &e))
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

fn handle(database: &Database, family: Family) -> Result<&ColumnFamily, EngineError> {
    database
        .cf_handle(family.name())
        .ok_or_else(|| EngineError::Failed(format!("family {} is missing", family.name())))
}

fn locked_or_failed(dir: &Path, error: &rocksdb::Error) -> EngineError {
    let text = error.to_string();
    let locked = error.kind() == ErrorKind::IOError
        && (text.contains("lock hold by current process") || text.contains("While lock file"));
    if locked { EngineError::Locked { path: dir.display().to_string() } } else { failed(error) }
}

impl Engine for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let database = self.database()?;
        let value = database.get_cf(handle(&database, family)?, key).map_err(|e| failed(&e))?;
        Ok(value.map(Bytes::from))
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
        for entry in database.iterator_cf_opt(handle(&database, family)?, options, mode) {
            let (key, value) = entry.map_err(|e| failed(&e))?;
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn opened(&self) -> Result<Box<dyn Opened + '_>, EngineError> {
        Ok(Box::new(OpenedDatabase { database: self.database()?, sync: self.sync }))
    }

    /// After a failed write or flush RocksDB refuses writes until it is opened again, even when the
    /// cause is gone. Opening takes room on the disk, since the logs are written to tables. Without
    /// that room the database stays open, for reads.
    fn reopen(&self) -> Result<(), EngineError> {
        room::find(&self.dir)?;
        self.close()?;
        // a directory that is empty now has lost its disk: do not make a new database in it
        match Self::open_database(&self.dir, &self.cache, false) {
            Ok(database) => {
                self.set_access(Access::Open(Arc::new(database)));
                Ok(())
            }
            Err(error) => {
                self.set_access(Access::Closed { full: matches!(error, EngineError::Full(_)) });
                Err(error)
            }
        }
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
        let transaction = self.database.transaction_opt(&write, &options);
        Box::new(RocksTransaction { database: &self.database, transaction })
    }
}

struct RocksTransaction<'a> {
    database: &'a Database,
    transaction: rocksdb::Transaction<'a, Database>,
}

impl Transaction for RocksTransaction<'_> {
    fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let family = handle(self.database, family)?;
        let value =
            self.transaction.get_for_update_cf(family, key, true).map_err(|e| failed(&e))?;
        Ok(value.map(Bytes::from))
    }

    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let family = handle(self.database, family)?;
        self.transaction.put_cf(family, key, value).map_err(|e| failed(&e))
    }

    fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError> {
        let family = handle(self.database, family)?;
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
