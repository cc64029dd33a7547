//! The texts of errors: what `source()` gives again does not stand in them.

use super::{complain, read, root_names, rust_files};

/// Traits, and what only the command has: no values of these are shared.
const NO_TYPES: &[&str] = &[
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
fn an_error_that_repeats_its_source_is_complained_of() {
    let of = |source: &str| error_complaints("a.rs", source).len();
    assert_eq!(of("#[error(\"no link: {0}\")]\n    Io(#[from] io::Error),"), 1);
    assert_eq!(of("#[error(\"no link: {source}\")]\n    Io {\n        source: io::Error,\n    },"), 1);
    assert_eq!(of("#[error(\"no link\")]\n    Io(#[from] io::Error),"), 0);
    assert_eq!(of("#[error(transparent)]\n    Io(#[from] io::Error),"), 0);
    assert_eq!(of("#[error(\"no link: {0}\")]\n    Io(String),\n    Other(#[from] io::Error),"), 0);
}

#[test]
fn every_public_type_is_held_to_be_shared_by_threads() {
    let held = read("tests/api/threads.rs");
    let root = read("src/lib.rs");
    // What comes behind is named there already, or no program's.
    let root = root.split("pub mod prelude").next().unwrap_or_default();
    let names = root_names(root).into_iter().map(|(name, _)| name);
    let types =
        names.filter(|name| name.starts_with(char::is_uppercase) && !NO_TYPES.contains(&name.as_str()));
    let missing = types.filter(|name| !is_held(&held, name));
    complain(missing.map(|name| format!("tests/api/threads.rs does not name {name}")));
}

/// Whether a type is what one of the checks is about: its name, and no longer one that begins with it.
fn is_held(held: &str, name: &str) -> bool {
    ["send_and_sync::<", " send::<"].iter().any(|check| {
        let check = format!("{check}{name}");
        held.split(&check).skip(1).any(|rest| rest.starts_with(['>', '<']))
    })
}

#[test]
fn a_type_is_not_held_by_a_longer_name_nor_by_another_use() {
    let held = " send_and_sync::<ClusterRef>(); send::<Request<u8>>(); any::<Host>().stop();";
    let is_held = |name| is_held(held, name);
    assert!(is_held("ClusterRef") && is_held("Request"));
    assert!(!is_held("Cluster") && !is_held("Host"));
}

fn error_complaints(file: &str, source: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for declared in source.split("#[error(").skip(1) {
        let Some((text, rest)) = declared.split_once(")]") else { continue };
        // Up to the end of the variant, or of the struct.
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
