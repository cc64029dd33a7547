//! Accounts of jobs. Tests with files of other users need root.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::*;
use crate::cluster::daemon::job_users::UidRange;
use crate::cluster::test_dir::TestDir;

const JOB: JobId = JobId(1);

/// Creates the accounts of a session with these uids. `None` if this process may not give files to other users.
fn accounts(first: u32, last: u32) -> Option<(TestDir, Accounts)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may give files to other users");
        return None;
    }
    let scratch = TestDir::new();
    let users = JobUsers::EachJob(UidRange::new(first, last).unwrap());
    let accounts = Accounts::new(&users, scratch.path()).unwrap();
    Some((scratch, accounts))
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o777)
}

/// Calls `of` on a thread that may block, since the account that it waits for is ended on the runtime.
async fn of(accounts: &Accounts, job: JobId) -> Result<Option<Arc<Account>>, AccountError> {
    let accounts = accounts.clone();
    tokio::task::spawn_blocking(move || accounts.of(job)).await.unwrap()
}

#[tokio::test]
async fn jobs_of_the_agents_user_have_no_accounts() {
    let scratch = TestDir::new();
    let accounts = Accounts::new(&JobUsers::Agent, scratch.path()).unwrap();
    assert!(of(&accounts, JOB).await.unwrap().is_none());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn job_keeps_one_uid_while_held_and_each_job_has_its_own() {
    let Some((scratch, accounts)) = accounts(61_100, 61_101) else { return };
    let one = of(&accounts, JOB).await.unwrap().unwrap();
    let again = of(&accounts, JOB).await.unwrap().unwrap();
    let other = of(&accounts, JobId(2)).await.unwrap().unwrap();
    assert_eq!((one.user(), again.user()), (UserIds { uid: 61_100, gid: 61_100 }, one.user()));
    assert_eq!(other.user().uid, 61_101);
    let error = of(&accounts, JobId(3)).await.unwrap_err();
    assert!(matches!(error, AccountError::NoUid { jobs: 2, known: 0, left: 0, locked: 0, .. }), "{error}");
    drop((one, again));
    // The account is being ended, and `of` waits for its uid.
    let third = of(&accounts, JobId(3)).await.unwrap().unwrap();
    assert_eq!(third.user().uid, 61_100);
    assert!(!scratch.join("run/00000001").exists());
}

#[tokio::test]
async fn two_agents_of_a_machine_never_share_a_uid() {
    let (Some((_one, first)), Some((_other, second))) = (accounts(61_110, 61_111), accounts(61_110, 61_111))
    else {
        return;
    };
    let one = of(&first, JOB).await.unwrap().unwrap();
    let other = of(&second, JOB).await.unwrap().unwrap();
    assert_eq!((one.user().uid, other.user().uid), (61_110, 61_111));
    let error = of(&first, JobId(2)).await.unwrap_err();
    assert!(matches!(error, AccountError::NoUid { jobs: 1, locked: 1, .. }), "{error}");
}

#[tokio::test]
async fn directory_of_an_ended_job_becomes_the_agents() {
    let Some((scratch, accounts)) = accounts(61_120, 61_120) else { return };
    let directory = scratch.join("jobs/00000001");
    fs::create_dir(&directory).unwrap();
    // Left by an earlier cluster with the same session directory.
    fs::write(directory.join("old"), "").unwrap();
    let account = of(&accounts, JOB).await.unwrap().unwrap();
    account.claim_directory(&directory).unwrap();
    assert_eq!(owner_and_mode(&directory), (61_120, 61_120, 0o700));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    assert!(scratch.join("jobs/00000001.1/old").exists());
    assert_eq!(owner_and_mode(&scratch.join("run/00000001")), (0, 61_120, 0o710));
    assert_eq!(owner_and_mode(&scratch.join("run/00000001/tmp")), (61_120, 61_120, 0o700));
    // A second claim, for the next process of the job, changes nothing.
    fs::write(directory.join("result"), "").unwrap();
    account.claim_directory(&directory).unwrap();
    assert!(directory.join("result").exists());
    drop(account);
    let next = of(&accounts, JobId(2)).await.unwrap().unwrap();
    assert_eq!(next.user().uid, 61_120);
    assert_eq!(owner_and_mode(&directory), (0, 0, 0o700));
}

#[tokio::test]
async fn directories_of_a_killed_agent_are_closed_before_their_uids_are_reused() {
    let Some((scratch, accounts)) = accounts(61_140, 61_140) else { return };
    let directory = scratch.join("jobs/00000001");
    fs::create_dir(&directory).unwrap();
    let account = of(&accounts, JOB).await.unwrap().unwrap();
    account.claim_directory(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    assert_eq!(owner_and_mode(&directory), (61_140, 61_140, 0o777));
    // Simulates a killed agent.
    std::mem::forget(account);
    let users = JobUsers::EachJob(UidRange::new(61_140, 61_140).unwrap());
    Accounts::new(&users, scratch.path()).unwrap();
    assert_eq!(owner_and_mode(&directory), (0, 0, 0o700));
}

#[tokio::test]
async fn linked_executable_can_be_read_and_not_changed_by_the_job() {
    let Some((scratch, accounts)) = accounts(61_130, 61_130) else { return };
    let executable = scratch.join("executable");
    fs::write(&executable, "program").unwrap();
    let account = of(&accounts, JOB).await.unwrap().unwrap();
    let link = account.link(&executable).unwrap();
    assert_eq!(account.link(&executable).unwrap(), link);
    assert_eq!(owner_and_mode(&link), (0, 0, 0o755));
    assert_eq!(fs::metadata(&link).unwrap().ino(), fs::metadata(&executable).unwrap().ino());
}

/// Gate that blocks searches for leftovers, with the number of searches that have begun.
#[derive(Debug, Default)]
struct Gate {
    is_closed: bool,
    begun_count: u32,
}

static GATE: (Mutex<Gate>, Condvar) = (Mutex::new(Gate { is_closed: false, begun_count: 0 }), Condvar::new());

fn held_up_look() -> Leftovers {
    let (gate, changed) = &GATE;
    let mut gate = gate.lock().unwrap();
    gate.begun_count += 1;
    changed.notify_all();
    drop(changed.wait_while(gate, |gate| gate.is_closed).unwrap());
    Leftovers::look()
}

fn set_closed(is_closed: bool) {
    GATE.0.lock().unwrap().is_closed = is_closed;
    GATE.1.notify_all();
}

/// Opens the gate when it is dropped, even if the test fails: the runtime waits for the blocked searches.
struct OpenGate;

impl Drop for OpenGate {
    fn drop(&mut self) {
        set_closed(false);
    }
}

/// Time limit of a search that is not blocked.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

async fn looks_begin(count: u32) {
    let begun = tokio::task::spawn_blocking(move || {
        let (gate, changed) = &GATE;
        let is_before = |gate: &mut Gate| gate.begun_count < count;
        !changed.wait_timeout_while(gate.lock().unwrap(), LOOK_TIMEOUT, is_before).unwrap().1.timed_out()
    });
    assert!(begun.await.unwrap(), "no look has begun");
}

#[tokio::test]
async fn slow_search_for_one_job_does_not_block_other_jobs() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root may give files to other users");
    }
    let scratch = TestDir::new();
    let users = JobUsers::EachJob(UidRange::new(61_150, 61_159).unwrap());
    let accounts = Accounts::with_look(&users, scratch.path(), held_up_look).unwrap();
    let first = of(&accounts, JOB).await.unwrap().unwrap();
    let _open = OpenGate;
    set_closed(true);
    let later = [JobId(2), JobId(2), JobId(3)].map(|job| {
        let accounts = accounts.clone();
        tokio::spawn(async move { of(&accounts, job).await.unwrap().unwrap() })
    });
    // One search for each job.
    looks_begin(3).await;
    let again = tokio::time::timeout(LOOK_TIMEOUT, of(&accounts, JOB)).await.expect("it waits for a look");
    assert_eq!(again.unwrap().unwrap().user(), first.user());
    set_closed(false);
    let mut held = Vec::new();
    for account in later {
        held.push(account.await.unwrap());
    }
    let mut uids: Vec<_> = held.iter().map(|account| account.user().uid).collect();
    assert_eq!(uids[0], uids[1]);
    uids[1..].sort_unstable();
    assert_eq!((first.user().uid, &uids[1..]), (61_150, &[61_151, 61_152][..]));
    assert_eq!(GATE.0.lock().unwrap().begun_count, 3);
}
