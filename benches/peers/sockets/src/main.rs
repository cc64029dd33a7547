//! Blocking sockets: the limit of one call in flight.
//!
//! ```text
//! kind: u8 | actor: u8 | number: u64
//! ```

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use peers_harness::{ACTORS, Args, Client, Peer, ready};

/// Size of a message, and of its reply.
const MESSAGE: usize = 10;

const CALL: u8 = 0;
const COUNT: u8 = 1;

#[derive(Clone)]
struct Sockets(Arc<Mutex<Vec<TcpStream>>>);

impl Sockets {
    fn request(&self, kind: u8, actor: usize, n: u64) -> Result<u64> {
        let mut message = [0; MESSAGE];
        message[0] = kind;
        message[1] = (actor % ACTORS) as u8;
        message[2..].copy_from_slice(&n.to_le_bytes());
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = sockets.get_mut(actor / ACTORS).context("there is no such server")?;
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
        Ok(u64::from_le_bytes(*message.last_chunk().context("a message ends with a number")?))
    }
}

impl Client for Sockets {
    type Bytes = Vec<u8>;
    type WordList = ();

    async fn call(&self, actor: usize, n: u64) -> Result<u64> {
        self.request(CALL, actor, n)
    }

    async fn count(&self, actor: usize) -> Result<u64> {
        self.request(COUNT, actor, 0)
    }
}

fn answer(mut socket: TcpStream) -> Result<()> {
    let (mut message, mut counts) = ([0; MESSAGE], [0_u64; ACTORS]);
    while socket.read_exact(&mut message).is_ok() {
        let n = u64::from_le_bytes(*message.last_chunk().context("a message ends with a number")?);
        let count = counts.get_mut(usize::from(message[1])).context("there is no such actor")?;
        let reply = match message[0] {
            COUNT => *count,
            _ => {
                *count += 1;
                n + 1
            }
        };
        message[2..].copy_from_slice(&reply.to_le_bytes());
        socket.write_all(&message)?;
    }
    Ok(())
}

struct Blocking;

impl Peer for Blocking {
    type Client = Sockets;

    async fn serve(_: Args) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        ready(listener.local_addr()?)?;
        loop {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            std::thread::spawn(move || answer(socket));
        }
    }

    async fn connect(args: &Args) -> Result<Sockets> {
        let mut sockets = Vec::new();
        for address in &args.servers {
            let socket = TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            sockets.push(socket);
        }
        Ok(Sockets(Arc::new(Mutex::new(sockets))))
    }
}

fn main() -> Result<()> {
    peers_harness::main::<Blocking>()
}
