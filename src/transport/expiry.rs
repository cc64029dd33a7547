//! When a certificate is valid: the one field of it that TLS looks at and does not tell.
//!
//! A certificate is a sequence of DER (RFC 5280, section 4.1), of which this reads as much as comes before
//! the field. It is asked about certificates that TLS has verified; whatever else it is given, it says nothing.

use std::ops::Range;
use std::time::{Duration, SystemTime};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version of a certificate, which the first one had not.
const VERSION: u8 = 0xa0;

/// How soon a clock that was set forward, or a machine that has slept, is noticed.
const WALL_CLOCK_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Waits until a moment of the machine's clock has passed, which timers do not follow.
pub(crate) async fn wait_until(moment: SystemTime) {
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        // Behind that moment, whatever the timer takes it for.
        tokio::time::sleep((left + Duration::from_millis(1)).min(WALL_CLOCK_POLL_INTERVAL)).await;
    }
}

/// When the certificate with this DER encoding ceases to be valid.
pub(super) fn expiry(der: &[u8]) -> Option<SystemTime> {
    validity(der).map(|validity| validity.end)
}

/// The time in which the certificate with this DER encoding is valid.
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

/// Elements of DER, one behind the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag, which is in one byte, and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            short @ 0..=0x7f => (usize::from(short), rest),
            // Four bytes of length are more than any certificate has.
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

    /// The content of the next element, which is of that kind.
    fn expect(&mut self, kind: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == kind).map(|(_, content)| content)
    }
}

/// The moment that a time of a certificate is: to the second, and in UTC.
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let (year, rest) = match tag {
        // RFC 5280, section 4.1.2.5.1: two digits are of the years from 1950 on.
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

/// Days of the Gregorian calendar. Years are counted from March on, so that a leap day is the last of one.
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
        let mut params = CertificateParams::new(["somebody".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = until.into();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_the_one_that_was_written() {
        const DAY: u64 = 24 * 60 * 60;
        // Today's, leap days, and both sides of the year from which years have four digits.
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
    fn what_is_cut_off_or_of_another_kind_has_no_end() {
        let whole = certificate(SystemTime::UNIX_EPOCH + Duration::from_secs(1_785_283_199));
        for cut in 0..whole.len() {
            assert_eq!(expiry(&whole[..cut]), None, "{cut}");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 0xff;
            // Whatever it says, it does not panic.
            let _ = expiry(&other);
        }
        for text in ["20260230", "20261301000000Z", "20260132000000Z", "2026010100000Z", "20260101000000", ""]
        {
            assert_eq!(time((GENERALIZED_TIME, text.as_bytes())), None, "{text}");
        }
    }
}
