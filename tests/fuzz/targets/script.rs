//! Fuzzed bytes read as a script: numbers, choices and strings from front to back.
//!
//! A mutation changes the item at its position and little behind it, and [`Pen`] writes seeds by
//! hand. At its end a script goes on with zeros.

/// The length that announces a true length in the next two bytes.
const LONG: u8 = 255;

/// The rest of a script.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The number in the next `bytes` bytes, little-endian.
    pub fn number(&mut self, bytes: u32) -> u64 {
        (0..bytes).fold(0, |number, at| number | u64::from(self.byte()) << (8 * at))
    }

    /// A choice of `count`.
    pub fn below(&mut self, count: usize) -> usize {
        let drawn = if count > 256 { self.number(2) } else { self.number(1) };
        usize::try_from(drawn).expect("two bytes") % count
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A length, then that many bytes, or fewer at the end.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            LONG => usize::try_from(self.number(2)).expect("two bytes"),
            short => usize::from(short),
        };
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Like [`Self::bytes`], as text without the bytes that are not UTF-8.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).replace('\u{fffd}', "")
    }

    /// The rest of the bytes.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Writes what [`Script`] reads.
#[derive(Default)]
pub struct Pen(Vec<u8>);

impl Pen {
    pub fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub fn number(mut self, bytes: usize, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes()[..bytes]);
        self
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        match u8::try_from(bytes.len()).ok().filter(|length| *length < LONG) {
            Some(length) => self.0.push(length),
            None => {
                let length = u16::try_from(bytes.len()).expect("a seed is short");
                self.0.push(LONG);
                self.0.extend_from_slice(&length.to_le_bytes());
            }
        }
        self.raw(bytes)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}
