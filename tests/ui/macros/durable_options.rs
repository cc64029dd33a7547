//! Mistakes in `#[derive(Durable)]` that the macro sees: options and generic types.

use roadshow::prelude::*;
use roadshow::Durable;

#[derive(Durable)]
#[remote(handles(Add))]
struct OptionOfActors;

#[derive(Durable)]
#[remote(local, decides(Add))]
struct Local;

#[derive(Durable)]
#[remote(decides)]
struct NotAList;

#[derive(Durable)]
#[remote(decides(Add, Total, Add))]
struct Duplicate;

#[derive(RemoteActor)]
#[remote(decides(Add))]
struct OptionOfDurable;

#[derive(Durable)]
#[remote(decides(Add))]
struct Generic<T>(T);

fn main() {}
