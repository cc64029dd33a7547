//! Pure functions of the page, imported by the browser as the page imports them; and the vendored files.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Site;

/// Calls of functions, each with the value that it has to return.
fn calls() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("format", "bytes(0)", json!("0 B")),
        ("format", "bytes(1023)", json!("1 KiB")),
        ("format", "bytes(1536)", json!("1.5 KiB")),
        ("format", "bytes(1024 ** 3 * 23.54)", json!("23.5 GiB")),
        ("format", "bytes(null)", json!("–")),
        ("format", "bytesOf(1024 ** 3 * 0.86, 1024 ** 3 * 7.56)", json!("0.86 / 7.56 GiB")),
        ("format", "bytesRate(10312)", json!("10.1 KiB/s")),
        ("format", "count(10000)", json!("10,000")),
        ("format", "counted(1, 'node')", json!("1 node")),
        ("format", "counted(0, 'node')", json!("0 nodes")),
        ("format", "compact(9999)", json!("9,999")),
        ("format", "compact(12345)", json!("12.3k")),
        ("format", "compact(4560000)", json!("4.56M")),
        ("format", "rate(0.25)", json!("0.25/s")),
        ("format", "percent(0.04)", json!("0 %")),
        ("format", "percent(9.96)", json!("10 %")),
        ("format", "percent(NaN)", json!("–")),
        ("format", "share(1, 0)", Value::Null),
        ("format", "share(3, 2)", json!(100)),
        ("format", "micros(850)", json!("850 µs")),
        ("format", "micros(1200)", json!("1.2 ms")),
        ("format", "micros(999600)", json!("1 s")),
        ("format", "duration(0)", json!("0 s")),
        ("format", "duration(999)", json!("999 ms")),
        ("format", "duration(4320000)", json!("1 h 12 min")),
        ("format", "duration(86400000)", json!("1 d")),
        ("format", "relative(1000, 1500)", json!("now")),
        ("format", "relative(1000, 181000)", json!("3 min ago")),
        // A clock of the head that is behind shows no time to come.
        ("format", "relative(5000, 1000)", json!("now")),
        ("format", "shortId('000000000000106a')", json!("106a")),
        ("format", "shortId('0000')", json!("0")),
        ("format", "shortNode('defeb0c1a2b3c4d5')", json!("defeb0c1")),
        ("format", "shortName('a::b::Node<alloc::string::String>')", json!("Node<String>")),
        ("format", "words('PENDING_CREATION')", json!("Pending creation")),
        ("format", "tone('A_STATE_OF_A_LATER_VERSION')", json!("off")),
        ("format", "codeSpans('run `a b` now')", json!([["run ", false], ["a b", true], [" now", false]])),
        ("format", "codeSpans('a ` b')", json!([["a ` b", false]])),
        (
            "format",
            "resourcesUsed({ cpu: 4, memory: 1024 ** 3 }, { cpu: 2.5, memory: 0 })",
            json!(["1.5 / 4 CPU", "1 / 1 GiB memory"]),
        ),
        ("rates", "perSecond(10, 30, 2000)", json!(10)),
        ("rates", "perSecond(10, 5, 1000)", Value::Null),
        ("rates", "perSecond(undefined, 5, 1000)", Value::Null),
        ("routes", "parseRoute('').page", json!("overview")),
        (
            "routes",
            "parseRoute('#/jobs/00000002')",
            json!({ "page": "job", "section": "jobs", "id": "00000002", "query": {} }),
        ),
        (
            "routes",
            "parseRoute('#/actors?state=DEAD&search=a%26b').query",
            json!({ "state": "DEAD", "search": "a&b" }),
        ),
        ("routes", "parseRoute('#/jobs/%').id", json!("%")),
        ("routes", "parseRoute('#/nothing').page", json!("unknown")),
        ("routes", "parseRoute(actorHref('1/2?3')).id", json!("1/2?3")),
        (
            "routes",
            "withQuery(parseRoute('#/actors?page=3&state=DEAD'), { page: null })",
            json!("#/actors?state=DEAD"),
        ),
        (
            "routes",
            "listPath('actors', { filters: { class: 'a::B', name: '' }, sort: '-handled', limit: 50, offset: 0 })",
            json!("/api/v0/actors?filter=class%3Da%3A%3AB&sort=-handled&limit=50"),
        ),
        ("routes", "logPath('ab', 'x/y.log', { tail: 5 })", json!("/api/v0/logs/ab/x%2Fy.log?tail=5")),
        ("log_text", "plainLine('\\u001b[32mok\\u001b[0m\\r')", json!("ok")),
        ("log_text", "plainLine('10 %\\r20 %\\r100 %')", json!("100 %")),
        // A bell, and the mark that would show the rest of a line backwards.
        ("log_text", "plainLine('a\\u0007b\\u202ec')", json!("a\u{2407}b\u{fffd}c")),
        ("log_text", "appendText(appendText(emptyLog(), 'one\\ntw'), 'o\\n').lines", json!(["one", "two"])),
        ("log_text", "appendText(emptyLog(), 'x\\n'.repeat(6000)).lines.length", json!(5000)),
        ("log_text", "appendText(emptyLog(), 'x\\n'.repeat(6000)).dropped", json!(1000)),
        (
            "log_text",
            "matchingLines(['Error a', 'b', 'an error'], 'ERROR')",
            json!([[0, "Error a"], [2, "an error"]]),
        ),
        ("log_text", "marked('aXbx', 'x')", json!([["a", false], ["X", true], ["b", false], ["x", true]])),
        ("trace", "axisOf(10e6, 8).map(mark => mark[1])", json!(["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"])),
        ("trace", "axisOf(350000, 8).at(-1)", json!([350_000, "0.35 s"])),
        (
            "trace",
            "runsOf([{ name: 'a', startUs: 0, endUs: 50 }, { name: 'b', startUs: 50, endUs: 100 }], 0, 100, 4)",
            json!([[0, 2, "a"], [2, 4, "b"]]),
        ),
        // Thousands of short spans are at most as many shapes as there are columns.
        (
            "trace",
            "runsOf(Array.from({ length: 9999 }, (_, at) => ({ name: String(at), startUs: at, endUs: at })), 0, 9999, 50).length",
            json!(50),
        ),
        // Spans beyond the drawing are at its ends.
        (
            "trace",
            "runsOf([{ name: 'a', startUs: -500, endUs: -400 }, { name: 'b', startUs: 400, endUs: 500 }], 0, 100, 4)",
            json!([[0, 1, "a"], [3, 4, "b"]]),
        ),
        // Spans of the job's life, of a clock that is half a second behind, and of two that are far off.
        (
            "trace",
            "[[5.5e6], [4.5e6], [1], [3.6e9]].map(starts => readTrace({ otherData: { started_ms: 5000 }, traceEvents: \
             [{ ph: 'X', cat: 'job', ts: 5e6, dur: 2e6 }, ...starts.map(ts => ({ ph: 'X', cat: 'task', ts, dur: 10 }))] \
             })).map(trace => [trace.startUs / 1e5, trace.endUs / 1e5])",
            json!([[50, 70], [45, 70], [40, 70], [50, 80]]),
        ),
        ("trace", "spanAt([{ startUs: 5, endUs: 6 }, { startUs: 20, endUs: 30 }], 17, 4).startUs", json!(20)),
        ("trace", "spanAt([{ startUs: 5, endUs: 6 }], 17, 4)", Value::Null),
        ("series", "aligned([1, null, 3], [20, 30, 40], [10, 20, 30])", json!([null, 1, null])),
        ("series", "aligned([1, 2, 3], [10, 20, 30], [21, 31, 41])", json!([2, 3, null])),
        (
            "task_groups",
            "progressParts(byFunction([{ name: 'f', finished: 3, failed: 1, running: 0, queued: 0 }])[0]).map(part => part.share)",
            json!([75, 25, 0, 0]),
        ),
    ]
}

