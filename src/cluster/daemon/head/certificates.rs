//! Certificates that the head issues: to agents and drivers that enrol, and to the workers of its nodes.
//!
//! The rules protect the identity of every process: a certificate for a host admits its holder as that host. So
//! a host id that belongs to a live process is certified again only for that same process.

use std::collections::BTreeSet;

use super::Head;
use crate::cluster::control_plane::state::ClusterState;
use crate::cluster::head_core::checks::check_owned_by;
use crate::cluster::model::{JobId, JobState, NodeId};
use crate::cluster::protocol::NodeReply;
use crate::cluster::security::Claims;
use crate::cluster::security::token_rpc::{Enrolled, Returned};
use crate::id::HostUid;
use crate::transport::{Certificate, Role};

impl Head {
    /// Certifies an agent or a driver that has presented the token.
    ///
    /// A holder of the token may claim any host id, except the head's and those of live processes. That is safe:
    /// each process draws its host id at random, so another holder cannot claim it in advance.
    pub(super) fn enrol(
        &self,
        csr: &[u8],
        claims: &Claims,
        presented: Option<&Certificate>,
    ) -> Result<Enrolled, String> {
        claims.check_claimable().map_err(|error| error.to_string())?;
        self.control.read(|state| check_unclaimed(state, claims, presented)).inspect_err(|error| {
            tracing::warn!(error, "rejected an enrolment with a valid token");
        })?;
        let chain = self.authority.issue(csr, claims).map_err(|error| error.to_string())?;
        tracing::info!(role = %claims.role, hosts = ?claims.hosts, "a certificate was issued");
        Ok(Enrolled { chain, head: self.host.identity(), cluster: self.authority.name() })
    }

    /// Readmits an agent or a driver by the valid certificate that it has presented for its claims.
    ///
    /// As at enrolment, no other live process may own its hosts. Readmission alone changes no state: the member
    /// then joins, or starts its job, over its link. It needs no signature, since ten thousand of those would delay
    /// the return of a large cluster after a restart of the head.
    pub(super) fn readmit(&self, claims: &Claims, presented: &Certificate) -> Result<Returned, String> {
        self.control.read(|state| check_unclaimed(state, claims, Some(presented))).inspect_err(|error| {
            tracing::warn!(error, "rejected a rejoin with a valid certificate");
        })?;
        tracing::info!(role = %claims.role, hosts = ?claims.hosts, "a member has rejoined with its certificate");
        Ok(Returned { head: self.host.identity(), cluster: self.authority.name() })
    }

    /// Certifies a worker on behalf of the agent that starts it.
    pub(super) fn sign_worker(
        &self,
        agent: HostUid,
        job: JobId,
        hosts: [HostUid; 2],
        request: &[u8],
    ) -> NodeReply {
        if !self.control.read(|state| state.is_member(agent)) {
            return NodeReply::Unknown;
        }
        let node = NodeId(agent.host.0);
        if let Err(text) = self.control.read(|state| check_owned_by(state, node, &hosts)) {
            tracing::warn!(%node, text, "rejected a certificate request for a worker");
            return NodeReply::Failed { text };
        }
        let hosts = hosts.to_vec();
        self.sign(&Claims { role: Role::Worker, hosts, job: Some(job), node: Some(node) }, request)
    }

    /// Certifies the driver of a submitted job on behalf of the agent that runs it: the driver has no token.
    pub(super) fn sign_driver(
        &self,
        agent: HostUid,
        job: JobId,
        hosts: Vec<HostUid>,
        request: &[u8],
    ) -> NodeReply {
        if !self.control.read(|state| state.is_member(agent)) {
            return NodeReply::Unknown;
        }
        let node = NodeId(agent.host.0);
        // The node is the caller's own, and not one that the request names.
        let claims = Claims { role: Role::Driver, hosts, job: Some(job), node: Some(node) };
        let checked = claims.check_claimable().map_err(|error| error.to_string());
        let checked = checked.and_then(|()| self.control.read(|state| check_submitted(state, &claims)));
        if let Err(text) = checked {
            tracing::warn!(%node, text, "rejected a certificate request for a driver");
            return NodeReply::Failed { text };
        }
        self.sign(&claims, request)
    }

    fn sign(&self, claims: &Claims, request: &[u8]) -> NodeReply {
        match self.authority.issue(request, claims) {
            Ok(chain) => NodeReply::Signed { chain },
            Err(error) => NodeReply::Failed { text: error.to_string() },
        }
    }
}

