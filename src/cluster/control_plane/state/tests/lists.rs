//! Tests of paged lists, references and counts.

use super::*;
use crate::cluster::listing::{Filter, Kind, Page, Query, QueryError, Sort};
use crate::cluster::model::{
    ActorCount, JobInfo, NodeInfo, TaskCount, TaskInfo, WorkerStatistics, WorkerSummary,
};
use crate::config::{LIST_BYTES_MAX, LIST_ROWS_MAX, LIST_SLICE_ROWS, LIST_SORTED_MAX};

impl Harness {
    /// Fetches a page. Returns it with the number of slices that it took.
    fn page<T: Listed>(&self, query: &Query) -> (Page<T>, usize) {
        let mut search = Search::new(query).unwrap();
        let mut slices = 1;
        while !search.step(&self.state) {
            search.fit_reply();
            slices += 1;
        }
        search.fit_reply();
        (search.page(), slices)
    }

    fn actors_that(&self, filters: &[&str]) -> Vec<u64> {
        let filters = filters.iter().map(|text| {
            let (key, value) = text.split_once('=').unwrap();
            let (key, is_equal) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
            Filter { key: key.to_owned(), value: value.to_owned(), is_equal }
        });
        keys(&self.page(&Query::filtered(filters.collect())).0)
    }

    fn find_rows<T: Listed>(&self, text: &str) -> Vec<T> {
        self.page(&Query::called(text)).0.rows
    }
}

fn keys(page: &Page<ActorInfo>) -> Vec<u64> {
    page.rows.iter().map(|actor| actor.actor_id.0).collect()
}

fn some(limit: usize) -> Query {
    Query { limit, count: true, ..Query::filtered(Vec::new()) }
}

/// Ten actors on two nodes; the third and then the fourth have ended.
fn ten_actors() -> (Harness, JobId, Vec<ActorKey>) {
    let (mut harness, job) = Harness::with_nodes(2);
    let actors: Vec<ActorKey> = (0..10).map(|_| harness.spawn(job, plain()).0).collect();
    for at in [2, 3] {
        harness.handle(actor_ended(actors[at], "it stopped"));
    }
    (harness, job, actors)
}

