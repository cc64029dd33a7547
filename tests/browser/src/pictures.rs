//! Pictures of each page, in light and dark and on a phone.

use std::sync::Arc;

use serde_json::json;

use crate::Site;
use crate::browser::Browser;
use crate::cluster::Cluster;

/// Size of a picture in the documentation.
const DOCUMENTED: (u64, u64) = (1424, 735);

/// Takes pictures for `docs/images`, while the lecture's program runs on three nodes.
///
/// A copy with a palette is smaller: the pictures there have one.
pub(crate) async fn of_the_documentation() {
    let (cluster, browser) = (Cluster::with_the_lecture().await, Browser::start().await);
    let (width, height) = DOCUMENTED;
    let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
    browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
    browser.goto(&cluster.link).await;
    // The tasks of the program come behind its sequential run; the charts have their lines by then.
    let job = format!("#/jobs/{}", cluster.lecture);
    browser.open(&job, "Job").await;
    browser.until("!!document.querySelector('.progress-list li') && document.querySelectorAll('tbody tr').length > 12").await;
    browser.picture("dashboard-job").await;
    browser.open("#/", "Overview").await;
    browser.until("document.querySelectorAll('.charts canvas').length === 4").await;
    // A rate is that of two samples, and the charts are drawn again at each.
    browser.until("new Promise(resolve => setTimeout(() => resolve(true), 5000))").await;
    browser.picture("dashboard-overview").await;
    browser.close().await;
}

pub(crate) async fn pictures_of_each_page(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    let worker = &cluster.list("workers", &format!("job_id={}", cluster.cells)).await[0];
    let actor =
        &cluster.row("actors", &format!("job_id={}", cluster.cells), |actor| actor["state"] == "ALIVE").await;
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let pages = [
        ("overview", "#/".to_owned()),
        ("jobs", "#/jobs".to_owned()),
        ("job", format!("#/jobs/{}", cluster.lecture)),
        ("cluster", "#/cluster".to_owned()),
        ("node", format!("#/nodes/{}", cluster.nodes[1])),
        ("worker", format!("#/workers/{}", text(&worker["worker_id"]))),
        ("actors", "#/actors?sort=-handled".to_owned()),
        ("actor", format!("#/actors/{}", text(&actor["actor_id"]))),
        ("tasks", "#/tasks".to_owned()),
        ("metrics", "#/metrics?range=15m".to_owned()),
        ("logs", format!("#/logs?job={}", cluster.cells)),
        ("events", "#/events".to_owned()),
    ];
    for (theme, width) in [("light", 1440), ("dark", 1440), ("light", 390)] {
        browser
            .devtools(
                "Emulation.setEmulatedMedia",
                json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] }),
            )
            .await;
        browser
            .devtools(
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": width, "height": if width < 640 { 844 } else { 900 }, "deviceScaleFactor": 1, "mobile": width < 640 }),
            )
            .await;
        for (name, hash) in &pages {
            browser.open(hash, "").await;
            browser.until("document.querySelectorAll('main .loading').length === 0 && document.querySelectorAll('main *').length > 20").await;
            // Rates need a second sample, which the page has when it is opened again.
            let wait_ms = if theme == "light" && width == 1440 { 2500 } else { 500 };
            browser
                .until(&format!("new Promise(resolve => setTimeout(() => resolve(true), {wait_ms}))"))
                .await;
            // No page is wider than the screen; tables scroll within it.
            let overflow = browser
                .value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                .await;
            assert!(overflow.as_i64() <= Some(0), "{name} at {width} px is wider by {overflow}");
            browser.picture(&format!("{name}-{theme}-{width}")).await;
        }
    }
    browser.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await;
    browser.devtools("Emulation.setEmulatedMedia", json!({ "features": [] })).await;
}
