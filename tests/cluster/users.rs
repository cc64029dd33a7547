//! Jobs that run as other users than the agent.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use roadshow::internals::config::JOB_LEASE;
use rustix::io::Errno;
use rustix::process::geteuid;

use super::fixtures::{Attempt, Itself};
use super::job::{ARGUMENTS, ATTEMPTS, Job, Order, ROLE, Reply, SpawnOptions, counted, program, said};
use super::proc::{self, wait_for};
use super::test_cluster::{TestCluster, output, refused, roadshow, skipped, text};

/// Starts a node whose jobs run as other users, at an address with certificates; skips without root or address.
fn site(arguments: &[&str]) -> Option<TestCluster> {
    if !geteuid().is_root() {
        skipped("only root may start jobs as other users");
        return None;
    }
    let Some(host) = own_address() else {
        skipped("this machine has no address but that of the loopback interface");
        return None;
    };
    // An operator's shell can leave files open, too: no job may inherit this one.
    let left_open = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    Some(TestCluster::head_under(Vec::new(), &host, arguments))
}

/// Source address of the default route. Connecting a datagram socket sends nothing.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("203.0.113.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

/// Option with a range of uids that no other test and no user of this machine has.
fn uids(first: u32, count: u32) -> String {
    format!("--worker-uids={first}-{}", first + count - 1)
}

/// Operations on the cluster that every job must be denied.
fn on_the_cluster(site: &TestCluster) -> Vec<Attempt> {
    let (node, state) = (&site.nodes[0], site.state());
    let session = &node.session;
    let secrets = [
        state.join("authority.key"),
        state.join("token"),
        state.join("head.redb"),
        session.join("token"),
        session.join("node.json"),
        session.join("logs/agent.log"),
    ];
    let mut attempts: Vec<_> = secrets.into_iter().map(Attempt::Read).collect();
    attempts.extend([state, session.clone()].map(Attempt::List));
    attempts.extend(["logs", "executables", "jobs", "run"].map(|name| Attempt::List(session.join(name))));
    // A job could pose as the agent, which passes connections to the head through this socket.
    attempts.push(Attempt::Connect(session.join("head.sock")));
    attempts.extend([node.head(), node.agent()].into_iter().flat_map(on_a_process));
    attempts
}

fn on_a_process(pid: u32) -> [Attempt; 3] {
    let file = |name| Attempt::Read(PathBuf::from(format!("/proc/{pid}/{name}")));
    // Opening the memory needs the same permission as ptrace.
    [Attempt::Signal(pid), file("environ"), Attempt::Write(format!("/proc/{pid}/mem").into())]
}

/// Operations on another job that a job must be denied.
fn on_a_job(site: &TestCluster, job: &str, worker: u64) -> Vec<Attempt> {
    let session = &site.nodes[0].session;
    let (directory, run) = (session.join("jobs").join(job), session.join("run").join(job));
    let program = entry(&run, |name| name.len() == 64);
    let log = entry(&session.join("logs"), |name| name.contains(job) && name.ends_with(".out"));
    let mut attempts = vec![
        Attempt::List(directory.clone()),
        // The file is world-readable, so only the directories above it can deny the access.
        Attempt::Read(directory.join("result")),
        Attempt::Write(directory.join("result")),
        Attempt::List(run.clone()),
        Attempt::Read(program),
        Attempt::List(run.join("tmp")),
        Attempt::Read(run.join("tmp/temporary")),
        Attempt::Read(log),
    ];
    attempts.extend(on_a_process(worker.try_into().unwrap()));
    attempts
}

fn entry(directory: &Path, is_it: impl Fn(&str) -> bool) -> PathBuf {
    let mut names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let found = names.find(|entry| is_it(entry.file_name().to_str().unwrap()));
    found.unwrap_or_else(|| panic!("not in {}", directory.display())).path()
}

/// Checks that a job was denied each operation, and that root is allowed it, so that the denial means something.
#[track_caller]
fn denied(attempts: &[Attempt], became: &[Result<(), i32>]) {
    assert_eq!(attempts.len(), became.len());
    for (attempt, became) in attempts.iter().zip(became) {
        assert_eq!(attempt.make(), Ok(()), "{attempt:?} of the operator");
        let denied = [Errno::ACCESS, Errno::PERM].map(|errno| Err(errno.raw_os_error()));
        assert!(denied.contains(became), "{attempt:?}: {became:?}");
    }
}

