//! Lists in frames. Promises a bound on their items, as frames have one on their bytes.
//!
//! An item can take thirty times as many bytes in memory as in a frame: an empty range takes three
//! there and eighty here. Without this bound a frame of 17 MiB, which compresses to two thousand
//! bytes, would allocate most of a gigabyte.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// The most items of one list. The longest lists that a node sends are the ids of a request: a
/// fourth of this, by `SessionLimits::STANDARD`.
pub const LIST_ITEMS_MAX: usize = 16_384;

/// Reads a list of at most [`LIST_ITEMS_MAX`] items; for `deserialize_with` of serde.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    from.deserialize_seq(BoundedList(PhantomData))
}

struct BoundedList<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedList<T> {
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
