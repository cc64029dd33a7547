//! Actions of the page, and what the page shows when processes or the connection end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;

use crate::Site;
use crate::load::expect_viewers;

/// Time within which a death is on the page.
const DEATH_MAX: Duration = Duration::from_secs(1);
/// Time within which the head has no viewer after the only page was left.
const LEFT_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn lost_connection_heals(site: Arc<Site>) {
    let browser = &site.browser;
    browser.open("#/cluster", "Cluster").await;
    browser.until("document.querySelector('.connection').textContent === 'Live'").await;
    let offline = |is_offline: bool| json!({ "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
    browser.devtools("Network.emulateNetworkConditions", offline(true)).await;
    browser.until("document.body.innerText.includes('Connection lost, retrying')").await;
    // What was loaded stays on the page.
    assert_eq!(browser.value("document.querySelectorAll('tbody tr[data-id]').length").await, 3);
    browser.devtools("Network.emulateNetworkConditions", offline(false)).await;
    let (_, took) = browser.until("document.querySelector('.connection').textContent === 'Live' && !document.querySelector('.failure')").await;
    println!("        healed after {} ms", took.as_millis());
    browser.until("/^[0-3] s old/.test(document.querySelector('.age').textContent)").await;
    browser.forget_logs().await;
}

pub(crate) async fn page_that_is_left_ends_its_stream(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.open("#/cluster", "Cluster").await;
    browser.until("document.querySelector('.connection').textContent === 'Live'").await;
    expect_viewers(cluster, 1).await;
    browser.goto("about:blank").await;
    let begun = Instant::now();
    expect_viewers(cluster, 0).await;
    println!("        the head has seen the page leave after {} ms", begun.elapsed().as_millis());
    // The browser would keep the connection for a minute.
    assert!(begun.elapsed() < LEFT_MAX, "{:?}", begun.elapsed());
    browser.back().await;
    browser.until("document.querySelector('.connection')?.textContent === 'Live'").await;
    expect_viewers(cluster, 1).await;
    browser.forget_logs().await;
}

pub(crate) async fn killed_worker_appears(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    let worker = cluster
        .row("workers", &format!("job_id={}", cluster.cells), |worker| worker["state"] == "ALIVE")
        .await;
    let id = worker["worker_id"].as_str().unwrap().to_owned();
    browser.open(&format!("#/workers/{id}"), "Worker").await;
    browser.open("#/", "Overview").await;
    browser.until("!!document.querySelector('.events')").await;
    let begun = Instant::now();
    let killed = Command::new("kill").args(["-9", &worker["pid"].to_string()]).status().await.unwrap();
    assert!(killed.success());
    browser.until("/signal 9|SIGKILL/.test(document.querySelector('.events [data-kind=WORKER_DIED]')?.textContent ?? '')").await;
    let took = begun.elapsed();
    println!("        a killed worker is on the page after {} ms", took.as_millis());
    assert!(took < DEATH_MAX, "{took:?}");
    browser.open(&format!("#/workers/{id}"), "Worker").await;
    browser.until("document.querySelector('.page-title .state').textContent === 'Dead'").await;
    browser.until("/signal 9|SIGKILL/.test(document.querySelector('.facts').textContent)").await;
    browser.open(&format!("#/actors?state=DEAD&worker={id}"), "Actors").await;
    browser.until("document.querySelector('.cause')?.textContent.length > 5").await;
}

pub(crate) async fn actor_is_killed(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    let actor =
        cluster.row("actors", &format!("job_id={}", cluster.cells), |actor| actor["state"] == "ALIVE").await;
    let id = actor["actor_id"].as_str().unwrap().to_owned();
    browser.open(&format!("#/actors/{id}"), "Cell").await;
    // Without the confirmation nothing happens.
    browser.click(".page-tools button", "Kill").await;
    browser.click("dialog button", "Cancel").await;
    browser.until("!document.querySelector('dialog')").await;
    cluster.row("actors", &format!("actor_id={id}"), |actor| actor["state"] == "ALIVE").await;
    browser.click(".page-tools button", "Kill").await;
    browser.click("dialog button", "Kill actor").await;
    browser.until("document.querySelector('.page-title .state').textContent === 'Dead'").await;
    cluster.row("actors", &format!("actor_id={id}"), |actor| actor["state"] == "DEAD").await;

    // By force its worker ends too.
    let actor =
        cluster.row("actors", &format!("job_id={}", cluster.cells), |actor| actor["state"] == "ALIVE").await;
    let id = actor["actor_id"].as_str().unwrap().to_owned();
    browser.open(&format!("#/actors/{id}"), "Cell").await;
    browser.click(".page-tools button", "Kill").await;
    browser.click("dialog input[value=force]", "").await;
    browser.click("dialog button", "Kill actor").await;
    browser.until("document.querySelector('.page-title .state').textContent === 'Dead'").await;
    let worker = actor["worker_id"].as_str().unwrap();
    cluster.row("workers", &format!("worker_id={worker}"), |worker| worker["state"] == "DEAD").await;
}

pub(crate) async fn node_is_drained(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.open("#/cluster", "Cluster").await;
    browser.click("tr button", "Drain node node-3").await;
    browser.click("dialog button", "Drain node").await;
    let row = format!("document.querySelector('tr[data-id=\"{}\"]').innerText", cluster.nodes[2]);
    browser.until(&format!("/Draining|Dead/.test({row})")).await;
    cluster.row("nodes", &format!("node_id={}", cluster.nodes[2]), |node| node["state"] != "ALIVE").await;
}

pub(crate) async fn job_is_stopped(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.open(&format!("#/jobs/{}", cluster.cells), "Job").await;
    browser.click(".page-tools button", "Stop").await;
    browser.click("dialog button", "Stop job").await;
    browser.until("document.querySelector('.page-title .state').textContent === 'Stopped'").await;
    cluster.row("jobs", &format!("job_id={}", cluster.cells), |job| job["state"] == "STOPPED").await;
}
