//! Steps of drivers and jobs in the random model.

use super::world::{World, pick};
use super::*;

impl World {
    pub(super) fn job_step(&mut self, step: &Step) {
        match step {
            Step::StartJob if self.jobs().len() < 4 => {
                let driver = self.harness.requests;
                self.ask(|ticket| ControlEvent::JobStarted {
                    ticket,
                    job: None,
                    descriptor: job_descriptor(driver),
                });
            }
            Step::SubmitJob(node) if self.jobs().len() < 4 => {
                let runs_on = Some(NodeId(1 + u64::from(node % 6)));
                let descriptor = JobDescriptor { driver: None, runs_on, ..job_descriptor(0) };
                self.ask(|ticket| ControlEvent::JobSubmitted { ticket, descriptor });
            }
            Step::DriverConnects(job) => {
                let Some(job) = pick(&self.jobs(), *job) else { return };
                let known = self.harness.state.job_descriptor(job).and_then(|descriptor| descriptor.driver);
                let descriptor =
                    JobDescriptor { driver: known.or(job_descriptor(99).driver), ..job_descriptor(0) };
                self.ask(|ticket| ControlEvent::JobStarted { ticket, job: Some(job), descriptor });
            }
            Step::DriverLeaves(job) => {
                let submitted = |job: &JobId| {
                    let descriptor = self.harness.state.job_descriptor(*job);
                    descriptor
                        .is_some_and(|descriptor| descriptor.runs_on.is_some() && descriptor.driver.is_some())
                };
                let jobs: Vec<JobId> = self.jobs().into_iter().filter(submitted).collect();
                let Some(job) = pick(&jobs, *job) else { return };
                self.event(ControlEvent::DriverLeft { job, why: "it was asked to".to_owned() });
            }
            Step::EndJob(job, how) => {
                let Some(job) = pick(&self.jobs(), *job) else { return };
                let how = [JobState::Succeeded, JobState::Failed, JobState::Stopped][usize::from(how % 3)];
                let message = String::new();
                for actual in self.nodes.values_mut() {
                    actual.drivers.remove(&job);
                }
                self.event(ControlEvent::JobEnded { job, state: how, exit_code: None, message });
            }
            Step::DriverStarts(job) => {
                let pending = |job: &JobId| self.harness.state.job_state(*job) == Some(JobState::Pending);
                let pending: Vec<JobId> = self.jobs().into_iter().filter(pending).collect();
                let Some(job) = pick(&pending, *job) else { return };
                let Some(node) =
                    self.harness.state.job_descriptor(job).and_then(|descriptor| descriptor.runs_on)
                else {
                    return;
                };
                let Some(actual) = self.nodes.get_mut(&node.0).filter(|actual| actual.linked) else { return };
                actual.drivers.insert(job);
                self.event(ControlEvent::DriverStarted { job, node });
            }
            // Also for ended jobs: the driver may not know yet.
            Step::Launch(job, node) => {
                let all: Vec<JobId> = self.harness.state.jobs.keys().copied().collect();
                if let (Some(job), Some(node)) = (pick(&all, *job), pick(&self.linked(), *node)) {
                    self.pin_executable(job, node);
                }
            }
            Step::Provision(job, node) => {
                if let (Some(job), Some(node)) = (pick(&self.jobs(), *job), pick(&self.linked(), *node)) {
                    self.pin_executable(job, node);
                    self.event(ControlEvent::NodeProvisioned { job, node: NodeId(node) });
                }
            }
            _ => {}
        }
    }

    pub(super) fn pin_executable(&mut self, job: JobId, node: u64) {
        self.nodes.get_mut(&node).unwrap().pinned.insert(job);
        self.event(ControlEvent::ExecutablePinned { job, node: NodeId(node) });
    }

    /// Records once all pending writes are durable.
    pub(super) fn records(&self) -> BTreeMap<RecordKey, &Record> {
        let mut records: BTreeMap<_, _> = self.durable.iter().map(|(key, record)| (*key, record)).collect();
        for (key, record) in &self.unwritten {
            match record {
                Some(record) => drop(records.insert(*key, record)),
                None => drop(records.remove(key)),
            }
        }
        records
    }

    pub(super) fn is_managed(&self, key: ActorKey) -> bool {
        self.managed.contains(&key)
    }
}
