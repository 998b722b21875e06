//! The part of the feed that the disk holds.
//!
//! Changes lie there in blocks of consecutive positions, one or more for each group of writes. What
//! the blocks take is bounded: the writer drops the oldest in the transaction that adds new ones.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::{Announcement, Cause, FeedEntry, FeedPosition};
use crate::clock::Clock;
use crate::model::Key;
use crate::store::disk::engine::{Engine, Family};
use crate::store::disk::layout::{self, FeedItem};
use crate::store::{ReadError, Store};

/// A block holds at most this many changes, so that decoding one is bounded.
const BLOCK_ENTRIES_MAX: usize = 256;

/// A block on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Block {
    /// The position of its first change.
    pub first: u64,
    /// What it takes, key and value, before compression.
    pub bytes: u64,
}

/// Which blocks the disk holds.
///
/// Invariant: `blocks` ascend, all below `next`; `bytes` is their sum, at most `bytes_max` or one
/// group more.
#[derive(Debug)]
pub(in crate::store) struct Window {
    epoch: u64,
    /// The first position of the epoch. Blocks before it are not served.
    begin: u64,
    /// The boot of the machine in which the epoch began.
    boot: Option<String>,
    /// The position of the next change.
    next: u64,
    blocks: VecDeque<Block>,
    bytes: u64,
    bytes_max: u64,
}

/// How a group changes the window: computed before its commit, applied after it.
#[derive(Debug, Default)]
pub(in crate::store) struct WindowChange {
    entries: Vec<FeedEntry>,
    /// The blocks to write, with their bytes.
    pub added: Vec<(Block, Vec<u8>)>,
    /// The blocks to delete, from the oldest on.
    pub dropped: Vec<Block>,
    /// The epoch that begins behind these changes, and its first position.
    epoch: Option<(u64, u64)>,
}

impl Window {
    /// Finds out what the disk holds. Begins a new epoch where there is none, and where the machine
    /// has booted since the last one began and `boot` says which boot this is: commits did not wait
    /// for the disk then, so changes that a reader has seen may be lost.
    pub fn open(
        engine: &dyn Engine,
        clock: &Clock,
        boot: Option<&str>,
        bytes_max: u64,
    ) -> Result<Self, ReadError> {
        let blocks = VecDeque::new();
        let mut window =
            Self { epoch: 0, begin: 1, boot: None, next: 1, blocks, bytes: 0, bytes_max };
        let is_held = window.load(engine)?;
        if is_held && boot.is_none_or(|boot| window.boot.as_deref() == Some(boot)) {
            return Ok(window);
        }
        window.begin_epoch(engine, clock, boot)
    }

    fn begin_epoch(
        mut self,
        engine: &dyn Engine,
        clock: &Clock,
        boot: Option<&str>,
    ) -> Result<Self, ReadError> {
        (self.epoch, self.begin) = (u64::from_be_bytes(clock.random()), self.next);
        self.boot = boot.map(str::to_owned);
        let entry = layout::encode_meta(&(self.epoch, self.begin, boot));
        let opened = engine.opened()?;
        let mut transaction = opened.begin();
        transaction.put(Family::Meta, layout::FEED_EPOCH.as_bytes(), &entry)?;
        transaction.commit()?;
        Ok(self)
    }

    /// The position of the next change.
    pub fn next_position(&self) -> u64 {
        self.next
    }

