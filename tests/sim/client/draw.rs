//! The requests of a client, drawn from its generator.

use std::time::Duration;

use bytes::Bytes;
use kvs::model::{Condition, ContentType, Expected, Key, json};
use kvs::store::{Change, Entry, Lifetime, Operation, Txn, Write};
use rand::{Rng, RngExt};
use uuid::Uuid;

use super::Client;
use crate::audit::asked::Request;

/// The size of a large value: more than one chunk of a stream.
const LARGE_BYTES: usize = 20 << 10;
/// The limit for what a transaction reads, unless it is to read too much.
pub const READ_BYTES_MAX: usize = 1 << 20;

impl Client {
    pub(super) fn draw_key(&mut self) -> Key {
        let key = format!("k/{}", self.rng.random_range(0..self.load.keys));
        Key::parse(&key).expect("a key")
    }

    fn draw_uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid()
    }

    fn draw_name(&mut self) -> Option<Uuid> {
        let is_named = self.rng.random_bool(self.load.named);
        is_named.then(|| self.draw_uuid())
    }

    /// A value. No two are equal, because the auditor tells them apart by their bytes.
    fn draw_put(&mut self, over: Option<&Entry>) -> Change {
        let lifetime = self.draw_lifetime();
        if self.rng.random_bool(0.25) {
            let count = over.and_then(|entry| counted(entry.body.as_ref()?)).unwrap_or_default();
            let by: u64 = self.rng.random();
            let text = format!("{{\"count\":{},\"by\":\"{by:x}\"}}", count + 1);
            return Change::put(ContentType::json(), Bytes::from(text), lifetime);
        }
        let large = self.rng.random_bool(self.load.large);
        // Some values are stored with their header, some apart.
        let length = if large { LARGE_BYTES } else { self.rng.random_range(16..200) };
        let mut body = vec![0; length];
        self.rng.fill_bytes(&mut body);
        Change::put(ContentType::octet_stream(), Bytes::from(body), lifetime)
    }

    fn draw_lifetime(&mut self) -> Lifetime {
        if !self.rng.random_bool(self.load.ending) {
            return Lifetime::Unbounded;
        }
        let ms = match self.rng.random_range(0..10) {
            0..3 => return Lifetime::Keep,
            3..6 => self.rng.random_range(1..200),
            6..9 => self.rng.random_range(50..5_000),
            _ => self.rng.random_range(5_000..100_000),
        };
        Lifetime::For(Duration::from_millis(ms))
    }

    fn draw_change(&mut self, over: Option<&Entry>) -> Change {
        if self.rng.random_bool(0.25) { Change::Delete } else { self.draw_put(over) }
    }

    /// An expectation of any form; mostly one that holds now.
    fn draw_expected(&mut self, current: Option<&Entry>) -> Expected {
        let Some(entry) = current else {
            return match self.rng.random_range(0..10) {
                0 => Expected::Exists,
                1 => Expected::Uuid(self.draw_uuid()),
                _ => Expected::Absent,
            };
        };
        let version = entry.header.version;
        let (uuid, timestamp) = (version.uuid, version.timestamp);
        match (self.rng.random_range(0..12), &entry.body) {
            (0..3, _) => Expected::Uuid(uuid),
            (3, _) => Expected::Timestamp(timestamp),
            (4, _) => Expected::Version { uuid, timestamp },
            (5, _) => Expected::Version { uuid, timestamp: timestamp.next() },
            (6, _) => Expected::Absent,
            (7, _) => Expected::Exists,
            (8, Some(body)) => Expected::Bytes(body.clone()),
            (_, Some(body)) => match counted_otherwise(body) {
                Some(text) => Expected::Json(text),
                None => Expected::Bytes(body.clone()),
            },
            _ => Expected::Uuid(uuid),
        }
    }

    /// Waits, so that other requests can come first.
    async fn pause(&mut self) {
        let pause = self.rng.random_range(0..20);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// A write; in four of ten cases a swap.
    pub(super) async fn draw_write(&mut self) -> Request {
        let key = self.draw_key();
        let current = self.store.peek(&key).await;
        let swaps = self.rng.random_bool(0.4);
        let change = self.draw_change(current.as_ref().ok().and_then(Option::as_ref));
        let mut conditions = Vec::new();
        if swaps && let Ok(current) = current {
            conditions.push(Condition::Expect(self.draw_expected(current.as_ref())));
            self.pause().await;
        }
        Request::Write(Write { key, change, conditions, uuid: self.draw_name() })
    }

    /// A transaction over a few keys: compares of some, and writes and reads in both branches.
    pub(super) async fn draw_txn(&mut self) -> Request {
        let mut keys: Vec<Key> =
            (0..self.rng.random_range(2..=4)).map(|_| self.draw_key()).collect();
        keys.sort();
        keys.dedup();
        let mut compare = Vec::new();
        for key in &keys {
            let current = self.store.peek(key).await;
            if let Ok(current) = current
                && self.rng.random_bool(0.4)
            {
                let expected = self.draw_expected(current.as_ref());
                compare.push((key.clone(), Condition::Expect(expected)));
            }
        }
        let success = self.draw_operations(&keys, 0.7).await;
        let failure = self.draw_operations(&keys, 0.2).await;
        // Now and then it must fail in the middle.
        let reads_little = self.rng.random_bool(0.05);
        let content_bytes_max = if reads_little { 50 } else { READ_BYTES_MAX };
        self.pause().await;
        Request::Txn(Txn { compare, success, failure, uuid: self.draw_name(), content_bytes_max })
    }

    /// Reads and writes of these keys, each written at most once. A branch that deletes also puts,
    /// which shows the auditor whose delete it is.
    async fn draw_operations(&mut self, keys: &[Key], writes: f64) -> Vec<Operation> {
        let mut operations = Vec::new();
        let mut has_put = false;
        for key in keys {
            if self.rng.random_bool(0.3) {
                operations.push(Operation::Get(key.clone()));
            }
            if self.rng.random_bool(writes) {
                let current = self.store.peek(key).await.ok().flatten();
                let mut change = self.draw_change(current.as_ref());
                if change == Change::Delete && !has_put {
                    change = self.draw_put(current.as_ref());
                }
                has_put = true;
                operations.push(Operation::Write(key.clone(), change));
            }
            if self.rng.random_bool(0.3) {
                operations.push(Operation::Get(key.clone()));
            }
        }
        operations
    }

    /// Another request with the same request id.
    pub(super) fn alter(&mut self, request: Request) -> Request {
        match request {
            Request::Write(mut write) => {
                match (self.rng.random_range(0..4), &mut write.change) {
                    (0, _) => write.conditions.push(Condition::Expect(Expected::Exists)),
                    (1, Change::Put { lifetime, .. }) => {
                        *lifetime = Lifetime::For(Duration::from_secs(7));
                    }
                    (2, _) => return as_txn(write),
                    (_, Change::Delete) => write.change = self.draw_put(None),
                    (_, change) => *change = Change::Delete,
                }
                Request::Write(write)
            }
            Request::Txn(mut txn) => {
                match self.rng.random_range(0..3) {
                    0 => txn.success.push(Operation::Get(self.draw_key())),
                    1 => txn.failure.push(Operation::Get(self.draw_key())),
                    _ => txn.compare.push((self.draw_key(), Condition::Expect(Expected::Exists))),
                }
                Request::Txn(txn)
            }
        }
    }
}

/// The same write as a transaction.
fn as_txn(write: Write) -> Request {
    let Write { key, change, uuid, .. } = write;
    let success = vec![Operation::Write(key, change)];
    let (compare, failure) = (Vec::new(), Vec::new());
    Request::Txn(Txn { compare, success, failure, uuid, content_bytes_max: READ_BYTES_MAX })
}

/// The number and the name in a counter.
fn parts(body: &Bytes) -> Option<(u64, String)> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some((value.get("count")?.as_u64()?, value.get("by")?.as_str()?.to_owned()))
}

fn counted(body: &Bytes) -> Option<u64> {
    Some(parts(body)?.0)
}

/// A text that equals a counter in meaning, but not in bytes.
fn counted_otherwise(body: &Bytes) -> Option<json::Text> {
    let (count, by) = parts(body)?;
    let text = format!("{{ \"by\": \"{by}\", \"count\": {count}.0 }}");
    json::Text::new(Bytes::from(text)).ok()
}
