//! Services of the head: requests of agents and drivers, and placement requests from everywhere.

use std::sync::{Arc, Weak};

use super::{Head, HeadCell};
use crate::cluster::authorization;
use crate::cluster::control_service::CONTROL;
use crate::cluster::model::NodeId;
use crate::cluster::protocol::{JOB, NODE, NodeReply, NodeRequest};
use crate::host::HostServices;
use crate::id::HostUid;
use crate::wire::CallFailure;

/// Handler of the calls to the head's host.
pub(super) fn host_services(cell: HeadCell) -> HostServices {
    Box::new(move |host, service, inbound| {
        let Some(head) = cell.get().and_then(Weak::upgrade) else {
            return inbound.fail(&CallFailure::ActorStopped);
        };
        if let Err(refused) = authorization::check(host, service, &inbound) {
            return inbound.fail(&refused);
        }
        match service {
            CONTROL => head.control.serve(host, inbound),
            NODE => {
                let handling = Arc::clone(&head);
                head.core
                    .serve_node(inbound, move |from, request| handling.handle_node_request(from, request));
            }
            JOB => head.core.serve_job(inbound),
            _ => {
                let message = host.registry().name_of(service);
                inbound.fail(&CallFailure::NotHandled { actor: "the head".to_owned(), message });
            }
        }
    })
}

impl Head {
    /// Handles a request of an agent, which may only report about its own node.
    fn handle_node_request(&self, from: HostUid, request: NodeRequest) -> NodeReply {
        match request {
            NodeRequest::SignCertificate { job, hosts, request, .. } => {
                self.sign_worker(from, job, hosts, &request)
            }
            NodeRequest::SignDriver { job, hosts, request, .. } => {
                self.sign_driver(from, job, hosts, &request)
            }
            NodeRequest::Spans { workers, .. } if self.control.read(|state| state.is_member(from)) => {
                let node = NodeId(from.host.0);
                for (worker, spans) in workers {
                    // As for statistics, a node reports its own workers only.
                    let placed = self.control.read(|state| state.any_worker(worker));
                    if let Some((_, job)) = placed.filter(|(on, _)| *on == node) {
                        self.timelines.add(job, worker, spans);
                    }
                }
                NodeReply::Done
            }
            request => self.core.handle_node_request(from, request),
        }
    }
}
