//! The disk fails or is full at each system call of a history of writes.
//!
//! Every answer is true: an acknowledged write is there, a refused one is not, and the node says so
//! when the outcome is unknown. It recovers by itself as soon as the disk works again.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kvs::clock::Clock;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use reqwest::Method;
use serde_json::json;

use super::kill_writes::{hold_the_same, reopened};
use crate::support::faults::{Errno, Failure, Faults};
use crate::support::node::Surroundings;
use crate::support::{Answer, Client, Node, SOON, Site, cluster, ensure, eventually, peer, scale};

/// How long the gate tries a sample of the calls; `long.sh faults` tries them all.
const SAMPLE_LASTS: Duration = Duration::from_secs(50);
/// Sizes of values: stored with their header, and stored in a blob file.
const SMALL: usize = 100;
const APART: usize = 20_000;
/// The size of the two large values of a history. Two of the larger size fill RocksDB's buffer, so
/// that it also writes in the background.
const LARGE: [usize; 2] = [100_000, 9 << 20];

/// The values that a key may hold, oldest first; `None` stands for no value.
type Possible = Vec<Option<Bytes>>;

/// A write under an idempotency key, to be sent again later.
struct Named {
    key: &'static str,
    uuid: String,
    value: Bytes,
    /// Its first answer, if the node accepted it.
    answer: Option<Bytes>,
}

/// The outcome of a write, as its answer states it.
#[derive(Debug, PartialEq)]
enum Said {
    Done,
    /// The write did not happen.
    Refused,
    /// The write may have happened.
    Unknown,
}

/// Reads the outcome from an answer; panics when the answer does not state one.
fn said(answer: &Answer, context: &str) -> Said {
    let text = answer.text();
    match (answer.status, answer.code().as_str()) {
        (200 | 201, _) => Said::Done,
        (404, "key_not_found") | (412, "precondition_failed") => Said::Refused,
        (503, "storage_full" | "overloaded") => {
            assert!(answer.header("retry-after").is_some(), "{context}: {text}");
            Said::Refused
        }
        (500, "internal") if text.contains("is unknown") => Said::Unknown,
        (500, "internal") if text.contains("nothing was written") => Said::Refused,
        _ => panic!("{context}: an answer that says nothing: {} {text}", answer.status),
    }
}

/// A client that plays one history again and again, and what each key may hold by its answers.
struct Script {
    client: Client,
    book: BTreeMap<&'static str, Possible>,
    named: Vec<Named>,
    rng: StdRng,
    /// Added to the message of a failed assertion.
    context: String,
    /// Whether every read must succeed, because the database stays open.
    reads_always: bool,
    unknown: usize,
    refused: usize,
}

impl Script {
    fn new(client: Client) -> Self {
        Self {
            client,
            book: BTreeMap::new(),
            named: Vec::new(),
            rng: Clock::system().rng(),
            context: "without a fault".to_owned(),
            reads_always: true,
            unknown: 0,
            refused: 0,
        }
    }

    /// Plays the history with large values of `large` bytes.
    async fn play(&mut self, large: usize) {
        for (at, key) in ["a", "b", "c"].into_iter().enumerate() {
            self.put(key, SMALL + at).await;
        }
        self.put("large/1", large).await;
        self.swap("a", SMALL).await;
        self.put("apart", APART).await;
        self.txn(SMALL).await;
        self.named("named", APART).await;
        self.read("a").await;
        self.delete("b").await;
        self.swap("apart", APART).await;
        self.put("large/2", large).await;
        self.put_briefly().await;
        self.delete("absent").await;
        self.swap("b", APART).await;
        self.read("large/1").await;
        self.txn(APART).await;
        self.put("a", APART).await;
        self.put("large/1", SMALL).await;
        self.named("named/too", SMALL).await;
        self.delete("c").await;
        self.swap("a", SMALL).await;
    }

    /// A value that no key has held before.
    fn value(&mut self, length: usize) -> Bytes {
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        bytes.into()
    }

    fn possible(&mut self, key: &'static str) -> &mut Possible {
        self.book.entry(key).or_insert_with(|| vec![None])
    }