#[track_caller]
fn tried(job: &mut Job, attempts: &[Attempt]) -> Vec<Result<(), i32>> {
    match job.reply(Order::Attempt(attempts.to_vec())) {
        Reply::Attempts(became) => became,
        other => panic!("{other:?}; {}", job.errors()),
    }
}

/// Checks the isolation of a process, and returns its uid.
#[track_caller]
fn checked(Itself { status, environment, inherited }: &Itself, directory: &Path) -> u32 {
    assert!(
        inherited.is_empty(),
        "descriptors {inherited:?} are inherited from the daemons or from their parent"
    );
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let ids =
        |name| line(name).split_ascii_whitespace().map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>();
    // NoNewPrivs keeps setuid programs from giving the job other rights.
    assert_eq!((line("Groups:"), line("NoNewPrivs:")), (String::new(), "1".to_owned()), "{status}");
    assert_eq!((line("CapEff:"), line("CapPrm:")), ("0".repeat(16), "0".repeat(16)), "{status}");
    assert!(ids("Uid:").iter().all(|id| *id == ids("Uid:")[0] && *id != 0), "{status}");
    assert!(!environment.iter().any(|(name, _)| name.contains("TOKEN")), "{environment:?}");
    let variable = |name| environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    let tmp = variable("TMPDIR").unwrap();
    assert!(tmp.ends_with("/tmp") && tmp.contains("/run/"), "{tmp}");
    let home = variable("HOME").unwrap();
    assert!(home == directory.to_str().unwrap() || home == unprivileged_user().home, "{home}");
    ids("Uid:")[0]
}

struct UnprivilegedUser {
    uid: u32,
    home: String,
}

fn unprivileged_user() -> UnprivilegedUser {
    let user = roadshow::daemon::JobUser::named("nobody").unwrap();
    UnprivilegedUser { uid: user.uid, home: user.home.to_str().unwrap().to_owned() }
}

#[track_caller]
fn itself(site: &TestCluster, job: &mut Job, id: &str) -> u32 {
    match job.reply(Order::LookAtItself) {
        Reply::Itself(itself) => checked(&itself, &site.nodes[0].session.join("jobs").join(id)),
        other => panic!("{other:?}; {}", job.errors()),
    }
}

/// Starts a job that creates files and prints; returns it with its id and a worker's process id.
fn job_with_files(site: &TestCluster) -> (Job, String, u64) {
    let mut job = Job::join(site);
    job.spawn("a", SpawnOptions::default());
    job.does(Order::LeaveFiles);
    job.does(Order::Print("a".into(), "a line of it".into(), 2));
    let worker = job.pid_of("a");
    let id = site.row("workers", "pid", worker)["job_id"].as_str().unwrap().to_owned();
    (job, id, worker)
}

#[test]
fn job_with_its_own_uid_can_access_neither_cluster_secrets_nor_another_job() {
    let Some(site) = site(&["--num-cpus=1", &uids(61_000, 4)]) else { return };
    let ((mut one, one_id, one_worker), (mut other, other_id, other_worker)) =
        (job_with_files(&site), job_with_files(&site));
    let users = [itself(&site, &mut one, &one_id), itself(&site, &mut other, &other_id)];
    assert_ne!(users[0], users[1]);
    assert!(users.iter().all(|uid| (61_000..61_004).contains(uid)), "{users:?}");

    let attempts = [on_the_cluster(&site), on_a_job(&site, &other_id, other_worker)].concat();
    denied(&attempts, &tried(&mut one, &attempts));
    let attempts = on_a_job(&site, &one_id, one_worker);
    denied(&attempts, &tried(&mut other, &attempts));
    // A job can read its own program, but not change it.
    let program = entry(&site.nodes[0].session.join("run").join(&one_id), |name| name.len() == 64);
    let own = tried(&mut one, &[Attempt::Read(program.clone()), Attempt::Write(program)]);
    assert_eq!((own[0], own[1].is_err()), (Ok(()), true), "{own:?}");

    // The operator can read the job's output in its log.
    let logs = wait_for("the log has the lines", || {
        let logs = text(&output(site.roadshow(&["job", "logs", &one_id])).stdout);
        let log = entry(&site.nodes[0].session.join("logs"), |name| name.contains(&one_id));
        fs::read_to_string(log).unwrap().contains("a line of it").then_some(logs)
    });
    drop(logs);
    let sleeps = one.numbers(Order::StartSleeps);
    one.finish();
    for pid in sleeps.into_iter().chain([one_worker]) {
        proc::ended(pid.try_into().unwrap());
    }
    assert_eq!(other.add("a", 1), 1, "the other job keeps running");
    other.finish();
}

