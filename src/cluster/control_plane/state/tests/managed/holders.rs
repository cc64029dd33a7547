//! Tests of the configurations of holders of durable actors' states.

use super::rejoin::{recorded, worker_report};
use super::*;
use crate::spec::{Copies, HolderAddress, HolderId, HolderPlan, HolderRequest, StateKey};

const TWO: Copies = Copies { wanted: 2, is_required: false };

/// Node with a holder of the same number.
fn holder_node(node: u64) -> NodeReport {
    NodeReport { holder: Some(HolderId(node)), ..NodeReport::idle(node_descriptor(node, 4.0, 1)) }
}

/// Cluster of nodes with holders, and a managed actor on the first one.
fn with_holders(nodes: u64) -> (Harness, JobId, ActorKey, WorkerId) {
    let mut harness = Harness::new();
    for node in 1..=nodes {
        harness.handle(ControlEvent::NodeJoined(holder_node(node)));
    }
    let job = harness.start_job();
    harness.provision_and_start(job, 1);
    let (actor, worker) = harness.spawn_managed(job, restartable(at_most(9), plain()));
    (harness, job, actor, worker)
}

fn request(actor: ActorKey, incarnation: u32) -> HolderRequest {
    HolderRequest {
        actor,
        incarnation: ActorIncarnation(incarnation),
        copies: TWO,
        suspects: Vec::new(),
        only_if_better: false,
    }
}

fn holders(plan: &HolderPlan) -> Vec<HolderId> {
    plan.holders.iter().map(|address| address.holder).collect()
}

fn sources(plan: &HolderPlan) -> Vec<HolderId> {
    plan.sources.iter().map(|address| address.holder).collect()
}

impl IssuedRequest {
    /// Checks for an error whose text has a part.
    #[track_caller]
    fn expect_refusal(&self, denied: fn(String) -> ControlError, part: &str) {
        let Some(Err(error)) = &self.reply else { panic!("{self:?}") };
        let kinds = [error, &denied(String::new())].map(std::mem::discriminant);
        assert!(kinds[0] == kinds[1] && format!("{error:?}").contains(part), "{error:?}");
    }
}

impl Harness {
    fn propose(&mut self, request: HolderRequest) -> IssuedRequest {
        self.ask(|ticket| ControlEvent::ProposeHolders { ticket, request })
    }

    #[track_caller]
    fn plan(&mut self, request: HolderRequest) -> HolderPlan {
        match self.propose(request).reply {
            Some(Ok(ControlReply::Holders(plan))) => plan,
            other => panic!("{other:?}"),
        }
    }

    fn activate(&mut self, actor: ActorKey, incarnation: u32, number: u64) -> IssuedRequest {
        let incarnation = ActorIncarnation(incarnation);
        self.ask(|ticket| ControlEvent::ActivateHolders { ticket, actor, incarnation, number })
    }

    #[track_caller]
    fn activated(&mut self, actor: ActorKey, incarnation: u32, number: u64) {
        assert_eq!(self.activate(actor, incarnation, number).reply, Some(Ok(ControlReply::Done)));
    }
}

#[test]
fn a_configuration_is_written_before_it_is_proposed_and_before_it_is_active() {
    let (mut harness, job, actor, _) = with_holders(3);
    let proposed = harness.propose(request(actor, 0));
    let Some(Ok(ControlReply::Holders(plan))) = &proposed.reply else { panic!("{proposed:?}") };
    assert_eq!((plan.key, plan.number, plan.is_first), (StateKey { job, actor }, 1, true));
    assert!(plan.is_complete && plan.sources.is_empty() && plan.holders.len() == 2, "{plan:?}");
    assert_eq!(plan.holders[0].holder, HolderId(1), "the node of the actor is the first choice");
    let written = |active: &[HolderId], proposed: Option<&[HolderId]>| Record::Holders {
        actor,
        configuration: HolderConfiguration {
            number: 1,
            active: active.to_vec(),
            proposed: proposed.map(<[_]>::to_vec),
        },
    };
    let chosen = holders(plan);
    assert_eq!(durable_records(&proposed.actions), [written(&[], Some(&chosen))]);
    let activated = harness.activate(actor, 0, 1);
    assert_eq!(durable_records(&activated.actions), [written(&chosen, None)]);
    // A repeated activation has no effect.
    assert_eq!(durable_records(&harness.activate(actor, 0, 1).actions), []);
    // Every later proposal has a higher number, and the active holders as sources.
    for number in 2..4 {
        let plan = harness.plan(request(actor, 0));
        assert_eq!((plan.number, plan.is_first, holders(&plan)), (number, false, chosen.clone()));
        assert_eq!(sources(&plan).len(), 2);
    }
}

