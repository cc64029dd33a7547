//! Lists of thousands of actors, and fairness between large and small actors.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::Value;

use super::job::{Job, Order, Reply, SpawnOptions};
use super::proc::wait_for;
use super::test_cluster::{TestCluster, output, refused, text};

// More than one page: a page has at most 1,000 rows.
const MANY: u64 = 5000;

fn ids(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row["actor_id"].as_str().unwrap().to_owned()).collect()
}

/// Note about rows that were left out, and the cursor in it.
fn left_out(listed: &Output) -> (String, String) {
    let note = text(&listed.stderr);
    let cursor = note.split("--after ").nth(1).and_then(|rest| rest.split(' ').next());
    let cursor = cursor.unwrap_or_else(|| panic!("no cursor: {note}")).to_owned();
    (note, cursor)
}

#[test]
fn thousands_of_actors_are_listed_in_pages_filtered_counted_and_found() {
    let site = TestCluster::head(&["--num-cpus=2"]);
    let mut job = Job::join(&site);
    job.spawn("index", SpawnOptions::named("index"));
    assert!(matches!(job.reply(Order::Many(MANY)), Reply::Numbers(_)));
    wait_for("all have begun", || {
        let classes = site.json(&["summary", "actors"]);
        (classes[0]["alive"] == MANY + 1).then_some(())
    });

    let listed = output(site.roadshow(&["list", "actors"]));
    assert_eq!(text(&listed.stdout).lines().count(), 101);
    let (note, cursor) = left_out(&listed);
    assert!(note.starts_with("100 of 5001 rows shown; --limit 5001 shows all, --after "), "{note}");
    let all = ids(&site.json(&["list", "actors"]));
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (5001, 5001));
    assert!(all.is_sorted());
    let next = ids(&site.json(&["list", "actors", "--limit=2", "--after", &cursor]));
    assert_eq!(next, all[4899..4901]);

    let page = text(&output(site.roadshow(&["top", "--once", "--view=actors"])).stdout);
    assert!(page.contains("[3 Actors] 4 Workers  5 Tasks   500, first 500 of 5001\n"), "{page}");
    assert!(page.contains("Actors  5001 alive, 0 pending, 0 dead\n"), "{page}");

    let one = site.json(&["list", "actors", "--filter=name=index", "--filter=state=alive"]);
    assert_eq!((ids(&one), &one[0]["name"]), (vec![all[0].clone()], &"index".into()));
    let node = one[0]["node_id"].as_str().unwrap();
    let filter = format!("--filter=node={node}");
    let (note, _) = left_out(&output(site.roadshow(&["list", "actors", &filter, "--limit=3", "--json"])));
    assert!(note.starts_with("3 of 5001 rows shown"), "{note}");
    let (code, error) = refused(site.roadshow(&["list", "actors", "--filter=state=ALIV"]));
    assert!(code == 2 && error.contains("one of PENDING_CREATION, ALIVE"), "{error}");

    assert_eq!(site.json(&["get", "actor", "index"])["actor_id"], all[0].as_str());
    assert_eq!(site.json(&["kill", "index"])["ended"], true);
    assert_eq!(ids(&site.json(&["list", "actors", "--filter=state=DEAD"])), [all[0].clone()]);
    let classes = site.json(&["summary", "actors"]);
    assert_eq!((&classes[0]["alive"], &classes[0]["dead"]), (&MANY.into(), &1.into()));
    job.finish();
}

#[test]
fn actor_that_needs_a_whole_node_is_placed_although_small_ones_keep_arriving() {
    let site = TestCluster::head(&["--num-cpus=2"]);
    let mut job = Job::join(&site);
    let small = |name: &str| Order::Spawn(name.to_owned(), Box::new(SpawnOptions::with("cpu", 1.0)));
    job.spawn("0", SpawnOptions::with("cpu", 1.0));
    job.spawn("1", SpawnOptions::with("cpu", 1.0));
    let large = job.begin(Order::Spawn("large".to_owned(), Box::new(SpawnOptions::with("cpu", 2.0))));
    // Timing decides in which round the reservation becomes visible.
    let mut last = None;
    for next in 2..10_000 {
        let pending = job.begin(small(&next.to_string()));
        job.does(Order::Finish((next - 2).to_string()));
        let is_reserved = wait_for("the next one is placed, or waits for the large one", || {
            if job.look(&pending).is_some() {
                return Some(false);
            }
            let status = site.json(&["status"]);
            let is_reserved =
                status["waiting"].to_string().contains("is reserved for the oldest of these requests");
            // Both wait: the node was reserved for the large one before a CPU became free.
            (is_reserved && status["waiting_count"] == 2).then_some(true)
        });
        if is_reserved {
            last = Some((next, pending));
            break;
        }
    }
    let (next, pending) = last.expect("small actors do not starve the large one");
    job.does(Order::Finish((next - 1).to_string()));
    assert!(job.end_of(large).is_done());
    job.does(Order::Finish("large".to_owned()));
    assert!(job.end_of(pending).is_done());
    job.finish();
}
