//! The RocksDB engine, on `OptimisticTransactionDB`. The one place that knows rocksdb.
//!
//! Small records lie in `records`, compressed on the lower levels; large values lie in blob files
//! of `values`, so that compaction does not move them.

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBCompressionType, Direction,
    ErrorKind, IteratorMode, OptimisticTransactionDB, OptimisticTransactionOptions, Options,
    ReadOptions, SingleThreaded, WriteOptions,
};

use super::engine::{Engine, EngineError, Family, Transaction, Visit};

/// Memory for writes that are not yet in a table file, a family.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Write-ahead logs are kept up to this size together; what they hold is then written to tables.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// The part of blob files, the oldest ones, whose live values a compaction moves to new files, and
/// the part of garbage in them from which on one is begun for that alone. So dropped values are
/// freed, and values that are seldom written are seldom moved.
const BLOB_GC_AGE_CUTOFF: f64 = 0.5;
const BLOB_GC_GARBAGE_MAX: f64 = 0.5;
/// Log files that RocksDB itself keeps, and how large each grows.
const INFO_LOGS_MAX: usize = 3;
const INFO_LOG_BYTES_MAX: usize = 4 << 20;

/// An open database.
pub struct Rocks {
    db: OptimisticTransactionDB<SingleThreaded>,
    sync: bool,
}

impl std::fmt::Debug for Rocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rocks")
    }
}

fn failed(error: &rocksdb::Error) -> EngineError {
    EngineError::Failed(error.to_string())
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
    /// Opens the database in `dir`, or makes it. `sync`: commits wait for the disk.
    ///
    /// # Errors
    /// When another process has it open, or RocksDB cannot open it.
    pub fn open(dir: &Path, cache_bytes: usize, sync: bool) -> Result<Self, EngineError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_keep_log_file_num(INFO_LOGS_MAX);
        options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        options.set_max_background_jobs(2);
        // a family that is seldom written would keep every log since its last write
        options.set_max_total_wal_size(LOG_BYTES_MAX);
        let cache = Cache::new_lru_cache(cache_bytes);
        // families of a newer format must be opened too, for the format to be read and refused
        let held = OptimisticTransactionDB::<SingleThreaded>::list_cf(&options, dir);
        let mut names: Vec<String> = held.unwrap_or_default();
        let known = Family::ALL.map(Family::name);
        names.retain(|name| name != "default" && !known.contains(&name.as_str()));
        let mut families: Vec<_> = Family::ALL
            .iter()
            .map(|f| ColumnFamilyDescriptor::new(f.name(), family_options(*f, &cache)))
            .collect();
        families.extend(names.iter().map(|n| ColumnFamilyDescriptor::new(n, Options::default())));
        let db = OptimisticTransactionDB::open_cf_descriptors(&options, dir, families)
            .map_err(|e| locked_or_failed(dir, &e))?;
        Ok(Self { db, sync })
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, EngineError> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| EngineError::Failed(format!("family {} is missing", family.name())))
    }
}

fn locked_or_failed(dir: &Path, error: &rocksdb::Error) -> EngineError {
    let text = error.to_string();
    let locked = error.kind() == ErrorKind::IOError
        && (text.contains("lock hold by current process") || text.contains("While lock file"));
    if locked {
        EngineError::Locked { path: dir.display().to_string() }
    } else {
        EngineError::Failed(text)
    }
}

impl Engine for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.db.get_cf(self.family(family)?, key).map_err(|e| failed(&e))?;
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
        for entry in self.db.iterator_cf_opt(self.family(family)?, options, mode) {
            let (key, value) = entry.map_err(|e| failed(&e))?;
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn begin(&self) -> Box<dyn Transaction + '_> {
        let mut write = WriteOptions::default();
        write.set_sync(self.sync);
        let options = OptimisticTransactionOptions::default();
        Box::new(RocksTransaction {
            engine: self,
            transaction: self.db.transaction_opt(&write, &options),
        })
    }
}

struct RocksTransaction<'a> {
    engine: &'a Rocks,
    transaction: rocksdb::Transaction<'a, OptimisticTransactionDB<SingleThreaded>>,
}

impl Transaction for RocksTransaction<'_> {
    fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let family = self.engine.family(family)?;
        let value =
            self.transaction.get_for_update_cf(family, key, true).map_err(|e| failed(&e))?;
        Ok(value.map(Bytes::from))
    }

    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let family = self.engine.family(family)?;
        self.transaction.put_cf(family, key, value).map_err(|e| failed(&e))
    }

    fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError> {
        let family = self.engine.family(family)?;
        self.transaction.delete_cf(family, key).map_err(|e| failed(&e))
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        self.transaction.commit().map_err(|error| {
            // there is one writer, and nobody to conflict with
            debug_assert!(
                !matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain),
                "a conflict between transactions of the one writer: {error}"
            );
            failed(&error)
        })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::{Engine, Family, LOG_BYTES_MAX, Path, Rocks, WRITE_BUFFER_BYTES};

    /// What the write-ahead logs in `dir` take together.
    fn log_bytes(dir: &Path) -> u64 {
        let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        // one that is dropped meanwhile counts no more
        logs.map(|file| file.metadata().map_or(0, |found| found.len())).sum()
    }

    /// A megabyte that does not compress.
    fn noise() -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// A value that is overwritten again and again, as histories drop their oldest revisions.
    #[test]
    fn dropped_values_are_freed() {
        let dir = tempfile::tempdir().unwrap();
        let rocks = Rocks::open(dir.path(), 1 << 20, false).unwrap();
        let megabyte = noise();
        for number in 0..512_u32 {
            let mut transaction = rocks.begin();
            transaction.put(Family::Values, &number.to_be_bytes(), &megabyte).unwrap();
            if let Some(dropped) = number.checked_sub(8) {
                transaction.delete(Family::Values, &dropped.to_be_bytes()).unwrap();
            }
            transaction.commit().unwrap();
        }
        // 8 MiB are alive; what waits for a compaction is bounded
        let files = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        let bytes: u64 = files.map(|file| file.metadata().map_or(0, |found| found.len())).sum();
        assert!(bytes < 256 << 20, "{bytes} bytes for 8 MiB, after 512 MiB were written");
    }

    /// Each log holds a little of `meta`, which on its own is never written to a table.
    #[test]
    fn write_ahead_logs_stay_bounded_together() {
        let dir = tempfile::tempdir().unwrap();
        let rocks = Rocks::open(dir.path(), 1 << 20, false).unwrap();
        let megabyte = noise();
        let mut largest = 0;
        for number in 0..224_u32 {
            let mut transaction = rocks.begin();
            let key = number.to_be_bytes();
            let family = if number % 2 == 0 { Family::Records } else { Family::Values };
            transaction.put(family, &key, &megabyte).unwrap();
            transaction.put(Family::Meta, b"last", &key).unwrap();
            transaction.commit().unwrap();
            largest = largest.max(log_bytes(dir.path()));
        }
        assert!(largest > 2 * WRITE_BUFFER_BYTES as u64, "{largest} bytes: the logs were seen");
        assert!(largest < LOG_BYTES_MAX * 2, "{largest} bytes");
    }
}
