//! What is particular to RocksDB: what is freed, where bytes lie, opening it again.

use rocksdb::{OptimisticTransactionDB, Options, SingleThreaded};

use super::open::{LOG_BYTES_MAX, Opening, RocksSettings, WRITE_BUFFER_BYTES};
use super::{Arc, Engine, EngineError, Family, Path, Rocks};

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
        let opened = rocks.opened().unwrap();
        let mut transaction = opened.begin();
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

#[test]
fn large_values_lie_in_files_of_their_own_compressed_where_that_pays() {
    let bytes_of = |body: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let rocks = Rocks::open(dir.path(), 1 << 20, false).unwrap();
        let opened = rocks.opened().unwrap();
        let mut transaction = opened.begin();
        for number in 0..16_u32 {
            transaction.put(Family::Values, &number.to_be_bytes(), body).unwrap();
        }
        transaction.commit().unwrap();
        drop(opened);
        // what is in the log goes to files
        rocks.reopen().unwrap();
        let files = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        let blobs = files.filter(|file| file.path().extension().is_some_and(|e| e == "blob"));
        blobs.map(|file| file.metadata().unwrap().len()).sum::<u64>()
    };
    let (text, noise) = (bytes_of(&b"all alike ".repeat(100_000)), bytes_of(&noise()));
    assert!((1..1 << 20).contains(&text), "{text} bytes for 16 MB of text");
    assert!((16 << 20..17 << 20).contains(&noise), "{noise} bytes for 16 MiB of noise");
}

/// Each log holds a little of `meta`, which on its own is never written to a table.
#[test]
fn write_ahead_logs_stay_bounded_together() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = Rocks::open(dir.path(), 1 << 20, false).unwrap();
    let megabyte = noise();
    let mut largest = 0;
    for number in 0..224_u32 {
        let opened = rocks.opened().unwrap();
        let mut transaction = opened.begin();
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

#[test]
fn what_is_open_is_opened_again_when_nobody_reads_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = Arc::new(Rocks::open(dir.path(), 1 << 20, true).unwrap());
    let put = |key: &[u8]| {
        let opened = rocks.opened().unwrap();
        let mut transaction = opened.begin();
        transaction.put(Family::Records, key, b"value").unwrap();
        transaction.commit().unwrap();
    };
    put(b"before");
    let opened = rocks.opened().unwrap();
    let reopening = std::thread::spawn({
        let rocks = Arc::clone(&rocks);
        move || rocks.reopen()
    });
    while rocks.get(Family::Records, b"before").is_ok() {
        std::thread::yield_now();
    }
    assert!(!reopening.is_finished(), "it is opened");
    let refused = rocks.get(Family::Records, b"before");
    assert!(matches!(refused, Err(EngineError::Reopening)), "{refused:?}");
    drop(opened);
    reopening.join().unwrap().unwrap();
    assert!(rocks.get(Family::Records, b"before").unwrap().is_some());
    put(b"after");
}

#[test]
fn a_family_that_an_older_kvs_did_not_have_is_added_and_until_then_empty() {
    let dir = tempfile::tempdir().unwrap();
    let names = Family::ALL.map(Family::name).into_iter().filter(|name| *name != "superseded");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let old = OptimisticTransactionDB::<SingleThreaded>::open_cf(&options, dir.path(), names);
    let old = old.unwrap();
    old.put_cf(old.cf_handle("records").unwrap(), b"key", b"value").unwrap();
    drop(old);
    let held = |database: &super::Database| {
        let read = |family| database.get(family, b"key").unwrap();
        (read(Family::Records).is_some(), read(Family::Superseded).is_some())
    };
    // on a full disk, where nothing can be added
    let settings = RocksSettings { cache_bytes: 1 << 20, data_files_max: 100, sync: false };
    let reads = Opening::new(settings).open_reads(dir.path()).unwrap();
    assert_eq!(held(&reads), (true, false));
    drop(reads);
    let rocks = Rocks::open(dir.path(), 1 << 20, false).unwrap();
    assert_eq!(held(&rocks.database().unwrap()), (true, false));
    let opened = rocks.opened().unwrap();
    let mut transaction = opened.begin();
    transaction.put(Family::Superseded, b"key", b"value").unwrap();
    transaction.commit().unwrap();
    drop(opened);
    rocks.reopen().unwrap();
    assert_eq!(held(&rocks.database().unwrap()), (true, true));
}
