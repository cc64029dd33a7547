//! Imports between the parts of one module, compared with a separate table.

use super::source::Code;
use super::{CRATE_ROOTS, below_root, is_test_file, module_path};

/// A module whose parts import each other by a table.
pub(crate) struct Parts {
    /// The module.
    module: &'static [&'static str],
    /// Each part with those that it may import. A part may always import itself.
    table: &'static [(&'static str, &'static [&'static str])],
    /// Parts that put the others together: they may import all of them, and none imports them.
    facade: &'static [&'static str],
}

/// The modules with such a table; `docs/architecture.md` shows that of `cluster`.
pub(crate) const ALL: &[Parts] = &[
    Parts {
        module: &["cluster"],
        table: &[
            ("model", &[]),
            ("listing", &["model"]),
            ("host_info", &["model"]),
            ("executable", &[]),
            ("backoff", &[]),
            ("dial", &[]),
            ("io_thread", &[]),
            ("open_files", &[]),
            ("protocol", &["executable", "model"]),
            ("output", &["model", "protocol"]),
            ("security", &["dial", "model", "protocol"]),
            ("error", &["executable", "security"]),
            ("worker_info", &[]),
            ("control_plane", &["listing", "model"]),
            ("control_service", &["control_plane", "listing", "model", "protocol"]),
            ("membership", &["control_plane", "control_service", "model", "protocol"]),
            ("event_queue", &["model", "protocol"]),
            ("worker_actors", &["model", "protocol"]),
            ("authorization", &["control_service", "model", "protocol", "security"]),
            ("node_lease", &["model"]),
            ("holder", &["authorization"]),
            (
                "head_core",
                &["authorization", "control_plane", "control_service", "model", "protocol", "security"],
            ),
            ("launch", &["error", "host_info", "protocol"]),
            (
                "worker",
                &[
                    "authorization",
                    "error",
                    "host_info",
                    "io_thread",
                    "launch",
                    "membership",
                    "model",
                    "protocol",
                ],
            ),
            (
                "local",
                &[
                    "control_plane",
                    "control_service",
                    "error",
                    "holder",
                    "host_info",
                    "io_thread",
                    "launch",
                    "membership",
                    "model",
                    "output",
                    "protocol",
                    "worker",
                    "worker_info",
                ],
            ),
            (
                "driver",
                &[
                    "authorization",
                    "backoff",
                    "control_plane",
                    "control_service",
                    "error",
                    "executable",
                    "host_info",
                    "io_thread",
                    "launch",
                    "membership",
                    "model",
                    "output",
                    "protocol",
                    "security",
                    "worker_info",
                ],
            ),
            (
                "sim",
                &[
                    "authorization",
                    "backoff",
                    "control_plane",
                    "control_service",
                    "event_queue",
                    "executable",
                    "head_core",
                    "holder",
                    "membership",
                    "model",
                    "node_lease",
                    "protocol",
                    "worker",
                    "worker_actors",
                ],
            ),
            ("admin", &["executable", "launch", "listing", "model", "output", "protocol", "security"]),
            (
                "daemon",
                &[
                    "admin",
                    "authorization",
                    "backoff",
                    "control_plane",
                    "control_service",
                    "event_queue",
                    "executable",
                    "head_core",
                    "holder",
                    "host_info",
                    "launch",
                    "listing",
                    "model",
                    "node_lease",
                    "open_files",
                    "output",
                    "protocol",
                    "security",
                    "worker_actors",
                ],
            ),
        ],
        facade: &["builder"],
    },
    Parts {
        module: &["cluster", "daemon"],
        table: &[
            ("error", &[]),
            ("handoff", &[]),
            ("job_users", &[]),
            ("logs", &[]),
            ("removal", &[]),
            ("signals", &["error"]),
            ("token_rpc_server", &[]),
            ("host", &["error"]),
            ("options", &["job_users"]),
            ("head", &["error", "handoff", "host", "logs", "options", "signals", "token_rpc_server"]),
            (
                "agent",
                &[
                    "error",
                    "handoff",
                    "host",
                    "job_users",
                    "logs",
                    "options",
                    "removal",
                    "signals",
                    "token_rpc_server",
                ],
            ),
        ],
        facade: &[],
    },
];

