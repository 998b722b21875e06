//! `kill -9` under every kind of request: each acknowledged write is there or was replaced by the
//! current one, transactions are whole, and retries get their first answers.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use kvs::clock::Clock;
use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::kill_writes::reopened_by_turns;
use super::mixed_load::{
    self, Acked, Fate, Learned, Made, Named, accepted, answered_alike, keys, micros, now, token_of,
};
use crate::support::{Client, Site, scale};

const ROUNDS: usize = 10;
/// The most answers before a round's kill.
const ANSWERS_MAX: usize = 400;
/// How many requests of earlier rounds are sent again after a kill.
const OLD_RETRIES: usize = 100;

/// What the clients of all rounds have learned.
#[derive(Default)]
struct Book {
    fates: BTreeMap<String, Fate>,
    /// Named requests with an answer.
    answered: Vec<Named>,
    /// Named requests of the last round without an answer.
    open: Vec<Named>,
    writes: usize,
    retries: usize,
    /// How many unanswered requests were accepted when sent again.
    resolved: usize,
}

/// The content of a key, and the interval in which it was read.
#[derive(Debug, Default)]
struct Found {
    token: Option<String>,
    uuid: String,
    timestamp: u64,
    expires_at: Option<u64>,
    asked_at: u64,
    answered_at: u64,
}

async fn look(client: &Client, key: &str) -> Found {
    // an absent value was deleted or expired before this read
    let asked_at = now();
    let mut found = Found { asked_at, timestamp: asked_at, ..Found::default() };
    let value = client.get(&format!("/kv/{key}")).await;
    if value.status == 200 {
        found.token = Some(token_of(&value.text()));
        value.header("etag").expect("a tag").trim_matches('"').clone_into(&mut found.uuid);
        let timestamp = value.header("kvs-timestamp").and_then(|text| text.parse().ok());
        found.timestamp = timestamp.expect("a timestamp");
        found.expires_at = value.header("kvs-expires-at").map(micros);
    } else {
        assert_eq!(value.status, 404, "{key}: {}", value.text());
    }
    found.answered_at = now();
    found
}

impl Book {
    fn take(&mut self, learned: Vec<Learned>) {
        self.open.clear();
        for learned in learned {
            self.writes += learned.writes;
            self.retries += learned.retries;
            let (answered, open) = learned.named.into_iter().partition(|n| n.answer.is_some());
            self.answered.extend::<Vec<_>>(answered);
            self.open.extend::<Vec<_>>(open);
            for (spot, fate) in learned.book {
                if spot.starts_with(&format!("own/{}/", learned.number)) {
                    self.fates.insert(spot, fate);
                } else if spot.starts_with("shared/") {
                    let held = self.fates.entry(spot).or_default();
                    held.newest(fate.acked);
                    held.under_way.extend(fate.under_way);
                }
            }
        }
    }

    /// Checks that each spot holds its last acknowledged write or an unanswered one, or is empty
    /// because that has expired. Later checks start from what this one finds.
    async fn verify(&mut self, client: &Client) {
        for (spot, fate) in &mut self.fates {
            let mut founds = Vec::new();
            for key in keys(spot) {
                founds.push(look(client, &key).await);
            }
            let whole = founds.windows(2).all(|two| two[0].token == two[1].token);
            assert!(whole, "{spot} is torn: {founds:#?}, {fate:?}");
            let found = founds.swap_remove(0);
            if !fate.allows(&found) {
                let history = client.get(&format!("/history/{}", keys(spot)[0])).await.text();
                panic!("{spot} is {found:?}: {fate:#?}; {history}");
            }
            fate.settle(spot, found);
        }
    }

    /// Sends requests of unknown outcome again: each gets an answer, and a retry gets it again.
    async fn resolve(&mut self, client: &Client) {
        for mut named in std::mem::take(&mut self.open) {
            let answer = named.request.send(client).await.expect("an answer");
            let named_uuid = named.request.uuid.clone().expect("a name");
            let refused = !(200..300).contains(&answer.status);
            if refused {
                assert!(matches!(answer.status, 404 | 412), "{named:?}: {}", answer.text());
            }
            if refused || answer.json()["succeeded"] == false {
                // a request that was accepted before the kill would get that answer again
                for key in keys(&named.spot) {
                    let found = revisions(client, &key, &named_uuid).await;
                    assert!(found.is_empty(), "{named:?} took place: {found:?}");
                }
            }
            if refused {
                continue;
            }
            self.resolved += 1;
            named.answer = Some((answer.status, answer.body.clone()));
            answered_alike(client, &named).await.expect("an answer");
            let fate = self.fates.entry(named.spot.clone()).or_default();
            match accepted(&answer, &named.made) {
                // no other client writes here; a transaction's answer has no version for a delete
                Some(acked) if named.spot.starts_with("own/") => fate.acked = Some(acked),
                acked => fate.newest(acked),
            }
            for key in keys(&named.spot) {
                once(client, &key, &named_uuid, &named.made).await;
            }
            self.answered.push(named);
        }
        self.verify(client).await;
    }

