//! Tests of the dashboard in a real browser, against a cluster of three nodes. `tests/browser/run` starts them.
//!
//! The checks share one cluster and one browser, and run in order: an action of one is seen by those behind it.
//! After each of them the console has no error, and no request has left the origin. With `stream-load` as the first
//! argument the program measures instead: see [`load`]. With `documentation` it takes the pictures of `docs/images`.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

mod actions;
mod browser;
mod cluster;
mod cpu;
mod foreign;
mod load;
mod log_in;
mod modules;
mod numbers;
mod pages;
mod pictures;
mod speed;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use browser::Browser;
use cluster::Cluster;

/// Cluster and browser of all checks.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) browser: Browser,
}

/// Runs the selected checks one after another, and counts those that fail.
struct Runner {
    site: Arc<Site>,
    selected: Vec<String>,
    run: usize,
    failed: Vec<&'static str>,
}

impl Runner {
    async fn check<F, C>(&mut self, name: &'static str, check: C)
    where
        C: FnOnce(Arc<Site>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        // Every check needs the log-in.
        let is_selected = self.selected.is_empty() || self.selected.iter().any(|part| name.contains(part));
        if !is_selected && name != log_in::REQUIRED {
            return;
        }
        let (begun, site) = (Instant::now(), self.site.clone());
        let body = check(site.clone());
        // A task of its own turns a panic into a result.
        let outcome = tokio::spawn(async move {
            body.await;
            site.browser.assert_clean(&site.cluster.url).await;
        });
        self.run += 1;
        match outcome.await {
            Ok(()) => println!("ok      {name}  {} ms", begun.elapsed().as_millis()),
            Err(_) => {
                println!("FAILED  {name}");
                self.failed.push(name);
                self.site.browser.picture(&format!("failed-{name}")).await;
            }
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(name, rest)| (name.as_str(), rest)) {
        Some(("stream-load", options)) => {
            load::run(options).await;
            return ExitCode::SUCCESS;
        }
        Some(("documentation", _)) => {
            pictures::of_the_documentation().await;
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let cluster = Cluster::start().await;
    let browser = Browser::start().await;
    let mut runner =
        Runner { site: Arc::new(Site { cluster, browser }), selected: arguments, run: 0, failed: Vec::new() };
    all(&mut runner).await;
    runner.site.browser.close().await;
    println!("{} checks, {} failed {:?}", runner.run, runner.failed.len(), runner.failed);
    if runner.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn all(runner: &mut Runner) {
    runner.check(log_in::REQUIRED, log_in::log_in_is_required).await;
    runner.check("links_log_in_once", log_in::links_log_in_once).await;
    runner.check("functions_of_the_page_are_right", modules::functions_of_the_page_are_right).await;
    runner.check("index_names_every_module", modules::index_names_every_module).await;
    runner.check("vendored_files_match_their_table", modules::vendored_files_match_their_table).await;
    runner.check("overview_shows_the_cluster", pages::overview_shows_the_cluster).await;
    runner.check("lecture_job_shows_its_progress", pages::lecture_job_shows_its_progress).await;
    runner.check("cluster_table_shows_nodes_and_workers", pages::cluster_table_shows_nodes_and_workers).await;
    runner.check("actors_show_what_the_command_lists", pages::actors_show_what_the_command_lists).await;
    runner.check("actor_shows_its_messages", pages::actor_shows_its_messages).await;
    runner.check("tasks_show_functions", pages::tasks_show_functions).await;
    runner.check("metrics_show_charts", pages::metrics_show_charts).await;
    runner.check("logs_show_and_find_lines", pages::logs_show_and_find_lines).await;
    runner.check("reload_and_back_work", pages::reload_and_back_work).await;
    runner.check("keyboard_reaches_everything", pages::keyboard_reaches_everything).await;
    runner.check("views_name_a_snapshot_that_grows", pages::views_name_a_snapshot_that_grows).await;
    runner.check("jobs_have_the_numbers_of_the_command", numbers::jobs_have_the_numbers_of_the_command).await;
    runner
        .check("overview_has_the_numbers_of_the_command", numbers::overview_has_the_numbers_of_the_command)
        .await;
    runner
        .check("cluster_has_the_numbers_of_the_command", numbers::cluster_has_the_numbers_of_the_command)
        .await;
    runner
        .check("actors_have_the_numbers_of_the_command", numbers::actors_have_the_numbers_of_the_command)
        .await;
    runner
        .check("tasks_have_the_numbers_of_the_command", numbers::tasks_have_the_numbers_of_the_command)
        .await;
    runner.check("10_000_actors_page_in_under_200_ms", speed::actors_page_quickly).await;
    runner.check("first_paint_is_quick", speed::first_paint_is_quick).await;
    runner.check("pictures_of_each_page", pictures::pictures_of_each_page).await;
    runner.check("foreign_page_can_do_nothing", foreign::foreign_page_can_do_nothing).await;
    runner.check("lost_connection_heals", actions::lost_connection_heals).await;
    runner.check("page_that_is_left_ends_its_stream", actions::page_that_is_left_ends_its_stream).await;
    runner.check("killed_worker_appears_within_a_second", actions::killed_worker_appears).await;
    runner.check("actor_is_killed", actions::actor_is_killed).await;
    runner.check("node_is_drained", actions::node_is_drained).await;
    runner.check("job_is_stopped", actions::job_is_stopped).await;
    runner.check("log_out_ends_the_session", log_in::log_out_ends_the_session).await;
}
