//! Log-in by token and by link, and log-out.

use std::sync::Arc;

use serde_json::json;

use crate::Site;

/// Name of the check that logs in; every other check needs it.
pub(crate) const REQUIRED: &str = "log_in_is_required";

const STATUS_OF_NODES: &str = "fetch('/api/v0/nodes').then(reply => reply.status)";

pub(crate) async fn log_in_is_required(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.goto(&format!("{}/#/actors?sort=-handled", cluster.url)).await;
    browser.sees("roadshow dashboard").await;
    for path in ["status", "nodes", "actors", "logs", "events", "series?range=15m"] {
        let status = browser.promised(&format!("fetch('/api/v0/{path}').then(reply => reply.status)")).await;
        assert_eq!(status, 401, "{path}");
    }
    browser.enter("input[name=token]", "not-the-token").await;
    browser.click("button[type=submit]", "Log in").await;
    browser.until("document.querySelector('#login-error').textContent.length > 10").await;

    browser.enter("input[name=token]", &cluster.token).await;
    browser.click("button[type=submit]", "Log in").await;
    // The deep link that led to the log-in is shown behind it.
    browser.until("document.querySelector('h1')?.textContent === 'Actors'").await;
    assert_eq!(browser.promised(STATUS_OF_NODES).await, 200);
    // Scripts cannot read the cookie, and it is the only credential that the browser keeps.
    assert_eq!(browser.value("document.cookie").await, "");
    let kept = browser.value("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])").await;
    assert!(!kept.as_str().unwrap().contains(&cluster.token));
    browser.reload().await;
    browser.until("document.querySelector('h1')?.textContent === 'Actors'").await;
}

pub(crate) async fn links_log_in_once(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.forget_cookies().await;
    browser.goto(&cluster.link).await;
    browser.until("document.querySelector('h1')?.textContent === 'Overview'").await;
    assert_eq!(browser.value("location.search").await, "", "the ticket stays in no address");
    browser.forget_cookies().await;
    browser.goto(&cluster.link).await;
    browser.goto(&format!("{}/", cluster.url)).await;
    browser.until("!!document.querySelector('input[name=token]')").await;
    assert_eq!(browser.promised(STATUS_OF_NODES).await, 401);
    // The reply to the used ticket has an error status, as it should.
    browser.forget_logs().await;

    let command = cluster.json(&["dashboard"]).await;
    let link = command
        .as_object()
        .into_iter()
        .flatten()
        .find_map(|(_, value)| value.as_str().filter(|text| text.contains("ticket=")));
    browser.goto(link.unwrap_or_else(|| panic!("no link in {command}"))).await;
    browser.until("document.querySelector('h1')?.textContent === 'Overview'").await;
}

pub(crate) async fn log_out_ends_the_session(site: Arc<Site>) {
    let browser = &site.browser;
    browser.click(".tools button", "Log out").await;
    browser.until("!!document.querySelector('input[name=token]')").await;
    assert_eq!(browser.promised(STATUS_OF_NODES).await, 401);
    let snapshot = browser.value("!!document.querySelector('table')").await;
    assert_eq!(snapshot, json!(false), "nothing of the cluster stays on the page");
}
