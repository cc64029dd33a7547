//! Reads an input as a series of choices.

/// Bytes of an input, taken from the front; zeros follow after the end.
///
/// Every choice takes a fixed number of bytes. So an input with a changed byte or a repeated part still
/// makes mostly the same choices, and mutations of the fuzzer stay meaningful.
#[derive(Clone, Debug)]
pub struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    /// Creates the script of an input.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Returns true if no input is left.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// Takes the next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Chooses a number below `count` by the next byte.
    pub fn one_of(&mut self, count: usize) -> usize {
        // An empty choice gives 0 instead of a division by zero.
        usize::from(self.byte()) % count.max(1)
    }

    /// Takes the next `count` bytes, or all that are left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// Takes all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }
}
