//! Page of another origin on the same machine: it reads nothing, and changes nothing.
//!
//! Ports of one address are one *site*, so the browser sends the cookie along in spite of `SameSite=Strict`. The
//! head's own checks of origin and header have to hold.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::Site;

const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<!doctype html><title>Foreign</title><body>";

/// Serves an empty page to each connection, and returns its origin.
async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // One read has the whole request of a browser, or the browser has closed the connection.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(PAGE.as_bytes()).await;
            });
        }
    });
    origin
}

/// Attempts of the foreign page; each yields what it could read, or the text of its failure.
fn attempts(target: &str, job: &str) -> Vec<(&'static str, String)> {
    let stop = format!("{target}/api/jobs/{job}/stop");
    vec![
        (
            "read",
            format!(
                "fetch('{target}/api/v0/nodes', {{ credentials: 'include' }}).then(reply => reply.text())"
            ),
        ),
        ("read the page", format!("fetch('{target}/').then(reply => reply.text())")),
        (
            "read without CORS",
            format!(
                "fetch('{target}/api/v0/nodes', {{ credentials: 'include', mode: 'no-cors' }}).then(reply => reply.text())"
            ),
        ),
        (
            "act with the header",
            format!(
                "fetch('{stop}', {{ method: 'POST', credentials: 'include', headers: {{ 'X-Roadshow-Action': '1' }}, body: '{{}}' }}).then(reply => reply.text())"
            ),
        ),
        (
            "act without the header",
            format!(
                "fetch('{stop}', {{ method: 'POST', credentials: 'include', mode: 'no-cors', body: '{{}}' }}).then(reply => reply.text())"
            ),
        ),
        ("beacon", format!("Promise.resolve(navigator.sendBeacon('{stop}', '{{}}')).then(() => '')")),
        (
            "stream",
            format!(
                "new Promise((resolve, reject) => {{ const source = new EventSource('{target}/api/v0/stream', {{ withCredentials: true }}); source.onopen = () => resolve('open'); source.onerror = () => {{ source.close(); reject('error'); }}; }})"
            ),
        ),
        (
            "script",
            format!(
                "new Promise((resolve, reject) => {{ const script = document.createElement('script'); script.src = '{target}/api/v0/nodes'; script.onload = () => resolve('loaded'); script.onerror = () => reject('error'); document.body.append(script); }})"
            ),
        ),
    ]
}

/// Loads the dashboard in a frame, and takes what the frame's document shows.
fn frame(target: &str) -> String {
    format!(
        "new Promise(resolve => {{ const frame = document.createElement('iframe'); frame.src = '{target}/'; \
         frame.onload = () => {{ let text; try {{ text = frame.contentDocument?.body.innerText ?? ''; }} catch (error) {{ text = ''; }} resolve(text); }}; \
         document.body.append(frame); }})"
    )
}

pub(crate) async fn foreign_page_can_do_nothing(site: Arc<Site>) {
    let (browser, cluster) = (&site.browser, &site.cluster);
    // A log-in is there to be abused.
    browser.goto(&format!("{}/", cluster.url)).await;
    browser.until("document.querySelector('h1')?.textContent === 'Overview'").await;
    let origin = serve().await;
    browser.goto(&format!("{origin}/")).await;
    for (name, script) in attempts(&cluster.url, &cluster.cells) {
        let read = browser.promised(&script).await;
        let is_harmless = read == "" || !read["failed"].is_null();
        assert!(is_harmless, "{name}: {read}");
    }
    assert_eq!(browser.promised(&frame(&cluster.url)).await, "");
    // A form of the page sends the cookie, and no header.
    let form = format!(
        "void (() => {{ const form = document.createElement('form'); form.method = 'post'; form.action = '{}/api/jobs/{}/stop'; document.body.append(form); form.submit(); }})()",
        cluster.url, cluster.cells
    );
    browser.value(&form).await;
    browser.until(&format!("location.href.startsWith('{}')", cluster.url)).await;
    let reply = browser.text().await;
    assert!(reply.contains("\"error\""), "{reply}");
    let job = cluster.row("jobs", &format!("job_id={}", cluster.cells), |_| true).await;
    assert_eq!(job["state"], "RUNNING");

    // A name that an attacker lets point to loopback is refused on every method.
    for method in ["GET", "POST"] {
        let status = with_host(&cluster.url, method, "attacker.example").await;
        assert!(status.starts_with("HTTP/1.1 4"), "{method}: {status}");
    }
    browser.goto(&format!("{}/", cluster.url)).await;
    browser.until("document.querySelector('h1')?.textContent === 'Overview'").await;
    browser.forget_logs().await;
}

/// Status line of a request with another `Host`.
async fn with_host(url: &str, method: &str, host: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} /api/v0/session HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply.lines().next().unwrap_or_default().to_owned()
}