    /// Records the answer to a write that leaves `new` in `key`.
    fn enter(&mut self, key: &'static str, new: Option<Bytes>, answer: &Answer) -> Said {
        let said = said(answer, &self.context);
        match said {
            Said::Done => *self.possible(key) = vec![new],
            Said::Refused => self.refused += 1,
            Said::Unknown => {
                self.unknown += 1;
                self.possible(key).push(new);
            }
        }
        said
    }

    async fn put(&mut self, key: &'static str, length: usize) {
        let value = self.value(length);
        let answer = self.client.put(&format!("/kv/{key}"), value.clone()).await;
        self.enter(key, Some(value), &answer);
    }

    async fn delete(&mut self, key: &'static str) {
        let answer = self.client.delete(&format!("/kv/{key}")).await;
        if answer.status == 404 {
            self.shows(key, None);
        } else {
            self.enter(key, None, &answer);
        }
    }

    /// Puts a value with a short lifetime, so that the sweep has something to do.
    async fn put_briefly(&mut self) {
        let value = self.value(APART);
        let answer = self.client.put("/kv/brief?ttl=1", value).await;
        said(&answer, &self.context);
    }

    /// Puts under an idempotency key.
    async fn named(&mut self, key: &'static str, length: usize) {
        let uuid = uuid::Builder::from_random_bytes(self.rng.random()).into_uuid().to_string();
        let named = Named { key, uuid, value: self.value(length), answer: None };
        self.named.push(named);
        self.ask(self.named.len() - 1).await;
    }

    async fn ask(&mut self, at: usize) -> Said {
        let Named { key, uuid, value, .. } = &self.named[at];
        let (key, value, path) = (*key, value.clone(), format!("/kv/{key}"));
        let name = ("idempotency-key", uuid.as_str());
        let answer = self.client.send(Method::PUT, &path, &[name], value.clone()).await;
        let again = self.named[at].answer.is_some();
        let said = if again {
            said(&answer, &self.context)
        } else {
            self.enter(key, Some(value), &answer)
        };
        if said == Said::Done {
            let named = &mut self.named[at];
            assert_eq!(answer.uuid(), named.uuid, "{}", self.context);
            let first = named.answer.get_or_insert_with(|| answer.body.clone());
            assert_eq!(*first, answer.body, "{}: another answer to a retry", self.context);
        }
        said
    }

    /// Sends each named write again: by now it has happened once, and the first answer comes again.
    async fn retry(&mut self) {
        for at in 0..self.named.len() {
            assert_eq!(self.ask(at).await, Said::Done, "{}", self.context);
        }
    }

    /// Writes one value to two keys and deletes a third in one transaction.
    async fn txn(&mut self, length: usize) {
        let value = self.value(length);
        let data = BASE64_STANDARD.encode(&value);
        let put = |key: &str| json!({"put": {"key": key, "data_base64": data}});
        let operations = json!([put("txn/1"), {"delete": {"key": "txn/3"}}, put("txn/2")]);
        let body = json!({"compare": [], "success": operations, "failure": []});
        let answer = self.client.post_json("/txn", &body).await;
        for key in ["txn/1", "txn/2"] {
            self.enter(key, Some(value.clone()), &answer);
        }
    }

    /// Reads the key and swaps its current version.
    async fn swap(&mut self, key: &'static str, length: usize) {
        let Some((etag, held)) = self.read(key).await else { return };
        let value = self.value(length);
        let condition = match &etag {
            Some(etag) => ("if-match", etag.as_str()),
            None => ("if-none-match", "*"),
        };
        let path = format!("/kv/{key}");
        let answer = self.client.send(Method::PUT, &path, &[condition], value.clone()).await;
        if answer.status == 412 {
            // an earlier write of unknown outcome has happened meanwhile
            let possible = self.possible(key);
            possible.retain(|possible| *possible != held);
            let context = &self.context;
            assert!(
                !self.book[key].is_empty(),
                "{context}: {key}: refused a swap of what is there"
            );
        }
        self.enter(key, Some(value), &answer);
    }

