//! gRPC with tonic.
//!
//! Without a variant, all calls are messages of one bidirectional stream, with an id each. With the variant
//! `unary`, each call is an HTTP/2 stream.

mod client;
mod messages;
mod server;

use std::net::Ipv4Addr;

use anyhow::Result;
use peers_harness::{Args, Peer, ready};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use client::Tonic;

/// Code that the build script generates.
#[allow(missing_docs, clippy::unwrap_used, unused_qualifications, unreachable_pub, reason = "generated")]
mod service {
    include!(concat!(env!("OUT_DIR"), "/peers.Counter.rs"));
}

struct Grpc;

impl Peer for Grpc {
    type Client = Tonic;

    async fn serve(_: Args) -> Result<()> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        // Without it, the delayed acknowledgements of TCP hold replies back for 40 ms.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        ready(address)?;
        let service = service::counter_server::CounterServer::new(server::Counters::default());
        Ok(Server::builder().add_service(service).serve_with_incoming(incoming).await?)
    }

    async fn connect(args: &Args) -> Result<Tonic> {
        Tonic::connect(&args.servers, args.variant == "unary").await
    }
}

fn main() -> Result<()> {
    peers_harness::main::<Grpc>()
}
