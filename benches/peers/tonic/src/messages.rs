//! Messages of the service.

use bytes::Bytes;

/// Request of an actor.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(uint32, tag = "1")]
    pub(crate) actor: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) n: u64,
}

/// A number alone.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) n: u64,
}

/// Bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Blob {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) bytes: Bytes,
}

/// A list of words.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Words {
    #[prost(string, repeated, tag = "1")]
    pub(crate) words: Vec<String>,
}

/// Message of the stream, in both directions.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Envelope {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) actor: u32,
    #[prost(oneof = "Body", tags = "3, 4, 5, 6, 7, 8")]
    pub(crate) body: Option<Body>,
}

/// Content of an envelope.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Body {
    #[prost(uint64, tag = "3")]
    Call(u64),
    #[prost(uint64, tag = "4")]
    Count(u64),
    #[prost(uint64, tag = "5")]
    Tell(u64),
    #[prost(bytes = "bytes", tag = "6")]
    Echo(Bytes),
    #[prost(uint32, tag = "7")]
    Reply(u32),
    #[prost(message, tag = "8")]
    Words(Words),
}
