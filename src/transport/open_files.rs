//! Advice for errors of too many open files.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Adds the reached limit and the remedy to an error of too many open files.
#[must_use]
pub(crate) fn explained(error: io::Error) -> io::Error {
    let text = match error.raw_os_error().map(Errno::from_raw_os_error) {
        // The limit of the process. Its message alone does not say which of the two limits was
        // reached.
        Some(Errno::MFILE) => {
            let limit =
                getrlimit(Resource::Nofile).current.map_or("none".to_owned(), |limit| limit.to_string());
            format!(
                "{error}: this process may have {limit} open, which is its hard limit; raise it (ulimit -Hn, \
                 LimitNOFILE= of systemd), or run fewer workers"
            )
        }
        Some(Errno::NFILE) => {
            format!("{error}: the machine has reached its limit of open files; raise fs.file-max (sysctl)")
        }
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_reached_limit_of_open_files() {
        let limit = getrlimit(Resource::Nofile).current.unwrap().to_string();
        let of_process = explained(Errno::MFILE.into()).to_string();
        assert!(of_process.contains(&limit) && of_process.contains("ulimit -Hn"), "{of_process}");
        let of_machine = explained(Errno::NFILE.into()).to_string();
        assert!(of_machine.contains("fs.file-max"), "{of_machine}");
        assert_eq!(explained(Errno::NOENT.into()).raw_os_error(), Some(Errno::NOENT.raw_os_error()));
    }
}
