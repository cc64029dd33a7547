//! Texts of errors: no text repeats that of its `source()`.

use super::{complain, read, root_names, rust_files};

/// Traits, and types of the command-line program: no value of these is shared by threads.
const NO_TYPES: &[&str] = &[
    "Decide",
    "Durable",
    "DurableState",
    "HandledBy",
    "Handles",
    "RemoteActor",
    "RemoteData",
    "RemoteMessage",
    "TaskFn",
    "Spawn",
    "ControlPlaneBench",
];

#[test]
fn no_error_repeats_its_source() {
    complain(rust_files("src").iter().flat_map(|file| error_complaints(file, &read(file))));
}

#[test]
fn an_error_that_repeats_its_source_is_found() {
    let of = |source: &str| error_complaints("a.rs", source).len();
    assert_eq!(of("#[error(\"no link: {0}\")]\n    Io(#[from] io::Error),"), 1);
    assert_eq!(of("#[error(\"no link: {source}\")]\n    Io {\n        source: io::Error,\n    },"), 1);
    assert_eq!(of("#[error(\"no link\")]\n    Io(#[from] io::Error),"), 0);
    assert_eq!(of("#[error(transparent)]\n    Io(#[from] io::Error),"), 0);
    assert_eq!(of("#[error(\"no link: {0}\")]\n    Io(String),\n    Other(#[from] io::Error),"), 0);
}

#[test]
fn every_public_type_is_checked_to_be_shared_by_threads() {
    let checks = read("tests/api/threads.rs");
    let root = read("src/lib.rs");
    // Names after the prelude are listed before it already, or are not for programs.
    let root = root.split("pub mod prelude").next().unwrap_or_default();
    let names = root_names(root).into_iter().map(|(name, _)| name);
    let types =
        names.filter(|name| name.starts_with(char::is_uppercase) && !NO_TYPES.contains(&name.as_str()));
    let missing = types.filter(|name| !is_checked(&checks, name));
    complain(missing.map(|name| format!("tests/api/threads.rs does not name {name}")));
}

/// Tests if a check names the type itself, and not a longer name that starts with it.
fn is_checked(checks: &str, name: &str) -> bool {
    ["send_and_sync::<", " send::<"].iter().any(|check| {
        let check = format!("{check}{name}");
        checks.split(&check).skip(1).any(|rest| rest.starts_with(['>', '<']))
    })
}

#[test]
fn a_longer_name_or_another_use_is_no_check_of_a_type() {
    let checks = " send_and_sync::<ClusterRef>(); send::<Request<u8>>(); any::<Host>().stop();";
    let is_checked = |name| is_checked(checks, name);
    assert!(is_checked("ClusterRef") && is_checked("Request"));
    assert!(!is_checked("Cluster") && !is_checked("Host"));
}

fn error_complaints(file: &str, source: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for declared in source.split("#[error(").skip(1) {
        let Some((text, rest)) = declared.split_once(")]") else { continue };
        // The text of the variant or of the struct ends here.
        let is_end =
            |line: &&str| matches!(line.trim(), "}," | "}") || line.ends_with("),") || line.ends_with(';');
        let end = rest.lines().position(|line| is_end(&line)).unwrap_or(usize::MAX);
        let variant = rest.lines().take(end.saturating_add(1)).collect::<Vec<_>>().join("\n");
        let has_source = ["#[from]", "#[source]", " source:"].iter().any(|mark| variant.contains(mark));
        if has_source && ["{0", "{source"].iter().any(|shown| text.contains(shown)) {
            complaints.push(format!("{file}: an error repeats its source: {text}"));
        }
    }
    complaints
}