#[test]
fn uid_is_reused_only_when_nothing_of_the_last_job_is_left_that_it_could_access() {
    let Some(site) = site(&["--num-cpus=1", &uids(61_010, 1)]) else { return };
    let (mut one, one_id, _) = job_with_files(&site);
    let uid = itself(&site, &mut one, &one_id);
    // There is one uid, and the first job has it.
    let refused = Job::start(program(&site, "obey")).err().expect("there is no uid for it");
    println!("{refused}");
    assert!(refused.contains("each of the 1 uids 61010-61010 of --worker-uids is taken"), "{refused}");

    let (sleeps, directory) =
        (one.numbers(Order::StartSleeps), site.nodes[0].session.join("jobs").join(&one_id));
    one.finish();
    let mut next = Job::join(&site);
    next.spawn("a", SpawnOptions::default());
    for pid in sleeps {
        assert!(!proc::runs(pid.try_into().unwrap()), "{pid} runs while another job has its uid");
    }
    let worker = next.pid_of("a");
    let id = site.row("workers", "pid", worker)["job_id"].as_str().unwrap().to_owned();
    assert_eq!(itself(&site, &mut next, &id), uid);
    // The first job's files are kept for the operator, but the second job with the same uid cannot read them.
    assert_eq!(fs::metadata(directory.join("result")).unwrap().uid(), uid);
    let attempts = [Attempt::List(directory.clone()), Attempt::Read(directory.join("result"))];
    denied(&attempts, &tried(&mut next, &attempts));
    assert!(!site.nodes[0].session.join("run").join(&one_id).exists());
    next.finish();
}

/// Command that submits this executable in a role, with operations to try.
fn submitted(site: &TestCluster, role: &str, attempts: &[Attempt]) -> Command {
    let executable = std::env::current_exe().unwrap();
    let role = format!("{ROLE}={role}");
    let attempts = format!("{ATTEMPTS}={}", serde_json::to_string(attempts).unwrap());
    let given = ["job", "submit", "--env", &role, "--env", &attempts, "--", executable.to_str().unwrap()];
    site.roadshow(&[&given[..], &ARGUMENTS].concat())
}

type SubmittedReport = (Vec<Result<(), i32>>, Itself);

/// Runs a submitted program that must be denied these operations, and returns its uid.
#[track_caller]
fn submitted_is_denied(site: &TestCluster, attempts: &[Attempt]) -> u32 {
    let ended = output(submitted(site, "try 3", attempts));
    let (out, err) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(ended.status.code(), Some(3), "{out}\n{err}");
    let said = said(&out);
    counted(&said);
    let (became, itself): SubmittedReport = serde_json::from_str(&said[0]).unwrap();
    denied(attempts, &became);
    // The submitted job is the newest one, which has the highest id.
    let jobs = site.list("jobs");
    let id = jobs.iter().map(|job| job["job_id"].as_str().unwrap()).max().unwrap();
    checked(&itself, &site.nodes[0].session.join("jobs").join(id))
}

#[test]
fn submitted_program_has_uid_of_its_job_and_no_token_and_still_joins() {
    let Some(site) = site(&["--num-cpus=1", &uids(61_020, 3)]) else { return };
    let (other, id, worker) = job_with_files(&site);
    let attempts = [on_the_cluster(&site), on_a_job(&site, &id, worker)].concat();
    let user = submitted_is_denied(&site, &attempts);
    assert!((61_020..61_023).contains(&user), "{user}");
    other.finish();
}

#[test]
fn jobs_with_one_common_user_cannot_access_cluster_secrets() {
    let Some(site) = site(&["--num-cpus=1", "--worker-user=nobody"]) else { return };
    let (mut job, id, worker) = job_with_files(&site);
    assert_eq!(itself(&site, &mut job, &id), unprivileged_user().uid);
    let attempts = on_the_cluster(&site);
    denied(&attempts, &tried(&mut job, &attempts));
    assert_eq!(submitted_is_denied(&site, &attempts), unprivileged_user().uid);
    // With one user for all, jobs are not isolated from each other.
    let (mut other, ..) = job_with_files(&site);
    let result = site.nodes[0].session.join("jobs").join(&id).join("result");
    let became = tried(&mut other, &[Attempt::Signal(worker.try_into().unwrap()), Attempt::Read(result)]);
    assert_eq!(became, [Ok(()), Ok(())]);
    other.finish();
    job.finish();
}

