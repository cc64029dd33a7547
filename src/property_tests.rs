//! Configuration of the property tests in `src`.
//!
//! Seeds of failed cases are stored in `tests/proptest-regressions`, in a file for each source file. Later
//! runs try them first.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::FileFailurePersistence;

/// Folder of the stored seeds, relative to the package's root.
const SEEDS: &str = "tests/proptest-regressions";

/// Returns the configuration of a property that is tested with `cases` random cases.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    with_seeds(ProptestConfig::with_cases(cases))
}

/// Returns the configuration of a property with proptest's own number of cases.
pub(crate) fn default_cases() -> ProptestConfig {
    with_seeds(ProptestConfig::default())
}

/// Sets the folder of the seeds. The environment may have disabled their storage, which is respected.
fn with_seeds(config: ProptestConfig) -> ProptestConfig {
    let failure_persistence = config.failure_persistence.is_some().then(|| {
        // The folder is a sibling of `src`. proptest finds `src` from any working directory in the package.
        Box::new(FileFailurePersistence::SourceParallel(SEEDS)) as _
    });
    ProptestConfig { failure_persistence, ..config }
}
