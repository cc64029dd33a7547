//! Trees of restartable actors: parents that spawn children, whose members fail.

use std::time::Duration;

use fastrand::Rng;
use roadshow::{RemoteAddr, Retry};
use tokio::time::{sleep, timeout};

use super::actors::{Bear, Counter, FAILURES_MAX, Fail, Note, SUPERVISION, Seed, policy};
use super::drivers::{Work, key_of};
use super::lives::{CHILDREN_END_WITHIN, Life};
use super::record::{End, Kind, Op, of_send};

/// Trees of one driver.
const TREES_MAX: usize = 2;

/// Children that a driver knows of each parent.
const CHILDREN_MAX: usize = 4;

/// Timeout of each call of a member.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Virtual time after the faults within which all children have restarted once one has failed.
const RESTART_WITHIN: Duration = Duration::from_secs(60);

/// Parent with its children, as its driver knows them.
#[derive(Debug)]
pub(super) struct Tree {
    root: Member,
    children: Vec<Member>,
}

/// Actor of a tree.
#[derive(Clone, Debug)]
struct Member {
    /// Operation that spawned it.
    op: Op,
    address: RemoteAddr<Counter>,
}

impl Work<'_> {
    /// Spawns a tree, or a child in one, or makes a member fail.
    pub(super) async fn tend(&mut self, rng: &mut Rng) {
        if self.trees.len() < TREES_MAX && (self.trees.is_empty() || rng.u8(..4) == 0) {
            return self.plant(rng).await;
        }
        let at = rng.usize(..self.trees.len().max(1));
        let Some(tree) = self.trees.get(at) else { return };
        match rng.u8(..8) {
            0..=4 if tree.children.len() < CHILDREN_MAX => self.bear(at, rng).await,
            0..=5 => {
                let members: Vec<_> = std::iter::once(&tree.root).chain(&tree.children).collect();
                let op = self.record().send(Kind::Call, self.run, None, true, 1);
                let address = &members[rng.usize(..members.len())].address;
                self.await_answer(op, address.send(Note(op)).timeout(CALL_TIMEOUT), None);
            }
            6 => self.fail_member(&tree.root),
            _ => {
                let child = (!tree.children.is_empty()).then(|| rng.usize(..tree.children.len()));
                self.fail_member(child.map_or(&tree.root, |child| &tree.children[child]));
            }
        }
    }

    async fn plant(&mut self, rng: &mut Rng) {
        let op = self.record().send(Kind::Spawn, self.run, None, true, u32::MAX);
        self.record().lives.add(op, Life::new(self.run, Some(FAILURES_MAX)));
        let request = self.driver.cluster().spawn::<Counter>(Seed::parent(op));
        match request.restart(policy()).supervise(SUPERVISION).timeout(CALL_TIMEOUT).await {
            Ok(address) => {
                self.record().end(op, End::Answered);
                let root = self.join_tree(Member { op, address }, rng);
                self.trees.push(Tree { root, children: Vec::new() });
            }
            Err(error) => self.spawn_failed(op, &error, true),
        }
    }

    /// Lets a parent spawn a child.
    async fn bear(&mut self, at: usize, rng: &mut Rng) {
        let child = self.record().send(Kind::Spawn, self.run, None, true, u32::MAX);
        self.record().lives.add(child, Life::child(self.run, FAILURES_MAX));
        let op = self.record().send(Kind::Call, self.run, None, true, 1);
        let answer = self.trees[at].root.address.send(Bear { op, child }).timeout(CALL_TIMEOUT).await;
        match answer {
            Ok(born) => {
                self.record().end(op, End::Answered);
                match born {
                    Ok(address) => {
                        self.record().end(child, End::Answered);
                        let child = self.join_tree(Member { op: child, address }, rng);
                        self.trees[at].children.push(child);
                    }
                    Err(text) => self.record().end(child, End::Unknown(text)),
                }
            }
            Err(error) => {
                self.record().end(op, of_send(&error));
                self.record().end(child, End::Unknown(error.to_string()));
            }
        }
    }

    fn join_tree(&mut self, member: Member, rng: &mut Rng) -> Member {
        self.record().lives.is_known_as(member.op, key_of(&member.address));
        if rng.bool() {
            self.watch(member.op, &member.address);
        }
        member
    }

    fn fail_member(&self, member: &Member) {
        let op = self.record().send(Kind::Fail, self.run, None, true, 1);
        self.await_answer(op, member.address.send(Fail(op)).timeout(CALL_TIMEOUT), None);
    }

    /// Checks the trees, once everything is healed: no child has outlived its parent, and all restart with one.
    pub(super) async fn check_trees(&mut self, rng: &mut Rng) {
        // The record knows the time at which the faults ended, which is no later than this.
        sleep(CHILDREN_END_WITHIN + Duration::from_secs(1)).await;
        if let Err(what) = self.record().lives.check_incarnations(self.run)
            && !self.driver.has_ended()
        {
            self.record().violation(what);
        }
        for at in 0..self.trees.len() {
            let children = self.trees[at].children.clone();
            let mut present = Vec::new();
            for child in children {
                if self.answers(&child).await {
                    present.push(child);
                }
            }
            self.trees[at].children = present;
            // One that was killed, or that failed too often, has no children.
            if self.answers(&self.trees[at].root).await {
                while self.trees[at].children.len() < 2 {
                    let before = self.trees[at].children.len();
                    self.bear(at, rng).await;
                    if self.trees[at].children.len() == before {
                        break;
                    }
                }
                self.check_siblings(&self.trees[at], rng).await;
            }
        }
    }

    /// Calls a member, again after a transient failure.
    async fn answers(&self, member: &Member) -> bool {
        let op = self.record().send(Kind::Retry, self.run, None, true, 1);
        let request = member.address.send(Note(op)).retry(Retry::times(2)).timeout(CALL_TIMEOUT);
        let answer = request.await;
        let answers = answer.is_ok();
        self.record().answer(op, answer);
        answers
    }

    /// Lets a child fail: all children restart, unless the parent has.
    async fn check_siblings(&self, tree: &Tree, rng: &mut Rng) {
        let lives = &self.record().lives;
        let (root, children) = (lives.running(tree.root.op), &tree.children);
        let before: Vec<_> = children.iter().map(|child| lives.running(child.op)).collect();
        if children.is_empty() || before.iter().any(Vec::is_empty) {
            return;
        }
        self.fail_member(&children[rng.usize(..children.len())]);
        let restarted = timeout(RESTART_WITHIN, async {
            loop {
                sleep(Duration::from_millis(200)).await;
                let is_later = |(child, before): (&Member, &Vec<u64>)| {
                    lives.running(child.op).iter().any(|now| !before.contains(now))
                };
                let is_over = self.driver.has_ended() || lives.running(tree.root.op) != root;
                if is_over || children.iter().zip(&before).all(is_later) {
                    return;
                }
            }
        });
        if restarted.await.is_err() {
            let now: Vec<_> = children.iter().map(|child| lives.running(child.op)).collect();
            self.record().violation(format_args!("the children {before:?} of {root:?} are {now:?}"));
        }
    }
}
