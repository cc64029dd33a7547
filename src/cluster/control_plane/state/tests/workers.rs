//! Tests of workers: start, readiness, crash and end.

use super::*;
use crate::config::{TASK_NAMES_MAX, WORKER_KILLED_DELAY, WORKER_KILLS_MAX, WORKER_STABLE_AFTER};

#[test]
fn task_counts_of_a_worker_are_bounded() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (_, worker) = harness.spawn(job, plain());
    let count = |n, finished| TaskCount { name: format!("task {n:06}"), finished, ..TaskCount::default() };
    let counts = (0..2 * TASK_NAMES_MAX).map(|n| count(n, 1)).collect();
    harness.handle(ControlEvent::TaskCounts { worker, counts });
    // Known functions are still updated.
    harness.handle(ControlEvent::TaskCounts { worker, counts: vec![count(0, 7)] });
    let counts = &harness.state.workers[&worker].tasks;
    assert_eq!((counts.len(), counts[0].finished), (TASK_NAMES_MAX, 7));
}
use crate::cluster::model::{TaskCount, WorkerState};

#[test]
fn provisioned_node_starts_its_workers_once() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 3));
    let job = harness.start_job();
    assert_eq!(harness.provision(job, 1), [1, 2, 3].map(WorkerId));
    assert_eq!(harness.provision(job, 1), []);
    let actions = harness.ready(WorkerId(2));
    let up = JobEvent::WorkerUp { node: NodeId(1), worker: WorkerId(2), member: member(WorkerId(2)), pid: 7 };
    assert_eq!(actions, [Action::NotifyDriver { job, event: up }]);
    assert_eq!(harness.state.worker_of(member(WorkerId(2)).tasks), Some(WorkerId(2)));
}

#[test]
fn worker_ends_with_its_actors_and_is_replaced() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn(job, cpus(1.0));
    let counts = vec![TaskCount { name: "f".to_owned(), finished: 3, ..TaskCount::default() }];
    harness.handle(ControlEvent::TaskCounts { worker, counts });
    let actions = harness.ended(worker);
    harness.expect_dead(actor, "exit code 1");
    let end = End::new(EndReason::Exited(1), "exit code 1");
    let gone = JobEvent::WorkerDown { node: NodeId(1), worker, member: Some(member(worker)), end };
    assert_eq!(driver_events(&actions), [&gone]);
    assert_eq!(started(&actions).len(), 1);
    assert_eq!(harness.free_cpus(1), 4.0);
    let workers = harness.state.workers();
    let states: Vec<_> = workers.iter().map(|worker| worker.state).collect();
    assert_eq!(states, [WorkerState::Starting, WorkerState::Dead]);
    assert_eq!(harness.state.tasks()[0].count.finished, 3);
}

#[test]
fn unfinished_tasks_of_an_ended_worker_count_as_failed() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (_, worker) = harness.spawn(job, cpus(1.0));
    let count = |name: &str, [queued, running, finished, failed]: [u64; 4]| {
        let name = name.to_owned();
        TaskCount { name, queued, running, finished, failed, ..TaskCount::default() }
    };
    let counted = |harness: &mut Harness, counts| harness.handle(ControlEvent::TaskCounts { worker, counts });
    let listed =
        |harness: &Harness| harness.state.tasks().into_iter().map(|task| task.count).collect::<Vec<_>>();
    counted(&mut harness, vec![count("g", [0, 1, 0, 0])]);
    counted(&mut harness, vec![count("f", [2, 1, 7, 1])]);
    assert_eq!(listed(&harness), [count("f", [2, 1, 7, 1]), count("g", [0, 1, 0, 0])]);
    harness.ended(worker);
    assert_eq!(listed(&harness), [count("f", [0, 0, 7, 4]), count("g", [0, 0, 0, 1])]);
    // The last report of the worker was in flight.
    counted(&mut harness, vec![count("g", [0, 0, 1, 0])]);
    assert_eq!(listed(&harness), [count("f", [0, 0, 7, 4]), count("g", [0, 0, 1, 0])]);
}

