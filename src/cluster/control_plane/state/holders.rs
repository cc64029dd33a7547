//! Holders of the states of durable actors: which nodes have the copies of an actor's state.
//!
//! ```text
//!            propose                       all copies are complete
//!   active -----------> active + proposed ------------------------> active
//!      ^   '- persisted                   '- persisted                 |
//!      '---------------------------------------------------------------'
//! ```
//! A configuration is a number and a set of holders. The present incarnation of the actor asks for each change: when it
//! begins, when it cannot reach a holder, and when there are too few. It seals one holder of the active configuration,
//! copies the state to the proposed ones, and has the proposal activated. Only then it appends. A holder refuses appends
//! of configurations before the latest that it knows, and an append goes to all holders. So one sealed holder suffices
//! to end an earlier incarnation, and it has all that was acknowledged.
//!
//! This is primary-backup replication, reconfigured by one authority, as in Vertical Paxos (Lamport, Malkhi, Zhou 2009).

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

use super::{
    Action, ClusterState, ControlError, ControlReply, HolderConfiguration, Record, RecordKey, Ticket,
};
use crate::cluster::model::{ActorKey, JobId, NodeId, NodeState};
use crate::id::ActorIncarnation;
use crate::spec::{Copies, HolderAddress, HolderId, HolderPlan, HolderRequest, StateKey};

