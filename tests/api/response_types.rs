//! Every form in which an actix handler may answer, to a remote and to a local caller.

use std::fmt::Debug;
use std::future::ready;

use roadshow::prelude::*;
use tokio::task::yield_now;

use crate::hosts::{Pair, run};

#[derive(RemoteActor)]
#[remote(
    local,
    handles(
        Number,
        Text,
        Maybe,
        Fallible,
        List,
        Unit,
        Wrapped,
        Later,
        ReadyFuture,
        InActor,
        Atomic,
        Ready,
        Deferred,
        Flag
    )
)]
struct Forms {
    answers: u32,
}

impl Actor for Forms {
    type Context = Context<Self>;
}

/// Defines a message, its result, and the actor's handler for it.
macro_rules! form {
    ($message:ident -> $result:literal = $output:ty, as $form:ty, |$actor:ident, $ctx:ident| $answer:expr) => {
        #[derive(Message, RemoteMessage, Serialize, Deserialize)]
        #[rtype(result = $result)]
        struct $message;

        impl Handler<$message> for Forms {
            type Result = $form;

            fn handle(&mut self, _: $message, $ctx: &mut Context<Self>) -> $form {
                self.answers += 1;
                let $actor = self;
                $answer
            }
        }
    };
}

form!(Number -> "u64" = u64, as u64, |_actor, _ctx| 7);
form!(Flag -> "bool" = bool, as bool, |_actor, _ctx| true);
form!(Text -> "String" = String, as String, |_actor, _ctx| "text".to_owned());
form!(Maybe -> "Option<u8>" = Option<u8>, as Option<u8>, |_actor, _ctx| Some(3));
form!(Fallible -> "Result<u8, String>" = Result<u8, String>, as Result<u8, String>, |_actor, _ctx| Err("no".to_owned()));
form!(List -> "Vec<String>" = Vec<String>, as Vec<String>, |_actor, _ctx| vec!["a".to_owned(), "b".to_owned()]);
form!(Unit -> "()" = (), as (), |_actor, _ctx| ());
form!(Wrapped -> "(u8, char)" = (u8, char), as MessageResult<Wrapped>, |_actor, _ctx| MessageResult((1, 'x')));
form!(ReadyFuture -> "u8" = u8, as ResponseFuture<u8>, |_actor, _ctx| Box::pin(ready(1)));
form!(Later -> "Vec<u8>" = Vec<u8>, as ResponseFuture<Vec<u8>>, |_actor, _ctx| Box::pin(async {
    yield_now().await;
    vec![1, 2]
}));
form!(InActor -> "u32" = u32, as ResponseActFuture<Self, u32>, |actor, _ctx| Box::pin(
    yield_now().into_actor(actor).map(|(), actor, _| actor.answers)
));
form!(Atomic -> "u32" = u32, as AtomicResponse<Self, u32>, |actor, _ctx| AtomicResponse::new(Box::pin(
    yield_now().into_actor(actor).map(|(), actor, _| actor.answers)
)));
form!(Ready -> "String" = String, as Response<String>, |_actor, _ctx| Response::reply("now".to_owned()));
form!(Deferred -> "String" = String, as Response<String>, |_actor, _ctx| Response::fut(async {
    yield_now().await;
    "then".to_owned()
}));

/// Sends a message remotely, locally and one way, and compares both answers.
fn answers<M>(
    take: fn(&RemoteAddr<Forms>) -> RemoteRecipient<M>,
    message: impl Fn() -> M,
    expected: M::Result,
) where
    M: RemoteMessage<Result: PartialEq + Debug>,
{
    run(async {
        // A local message takes another path through the library.
        for local in [false, true] {
            let pair = Pair::start().await;
            let there = pair.there.serve(|| Forms { answers: 0 });
            let forms = if local { there } else { pair.here.cluster.bind(&there) };
            let form = take(&forms);
            assert_eq!(form.send(message()).await.as_ref(), Ok(&expected), "local: {local}");
            form.tell(message()).await.unwrap();
            form.do_send(message());
            // The answers of these two forms are the number of messages handled so far, which includes the
            // one-way ones.
            assert_eq!(forms.send(Atomic).await, Ok(4), "local: {local}");
            assert_eq!(forms.send(InActor).await, Ok(5), "local: {local}");
        }
    });
}

#[test]
fn a_handler_answers_with_a_number() {
    answers(RemoteAddr::recipient, || Number, 7);
}

#[test]
fn a_handler_answers_with_a_truth_value() {
    answers(RemoteAddr::recipient, || Flag, true);
}

#[test]
fn a_handler_answers_with_a_text() {
    answers(RemoteAddr::recipient, || Text, "text".to_owned());
}

#[test]
fn a_handler_answers_with_an_option() {
    answers(RemoteAddr::recipient, || Maybe, Some(3));
}

#[test]
fn a_handler_answers_with_a_result() {
    answers(RemoteAddr::recipient, || Fallible, Err("no".to_owned()));
}

#[test]
fn a_handler_answers_with_a_list() {
    answers(RemoteAddr::recipient, || List, vec!["a".to_owned(), "b".to_owned()]);
}

#[test]
fn a_handler_answers_with_nothing() {
    answers(RemoteAddr::recipient, || Unit, ());
}

#[test]
fn a_handler_answers_with_a_message_result() {
    answers(RemoteAddr::recipient, || Wrapped, (1, 'x'));
}

#[test]
fn a_handler_answers_with_a_future_that_is_ready() {
    answers(RemoteAddr::recipient, || ReadyFuture, 1);
}

#[test]
fn a_handler_answers_with_a_pending_future() {
    answers(RemoteAddr::recipient, || Later, vec![1, 2]);
}

#[test]
fn a_handler_answers_with_a_future_that_runs_in_its_actor() {
    answers(RemoteAddr::recipient, || InActor, 1);
}

#[test]
fn a_handler_answers_with_an_atomic_response() {
    answers(RemoteAddr::recipient, || Atomic, 1);
}

#[test]
fn a_handler_answers_with_a_ready_response() {
    answers(RemoteAddr::recipient, || Ready, "now".to_owned());
}

#[test]
fn a_handler_answers_with_a_pending_response() {
    answers(RemoteAddr::recipient, || Deferred, "then".to_owned());
}
