//! Times that a reader notices.

use std::sync::Arc;

use crate::Site;

/// Pages that are turned; the median is judged, since the machine has other work.
const PAGES: usize = 9;
const PAGE_MS_MAX: f64 = 200.0;
const FIRST_PAINT_MS_MAX: f64 = 300.0;

/// Clicks on "Next", and takes the time until the first row is another.
const NEXT: &str = "new Promise(resolve => {
    const first = () => document.querySelector('tbody tr')?.dataset.id;
    const [before, begun] = [first(), performance.now()];
    const observer = new MutationObserver(() => {
        if (first() === before) return;
        observer.disconnect();
        // The new rows are on the screen in the next frame.
        requestAnimationFrame(() => resolve(performance.now() - begun));
    });
    observer.observe(document.querySelector('main'), { subtree: true, childList: true, attributes: true });
    [...document.querySelectorAll('.pager button')].find(button => button.textContent === 'Next').click();
})";

pub(crate) async fn actors_page_quickly(site: Arc<Site>) {
    let browser = &site.browser;
    for sort in ["actor_id", "-handled"] {
        browser.open(&format!("#/actors?job={}&sort={sort}", site.cluster.cells), "Actors").await;
        browser.sees("of 10,000").await;
        let mut times = Vec::new();
        for _ in 0..PAGES {
            times.push(browser.promised(NEXT).await.as_f64().unwrap());
        }
        times.sort_by(f64::total_cmp);
        let (median, slowest) = (times[PAGES / 2], times[PAGES - 1]);
        println!("        a page of 10,000 actors by {sort}: median {median:.0} ms, slowest {slowest:.0} ms");
        assert!(median < PAGE_MS_MAX, "{times:?}");
    }
}

pub(crate) async fn first_paint_is_quick(site: Arc<Site>) {
    let browser = &site.browser;
    let mut times = Vec::new();
    for _ in 0..5 {
        browser.goto(&format!("{}/", site.cluster.url)).await;
        browser.reload().await;
        let paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
        times.push(browser.until(paint).await.0.as_f64().unwrap());
    }
    times.sort_by(f64::total_cmp);
    println!("        first contentful paint: median {:.0} ms, slowest {:.0} ms", times[2], times[4]);
    assert!(times[2] < FIRST_PAINT_MS_MAX, "{times:?}");
}