impl ClusterState {
    /// Sets the holder of a node.
    pub(super) fn holder_started(&mut self, node: NodeId, holder: HolderAddress) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.holder = Some(holder);
        }
    }

    /// Checks whether there are nodes for the copies of a state.
    pub(super) fn check_holders(&mut self, ticket: Ticket, copies: Copies) {
        let checked = self.choose_holders(None, &[], &[], copies).map(|_| ControlReply::Done);
        self.reply(ticket, checked);
    }

    /// Proposes the next configuration of an actor.
    pub(super) fn propose_holders(&mut self, ticket: Ticket, request: HolderRequest) {
        let proposed = self.plan_holders(request);
        self.reply(ticket, proposed);
    }

    fn plan_holders(&mut self, request: HolderRequest) -> Result<ControlReply, ControlError> {
        let HolderRequest { actor, incarnation, copies, suspects, only_if_better } = request;
        let job = self.check_incarnation(actor, incarnation)?;
        self.check_persistence()?;
        let known = self.holders.get(&actor).cloned().unwrap_or_default();
        let chosen = self.choose_holders(Some(actor), &known.active, &suspects, copies)?;
        let is_better = chosen.len() > known.active.len();
        if only_if_better && !is_better {
            return Ok(ControlReply::Done);
        }
        let is_first = known.active.is_empty();
        let sources = self.addresses(&known.active);
        if !is_first && sources.is_empty() {
            let missing = list(&known.active);
            let text = format!(
                "no holder of its state is in the cluster; the actor waits for one of {missing}, or kill it"
            );
            return Err(ControlError::Infeasible(text));
        }
        let number = known.number + 1;
        let holders = self.addresses(&chosen);
        let is_complete = chosen.len() >= usize::from(copies.wanted) || self.settings.is_single_node;
        self.set_holders(actor, HolderConfiguration { number, proposed: Some(chosen), ..known });
        let key = StateKey { job, actor };
        Ok(ControlReply::Holders(HolderPlan { key, number, sources, is_first, holders, is_complete }))
    }

    /// Makes the proposed configuration of an actor the active one.
    pub(super) fn activate_holders(
        &mut self,
        ticket: Ticket,
        actor: ActorKey,
        incarnation: ActorIncarnation,
        number: u64,
    ) {
        let activated = self.activate(actor, incarnation, number).map(|()| ControlReply::Done);
        self.reply(ticket, activated);
    }

    fn activate(
        &mut self,
        actor: ActorKey,
        incarnation: ActorIncarnation,
        number: u64,
    ) -> Result<(), ControlError> {
        self.check_incarnation(actor, incarnation)?;
        self.check_persistence()?;
        let mut known = self.holders.get(&actor).cloned().unwrap_or_default();
        if known.number != number {
            return Err(ControlError::Unknown(format!(
                "the configuration {number} of its state is replaced"
            )));
        }
        // Without one it is a repeated request.
        if let Some(proposed) = known.proposed.take() {
            self.set_holders(actor, HolderConfiguration { active: proposed, ..known });
        }
        Ok(())
    }

    fn set_holders(&mut self, actor: ActorKey, configuration: HolderConfiguration) {
        // Before any process hears of it: a restarted head must not use its number for another.
        self.actions.push(Action::Persist(Record::Holders { actor, configuration: configuration.clone() }));
        self.holders.insert(actor, configuration);
    }

    /// Restores the configuration of an actor that was restored before.
    pub(super) fn restore_holders(&mut self, actor: ActorKey, configuration: HolderConfiguration) {
        match self.managed.contains_key(&actor) {
            true => drop(self.holders.insert(actor, configuration)),
            false => self.actions.push(Action::Delete(RecordKey::Holders(actor))),
        }
    }

    /// Removes the state of an actor that has ended for good.
    pub(super) fn remove_holders(&mut self, actor: ActorKey, job: JobId) {
        let Some(HolderConfiguration { active, proposed, .. }) = self.holders.remove(&actor) else { return };
        self.actions.push(Action::Delete(RecordKey::Holders(actor)));
        let holders: Vec<_> = active.into_iter().chain(proposed.into_iter().flatten()).collect();
        let has = |holder: HolderAddress| holders.contains(&holder.holder);
        let nodes = self.nodes.iter().filter(|(_, node)| node.holder.is_some_and(has)).map(|(id, _)| *id);
        let (key, nodes) = (StateKey { job, actor }, nodes.collect());
        self.actions.push(Action::RemoveState { key, nodes });
    }

    /// Commands a node to remove the states of actors that have ended: it may have missed that.
    pub(super) fn reconcile_states(&mut self, node: NodeId, states: &[StateKey]) {
        for key in states.iter().filter(|key| !self.managed.contains_key(&key.actor)) {
            self.actions.push(Action::RemoveState { key: *key, nodes: vec![node] });
        }
    }

    /// Job of an actor whose present incarnation asks.
    fn check_incarnation(
        &self,
        actor: ActorKey,
        incarnation: ActorIncarnation,
    ) -> Result<JobId, ControlError> {
        let is_present = self.managed.get(&actor).is_some_and(|managed| managed.incarnation == incarnation);
        // An actor that waits for its state handles no stop, so it ends here.
        let serves = is_present && !self.stopping.contains(&actor);
        let job = self.actors.get(&actor).map(|actor| actor.job).filter(|_| serves);
        job.ok_or_else(|| {
            ControlError::Unknown(format!("the incarnation of actor {actor} is replaced or killed"))
        })
    }

    /// Chooses holders: those that are active, then the one of the actor's node, then others.
    fn choose_holders(
        &self,
        actor: Option<ActorKey>,
        active: &[HolderId],
        suspects: &[HolderId],
        copies: Copies,
    ) -> Result<Vec<HolderId>, ControlError> {
        let own_node = actor.and_then(|actor| self.node_of(self.actors.get(&actor)?.phase));
        let mut candidates: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.shown_state() == NodeState::Alive)
            .filter_map(|(id, node)| Some((*id, node.holder?.holder)))
            .filter(|(_, holder)| !suspects.contains(holder))
            .collect();
        let wanted = usize::from(copies.wanted);
        if candidates.is_empty() || copies.is_required && candidates.len() < wanted {
            let text = format!(
                "its state needs {} nodes that hold states, and there are {} that can be reached",
                if copies.is_required { wanted } else { 1 },
                candidates.len()
            );
            return Err(ControlError::Infeasible(text));
        }
        // Rendezvous hashing spreads the copies evenly, and chooses the same nodes again.
        let weight = |holder: HolderId| FxBuildHasher.hash_one((actor, holder));
        candidates.sort_by_key(|(node, holder)| {
            (!active.contains(holder), Some(*node) != own_node, weight(*holder), *holder)
        });
        Ok(candidates.into_iter().map(|(_, holder)| holder).take(wanted.max(1)).collect())
    }

    /// Addresses of holders on known nodes; those that can be reached first.
    fn addresses(&self, holders: &[HolderId]) -> Vec<HolderAddress> {
        let mut known: Vec<_> = self
            .nodes
            .values()
            .filter_map(|node| Some((node.is_unreachable, node.holder?)))
            .filter(|(_, address)| holders.contains(&address.holder))
            .collect();
        known.sort_by_key(|(is_unreachable, address)| (*is_unreachable, address.holder));
        known.into_iter().map(|(_, address)| address).collect()
    }
}

fn list(holders: &[HolderId]) -> String {
    holders.iter().map(HolderId::to_string).collect::<Vec<_>>().join(", ")
}
