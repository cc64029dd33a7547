//! Screens and keys of `top`, over canned rows.

use std::time::Duration;

use clap::Parser;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use roadshow::model::{ActorKey, ActorState};

use super::columns::Action;
use super::model::{Connection, Effect, Mode};
use super::sample::{ActorCounts, Rows, Sample, Summary, TaskCounts, Wanted};
use super::*;
use crate::exit;
use crate::test_cluster;

fn summary() -> Summary {
    Summary {
        nodes: test_cluster::nodes(),
        more_nodes: 0,
        jobs_running: 1,
        jobs_pending: 0,
        actors: ActorCounts { alive: 1, pending: 1, restarting: 0, dead: 1 },
        tasks: TaskCounts { queued: 2, running: 1, finished: 42, failed: 1 },
        waiting: test_cluster::pending_actors(),
        waiting_count: 8,
        alerts: vec![test_cluster::alert("WORKER_STARTS", "job 00000002: its\x1b[2J workers crash")],
    }
}

fn rows(view: View) -> Rows {
    match view {
        View::Nodes => Rows::Nodes(test_cluster::nodes()),
        View::Jobs => Rows::Jobs(test_cluster::jobs()),
        View::Actors => Rows::Actors(test_cluster::actors()),
        View::Workers => Rows::Workers(test_cluster::workers()),
        View::Tasks => Rows::Tasks(test_cluster::tasks()),
    }
}

/// Model with a clock of its own, driven by keys and reports.
struct Driver {
    model: Model,
    now: Duration,
}

impl Driver {
    fn new(view: View) -> Self {
        let mut driver = Self { model: Model::new("10.0.0.5:6379".to_owned(), view), now: Duration::ZERO };
        driver.sample();
        driver
    }

    fn event(&mut self, event: Event) -> Option<Effect> {
        self.model.update(self.now, 64_000, event)
    }

    /// Answers what the model wants now.
    fn sample(&mut self) {
        let rows = rows(self.model.view);
        self.answer(rows, 0);
    }

    fn answer(&mut self, rows: Rows, more: u64) {
        let sample = Sample { wanted: self.model.wanted(), summary: summary(), rows, more };
        self.event(Event::Report(Report::Sample(Box::new(sample))));
    }

