//! What the audits so far say of the counts. One that could not be made, or not everywhere, says nothing:
//! the last whole one stands, and where none follows in time, counts are no longer called exact.

use std::time::{Duration, Instant, SystemTime};

use super::audit::Audit;

/// Between two audits at least, and how many times its own run time an audit rests.
pub const EVERY: Duration = Duration::from_secs(10);
const SHARE: u32 = 200;
/// The same after one that found counts wrong; later than otherwise the next never comes.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_SHARE: u32 = 20;

/// How long after it was due a whole audit may be missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait after an audit that took so long; `None`: it failed.
#[must_use]
pub fn pause_after(audit: Option<&Audit>, took: Duration) -> Duration {
    match audit {
        // What was found wrong is made good by the next round, and said until then.
        Some(audit) if !audit.is_clean() => (took * AGAIN_SHARE).clamp(AGAIN, EVERY),
        Some(audit) if audit.unlisted.is_empty() => EVERY.max(took * SHARE),
        _ => EVERY,
    }
}

/// The audits of one source.
#[derive(Clone, Debug)]
pub struct Audits {
    /// The last whole one, or one since that found drift where it could look.
    standing: Option<Audit>,
    /// Why there is none since.
    failure: Option<String>,
    /// By when the next whole one should be there.
    due: Instant,
    /// Until then all was held against the kernel's list.
    whole_until: SystemTime,
    made: u64,
    failed: u64,
}

/// A verdict on counts, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Why they are not exact.
    pub inexact: Vec<String>,
    /// What else is to be known of them.
    pub uncertain: Vec<String>,
}

impl Audits {
    /// None yet; the first is due in `first`.
    #[must_use]
    pub fn expected_in(first: Duration) -> Self {
        Self {
            standing: None,
            failure: None,
            due: Instant::now() + first,
            whole_until: SystemTime::now(),
            made: 0,
            failed: 0,
        }
    }

    /// Takes what the last one found; `next` is the time to the one that follows it.
    pub fn take(&mut self, found: anyhow::Result<Audit>, next: Duration) {
        let found = found.map_err(|error| format!("{error:#}"));
        self.failure = match &found {
            Ok(audit) => audit.unlisted_words(),
            Err(error) => Some(error.clone()),
        };
        if self.failure.is_some() {
            self.failed += 1;
        } else {
            self.made += 1;
            self.due = Instant::now() + next;
            self.whole_until = SystemTime::now();
        }
        if let Ok(audit) = found
            && (self.failure.is_none() || !audit.is_clean())
        {
            self.standing = Some(audit);
        }
    }

    #[must_use]
    pub fn judge(&self, now: Instant) -> Judged {
        let mut judged = Judged::default();
        if let Some(audit) = &self.standing {
            if !audit.is_clean() {
                judged.inexact.push(format!(
                    "the last audit found {} counted sockets that are gone and {} that are not counted",
                    audit.extra, audit.missing
                ));
            }
            judged.uncertain.extend(audit.beyond_words());
        }
        let is_overdue = now.saturating_duration_since(self.due) > PATIENCE;
        if is_overdue {
            let since = humantime::format_rfc3339_seconds(self.whole_until);
            let why = self.failure.as_deref().unwrap_or("the audit that is due has not ended");
            judged.inexact.push(format!(
                "counts have not been held against the kernel's list of sockets since {since}: {why}"
            ));
        } else if let Some(failure) = &self.failure {
            judged.uncertain.push(format!("the last audit failed: {failure}"));
        }
        judged
    }

    #[must_use]
    pub fn vitals(&self) -> Vec<(&'static str, i64)> {
        let mut vitals =
            vec![("audits", self.made.cast_signed()), ("audits_failed", self.failed.cast_signed())];
        if let Some(audit) = &self.standing {
            vitals.push(("drift", audit.drift()));
            vitals.push(("audited_sockets", audit.listed.cast_signed()));
        }
        vitals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: Duration = Duration::from_secs(10);

    fn exact_after(audits: &Audits, seconds: u64) -> (bool, String) {
        let judged = audits.judge(Instant::now() + Duration::from_secs(seconds));
        let exact = judged.inexact.is_empty();
        (exact, [judged.inexact, judged.uncertain].concat().join("; "))
    }

    fn partly() -> Audit {
        Audit { unlisted: vec!["network namespace 23: EPERM".into()], ..Audit::default() }
    }

    #[test]
    fn the_next_audit_comes_sooner_where_counts_are_wrong() {
        let pauses = |audit: Option<Audit>| {
            let after = |ms| pause_after(audit.as_ref(), Duration::from_millis(ms)).as_millis();
            [10, 100, 3000].map(after)
        };
        assert_eq!(pauses(Some(Audit::default())), [10_000, 20_000, 600_000]);
        assert_eq!(pauses(Some(Audit { missing: 1, ..Audit::default() })), [1000, 2000, 10_000]);
        assert_eq!(pauses(Some(partly())), [10_000; 3]);
        assert_eq!(pauses(None), [10_000; 3]);
    }

    #[test]
    fn a_failed_audit_weakens_the_promise_once_it_is_overdue() {
        let mut audits = Audits::expected_in(NEXT);
        assert_eq!(exact_after(&audits, 39), (true, String::new()));
        audits.take(Ok(Audit::default()), Duration::from_secs(200));
        // Rarer audits, where one takes long, are waited for.
        assert_eq!(exact_after(&audits, 229), (true, String::new()));
        audits.take(Err(anyhow::anyhow!("no dump")), NEXT);
        assert_eq!(exact_after(&audits, 229), (true, "the last audit failed: no dump".into()));
        let (exact, words) = exact_after(&audits, 231);
        assert!(!exact);
        assert!(
            words.starts_with("counts have not been held against the kernel's list"),
            "{words}"
        );
        assert!(words.ends_with("Z: no dump"), "{words}");
        audits.take(Ok(Audit::default()), NEXT);
        assert_eq!(exact_after(&audits, 39), (true, String::new()));
        assert_eq!(audits.vitals()[..2], [("audits", 2), ("audits_failed", 1)]);
    }

    #[test]
    fn one_that_leaves_out_a_namespace_is_no_whole_one() {
        let mut audits = Audits::expected_in(NEXT);
        audits.take(Ok(partly()), NEXT);
        let words = "network namespace 23: EPERM";
        assert_eq!(exact_after(&audits, 39), (true, format!("the last audit failed: {words}")));
        assert!(!exact_after(&audits, 41).0);
    }

    #[test]
    fn one_that_never_ends_is_overdue_too() {
        let audits = Audits::expected_in(NEXT);
        let (exact, words) = exact_after(&audits, 41);
        assert!(!exact && words.ends_with("the audit that is due has not ended"), "{words}");
    }

    #[test]
    fn drift_stands_until_a_whole_audit_finds_none() {
        let mut audits = Audits::expected_in(NEXT);
        audits.take(Ok(Audit { extra: 2, ..Audit::default() }), NEXT);
        for failed in [Err(anyhow::anyhow!("no dump")), Ok(partly())] {
            audits.take(failed, NEXT);
            let (exact, words) = exact_after(&audits, 0);
            assert!(!exact && words.contains("found 2 counted sockets that are gone"), "{words}");
        }
        audits.take(Ok(Audit { missing: 1, ..partly() }), NEXT);
        assert!(exact_after(&audits, 0).1.contains("and 1 that are not counted"));
        audits.take(Ok(Audit::default()), NEXT);
        assert_eq!(exact_after(&audits, 0), (true, String::new()));
    }
}
