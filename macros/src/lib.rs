//! Derive and attribute macros of roadshow; use them through the crate `roadshow`.
//!
//! Each macro has a file: parse, check, generate. A failed check points at the token to change and says
//! what to write instead. Generated code names everything by a path from `::roadshow`, or from the path
//! in `crate = path`. It contains no `unsafe`, and registers itself, so that a worker has the
//! registrations of its driver without a manual list.
//!
//! The behaviour of the generated code is in `roadshow`'s module `registry`.

mod actor;
mod data;
mod durable;
mod entry;
mod import;
mod message;
mod name;
mod nested;
mod options;
mod task;
mod tokens;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, ItemFn, Result, parse_macro_input};

/// Makes an actix actor reachable from other processes.
///
/// The actor keeps its own `Actor` and `Handler` impls, with `Context<Self>` as its context.
/// `#[remote(..)]` on the type takes:
///
/// - `handles(A, B)`: the messages that the actor handles remotely, by path. Each derives
///   [`RemoteMessage`](macro@RemoteMessage), and the actor has an ordinary `Handler` for it.
/// - `name = ".."`: the name by which both sides know the actor, instead of its module path.
/// - `local`: the actor is never spawned remotely, and needs no `Spawn`. It is still reachable.
/// - `crate = path`: the path of the crate `roadshow`, if it has another name or is re-exported.
///
/// The name of an actor in the body of a function includes its line and column, as in
/// `app::{12:5}::Counter`. Several functions may therefore have actors, messages and tasks of one name.
/// Equal sources have equal names.
///
/// # Examples
///
/// ```
/// use std::convert::Infallible;
///
/// use roadshow::prelude::*;
///
/// #[derive(Message, RemoteMessage, Serialize, Deserialize)]
/// #[rtype(result = "u64")]
/// struct Add(u64);
///
/// #[derive(RemoteActor)]
/// #[remote(handles(Add))]
/// struct Counter {
///     total: u64,
/// }
///
/// impl Actor for Counter {
///     type Context = Context<Self>;
/// }
///
/// impl Spawn for Counter {
///     type Args = u64;
///     type Error = Infallible;
///
///     fn spawn(total: u64, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
///         Ok(Self { total })
///     }
/// }
///
/// impl Handler<Add> for Counter {
///     type Result = u64;
///
///     fn handle(&mut self, Add(n): Add, _ctx: &mut Context<Self>) -> u64 {
///         self.total += n;
///         self.total
///     }
/// }
///
/// assert!(<Counter as RemoteActor>::NAME.ends_with("::Counter"));
/// ```
#[proc_macro_derive(RemoteActor, attributes(remote))]
pub fn remote_actor(input: TokenStream) -> TokenStream {
    derive(input, actor::derive)
}

/// Makes a type the state of a durable actor.
///
/// The type implements `Durable`, and `Decide` for each listed message. `#[remote(..)]` on it takes:
///
/// - `decides(A, B)`: the messages that the actor decides, by path. Each derives
///   [`RemoteMessage`](macro@RemoteMessage).
/// - `name = ".."` and `crate = path`, as for [`RemoteActor`](macro@RemoteActor).
///
/// `Durable` has an example.
#[proc_macro_derive(Durable, attributes(remote))]
pub fn durable(input: TokenStream) -> TokenStream {
    derive(input, durable::derive)
}

/// Makes an actix message sendable to an actor of another process.
///
/// The message and its result must be serializable. The options are:
///
/// - `#[remote(name = "..")]` replaces the name by which both sides know the message. The default is its
///   module path, with line and column in the body of a function.
/// - `#[remote(result = u64)]` replaces actix's derive of `Message` and its `#[rtype(..)]`, in programs
///   without a dependency on actix.
/// - `#[remote(crate = path)]` sets the path of the crate `roadshow`.
///
/// It also records the message as written, with its result's type. Differently built executables compare
/// these records, and those of the named types that derive [`RemoteData`](macro@RemoteData), before they
/// exchange the message. The documentation of the trait has the details.
///
/// # Examples
///
/// ```
/// use roadshow::prelude::*;
///
/// #[derive(Message, RemoteMessage, Serialize, Deserialize)]
/// #[rtype(result = "Vec<String>")]
/// #[remote(name = "shop::List")]
/// struct List {
///     at_most: usize,
/// }
///
/// assert_eq!(<List as RemoteMessage>::NAME, "shop::List");
/// assert_eq!(<List as RemoteMessage>::SCHEMA, "struct List{at_most:usize} -> Vec<String>");
/// ```
#[proc_macro_derive(RemoteMessage, attributes(remote))]
pub fn remote_message(input: TokenStream) -> TokenStream {
    derive(input, message::derive)
}

