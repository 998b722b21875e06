//! The pass in key order: each record with its hash, its value, its expiry and its revisions.
//!
//! Works on chunks of keys, as revisions and large values lie in families of their own, in the same
//! order of keys.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Check, RESTORE, problem_of, shown};
use crate::model::{Content, Header, Version};
use crate::proto::digest::{Digest, ElementKey, Sum};
use crate::proto::stability::floor;
use crate::store::checked_key;
use crate::store::disk::engine::{EngineError, Family};
use crate::store::disk::layout::{self, Body, Stored};
use crate::store::disk::split;

/// How many records a chunk has at most, and about how many revisions.
const CHUNK_RECORDS_MAX: usize = 1024;
const CHUNK_REVISIONS_MAX: u64 = 16 << 10;

const WRITE_AGAIN: &str = "write the key again (`kvs put`), with the value that another member or \
                           a backup has";
const HISTORY: &str = "the key's history is not whole; its present value is not concerned";
const ROOM: &str = "it takes room on the disk and does no other harm";
const NEVER_DROPPED: &str = "the record stays until the key is written again, though the floor \
                             passes it";
const PASSED: &str = "write the key again and delete it (`kvs put`, `kvs del`): other members have \
                      dropped it, so fingerprints differ until then";
const NEVER_SWEPT: &str = "the value ends in time, but its bytes stay until the key is written \
                           again (`kvs touch`, `kvs put`, `kvs del`)";

/// The records of a range of keys, and what must lie beside them.
#[derive(Default)]
struct Chunk {
    /// Ascending by key.
    records: Vec<ChunkRecord>,
    /// The values that must lie apart, by their keys there.
    apart: BTreeMap<Vec<u8>, Content>,
    /// The first key behind the range.
    next: Option<Vec<u8>>,
}

struct ChunkRecord {
    key: Vec<u8>,
    /// Nothing of a record that cannot be decoded.
    held: Option<HeldRecord>,
}

struct HeldRecord {
    version: Version,
    /// The numbers of its revisions, `[first, next)`.
    revisions: (u64, u64),
    /// How many of them were met, and the version of the last of these.
    met: (u64, Option<Version>),
}

/// The digest as a node builds it, and the sum of all records as it should be.
struct Sums {
    key: ElementKey,
    digest: Digest,
    computed: Sum,
}

