//! Reads what `cargo test -- --show-output` prints. A test that cannot run here prints a line
//! `skipped: why` and returns; libtest knows it as passed.

use std::fmt::Write as _;

/// What happened, test by test where it matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: usize,
    failed: Vec<String>,
    /// Name and reason.
    skipped: Vec<(String, String)>,
    suite: String,
    /// Between a suite's `running N tests` and its `test result`.
    running: bool,
    /// The passed test whose own output is being read.
    showing: Option<String>,
    /// In the list of what passed tests printed.
    successes: bool,
}

impl Summary {
    /// Takes the next line of cargo's and libtest's output. True if it is worth showing: what passed
    /// tests print is not.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        let text = line.trim();
        if self.successes && text != "failures:" && !text.starts_with("test result: ") {
            self.success_output(line);
            return false;
        }
        self.successes = text == "successes:";
        self.showing = None;
        if let Some(rest) = text.strip_prefix("Running ") {
            self.end_suite();
            self.suite = suite_name(rest);
        } else if let Some(name) = text.strip_prefix("Doc-tests ") {
            self.end_suite();
            self.suite = format!("{name} (doc)");
        } else if text.starts_with("running ") && text.contains(" test") {
            self.running = true;
        } else if text.starts_with("test result: ") {
            self.running = false;
        } else if let Some(rest) = text.strip_prefix("test ") {
            self.test(rest);
        }
        !self.successes
    }

    /// `---- name stdout ----`, and then what the test printed.
    fn success_output(&mut self, line: &str) {
        if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.showing = Some(name.to_owned());
        } else if let Some(reason) = line.strip_prefix("skipped: ")
            && let Some(name) = self.showing.take()
        {
            self.skipped.push((format!("{}: {name}", self.suite), reason.to_owned()));
            self.passed = self.passed.saturating_sub(1);
        }
    }

    fn test(&mut self, rest: &str) {
        let Some((name, outcome)) = rest.rsplit_once(" ... ") else { return };
        let name = format!("{}: {name}", self.suite);
        if outcome == "ok" {
            self.passed += 1;
        } else if outcome == "FAILED" {
            self.failed.push(name);
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "ignored, no reason given" } else { reason };
            self.skipped.push((name, reason.to_owned()));
        }
    }

    /// A suite that began and printed no result was killed, or aborted.
    fn end_suite(&mut self) {
        self.successes = false;
        if std::mem::take(&mut self.running) {
            self.failed.push(format!("{}: ended without a result", self.suite));
        }
    }

    /// Ends the reading. `cargo_failed` makes sure that a failure is never lost.
    pub(crate) fn finish(mut self, cargo_failed: bool) -> Self {
        self.end_suite();
        if cargo_failed && self.failed.is_empty() {
            self.failed.push("cargo test failed outside of any test, see above".to_owned());
        }
        self
    }

    pub(crate) fn any_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    pub(crate) fn any_skipped(&self) -> bool {
        !self.skipped.is_empty()
    }

    /// The failed and the skipped ones by name, and the counts in the last line.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for name in &self.failed {
            let _ = writeln!(text, "failed   {name}");
        }
        for (name, reason) in &self.skipped {
            let _ = writeln!(text, "skipped  {name}\n         {reason}");
        }
        let _ = write!(
            text,
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed.len(),
            self.skipped.len()
        );
        text
    }
}

/// `unittests src/main.rs (target/debug/deps/probe-0123)` → `probe`.
fn suite_name(running: &str) -> String {
    let file = running
        .rsplit_once('(')
        .and_then(|(_, path)| path.trim_end_matches(')').rsplit('/').next())
        .unwrap_or(running);
    file.rsplit_once('-').map_or(file, |(name, _)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The summary, and the lines that are shown.
    fn read(output: &str) -> (Summary, Vec<&str>) {
        let mut summary = Summary::default();
        let shown = output.lines().filter(|line| summary.line(line)).collect();
        (summary, shown)
    }

    #[test]
    fn counts_are_taken_from_every_suite() {
        let (summary, shown) = read(
            "\
     Running unittests src/lib.rs (target/debug/deps/capture-0a1b)
running 2 tests
test reader::one ... ok
test reader::two ... FAILED
successes:

---- reader::one stdout ----
test of something ... ok

failures:

---- reader::two stdout ----
it broke
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
     Running tests/docker.rs (target/debug/deps/docker-ffff)
running 3 tests
test a ... ok
test b ... ok
test c ... ignored, takes an hour
successes:

---- b stdout ----
looking for docker
skipped: no docker here

successes:
    a
    b

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 9.01s
   Doc-tests capture
running 0 tests
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(
            summary.finish(true).text(),
            "failed   capture: reader::two\n\
             skipped  docker: c\n         takes an hour\n\
             skipped  docker: b\n         no docker here\n\
             2 passed, 1 failed, 2 skipped"
        );
        assert!(shown.contains(&"it broke"));
        assert!(
            !shown.contains(&"looking for docker") && !shown.contains(&"test of something ... ok")
        );
    }

    #[test]
    fn a_suite_that_was_killed_is_a_failure() {
        let (summary, _) = read(
            "\
     Running tests/churn.rs (target/debug/deps/churn-1)
running 1 test
",
        );
        let summary = summary.finish(true);
        assert!(summary.any_failed());
        assert_eq!(
            summary.text(),
            "failed   churn: ended without a result\n0 passed, 1 failed, 0 skipped"
        );
    }

    #[test]
    fn a_failure_outside_of_the_tests_is_not_lost() {
        assert!(Summary::default().finish(true).any_failed());
    }
}
