//! Exclusive actors: nothing of an incarnation is left when the next one begins.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use roadshow::prelude::*;

use crate::hosts::{run, until};
use crate::restarts::soon;

/// Parts of all incarnations that exist.
static PARTS: AtomicUsize = AtomicUsize::new(0);

/// Number of the incarnations so far, each with the parts that its constructor has found.
static BEGUN: Mutex<Vec<(u32, usize)>> = Mutex::new(Vec::new());

/// Part of an incarnation: its actor, or the future of a handler.
struct Part;

impl Part {
    fn new() -> Self {
        PARTS.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        PARTS.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(RemoteActor)]
#[remote(handles(Linger, End))]
struct Lingering(Part);

impl Actor for Lingering {
    type Context = Context<Self>;
}

impl Spawn for Lingering {
    type Args = ();
    type Error = String;

    fn spawn((): (), at: &SpawnContext<Self>) -> Result<Self, String> {
        BEGUN.lock().unwrap().push((at.incarnation(), PARTS.load(Ordering::SeqCst)));
        Ok(Self(Part::new()))
    }
}

/// Never replies.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Linger;

impl Handler<Linger> for Lingering {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Linger, _: &mut Context<Self>) -> ResponseFuture<()> {
        let part = Part::new();
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(part);
        })
    }
}

/// Makes the actor panic.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct End;

impl Handler<End> for Lingering {
    type Result = ();

    fn handle(&mut self, _: End, _: &mut Context<Self>) {
        panic!("asked to end");
    }
}

#[test]
fn futures_of_handlers_end_with_their_incarnation() {
    run(async {
        let cluster = Cluster::in_process(1).await.unwrap();
        let actor = cluster.spawn::<Lingering>(()).restart(soon().exclusive()).await.unwrap();
        let lingering = async { actor.send(Linger).await };
        let ending = async {
            until(|| PARTS.load(Ordering::SeqCst) == 2).await;
            actor.send(End).await
        };
        let (lingered, ended) = futures_util::future::join(lingering, ending).await;
        assert!(lingered.is_err() && ended.is_err(), "{lingered:?}, {ended:?}");
        until(|| BEGUN.lock().unwrap().len() == 2).await;
        assert_eq!(*BEGUN.lock().unwrap(), [(0, 0), (1, 0)]);
        cluster.shutdown().await.unwrap();
    });
}
