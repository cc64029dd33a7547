//! Members that rejoin a restarted head.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::super::reports::JobReports;
use super::super::store::StateStore;
use super::super::timelines::Timelines;
use super::super::{Head, certify};
use super::*;
use crate::cluster::authorization;
use crate::cluster::control_plane::state::{Action, ControlEvent, Millis, Record, Settings};
use crate::cluster::control_service::ControlPlane;
use crate::cluster::daemon::head::ca::CertificateAuthority;
use crate::cluster::daemon::host::start_host;
use crate::cluster::head_core::HeadCore;
use crate::cluster::model::NodeReport;
use crate::cluster::model::{Labels, NodeDescriptor, NodeState, Resources};
use crate::cluster::security::CertificateRequest;
use crate::cluster::test_dir::TestDir;
use crate::config::CERTIFIED_HOSTS_MAX;
use crate::host::fresh_identity;
use crate::id::{HostId, Incarnation};
use crate::transport::Routed;

/// Creates a head without services, which continues from these records.
async fn head(scratch: &TestDir, records: Vec<Record>) -> Head {
    let authority = CertificateAuthority::open(&scratch.join("state")).unwrap();
    let identity = HostUid { host: HostId::HEAD, ..fresh_identity() };
    let claims = Claims { role: Role::Head, hosts: vec![identity], job: None, node: None };
    let credentials = certify(&authority, &claims).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], 1));
    let (_host_queue, arrivals) = mpsc::channel(1);
    let transport = Routed::new(credentials, at, arrivals);
    let services = Box::new(|_: &_, _, _| panic!("nothing calls it"));
    let host = start_host(identity, authority.token(), transport, at, services).await.unwrap();
    let (store, _) = StateStore::open(&scratch.join("head.redb")).await.unwrap();
    let control = Arc::new(ControlPlane::new(Settings::default(), Box::new(|_| {}), None));
    control.apply(ControlEvent::Restored(records));
    let core = HeadCore::new(host.clone(), Arc::clone(&control), Box::new(|| Box::pin(async { Ok(()) })));
    Head {
        authority,
        host,
        control,
        core,
        store,
        dashboard: OnceLock::new(),
        reports: JobReports::default(),
        timelines: Timelines::default(),
    }
}

/// Node of an agent, with one worker.
pub(super) fn descriptor(agent: HostUid) -> NodeDescriptor {
    NodeDescriptor {
        agent,
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        hostname: String::new(),
        pid: 1,
        is_head: false,
        resources: Resources::none(),
        labels: Labels::new(),
        workers: 1,
        platform: String::new(),
        session_dir: String::new(),
    }
}

/// Records of a head that these nodes have joined.
fn records(agents: &[HostUid]) -> Vec<Record> {
    let (mut state, mut actions, mut records) =
        (ClusterState::new(Settings::default()), Vec::new(), Vec::new());
    for &agent in agents {
        state.handle(Millis(1), ControlEvent::NodeJoined(NodeReport::idle(descriptor(agent))), &mut actions);
        records.extend(actions.drain(..).filter_map(|action| match action {
            Action::Persist(record) => Some(record),
            _ => None,
        }));
    }
    records
}

fn claims(agent: HostUid) -> Claims {
    Claims { role: Role::Agent, hosts: vec![agent], job: None, node: None }
}

/// Issues one certificate for these agent hosts.
fn certificate(authority: &CertificateAuthority, hosts: &[HostUid]) -> Certificate {
    let request = CertificateRequest::new().unwrap();
    let claims = Claims { role: Role::Agent, hosts: hosts.to_vec(), job: None, node: None };
    Certificate::verified(authority.issue(request.csr(), &claims).unwrap()[0].clone().into())
}

#[tokio::test]
async fn ten_thousand_members_rejoin_without_a_signature() {
    let scratch = TestDir::new();
    let agents: Vec<_> = (0..10_000).map(|_| fresh_identity()).collect();
    let head = head(&scratch, records(&agents)).await;
    let states =
        || head.control.read(|state| state.nodes().iter().map(|node| node.state).collect::<Vec<_>>());
    assert!(states().iter().all(|state| *state == NodeState::Rejoining) && states().len() == agents.len());
    // One certificate for several hosts proves the same, and the test signs 16 times fewer.
    let presented: Vec<_> = agents
        .chunks(CERTIFIED_HOSTS_MAX)
        .map(|agents| (agents, certificate(&head.authority, agents)))
        .collect();
    let before = head.authority.issued();
    for (agents, presented) in presented {
        for &agent in agents {
            let back = head.readmit(&claims(agent), &presented).unwrap();
            assert_eq!(back.head, head.host.identity());
            head.control.apply(ControlEvent::NodeJoined(NodeReport::idle(descriptor(agent))));
        }
    }
    assert_eq!(head.authority.issued(), before);
    assert!(states().iter().all(|state| *state == NodeState::Alive) && states().len() == agents.len());
    // A process that enrols gets a signed certificate.
    let request = CertificateRequest::new().unwrap();
    head.enrol(request.csr(), &claims(fresh_identity()), None).unwrap();
    assert_eq!(head.authority.issued(), before + 1);
}

#[tokio::test]
async fn member_whose_host_is_claimed_by_another_incarnation_cannot_rejoin() {
    let scratch = TestDir::new();
    let before = fresh_identity();
    let now = HostUid { incarnation: Incarnation(before.incarnation.0 + 1), ..before };
    let head = head(&scratch, records(&[now])).await;
    let (own, stranger) =
        (certificate(&head.authority, &[before]), certificate(&head.authority, &[fresh_identity()]));
    for (agent, presented) in [(before, &own), (now, &own), (now, &stranger)] {
        let refused = head.readmit(&claims(agent), presented).unwrap_err();
        assert!(refused.contains("another process of the cluster"), "{refused}");
    }
    head.readmit(&claims(now), &certificate(&head.authority, &[now])).unwrap();
    // A node that was declared dead rejoins as a new member, with its own certificate.
    head.control.apply(ControlEvent::NodeLeft { node: now, cause: "it was lost".to_owned() });
    head.readmit(&claims(now), &certificate(&head.authority, &[now])).unwrap();
}

#[tokio::test]
async fn forgotten_caller_is_not_taken_for_a_local_process() {
    let scratch = TestDir::new();
    let (head, driver) = (head(&scratch, Vec::new()).await, fresh_identity());
    let at = SocketAddr::from(([127, 0, 0, 1], 2));
    authorization::check_job(&head.host, driver, JobId(1)).unwrap_err();
    head.host.add_peer(driver, at);
    authorization::check_job(&head.host, driver, JobId(1)).unwrap();
    // A later incarnation of the driver supersedes the first.
    let later = HostUid { incarnation: Incarnation(driver.incarnation.0 + 1), ..driver };
    head.host.supersede(later, at);
    authorization::check_job(&head.host, driver, JobId(1)).unwrap_err();
    head.host.forget(later);
    authorization::check_job(&head.host, later, JobId(1)).unwrap_err();
    authorization::check_job(&head.host, head.host.identity(), JobId(1)).unwrap();
}