/// Checks that the claimed job is open, that its driver runs on the claimed node, and that the hosts are
/// unclaimed or that driver's own.
fn check_submitted(state: &ClusterState, claims: &Claims) -> Result<(), String> {
    let Claims { job: Some(job), node, hosts, .. } = claims else {
        return Err("a submitted driver is certified for its job".to_owned());
    };
    let descriptor =
        state.job_descriptor(*job).filter(|_| state.job_state(*job).is_some_and(JobState::is_open));
    // Only a submitted job has a `runs_on`: without the first condition an absent node would match all others.
    let Some(descriptor) = descriptor.filter(|descriptor| node.is_some() && descriptor.runs_on == *node)
    else {
        return Err(format!("the driver of job {job} does not run on this node"));
    };
    // A second incarnation would supersede the first on its peers, which would then reject the first.
    let ids: BTreeSet<_> = hosts.iter().map(|host| host.host).collect();
    if ids.len() < hosts.len() {
        return Err("a driver is certified for one incarnation of each host".to_owned());
    }
    let own = [descriptor.driver, descriptor.user_host];
    match hosts.iter().find(|host| {
        state.owner_of_host(host.host).is_some_and(|holder| holder != **host || !own.contains(&Some(holder)))
    }) {
        Some(host) => Err(format!("host {} belongs to another process of the cluster", host.host)),
        None => Ok(()),
    }
}

