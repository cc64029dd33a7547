//! The derive and attribute macros of roadshow; use them through the crate `roadshow`.
//!
//! Each macro has a file of its own: parse, check, generate. A check that fails points at the token
//! to change and says what to write instead. What is generated names everything by a path from `::roadshow`,
//! or from where `crate = path` says that the crate is; it contains no `unsafe`, and registers itself, so that
//! a worker knows what its driver knows without a list kept by hand.
//!
//! Not here: what the generated code does. That is `roadshow`'s module `registry`.

mod actor;
mod data;
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
/// - `handles(A, B)`: the messages that may come from afar, each by its path. Each derives
///   [`RemoteMessage`](macro@RemoteMessage), and the actor has an ordinary `Handler` for it.
/// - `name = ".."`: the name that both sides know the actor by, instead of its module path.
/// - `local`: this actor is never spawned from afar, and needs no `Spawn`. It can still be reached.
/// - `crate = path`: where the crate `roadshow` is, if it has another name or comes from another crate.
///
/// The name of an actor in the body of a function has its line and column, as in `app::{12:5}::Counter`: several
/// functions may have actors, messages and tasks of one name. Equal sources give equal names.
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

/// Lets an actix message travel to an actor of another process.
///
/// The message and its result are serializable. `#[remote(name = "..")]` replaces the name that both
/// sides know the message by, which is its module path otherwise, with line and column in the body of a
/// function. `#[remote(result = u64)]` stands for actix's derive of `Message` and its `#[rtype(..)]`, in programs
/// without a dependency on actix. `#[remote(crate = path)]` says where the crate `roadshow` is.
///
/// It also records the message as written, with its result's type. Differently built executables
/// compare that, and the types named in there that derive [`RemoteData`](macro@RemoteData), before
/// they exchange the message; the trait says what that covers.
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
/// The shape is the source as written, without white space: fields and variants in their order, their
/// types, and serde's attributes. It becomes part of the fingerprint of every message that contains
/// the type, as do the types named in it that derive `RemoteData`, too. What stands behind any other
/// name, and what a hand-written `Serialize` or `Deserialize` does, is not seen.
///
/// `#[remote(name = "..")]` replaces the module path as its name, `#[remote(crate = path)]` says where the crate
/// `roadshow` is.
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

/// Lets a plain function run in another process.
///
/// The function stays as it is and can be called as before. Beside it stands a type of the same name,
/// whose `task` takes the same arguments and returns the call as a value, to be run by a cluster.
/// Arguments and result are owned, serializable types; there may be 16 arguments. Differently built
/// executables compare their types as they do a message's.
///
/// - `parallel = n` lets up to n of them run side by side in one worker; one at a time otherwise.
/// - `name = ".."` replaces the module path as the name that both sides know it by. That of a task in the body
///   of a function has its line and column, as in `app::{12:5}::work`.
/// - `type = Type` names the type beside the function. Where a module has the name of its task, `use
///   square::square;` can bring only the function beside the module; with `type = SquareTask` it does.
/// - `crate = path` says where the crate `roadshow` is.
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

/// Makes an `async fn main` the entry of a program whose workers are processes of the same program.
///
/// A process that was started as a worker serves, and never reaches the function's body; the driver
/// runs the body on an actix system. `#[roadshow::main(crate = path)]` says where the crate `roadshow` is.
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

/// The attributes' items: functions, or the item as it was and why that is wrong.
fn on_function(
    item: TokenStream,
    otherwise: &str,
    expand: impl FnOnce(&ItemFn) -> proc_macro2::TokenStream,
) -> TokenStream {
    match syn::parse(item.clone()) {
        Ok(function) => expand(&function).into(),
        Err(error) => {
            let mut tokens = TokenStream::from(Error::new(error.span(), otherwise).into_compile_error());
            tokens.extend(item);
            tokens
        }
    }
}
