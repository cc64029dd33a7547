//! Numbering of resources, labels and job executables as features of nodes.

use rustc_hash::FxHashMap;

use crate::cluster::model::{JobId, Labels, Quantity, Resources};

/// Number of a feature: something that a node has an amount of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Feature(pub(super) u64);

impl Feature {
    /// Readiness for new work, which every actor requires.
    pub(super) const SCHEDULABLE: Self = Self(0);

    /// Readiness for workers of a job.
    pub(super) fn of_job(job: JobId) -> Self {
        // Bit 32 keeps jobs apart from named features, which are numbered from 1.
        Self(1 << 32 | u64::from(job.0))
    }
}

/// Name of a numbered feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FeatureName {
    Resource(String),
    Label(String, String),
}

/// Numbers of names. A number is never released: a cluster has few distinct resources and labels.
#[derive(Debug, Default)]
pub(super) struct Features {
    resources: FxHashMap<String, Feature>,
    labels: FxHashMap<String, FxHashMap<String, Feature>>,
    /// Names by number, starting at 1.
    named: Vec<FeatureName>,
}

impl Features {
    /// Number of a resource, if it has one.
    pub(super) fn find_resource(&self, name: &str) -> Option<Feature> {
        self.resources.get(name).copied()
    }

    /// Number of a label, if it has one.
    pub(super) fn find_label(&self, name: &str, value: &str) -> Option<Feature> {
        self.labels.get(name)?.get(value).copied()
    }

    /// Number of a resource, assigned on first use.
    pub(super) fn resource(&mut self, name: &str) -> Feature {
        if let Some(known) = self.find_resource(name) {
            return known;
        }
        let new = self.number(FeatureName::Resource(name.to_owned()));
        self.resources.insert(name.to_owned(), new);
        new
    }

    /// Number of a label, assigned on first use.
    pub(super) fn label(&mut self, name: &str, value: &str) -> Feature {
        if let Some(known) = self.find_label(name, value) {
            return known;
        }
        let new = self.number(FeatureName::Label(name.to_owned(), value.to_owned()));
        self.labels.entry(name.to_owned()).or_default().insert(value.to_owned(), new);
        new
    }

    fn number(&mut self, named: FeatureName) -> Feature {
        self.named.push(named);
        Feature(self.named.len() as u64)
    }

    fn name(&self, feature: Feature) -> Option<&FeatureName> {
        // Features of jobs are far beyond the table, and have no name.
        let at = usize::try_from(feature.0).ok()?.checked_sub(1)?;
        self.named.get(at)
    }

    /// Resources among `amounts`, by name.
    pub(super) fn resources(&self, amounts: impl IntoIterator<Item = (Feature, u64)>) -> Resources {
        let named = amounts.into_iter().filter_map(|(feature, amount)| match self.name(feature)? {
            FeatureName::Resource(name) => Some((name.clone(), Quantity(amount))),
            FeatureName::Label(..) => None,
        });
        Resources(named.collect())
    }

    /// Labels among `features`.
    pub(super) fn labels(&self, features: impl IntoIterator<Item = Feature>) -> Labels {
        let named = features.into_iter().filter_map(|feature| match self.name(feature)? {
            FeatureName::Label(name, value) => Some((name.clone(), value.clone())),
            FeatureName::Resource(_) => None,
        });
        named.collect()
    }
}
