//! Unknown or empty options of `#[remote(..)]`.

use roadshow::prelude::*;

#[derive(RemoteActor)]
#[remote(handle(Get))]
struct Misspelled;

#[derive(RemoteActor)]
#[remote]
struct Bare;

#[derive(RemoteActor)]
#[remote(handles = Get)]
struct NotAList;

#[derive(RemoteActor)]
#[remote(handles(Get, Put))]
#[remote(handles(Get))]
struct Duplicate;

#[derive(RemoteMessage)]
#[remote(name = "")]
struct Nameless;

#[derive(RemoteMessage)]
#[remote(handles(Get))]
struct Message;

#[derive(RemoteData)]
#[remote(name = "one", name = "two")]
struct Data;

fn main() {}
