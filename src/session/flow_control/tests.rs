//! Tests of credit: charges, releases and windows.

use super::*;
use crate::id::{ActorId, ActorIncarnation, CallId};

const ONE: Target = Target { actor: ActorId(1), incarnation: ActorIncarnation(0) };
const OTHER: Target = Target { actor: ActorId(2), incarnation: ActorIncarnation(0) };

fn queue_message(flows: &mut SendFlows, target: Target, content: MessageKind) -> u64 {
    flows.enqueue(target, content, 7, |mut out| {
        out.put_slice(b"message");
        7
    })
}

#[test]
fn nothing_is_sent_before_there_is_a_window() {
    let mut flows = SendFlows::default();
    let number = queue_message(&mut flows, ONE, MessageKind::Call(CallId(1)));
    flows.make_all_ready();
    assert!(flows.pop_sendable(1 << 10, |_| true).is_none());
    queue_message(&mut flows, ONE, MessageKind::Tell);
    flows.remove_queued(number);
    assert!(!flows.may_send(ONE, 7) && !flows.charge(ONE, 7, false));
    assert!(!flows.may_send(OTHER, 7) && !flows.charge(OTHER, 7, false));
    let counted = QUEUE_OVERHEAD_BYTES + queued_cost(MessageKind::Tell, 7);
    assert_eq!((flows.queued_bytes(), flows.charged()), (counted, 0));
}

#[test]
fn a_removed_flow_does_not_block_another() {
    let mut flows = SendFlows::default();
    flows.set_window(1 << 10);
    assert!(flows.charge(ONE, 1 << 10, false));
    assert!(flows.charge(ONE, 1 << 10, false));
    let number = queue_message(&mut flows, ONE, MessageKind::Call(CallId(1)));
    assert!(flows.add_credit(ONE, 1 << 10), "its next message may go out");
    flows.remove_queued(number);
    queue_message(&mut flows, OTHER, MessageKind::Tell);
    flows.make_all_ready();
    let next = flows.pop_sendable(1 << 10, |_| true).map(|(target, _)| target);
    assert_eq!(next, Some(OTHER));
    assert_eq!(flows.take_next(OTHER, &mut bytes::BytesMut::new()), 7);
    assert!(flows.pop_sendable(1 << 10, |_| true).is_none());
    assert_eq!((flows.flows.len(), flows.target_of.len()), (1, 0), "what is at rest is forgotten");
}