    fn key(&mut self, code: KeyCode) -> Option<Effect> {
        self.event(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn keys(&mut self, text: &str) -> Option<Effect> {
        text.chars().fold(None, |_, c| self.key(KeyCode::Char(c)))
    }

    fn terminal(&mut self, look: Look, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let drawn = terminal.draw(|frame| {
            self.model.page_rows = view::draw(&self.model, look, frame.area(), frame.buffer_mut());
        });
        drawn.unwrap();
        terminal
    }

    /// Text of the screen.
    fn screen(&mut self, width: u16, height: u16) -> String {
        // The loop draws after an event, which brings the time.
        self.event(Event::Tick);
        view::plain_text(self.terminal(Look::live(), width, height).backend().buffer())
    }
}

#[test]
fn screen_has_counts_notes_views_and_table() {
    let expected = "\
roadshow top  10.0.0.5:6379                                                 live
Nodes   1/3 alive, 1 draining   Workers 6   Jobs 1 running, 0 pending
CPU     0.5/6 held   load -   Memory -
Actors  1 alive, 1 pending, 1 dead
Tasks   -   2 queued, 1 running, 42 finished, 1 failed
ALERT   WORKER_STARTS: job 00000002: its?[2J workers crash
WAITS   Big of job 1: it needs gpu 1, of which no node has any left
        and 7 more wait; `roadshow list actors` has the reasons
[1 Nodes] 2 Jobs  3 Actors  4 Workers  5 Tasks   3
  NODE      STATE     ADDRESS           CPU  LOAD   MEMORY    WORKERS   ACTORS
> a1b20000  ALIVE     10.0.0.5:6379   0.5/4  -      -               4        1
  c3d40000  DRAINING  10.0.0.6:40001    0/2  -      -               2        1
  e5f60000  DEAD      10.0.0.7:40001      -  -      -               0        0


? help  q quit  Tab view  / filter  < > sort  Enter details  x act
";
    assert_eq!(Driver::new(View::Nodes).screen(80, 16), expected);
}

#[test]
fn page_of_a_pipe_has_every_row_and_neither_selection_nor_keys() {
    let mut driver = Driver::new(View::Tasks);
    driver.now += Duration::from_secs(2);
    let page = view::page(&driver.model, Look::PLAIN, 80);
    let table = page.split_once("[5 Tasks]").unwrap().1;
    let expected = "  2
FUNCTION    JOB   WORKER   QUEUED   RUNNING   FINISHED   FAILED  RATE
square        1        1        2         1         40        0  -
square        1        2        0         0          2        1  -
";
    assert_eq!(table, expected);
}

#[test]
fn rates_appear_with_the_second_sample() {
    let mut driver = Driver::new(View::Tasks);
    assert!(driver.screen(80, 16).contains("Tasks   -   2 queued"));
    driver.now += Duration::from_secs(2);
    let mut tasks = test_cluster::tasks();
    tasks[0].count.finished += 25;
    driver.answer(Rows::Tasks(tasks), 0);
    let screen = driver.screen(80, 16);
    assert!(screen.contains("Tasks   0.0/s   2 queued"), "{screen}");
    assert!(screen.contains("12.5/s"), "{screen}");
}

#[test]
fn narrow_and_tiny_terminals_have_a_screen() {
    for (width, height) in [(1, 1), (23, 24), (24, 8), (40, 10), (200, 60)] {
        for mode in ["", "?", "x"] {
            let mut driver = Driver::new(View::Actors);
            driver.keys(mode);
            let screen = driver.screen(width, height);
            assert_eq!(screen.lines().count(), usize::from(height));
        }
    }
    let expected = "\
10.0.0.5:6379         live
Nodes   1/3 alive, 1 drain
 1 Nodes  2 Jobs [3 Actors
   ACTOR  STATE   CLASS
>      1  ALIVE   Counter
       2  DEAD    Counter

? help  q quit  Tab view
";
    assert_eq!(Driver::new(View::Actors).screen(26, 8), expected);
    let screen = Driver::new(View::Actors).screen(40, 12);
    assert!(screen.contains(">      1  ALIVE   Counter"), "{screen}");
}

#[test]
fn states_are_words_without_colours() {
    let mut driver = Driver::new(View::Nodes);
    let terminal = driver.terminal(Look::PLAIN, 80, 16);
    assert!(terminal.backend().buffer().content.iter().all(|cell| cell.fg == Color::Reset));
    assert!(view::plain_text(terminal.backend().buffer()).contains("DRAINING"));
}

#[test]
fn lost_head_is_said_and_healed() {
    let mut driver = Driver::new(View::Nodes);
    let (why, retry_in) = ("nothing answers\x1b[2J".to_owned(), Duration::from_secs(4));
    driver.event(Event::Report(Report::Lost { why, retry_in }));
    driver.now += Duration::from_secs(1);
    let screen = driver.screen(80, 16);
    assert!(screen.lines().next().unwrap().ends_with("CONNECTION LOST, retrying in 3 s"), "{screen}");
    assert!(screen.contains("\nnothing answers?[2J\n"), "{screen}");
    // The rows of the last sample stay.
    assert!(screen.contains("> a1b20000"), "{screen}");
    driver.sample();
    assert_eq!(driver.model.connection, Connection::Live);
    driver.now += Duration::from_secs(7);
    assert!(driver.screen(80, 16).contains("updated 7 s ago"));
}

#[test]
fn rows_that_the_head_left_out_are_counted() {
    let mut driver = Driver::new(View::Actors);
    driver.answer(rows(View::Actors), 9_998);
    assert!(driver.screen(80, 16).contains("5 Tasks   2, first 2 of 10000\n"));
}

#[test]
fn words_of_the_filter_are_searched_and_conditions_go_to_the_head() {
    let mut driver = Driver::new(View::Actors);
    driver.keys("/state=ALIVE Counter a=b");
    let Some(Effect::Want(Wanted { view, conditions })) = driver.key(KeyCode::Enter) else {
        panic!("the head was not asked")
    };
    assert_eq!((view, conditions.len(), conditions[0].key.as_str()), (View::Actors, 1, "state"));
    // No actor has the key `a`, so that word is searched.
    assert_eq!(driver.model.visible().len(), 0);
    assert!(driver.screen(80, 16).contains("no row passes the filter; Esc removes it"));
    driver.key(KeyCode::Esc);
    assert_eq!(driver.model.visible().len(), 2);
    driver.keys("/OLD");
    driver.key(KeyCode::Enter);
    let keys: Vec<_> = driver.model.visible().iter().map(|row| row.key.clone()).collect();
    assert_eq!(keys, ["0000000000000002"]);
}

#[test]
fn reply_to_an_earlier_selection_changes_no_table() {
    let mut driver = Driver::new(View::Nodes);
    let stale =
        Sample { wanted: driver.model.wanted(), summary: summary(), rows: rows(View::Nodes), more: 0 };
    assert!(matches!(driver.key(KeyCode::Tab), Some(Effect::Want(wanted)) if wanted.view == View::Jobs));
    driver.event(Event::Report(Report::Sample(Box::new(stale))));
    assert!(driver.screen(80, 16).contains("loading"));
    driver.sample();
    assert!(driver.screen(80, 16).contains("count book.txt"));
}

#[test]
fn rows_are_sorted_by_a_column_and_the_selection_follows_its_row() {
    let mut driver = Driver::new(View::Tasks);
    let finished = |driver: &Driver| -> Vec<String> {
        driver.model.visible().iter().map(|row| row.cells[5].shown().to_owned()).collect()
    };
    assert_eq!(finished(&driver), ["40", "2"]);
    driver.keys(">>>>>>");
    assert_eq!(finished(&driver), ["2", "40"]);
    assert_eq!(driver.model.state().position, 1, "the first row was selected");
    assert!(driver.screen(80, 16).contains("FINISHED^"));
    driver.keys("r");
    assert_eq!((finished(&driver), driver.model.state().position), (vec!["40".into(), "2".into()], 0));
    driver.keys("<<<<<<r");
    assert!(driver.screen(80, 16).contains("choose a column with < or > before"));
}

#[test]
fn action_needs_a_confirmation_that_names_the_thing() {
    let mut driver = Driver::new(View::Actors);
    assert_eq!(driver.keys("x"), None);
    let screen = driver.screen(80, 24);
    assert!(screen.contains("Kill the actor 0000000000000001 (\"counter\", app::Counter)?"), "{screen}");
    assert!(screen.contains("Cluster at 10.0.0.5:6379"), "{screen}");
    assert_eq!(driver.key(KeyCode::Enter), None);
    assert!(matches!(driver.model.mode, Mode::Confirm { .. }), "Enter confirms nothing");
    assert_eq!(driver.keys("n"), None);
    assert!(driver.screen(80, 24).contains("nothing was done"));
    // The row may move or end while the question is open.
    driver.keys("x");
    driver.answer(Rows::Actors(Vec::new()), 0);
    assert_eq!(driver.keys("y"), Some(Effect::Act(Action::KillActor(ActorKey(1)))));
    driver.event(Event::Report(Report::Acted("asked it to end".to_owned())));
    assert!(driver.screen(80, 24).contains("\nasked it to end\n"));
    driver.now += Duration::from_secs(9);
    assert!(!driver.screen(80, 24).contains("asked it to end"));
}

#[test]
fn row_without_an_action_says_why() {
    let mut driver = Driver::new(View::Nodes);
    assert_eq!(driver.keys("x"), None);
    assert!(driver.screen(80, 24).contains("the head's own node cannot be drained"));
    let mut none = Driver::new(View::Workers);
    none.answer(Rows::Workers(Vec::new()), 0);
    none.keys("x");
    assert!(none.screen(80, 24).contains("select a row first"));
}

#[test]
fn details_show_all_fields_and_follow_the_row() {
    let mut driver = Driver::new(View::Actors);
    driver.key(KeyCode::Enter);
    let screen = driver.screen(80, 24);
    assert!(
        screen.contains("lifetime       DETACHED") && screen.contains("resources      cpu=0.5"),
        "{screen}"
    );
    let mut actors = test_cluster::actors();
    actors[0].state = ActorState::Dead;
    driver.answer(Rows::Actors(actors), 0);
    assert!(driver.screen(80, 24).contains("state          DEAD"));
    // A row that is listed no longer stays as it was last.
    driver.answer(Rows::Actors(Vec::new()), 0);
    assert!(driver.screen(80, 24).contains("state          DEAD"));
    driver.keys("jjjjjjjjjjjjjjjjjjjj");
    assert!(driver.screen(80, 24).contains("cause          -"), "the last field stays visible");
    driver.key(KeyCode::Esc);
    assert_eq!(driver.model.mode, Mode::Table);
}

#[test]
fn control_keys_end_suspend_and_redraw_in_every_mode() {
    for opened in ["", "?", "x", "/"] {
        let mut driver = Driver::new(View::Actors);
        driver.keys(opened);
        let control = |driver: &mut Driver, c| {
            driver.event(Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)))
        };
        assert_eq!(control(&mut driver, 'z'), Some(Effect::Suspend));
        assert_eq!(control(&mut driver, 'l'), Some(Effect::Redraw));
        assert_eq!(control(&mut driver, 'c'), Some(Effect::Quit));
    }
}

#[derive(Debug, Parser)]
struct Top {
    #[command(flatten)]
    arguments: TopArgs,
}

#[test]
fn json_is_refused_with_the_command_that_has_it() {
    let parsed = |line: &[&str]| Top::parse_from([&["top"], line].concat()).arguments.check();
    let failure = parsed(&["--json"]).unwrap_err();
    assert_eq!(failure.code, exit::USAGE);
    assert!(failure.to_string().contains("roadshow status --json"), "{failure}");
    assert_eq!(parsed(&["--interval", "0.1"]).unwrap_err().code, exit::USAGE);
    assert_eq!(parsed(&["--interval", "0.2", "--view", "tasks"]), Ok(()));
}

#[tokio::test]
async fn page_is_printed_where_there_is_no_terminal() {
    let cluster = test_cluster::FakeCluster::new();
    let arguments = Top::parse_from(["top", "--view", "jobs"]).arguments;
    let (outcome, out, _) =
        cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
    outcome.unwrap();
    assert!(out.starts_with("roadshow top  10.0.0.5:6379") && out.contains("[2 Jobs]"), "{out}");
    assert!(out.ends_with("the process exited with code 7\n"), "{out}");
}
