//! Declarations that the macros accept, under lints that would reject careless generated code.

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

    /// Answered synchronously.
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

/// Public actor.
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

/// Public task.
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
    // An attribute on a task must also hold for the items that the macro creates.
    #[cfg(any())]
    fn never_compiled(_: NoSuchType) {}
}

/// Module with the name of its task.
pub mod square {
    /// Task whose type has another name, so that one `use` imports the function.
    #[roadshow::task(type = SquareTask)]
    #[must_use]
    pub const fn square(n: u64) -> u64 {
        n * n
    }

    /// Task with a name of two words.
    #[roadshow::task]
    #[must_use]
    pub const fn square_root(n: u64) -> u64 {
        n.isqrt()
    }
}

pub use square::{SquareTask, square};

/// Glob import of everything; the module itself takes precedence.
pub mod globs {
    /// Second module with the name of its task.
    pub mod cube {
        /// Task with the name of its module.
        #[roadshow::task]
        #[must_use]
        pub const fn cube(n: u64) -> u64 {
            n * n * n
        }
    }

    pub use cube::*;
}

/// Tasks with names that most programs use for something else.
pub mod known_names {
    /// Name of a function in the prelude.
    #[roadshow::task]
    pub const fn drop(_: u8) {}

    /// Name of a primitive type that the generated code uses.
    #[roadshow::task]
    #[must_use]
    pub const fn str(n: u8) -> u8 {
        n
    }

    /// Name of another primitive type.
    #[roadshow::task]
    #[must_use]
    pub const fn usize(n: u8) -> u8 {
        n
    }

    /// Name of an enum variant.
    #[roadshow::task]
    #[expect(non_snake_case, reason = "it is named like a variant")]
    #[must_use]
    pub const fn Some(n: u8) -> u8 {
        n
    }
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

// Types from a macro's fragment reach the other macros as one token.
item!(shortened, Vec<u8>);

#[roadshow::main]
async fn entry() -> Result<u8, Infallible> {
    Ok(ready(7).await)
}

#[roadshow::main]
async fn entry_without_await_or_result() {}

#[test]
fn names_are_paths_or_the_given_names() {
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
fn a_task_in_a_function_body_can_use_local_types() {
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
fn a_task_may_have_the_name_of_its_module_and_be_imported() {
    assert_eq!((square(3), SquareTask::call((3,))), (9, 9));
    assert_eq!(SquareTask::NAME, "ui::accepted::square::square");
    assert_eq!((globs::cube(2), globs::cube::cube::call((2,))), (8, 8));
    assert_eq!(square::square_root(9), 3);
}

#[test]
fn a_task_may_have_a_name_that_generated_code_uses() {
    known_names::drop(1);
    let tasks = [known_names::str::call((2,)), known_names::usize::call((3,)), known_names::Some::call((4,))];
    assert_eq!(tasks, [2, 3, 4]);
}

#[test]
fn an_entry_runs_and_returns() {
    assert_eq!(entry(), Ok(7));
    entry_without_await_or_result();
}