#[test]
fn pages_list_open_rows_newest_first_and_then_the_latest_ended() {
    let (harness, _, actors) = ten_actors();
    let mut query = some(3);
    let mut pages = Vec::new();
    let mut mores = Vec::new();
    loop {
        let (page, _) = harness.page::<ActorInfo>(&query);
        pages.extend(keys(&page));
        mores.push(page.more.unwrap());
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let expected = [9, 8, 7, 6, 5, 4, 1, 0, 3, 2].map(|at: usize| actors[at].0);
    assert_eq!((pages, mores), (expected.to_vec(), vec![7, 4, 1, 0]));
}

#[test]
fn sorted_pages_have_all_rows_once_in_order() {
    let (mut harness, job) = Harness::with_nodes(2);
    let names = ["pear", "fig", "apple", "lime", "kiwi"];
    for name in names {
        harness.spawn(job, ActorSpec { name: Some(name.to_owned()), ..plain() });
    }
    let (nameless, _) = harness.spawn(job, plain());
    let sorted = |is_descending, offset| Query {
        sort: Some(Sort { key: "name".to_owned(), is_descending }),
        offset,
        ..some(2)
    };
    let names_of = |page: &Page<ActorInfo>| -> Vec<String> {
        page.rows.iter().map(|row| row.name.clone().unwrap_or_default()).collect()
    };
    let (page, _) = harness.page::<ActorInfo>(&sorted(false, 0));
    assert_eq!((names_of(&page), page.skipped, page.more), (vec!["apple".into(), "fig".into()], 0, Some(4)));
    assert_eq!(page.next, None);
    let (page, _) = harness.page::<ActorInfo>(&sorted(true, 0));
    assert_eq!(names_of(&page), ["pear", "lime"]);
    // Rows without a value come last in both directions.
    for is_descending in [false, true] {
        let (page, _) = harness.page::<ActorInfo>(&sorted(is_descending, 4));
        assert_eq!((page.rows[1].actor_id, page.skipped, page.more), (nameless, 4, Some(0)));
    }
    let (page, _) = harness.page::<ActorInfo>(&sorted(false, 10));
    assert_eq!((page.rows.len(), page.skipped), (0, 6));
}

#[test]
fn offset_skips_rows_and_a_text_selects_them_by_ids_and_names() {
    let (mut harness, _, actors) = ten_actors();
    let (page, _) = harness.page::<ActorInfo>(&Query { offset: 2, ..some(3) });
    assert_eq!(keys(&page), [7, 6, 5].map(|at: usize| actors[at].0));
    assert_eq!((page.skipped, page.more), (2, Some(5)));
    let job = harness.page::<ActorInfo>(&some(1)).0.rows[0].job_id;
    harness.spawn(job, ActorSpec { name: Some("Counter".to_owned()), ..plain() });
    let count = |text: &str| {
        let query = Query { contains: Some(text.to_owned()), ..some(100) };
        harness.page::<ActorInfo>(&query).0.rows.len()
    };
    assert_eq!((count("count"), count("alive"), count("it stopped")), (1, 9, 0));
    assert_eq!(count(&format!("{:016x}", actors[5].0)), 1);
}

#[test]
fn sort_keys_and_depths_are_checked() {
    let check = |key: &str, offset, after: Option<&str>| {
        let sort = Some(Sort { key: key.to_owned(), is_descending: false });
        Query { sort, offset, after: after.map(str::to_owned), ..some(10) }.check(Kind::Actors)
    };
    assert_eq!(check("node", 0, None), Ok(()));
    assert!(matches!(check("cause", 0, None), Err(QueryError::SortKey { .. })));
    assert!(matches!(check("name", LIST_SORTED_MAX, None), Err(QueryError::Deep { .. })));
    assert_eq!(check("name", 0, Some("1")), Err(QueryError::SortedCursor));
}

#[test]
fn page_continues_after_a_row_that_has_ended() {
    let (mut harness, _, actors) = ten_actors();
    let (page, _) = harness.page::<ActorInfo>(&some(3));
    assert_eq!(keys(&page), [9, 8, 7].map(|at: usize| actors[at].0));
    harness.handle(actor_ended(actors[7], "it stopped"));
    let (page, _) = harness.page::<ActorInfo>(&Query { after: page.next, ..some(10) });
    assert_eq!(keys(&page), [6, 5, 4, 1, 0, 7, 3, 2].map(|at: usize| actors[at].0));
}

#[test]
fn filters_select_exactly_the_matching_rows() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (named, worker) =
        harness.spawn(job, ActorSpec { name: Some("counter".to_owned()), ..on(1, plain()) });
    let (other, _) = harness.spawn(job, on(2, cpus(4.0)));
    harness.place(job, on(2, cpus(1.0))).expect_pending();
    let pending = other.0 + 1;
    harness.spawn(job, ActorSpec { class: "Other".to_owned(), ..on(1, plain()) });
    let ended = harness.spawn(job, plain()).0;
    harness.handle(actor_ended(ended, "it stopped"));
    assert_eq!(harness.actors_that(&["name=counter"]), [named.0]);
    assert_eq!(harness.actors_that(&["class=other"]), [pending + 1]);
    assert_eq!(harness.actors_that(&["node=2"]), [other.0]);
    assert_eq!(harness.actors_that(&["state=PENDING_CREATION"]), [pending]);
    assert_eq!(harness.actors_that(&["state=dead", "cause=it stopped"]), [ended.0]);
    assert_eq!(
        harness.actors_that(&[&format!("worker={worker}"), "name=none", "state=alive"]),
        [pending + 1]
    );
    assert_eq!(harness.actors_that(&["job=99"]), [] as [u64; 0]);
    let actors = vec![ActorCount { actor: named, handled: 7, mailbox: 1 }];
    let statistics = WorkerStatistics { actors, ..WorkerStatistics::default() };
    harness.handle(ControlEvent::Statistics { worker, statistics });
    assert_eq!(harness.actors_that(&["handled=7", "mailbox=1"]), [named.0]);
    let all = harness.actors_that(&[]);
    for key in Kind::Actors.keys() {
        // A row either has a value for the field, or none.
        let [with, without] =
            ["!=none", "=none"].map(|none| harness.actors_that(&[&format!("{key}{none}")]).len());
        assert_eq!(with + without, all.len(), "{key}");
        let optional =
            ["cause", "name", "node_id", "worker_id", "pid", "started_ms", "ended_ms", "handled", "mailbox"];
        match key {
            // None of these has restarted.
            "restart_cause" => assert_eq!(with, 0),
            key => assert!(with > 0 && (optional.contains(&key) || without == 0), "{key}"),
        }
    }
}

