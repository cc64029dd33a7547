//! A whole node: one port, and behind it a desk and a host; a driver comes with nothing but the token.

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

/// What a head's desk does first of all.
struct Head {
    realm: TestCa,
    identity: HostUid,
}

impl TokenService for Head {
    type Request = ();
    type Reply = ();

    async fn answer(&self, (): ()) {}

    async fn enrol(&self, csr: Vec<u8>, claims: Claims, _: Option<&Certificate>) -> Result<Enrolled, String> {
        let chain = self.realm.authority.issue(&csr, &claims).map_err(|error| error.to_string())?;
        Ok(Enrolled { chain, head: self.identity, cluster: "test".to_owned() })
    }
}

struct Ways {
    head: HostUid,
    host: mpsc::Sender<net::TcpStream>,
    desk: mpsc::Sender<net::TcpStream>,
}

impl ConnectionRouter for Ways {
    fn route(&self, route: Route, stream: net::TcpStream) -> Result<(), HandoffError> {
        let to = match route {
            Route::HeadTokenRpc => &self.desk,
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

/// Comes to a node with a token, or enrolled for a job; between machines, or on one.
async fn a_driver_comes(between_machines: bool, job: Option<JobId>) {
    let seen = |routed: Routed| if between_machines { routed.between_machines() } else { routed };
    let (realm, head) = (TestCa::new(), HostUid { host: HostId::HEAD, ..fresh_identity() });
    let text = realm.authority.token().to_string();
    let door = Acceptor::bind(LOOPBACK).await.unwrap();
    let address = door.address();
    let credentials = certify(&realm.authority, Role::Head, head);
    let token = realm.authority.token().clone();
    let ((to_host, host_incoming), (to_desk, desk_incoming)) = (mpsc::channel(4), mpsc::channel(4));
    let desk = TokenRpcServer::new(&credentials, token.clone(), Head { realm, identity: head });
    tokio::spawn(desk.run(desk_incoming));
    let ways = Arc::new(Ways { head, host: to_host, desk: to_desk });
    tokio::spawn(async move { door.accept_loop(ways).await });
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
    let is_heard = |of| check_job(&there, me, of).is_ok();
    assert_eq!([JobId(1), JobId(2)].map(is_heard), [true, job.is_none() || !between_machines]);
    here.abort();
    there.abort();
}

#[test]
fn a_driver_that_was_enrolled_for_a_job_is_heard_of_that_job_alone() {
    System::new().block_on(in_time(a_driver_comes(true, Some(JobId(1)))));
}

#[test]
fn driver_needs_nothing_but_the_token_to_talk_to_a_node_of_another_machine() {
    System::new().block_on(in_time(a_driver_comes(true, None)));
}

#[test]
fn driver_needs_nothing_but_the_token_to_talk_to_a_node_of_its_machine() {
    System::new().block_on(in_time(a_driver_comes(false, None)));
}
