//! A union does not say what it holds.

use roadshow::prelude::*;

#[derive(RemoteData)]
union Bits {
    whole: u32,
    part: f32,
}

fn main() {}