    /// Reads which blocks there are and which epoch, also after a commit whose outcome was unknown.
    /// Returns whether the disk names an epoch.
    pub fn load(&mut self, engine: &dyn Engine) -> Result<bool, ReadError> {
        let (mut blocks, mut damaged) = (VecDeque::new(), Ok(()));
        engine.scan(
            Family::Feed,
            &[],
            None,
            &mut |key, value| match layout::feed_position(key) {
                Ok(first) => {
                    let bytes = (key.len() + value.len()) as u64;
                    blocks.push_back(Block { first, bytes });
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    damaged = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        damaged?;
        let last: Option<&Block> = blocks.back();
        let value = match last {
            Some(last) => engine.get(Family::Feed, &layout::feed_key(last.first))?,
            None => None,
        };
        let held: Option<(u64, u64, Option<String>)> =
            crate::store::meta(engine, layout::FEED_EPOCH)?;
        let is_held = held.is_some();
        if let Some((epoch, begin, boot)) = held {
            (self.epoch, self.begin, self.boot) = (epoch, begin, boot);
        }
        self.next = match (last, value) {
            (Some(last), Some(value)) => last.first + layout::decode_feed(&value)?.0.len() as u64,
            // where everything was dropped, positions must not be given again
            _ => self.next.max(self.begin),
        };
        self.bytes = blocks.iter().map(|block| block.bytes).sum();
        self.blocks = blocks;
        Ok(is_held)
    }

    /// Gives positions to `announcements` and decides which blocks to write and to drop.
    pub fn plan(&self, announcements: Vec<Announcement>) -> WindowChange {
        let mut change = WindowChange::default();
        let mut bytes = self.bytes;
        for (at, chunk) in (0_u64..).zip(announcements.chunks(BLOCK_ENTRIES_MAX)) {
            let items: Vec<_> = chunk.iter().map(item).collect();
            let reports: Vec<_> = chunk.iter().filter_map(|a| a.cause.numbers().1).collect();
            let value = layout::encode_feed(&items, &reports);
            let first = self.next + at * BLOCK_ENTRIES_MAX as u64;
            let size = (layout::feed_key(first).len() + value.len()) as u64;
            bytes += size;
            change.added.push((Block { first, bytes: size }, value));
        }
        let mut oldest = self.blocks.iter();
        while bytes > self.bytes_max
            && let Some(block) = oldest.next()
        {
            bytes -= block.bytes;
            change.dropped.push(*block);
        }
        change.entries = announcements
            .into_iter()
            .zip(self.next..)
            .map(|(announced, position)| {
                let Announcement { key, header, cause, body } = announced;
                FeedEntry { position, key, header, cause, body }
            })
            .collect();
        change
    }

    /// Adds to `change` that a new epoch begins behind it. Returns the meta entry that says
    /// so after a restart.
    pub fn plan_epoch(&self, change: &mut WindowChange, clock: &Clock) -> Vec<u8> {
        let begin = self.next + change.entries.len() as u64;
        let epoch = u64::from_be_bytes(clock.random());
        change.epoch = Some((epoch, begin));
        layout::encode_meta(&(epoch, begin, &self.boot))
    }

    /// Follows the commit of a group; gives its changes.
    pub fn apply(&mut self, change: WindowChange) -> Vec<FeedEntry> {
        for block in &change.dropped {
            let oldest = self.blocks.pop_front();
            assert_eq!(oldest, Some(*block), "the window drops its oldest block");
            self.bytes -= block.bytes;
        }
        for (block, _) in &change.added {
            assert!(
                self.blocks.back().is_none_or(|last| last.first < block.first),
                "positions of the feed ascend"
            );
            self.blocks.push_back(*block);
            self.bytes += block.bytes;
        }
        if let Some(first) = change.entries.first() {
            assert_eq!(first.position, self.next, "positions of the feed are consecutive");
        }
        self.next += change.entries.len() as u64;
        if let Some((epoch, begin)) = change.epoch {
            assert_eq!(begin, self.next, "an epoch begins behind the changes of its group");
            (self.epoch, self.begin) = (epoch, begin);
        }
        change.entries
    }

    /// The position of the latest change.
    pub fn latest(&self) -> FeedPosition {
        FeedPosition { epoch: self.epoch, position: self.next - 1 }
    }

    /// The position of the block that holds the first change after `after`; `None` when the window
    /// does not hold all changes since.
    fn block_after(&self, after: FeedPosition) -> Option<u64> {
        let wanted = after.position.checked_add(1)?;
        if after.epoch != self.epoch || wanted < self.begin || wanted > self.next {
            return None;
        }
        if wanted == self.next {
            return Some(wanted);
        }
        let behind = self.blocks.partition_point(|block| block.first <= wanted);
        self.blocks.get(behind.checked_sub(1)?).map(|block| block.first)
    }

    /// Checks that this is what the disk holds.
    ///
    /// # Panics
    /// When it is not, or an invariant does not hold: a bug.
    pub fn check_invariants(&self, engine: &dyn Engine) -> Result<(), ReadError> {
        let (blocks, boot) = (VecDeque::new(), None);
        let mut held = Self { blocks, boot, bytes: 0, ..*self };
        held.load(engine)?;
        assert_eq!(held.blocks, self.blocks, "the window holds the blocks of the disk");
        assert_eq!((held.next, held.bytes), (self.next, self.bytes));
        Ok(())
    }
}

fn item(announced: &Announcement) -> FeedItem<'_> {
    FeedItem {
        cause: announced.cause.numbers().0,
        key: announced.key.as_str().into(),
        header: std::borrow::Cow::Borrowed(&announced.header),
    }
}

fn entry(
    position: u64,
    item: FeedItem<'_>,
    reports: &mut impl Iterator<Item = u64>,
) -> Result<FeedEntry, ReadError> {
    let damaged = |problem: String| ReadError::Damaged { key: "feed".to_owned(), problem };
    let cause = Cause::of_number(item.cause, reports)
        .ok_or_else(|| damaged(format!("unknown cause {}", item.cause)))?;
    let key = Key::parse(&item.key).map_err(|error| damaged(error.to_string()))?;
    Ok(FeedEntry { position, key, header: item.header.into_owned(), cause, body: None })
}

impl Store {
    /// The position of the latest change. Everything up to it is readable.
    #[must_use]
    pub fn feed_position(&self) -> FeedPosition {
        self.shared.feed.window().latest()
    }

    /// Changes after `after`, in order: at least `entries_max` of them where there are so many, and
    /// at most 255 more. `None`: not all changes since are kept any more, or `after` is of another
    /// epoch; the reader must read the records themselves and go on from
    /// [`Self::feed_position`]. May block.
    ///
    /// # Errors
    /// When storage fails or an entry is damaged.
    pub fn read_feed(
        &self,
        after: FeedPosition,
        entries_max: usize,
    ) -> Result<Option<Vec<FeedEntry>>, ReadError> {
        let Some(first) = self.shared.feed.window().block_after(after) else { return Ok(None) };
        let (mut found, mut damaged) = (Vec::new(), Ok(()));
        let from = layout::feed_key(first);
        self.shared.engine.scan(Family::Feed, &from, None, &mut |key, value| {
            match block_entries(key, value) {
                Ok(entries) => found.extend(entries.filter(|e| e.position > after.position)),
                Err(error) => damaged = Err(error),
            }
            let done = damaged.is_err() || found.len() >= entries_max;
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        damaged?;
        // the window may have passed the reader meanwhile
        let is_whole = found.first().is_none_or(|first| first.position == after.position + 1);
        Ok(is_whole.then_some(found))
    }
}

/// The changes of a block, from its key and its value.
pub(in crate::store) fn block_entries(
    key: &[u8],
    value: &[u8],
) -> Result<impl Iterator<Item = FeedEntry>, ReadError> {
    let (items, reports) = layout::decode_feed(value)?;
    let mut reports = reports.into_iter();
    let entries = items.into_iter().zip(layout::feed_position(key)?..);
    let entries: Result<Vec<_>, _> =
        entries.map(|(item, at)| entry(at, item, &mut reports)).collect();
    Ok(entries?.into_iter())
}
