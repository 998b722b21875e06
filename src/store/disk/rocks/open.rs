//! Opening the database: its options, and how its memory and its files are bounded.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    ErrorKind, OptimisticTransactionDB, Options, WriteBufferManager,
};

use super::{Database, failed};
use crate::store::disk::engine::{EngineError, Family};

/// The memory of each family for writes that are not in a table file yet.
pub(super) const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// The memory of all families for such writes together. Beyond it they are written to files.
pub(super) const WRITE_BUFFERS_BYTES: usize = 48 << 20;
/// How many write buffers of a family wait to be written to files, the one in use included, before
/// writes wait for them.
const WRITE_BUFFERS_MAX: i32 = 2;
/// A transaction compares with written buffers, which RocksDB otherwise keeps in memory for that.
/// There is one writer, so that nothing can come in between, and the smallest number will do.
const WRITTEN_BUFFER_BYTES: i64 = 1;
/// How large the write-ahead logs grow together before their content is written to tables.
pub(super) const LOG_BYTES_MAX: u64 = 64 << 20;
/// Compactions move the live values of this part of the blob files, the oldest ones, to new files;
/// this part of garbage in them begins a compaction for that alone. So dropped values are freed,
/// and values that are seldom written are seldom moved.
const BLOB_GC_AGE_CUTOFF: f64 = 0.5;
const BLOB_GC_GARBAGE_MAX: f64 = 0.5;
/// From this size on, a value that is kept with a report lies in a blob file.
const REPORT_BLOB_BYTES_MIN: u64 = 4096;
/// How many text logs RocksDB keeps about itself, and how large each grows.
const INFO_LOGS_MAX: usize = 3;
const INFO_LOG_BYTES_MAX: usize = 4 << 20;
/// The table of open files is split into 2 to the power of this, each with its part of the limit.
const OPEN_FILES_SHARD_BITS: i32 = 3;

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub struct RocksSettings {
    /// Memory that caches blocks read from the disk.
    pub cache_bytes: usize,
    /// How many data files may be open at once.
    pub data_files_max: u32,
    /// Whether commits wait for the disk.
    pub sync: bool,
}

/// What all openings of one database share.
pub(super) struct Opening {
    settings: RocksSettings,
    cache: Cache,
    buffers: WriteBufferManager,
}

impl Opening {
    pub(super) fn new(settings: RocksSettings) -> Self {
        let cache = Cache::new_lru_cache(settings.cache_bytes);
        // writes wait for full buffers of their family; waiting for the sum, RocksDB would wait for
        // buffers that it frees with a later write only
        let buffers = WriteBufferManager::new_write_buffer_manager(WRITE_BUFFERS_BYTES, false);
        Self { settings, cache, buffers }
    }

    /// A failed write may leave a part of itself at the end of a log. If opening then fails, too,
    /// after that log was written to tables, RocksDB reports a loss at the next attempt although
    /// nothing is lost. It must be told that a log may end like that.
    pub(super) fn open(&self, dir: &Path, make: bool) -> Result<Database, EngineError> {
        tolerating_ends(|mode| {
            let options = self.options(make, mode);
            let families = self.families(&options, dir, &Family::ALL);
            OptimisticTransactionDB::open_cf_descriptors(&options, dir, families)
                .map(Database::Open)
                .map_err(|error| locked_or_failed(dir, &error))
        })
    }

    /// Opens the database for reads: nothing is written, so that it works on a full disk. The logs
    /// are read into memory. A family that an older kvs did not have is left out.
    pub(super) fn open_reads(&self, dir: &Path) -> Result<Database, EngineError> {
        tolerating_ends(|mode| {
            let options = self.options(false, mode);
            let names = DB::list_cf(&options, dir).unwrap_or_default();
            let mut held = Family::ALL.to_vec();
            held.retain(|family| names.iter().any(|name| name == family.name()));
            let families = self.families(&options, dir, &held);
            DB::open_cf_descriptors_read_only(&options, dir, families, false)
                .map(Database::ReadOnly)
                .map_err(|error| locked_or_failed(dir, &error))
        })
    }

    fn options(&self, make: bool, mode: DBRecoveryMode) -> Options {
        let mut options = Options::default();
        options.create_if_missing(make);
        options.create_missing_column_families(true);
        options.set_keep_log_file_num(INFO_LOGS_MAX);
        options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        options.set_max_background_jobs(2);
        options.set_wal_recovery_mode(mode);
        options.set_max_total_wal_size(LOG_BYTES_MAX);
        options.set_max_open_files(i32::try_from(self.settings.data_files_max).unwrap_or(i32::MAX));
        options.set_table_cache_num_shard_bits(OPEN_FILES_SHARD_BITS);
        options.set_write_buffer_manager(&self.buffers);
        // a commit is in one log and in several families. When a log cannot be synced since the
        // disk is full, RocksDB goes on by itself and writes its families to tables, one by one and
        // without that commit; cut short, the remaining families would replay it from the log
        options.set_atomic_flush(true);
        options
    }

    /// These families, and those of a newer format: RocksDB opens all or none, and only then can
    /// the format be refused.
    fn families(
        &self,
        options: &Options,
        dir: &Path,
        ours: &[Family],
    ) -> Vec<ColumnFamilyDescriptor> {
        let held = DB::list_cf(options, dir);
        let mut names: Vec<String> = held.unwrap_or_default();
        let known = Family::ALL.map(Family::name);
        names.retain(|name| name != "default" && !known.contains(&name.as_str()));
        let mut families: Vec<_> = ours
            .iter()
            .map(|f| ColumnFamilyDescriptor::new(f.name(), family_options(*f, &self.cache)))
            .collect();
        families.extend(names.iter().map(|n| ColumnFamilyDescriptor::new(n, Options::default())));
        families
    }
}

fn tolerating_ends(
    open: impl Fn(DBRecoveryMode) -> Result<Database, EngineError>,
) -> Result<Database, EngineError> {
    match open(DBRecoveryMode::PointInTime) {
        Err(EngineError::Failed(error)) if error.contains("Column family inconsistency") => {
            tracing::warn!(error, "a log ends in the middle of a write; opening once more");
            open(DBRecoveryMode::TolerateCorruptedTailRecords)
        }
        opened => opened,
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
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    options.set_max_write_buffer_size_to_maintain(WRITTEN_BUFFER_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    if matches!(family, Family::Values | Family::Superseded) {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(if family == Family::Values { 0 } else { REPORT_BLOB_BYTES_MIN });
        options.set_blob_compression_type(DBCompressionType::Zstd);
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(BLOB_GC_AGE_CUTOFF);
        options.set_blob_gc_force_threshold(BLOB_GC_GARBAGE_MAX);
    }
    options
}

fn locked_or_failed(dir: &Path, error: &rocksdb::Error) -> EngineError {
    let text = error.to_string();
    let locked = error.kind() == ErrorKind::IOError
        && (text.contains("lock hold by current process") || text.contains("While lock file"));
    if locked { EngineError::Locked { path: dir.display().to_string() } } else { failed(error) }
}
