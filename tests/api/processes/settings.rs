//! Settings of a cluster apply to its workers, or are rejected.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use actix::System;
use roadshow::Memory;
use roadshow::prelude::*;
use roadshow::{ClusterError, InProcess};

use super::driver::{Driver, report};
use super::fixtures::{UseStack, Worker, open_files_max, use_stack_in_pool, use_stack_in_turn, variable};

const MIB: usize = 1 << 20;

/// Bytes that are not UTF-8.
const CAFE: &[u8] = b"caf\xe9";

/// Uses this many bytes of the stack in a handler, in a task, and in a task of the pool.
async fn use_stacks(cluster: &Cluster, bytes: usize) {
    let actor = cluster.spawn::<Worker>(()).await.unwrap();
    assert!(actor.send(UseStack(bytes)).await.unwrap() >= bytes);
    assert!(cluster.run(use_stack_in_turn::task(bytes)).await.unwrap() >= bytes);
    assert!(cluster.run(use_stack_in_pool::task(bytes)).await.unwrap() >= bytes);
}

/// Driver: reports the limits of its workers.
pub(super) async fn compare(how: &str) {
    match how.split_once(' ').unwrap_or((how, "")) {
        ("stack", bytes) => {
            let cluster = Cluster::init().await.unwrap();
            use_stacks(&cluster, bytes.parse().unwrap()).await;
            cluster.shutdown().await.unwrap();
            report("the stacks are large enough");
        }
        ("files", _) => match Cluster::init().await {
            Ok(cluster) => {
                let workers = cluster.workers().len();
                let ran = cluster.run_all((0..workers).map(|_| open_files_max::task())).await.unwrap();
                cluster.shutdown().await.unwrap();
                report(format_args!(
                    "{workers} workers, {:?} files at least",
                    ran.into_iter().min().unwrap()
                ));
            }
            Err(error) => report(format_args!("{error:?}")),
        },
        _ => panic!("no such comparison: {how}"),
    }
}

/// Returns the report of a driver that is started under limits of the shell.
#[track_caller]
fn report_under(limits: &str, role: &str, variables: &[(&str, &str)]) -> String {
    // `/proc/self/exe` would name the shell in its own process.
    let driver = Driver::command_of(std::env::current_exe().unwrap(), role);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]).arg(driver.get_program());
    command.args(driver.get_args());
    for (name, value) in driver.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env_remove("RUST_MIN_STACK").envs(variables.iter().copied());
    command.env(
        "ROADSHOW_WORKERS",
        variables.iter().find(|(it, _)| *it == "ROADSHOW_WORKERS").map_or("1", |it| it.1),
    );
    let mut driver = Driver::start(command);
    let report = driver.next_report();
    assert!(driver.wait().success());
    report
}

#[test]
fn handlers_and_tasks_have_the_stack_of_main() {
    System::new().block_on(async {
        for cluster in [Cluster::local(1).await.unwrap(), Cluster::in_process(1).await.unwrap()] {
            use_stacks(&cluster, 7 * MIB).await;
            cluster.shutdown().await.unwrap();
        }
    });
    let role = format!("compare stack {}", 40 * MIB);
    assert_eq!(report_under("ulimit -Ss 49152", &role, &[]), "the stacks are large enough");
}

#[test]
fn program_and_environment_can_set_the_stack_size() {
    System::new().block_on(async {
        for builder in [Cluster::builder().local(), Cluster::builder().in_process(InProcess::Tcp)] {
            let cluster = builder.workers(1).stack_bytes(32 * MIB).start().await.unwrap();
            use_stacks(&cluster, 24 * MIB).await;
            cluster.shutdown().await.unwrap();
        }
        for bytes in [0, usize::MAX] {
            let rejected = Cluster::builder().local().stack_bytes(bytes).start().await.unwrap_err();
            assert!(matches!(rejected, ClusterError::StackSize { .. }), "{rejected}");
        }
    });
    let (role, bytes) = (format!("compare stack {}", 24 * MIB), (32 * MIB).to_string());
    let set = [("ROADSHOW_STACK_BYTES", bytes.as_str())];
    assert_eq!(report_under("true", &role, &set), "the stacks are large enough");
}