/// Records the name and the shape of a type that is part of messages.
///
/// The shape is the source as written, without white space: fields and variants in order, their types,
/// and serde's attributes. It becomes part of the fingerprint of every message that contains the type, as
/// do the types named in it that derive `RemoteData`. It does not cover other types behind a name, nor
/// the code of a hand-written `Serialize` or `Deserialize`.
///
/// `#[remote(name = "..")]` replaces the module path as its name, and `#[remote(crate = path)]` sets the
/// path of the crate `roadshow`.
///
/// # Examples
///
/// ```
/// use roadshow::prelude::*;
///
/// #[derive(Serialize, Deserialize, RemoteData)]
/// struct Price {
///     cents: u64,
///     #[serde(default)]
///     currency: Option<String>,
/// }
///
/// let schema = <Price as RemoteData>::SCHEMA;
/// assert_eq!(schema, "struct Price{cents:u64,#[serde(default)]currency:Option<String>}");
/// ```
#[proc_macro_derive(RemoteData, attributes(remote))]
pub fn remote_data(input: TokenStream) -> TokenStream {
    derive(input, data::derive)
}

/// Makes a plain function callable in another process.
///
/// The function stays as it is and can be called as before. The macro adds a type of the same name.
/// Its `task` takes the same arguments and returns the call as a value, for a cluster to run. Arguments and
/// result are owned, serializable types, with at most 16 arguments. Differently built executables compare
/// their types as they do a message's.
///
/// - `parallel = n` lets up to n calls run concurrently in one worker; the default is one at a time.
/// - `name = ".."` replaces the module path as the name by which both sides know it. The default name of
///   a task in the body of a function includes its line and column, as in `app::{12:5}::work`.
/// - `type = Type` sets the name of the added type. If a module has the name of its task, `use
///   square::square;` would import a second `square`; with `type = SquareTask` it imports only the
///   function.
/// - `crate = path` sets the path of the crate `roadshow`.
///
/// # Examples
///
/// ```
/// /// The sum of the squares below `n`.
/// #[roadshow::task(parallel = 2)]
/// fn squares(n: u64) -> u64 {
///     (0..n).map(|i| i * i).sum()
/// }
///
/// assert_eq!(squares(4), 14); // here
/// let there = squares::task(4); // for `cluster.run(there)`
/// # drop(there);
/// ```
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    on_function(item, "`#[roadshow::task]` goes on a function", |function| {
        task::expand(options.into(), function)
    })
}

/// Makes an `async fn main` the entry of a program whose workers are processes of the same executable.
///
/// A worker process enters the worker loop and never reaches the function's body. The driver runs the
/// body on an actix system. `#[roadshow::main(crate = path)]` sets the path of the crate `roadshow`.
///
/// # Examples
///
/// ```
/// #[roadshow::main]
/// async fn main() -> Result<(), std::num::ParseIntError> {
///     assert_eq!("4".parse::<u8>()?, 4);
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    on_function(item, "`#[roadshow::main]` goes on the program's `async fn main`", |function| {
        entry::expand(&options.into(), function)
    })
}

fn derive(input: TokenStream, generate: fn(&DeriveInput) -> Result<proc_macro2::TokenStream>) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    generate(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Applies an attribute to a function, or reports the wrong item and keeps it unchanged.
fn on_function(
    item: TokenStream,
    otherwise: &str,
    expand: impl FnOnce(&ItemFn) -> proc_macro2::TokenStream,
) -> TokenStream {
    match syn::parse(item.clone()) {
        Ok(function) => expand(&function).into(),
        Err(error) => {
            let mut tokens = TokenStream::from(Error::new(error.span(), otherwise).into_compile_error());
            // The item is kept, so that its absence causes no further errors.
            tokens.extend(item);
            tokens
        }
    }
}