#[test]
fn replaced_incarnations_and_replaced_proposals_are_refused() {
    let (mut harness, _, actor, worker) = with_holders(2);
    harness.plan(request(actor, 0));
    harness.panics(actor, 0);
    harness.after(1000);
    harness.created(actor, worker, 1);
    harness.propose(request(actor, 0)).expect_refusal(ControlError::Unknown, "replaced");
    harness.activate(actor, 0, 1).expect_refusal(ControlError::Unknown, "replaced");
    // The first configuration was never active, so the state is created again.
    let plan = harness.plan(request(actor, 1));
    assert_eq!((plan.number, plan.is_first), (2, true));
    harness.plan(request(actor, 1));
    harness.activate(actor, 1, 2).expect_refusal(ControlError::Unknown, "replaced");
    harness.activated(actor, 1, 3);
}

#[test]
fn suspects_are_replaced_and_stay_sources() {
    let (mut harness, _, actor, _) = with_holders(3);
    let first = holders(&harness.plan(request(actor, 0)));
    harness.activated(actor, 0, 1);
    let plan = harness.plan(HolderRequest { suspects: vec![first[0]], ..request(actor, 0) });
    assert!(holders(&plan).contains(&first[1]) && !holders(&plan).contains(&first[0]), "{plan:?}");
    assert_eq!(sources(&plan).len(), 2, "a suspect may have the last records");
    // The other one is suspected, too: a third has the state alone, with the old ones as sources.
    let plan = harness.plan(HolderRequest { suspects: first, ..request(actor, 0) });
    assert_eq!((plan.holders.len(), plan.is_complete, sources(&plan).len()), (1, false, 2));
    let all = (1..4).map(HolderId).collect();
    harness
        .propose(HolderRequest { suspects: all, ..request(actor, 0) })
        .expect_refusal(ControlError::Infeasible, "there are 0 that can be reached");
}

#[test]
fn a_copy_is_added_once_a_node_could_have_it() {
    let (mut harness, _, actor, _) = with_holders(1);
    let plan = harness.plan(request(actor, 0));
    assert_eq!((holders(&plan), plan.is_complete), (vec![HolderId(1)], false));
    harness.activated(actor, 0, 1);
    let better = HolderRequest { only_if_better: true, ..request(actor, 0) };
    let kept = harness.propose(better.clone());
    assert_eq!((kept.reply, kept.actions), (Some(Ok(ControlReply::Done)), vec![]));
    let required = Copies { is_required: true, ..TWO };
    harness
        .ask(|ticket| ControlEvent::CheckHolders { ticket, copies: required })
        .expect_refusal(ControlError::Infeasible, "needs 2 nodes that hold states, and there are 1");
    harness.handle(ControlEvent::NodeJoined(holder_node(2)));
    let checked = harness.ask(|ticket| ControlEvent::CheckHolders { ticket, copies: required });
    assert_eq!(checked.reply, Some(Ok(ControlReply::Done)));
    let plan = harness.plan(better);
    assert_eq!((holders(&plan), plan.is_complete), (vec![HolderId(1), HolderId(2)], true));
}

#[test]
fn a_state_whose_holders_are_all_away_waits_and_is_never_created_again() {
    let (mut harness, _, actor, worker) = with_holders(3);
    let plan = harness.plan(HolderRequest { suspects: vec![HolderId(1)], ..request(actor, 0) });
    harness.activated(actor, 0, 1);
    for holder in holders(&plan) {
        // Its agent has restarted, and its memory is empty.
        let mut report = holder_node(holder.0);
        report.descriptor.agent.incarnation.0 += 1;
        report.holder = Some(HolderId(10 + holder.0));
        harness.handle(ControlEvent::NodeJoined(report));
    }
    harness.propose(request(actor, 0)).expect_refusal(ControlError::Infeasible, "no holder of its state");
    // It is killed meanwhile, and does not handle the stop.
    let stopping = harness.kill(actor);
    assert_eq!(stops(&stopping), [(worker, 0)]);
    harness.propose(request(actor, 0)).expect_refusal(ControlError::Unknown, "replaced or killed");
    harness.handle(incarnation_ended(actor, 0, EndReason::Unknown, "its state is gone"));
    harness.expect_gone(actor, EndReason::Killed, "it was killed");
}

