//! How much memory answers take: the one place for these figures.
//!
//! The figures are upper bounds where memory is reserved before a read, and good estimates where a
//! buffer is sized for its text.

use crate::model::Header;

/// How many times the size of its content an envelope takes: the content, and its text in base64
/// or JSON.
pub(crate) const CONTENT_FACTOR: usize = 3;

/// The most that an item of a page takes besides its content: key and type, all escaped.
pub(crate) const ITEM_BYTES_MAX: usize = 8 << 10;

/// The most that a revision, or the result of a `get`, takes besides its key and content.
pub(crate) const REVISION_BYTES_MAX: usize = 2 << 10;

/// The most that the result of a write takes besides its key.
pub(crate) const WRITTEN_BYTES_MAX: usize = 256;

/// How many times its size a key takes at most as JSON text: each byte as `\u0001`.
pub(crate) const KEY_TEXT_FACTOR: usize = 6;

/// What a text reserves for an envelope besides its content.
const ENVELOPE_TEXT_BYTES: usize = 1024;

/// The length to reserve for the text of an envelope with `content_bytes` of content.
pub(crate) fn envelope_text_bytes(content_bytes: usize) -> usize {
    content_bytes / 3 * 4 + ENVELOPE_TEXT_BYTES
}

/// The size in bytes of a record's content; 0 for a tombstone.
pub(crate) fn content_bytes(header: &Header) -> usize {
    usize::try_from(header.content.size()).unwrap_or(usize::MAX)
}
