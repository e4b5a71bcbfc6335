//! What came out: every check with both its numbers.

use std::fmt;

use serde_json::{Value, json};

use super::Options;
use crate::probe::{Agent, Counts};

/// One equality that must hold, or one that must but for a bound.
#[derive(Clone, Debug)]
pub struct Check {
    /// When: the act and the barrier.
    pub at: String,
    pub what: String,
    pub ours: i64,
    pub kernel: i64,
    pub holds: bool,
    /// The first difference, with its socket.
    pub difference: Option<String>,
}

impl Check {
    pub(super) fn equal(at: &str, what: &str, ours: i64, kernel: i64) -> Self {
        let (at, what) = (at.to_owned(), what.to_owned());
        Self { at, what, ours, kernel, holds: ours == kernel, difference: None }
    }

    /// No more than the kernel, and less by no more than `missed`.
    pub(super) fn short_by(at: &str, what: &str, ours: i64, kernel: i64, missed: i64) -> Self {
        Self::between(at, what, ours, kernel, (missed, 0))
    }

    /// Less by no more than the first, more by no more than the second.
    pub(super) fn between(
        at: &str,
        what: &str,
        ours: i64,
        kernel: i64,
        (less, more): (i64, i64),
    ) -> Self {
        let mut what = what.to_owned();
        for (most, word) in [(less, "less"), (more, "more")] {
            if most > 0 {
                what.push_str(&format!(", {most} {word} at the most"));
            }
        }
        let holds = (-less..=more).contains(&(ours - kernel));
        Self { holds, ..Self::equal(at, &what, ours, kernel) }
    }

    /// The verdict that the probe prints itself.
    pub(super) fn exact(at: &str, counts: &Counts) -> Self {
        let exact = counts.0["exact"] == true;
        let mut check = Self::equal(at, "the probe calls its counts exact", i64::from(exact), 1);
        if !exact {
            check.fail(format!("degraded: {}", counts.0["degraded"]));
        }
        check
    }

    pub(super) fn fail(&mut self, difference: String) {
        self.holds = false;
        self.difference = Some(difference);
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.holds { '✓' } else { '✗' };
        write!(f, "{mark} {}: {} / {}", self.what, self.ours, self.kernel)?;
        match &self.difference {
            Some(difference) => write!(f, "\n    {difference}"),
            None => Ok(()),
        }
    }
}

/// The whole run.
#[derive(Debug)]
pub struct Report {
    options: Options,
    pub checks: Vec<Check>,
    /// State changes of TCP sockets on this host meanwhile, as perf counted them.
    pub transitions: u64,
    /// Episodes of the load by topic, done and failed, of each act.
    pub books: Vec<Value>,
    vitals: Vec<Value>,
}

impl Report {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            options: *options,
            checks: Vec::new(),
            transitions: 0,
            books: Vec::new(),
            vitals: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, check: Check) {
        self.checks.push(check);
    }

    pub(super) fn take_books(&mut self, books: &Value) {
        self.books.push(books.clone());
    }

    pub(super) fn take_vitals(&mut self, act: &str, agent: &Agent) {
        self.vitals.push(json!({ "act": act, "vitals": agent.vitals() }));
    }

    /// The first check that does not hold.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| !check.holds)
    }

    #[must_use]
    pub fn json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                json!({
                    "at": check.at, "what": check.what, "ours": check.ours,
                    "kernel": check.kernel, "holds": check.holds, "difference": check.difference,
                })
            })
            .collect();
        json!({
            "schema_version": "1.0",
            "seed": self.options.seed,
            "transitions": self.transitions,
            "checks": checks,
            "episodes": self.books,
            "agent": self.vitals,
        })
    }
}