/// Checks that no live process owns these hosts, unless the requester has presented the certificate for them.
fn check_unclaimed(
    state: &ClusterState,
    claims: &Claims,
    presented: Option<&Certificate>,
) -> Result<(), String> {
    for host in &claims.hosts {
        let Some(holder) = state.owner_of_host(host.host) else { continue };
        let is_own = presented.is_some_and(|presented| presented.role_of(*host) == Some(claims.role));
        if holder != *host || !is_own {
            return Err(format!(
                "host {} belongs to another process of the cluster, which is alive; restart this process to draw another id",
                host.host
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::control_plane::state::{ControlEvent, Millis, Settings, Ticket};
    use crate::cluster::daemon::test_ca::{TestCa, claims};
    use crate::cluster::head_core::checks::check_event;
    use crate::cluster::model::NodeReport;
    use crate::cluster::model::{JobDescriptor, WorkerAddress, WorkerId};
    use crate::cluster::protocol::NodeEvent;
    use crate::cluster::security::{CertificateRequest, ONE_JOB, job_name};
    use crate::host::fresh_identity;
    use crate::id::HostId;
    use crate::spec::{End, EndReason};

    /// State with one node, one worker, and the driver of its job.
    struct Known {
        state: ClusterState,
        agent: HostUid,
        driver: HostUid,
        caller: HostUid,
        worker: [HostUid; 2],
    }

    fn fixture() -> Known {
        let [agent, driver, caller, one, other] = [(); 5].map(|()| fresh_identity());
        let at = "127.0.0.1:1".parse().unwrap();
        let descriptor = rejoin_tests::descriptor(agent);
        let (job, node, worker) = (JobId(1), descriptor.id(), WorkerId(1));
        let member = WorkerAddress { actors: one, actors_at: at, tasks: other, tasks_at: at };
        let job_descriptor = JobDescriptor {
            entrypoint: String::new(),
            hostname: String::new(),
            pid: 1,
            driver: Some(driver),
            user_host: Some(caller),
            namespace: String::new(),
            runs_on: None,
        };
        let mut state = ClusterState::new(Settings::default());
        for event in [
            ControlEvent::NodeJoined(NodeReport::idle(descriptor)),
            ControlEvent::JobStarted { ticket: Ticket(1), job: None, descriptor: job_descriptor },
            ControlEvent::NodeProvisioned { job, node },
            ControlEvent::WorkerReady { worker, member, pid: 1 },
        ] {
            state.handle(Millis(1), event, &mut Vec::new());
        }
        Known { state, agent, driver, caller, worker: [one, other] }
    }

    fn certificate(ca: &TestCa, claims: &Claims) -> Certificate {
        let request = CertificateRequest::new().unwrap();
        let chain = ca.authority.issue(request.csr(), claims).unwrap();
        Certificate::verified(chain[0].clone().into())
    }

    #[test]
    fn live_host_is_certified_again_only_for_its_own_process() {
        let (ca, known) = (TestCa::new(), fixture());
        let stranger = claims(Role::Agent, fresh_identity());
        let own = certificate(&ca, &stranger);
        check_unclaimed(&known.state, &stranger, None).unwrap();
        let drivers = [(Role::Driver, known.driver), (Role::Driver, known.caller)];
        for (role, host) in [(Role::Agent, known.agent)].into_iter().chain(drivers) {
            let living = claims(role, host);
            let renewed = certificate(&ca, &living);
            check_unclaimed(&known.state, &living, Some(&renewed)).unwrap();
            // Attempts: with the token alone, with a certificate of another host, and as a later incarnation.
            let later = HostUid { incarnation: fresh_identity().incarnation, ..host };
            for (claims, presented) in
                [(&living, None), (&living, Some(&own)), (&claims(role, later), Some(&renewed))]
            {
                let refused = check_unclaimed(&known.state, claims, presented).unwrap_err();
                assert!(refused.contains("another process of the cluster"), "{refused}");
            }
        }
        let as_driver = claims(Role::Driver, known.worker[0]);
        check_unclaimed(&known.state, &as_driver, None).unwrap_err();
        let two = Claims { hosts: vec![fresh_identity(), known.driver], ..stranger };
        check_unclaimed(&known.state, &two, None).unwrap_err();
    }

    #[test]
    fn host_of_a_lost_node_is_unclaimed() {
        let mut known = fixture();
        let left = ControlEvent::NodeLeft { node: known.agent, cause: String::new() };
        known.state.handle(Millis(2), left, &mut Vec::new());
        check_unclaimed(&known.state, &claims(Role::Agent, known.agent), None).unwrap();
    }

    #[test]
    fn worker_is_certified_only_for_its_own_hosts() {
        let known = fixture();
        let node = NodeId(known.agent.host.0);
        check_owned_by(&known.state, node, &[fresh_identity(), fresh_identity()]).unwrap();
        check_owned_by(&known.state, node, &known.worker).unwrap();
        check_owned_by(&known.state, NodeId(7), &known.worker).unwrap_err();
        let head = HostUid { host: HostId::HEAD, ..fresh_identity() };
        for other in [known.agent, known.driver, known.caller, head] {
            check_owned_by(&known.state, node, &[fresh_identity(), other]).unwrap_err();
        }
    }

    #[test]
    fn submitted_driver_is_certified_only_for_its_job_on_its_node() {
        let mut known = fixture();
        let (job, node) = (JobId(2), NodeId(known.agent.host.0));
        let descriptor = JobDescriptor {
            entrypoint: String::new(),
            hostname: String::new(),
            pid: 0,
            driver: None,
            user_host: None,
            namespace: String::new(),
            runs_on: Some(node),
        };
        let submitted = ControlEvent::JobSubmitted { ticket: Ticket(2), descriptor: descriptor.clone() };
        known.state.handle(Millis(2), submitted, &mut Vec::new());
        let asked = |job, node, hosts: &[HostUid]| Claims {
            role: Role::Driver,
            hosts: hosts.to_vec(),
            job: Some(job),
            node: Some(node),
        };
        let fresh = [fresh_identity(), fresh_identity()];
        let own = asked(job, node, &fresh);
        check_submitted(&known.state, &own).unwrap();
        assert!(
            own.names().contains(&ONE_JOB.to_owned()) && own.names().contains(&job_name(job, Role::Driver))
        );
        // Job 1 was not submitted, and job 3 does not exist.
        for other in
            [asked(JobId(1), node, &fresh), asked(JobId(3), node, &fresh), asked(job, NodeId(7), &fresh)]
        {
            check_submitted(&known.state, &other).unwrap_err();
        }
        let later = HostUid { incarnation: fresh_identity().incarnation, ..fresh[0] };
        let again = HostUid { incarnation: crate::id::Incarnation(later.incarnation.0 + 1), ..later };
        check_submitted(&known.state, &asked(job, node, &[later, again])).unwrap_err();
        for living in [known.agent, known.driver, known.caller, known.worker[0]] {
            check_submitted(&known.state, &asked(job, node, &[fresh[0], living])).unwrap_err();
        }
        // Once the driver has started the job, it can be certified again, and no other process in its place.
        let descriptor = JobDescriptor { driver: Some(fresh[0]), user_host: Some(fresh[1]), ..descriptor };
        let started = ControlEvent::JobStarted { ticket: Ticket(3), job: Some(job), descriptor };
        known.state.handle(Millis(3), started, &mut Vec::new());
        check_submitted(&known.state, &own).unwrap();
        let later = HostUid { incarnation: fresh_identity().incarnation, ..fresh[0] };
        check_submitted(&known.state, &asked(job, node, &[later])).unwrap_err();
        let (state, message) = (JobState::Failed, String::new());
        known.state.handle(
            Millis(4),
            ControlEvent::JobEnded { job, state, exit_code: None, message },
            &mut Vec::new(),
        );
        check_submitted(&known.state, &own).unwrap_err();
    }

    #[test]
    fn node_reports_only_its_own_workers_and_drivers() {
        let known = fixture();
        let (here, elsewhere, worker) = (NodeId(known.agent.host.0), NodeId(7), WorkerId(1));
        let at = "127.0.0.1:1".parse().unwrap();
        let ready = |actors, tasks| NodeEvent::WorkerReady {
            worker,
            member: WorkerAddress { actors, actors_at: at, tasks, tasks_at: at },
            pid: 1,
        };
        let ended =
            || NodeEvent::WorkerEnded { worker, end: End::new(EndReason::Unknown, ""), killed: false };
        let [one, other] = known.worker;
        check_event(&known.state, here, &ready(one, other)).unwrap();
        check_event(&known.state, here, &ended()).unwrap();
        check_event(&known.state, elsewhere, &ended()).unwrap_err();
        check_event(&known.state, elsewhere, &ready(fresh_identity(), fresh_identity())).unwrap_err();
        for victim in [known.agent, known.driver, known.caller] {
            check_event(&known.state, here, &ready(victim, fresh_identity())).unwrap_err();
        }
        let job = JobId(1);
        check_event(&known.state, here, &NodeEvent::DriverStarted { job }).unwrap_err();
    }
}

#[cfg(test)]
mod rejoin_tests;