    /// The key's ETag and value; `None` when the node refuses the read with a reason.
    async fn read(&mut self, key: &'static str) -> Option<(Option<String>, Option<Bytes>)> {
        let answer = self.client.get(&format!("/kv/{key}")).await;
        let shown = match (answer.status, answer.code().as_str()) {
            (200, _) => (answer.header("etag").map(str::to_owned), Some(answer.body.clone())),
            (404, "key_not_found") => (None, None),
            (500, "internal") | (503, "storage_full" | "overloaded") if !self.reads_always => {
                return None;
            }
            _ => panic!("{}: {key} cannot be read: {}", self.context, answer.text()),
        };
        self.shows(key, shown.1.clone());
        Some(shown)
    }

    /// Records that a read showed `shown`; older values must not appear again.
    fn shows(&mut self, key: &'static str, shown: Option<Bytes>) {
        let context = self.context.clone();
        let possible = self.possible(key);
        let Some(at) = possible.iter().position(|possible| *possible == shown) else {
            let told = |value: &Option<Bytes>| value.as_ref().map(Bytes::len);
            let expected: Vec<_> = possible.iter().map(told).collect();
            panic!("{context}: {key} has {:?} bytes, not {expected:?}", told(&shown));
        };
        possible.drain(..at);
    }

    /// Reads every key; from now on each must hold the value just read.
    async fn settle(&mut self) {
        self.reads_always = true;
        for key in self.book.keys().copied().collect::<Vec<_>>() {
            self.read(key).await;
            self.possible(key).truncate(1);
        }
        let context = &self.context;
        assert!(self.book.get("txn/1") == self.book.get("txn/2"), "{context}: a part of a txn");
    }

    /// Waits until the node accepts writes again by itself.
    async fn recovers(&mut self) {
        let (client, context) = (self.client.clone(), self.context.clone());
        eventually(SOON, &format!("{context}: the node takes writes"), async || {
            let answer = client.put("/kv/probe", "x").await;
            let said = said(&answer, &context);
            ensure(said == Said::Done, || format!("{said:?}: {}", answer.text()))
        })
        .await;
    }
}

/// A node whose system calls can be made to fail; `None` without a C compiler.
async fn faulty(site: &Site, name: &str, seeds: &[&Node]) -> Option<(Node, Faults)> {
    let mut place = site.place(name, seeds);
    let faults = Faults::new(&place.dir, &place.data_dir())
        .inspect_err(|error| eprintln!("SKIPPED: failing disks need a C compiler: {error}"))
        .ok()?;
    let environment = faults.environment.clone();
    place.surround(Surroundings { environment, ..Surroundings::default() });
    for words in ["storage failed", "the disk is full", "request failed"] {
        place.bear(words);
    }
    Some((place.start().await, faults))
}

