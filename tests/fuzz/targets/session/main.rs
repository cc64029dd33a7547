//! Sessions under arbitrary sequences of actions of their users, their links and the clock.
//!
//! Input: one byte that chooses between two sessions joined by links and one session with a hostile peer,
//! then the limits, then the steps.

#![no_main]

mod endpoint;
mod hostile;
mod joined;
mod message;
mod received;
mod sent;
mod user;

use libfuzzer_sys::fuzz_target;
use roadshow_fuzz::{Script, peak_of};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    if script.byte().is_multiple_of(2) {
        joined::run(&mut script);
    } else {
        let (fair, peak) = peak_of(|| hostile::run(&mut script));
        assert!(peak <= fair, "{peak} bytes are held, the limit is {fair}");
    }
});
