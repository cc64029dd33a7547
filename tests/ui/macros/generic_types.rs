//! Remote types have one name, so they cannot be generic.

use roadshow::prelude::*;

#[derive(RemoteActor)]
struct Cache<K>(K);

#[derive(RemoteMessage)]
struct Put<K, V> {
    key: K,
    value: V,
}

#[derive(RemoteData)]
struct Borrowed<'a>(&'a str);

fn main() {}
