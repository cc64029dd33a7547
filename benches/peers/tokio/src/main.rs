//! Plain tokio: frames over TCP, as a careful program writes them by hand.
//!
//! The writer encodes all messages that wait into one buffer, and sends it with one write. The reader takes all
//! frames of a read under one lock. Long bytes are neither copied nor split, except by the kernel.
//!
//! With the variant `tls` the same frames go over rustls.

mod client;
mod frame;
mod server;
mod tls;

use std::net::Ipv4Addr;

use anyhow::Result;
use peers_harness::{Args, Peer, ready};
use tokio::net::{TcpListener, TcpStream};

use client::{Link, Links};

struct Plain;

impl Peer for Plain {
    type Client = Links;

    async fn serve(args: Args) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let acceptor = if args.variant == "tls" { Some(tls::acceptor()?) } else { None };
        ready(listener.local_addr()?)?;
        let actors = server::Actors::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let actors = actors.clone();
            match &acceptor {
                None => {
                    let (reader, writer) = stream.into_split();
                    tokio::spawn(server::serve(reader, writer, actors));
                }
                Some(acceptor) => {
                    let (reader, writer) = tokio::io::split(acceptor.accept(stream).await?);
                    tokio::spawn(server::serve(reader, writer, actors));
                }
            }
        }
    }

    async fn connect(args: &Args) -> Result<Links> {
        let mut links = Vec::new();
        for address in &args.servers {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            links.push(if args.variant == "tls" {
                let (reader, writer) = tokio::io::split(tls::connect(stream).await?);
                Link::start(reader, writer)
            } else {
                let (reader, writer) = stream.into_split();
                Link::start(reader, writer)
            });
        }
        Ok(Links::new(links))
    }
}

fn main() -> Result<()> {
    peers_harness::main::<Plain>()
}
