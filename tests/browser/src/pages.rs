//! Each page shows what runs: compared with the command's own output.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Site;

/// Actors of the program `many_actors`.
const CELLS: usize = 10_000;

fn text(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_else(|| panic!("no {field} in {row}")).to_owned()
}

pub(crate) async fn overview_shows_the_cluster(site: Arc<Site>) {
    let browser = &site.browser;
    browser.open("#/", "Overview").await;
    browser.until("document.querySelector('.tile-value')?.textContent === '3 / 3'").await;
    browser.until("document.querySelectorAll('.charts canvas').length === 4").await;
    browser.until("/[0-9]+ %/.test(document.querySelectorAll('.tile-value')[1].textContent)").await;
    browser.sees("most_frequent_word").await;
    browser.until("!!document.querySelector('.events [data-kind=JOB_STARTED]')").await;
    // All actors are there once the program has spawned them.
    let script =
        format!("document.querySelectorAll('.tile-value')[4].textContent.replace(',', '') >= {CELLS}");
    browser.until(&script).await;
}

pub(crate) async fn lecture_job_shows_its_progress(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.open("#/jobs", "Jobs").await;
    browser
        .until(&format!(
            "document.querySelector('tr[data-id=\"{}\"]')?.innerText.match(/Running|Succeeded/)",
            cluster.lecture
        ))
        .await;
    browser.open(&format!("#/jobs/{}", cluster.lecture), "Job").await;
    browser.until("/Running|Succeeded/.test(document.querySelector('.page-title .state').textContent)").await;
    browser.sees("--counting=list").await;
    // The tasks of the lecture's program come behind its sequential run.
    let (_, took) = browser.until("document.querySelectorAll('.progress-list li').length > 0").await;
    println!("        first tasks of the lecture's job on its page after {} ms", took.as_millis());
    // Its timeline has them, in the picture and in the file.
    browser
        .until("document.querySelector('.timeline canvas')?.getAttribute('aria-label').includes('most_frequent')")
        .await;
    let drawn = "(canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(byte => byte > 0))\
        (document.querySelector('.timeline canvas'))";
    browser.until(drawn).await;
    let trace = "fetch([...document.querySelectorAll('a[download]')].find(link => link.textContent.includes('Perfetto')).href)\
        .then(reply => reply.json()).then(trace => trace.traceEvents.some(event => event.cat === 'task'))";
    assert_eq!(browser.promised(trace).await, json!(true));
    let workers = cluster.list("workers", &format!("job_id={}", cluster.lecture)).await;
    assert!(!workers.is_empty());
    for worker in workers {
        browser.sees(&worker["pid"].to_string()).await;
    }
    browser.until("!!document.querySelector('.log-text')").await;
}

pub(crate) async fn cluster_table_shows_nodes_and_workers(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.open("#/cluster", "Cluster").await;
    for node in cluster.list("nodes", "state=ALIVE").await {
        let row = format!("document.querySelector('tr[data-id=\"{}\"]').innerText", text(&node, "node_id"));
        for field in ["hostname", "address"] {
            browser.until(&format!("{row}.includes({})", node[field])).await;
        }
        browser.until(&format!("{row}.includes('Alive') && /[0-9]+ %/.test({row}) && {row}.includes('GiB') && {row}.includes('B/s')")).await;
    }
    // The columns of the lecture's table; without GPUs there is no column for them.
    let columns = browser
        .value("[...document.querySelectorAll('thead th')].map(cell => cell.textContent.trim())")
        .await;
    for column in [
        "Host / Worker process",
        "State",
        "ID",
        "IP / PID",
        "Actions",
        "CPU",
        "Memory",
        "Disk",
        "Sent",
        "Received",
        "Logical resources",
    ] {
        assert!(columns.as_array().unwrap().contains(&json!(column)), "no {column} in {columns}");
    }
    browser.click("button", "Show workers").await;
    for worker in cluster.list("workers", &format!("job_id={}", cluster.cells)).await {
        let row =
            format!("document.querySelector('tr[data-id=\"{}\"]')?.innerText", text(&worker, "worker_id"));
        browser.until(&format!("{row}?.includes('{}')", worker["pid"])).await;
    }
    // A link to the log of a worker leads there.
    browser.click("tr.sub a", "Log").await;
    browser.until("document.querySelector('h1').textContent === 'Logs'").await;
}

