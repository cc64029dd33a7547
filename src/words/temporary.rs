//! Files for tests.

use std::path::PathBuf;

/// A file in the folder for such, which is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Temporary(pub(super) PathBuf);

impl Temporary {
    /// The name has to be another in each test.
    pub(super) fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("roadshow-words-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
