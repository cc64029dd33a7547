//! Why an actor has no place, in words.

use super::resource_index::Feature;
use super::shape::Shape;
use super::tree::{self, Amount};
use super::{Queue, Scheduler};
use crate::cluster::model::{ActorSpec, Labels, NodeId, Quantity, Resources};

/// The nodes that are spoken of: all of them, or the only one that will do.
struct Subject<'a> {
    only: Option<NodeId>,
    /// The largest amounts that one of them has.
    most: &'a [Amount],
}

impl Subject<'_> {
    fn lacks(&self, what: &str) -> String {
        match self.only {
            Some(_) => format!("it has no {what}"),
            None => format!("no node has any {what}"),
        }
    }

    fn has_at_most(&self, name: &str, most: u64, what: &str) -> String {
        let who = if self.only.is_some() { "it has" } else { "one node has" };
        format!("the most that {who}{what} is {name} {}", Quantity(most))
    }

    fn is_not_labelled(&self, name: &str, value: &str) -> String {
        let who = if self.only.is_some() { "it is not" } else { "no node is" };
        format!("{who} labelled {name}={value}")
    }
}

impl Scheduler {
    /// Whether every resource and label that is asked for has been known to the cluster.
    pub(in crate::cluster) fn knows(&self, spec: &ActorSpec) -> bool {
        let mut resources = spec.resources.0.iter().filter(|(_, wanted)| wanted.0 > 0);
        resources.all(|(name, _)| self.features.find_resource(name).is_some())
            && spec.labels.iter().all(|(name, value)| self.features.find_label(name, value).is_some())
    }

    /// Why no node could ever take such an actor. It is to be known that none could.
    pub(in crate::cluster) fn explain_infeasible(&self, spec: &ActorSpec) -> String {
        let subject = self.subject(spec.node);
        let who = spec.node.map_or("no node".to_owned(), |node| format!("node {node}"));
        if tree::find(subject.most, Feature::SCHEDULABLE).is_none() {
            let does = if spec.node.is_some() { "takes no work" } else { "of the cluster takes work" };
            return format!("{who} {does}: start a node with at least one worker");
        }
        let mut reasons = self.missing(&subject, &spec.resources, &spec.labels, |amount| amount.total, "");
        if reasons.is_empty() {
            reasons.push("no single node has all of that".to_owned());
        }
        let [could, has] = match spec.node {
            Some(_) => ["could never take it", "the node has"],
            None => ["could ever take it", "single nodes have up to"],
        };
        let all = self.features.resources(subject.most.iter().map(|amount| (amount.feature, amount.total)));
        let wish = constraint(&spec.resources, &spec.labels);
        format!("{who} {could}: it wants {wish}, and {}; {has} {all}", reasons.join(", "))
    }

    /// Why an actor of that queue has to wait.
    pub(in crate::cluster) fn explain_pending(&self, (job, shape): Queue) -> String {
        let shape: &Shape = self.shapes.get(shape);
        let subject = self.subject(shape.node);
        let who = shape.node.map_or("no node".to_owned(), |node| format!("node {node}"));
        if tree::find(subject.most, Feature::SCHEDULABLE).is_none_or(|work| work.free == 0) {
            let are = if shape.node.is_some() { "is not back yet" } else { "is back yet" };
            return format!("{who} {are} since the head was started anew");
        }
        if tree::find(subject.most, Feature::of_job(job)).is_none() {
            let does = if shape.node.is_some() { "does not run" } else { "runs" };
            return format!("{who} {does} workers of the job yet");
        }
        let resources = self.features.resources(shape.allocates.iter().copied());
        let labels = self.features.labels(shape.requires.iter().map(|(feature, _)| *feature));
        let mut reasons = self.missing(&subject, &resources, &labels, |amount| amount.free, " free");
        if reasons.is_empty() {
            reasons.push("no node that runs workers of the job has all of that free".to_owned());
        }
        format!("it wants {}, and {}", constraint(&resources, &labels), reasons.join(", "))
    }

    fn subject(&self, only: Option<NodeId>) -> Subject<'_> {
        let most = match only {
            Some(node) => self.nodes.get(&node).map_or(&[][..], |room| self.tree.leaf(room.leaf)),
            None => self.tree.largest(),
        };
        Subject { only, most }
    }

    fn missing(
        &self,
        subject: &Subject<'_>,
        resources: &Resources,
        labels: &Labels,
        of: impl Fn(&Amount) -> u64,
        what: &str,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        for (name, wanted) in resources.0.iter().filter(|(_, wanted)| wanted.0 > 0) {
            let feature = self.features.find_resource(name);
            match feature.and_then(|feature| tree::find(subject.most, feature)).map(&of) {
                None => reasons.push(subject.lacks(name)),
                Some(most) if most < wanted.0 => reasons.push(subject.has_at_most(name, most, what)),
                Some(_) => {}
            }
        }
        for (name, value) in labels {
            let feature = self.features.find_label(name, value);
            if feature.and_then(|feature| tree::find(subject.most, feature)).is_none() {
                reasons.push(subject.is_not_labelled(name, value));
            }
        }
        reasons
    }
}

/// What is wanted, in words.
fn constraint(resources: &Resources, labels: &Labels) -> String {
    if labels.is_empty() {
        return resources.to_string();
    }
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let labels = labels.join(", ");
    match resources.0.is_empty() {
        true => format!("a node labelled {labels}"),
        false => format!("{resources} on a node labelled {labels}"),
    }
}
