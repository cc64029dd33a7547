//! Named actors, and detached actors that outlive their job.

use super::job::{Job, Order, SpawnOptions};
use super::proc::{self, wait_for};
use super::test_cluster::{TestCluster, output, refused};

fn find(name: &str, actor: &str, namespace: Option<&str>) -> Order {
    Order::Find(name.to_owned(), actor.to_owned(), namespace.map(str::to_owned))
}

fn spawn(options: SpawnOptions) -> Order {
    Order::Spawn("another".to_owned(), Box::new(options))
}

#[test]
fn name_has_one_owner_in_its_namespace() {
    let site = TestCluster::pair();
    let mut jobs = [Job::join(&site), Job::join(&site)];
    let [one, other] = &mut jobs;
    one.spawn("first", SpawnOptions::named("index"));
    one.add("first", 5);
    one.does(find("found", "index", None));
    assert_eq!(one.add("found", 1), 6);
    // Without a namespace, names belong to a job.
    let unknown = other.fails(find("found", "index", None));
    assert!(unknown.contains("index"), "{unknown}");
    other.spawn("first", SpawnOptions::named("index"));

    let taken = one.fails(spawn(SpawnOptions::named("index")));
    assert!(taken.contains("index") && taken.contains("taken"), "{taken}");
    one.spawn("same", SpawnOptions { get_if_exists: true, start: 100, ..SpawnOptions::named("index") });
    assert_eq!(one.add("same", 0), 6);

    let shared = SpawnOptions { namespace: Some("shared".to_owned()), ..SpawnOptions::named("index") };
    one.spawn("shared", shared.clone());
    one.add("shared", 9);
    other.does(find("shared", "index", Some("shared")));
    assert_eq!(other.add("shared", 0), 9);
    other.fails(spawn(shared.clone()));

    // A name is free when its owner has ended, which the head learns a moment later.
    one.does(Order::Finish("shared".to_owned()));
    wait_for("the name is free", || other.reply(spawn(shared.clone())).is_done().then_some(()));
    jobs.into_iter().for_each(Job::finish);
}

#[test]
fn detached_actor_outlives_its_job_and_is_found_by_the_next_one() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let detached = SpawnOptions {
        detached: true,
        namespace: Some("kept".to_owned()),
        start: 1,
        ..SpawnOptions::named("index")
    };
    job.spawn("kept", detached);
    job.spawn("own", SpawnOptions { namespace: Some("kept".to_owned()), ..SpawnOptions::named("own") });
    assert_eq!(job.add("kept", 1), 2);
    let (kept, own) = (job.pid_of("kept"), job.pid_of("own"));
    assert_ne!(kept, own, "a detached actor has a process of its own");
    job.finish();
    // The other actor belongs to the job and ends with it.
    proc::ended(own.try_into().unwrap());

    let mut next = Job::join(&site);
    next.does(find("kept", "index", Some("kept")));
    assert_eq!((next.add("kept", 1), next.pid_of("kept")), (3, kept));
    next.fails(find("own", "own", Some("kept")));
    let row = site.row("actors", "name", "index");
    assert_eq!((&row["state"], &row["lifetime"]), (&"ALIVE".into(), &"DETACHED".into()), "{row}");

    let killed = output(site.roadshow(&["kill", "index"]));
    assert!(killed.status.success(), "{killed:?}");
    proc::ended(kept.try_into().unwrap());
    assert_eq!(site.row("actors", "name", "index")["state"], "DEAD");
    let lost = next.fails(Order::Add("kept".to_owned(), 1));
    assert!(lost.starts_with("not delivered") || lost.starts_with("outcome unknown"), "{lost}");
    next.fails(find("kept", "index", Some("kept")));
    next.finish();
}

#[test]
fn killed_actor_ends_and_other_actors_of_its_worker_keep_running() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    job.spawn("doomed", SpawnOptions::named("doomed"));
    job.spawn("spared", SpawnOptions::default());
    let pending = job.begin(Order::Never("doomed".to_owned()));
    assert_eq!(job.pid_of("doomed"), job.pid_of("spared"));
    let killed = output(site.roadshow(&["kill", "doomed"]));
    assert!(killed.status.success(), "{killed:?}");
    let lost = job.end_of(pending);
    assert!(lost.failure().starts_with("outcome unknown"), "{lost:?}");
    let refused_now = job.fails(Order::Add("doomed".to_owned(), 1));
    assert!(refused_now.starts_with("not delivered"), "{refused_now}");
    assert_eq!(job.add("spared", 1), 1);
    let (code, said) = refused(site.roadshow(&["kill", "unknown"]));
    assert!(code == 5 && said.contains("unknown"), "{code}: {said}");
    job.finish();
}