#[test]
fn page_is_bounded_in_rows_and_bytes() {
    let (mut harness, job) = Harness::with_nodes(1);
    for _ in 0..LIST_ROWS_MAX + 5 {
        harness.spawn(job, plain());
    }
    let (page, _) = harness.page::<ActorInfo>(&some(usize::MAX));
    assert_eq!((page.rows.len(), page.more), (LIST_ROWS_MAX, Some(5)));

    let (mut harness, job) = Harness::with_nodes(1);
    let long = |n: usize| ActorSpec {
        resources: (0..60)
            .fold(Resources::none(), |all, at| all.with(&format!("{n}{at}{}", "x".repeat(300)), 1.0)),
        ..plain()
    };
    let spec = long(0);
    let resources = spec.resources.clone().with(Resources::CPU, 4.0);
    let descriptor = NodeDescriptor { resources: scaled(&resources, 1e6), ..node_descriptor(1, 4.0, 1) };
    harness.handle(ControlEvent::NodeLeft { node: agent(1, 1), cause: String::new() });
    harness.join(NodeDescriptor { agent: agent(1, 2), ..descriptor });
    harness.provision_and_start(job, 1);
    for _ in 0..500 {
        harness.spawn(job, spec.clone());
    }
    let mut seen = 0;
    let mut query = some(usize::MAX);
    loop {
        let (page, _) = harness.page::<ActorInfo>(&query);
        let bytes = crate::wire::encode(&page, usize::MAX, |body| body.message.len()).unwrap();
        assert!(bytes <= LIST_BYTES_MAX + 1024 && !page.rows.is_empty(), "{bytes}");
        seen += page.rows.len();
        assert_eq!(page.more, Some((500 - seen) as u64));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, 500);
}

fn scaled(resources: &Resources, factor: f64) -> Resources {
    resources
        .0
        .iter()
        .fold(Resources::none(), |all, (name, amount)| all.with(name, f64::from(*amount) * factor))
}

#[test]
fn each_step_scans_one_slice_of_a_table() {
    let (mut harness, job) = Harness::with_nodes(1);
    for _ in 0..3 * LIST_SLICE_ROWS {
        harness.spawn(job, plain());
    }
    // Three full slices, an empty one that ends the open rows, and one for the ended rows.
    let (page, slices) = harness.page::<ActorInfo>(&some(10));
    assert_eq!((page.rows.len(), page.more, slices), (10, Some(3 * LIST_SLICE_ROWS as u64 - 10), 5));
    // Without the count, the scan ends with the page.
    let (page, slices) = harness.page::<ActorInfo>(&Query { count: false, ..some(10) });
    assert_eq!((page.rows.len(), page.more, slices), (10, None, 1));
    // Counting starts with the ended rows, so it needs no slice for them at the end.
    let mut classes = ClassSearch::default();
    let slices = (1..).find(|_| classes.step(&harness.state)).unwrap();
    assert_eq!((classes.counts().rows[0].alive, slices), (3 * LIST_SLICE_ROWS as u64, 4));
}