pub(crate) async fn actors_show_what_the_command_lists(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.open(&format!("#/actors?job={}&sort=actor_id", cluster.cells), "Actors").await;
    browser.sees("of 10,000").await;
    let mut listed = cluster.list("actors", &format!("job_id={}", cluster.cells)).await;
    assert_eq!(listed.len(), CELLS);
    listed.sort_by_key(|actor| text(actor, "actor_id"));
    let shown = browser
        .value("[...document.querySelectorAll('tbody tr')].map(row => [row.dataset.id, row.innerText])")
        .await;
    for (actor, row) in listed.iter().zip(shown.as_array().unwrap()) {
        assert_eq!(row[0], actor["actor_id"]);
        let shown = row[1].as_str().unwrap();
        for part in ["Cell".to_owned(), "Alive".to_owned(), actor["pid"].to_string()] {
            assert!(shown.contains(&part), "no {part} in {shown}");
        }
    }
    // Filters and their numbers are the head's.
    browser.open("#/actors?state=DEAD&search=nothing-has-this-text", "Actors").await;
    browser.sees("No actor passes the filter.").await;
    browser.open("#/actors?sort=-handled", "Actors").await;
    browser
        .until("document.querySelector('th[aria-sort=descending]')?.textContent.includes('Handled')")
        .await;
    browser.click("th button", "Handled").await;
    browser
        .until(
            "location.hash.includes('sort=handled') && !!document.querySelector('th[aria-sort=ascending]')",
        )
        .await;
}

pub(crate) async fn actor_shows_its_messages(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    let actor =
        cluster.row("actors", &format!("job_id={}", cluster.cells), |actor| actor["state"] == "ALIVE").await;
    browser.open(&format!("#/actors/{}", text(&actor, "actor_id")), "Cell").await;
    for field in ["actor_id", "class"] {
        browser.sees(&text(&actor, field)).await;
    }
    browser.sees(&actor["pid"].to_string()).await;
    browser.until("/Messages handled\\s+[0-9]/.test(document.body.innerText)").await;
    // Handler times of its class in its worker.
    browser.until("[...document.querySelectorAll('td')].some(cell => cell.dataset.label === 'p99' && /[0-9] (µs|ms|s)$/.test(cell.innerText.trim()))").await;
}

pub(crate) async fn tasks_show_functions(site: Arc<Site>) {
    let browser = &site.browser;
    browser.open(&format!("#/tasks?job={}", site.cluster.cells), "Tasks").await;
    browser.until("document.querySelector('.progress-list')?.innerText.includes('hash_steps')").await;
    browser.until("[...document.querySelectorAll('td')].some(cell => cell.dataset.label === 'p50' && /[0-9] (µs|ms|s)$/.test(cell.innerText.trim()))").await;
}

pub(crate) async fn metrics_show_charts(site: Arc<Site>) {
    let browser = &site.browser;
    browser.open("#/metrics", "Metrics").await;
    for range in ["15 minutes", "1 hour", "24 hours"] {
        browser.click(".segments button", range).await;
        browser.until("document.querySelectorAll('.chart canvas').length === 11").await;
    }
    browser.click(".segments button", "15 minutes").await;
    // A line for each node, with a value.
    browser.until("[...document.querySelector('.chart').querySelectorAll('.legend-value')].filter(value => value.textContent.includes('%')).length === 3").await;
    browser.until("[...document.querySelectorAll('.chart')].find(chart => chart.innerText.startsWith('Messages')).querySelector('.legend-value').textContent !== '–'").await;
    // The crosshair names the time that it stands at.
    browser
        .value("void document.querySelectorAll('.u-over').forEach(over => { const { left, top, width } = over.getBoundingClientRect(); over.dispatchEvent(new MouseEvent('mousemove', { clientX: left + width - 2, clientY: top + 9, bubbles: true })); })")
        .await;
    browser
        .until("/[0-9]{2}:[0-9]{2}:[0-9]{2}/.test(document.querySelector('.legend-time').textContent)")
        .await;
}

