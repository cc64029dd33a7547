//! Validity of certificates, which TLS checks but does not expose.
//!
//! A certificate is a DER sequence (RFC 5280, section 4.1). This module decodes only the fields up
//! to the validity. It expects certificates that TLS has verified, and returns `None` for any other
//! input.

use std::ops::Range;
use std::time::{Duration, SystemTime};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Tag of the version, which version 1 certificates omit.
const VERSION: u8 = 0xa0;

/// Interval of wall-clock checks, which notice a changed clock or a sleep of the machine.
const WALL_CLOCK_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Waits until a moment of the wall clock has passed, which timers do not follow.
pub(crate) async fn wait_until(moment: SystemTime) {
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        // One millisecond more: the moment must have passed on the wall clock when the timer fires.
        tokio::time::sleep((left + Duration::from_millis(1)).min(WALL_CLOCK_POLL_INTERVAL)).await;
    }
}

/// Returns the end of the validity of the certificate with this DER encoding.
pub(super) fn expiry(der: &[u8]) -> Option<SystemTime> {
    validity(der).map(|validity| validity.end)
}

/// Returns the validity of the certificate with this DER encoding.
pub(super) fn validity(der: &[u8]) -> Option<Range<SystemTime>> {
    let mut certificate = Der(Der(der).expect(SEQUENCE)?);
    let mut signed = Der(certificate.expect(SEQUENCE)?);
    if signed.0.first() == Some(&VERSION) {
        signed.next()?;
    }
    signed.expect(INTEGER)?;
    let (_algorithm, _issuer) = (signed.expect(SEQUENCE)?, signed.expect(SEQUENCE)?);
    let mut validity = Der(signed.expect(SEQUENCE)?);
    let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
    Some(not_before..not_after)
}

/// Consecutive DER elements.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next element: its one-byte tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            short @ 0..=0x7f => (usize::from(short), rest),
            // Longer lengths exceed any certificate.
            long @ (0x81..=0x84) => {
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Takes the content of the next element, which must have this tag.
    fn expect(&mut self, kind: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == kind).map(|(_, content)| content)
    }
}

/// Converts a time of a certificate, in seconds and UTC.
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let (year, rest) = match tag {
        // RFC 5280, section 4.1.2.5.1: two-digit years start at 1950.
        UTC_TIME => {
            let (digits, rest) = text.split_at_checked(2)?;
            let short = number(digits)?;
            (if short < 50 { 2000 + short } else { 1900 + short }, rest)
        }
        GENERALIZED_TIME => {
            let (digits, rest) = text.split_at_checked(4)?;
            (number(digits)?, rest)
        }
        _ => return None,
    };
    let digits = rest.strip_suffix(b"Z").filter(|digits| digits.len() == 10)?;
    let mut pairs = digits.chunks_exact(2).map(number);
    let mut pair = || pairs.next().flatten();
    let (month, day, hour, minute, second) = (pair()?, pair()?, pair()?, pair()?, pair()?);
    // The formula below gives a result for any numbers, so impossible ones are rejected here.
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// Days of the Gregorian calendar. Years start in March, so that a leap day is the last of its
/// year.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = if month < 3 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    const UNTIL_1970: u64 = 719_468;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - UNTIL_1970
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(until: SystemTime) -> Vec<u8> {
        let mut params = CertificateParams::new(["host".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = until.into();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_decoded_end_equals_the_encoded_one() {
        const DAY: u64 = 24 * 60 * 60;
        // Today, leap days, and both sides of 2050, when the encoding of years changes.
        for seconds in
            [1, 951_782_400, 951_868_799, 1_785_283_199, 2_524_607_999, 2_524_608_000, 4_107_542_400]
        {
            for seconds in [seconds, seconds + DAY, seconds + 60 * DAY] {
                let until = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                assert_eq!(expiry(&certificate(until)), Some(until), "{seconds}");
                assert_eq!(validity(&certificate(until)), Some(SystemTime::UNIX_EPOCH..until), "{seconds}");
            }
        }
    }

    #[test]
    fn truncated_or_foreign_input_has_no_end() {
        let whole = certificate(SystemTime::UNIX_EPOCH + Duration::from_secs(1_785_283_199));
        for cut in 0..whole.len() {
            assert_eq!(expiry(&whole[..cut]), None, "{cut}");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 0xff;
            // The result may be anything, but there is no panic.
            let _ = expiry(&other);
        }
        for text in ["20260230", "20261301000000Z", "20260132000000Z", "2026010100000Z", "20260101000000", ""]
        {
            assert_eq!(time((GENERALIZED_TIME, text.as_bytes())), None, "{text}");
        }
    }
}