#[test]
fn reference_matches_an_id_a_prefix_or_a_name() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (counter, worker) = harness.spawn(job, named("counter"));
    let (ended, _) = harness.spawn(job, named("old"));
    harness.handle(actor_ended(ended, "it stopped"));
    let one = |text: &str| {
        harness.find_rows::<ActorInfo>(text).iter().map(|actor| actor.actor_id).collect::<Vec<_>>()
    };
    assert_eq!(one("counter"), [counter]);
    assert_eq!(one("old"), [ended]);
    assert_eq!(one(&counter.to_string()), [counter]);
    assert_eq!(one(&format!("{:x}", ended.0)), [ended]);
    assert_eq!(one("00000000"), [counter, ended]);
    assert_eq!(one("nothing"), []);
    assert_eq!(harness.find_rows::<WorkerSummary>(&worker.to_string())[0].worker_id, worker);
    assert_eq!(harness.find_rows::<JobInfo>("1")[0].job_id, job);
    assert_eq!(harness.find_rows::<NodeInfo>("n2")[0].node_id, NodeId(2));
    assert_eq!(harness.find_rows::<NodeInfo>("0000000000000002")[0].node_id, NodeId(2));
}

#[test]
fn actors_are_counted_by_class_and_tasks_by_function() {
    let (mut harness, job) = Harness::with_nodes(1);
    harness.spawn(job, plain());
    let ended = harness.spawn(job, plain()).0;
    harness.handle(actor_ended(ended, ""));
    let (_, worker) = harness.spawn(job, ActorSpec { class: "Other".to_owned(), ..cpus(4.0) });
    harness.place(job, cpus(1.0)).expect_pending();
    let mut search = ClassSearch::default();
    while !search.step(&harness.state) {}
    let rows = search.counts().rows;
    let shown: Vec<_> =
        rows.iter().map(|row| (row.class.as_str(), row.pending_creation, row.alive, row.dead)).collect();
    assert_eq!(shown, [("Other", 0, 1, 0), ("Plain", 1, 1, 1)]);

    let count = |name: &str, running| TaskCount { name: name.to_owned(), running, ..TaskCount::default() };
    harness.handle(ControlEvent::TaskCounts { worker, counts: vec![count("a::one", 2), count("a::two", 1)] });
    harness.ended(worker);
    let functions = |part: Option<&str>| {
        let mut search = FunctionSearch::new(part.map(str::to_owned));
        while !search.step(&harness.state) {}
        search.counts().rows.into_iter().map(|row| (row.name, row.failed)).collect::<Vec<_>>()
    };
    assert_eq!(functions(None), [("a::one".to_owned(), 2), ("a::two".to_owned(), 1)]);
    assert_eq!(functions(Some("two")), [("a::two".to_owned(), 1)]);
}

#[test]
fn pages_of_tasks_continue_within_a_worker() {
    let (mut harness, _) = Harness::with_nodes(3);
    let workers: Vec<WorkerId> = harness.state.workers().iter().map(|worker| worker.worker_id).collect();
    for worker in [workers[0], workers[2]] {
        let counts = ["a", "b", "c"].map(|name| TaskCount { name: name.to_owned(), ..TaskCount::default() });
        harness.handle(ControlEvent::TaskCounts { worker, counts: counts.into() });
    }
    harness.ended(workers[2]);
    let mut query = some(2);
    let mut seen = Vec::new();
    loop {
        let (page, _) = harness.page::<TaskInfo>(&query);
        seen.extend(page.rows.into_iter().map(|task| (task.worker_id, task.count.name)));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let expected =
        [0, 2].into_iter().flat_map(|at: usize| ["c", "b", "a"].map(|name| (workers[at], name.to_owned())));
    assert_eq!(seen, expected.collect::<Vec<_>>());
}

#[test]
fn invalid_cursor_is_refused() {
    let query = Query { after: Some("there".to_owned()), ..some(1) };
    let error = Search::<ActorInfo>::new(&query).unwrap_err();
    assert_eq!(error, QueryError::Cursor { cursor: "there".to_owned() });
}