impl Parts {
    fn may(&self, part: &str) -> Option<&'static [&'static str]> {
        self.table.iter().find(|(name, _)| *name == part).map(|(_, may)| *may)
    }

    /// Imports of one file that the table does not allow.
    pub(crate) fn complaints(&self, file: &str, source: &str) -> Vec<String> {
        let path = module_path(file);
        let Some(own) = self.part_of(&path) else { return Vec::new() };
        // Tests and fixtures may use every part.
        if is_test_file(file) || self.facade.contains(&own) || own.starts_with("test_") {
            return Vec::new();
        }
        let Some(may) = self.may(own) else {
            return vec![format!("{file}: the table of `{}` has no `{own}`", self.module.join("/"))];
        };
        let mut complaints = Vec::new();
        for named in Code::of(source).without_tests().paths(CRATE_ROOTS) {
            let below = below_root(&path, &named.segments);
            // A name that the module itself re-exports hides which part it belongs to.
            let Some(part) = self.part_of(&below) else { continue };
            let is_fixture = part.starts_with("test_");
            if part != own && !is_fixture && !may.contains(&part) {
                let path = named.segments.join("::");
                complaints.push(format!("{file}:{}: `{own}` may not use `{path}`", named.line));
            }
        }
        complaints
    }

    fn part_of<'a>(&self, path: &'a [String]) -> Option<&'a str> {
        let rest =
            path.strip_prefix(&self.module.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..])?;
        // Deeper modules belong to the part, so only the first name matters.
        rest.first().map(String::as_str)
    }

    /// Differences between the table and the page's one, with `part` and `imports` as columns.
    pub(crate) fn page_complaints(&self, page: &str) -> Vec<String> {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
        let rows = page.lines().skip_while(|line| !line.starts_with("| part |")).skip(2);
        let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).map(cells).collect();
        let mut complaints = Vec::new();
        for (part, may) in self.table {
            // The page may have its rows in any order.
            let shown = rows.iter().find(|row| row.get(1).is_some_and(|name| name == part));
            let shown = shown.and_then(|row| row.get(3)).map(|list| {
                let mut names: Vec<_> =
                    list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
                names.sort_unstable();
                names.join(", ")
            });
            if shown.as_deref() != Some(may.join(", ").as_str()) {
                complaints.push(format!("docs/architecture.md: `{part}` imports {may:?}, not {shown:?}"));
            }
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, complain, read, rust_files};

    #[test]
    fn parts_import_only_what_their_table_allows() {
        let files = rust_files("src");
        complain(ALL.iter().flat_map(|parts| {
            files.iter().flat_map(|file| parts.complaints(file, &read(file))).collect::<Vec<_>>()
        }));
    }

    #[test]
    fn the_architecture_page_shows_the_parts_of_cluster() {
        complain(ALL[0].page_complaints(&read("docs/architecture.md")));
    }

    #[test]
    fn the_parts_check_sees_wrong_imports_and_unknown_parts() {
        let cluster = |file: &str, source: &str, expected| check(&ALL[0].complaints(file, source), expected);
        cluster("src/cluster/local/mod.rs", "use crate::cluster::driver::Joined;", 1);
        cluster("src/cluster/local/mod.rs", "use super::{daemon, worker::hosts};", 1);
        cluster("src/cluster/local/output.rs", "use super::super::admin::Admin;\nuse super::Worker;", 1);
        cluster("src/cluster/builder.rs", "use super::{driver, local};", 0);
        cluster("src/cluster/mod.rs", "use driver::RemoteCluster;\nuse crate::cluster::local;", 0);
        cluster("src/cluster/unheard_of.rs", "use super::model;", 1);
        cluster("src/wire/mod.rs", "use crate::cluster::driver;", 0);

        let daemon = |file: &str, source: &str, expected| check(&ALL[1].complaints(file, source), expected);
        daemon("src/cluster/daemon/head/mod.rs", "use crate::cluster::daemon::agent::Agent;", 1);
        daemon("src/cluster/daemon/agent/mod.rs", "use super::head;\nuse super::error::failed;", 1);
        daemon(
            "src/cluster/daemon/agent/join.rs",
            "#[cfg(test)]\nmod tests {\n use super::super::super::head;\n}",
            0,
        );
    }

    #[test]
    fn the_page_check_sees_a_part_that_differs() {
        let rows = |rows: &str| format!("| part | owns | imports |\n|---|---|---|\n{rows}\n");
        let table = &Parts { module: &["cluster"], table: &[("a", &[]), ("b", &["a"])], facade: &[] };
        check(&table.page_complaints(&rows("| `a` | x | |\n| `b` | y | a |")), 0);
        check(&table.page_complaints(&rows("| `a` | x | b |")), 2);
        check(&table.page_complaints("# Map"), 2);
    }
}