#[test]
fn suspended_worker_raises_an_alert_until_it_continues() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (_, worker) = harness.spawn(job, cpus(1.0));
    let state = |harness: &Harness| {
        let all = harness.state.workers();
        all.iter().find(|summary| summary.worker_id == worker).unwrap().state
    };
    harness.handle(ControlEvent::WorkerSuspended { worker, suspended: true });
    assert_eq!(state(&harness), WorkerState::Suspended);
    let alerts = harness.state.alerts();
    assert!(alerts.len() == 1 && alerts[0].text.contains("`kill -CONT 7`"), "{alerts:?}");
    harness.handle(ControlEvent::WorkerSuspended { worker, suspended: false });
    let starting = started(&harness.ended(worker))[0];
    harness.handle(ControlEvent::WorkerSuspended { worker: starting, suspended: true });
    let alerts = harness.state.alerts();
    assert!(alerts[0].text.ends_with("stopped by a signal"), "{alerts:?}");
    harness.handle(ControlEvent::WorkerSuspended { worker: starting, suspended: false });
    harness.ready(starting);
    let worker = starting;
    let state = |harness: &Harness| {
        let all = harness.state.workers();
        all.iter().find(|summary| summary.worker_id == worker).unwrap().state
    };
    assert_eq!((state(&harness), harness.state.alerts()), (WorkerState::Alive, Vec::new()));
}

#[test]
fn pool_is_blocked_after_failed_starts_and_the_reason_is_shown() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 1));
    let job = harness.start_job();
    let pending = harness.place(job, cpus(1.0)).expect_pending();
    let mut worker = harness.provision(job, 1)[0];
    for _ in 0..2 {
        worker = started(&harness.ended(worker))[0];
    }
    assert_eq!(started(&harness.ended(worker)), []);
    let alert = "its workers could not be started on node 0000000000000001: exit code 1";
    assert_eq!(harness.reasons(), [format!("no node runs workers of the job yet; {alert}")]);
    assert_eq!(harness.free_cpus(1), 4.0);
    // Another node, or another attempt, resolves it.
    harness.join(node_descriptor(2, 4.0, 1));
    let worker = harness.provision(job, 2)[0];
    let mut actions = harness.ready(worker);
    take_placed(&mut actions, pending);
}

#[test]
fn starts_that_fail_after_a_ready_worker_are_repeated_with_a_back_off() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 1));
    let job = harness.start_job();
    let first = harness.provision(job, 1)[0];
    harness.ready(first);
    harness.advance(lease(), &[agent(1, 1)], &[job]);
    let mut worker = started(&harness.ended(first))[0];
    for expected in [0, 1, 2, 4, 8] {
        let (next, waited) = ended_and_next(&mut harness, job, worker);
        assert_eq!(waited, expected);
        worker = next;
    }
    let pending = harness.place(job, plain()).expect_pending();
    let mut actions = harness.ready(worker);
    take_placed(&mut actions, pending);
}

/// Makes the worker ready and crashes it. Returns the next worker, and the delay of its start in seconds.
fn crash(harness: &mut Harness, job: JobId, worker: WorkerId) -> (WorkerId, u64) {
    harness.ready(worker);
    ended_and_next(harness, job, worker)
}

/// Ends the worker. Returns the next one, and the delay of its start in seconds.
fn ended_and_next(harness: &mut Harness, job: JobId, worker: WorkerId) -> (WorkerId, u64) {
    let mut actions = harness.ended(worker);
    let mut waited = 0;
    while started(&actions).is_empty() {
        actions = harness.advance(1, &[agent(1, 1)], &[job]);
        waited += 1;
        assert!(waited <= 60, "it is never started");
    }
    (started(&actions)[0], waited)
}

#[test]
fn restart_delay_doubles_with_each_crash_until_a_worker_is_stable() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 1));
    let job = harness.start_job();
    let mut worker = harness.provision(job, 1)[0];
    // The first crash is replaced immediately. From the second on, the delay doubles up to its maximum.
    for expected in [0, 1, 2, 4, 8, 16, 32, 60, 60] {
        let (next, waited) = crash(&mut harness, job, worker);
        assert_eq!(waited, expected);
        worker = next;
    }
    harness.ready(worker);
    harness.advance(lease(), &[agent(1, 1)], &[job]);
    worker = started(&harness.ended(worker))[0];
    assert_eq!(crash(&mut harness, job, worker).1, 0);
}