impl Check<'_> {
    /// Verifies records, revisions and values; `key` is that of the digest.
    pub(super) fn records(&mut self, key: Option<ElementKey>) -> Result<(), EngineError> {
        let mut sums =
            key.map(|key| Sums { digest: Digest::new(key.clone()), computed: Sum::default(), key });
        let mut from = Vec::new();
        loop {
            let mut chunk = self.chunk(&from, sums.as_mut())?;
            let to = chunk.next.take();
            self.revisions(&mut chunk, &from, to.as_deref())?;
            self.values(&mut chunk, &from, to.as_deref())?;
            self.missing(&chunk);
            match to {
                Some(next) => from = next,
                None => break,
            }
        }
        if let Some(sums) = sums {
            let root = sums.digest.root();
            self.done.fingerprint = Some(root.fingerprint());
            if root != sums.computed {
                let problem = "the digest is not the sum of the records".to_owned();
                self.found(Family::Records, "", problem, RESTORE);
            }
        }
        Ok(())
    }

    fn chunk(&mut self, from: &[u8], mut sums: Option<&mut Sums>) -> Result<Chunk, EngineError> {
        let (mut chunk, mut revisions) = (Chunk::default(), 0);
        let engine = self.engine;
        engine.scan(Family::Records, from, None, &mut |key, bytes| {
            if chunk.records.len() >= CHUNK_RECORDS_MAX || revisions >= CHUNK_REVISIONS_MAX {
                chunk.next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            self.count();
            let held = self.record(key, bytes, &mut chunk.apart, sums.as_deref_mut());
            if let Some(HeldRecord { revisions: (first, next), .. }) = &held {
                revisions += next.saturating_sub(*first);
            }
            chunk.records.push(ChunkRecord { key: key.to_vec(), held });
            ControlFlow::Continue(())
        })?;
        Ok(chunk)
    }

    /// Verifies an entry of `records`.
    fn record(
        &mut self,
        key: &[u8],
        bytes: &[u8],
        apart: &mut BTreeMap<Vec<u8>, Content>,
        sums: Option<&mut Sums>,
    ) -> Option<HeldRecord> {
        let stored = self.decoded(Family::Records, key, bytes, RESTORE)?;
        self.done.counts.add(stored.is_dead());
        if let Some(sums) = sums {
            sums.digest.append(key, &sums.key.element(key, &stored.hash));
            sums.computed.add(&sums.key.element(key, &stored.header.hash()));
        }
        self.content(Family::Records, key, &stored, WRITE_AGAIN, apart);
        self.expiry_of(key, &stored.header, &stored.body);
        self.dead_of(key, &stored.header);
        let (first, next) = stored.revisions;
        if first > next {
            let problem = format!("its revisions are numbered from {first} to {next}");
            self.found(Family::Records, &shown(key), problem, RESTORE);
        }
        let version = stored.header.version;
        Some(HeldRecord { version, revisions: stored.revisions, met: (0, None) })
    }

    /// Decodes an entry of `records` or `history` and verifies its key and its hash.
    fn decoded(
        &mut self,
        family: Family,
        key: &[u8],
        bytes: &[u8],
        advice: &'static str,
    ) -> Option<Stored> {
        let stored =
            checked_key(key).and_then(|_| Stored::decode_for(key, &Bytes::copy_from_slice(bytes)));
        match stored {
            Ok(stored) => {
                if stored.header.hash() != stored.hash {
                    let problem = "its hash is not that of its header".to_owned();
                    self.found(family, &shown(key), problem, advice);
                }
                Some(stored)
            }
            Err(error) => {
                self.found(family, &shown(key), problem_of(&error), advice);
                None
            }
        }
    }

    /// Verifies the value of `stored`, or notes where it must lie.
    fn content(
        &mut self,
        family: Family,
        key: &[u8],
        stored: &Stored,
        advice: &'static str,
        apart: &mut BTreeMap<Vec<u8>, Content>,
    ) {
        let content = &stored.header.content;
        let is_value = *content != Content::Tombstone;
        let problem = match &stored.body {
            Body::Inline(bytes) if names(content, bytes) => return,
            Body::Inline(_) => "its value is not the one that its header names",
            // an empty one, too, where all values lie apart
            Body::Apart => {
                if let Ok(key) = checked_key(key) {
                    apart.insert(layout::blob_key(&key, &stored.hash), content.clone());
                }
                return;
            }
            Body::Swept if is_value && stored.header.expires_at.is_some() => return,
            Body::Swept => "its value is gone, and it does not expire",
        };
        self.found(family, &shown(key), problem.to_owned(), advice);
    }

    /// Verifies that the index of expiry knows a value that expires.
    fn expiry_of(&mut self, key: &[u8], header: &Header, body: &Body) {
        let Some(at) = header.expires_at.filter(|_| *body != Body::Swept) else { return };
        let Ok(name) = checked_key(key) else { return };
        match self.engine.get(Family::Expiry, &layout::expiry_key(at, &name)) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let problem = format!("the index of expiry lacks it, at {}", at.rfc3339());
                self.found(Family::Expiry, name.as_str(), problem, NEVER_SWEPT);
            }
            Err(error) => {
                self.found(Family::Expiry, name.as_str(), error.to_string(), NEVER_SWEPT);
            }
        }
    }

    /// Verifies that the floor has not passed a record that dies, and that the index of the dead
    /// knows it.
    fn dead_of(&mut self, key: &[u8], header: &Header) {
        let Some(at) = floor::goes_at(header) else { return };
        let Ok(name) = checked_key(key) else { return };
        if at <= self.floor {
            let problem = format!("it is dead, and the floor has passed it, at {}", at.0.rfc3339());
            return self.found(Family::Records, name.as_str(), problem, PASSED);
        }
        if !self.indexes_dead {
            return;
        }
        match self.engine.get(Family::Dead, &layout::expiry_key(at.0, &name)) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let problem = format!("the index of the dead lacks it, at {}", at.0.rfc3339());
                self.found(Family::Dead, name.as_str(), problem, NEVER_DROPPED);
            }
            Err(error) => {
                self.found(Family::Dead, name.as_str(), error.to_string(), NEVER_DROPPED);
            }
        }
    }

    /// Verifies the revisions of a chunk.
    fn revisions(
        &mut self,
        chunk: &mut Chunk,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), EngineError> {
        let engine = self.engine;
        engine.scan(Family::History, from, to, &mut |entry, bytes| {
            self.count();
            self.revision(chunk, entry, bytes);
            ControlFlow::Continue(())
        })
    }

    fn revision(&mut self, chunk: &mut Chunk, entry: &[u8], bytes: &[u8]) {
        let Some((key, number)) = split::revision_key(entry) else {
            let problem = "its key is not that of a revision".to_owned();
            return self.found(Family::History, &shown(entry), problem, ROOM);
        };
        let Chunk { records, apart, .. } = chunk;
        let at = records.binary_search_by(|record| record.key.as_slice().cmp(key));
        let Some(record) = at.ok().and_then(|at| records.get_mut(at)) else {
            let problem = format!("revision {number} is of a key that has no record");
            return self.found(Family::History, &shown(key), problem, ROOM);
        };
        // nothing is known of the revisions of a record that cannot be decoded
        let Some(held) = &mut record.held else { return };
        let (first, next) = held.revisions;
        if !(first..next).contains(&number) {
            let problem = format!("its record does not name revision {number}");
            return self.found(Family::History, &shown(key), problem, ROOM);
        }
        self.done.revisions += 1;
        held.met.0 += 1;
        let Some(stored) = self.decoded(Family::History, key, bytes, HISTORY) else { return };
        let version = stored.header.version;
        if held.met.1.is_some_and(|before| version < before) || version > held.version {
            let problem = format!("revision {number} is newer than what followed it");
            self.found(Family::History, &shown(key), problem, HISTORY);
        }
        held.met.1 = Some(version);
        self.content(Family::History, key, &stored, HISTORY, apart);
    }

    /// Verifies the large values of a chunk.
    fn values(
        &mut self,
        chunk: &mut Chunk,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), EngineError> {
        let engine = self.engine;
        engine.scan(Family::Values, from, to, &mut |entry, bytes| {
            self.count();
            let key = shown(split::blob_key(entry).unwrap_or(entry));
            match chunk.apart.remove(entry) {
                Some(content) if names(&content, bytes) => self.done.values += 1,
                Some(_) => {
                    let problem = "it is not the value that its record names".to_owned();
                    self.found(Family::Values, &key, problem, WRITE_AGAIN);
                }
                None => {
                    let problem = "no record and no revision names this value".to_owned();
                    self.found(Family::Values, &key, problem, ROOM);
                }
            }
            ControlFlow::Continue(())
        })
    }

    /// Names what a chunk should have, and has not.
    fn missing(&mut self, chunk: &Chunk) {
        for record in &chunk.records {
            let Some(held) = &record.held else { continue };
            let (first, next) = held.revisions;
            let missing = next.saturating_sub(first).saturating_sub(held.met.0);
            if missing > 0 {
                let problem = format!("{missing} of the revisions {first} to {next} are missing");
                self.found(Family::History, &shown(&record.key), problem, HISTORY);
            }
        }
        for entry in chunk.apart.keys() {
            let key = shown(split::blob_key(entry).unwrap_or(entry));
            let problem = "the value of its record, or of a revision, is missing".to_owned();
            self.found(Family::Values, &key, problem, WRITE_AGAIN);
        }
    }
}

/// Whether `content` names the value `bytes`.
pub(super) fn names(content: &Content, bytes: &[u8]) -> bool {
    match content {
        Content::Tombstone => bytes.is_empty(),
        Content::Value { size, hash, .. } => {
            *size == bytes.len() as u64 && blake3::hash(bytes) == *hash
        }
    }
}
