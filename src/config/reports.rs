//! Limits of the reports of jobs.

/// Maximum number of rows of each kind in a report.
pub const REPORT_ROWS_MAX: usize = 1000;

/// Maximum number of logs in a report.
pub const REPORT_LOGS_MAX: usize = 64;

/// Maximum number of lines of each log in a report, the last ones.
pub const REPORT_LOG_LINES: u64 = 200;

/// Maximum length of the text of each log in a report, in bytes.
pub const REPORT_LOG_BYTES_MAX: usize = 32 << 10;

/// Maximum number of reports that the head keeps.
pub const REPORT_FILES_MAX: usize = 100;

/// Maximum size of all reports that the head keeps, in bytes.
pub const REPORT_FILES_BYTES_MAX: u64 = 256 << 20;

/// Maximum number of ended jobs that wait for their report.
pub const REPORTS_QUEUED_MAX: usize = 64;
