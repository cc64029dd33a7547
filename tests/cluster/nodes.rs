//! Two nodes: one program on both, several jobs at a time, and the time that operations take.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::job::{Job, Order, SpawnOptions, counted, program, run};
use super::proc;
use super::test_cluster::{TestCluster, text};

#[test]
fn program_has_actors_on_both_nodes_and_its_result_is_right() {
    let site = TestCluster::pair();
    let (said, errors, status) = run(program(&site, "count 0"));
    assert!(status.success(), "{errors}");
    let pids: BTreeSet<_> = counted(&said).into_iter().collect();
    let nodes: BTreeSet<_> = pids.iter().map(|&pid| site.node_of(pid)).collect();
    assert_eq!(nodes, site.nodes.iter().map(|node| node.id.clone()).collect());
    let job = &site.list("jobs")[0];
    assert_eq!((&job["state"], &job["pid"].is_u64()), (&"SUCCEEDED".into(), &true), "{job}");
}

#[test]
fn list_of_nodes_has_the_fields_that_scripts_rely_on() {
    let mut site = TestCluster::head(&["--num-cpus=1.5", "--memory=1GiB", "--node-name=first"]);
    site.join(&["--num-cpus=1", "--resources={\"gpu\": 2}", "--labels=zone=a"]);
    let nodes = site.list("nodes");
    assert_eq!(nodes.len(), 2);
    for node in &site.nodes {
        let row = site.row("nodes", "node_id", node.id.clone());
        assert_eq!((&row["state"], &row["address"]), (&"ALIVE".into(), &node.address.clone().into()));
        assert_eq!(row["pid"], node.agent());
    }
    let [first, second] = [0, 1].map(|at: usize| site.row("nodes", "node_id", site.nodes[at].id.clone()));
    assert_eq!((&first["is_head"], &second["is_head"]), (&true.into(), &false.into()));
    assert_eq!((&first["resources"]["cpu"], &first["hostname"]), (&1.5.into(), &"first".into()));
    assert_eq!(first["resources"]["memory"], f64::from(1 << 30));
    assert_eq!((&second["resources"]["gpu"], &second["labels"]["zone"]), (&2.0.into(), &"a".into()));
}

#[test]
fn concurrent_jobs_share_no_process() {
    let site = TestCluster::pair();
    let mut jobs = [Job::join(&site), Job::join(&site)];
    let pids = jobs.each_mut().map(|job| {
        for name in ["a", "b", "c", "d"] {
            job.spawn(name, SpawnOptions::default());
        }
        let of_actors = ["a", "b", "c", "d"].map(|name| job.pid_of(name));
        let of_tasks = job.numbers(Order::Tasks(8));
        of_actors.into_iter().chain(of_tasks).collect::<BTreeSet<_>>()
    });
    // A job has a worker of its own on each node.
    assert_eq!(pids.each_ref().map(BTreeSet::len), [2, 2], "{pids:?}");
    assert!(pids[0].is_disjoint(&pids[1]), "{pids:?}");
    for job in jobs {
        job.finish();
    }
    for pid in pids.into_iter().flatten() {
        proc::ended(pid.try_into().unwrap());
    }
}

#[test]
fn node_that_joins_later_takes_part_in_running_jobs() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let node = site.join(&["--num-cpus=1"]);
    // The spawn waits for the first worker of the node.
    job.spawn("there", SpawnOptions::on(&node));
    let pid = job.pid_of("there");
    assert_eq!(site.node_of(pid), node.id);
    job.finish();
}

#[test]
fn cluster_starts_grows_and_stops_quickly_and_leaves_no_files() {
    // Five times the target: debug builds on busy machines.
    let most = |target_ms: u64| Duration::from_millis(target_ms * 5);
    let site = TestCluster::pair();
    let [head, join] = [0, 1].map(|at: usize| site.nodes[at].took);
    let resident: u64 = [site.nodes[0].head(), site.nodes[0].agent()].map(resident_kib).iter().sum();
    let stop = stopped(&site);
    println!(
        "head ready in {head:?}, join in {join:?}, both stopped in {stop:?}; head and agent: {resident} KiB"
    );
    assert!(head < most(300) && join < most(500), "{head:?}, {join:?}");
    // `stop` runs once for each node.
    assert!(stop < 2 * most(1000), "{stop:?}");
}

#[test]
fn cluster_stops_quickly_whatever_its_programs_do() {
    let most = Duration::from_secs(2 * 5);
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    for node in &site.nodes {
        job.spawn(&node.id, SpawnOptions::on(node));
    }
    job.spawn("kept", SpawnOptions { detached: true, ..SpawnOptions::default() });
    let open = job.begin(Order::Never("kept".to_owned()));
    let stop = stopped(&site);
    println!("stopped with a running job in {stop:?}");
    assert!(stop < most, "{stop:?}");
    let lost = job.end_of(open);
    assert!(lost.failure().starts_with("outcome unknown"), "{lost:?}");
    drop(job);

    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    for node in &site.nodes {
        job.spawn(&node.id, SpawnOptions::on(node));
    }
    job.kill();
    let stop = stopped(&site);
    println!("stopped after a killed driver in {stop:?}");
    assert!(stop < most, "{stop:?}");
}

/// Stops a cluster, checks that only its state is left, and returns the time it took.
fn stopped(site: &TestCluster) -> Duration {
    let begun = Instant::now();
    site.stop();
    let stop = begun.elapsed();
    // The test programs themselves may still run: they belong to no node.
    let left =
        site.processes().into_iter().filter(|&pid| !text(&proc::file(pid, "cmdline")).contains("job::drive"));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<u32>::new());
    let files: Vec<_> =
        std::fs::read_dir(site.home()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["state"], "sockets or files of the sessions are left");
    stop
}

fn resident_kib(pid: u32) -> u64 {
    let status = text(&proc::file(pid, "status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn thousand_actors_are_spawned_on_two_nodes_in_seconds() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let numbers = job.numbers(Order::Many(1000));
    let (took, pids) = numbers.split_first().unwrap();
    println!("1,000 actors in {took} ms");
    let processes: BTreeSet<_> = pids.iter().collect();
    assert_eq!((pids.len(), processes.len()), (1000, 2));
    assert!(*took < 5000, "{took} ms");
    job.finish();
}
