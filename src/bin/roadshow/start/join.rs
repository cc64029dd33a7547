//! Starting the agent of a node that joins a cluster.

use roadshow::admin::check_token;
use roadshow::daemon::AgentReady;
use roadshow::model::NodeState;

use super::head::start_agent;
use super::{Arguments, Started, fresh, machine, noted};
use crate::failure::Outcome;
use crate::reach::{Desks, Environment, Target, find_token};
use crate::session::{Home, Role};
use crate::values::Address;

pub(super) async fn start(arguments: &Arguments, address: &Address) -> Outcome<Started> {
    let home = Home::of_this_user();
    let head = address.resolve()?;
    let token = match &arguments.token {
        Some(token) => token.clone(),
        None => find_token(arguments.token_file.as_ref(), &Environment::read(), &home.sessions(), head)?,
    };
    check_token(token.reveal())?;
    let host = arguments.host.or_else(|| machine::address_towards(head)).unwrap_or_else(machine::own_address);
    let dir = home.create(arguments.session_dir.as_deref())?;
    let mut session = fresh(dir, Some(head), None)?;
    noted(&session, session.save_token(&token))?;
    let options = arguments.agent(&session, (host, arguments.port.unwrap_or(0)), Some(head), &token);
    let (agent, AgentReady { address, node_id }) = start_agent(&mut session, &options).await?;
    (session.node.address, session.node.node_id) = (Some(address), Some(node_id));
    noted(&session, session.save())?;
    let nodes = living_nodes(&Target::new(head, token.clone())).await;
    let children = agent.let_go().map(|child| (Role::Agent, child)).into_iter().collect();
    Ok(Started { session, token, again: false, nodes, children })
}

/// How many nodes there are now. A node that has joined has done so whether or not this can be asked.
async fn living_nodes(head: &impl Desks) -> Option<usize> {
    let nodes = head.head().await.ok()?.nodes().await.ok()?;
    Some(nodes.iter().filter(|node| node.state != NodeState::Dead).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::Cluster;

    #[tokio::test]
    async fn nodes_that_live_are_counted() {
        assert_eq!(living_nodes(&Cluster::new()).await, Some(2));
    }
}