#[test]
fn submitted_program_without_a_token_survives_a_head_restart_and_ends_when_stopped() {
    let Some(site) = site(&["--num-cpus=1", &uids(61_030, 2)]) else { return };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| output(submitted(&site, "stay", &[])));
        let job =
            wait_for("it is submitted", || Some(site.list("jobs").first()?["job_id"].as_str()?.to_owned()));
        let pid = wait_for("it says that it stays", || {
            let logs = output(site.roadshow(&["job", "logs", &job]));
            let said = said(&text(&logs.stdout));
            said.iter().find_map(|line| line.strip_prefix("it stays, with ")?.parse::<u64>().ok())
        });
        proc::kill(site.nodes[0].head());
        site.restart_head();
        // A driver that does not rejoin loses its workers with its lease: wait for two leases.
        let (begun, lease) = (Instant::now(), 2 * JOB_LEASE);
        let driver = wait_for("the driver has come back", || {
            let row = site.row("jobs", "job_id", job.as_str());
            assert_eq!(row["state"], "RUNNING", "{row}");
            (begun.elapsed() > lease).then(|| row["pid"].as_u64().unwrap())
        });
        assert_eq!(site.row("workers", "pid", pid)["state"], "ALIVE");
        let stopped = output(site.roadshow(&["job", "stop", &job]));
        assert!(stopped.status.success(), "{}", text(&stopped.stderr));
        for pid in [pid, driver] {
            proc::ended(pid.try_into().unwrap());
        }
        assert_eq!(waiting.join().unwrap().status.code(), Some(1));
    });
}

#[test]
fn users_that_jobs_cannot_run_as_are_refused_and_nothing_is_started() {
    let Some(site) = site(&["--num-cpus=1"]) else { return };
    let host = site.address.rsplit_once(':').unwrap().0.to_owned();
    let start = |host: &str, options: &[&str]| {
        let given = ["start", "--head", "--port=0", "--host", host];
        roadshow(site.home(), &[], &[&given[..], options].concat())
    };
    for (host, options, part) in [
        (host.as_str(), &["--worker-user=no-such-user"][..], "there is no user"),
        (&host, &["--worker-user=root"], "is root"),
        ("127.0.0.1", &["--worker-uids=61040-61041"], "have no certificates"),
    ] {
        let (code, said) = refused(start(host, options));
        println!("{said}");
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(part), "{said}");
    }
    let joining = ["start", "--address=127.0.0.1:6379", "--worker-uids=61040-61041"];
    for options in [&["--host", &host][..], &[]] {
        let mut join = roadshow(site.home(), &[], &[&joining[..], options].concat());
        join.env("ROADSHOW_TOKEN", &site.token);
        let (code, said) = refused(join);
        println!("{said}");
        assert!(
            code == 1 && said.contains("have no certificates") && said.contains("give --address"),
            "{said}"
        );
    }
    for options in
        [["--worker-uids=0-5", ""], ["--worker-uids=5", ""], ["--worker-uids=5-6", "--worker-user=nobody"]]
    {
        let options: Vec<_> = options.into_iter().filter(|option| !option.is_empty()).collect();
        let output = output(start(&host, &options));
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", text(&output.stderr));
    }
    assert_eq!(site.processes().len(), 2, "the site's own head and agent");
}

#[test]
fn session_directory_that_job_users_cannot_enter_is_refused() {
    let Some(site) = site(&["--num-cpus=1"]) else { return };
    let closed = site.home().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let (host, _) = site.address.rsplit_once(':').unwrap();
    let session = closed.join("session");
    let given = ["start", "--head", "--port=0", "--host", host, "--session-dir", session.to_str().unwrap()];
    let options = uids(61_050, 2);
    let (code, said) = refused(roadshow(site.home(), &[], &[&given[..], &[&options]].concat()));
    println!("{said}");
    assert!(code == 1 && said.contains("cannot enter") && said.contains("chmod o+x"), "{said}");
    assert!(!session.exists());
}
