//! Whole node: one port with a token RPC server and a host behind it, and a driver that has only the token.

use actix::prelude::*;
use roadshow::prelude::*;

use super::*;
use crate::cluster::authorization::check_job;
use crate::cluster::daemon::head::ca::CertificateAuthority;
use crate::cluster::daemon::test_ca::{TestCa, claims};
use crate::cluster::daemon::token_rpc_server::TokenRpcServer;
use crate::cluster::daemon::token_rpc_server::TokenService;
use crate::cluster::model::JobId;
use crate::cluster::security::token_rpc::{Endpoint, Enrolled, TokenRpcClient};
use crate::cluster::security::{CertificateRequest, Claims};
use crate::config::Limits;
use crate::host::{Executor, Host, HostConfig, fresh_identity};
use crate::id::{HostId, HostUid};
use crate::remote::actor_services;
use crate::session::Secret;
use crate::transport::{Certificate, Role, Routed, Transport};

/// Token RPC service of a head that only enrols.
struct EnrolmentService {
    ca: TestCa,
    identity: HostUid,
}

impl TokenService for EnrolmentService {
    type Request = ();
    type Reply = ();

    async fn reply(&self, (): ()) {}

    async fn enrol(&self, csr: Vec<u8>, claims: Claims, _: Option<&Certificate>) -> Result<Enrolled, String> {
        let chain = self.ca.authority.issue(&csr, &claims).map_err(|error| error.to_string())?;
        Ok(Enrolled { chain, head: self.identity, cluster: "test".to_owned() })
    }
}

struct TestRoutes {
    head: HostUid,
    host: mpsc::Sender<net::TcpStream>,
    token_rpc: mpsc::Sender<net::TcpStream>,
}

impl ConnectionRouter for TestRoutes {
    fn route(&self, route: Route, stream: net::TcpStream) -> Result<(), HandoffError> {
        let to = match route {
            Route::HeadTokenRpc => &self.token_rpc,
            Route::Host(host) if host == self.head.host => &self.host,
            _ => return Err(HandoffError::Unknown),
        };
        to.try_send(stream).map_err(|_| HandoffError::Full)
    }
}

#[derive(RemoteActor)]
#[remote(local, handles(Ping))]
struct Pinged;

impl Actor for Pinged {
    type Context = Context<Self>;
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
struct Ping(u32);

impl Handler<Ping> for Pinged {
    type Result = u32;

    fn handle(&mut self, Ping(number): Ping, _: &mut Context<Self>) -> u32 {
        number + 1
    }
}

async fn start(
    identity: HostUid,
    secret: Secret,
    transport: impl Transport + 'static,
    listen: Option<SocketAddr>,
) -> (Host, ClusterRef) {
    let host = Host::start(HostConfig {
        identity,
        secret,
        limits: Limits::default(),
        transport: Arc::new(transport),
        listen,
        io: tokio::runtime::Handle::current(),
        executor: Executor::Arbiter(Arbiter::current()),
        services: Box::new(actor_services),
    })
    .await
    .unwrap();
    (host.clone(), ClusterRef::new(host))
}

fn certify(authority: &CertificateAuthority, role: Role, host: HostUid) -> crate::transport::Credentials {
    let request = CertificateRequest::new().unwrap();
    let chain = authority.issue(request.csr(), &claims(role, host)).unwrap();
    request.credentials(chain).unwrap()
}

/// Connects a driver to a node, with the token or enrolled for a job, across machines or on one.
async fn connect_a_driver(between_machines: bool, job: Option<JobId>) {
    let seen = |routed: Routed| if between_machines { routed.between_machines() } else { routed };
    let (ca, head) = (TestCa::new(), HostUid { host: HostId::HEAD, ..fresh_identity() });
    let text = ca.authority.token().to_string();
    let acceptor = Acceptor::bind(LOOPBACK).await.unwrap();
    let address = acceptor.address();
    let credentials = certify(&ca.authority, Role::Head, head);
    let token = ca.authority.token().clone();
    let ((to_host, host_incoming), (to_token_rpc, token_rpc_incoming)) = (mpsc::channel(4), mpsc::channel(4));
    let server = TokenRpcServer::new(&credentials, token.clone(), EnrolmentService { ca, identity: head });
    tokio::spawn(server.run(token_rpc_incoming));
    let routes = Arc::new(TestRoutes { head, host: to_host, token_rpc: to_token_rpc });
    tokio::spawn(async move { acceptor.accept_loop(routes).await });
    let routed = seen(Routed::new(credentials, address, host_incoming));
    let (there, cluster) = start(head, token.session_secret(), routed, Some(address)).await;
    let pinged = cluster.register(Pinged.start());

    let (me, token) = (fresh_identity(), text.parse().unwrap());
    let mut client = TokenRpcClient::connect_as(None, address, Endpoint::Head, &token).await.unwrap();
    let enrolment = client.enrol(&Claims { job, ..claims(Role::Driver, me) }).await.unwrap();
    assert_eq!(enrolment.head, head);
    let routed = seen(Routed::dial_only(enrolment.credentials));
    let (here, cluster) = start(me, token.session_secret(), routed, None).await;
    here.add_peer(enrolment.head, address);
    assert_eq!(cluster.bind(&pinged).send(Ping(41)).await, Ok(42));
    let known = between_machines.then_some((Role::Head, Role::Driver));
    assert_eq!(here.role_of(head).zip(there.role_of(me)), known);
    let may_use = |of| check_job(&there, me, of).is_ok();
    assert_eq!([JobId(1), JobId(2)].map(may_use), [true, job.is_none() || !between_machines]);
    here.abort();
    there.abort();
}

#[test]
fn driver_that_was_enrolled_for_a_job_may_use_only_that_job() {
    System::new().block_on(in_time(connect_a_driver(true, Some(JobId(1)))));
}

#[test]
fn driver_needs_only_the_token_to_reach_a_node_of_another_machine() {
    System::new().block_on(in_time(connect_a_driver(true, None)));
}

#[test]
fn driver_needs_only_the_token_to_reach_a_node_of_its_own_machine() {
    System::new().block_on(in_time(connect_a_driver(false, None)));
}
