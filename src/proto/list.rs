//! Lists in frames, bounded in number as frames are in bytes.
//!
//! An item in memory may take thirty times what it takes in a frame: a range of no bytes has three
//! there and eighty here. Without this bound a frame of 17 MiB, which packed has two thousand
//! bytes, asks for most of a gigabyte.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// The most items of one list. The longest that a node sends are the ids of a request, which
/// [`Limits::STANDARD`](super::reconcile::Limits::STANDARD) holds at a fourth of this.
pub const LIST_ITEMS_MAX: usize = 16_384;

/// Reads a list of at most [`LIST_ITEMS_MAX`] items; for serde's `deserialize_with`.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    from.deserialize_seq(List(PhantomData))
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {LIST_ITEMS_MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            if items.len() == LIST_ITEMS_MAX {
                return Err(A::Error::custom(format_args!("more than {LIST_ITEMS_MAX} items")));
            }
            items.push(item);
        }
        Ok(items)
    }
}
