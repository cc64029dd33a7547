//! Pictures of each page, in light and dark and on a phone.

use std::sync::Arc;

use serde_json::json;

use crate::Site;

/// Size of a picture in the documentation: as wide as a page of it shows without a loss.
const DOCUMENTED: (u64, u64) = (1424, 735);

/// Pictures for `docs/images`, while the lecture's job runs on three nodes.
pub(crate) async fn pictures_for_the_documentation(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    let (width, height) = DOCUMENTED;
    let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
    browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
    for (name, hash) in [
        ("overview", "#/".to_owned()),
        ("job", format!("#/jobs/{}", cluster.lecture)),
        ("actors", "#/actors?sort=-handled".to_owned()),
    ] {
        browser.open(&hash, "").await;
        browser.until("document.querySelectorAll('main .loading').length === 0").await;
        // Rates need a second sample.
        browser.until("new Promise(resolve => setTimeout(() => resolve(true), 4500))").await;
        browser.picture(&format!("dashboard-{name}")).await;
    }
    browser.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await;
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
