//! Values in messages: a value arrives unchanged, or its sender gets an error with the cause.

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::hosts::run;
use roadshow::NotDelivered;
use roadshow::TaskError;
use roadshow::prelude::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Expression {
    Number(i64),
    Negated(Box<Self>),
}

impl Expression {
    fn nested(levels: usize) -> Self {
        (1..levels).fold(Self::Number(1), |inner, _| Self::Negated(inner.into()))
    }

    /// Counts the levels without recursion.
    fn levels(&self) -> usize {
        let mut levels = 1;
        let mut expression = self;
        while let Self::Negated(inner) = expression {
            levels += 1;
            expression = inner;
        }
        levels
    }
}

/// Drops the levels without recursion: the stack of a test thread is too small for it.
impl Drop for Expression {
    fn drop(&mut self) {
        let Self::Negated(inner) = self else { return };
        let mut inner = std::mem::replace(&mut **inner, Self::Number(0));
        while let Self::Negated(next) = &mut inner {
            inner = std::mem::replace(&mut **next, Self::Number(0));
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Peer { ip: IpAddr, socket: SocketAddr, twice: Option<Option<u32>> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Peer { ip: IpAddr, unit: Option<()> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wide {
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, u128>,
}

/// Defines tasks that return their argument.
macro_rules! echo {
    ($($task:ident($ty:ty))*) => {$(
        #[roadshow::task]
        fn $task(value: $ty) -> $ty {
            value
        }
    )*};
}

echo! {
    expression(Expression)
    options(Vec<Option<Option<()>>>)
    tagged(Tagged)
    untagged(Untagged)
    path(PathBuf)
    os_string(OsString)
    wide(Wide)
    float(f64)
}

/// Returns an expression of this many levels.
#[roadshow::task]
fn grow(levels: usize) -> Expression {
    Expression::nested(levels)
}

/// Actor that receives a tree as its arguments and in messages.
#[derive(RemoteActor)]
#[remote(handles(Measure))]
struct Tree(usize);

impl Actor for Tree {
    type Context = Context<Self>;
}

impl Spawn for Tree {
    type Args = Expression;
    type Error = Infallible;

    fn spawn(root: Expression, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self(root.levels()))
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "(usize, Option<Option<()>>)")]
struct Measure(Expression);

impl Handler<Measure> for Tree {
    type Result = MessageResult<Measure>;

    fn handle(&mut self, Measure(other): Measure, _: &mut Context<Self>) -> MessageResult<Measure> {
        MessageResult((self.0 + other.levels(), Some(None)))
    }
}

/// Sends a value to a worker and back.
macro_rules! arrives {
    ($cluster:expr, $task:ident, $value:expr) => {
        assert_eq!($cluster.run($task::task($value)).await.unwrap(), $value);
    };
}

#[test]
fn value_arrives_unchanged() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        arrives!(cluster, options, vec![None, Some(None), Some(Some(()))]);
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        arrives!(cluster, tagged, Tagged::Peer { ip, socket: (ip, 80).into(), twice: Some(None) });
        arrives!(cluster, untagged, Untagged::Peer { ip, unit: Some(()) });
        // Serde encodes an `OsString` as bytes, so it may be invalid UTF-8, unlike a path.
        arrives!(cluster, os_string, OsString::from_vec(vec![0xe9]));
        // The payload of a NaN is part of the value, and comparisons do not see it.
        let nan = f64::from_bits(0x7ff4_0000_dead_beef);
        assert_eq!(cluster.run(float::task(nan)).await.unwrap().to_bits(), nan.to_bits());

        let tree = cluster.spawn::<Tree>(Expression::nested(100)).await.unwrap();
        assert_eq!(tree.send(Measure(Expression::nested(28))).await.unwrap(), (128, Some(None)));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn value_that_cannot_be_encoded_is_an_error_at_its_sender() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let not_utf_8 = PathBuf::from(OsString::from_vec(vec![0xe9]));
        let error = cluster.run(path::task(not_utf_8)).await.unwrap_err();
        assert_unencodable(&error, "invalid UTF-8");
        // Serde buffers flattened fields, and its buffer has no 128-bit integers.
        let in_a_buffer = Wide { rest: [("number".to_owned(), 1)].into() };
        assert_unencodable(&cluster.run(wide::task(in_a_buffer)).await.unwrap_err(), "128-bit");
        cluster.shutdown().await.unwrap();
    });
}

#[track_caller]
fn assert_unencodable(error: &TaskError, cause: &str) {
    let TaskError::NotDelivered { reason: NotDelivered::Unencodable { text }, .. } = error else {
        panic!("{error:?}")
    };
    assert!(text.contains(cause), "{text}");
}

/// The worker is a process here: a stack overflow would end it.
#[test]
fn value_that_is_too_deep_is_rejected_everywhere_and_ends_no_process() {
    run(async {
        // Enough to overflow the stack of any thread here.
        const DEEP: usize = 60_000;
        let cluster = Cluster::local(1).await.unwrap();
        let tree = cluster.spawn::<Tree>(Expression::nested(1)).await.unwrap();

        let error = cluster.run(expression::task(Expression::nested(DEEP))).await.unwrap_err();
        assert_unencodable(&error, "128 levels");
        let error = cluster.run(grow::task(DEEP)).await.unwrap_err();
        assert!(error.to_string().contains("128 levels"), "{error}");
        let error = cluster.spawn::<Tree>(Expression::nested(DEEP)).await.unwrap_err();
        assert!(error.to_string().contains("128 levels"), "{error}");
        let error = tree.send(Measure(Expression::nested(DEEP))).await.unwrap_err();
        assert!(error.to_string().contains("128 levels"), "{error}");

        // Exactly the limit: the depth must not be counted differently on the two sides.
        assert_eq!(cluster.run(grow::task(128)).await.unwrap().levels(), 128);
        assert_eq!(tree.send(Measure(Expression::nested(127))).await.unwrap().0, 128);
        cluster.shutdown().await.unwrap();
    });
}
