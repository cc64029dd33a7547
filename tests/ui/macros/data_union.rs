//! Unions do not record which field they hold.

use roadshow::prelude::*;

#[derive(RemoteData)]
union Bits {
    whole: u32,
    part: f32,
}

fn main() {}
