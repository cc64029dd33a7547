//! Static files of the page, embedded in the executable.

use std::sync::LazyLock;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::cluster::daemon::head::dashboard::reply::ApiError;

/// Embedded file.
struct Asset {
    path: &'static str,
    bytes: &'static [u8],
}

/// Embeds files of the folder `assets`.
macro_rules! embed {
    ($($path:literal),* $(,)?) => {
        &[$(Asset { path: $path, bytes: include_bytes!(concat!("../assets/", $path)) }),*]
    };
}

/// Files of the page. A test compares the table with the folder.
const ASSETS: &[Asset] = embed![
    "actions.js",
    "api.js",
    "app.js",
    "chart.js",
    "clock.js",
    "columns.js",
    "event_list.js",
    "format.js",
    "help.js",
    "html.js",
    "index.html",
    "log_choice.js",
    "log_text.js",
    "log_view.js",
    "pages/actor.js",
    "pages/actors.js",
    "pages/cluster.js",
    "pages/events.js",
    "pages/index.js",
    "pages/job.js",
    "pages/jobs.js",
    "pages/login.js",
    "pages/logs.js",
    "pages/metrics.js",
    "pages/node.js",
    "pages/overview.js",
    "pages/tasks.js",
    "pages/worker.js",
    "parts.css",
    "parts.js",
    "progress.js",
    "rates.js",
    "router.js",
    "routes.js",
    "section.js",
    "series.js",
    "shell.js",
    "shortcuts.js",
    "store.js",
    "stream.js",
    "style.css",
    "table.js",
    "task_groups.js",
    "theme.js",
    "theme_choice.js",
    "timeline.js",
    "trace.js",
    "vendor/LICENSE-htm",
    "vendor/LICENSE-preact",
    "vendor/LICENSE-uplot",
    "vendor/README.md",
    "vendor/hooks.js",
    "vendor/htm.js",
    "vendor/preact.js",
    "vendor/uplot.css",
    "vendor/uplot.js",
    "view.js",
];

/// Entity tags of the files, in their order.
static TAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| ASSETS.iter().map(|asset| entity_tag(asset.bytes)).collect());

pub(super) async fn index(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file(&request, "index.html")
}

pub(super) async fn asset(request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, ApiError> {
    file(&request, &path)
}

fn file(request: &HttpRequest, path: &str) -> Result<HttpResponse, ApiError> {
    let Some((asset, tag)) = ASSETS.iter().zip(TAGS.iter()).find(|(asset, _)| asset.path == path) else {
        let text = "there is no such file; reload the page";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_path", text));
    };
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    // Browsers ask each time, so that a new version of the head has its new page; the tag saves the transfer.
    response.insert_header((header::CACHE_CONTROL, "no-cache")).insert_header((header::ETAG, tag.as_str()));
    Ok(match is_known {
        true => response.finish(),
        false => response.insert_header((header::CONTENT_TYPE, content_type(path))).body(asset.bytes),
    })
}

fn entity_tag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..16])
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json" | "webmanifest") => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn files(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files(&path, root, found),
                false => drop(found.insert(path.strip_prefix(root).unwrap().display().to_string())),
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/daemon/head/dashboard/assets");
        let mut found = BTreeSet::new();
        files(&root, &root, &mut found);
        let embedded: BTreeSet<_> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(embedded, found, "ASSETS differs from the folder");
    }

    #[test]
    fn entity_tags_differ_and_scripts_have_their_type() {
        assert_ne!(entity_tag(b"a"), entity_tag(b"b"));
        assert!(content_type("pages/app.js").starts_with("text/javascript"));
        assert!(content_type("LICENSE-htm").starts_with("text/plain"));
    }
}
