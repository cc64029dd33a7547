//! Names with several addresses, and arguments that are not UTF-8.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use super::job::{Job, Order, program_under};
use super::test_cluster::{TestCluster, output, refused, roadshow, skipped, text};

const NAME: &str = "two-addresses.test";

/// Bytes that are not UTF-8.
const CAFE: &[u8] = b"caf\xe9";

/// Command prefix with a private /etc/hosts for the name; nothing if mounting is not permitted.
fn under(site: &TestCluster, addresses: &[&str]) -> Option<Vec<String>> {
    let hosts = site.home().join("hosts");
    let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    fs::write(&hosts, lines).unwrap();
    let script = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
    let under = ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned).to_vec();
    // Mounting needs rights that a container may lack.
    let tried = Command::new("unshare").args(&under[1..]).arg("true").output().ok()?;
    if !tried.status.success() {
        skipped(format_args!("/etc/hosts cannot be another file for one command: {}", text(&tried.stderr)));
        return None;
    }
    Some(under)
}

#[test]
fn drivers_nodes_and_commands_try_all_addresses_of_a_name() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    let port = site.address.rsplit_once(':').unwrap().1.to_owned();
    // Accepts connections by its backlog, and never sends a byte.
    let silent = TcpListener::bind(format!("127.0.0.9:{port}")).unwrap();
    let at = format!("{NAME}:{port}");
    // The first refuses connections, the second accepts and stays silent.
    for first in ["127.0.0.8", "127.0.0.9"] {
        let Some(under) = under(&site, &[first, "127.0.0.1"]) else { return };
        let mut command = roadshow(site.home(), &under, &["status", "--json", "--address", &at]);
        command.env("ROADSHOW_TOKEN", &site.token);
        let status = output(command);
        assert!(status.status.success(), "{first}: {}", text(&status.stderr));

        let mut command = program_under(&site, &under, "obey");
        command.env("ROADSHOW_ADDRESS", &at).env("ROADSHOW_TOKEN", &site.token);
        let mut job = Job::join_with(command);
        job.numbers(Order::Tasks(1));
        job.finish();

        let address = std::mem::replace(&mut site.address, at.clone());
        site.join_under(&under, "127.0.0.1", &["--num-cpus=1"]);
        site.address = address;
    }
    assert_eq!(site.list("nodes").len(), 3);
    drop(silent);

    let Some(under) = under(&site, &["127.0.0.8", "127.0.0.7"]) else { return };
    let mut command = roadshow(site.home(), &under, &["status", "--address", &at]);
    command.env("ROADSHOW_TOKEN", &site.token);
    let (_, said) = refused(command);
    assert!(
        said.contains(&format!("127.0.0.8:{port}")) && said.contains(&format!("127.0.0.7:{port}")),
        "{said}"
    );
    let mut command = program_under(&site, &under, "obey");
    command.env("ROADSHOW_ADDRESS", &at).env("ROADSHOW_TOKEN", &site.token);
    let said = Job::start(command).err().unwrap();
    assert!(
        said.contains(&format!("127.0.0.8:{port}")) && said.contains(&format!("127.0.0.7:{port}")),
        "{said}"
    );
}

#[test]
fn submitted_program_gets_arguments_and_variables_byte_for_byte() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut command = site.roadshow(&["job", "submit", "--env"]);
    let mut variable = b"ROADSHOW_TEST_CAFE=".to_vec();
    variable.extend(CAFE);
    command.arg(OsStr::from_bytes(&variable));
    let script = r#"for text in "$1" "$ROADSHOW_TEST_CAFE"; do printf %s "$text" | od -An -tx1; done"#;
    command.args(["--", "sh", "-c", script, "sh"]).arg(OsStr::from_bytes(CAFE));
    let submitted = output(command);
    assert!(submitted.status.success(), "{}", text(&submitted.stderr));
    assert_eq!(text(&submitted.stdout), " 63 61 66 e9\n".repeat(2));
    let entrypoint = &site.list("jobs")[0]["entrypoint"];
    assert!(entrypoint.as_str().unwrap().ends_with("caf\u{fffd}"), "{entrypoint}");
}

#[test]
fn driver_with_arguments_that_are_not_utf8_joins() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let path = site.home().join(OsStr::from_bytes(CAFE));
    fs::write(&path, "one two two\n").unwrap();
    let test = std::env::current_exe().unwrap();
    let example = test.ancestors().nth(2).unwrap().join("examples/count_words");
    assert!(example.exists(), "{example:?} is not built; with `cargo test --test`, add `--examples`");
    let mut command = Command::new(example);
    command.arg(&path).current_dir(site.home());
    super::test_cluster::isolate(&mut command, site.home());
    command.env("ROADSHOW_ADDRESS", &site.address);
    let counted = output(command);
    assert!(counted.status.success(), "{}", text(&counted.stderr));
    assert!(text(&counted.stdout).contains("3 words"), "{}", text(&counted.stdout));
}
