//! Sessions under arbitrary programs of what their users, their links and the clock may do.
//!
//! Input: one byte that chooses between two sessions that are joined by a pipe and one session whose
//! peer sends whatever it likes, then the steps.

#![no_main]

mod hostile;
mod joined;
mod side;

use libfuzzer_sys::fuzz_target;
use roadshow_fuzz::Script;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    if script.byte().is_multiple_of(2) {
        joined::run(&mut script);
    } else {
        hostile::run(&mut script);
    }
});