/// Two samples of a counter, of a counter that was reset, and a row that was loaded twice between two reports.
const RATES: &str = "import('/assets/rates.js').then(({ Rates }) => {
    const rates = new Rates(['handled']);
    const seen = [];
    for (const [at, handled] of [[1000, 10], [2000, 30], [2000, 30], [3000, 5]]) {
        rates.update([['a', at, { handled }]]);
        seen.push(rates.of('a', 'handled'));
    }
    rates.update([]);
    return [...seen, rates.of('a', 'handled')];
})";

pub(crate) async fn functions_of_the_page_are_right(site: Arc<Site>) {
    for (module, call, expected) in calls() {
        let name = call.split(['(', '[']).next().unwrap_or_default();
        let script = format!(
            "import('/assets/{module}.js').then(module => {{ \
             const {{ {names} }} = module; const value = {call}; \
             return value === undefined ? 'undefined' : value; }})",
            names = exports(module, name),
        );
        assert_eq!(site.browser.promised(&script).await, expected, "{module}: {call}");
    }
    assert_eq!(site.browser.promised(RATES).await, json!([null, 20, 20, null, null]));
}

/// Names that the calls of a module use.
fn exports(module: &str, name: &str) -> String {
    match module {
        "routes" => "parseRoute, actorHref, withQuery, listPath, logPath".to_owned(),
        "log_text" => "plainLine, appendText, emptyLog, matchingLines, marked".to_owned(),
        "trace" => "axisOf, readTrace, runsOf, spanAt".to_owned(),
        "task_groups" => "progressParts, byFunction".to_owned(),
        _ => name.to_owned(),
    }
}

pub(crate) async fn index_names_every_module(site: Arc<Site>) {
    // Modules that are not named load one after another, each when its importer has been read.
    let missing = "(() => { \
        const named = [...document.querySelectorAll('link[rel=modulepreload]')].map(link => link.href); \
        const loaded = performance.getEntriesByType('resource').map(entry => entry.name).filter(name => name.endsWith('.js')); \
        return loaded.filter(name => !named.includes(name) && !name.endsWith('/theme.js')); })()";
    site.browser.reload().await;
    site.browser.until("!!document.querySelector('.pages')").await;
    assert_eq!(site.browser.value(missing).await, json!([]));
}

/// Table of the vendored files, with their digests.
const TABLE: &str = include_str!("../../../src/cluster/daemon/head/dashboard/assets/vendor/README.md");

pub(crate) async fn vendored_files_match_their_table(site: Arc<Site>) {
    let rows = TABLE.lines().filter(|line| line.starts_with("| `"));
    let mut checked = 0;
    for row in rows {
        let codes: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        let [file, .., digest] = &codes[..] else { panic!("no file and digest in {row}") };
        assert_eq!(digest.len(), 64, "{row}");
        let script = format!(
            "fetch('/assets/vendor/{file}').then(reply => reply.arrayBuffer()) \
             .then(bytes => crypto.subtle.digest('SHA-256', bytes)) \
             .then(hash => [...new Uint8Array(hash)].map(byte => byte.toString(16).padStart(2, '0')).join(''))"
        );
        assert_eq!(site.browser.promised(&script).await, *digest, "{file}");
        checked += 1;
    }
    assert_eq!(checked, 5);
}
