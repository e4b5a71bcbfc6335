//! The directory of a run: its files, and how it is made ready.

use std::path::Path;

use crate::error::{LabError, file_error};

/// Files of a run, beside the reports.
pub(super) const MARK: &str = "run.json";
pub(super) const TRUTH: &str = "truth.jsonl";
pub(super) const RESULTS: &str = "results.jsonl";
pub(super) const CUT_OFF_RESULTS: &str = "results-cut-off.jsonl";
/// What `analyzer handshakes --attempts` says.
pub(super) const ATTEMPTS: &str = "attempts.jsonl";
pub(super) const CAPTURE: &str = "capture";
pub(super) const REPORT: &str = "report.json";
/// Only where nothing can be recorded.
pub(super) const BLOCKS: &str = "watch.jsonl";

/// What a run may leave behind, beside the capture.
const LEFT_BEHIND: &[&str] = &[
    TRUTH,
    RESULTS,
    CUT_OFF_RESULTS,
    BLOCKS,
    ATTEMPTS,
    REPORT,
    "report.html",
    "report.md",
    "serve.log",
    "load.log",
    "results.summary.json",
    "results-cut-off.summary.json",
    MARK,
];

/// The directory for the run: new, empty, or of an earlier run, whose files go.
pub(super) fn prepare(dir: &Path) -> anyhow::Result<()> {
    let fail = |error| file_error(dir, "prepare", &error);
    std::fs::create_dir_all(dir).map_err(fail)?;
    let mark = dir.join(MARK);
    if mark.exists() {
        let capture = dir.join(CAPTURE);
        if capture.exists() {
            std::fs::remove_dir_all(capture).map_err(fail)?;
        }
        for file in LEFT_BEHIND.iter().map(|name| dir.join(name)).filter(|file| file.exists()) {
            std::fs::remove_file(file).map_err(fail)?;
        }
    }
    if std::fs::read_dir(dir).map_err(fail)?.next().is_some() {
        return Err(LabError::usage(format!(
            "{} has files that no run of `lab run` left; choose a new or empty directory",
            dir.display()
        )));
    }
    std::fs::write(&mark, "{}\n").map_err(|error| file_error(&mark, "write", &error))
}