/// How the disk fails in a round: a name, the error, and the number of failing calls.
type Kind = (&'static str, Errno, u64);
const FULL_ONCE: Kind = ("ENOSPC once", Errno::Full, 1);
const KINDS: [Kind; 4] = [
    ("EIO once", Errno::Io, 1),
    FULL_ONCE,
    ("EIO until healed", Errno::Io, u64::MAX),
    ("ENOSPC until healed", Errno::Full, u64::MAX),
];
/// Rounds in which the sync of a commit fails, and then RocksDB's recovery from that.
const CUT_SHORT_ROUNDS: usize = 20;
/// A second failure, during the recovery, comes at most this many calls after a single one.
const AGAIN_MAX: u64 = 100;

/// A node and the script that knows what it must hold.
struct Rounds {
    node: Node,
    faults: Faults,
    script: Script,
    fired: BTreeMap<char, usize>,
}

impl Rounds {
    /// A node that has played one history without a failure; `None` without a C compiler.
    async fn begin() -> Option<Self> {
        let (node, faults) = faulty(&Site::alone(), "n1", &[]).await?;
        let mut script = Script::new(node.client.clone());
        script.play(LARGE[0]).await;
        script.named.clear();
        Some(Self { node, faults, script, fired: BTreeMap::new() })
    }

    /// The number of calls until a second failure; 0 for no second failure.
    fn draw_again(&mut self, (_, _, count): Kind) -> u64 {
        let twice = count == 1 && self.script.rng.random();
        if twice { self.script.rng.random_range(1..AGAIN_MAX) } else { 0 }
    }

    /// Plays the history with a failure after `after` calls and another one `again` calls later,
    /// then checks the node's answers and its recovery.
    async fn round(mut self, large: usize, after: u64, kind: Kind, again: u64) -> Self {
        let failed = self.faults.failed();
        let half = self.script.rng.random();
        self.arm(&format!("large: {large}"), after, kind, (again, half));
        self.script.play(large).await;
        self.faults.heal();
        if self.faults.failed() > failed {
            *self.fired.entry(self.faults.last()).or_default() += 1;
        }
        self.check().await
    }

    /// Makes the log sync of one named commit fail.
    async fn unsynced_round(mut self, again: u64) -> Self {
        for key in ["a", "b", "c"] {
            self.script.put(key, SMALL).await;
        }
        let unknown = self.script.unknown;
        // the first call writes the log
        self.arm("unsynced", 1, FULL_ONCE, (again, true));
        self.script.named("named", APART).await;
        assert!(self.script.unknown > unknown, "the log was synced");
        // returns only when the store is open again
        self.script.put("a", SMALL).await;
        self.faults.heal();
        self.check().await
    }

    /// Makes calls fail from now on; failed assertions will describe the fault.
    fn arm(&mut self, what: &str, after: u64, kind: Kind, (again, half): (u64, bool)) {
        let (name, error, count) = kind;
        let context = format!("{name} after {after} calls, again: {again}, half: {half}, {what}");
        self.script.context = context;
        // with a full disk the database does not close
        self.script.reads_always = count == u64::MAX;
        self.faults.fail(Failure { after, count, again, error, half });
    }

    /// Checks that the node recovers, and that reads and retries are right before and after a kill.
    async fn check(mut self) -> Self {
        self.script.recovers().await;
        self.script.settle().await;
        self.script.retry().await;
        self.script.settle().await;
        let fingerprint = self.node.client.fingerprint().await;
        self.node.kill();
        self.node = reopened(self.node, &fingerprint, &self.script.context).await;
        self.script.client = self.node.client.clone();
        self.script.settle().await;
        self.script.retry().await;
        self.script.settle().await;
        self.script.named.clear();
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_reports_and_survives_disk_faults() {
    let Some(mut rounds) = Rounds::begin().await else { return };
    let mut calls = [0, 0];
    for (calls, large) in calls.iter_mut().zip(LARGE) {
        rounds.script.play(large).await;
        let before = rounds.faults.calls();
        rounds.script.play(large).await;
        *calls = rounds.faults.calls() - before;
        assert!(*calls > 30, "{calls} calls");
    }
    rounds.script.named.clear();
    let mut played = 0;
    if scale() > 1 {
        let all = (0..LARGE.len()).flat_map(|size| (0..calls[size]).map(move |at| (size, at)));
        for (size, after) in all {
            for kind in KINDS {
                let again = rounds.draw_again(kind);
                rounds = rounds.round(LARGE[size], after, kind, again).await;
                played += 1;
            }
        }
    } else {
        let mut rng = Clock::system().rng();
        let began = Instant::now();
        while began.elapsed() < SAMPLE_LASTS {
            let size = rng.random_range(0..LARGE.len());
            let after = rng.random_range(0..calls[size]);
            let kind = KINDS[rng.random_range(0..KINDS.len())];
            let again = rounds.draw_again(kind);
            rounds = rounds.round(LARGE[size], after, kind, again).await;
            played += 1;
        }
    }
    let Rounds { script, fired, .. } = rounds;
    let (unknown, refused) = (script.unknown, script.refused);
    eprintln!(
        "{played} rounds of {calls:?} calls: {unknown} unknown, {refused} refused, {fired:?}"
    );
    assert!(unknown > 0 && refused > 0, "no fault was noticed");
    // the calls that open, write, sync and allocate
    assert!(scale() == 1 || fired.len() > 3, "little has failed: {fired:?}");
}

/// RocksDB recovers by itself from a full disk; here it fails again during that recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_log_was_not_synced_is_there_whole_or_not_at_all() {
    let Some(mut rounds) = Rounds::begin().await else { return };
    for _ in 0..CUT_SHORT_ROUNDS * scale() {
        let again = rounds.script.rng.random_range(20..80);
        rounds = rounds.unsynced_round(again).await;
    }
}

/// A member recovers from disk faults and catches up without disturbing the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_fails_catches_up_by_itself() {
    let site = Site::clustered();
    let first = site.node("n1", &[]).await;
    let Some((second, faults)) = faulty(&site, "n2", &[&first]).await else { return };
    cluster::converged(&[&first, &second], SOON).await;
    let mut script = Script::new(second.client.clone());
    for (name, error, count) in KINDS {
        name.clone_into(&mut script.context);
        script.reads_always = false;
        let failed = faults.failed();
        faults.fail(Failure { after: 5, count, again: 0, error, half: true });
        for number in 0..20 {
            let path = format!("/kv/of-the-first/{number}");
            let answer = first.client.put(&path, name).await;
            assert!(answer.status < 300, "{}", answer.text());
        }
        script.play(LARGE[0]).await;
        assert!(faults.failed() > failed, "{name}: nothing failed");
        faults.heal();
        script.recovers().await;
        cluster::converged(&[&first, &second], SOON).await;
        script.settle().await;
    }
    let mut nodes = [first, second];
    for node in &mut nodes {
        node.stop().await;
    }
    hold_the_same(&nodes, peer::secret(&site).digest_key()).await;
}

/// A small file system, unmounted on drop.
pub struct SmallDisk(pub std::path::PathBuf);

impl SmallDisk {
    pub fn new(dir: std::path::PathBuf, megabytes: u32) -> Result<Self, String> {
        std::fs::create_dir_all(&dir).expect("a directory");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&dir)
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
        if mounted.status.success() { Ok(Self(dir)) } else { Err(said) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // a failed unmount leaves a mount that a reboot removes
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_for_room_on_a_full_disk() {
    let site = Site::alone();
    let mut place = site.place("n1", &[]);
    let disk = SmallDisk::new(place.dir.join("disk"), 256);
    let disk = match disk {
        Ok(disk) => disk,
        Err(error) => return eprintln!("SKIPPED: a small disk cannot be mounted: {error}"),
    };
    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![1; 160 << 20]).expect("there is room");
    place.set("node.data_dir", disk.0.join("data").to_str().expect("text"));
    // it meets the end of the disk itself
    place.set("storage.free_bytes_min", 0);
    for words in ["storage failed", "the disk is full", "request failed"] {
        place.bear(words);
    }
    let node = place.start().await;
    let mut script = Script::new(node.client.clone());
    "a full disk".clone_into(&mut script.context);
    let keys: Vec<&'static str> =
        (0..200).map(|number| &*format!("fill/{number}").leak()).collect();
    for key in &keys {
        if script.refused + script.unknown == 0 {
            script.put(key, 1 << 20).await;
        }
    }
    // now it refuses writes at once, with the reason, and serves reads
    eventually(SOON, "the disk is full", async || {
        let answer = node.client.put("/kv/more", vec![2; 1 << 20]).await;
        ensure(answer.code() == "storage_full", || answer.text())
    })
    .await;
    node.client.put("/kv/more", "x").await.refused(503, "storage_full");
    assert_eq!(node.client.delete("/kv/fill/0").await.code(), "storage_full");
    for key in &keys {
        script.read(key).await;
    }
    std::fs::remove_file(&filler).expect("it is ours");
    script.recovers().await;
    script.settle().await;
    let node = node.kill_and_restart().await;
    script.client = node.client.clone();
    script.settle().await;
    assert!(node.log().matches("the disk is full").count() < 10, "each try is logged");
}