#[test]
fn an_incarnation_that_gives_up_its_state_without_a_failure_is_replaced() {
    let (mut harness, _, actor, worker) = with_holders(2);
    let first = holders(&harness.plan(request(actor, 0)));
    harness.activated(actor, 0, 1);
    harness.handle(incarnation_ended(actor, 0, EndReason::Unknown, "it was fenced"));
    let actions = harness.after(1000);
    assert_eq!(starts(&actions), [(worker, 1)]);
    let plan = harness.plan(request(actor, 1));
    assert_eq!((plan.number, plan.is_first, sources(&plan).len()), (2, false, 2));
    assert_eq!(holders(&plan), first);
}

#[test]
fn a_state_is_removed_with_its_actor_also_from_a_node_that_was_away() {
    let (mut harness, job, actor, worker) = with_holders(2);
    harness.plan(request(actor, 0));
    harness.activated(actor, 0, 1);
    let actions = harness.handle(incarnation_ended(actor, 0, EndReason::StateFailed, "it cannot be applied"));
    let removed = |nodes: &[u64]| Action::RemoveState {
        key: StateKey { job, actor },
        nodes: nodes.iter().copied().map(NodeId).collect(),
    };
    let removes =
        |actions: &[Action]| actions.iter().find(|it| matches!(it, Action::RemoveState { .. })).cloned();
    let Some(Action::RemoveState { mut nodes, .. }) = removes(&actions) else { panic!("{actions:?}") };
    nodes.sort_unstable();
    assert_eq!(nodes, [NodeId(1), NodeId(2)]);
    assert!(actions.contains(&Action::Delete(RecordKey::Holders(actor))), "{actions:?}");
    assert!(harness.state.holders.is_empty());

    let (other, _) = harness.spawn_managed(job, restartable(at_most(9), plain()));
    let states = [actor, other].map(|actor| StateKey { job, actor }).to_vec();
    let actions = harness.handle(ControlEvent::NodeJoined(NodeReport { states, ..holder_node(2) }));
    assert_eq!(removes(&actions), Some(removed(&[2])));
    assert_eq!(harness.node_of(worker), 1);
}

#[test]
fn a_restarted_head_goes_on_with_a_higher_number_and_the_active_holders() {
    let (mut recorder, job, actor, worker) = recorded(0, cpus(1.0));
    recorder.record_event(ControlEvent::HolderStarted { node: NodeId(1), holder: address(1) });
    let request = request(actor, 0);
    for number in 1..3 {
        let ticket = recorder.harness.ticket();
        recorder.record_event(ControlEvent::ProposeHolders { ticket, request: request.clone() });
        if number == 1 {
            let ticket = recorder.harness.ticket();
            let incarnation = ActorIncarnation(0);
            recorder.record_event(ControlEvent::ActivateHolders { ticket, actor, incarnation, number });
        }
    }
    let (mut harness, _) = recorder.restart();
    // No node has reported.
    harness.propose(request.clone()).expect_refusal(ControlError::Infeasible, "0 that can be reached");
    let workers = vec![worker_report(job, worker, &[(actor, 0)])];
    harness.handle(ControlEvent::NodeJoined(NodeReport { workers, ..holder_node(1) }));
    // The second proposal is forgotten, and its number is not.
    harness.activate(actor, 0, 1).expect_refusal(ControlError::Unknown, "replaced");
    let plan = harness.plan(request);
    assert_eq!((plan.number, plan.is_first, sources(&plan)), (3, false, vec![HolderId(1)]));
}

fn address(node: u64) -> HolderAddress {
    holder_node(node).holder_address().unwrap()
}