#[test]
fn pending_actor_learns_of_the_crash_loop_and_gets_the_next_worker() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 1));
    let job = harness.start_job();
    let worker = harness.provision(job, 1)[0];
    let (worker, _) = crash(&mut harness, job, worker);
    let pending = harness.place(job, cpus(1.0)).expect_pending();
    let mut actions = harness.ready(worker);
    let actor = take_placed(&mut actions, pending);
    harness.ended(worker);
    harness.expect_dead(actor, "exit code 1");
    let pending = harness.place(job, cpus(1.0)).expect_pending();
    let alert_text =
        "its workers crash at their start on node 0000000000000001, 2 in a row, the last: exit code 1";
    let none = "no node runs workers of the job yet";
    assert_eq!(harness.reasons(), [format!("{none}; {alert_text}; the next is started in 1 s")]);
    // A driver that reconnects reports the node as provisioned again.
    assert_eq!(harness.provision(job, 1), []);
    let worker = started(&harness.advance(1, &[agent(1, 1)], &[job]))[0];
    let starts = "workers of its job are being started on node 0000000000000001";
    assert_eq!(harness.reasons(), [format!("{starts}; {alert_text}")]);
    let mut actions = harness.ready(worker);
    take_placed(&mut actions, pending);
    // Once the worker is stable, the reason disappears.
    harness.advance(lease(), &[agent(1, 1)], &[job]);
    harness.place(job, cpus(4.0)).expect_pending();
    assert_eq!(harness.reasons(), ["it wants cpu 4, and the most that one node has free is cpu 3"]);
}

#[test]
fn no_restart_for_an_ended_job_or_a_lost_node() {
    for expected in [true, false] {
        let mut harness = Harness::new();
        harness.join(node_descriptor(1, 4.0, 1));
        let job = harness.start_job();
        let worker = harness.provision(job, 1)[0];
        let (worker, _) = crash(&mut harness, job, worker);
        harness.ready(worker);
        harness.ended(worker);
        match expected {
            true => drop(harness.end_job(job)),
            false => drop(
                harness.handle(ControlEvent::NodeLeft { node: agent(1, 1), cause: "it left".to_owned() }),
            ),
        }
        assert_eq!(started(&harness.advance(3, &[agent(1, 1)], &[job])), []);
    }
}

#[test]
fn worker_that_is_ready_after_its_removal_is_stopped() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 1));
    let job = harness.start_job();
    let worker = harness.provision(job, 1)[0];
    assert_eq!(stopped(&harness.end_job(job)), [worker]);
    assert_eq!(harness.ready(worker), [Action::StopWorker { node: NodeId(1), worker }]);
    assert_eq!(harness.ended(worker), []);
}

#[test]
fn share_of_a_failed_worker_goes_to_the_others() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 2));
    let job = harness.start_job();
    let workers = harness.provision(job, 1);
    let waiting = [(); 2].map(|()| harness.place(job, plain()).expect_pending());
    let mut actions = harness.ready(workers[0]);
    take_placed(&mut actions, waiting[0]);
    let mut actions = harness.ended(workers[1]);
    take_placed(&mut actions, waiting[1]);
}

#[test]
fn exit_cause_of_a_worker_is_found_by_its_hosts() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (_, worker) = harness.spawn(job, on(1, plain()));
    let WorkerAddress { actors, tasks, .. } = member(worker);
    assert_eq!([harness.state.host_end(actors), harness.state.host_end(tasks)], [None, None]);
    harness.ended(worker);
    let end = Some(End::new(EndReason::Exited(1), "worker 7 on node 0000000000000001: exit code 1"));
    assert_eq!([harness.state.host_end(actors), harness.state.host_end(tasks)], [end.clone(), end]);
    // Silent nodes take their workers with them.
    let (_, other) = harness.spawn(job, on(2, plain()));
    assert_eq!(harness.state.host_end(member(other).actors), None);
    harness.advance(lease() + 1, &[agent(1, 1)], &[job]);
    let end = harness.state.host_end(member(other).actors).unwrap();
    assert!(end.text.contains("node lost: no heartbeat for 10 s"), "{end}");
}

#[test]
fn kills_from_outside_are_no_failures_and_delay_a_start_only_if_there_are_many() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 1));
    let job = harness.start_job();
    let mut worker = harness.provision(job, 1)[0];
    let killed = |worker| worker_ended(worker, "SIGKILL", true);
    for number in 0..WORKER_KILLS_MAX {
        if number % 5 == 0 {
            harness.ready(worker);
        }
        worker = started(&harness.handle(killed(worker)))[0];
    }
    assert_eq!(started(&harness.handle(killed(worker))), []);
    harness.now += WORKER_KILLED_DELAY.as_millis() as u64;
    worker = started(&harness.handle(ControlEvent::Tick))[0];
    // A stable worker proves that they are not all killed.
    harness.ready(worker);
    harness.now += WORKER_STABLE_AFTER.as_millis() as u64;
    assert_eq!(started(&harness.handle(killed(worker))).len(), 1);
}