#[test]
fn many_workers_start_under_a_low_limit_of_open_files() {
    let set = [("ROADSHOW_WORKERS", "40")];
    let report = report_under("ulimit -Sn 128", "compare files", &set);
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    assert_eq!(report, format!("40 workers, {hard:?} files at least"));
}

#[test]
fn error_names_the_limit_of_open_files_that_was_reached() {
    let set = [("ROADSHOW_WORKERS", "40")];
    let report = report_under("ulimit -n 48", "compare files", &set);
    assert!(report.contains("this process may have 48 open") && report.contains("ulimit -Hn"), "{report}");
}

#[test]
fn worker_processes_have_the_variables_that_the_program_gives_them() {
    System::new().block_on(async {
        let builder = Cluster::builder().local().workers(1);
        let builder = builder.env("ROADSHOW_TEST_A", "a").env("ROADSHOW_TEST_B", OsStr::from_bytes(CAFE));
        let cluster = builder.env("ROADSHOW_TEST_A", "later").start().await.unwrap();
        let mut found = Vec::new();
        for name in ["ROADSHOW_TEST_A", "ROADSHOW_TEST_B", "ROADSHOW_TEST_C", "PATH"] {
            found.push(cluster.run(variable::task(name.to_owned())).await.unwrap());
        }
        let path = std::env::var_os("PATH").map(|path| path.as_bytes().to_vec());
        assert_eq!(found, [Some(b"later".to_vec()), Some(CAFE.to_vec()), None, path]);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn conflicting_settings_are_rejected_with_the_remedy() {
    let memory = || InProcess::Memory(Memory::new(0));
    let builders = [
        Cluster::builder().address("127.0.0.1:1").local(),
        Cluster::builder().in_process(memory()).address("127.0.0.1:1"),
        Cluster::builder().address("127.0.0.1:1").workers(2),
        Cluster::builder().in_process(memory()).env("A", "b"),
        Cluster::builder().in_process(memory()).local(),
    ];
    for builder in builders {
        let shown = format!("{builder:?}");
        let rejected = System::new().block_on(builder.start()).unwrap_err();
        assert!(matches!(rejected, ClusterError::Conflict { .. }), "{shown}: {rejected}");
        assert!(rejected.to_string().contains("exclude each other: "), "{rejected}");
    }
}

#[test]
fn invalid_and_reserved_variables_are_rejected() {
    let with_nul = OsString::from("a\0b");
    for (name, value) in [
        ("", OsString::new()),
        ("A=B", OsString::new()),
        ("A", with_nul),
        ("ROADSHOW_WORKER", "1".into()),
        ("ROADSHOW_STARTED_BY", "1".into()),
        ("ROADSHOW_TOKEN", "rs1_aaaa".into()),
    ] {
        let builder = Cluster::builder().local().workers(1).env(name, value);
        let rejected = System::new().block_on(builder.start()).unwrap_err();
        assert!(matches!(rejected, ClusterError::Variable { .. }), "{name:?}: {rejected}");
    }
}

#[test]
fn variable_that_is_not_utf8_is_rejected_by_name() {
    for name in [
        "ROADSHOW_ADDRESS",
        "ROADSHOW_WORKERS",
        "ROADSHOW_STACK_BYTES",
        "ROADSHOW_LOG",
        "ROADSHOW_DEDUP_LOGS",
    ] {
        let mut command = Driver::command("start");
        command.env(name, OsStr::from_bytes(CAFE));
        let mut driver = Driver::start(command);
        let report = driver.next_report();
        assert!(report.starts_with(name), "{report}");
        assert!(driver.wait().success());
    }
    for name in ["ROADSHOW_TOKEN", "ROADSHOW_TOKEN_FILE"] {
        let mut command = Driver::command("start");
        command.env("ROADSHOW_ADDRESS", "127.0.0.1:1").env(name, OsStr::from_bytes(CAFE));
        let mut driver = Driver::start(command);
        let report = driver.next_report();
        let from = if name == "ROADSHOW_TOKEN" { name } else { "caf" };
        assert!(report.starts_with(&format!("the token in {from}")), "{report}");
        assert!(driver.wait().success());
    }
}
