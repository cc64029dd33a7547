//! Placement of actors: resources, constraints, and actors that cannot be placed.

use std::collections::BTreeSet;

use super::job::{Job, Order, SpawnOptions};
use super::proc::{self, wait_for};
use super::test_cluster::{TestCluster, output, refused};

fn spawn(name: &str, options: SpawnOptions) -> Order {
    Order::Spawn(name.to_owned(), Box::new(options))
}

#[test]
fn actor_without_capacity_waits_with_a_reason_until_some_is_free() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    site.join(&["--num-cpus=1", "--resources={\"gpu\": 1}"]);
    let mut job = Job::join(&site);
    job.spawn("holder", SpawnOptions::with("gpu", 1.0));
    assert_eq!(job.pid_of("holder"), job.pid_of("holder"));
    let waits = job.begin(spawn(
        "waits",
        SpawnOptions { name: Some("waits".to_owned()), ..SpawnOptions::with("gpu", 0.5) },
    ));
    let row = wait_for("it waits with a reason", || {
        let rows = site.list("actors");
        rows.into_iter().find(|row| row["name"] == "waits" && row["cause"].is_string())
    });
    assert_eq!(row["state"], "PENDING_CREATION");
    let cause = row["cause"].as_str().unwrap();
    assert!(cause.contains("gpu 0.5") && cause.contains("gpu 0"), "{cause}");
    let status = output(site.roadshow(&["status"]));
    assert!(String::from_utf8_lossy(&status.stdout).contains("gpu 0.5"), "{status:?}");
    assert!(job.look(&waits).is_none());

    job.does(Order::Finish("holder".to_owned()));
    assert!(job.end_of(waits).is_done());
    let pid = job.pid_of("waits");
    assert_eq!(site.node_of(pid), site.nodes[1].id);
    let node = site.row("nodes", "node_id", site.nodes[1].id.clone());
    assert_eq!(node["available"]["gpu"], 0.5, "{node}");
    job.finish();
    wait_for("the end of the job frees its resources", || {
        let node = site.row("nodes", "node_id", site.nodes[1].id.clone());
        (node["available"]["gpu"] == 1.0).then_some(())
    });
}

#[test]
fn infeasible_actor_fails_immediately_and_the_error_lists_the_capacity() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    site.join(&["--num-cpus=2", "--resources={\"gpu\": 1}", "--labels=zone=a"]);
    let mut job = Job::join(&site);
    let error = job.fails(spawn("a", SpawnOptions::with("gpu", 2.0)));
    assert!(error.contains("gpu 2") && error.contains("gpu 1") && error.contains("cpu 2"), "{error}");
    let error = job.fails(spawn("a", SpawnOptions::with("tpu", 1.0)));
    assert!(error.contains("no node has any tpu"), "{error}");
    let error = job.fails(spawn(
        "a",
        SpawnOptions { label: Some(("zone".into(), "b".into())), ..SpawnOptions::default() },
    ));
    assert!(error.contains("zone=b"), "{error}");
    let error = job
        .fails(spawn("a", SpawnOptions { on: Some("00000000000000aa".into()), ..SpawnOptions::default() }));
    assert!(error.contains("00000000000000aa"), "{error}");
    job.finish();
}

#[test]
fn actor_is_placed_on_the_requested_node_or_label() {
    let mut site = TestCluster::head(&["--num-cpus=1", "--labels=zone=a"]);
    site.join(&["--num-cpus=1", "--labels=zone=b"]);
    let mut job = Job::join(&site);
    for (node, zone) in [(0, "a"), (1, "b"), (1, "b"), (0, "a")] {
        let node = &site.nodes[node];
        job.spawn("on", SpawnOptions::on(node));
        job.spawn(
            "labelled",
            SpawnOptions { label: Some(("zone".into(), zone.into())), ..SpawnOptions::default() },
        );
        for actor in ["on", "labelled"] {
            assert_eq!(site.node_of(job.pid_of(actor)), node.id, "{actor}");
        }
    }
    job.finish();
}

