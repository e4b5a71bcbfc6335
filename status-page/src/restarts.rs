//! Restarts, by what a page told of its process's start.

/// Some tell it in whole seconds.
pub const ROUNDING_S: f64 = 1.0;

/// What one process answered: its start, the first and the last of its answers.
struct Process {
    start_s: f64,
    first: usize,
    last: usize,
}

/// How many processes had a successor, of these starts (Unix seconds) in the order of the answers: a younger one whose
/// first answer came after the last of the one before. Several behind a balancer that answer in turn have none.
/// That an older one would not have answered again is not known: of few answers this is the most that there were.
#[must_use]
pub fn restarts(starts_s: impl IntoIterator<Item = f64>) -> usize {
    let mut processes: Vec<Process> = Vec::new();
    for (at, start_s) in starts_s.into_iter().enumerate() {
        let known = |one: &&mut Process| (one.start_s - start_s).abs() <= ROUNDING_S;
        match processes.iter_mut().rev().find(known) {
            Some(known) => known.last = at,
            None => processes.push(Process { start_s, first: at, last: at }),
        }
    }
    let mut gone: Vec<&Process> = processes.iter().collect();
    gone.sort_by_key(|one| one.last);
    let mut found = 0;
    // In the order of their first answers, as they were met.
    for successor in &processes {
        let is_before =
            |one: &&Process| one.last < successor.first && one.start_s < successor.start_s;
        if let Some(before) = gone.iter().position(is_before) {
            gone.remove(before);
            found += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_answers_after_the_last_of_the_one_before() {
        let of = |starts: &[f64]| restarts(starts.iter().copied());
        let (old, other, new) = (100.0, 160.0, 900.0);
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[old, old, old + 0.5]), 0);
        assert_eq!(of(&[old, old, new, new]), 1);
        assert_eq!(of(&[old, other, new]), 2);
        // In turn, with either as the last.
        assert_eq!(of(&[old, other, old, other]), 0);
        assert_eq!(of(&[old, other, old, other, old]), 0);
        assert_eq!(of(&[other, old, old]), 0);
        // One of two is replaced, then the other.
        assert_eq!(of(&[old, other, old, new, other, new]), 1);
        assert_eq!(of(&[old, other, old, new, other, new, 950.0, new, 950.0]), 2);
    }
}