    /// Sends answered requests again: each gets its first answer.
    async fn retry(&mut self, client: &Client, last_round: usize) {
        let (old, new) = self.answered.split_at(last_round);
        let mut rng = Clock::system().rng();
        let old = old.sample(&mut rng, OLD_RETRIES);
        let all: Vec<_> = old.chain(new).collect();
        for some in all.chunks(16) {
            let sent = some.iter().map(|named| answered_alike(client, named));
            join_all(sent).await.into_iter().for_each(|sent| sent.expect("an answer"));
        }
        self.retries += all.len();
        // and the retries changed nothing
        self.verify(client).await;
    }
}

/// The revisions of a key that have this uuid.
async fn revisions(client: &Client, key: &str, uuid: &str) -> Vec<Value> {
    let answer = client.get(&format!("/history/{key}")).await;
    if answer.status == 404 {
        return Vec::new();
    }
    let mut all = answer.expect(200).json()["revisions"].as_array().expect("revisions").clone();
    all.retain(|revision| revision["uuid"] == uuid);
    all
}

/// Checks that the key has at most one revision `uuid`, with the content that its request made.
async fn once(client: &Client, key: &str, uuid: &str, made: &Made) {
    let those = revisions(client, key, uuid).await;
    assert!(those.len() < 2, "{key}: {uuid} took place more than once: {those:?}");
    for revision in those {
        assert_eq!(revision["deleted"], made.token.is_none(), "{key}: {revision}");
    }
}

impl From<Found> for Acked {
    fn from(found: Found) -> Self {
        let Found { token, uuid, timestamp, expires_at, .. } = found;
        Self { token, uuid, timestamp, expires_at }
    }
}

impl Fate {
    fn newest(&mut self, acked: Option<Acked>) {
        let held = self.acked.as_ref().map_or(0, |held| held.timestamp);
        if let Some(acked) = acked.filter(|new| new.timestamp > held) {
            self.acked = Some(acked);
        }
    }

    /// Takes what the spot was found to hold, which [`Fate::allows`], for its last write.
    ///
    /// An absence counts from the moment it was found, even when the last acknowledged write was
    /// a delete: a put and a second delete may have followed without an answer, and the put's
    /// answer, got by a retry, is older than the absence.
    fn settle(&mut self, spot: &str, found: Found) {
        match self.acked.as_ref().filter(|acked| acked.token == found.token) {
            Some(acked) if found.token.is_some() => {
                let same = acked.uuid == found.uuid && acked.expires_at == found.expires_at;
                assert!(same, "{spot}: another version: {found:?}, {self:?}");
            }
            _ => self.acked = Some(found.into()),
        }
        self.under_way.clear();
    }

    /// Whether the spot may hold `found`.
    fn allows(&self, found: &Found) -> bool {
        let unexpired = |at: Option<u64>| at.is_none_or(|at| found.asked_at < at);
        let over = |at: Option<u64>| at.is_some_and(|at| at <= found.answered_at);
        let last = match &self.acked {
            None => found.token.is_none(),
            Some(acked) if found.token.is_none() => acked.token.is_none() || over(acked.expires_at),
            Some(acked) => acked.token == found.token && unexpired(acked.expires_at),
        };
        let earliest = |at: u64, ttl_ms: Option<u64>| ttl_ms.map(|ms| at + ms * 1000);
        last || self.under_way.iter().any(|write| {
            write.made.token == found.token
                || (found.token.is_none() && over(earliest(write.sent_at, write.made.ttl_ms)))
        })
    }
}

#[test]
fn an_absence_is_later_than_the_answer_to_an_earlier_put() {
    let acked = |token: Option<&str>, timestamp| Acked {
        token: token.map(str::to_owned),
        uuid: String::new(),
        timestamp,
        expires_at: None,
    };
    let absent = |asked_at| Found { timestamp: asked_at, asked_at, ..Found::default() };
    let mut fate = Fate { acked: Some(acked(None, 1)), under_way: Vec::new() };
    assert!(fate.allows(&absent(4)));
    fate.settle("shared/one/0", absent(4));
    // a put at 2 and a delete at 3 were committed without an answer; the put is sent again
    fate.newest(Some(acked(Some("0-0-0-10"), 2)));
    assert!(fate.allows(&absent(5)), "{fate:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_under_mixed_load_loses_no_write_tears_no_transaction_and_changes_no_answer() {
    let site = Site::alone();
    let mut rng = Clock::system().rng();
    let mut book = Book::default();
    let mut node = site.node("n1", &[]).await;
    for round in 0..ROUNDS * scale() {
        let last_round = book.answered.len();
        let running = mixed_load::start(&node.client, 2 * round, &book.fates);
        running.reaches(rng.random_range(1..ANSWERS_MAX)).await;
        node.kill();
        book.take(running.end().await);
        node = node.restart().await;
        book.verify(&node.client).await;
        book.resolve(&node.client).await;
        book.retry(&node.client, last_round).await;
        let more = async |client: &Client| {
            let running = mixed_load::start(client, 2 * round + 1, &book.fates);
            running.reaches(ANSWERS_MAX / 4).await;
            book.take(running.stop().await);
        };
        node = reopened_by_turns(node, round, more).await;
        book.verify(&node.client).await;
    }
    println!(
        "{} writes, {} retries, {} unanswered requests that were then accepted",
        book.writes, book.retries, book.resolved
    );
    assert!(
        book.writes > 20 * ROUNDS && book.retries > 0 && book.resolved > 0,
        "too little happened"
    );
}
