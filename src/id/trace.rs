//! W3C trace context of a message.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use thiserror::Error;

/// Trace and span of a message's sender, as in W3C Trace Context.
///
/// The text form is that of the header `traceparent`:
///
/// ```
/// use roadshow::observe::trace::TraceContext;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = text.parse()?;
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), text);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: NonZeroU128,
    span_id: NonZeroU64,
    flags: u8,
}

/// Flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// Version of the text form.
const TEXT_VERSION: &str = "00";

impl TraceContext {
    /// Length of the encoded context in bytes.
    pub(crate) const ENCODED_BYTES: usize = 16 + 8 + 1;

    /// Creates a context; `None` if one of the ids is zero, which W3C Trace Context excludes.
    #[must_use]
    pub fn new(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        Some(Self { trace_id: NonZeroU128::new(trace_id)?, span_id: NonZeroU64::new(span_id)?, flags })
    }

    /// Id of the trace, which all of its spans share.
    #[must_use]
    pub fn trace_id(self) -> u128 {
        self.trace_id.get()
    }

    /// Id of the span.
    #[must_use]
    pub fn span_id(self) -> u64 {
        self.span_id.get()
    }

    /// Flags of the trace; bit 0 is set in a trace that is recorded.
    #[must_use]
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// Returns whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED > 0
    }

    pub(crate) fn encode(self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..16].copy_from_slice(&self.trace_id.get().to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span_id.get().to_be_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// Decodes a context; `None` if one of the ids is zero.
    pub(crate) fn decode(bytes: &[u8; Self::ENCODED_BYTES]) -> Option<Self> {
        let (trace_id, rest) = bytes.split_first_chunk()?;
        let (span_id, rest) = rest.split_first_chunk()?;
        Self::new(u128::from_be_bytes(*trace_id), u64::from_be_bytes(*span_id), *rest.first()?)
    }
}

/// Writes the value of a `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TEXT_VERSION}-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Error of a text that is no `traceparent` of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a traceparent of version 00: expected 00-TRACE-SPAN-FLAGS with 32, 16 and 2 hexadecimal digits")]
pub struct InvalidTraceContext;

/// Parses the value of a `traceparent` header.
impl FromStr for TraceContext {
    type Err = InvalidTraceContext;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut fields = text.split('-');
            let version = fields.next()?;
            let trace_id = u128::from_str_radix(hexadecimal(fields.next()?, 32)?, 16).ok()?;
            let span_id = u64::from_str_radix(hexadecimal(fields.next()?, 16)?, 16).ok()?;
            let flags = u8::from_str_radix(hexadecimal(fields.next()?, 2)?, 16).ok()?;
            let is_whole = version == TEXT_VERSION && fields.next().is_none();
            is_whole.then(|| Self::new(trace_id, span_id, flags))?
        };
        parse().ok_or(InvalidTraceContext)
    }
}

/// Returns `digits` if they are lower-case hexadecimal digits of this number.
fn hexadecimal(digits: &str, count: usize) -> Option<&str> {
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    (digits.len() == count && digits.as_bytes().iter().all(is_digit)).then_some(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::property_tests;

    fn context() -> impl Strategy<Value = TraceContext> {
        (1_u128.., 1_u64.., any::<u8>())
            .prop_map(|(trace, span, flags)| TraceContext::new(trace, span, flags).unwrap())
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn contexts_round_trip_as_bytes_and_as_text(context in context()) {
            prop_assert_eq!(TraceContext::decode(&context.encode()), Some(context));
            prop_assert_eq!(context.to_string().parse(), Ok(context));
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in "[0-9a-fA-F+-]{0,60}|.{0,60}") {
            if let Ok(context) = text.parse::<TraceContext>() {
                prop_assert_eq!(context.to_string(), text);
            }
        }
    }

    #[test]
    fn invalid_texts_are_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(InvalidTraceContext), "{text}");
        }
    }
}
