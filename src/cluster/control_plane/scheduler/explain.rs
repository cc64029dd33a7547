//! Explanations of why an actor is not placed.

use super::resource_index::Feature;
use super::shape::Shape;
use super::tree::{self, Amount};
use super::{Queue, Schedulability, Scheduler};
use crate::cluster::model::{ActorSpec, Labels, NodeId, Quantity, Resources};

/// Nodes that an explanation is about: all of them, or the one that the actor is pinned to.
struct Candidates<'a> {
    only: Option<NodeId>,
    /// Largest amount of each feature on these nodes.
    most: &'a [Amount],
}

impl Candidates<'_> {
    fn lacks(&self, what: &str) -> String {
        match self.only {
            Some(_) => format!("it has no {what}"),
            None => format!("no node has any {what}"),
        }
    }

    fn has_at_most(&self, name: &str, most: u64, what: &str) -> String {
        let subject = if self.only.is_some() { "it has" } else { "one node has" };
        format!("the most that {subject}{what} is {name} {}", Quantity(most))
    }

    fn is_not_labelled(&self, name: &str, value: &str) -> String {
        let subject = if self.only.is_some() { "it is not" } else { "no node is" };
        format!("{subject} labelled {name}={value}")
    }
}

impl Scheduler {
    /// Checks whether every requested resource and label is known to the cluster.
    pub(in crate::cluster) fn knows(&self, spec: &ActorSpec) -> bool {
        // Unknown names are refused before the request is interned: a name gets a number that is never
        // released, so requests with made-up names must not get one.
        let mut resources = spec.resources.0.iter().filter(|(_, wanted)| wanted.0 > 0);
        resources.all(|(name, _)| self.features.find_resource(name).is_some())
            && spec.labels.iter().all(|(name, value)| self.features.find_label(name, value).is_some())
    }

    /// Explains why no node could ever host the actor. Requires that this is so.
    pub(in crate::cluster) fn explain_infeasible(&self, spec: &ActorSpec) -> String {
        let candidates = self.candidates(spec.node);
        let subject = spec.node.map_or("no node".to_owned(), |node| format!("node {node}"));
        if tree::find(candidates.most, Feature::SCHEDULABLE).is_none() {
            let does = if spec.node.is_some() { "takes no work" } else { "of the cluster takes work" };
            return format!("{subject} {does}: start a node with at least one worker");
        }
        let mut reasons = self.missing(&candidates, &spec.resources, &spec.labels, |amount| amount.total, "");
        if reasons.is_empty() {
            // Some node meets each of the requirements, but none meets all of them.
            reasons.push(match spec.avoided {
                None => "no single node has all of that".to_owned(),
                Some(node) => format!("no other than node {node}, which it has left, has all of that"),
            });
        }
        let [could, has] = match spec.node {
            Some(_) => ["could never take it", "the node has"],
            None => ["could ever take it", "single nodes have up to"],
        };
        let all =
            self.features.resources(candidates.most.iter().map(|amount| (amount.feature, amount.total)));
        let requirements = constraint(&spec.resources, &spec.labels);
        format!("{subject} {could}: it wants {requirements}, and {}; {has} {all}", reasons.join(", "))
    }

    /// Explains why an actor of the queue is pending.
    pub(in crate::cluster) fn explain_pending(&self, (job, shape): Queue) -> String {
        let shape: &Shape = self.shapes.get(shape);
        let candidates = self.candidates(shape.node);
        let subject = shape.node.map_or("no node".to_owned(), |node| format!("node {node}"));
        if tree::find(candidates.most, Feature::SCHEDULABLE).is_none_or(|work| work.free == 0) {
            // Rare, so all nodes may be visited: some wait for the restarted head, or all are silent.
            let mut absent =
                self.nodes.iter().filter(|(node, _)| shape.node.is_none_or(|only| only == **node));
            let rejoins = absent.any(|(_, entry)| entry.schedulability == Schedulability::Rejoining);
            return match (shape.node, rejoins) {
                (Some(_), true) => format!("{subject} has not rejoined since the head restarted"),
                (Some(_), false) => format!("{subject} is unreachable"),
                (None, true) => format!("{subject} has rejoined since the head restarted"),
                (None, false) => format!("{subject} that takes work is reachable"),
            };
        }
        if tree::find(candidates.most, Feature::of_job(job)).is_none() {
            let does = if shape.node.is_some() { "does not run" } else { "runs" };
            return format!("{subject} {does} workers of the job yet");
        }
        let resources = self.features.resources(shape.allocates.iter().copied());
        let labels = self.features.labels(shape.requires.iter().map(|(feature, _)| *feature));
        let mut reasons = self.missing(&candidates, &resources, &labels, |amount| amount.free, " free");
        if reasons.is_empty() {
            reasons.push(match shape.avoided {
                None => "no node that runs workers of the job has all of that free".to_owned(),
                Some(node) => format!(
                    "no node that runs workers of the job has all of that free, but for node {node}, which it has left"
                ),
            });
        }
        format!("it wants {}, and {}", constraint(&resources, &labels), reasons.join(", "))
    }

    fn candidates(&self, only: Option<NodeId>) -> Candidates<'_> {
        // The root of the tree has the largest amount of each feature, so no node has to be visited.
        let most = match only {
            Some(node) => self.nodes.get(&node).map_or(&[][..], |entry| self.tree.leaf(entry.leaf)),
            None => self.tree.largest(),
        };
        Candidates { only, most }
    }

    fn missing(
        &self,
        candidates: &Candidates<'_>,
        resources: &Resources,
        labels: &Labels,
        of: impl Fn(&Amount) -> u64,
        what: &str,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        for (name, wanted) in resources.0.iter().filter(|(_, wanted)| wanted.0 > 0) {
            let feature = self.features.find_resource(name);
            match feature.and_then(|feature| tree::find(candidates.most, feature)).map(&of) {
                None => reasons.push(candidates.lacks(name)),
                Some(most) if most < wanted.0 => reasons.push(candidates.has_at_most(name, most, what)),
                Some(_) => {}
            }
        }
        for (name, value) in labels {
            let feature = self.features.find_label(name, value);
            if feature.and_then(|feature| tree::find(candidates.most, feature)).is_none() {
                reasons.push(candidates.is_not_labelled(name, value));
            }
        }
        reasons
    }
}

/// Requirements in words.
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