#[test]
fn actors_are_spread_over_the_nodes_unless_packed() {
    let mut site = TestCluster::head(&["--num-cpus=4"]);
    site.join(&["--num-cpus=4"]);
    let mut job = Job::join(&site);
    let nodes = |job: &mut Job, pack: bool| {
        let names: Vec<_> = (0..4).map(|n| format!("{pack}{n}")).collect();
        for name in &names {
            job.spawn(name, SpawnOptions { pack, ..SpawnOptions::with("cpu", 1.0) });
        }
        let nodes: Vec<_> = names.iter().map(|name| site.node_of(job.pid_of(name))).collect();
        for name in names {
            job.does(Order::Finish(name));
        }
        // The head releases resources a moment after the reply to the actor's end.
        wait_for("all is free again", || {
            let free = |node: &serde_json::Value| node["available"]["cpu"] == 4.0;
            site.list("nodes").iter().all(free).then_some(())
        });
        nodes
    };
    let spread = nodes(&mut job, false);
    let on = |node: &String| spread.iter().filter(|other| *other == node).count();
    assert_eq!(spread.iter().map(on).collect::<Vec<_>>(), [2; 4], "{spread:?}");
    let packed: BTreeSet<_> = nodes(&mut job, true).into_iter().collect();
    assert_eq!(packed.len(), 1, "{packed:?}");
    job.finish();
}

#[test]
fn draining_node_gets_no_new_work_and_ends_with_its_jobs() {
    let site = TestCluster::pair();
    let node = site.nodes[1].clone();
    let mut job = Job::join(&site);
    job.spawn("stays", SpawnOptions::on(&node));
    let drained = output(site.roadshow(&["drain", &node.id]));
    assert!(drained.status.success(), "{drained:?}");
    assert_eq!(site.row("nodes", "node_id", node.id.clone())["state"], "DRAINING");
    for name in ["a", "b", "c"] {
        job.spawn(name, SpawnOptions::default());
        assert_eq!(site.node_of(job.pid_of(name)), site.nodes[0].id);
    }
    assert_eq!(job.add("stays", 1), 1);
    // An explicit request for a draining node fails: it will never take work again.
    let error = job.fails(spawn("no", SpawnOptions::on(&node)));
    assert!(error.contains(&node.id), "{error}");
    job.finish();
    proc::ended(node.agent());
    assert_eq!(site.row("nodes", "node_id", node.id.clone())["state"], "DEAD");
    let (code, said) = refused(site.roadshow(&["drain", "unknown"]));
    assert!(code == 5 && said.contains("unknown"), "{said}");
    // The drained node leaves no token behind, and another start can use its session directory.
    assert!(!node.session.join("token").exists() && node.session.join("logs/agent.log").exists());
    let own = ["--num-cpus=1", "--session-dir", node.session.to_str().unwrap()];
    let again = site.json(&[&["start", "--host=127.0.0.1", "--address", &site.address], &own[..]].concat());
    assert_eq!(site.row("nodes", "node_id", again["node_id"].clone())["state"], "ALIVE");
}

#[test]
fn reservations_of_cancelled_spawns_are_released() {
    let site = TestCluster::head(&["--num-cpus=1", "--resources", r#"{"thing": 400}"#]);
    let mut job = Job::join(&site);
    job.does(Order::GiveUp(200, Box::new(SpawnOptions::with("thing", 1.0))));
    let nothing_is_allocated = || {
        let node = &site.list("nodes")[0];
        (node["available"] == node["resources"]).then_some(())
    };
    wait_for("no resource stays allocated", nothing_is_allocated);
    // It takes everything, so a single leaked reservation would keep it waiting.
    job.spawn("all", SpawnOptions::with("thing", 400.0));
    assert_eq!(job.add("all", 1), 1);
    job.finish();
}
