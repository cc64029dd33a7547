//! What nodes have and actors want, as numbers: resources, labels, and the executables of jobs.

use rustc_hash::FxHashMap;

use crate::cluster::model::{JobId, Labels, Quantity, Resources};

/// Something that a node has so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Feature(pub(super) u64);

impl Feature {
    /// That it takes new work. Everybody wants that.
    pub(super) const SCHEDULABLE: Self = Self(0);

    /// That it can have workers of a job. Numbered beside what has names.
    pub(super) fn of_job(job: JobId) -> Self {
        Self(1 << 32 | u64::from(job.0))
    }
}

/// What a numbered feature is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FeatureName {
    Resource(String),
    Label(String, String),
}

/// The numbers of names. They are never given up: a cluster's resources and labels are few.
#[derive(Debug, Default)]
pub(super) struct Features {
    resources: FxHashMap<String, Feature>,
    labels: FxHashMap<String, FxHashMap<String, Feature>>,
    /// By number, from 1 on.
    named: Vec<FeatureName>,
}

impl Features {
    /// The number of a resource, if any node had it yet.
    pub(super) fn find_resource(&self, name: &str) -> Option<Feature> {
        self.resources.get(name).copied()
    }

    /// The number of a label, if any node had it yet.
    pub(super) fn find_label(&self, name: &str, value: &str) -> Option<Feature> {
        self.labels.get(name)?.get(value).copied()
    }

    /// The number of a resource.
    pub(super) fn resource(&mut self, name: &str) -> Feature {
        if let Some(known) = self.find_resource(name) {
            return known;
        }
        let new = self.number(FeatureName::Resource(name.to_owned()));
        self.resources.insert(name.to_owned(), new);
        new
    }

    /// The number of a label.
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
        let at = usize::try_from(feature.0).ok()?.checked_sub(1)?;
        self.named.get(at)
    }

    /// Those of `amounts` that are resources, under their names.
    pub(super) fn resources(&self, amounts: impl IntoIterator<Item = (Feature, u64)>) -> Resources {
        let named = amounts.into_iter().filter_map(|(feature, amount)| match self.name(feature)? {
            FeatureName::Resource(name) => Some((name.clone(), Quantity(amount))),
            FeatureName::Label(..) => None,
        });
        Resources(named.collect())
    }

    /// Those of `features` that are labels.
    pub(super) fn labels(&self, features: impl IntoIterator<Item = Feature>) -> Labels {
        let named = features.into_iter().filter_map(|feature| match self.name(feature)? {
            FeatureName::Label(name, value) => Some((name.clone(), value.clone())),
            FeatureName::Resource(_) => None,
        });
        named.collect()
    }
}
