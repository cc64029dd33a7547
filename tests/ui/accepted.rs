//! What the macros accept, under lints that would reject what they add.

#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    unused,
    unused_qualifications
)]
#![deny(
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes_without_reason,
    clippy::use_self
)]

pub mod schemas;

use std::convert::Infallible;
use std::future::ready;

use roadshow::TaskFn;
use roadshow::prelude::*;

/// Messages of every visibility.
pub mod messages {
    use roadshow::prelude::*;

    /// Answered at once.
    #[derive(Clone, Copy, Debug, Message, RemoteMessage, Serialize, Deserialize)]
    #[rtype(result = "u8")]
    pub struct AtOnce;

    /// Answered by a future.
    #[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
    #[rtype(result = "Vec<u8>")]
    pub(crate) struct Later;

    #[derive(Message, RemoteMessage, Serialize, Deserialize)]
    #[rtype(result = "()")]
    #[remote(name = "tests::WithActor")]
    pub(super) struct WithActor;
}

/// A public actor.
#[derive(Clone, Copy, Debug, RemoteActor)]
#[remote(handles(messages::AtOnce, crate::accepted::messages::Later))]
#[remote(handles(messages::WithActor))]
pub struct Open;

impl Actor for Open {
    type Context = Context<Self>;
}

impl Spawn for Open {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

impl Handler<messages::AtOnce> for Open {
    type Result = u8;

    fn handle(&mut self, _: messages::AtOnce, _: &mut Context<Self>) -> u8 {
        1
    }
}

impl Handler<messages::Later> for Open {
    type Result = ResponseFuture<Vec<u8>>;

    fn handle(&mut self, _: messages::Later, _: &mut Context<Self>) -> Self::Result {
        Box::pin(ready(vec![]))
    }
}

impl Handler<messages::WithActor> for Open {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: messages::WithActor, _: &mut Context<Self>) -> Self::Result {
        Box::pin(ready(()).into_actor(self))
    }
}

#[derive(RemoteActor)]
#[remote(local, name = "tests::Hidden", handles())]
struct Hidden;

impl Actor for Hidden {
    type Context = Context<Self>;
}

/// A public task.
#[roadshow::task]
#[must_use]
pub const fn twice(n: u8) -> u8 {
    2 * n
}

mod inner {
    #[roadshow::task(parallel = 3)]
    pub(super) fn sum(mut numbers: Vec<u64>, (a, b): (u64, u64), _: u8) -> u64 {
        numbers.push(a * b);
        numbers.into_iter().sum()
    }

    #[roadshow::task(name = "tests::nothing")]
    pub(in crate::accepted) const fn nothing() {}

    #[roadshow::task]
    pub(super) const fn r#match(r#type: u8) -> u8 {
        r#type
    }

    #[roadshow::task]
    #[cfg(any())]
    fn never_compiled(_: NoSuchType) {}
}

macro_rules! item {
    ($name:ident, $ty:ty) => {
        #[roadshow::task]
        fn $name(mut value: $ty) -> $ty {
            value.truncate(1);
            value
        }

        #[derive(Serialize, Deserialize, RemoteData)]
        struct Wrapped($ty);
    };
}

item!(shortened, Vec<u8>);

#[roadshow::main]
async fn entry() -> Result<u8, Infallible> {
    Ok(ready(7).await)
}

#[roadshow::main]
async fn entry_without_await_or_result() {}

#[test]
fn names_are_paths_or_what_was_given() {
    assert_eq!(<Open as RemoteActor>::NAME, "ui::accepted::Open");
    assert_eq!(<Hidden as RemoteActor>::NAME, "tests::Hidden");
    assert_eq!(<messages::Later as RemoteMessage>::NAME, "ui::accepted::messages::Later");
    assert_eq!(<messages::WithActor as RemoteMessage>::NAME, "tests::WithActor");
    assert_eq!(inner::r#match::NAME, "ui::accepted::inner::match");
    assert_eq!(inner::nothing::NAME, "tests::nothing");
    assert_eq!(Wrapped::NAME, "ui::accepted::Wrapped");
    assert_eq!(Wrapped::SCHEMA, "struct Wrapped(Vec<u8>)");
    assert_eq!(Wrapped(vec![1]).0, shortened(vec![1, 2]));
}

#[test]
fn a_task_is_still_a_function() {
    assert_eq!(twice(2), 4);
    assert_eq!(twice::call((2,)), 4);
    assert_eq!(inner::sum(vec![1], (2, 3), 4), inner::sum::call((vec![1], (2, 3), 4)));
    assert_eq!((twice::PARALLEL, inner::sum::PARALLEL), (None, Some(3)));
    inner::nothing();
    assert_eq!(inner::r#match(5), 5);
}

#[test]
fn a_task_of_a_function_body_knows_the_types_there() {
    #[derive(Serialize, Deserialize)]
    struct Local(String);

    #[roadshow::task]
    fn unwrap(local: Local) -> String {
        local.0
    }

    let there = unwrap::task(Local("there".to_owned()));
    assert!(size_of_val(&there) >= size_of::<Local>());
    assert_eq!(unwrap(Local("here".to_owned())), "here");
}

#[test]
fn an_entry_runs_and_returns() {
    assert_eq!(entry(), Ok(7));
    entry_without_await_or_result();
}