pub(crate) async fn logs_show_and_find_lines(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    browser.open(&format!("#/logs?job={}", cluster.cells), "Logs").await;
    browser.until("document.querySelector('.log-text')?.textContent.includes('round ')").await;
    // Follow shows lines that did not exist before.
    let lines = browser.value("document.querySelector('.log-text').textContent.split('\\n').length").await;
    browser
        .until(&format!("document.querySelector('.log-text').textContent.split('\\n').length > {lines}"))
        .await;
    browser.enter(".log input[type=search]", "cells are alive").await;
    browser.until("document.querySelector('.log-text').innerText.trim() === '10000 cells are alive'").await;
    assert_eq!(browser.value("document.querySelectorAll('.log-text mark').length").await, 1);
    let download = browser.value("document.querySelector('a[download]').getAttribute('href')").await;
    let reply = browser
        .promised(&format!("fetch({download}).then(reply => reply.text().then(text => [reply.status, reply.headers.get('content-disposition'), text.slice(0, 9)]))"))
        .await;
    assert_eq!(reply[0], 200);
    assert!(reply[1].as_str().unwrap().starts_with("attachment"), "{reply}");
}

pub(crate) async fn reload_and_back_work(site: Arc<Site>) {
    let browser = &site.browser;
    browser.open("#/", "Overview").await;
    browser.open("#/actors?sort=-handled", "Actors").await;
    browser.click(".pager button", "Next").await;
    browser.until("location.hash.includes('page=2') && document.querySelector('.range').textContent.startsWith('51')").await;
    browser.reload().await;
    browser.until("document.querySelector('.range')?.textContent.startsWith('51')").await;
    browser.back().await;
    browser.until("document.querySelector('.range')?.textContent.startsWith('1–')").await;
    browser.back().await;
    browser.until("document.querySelector('h1')?.textContent === 'Overview'").await;
    browser.open("#/jobs/ffffffff", "Job").await;
    // The head says what is wrong; the page stays usable.
    browser.until("document.querySelector('.failure')?.textContent.length > 20").await;
    browser.open("#/no-such-page", "No such page").await;
    // Each section of the job's page has asked for a job that does not exist.
    browser.forget_logs().await;
    browser.open("#/", "Overview").await;
}

pub(crate) async fn keyboard_reaches_everything(site: Arc<Site>) {
    let browser = &site.browser;
    browser.open("#/", "Overview").await;
    browser.keys("?").await;
    browser.until("document.querySelector('dialog[open] h2')?.textContent === 'Help'").await;
    browser.keys("\u{e00c}").await;
    browser.until("!document.querySelector('dialog')").await;
    browser.keys("ga").await;
    browser.until("document.querySelector('h1')?.textContent === 'Actors'").await;
    assert_eq!(
        browser.value("document.activeElement.tagName").await,
        "H1",
        "the focus follows to the new page"
    );
    browser.keys("/").await;
    browser.until("document.activeElement.type === 'search'").await;
    browser.keys("Cell\u{e00c}").await;
    browser.until("location.hash.includes('search=Cell')").await;
    browser.keys("]").await;
    browser.until("location.hash.includes('page=2')").await;
    // Each control has a name, and shows the focus.
    let unnamed = "[...document.querySelectorAll('button, a, input, select')].filter(element => !(element.textContent.trim() \
                   || element.ariaLabel || element.closest('label')?.textContent.trim())).map(element => element.outerHTML)";
    assert_eq!(browser.value(unnamed).await, json!([]));
    browser.value("void document.querySelector('.pages a').focus()").await;
    browser.keys("\t").await;
    assert_ne!(browser.value("getComputedStyle(document.activeElement).outlineStyle").await, "none");
    let theme = browser.value("document.documentElement.dataset.theme ?? 'system'").await;
    browser.click(".tools button", "theme").await;
    browser.reload().await;
    browser.until("!!document.querySelector('h1')").await;
    assert_ne!(
        browser.value("document.documentElement.dataset.theme ?? 'system'").await,
        theme,
        "the theme is remembered"
    );
    browser.value("void localStorage.removeItem('roadshow.theme')").await;
    browser.reload().await;
}

pub(crate) async fn views_name_a_snapshot_that_grows(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    for (hash, heading) in
        [("#/cluster", "Cluster"), ("#/jobs", "Jobs"), ("#/actors", "Actors"), ("#/", "Overview")]
    {
        browser.open(hash, heading).await;
        browser.until("Number(document.querySelector('[data-snapshot]')?.dataset.snapshot) > 0").await;
        browser.until("/[0-9]+ s old/.test(document.querySelector('.age').textContent)").await;
    }
    let shown = browser.value("Number(document.querySelector('[data-snapshot]').dataset.snapshot)").await;
    let before = cluster.json(&["status"]).await;
    // The page is at most one load behind the head.
    assert!(before["snapshot"].as_u64() >= shown.as_u64(), "{} and {shown}", before["snapshot"]);
}
