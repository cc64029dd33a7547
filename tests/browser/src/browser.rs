//! Chromium, driven by chromedriver.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};

use crate::cluster::{POLL, WAIT};

/// Command of chromedriver that WebDriver does not define: a log, or a command of the DevTools.
#[derive(Debug)]
struct ChromeCommand {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for ChromeCommand {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

/// Window of the browser.
pub(crate) struct Browser {
    client: Client,
    pictures: PathBuf,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let mut arguments = vec!["--headless=new", "--window-size=1440,900", "--force-color-profile=srgb"];
        // Chromium refuses to run its sandbox as root, as in a container.
        if std::fs::metadata("/proc/self")
            .map(|own| std::os::unix::fs::MetadataExt::uid(&own))
            .is_ok_and(|uid| uid == 0)
        {
            arguments.push("--no-sandbox");
        }
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("it is an object") };
        let driver = format!("http://127.0.0.1:{}", driver_port().await);
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.into_iter().collect::<Map<_, _>>());
        let client = builder.connect(&driver).await.expect("chromedriver starts Chromium");
        let pictures = PathBuf::from(std::env::var("CARGO_TARGET_DIR").expect("tests/browser/run sets it"))
            .join("browser");
        std::fs::create_dir_all(&pictures).unwrap();
        Self { client, pictures }
    }

    pub(crate) async fn close(&self) {
        self.client.clone().close().await.unwrap();
    }

    async fn chrome(&self, path: &'static str, body: Value) -> Value {
        self.client.issue_cmd(ChromeCommand { path, body }).await.unwrap()
    }

    /// Runs a command of the DevTools protocol.
    pub(crate) async fn devtools(&self, name: &str, parameters: Value) {
        self.chrome("goog/cdp/execute", json!({ "cmd": name, "params": parameters })).await;
    }

    pub(crate) async fn goto(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    pub(crate) async fn reload(&self) {
        self.client.refresh().await.unwrap();
    }

    pub(crate) async fn back(&self) {
        self.client.back().await.unwrap();
    }

    /// Value of a JavaScript expression in the page.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        self.client.execute(&format!("return ({expression})"), Vec::new()).await.unwrap()
    }

    /// Value of an expression that is a promise; a failure has the key `failed`.
    pub(crate) async fn promised(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1]; \
             Promise.resolve({expression}).then(done, error => done({{ failed: String(error) }}));"
        );
        self.client.execute_async(&script, Vec::new()).await.unwrap()
    }

    /// Waits until an expression is true, and returns its value and the time that it took.
    pub(crate) async fn until(&self, expression: &str) -> (Value, Duration) {
        let begun = Instant::now();
        loop {
            // The page may be between two documents.
            let value = self.client.execute(&format!("return ({expression})"), Vec::new()).await;
            match value {
                Ok(value) if !matches!(value, Value::Null | Value::Bool(false)) => {
                    return (value, begun.elapsed());
                }
                outcome => {
                    assert!(
                        begun.elapsed() < WAIT,
                        "never true: {expression}: {outcome:?}\n{}",
                        self.text().await
                    );
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Text of the page, as a reader sees it.
    pub(crate) async fn text(&self) -> String {
        let text = self.client.execute("return document.body.innerText", Vec::new()).await;
        text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Waits until the page contains a text.
    pub(crate) async fn sees(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Goes to another page of the dashboard by its address, and waits for its heading.
    pub(crate) async fn open(&self, hash: &str, heading: &str) {
        self.value(&format!("void (location.hash = {})", json!(hash))).await;
        let heading = json!(heading);
        self.until(&format!("document.querySelector('h1')?.textContent.includes({heading}) && !document.querySelector('main .loading')"))
            .await;
    }

    /// Clicks the first element of a selector whose text or name contains `text`.
    pub(crate) async fn click(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        let script = format!(
            "[...document.querySelectorAll({selector})].find(element => !element.disabled && \
             `${{element.textContent}} ${{element.ariaLabel ?? ''}}`.includes({text}))"
        );
        self.until(&format!("!!({script})")).await;
        self.value(&format!("void ({script}).click()")).await;
    }

    /// Types into a field.
    pub(crate) async fn enter(&self, selector: &str, text: &str) {
        let field = self.client.wait().for_element(fantoccini::Locator::Css(selector)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Types keys to the element that has the focus.
    pub(crate) async fn keys(&self, keys: &str) {
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    pub(crate) async fn forget_cookies(&self) {
        self.client.delete_all_cookies().await.unwrap();
    }

    /// Saves a picture of the window.
    pub(crate) async fn picture(&self, name: &str) {
        // A failure may have ended the browser; the failure itself has been reported.
        if let Ok(picture) = self.client.screenshot().await {
            std::fs::write(self.pictures.join(format!("{name}.png")), picture).unwrap();
        }
    }

    /// Checks that the console has no error and that no request left the origin since the last check.
    pub(crate) async fn assert_clean(&self, origin: &str) {
        let console = self.chrome("se/log", json!({ "type": "browser" })).await;
        let errors: Vec<_> =
            entries(&console).filter(|entry| entry["level"] == "SEVERE" && !is_expected(entry)).collect();
        assert!(errors.is_empty(), "errors in the console: {errors:#?}");
        let network = self.chrome("se/log", json!({ "type": "performance" })).await;
        let left: Vec<_> =
            entries(&network).filter_map(requested).filter(|url| !stays(url, origin)).collect();
        assert!(left.is_empty(), "requests left the origin: {left:#?}");
    }

    /// Forgets the logs so far: a check provoked errors or requests on purpose.
    pub(crate) async fn forget_logs(&self) {
        self.chrome("se/log", json!({ "type": "browser" })).await;
        self.chrome("se/log", json!({ "type": "performance" })).await;
    }
}

/// Port that chromedriver has chosen, once its log names it.
async fn driver_port() -> u16 {
    let scratch = std::env::var("ROADSHOW_BROWSER_SCRATCH").expect("tests/browser/run sets it");
    let log = PathBuf::from(scratch).join("driver.log");
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let port = text.split("started successfully on port ").nth(1).and_then(|rest| rest.split('.').next());
        if let Some(port) = port.and_then(|port| port.parse().ok()) {
            return port;
        }
        assert!(begun.elapsed() < WAIT, "chromedriver did not start: {text}");
        tokio::time::sleep(POLL).await;
    }
}

fn entries(log: &Value) -> impl Iterator<Item = &Value> {
    log.as_array().into_iter().flatten()
}

/// The browser itself reports each reply with an error status, which the log-in and refused actions have.
fn is_expected(entry: &Value) -> bool {
    let message = entry["message"].as_str().unwrap_or_default();
    entry["source"] == "network" && message.contains("status of 401")
}

/// Address that an entry of the performance log requests.
fn requested(entry: &Value) -> Option<String> {
    let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
    let message = &message["message"];
    let is_request = message["method"] == "Network.requestWillBeSent";
    is_request.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned))?
}

fn stays(url: &str, origin: &str) -> bool {
    url.strip_prefix(origin).is_some_and(|rest| rest.starts_with('/')) || url.starts_with("data:")
}
