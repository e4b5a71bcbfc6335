//! Why a recording is not whole: what a source tells of again and again, told once, and once more when it has
//! gone on.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use crate::truth::losses;

/// Kinds of reasons that are told of; there are a dozen. Losses have room beside them.
const MOST: usize = 100;
const MORE: &str = "not whole in more ways than are told of";

#[derive(Debug, Default)]
pub(super) struct Reasons {
    /// By its gist: the last that was told of it.
    told: BTreeMap<String, String>,
    /// What has been told of as lost, up to now.
    lost: HashMap<&'static str, u64>,
}

impl Reasons {
    /// What is new in a sentence, and how many were lost since the last such.
    pub(super) fn news(&mut self, mut sentence: String) -> Option<(Cow<'static, str>, u64)> {
        let loss = losses::lost(&sentence);
        let mut gist = losses::gist(&sentence);
        if loss.is_none() && self.told.len() >= MOST && !self.told.contains_key(&gist) {
            (sentence, gist) = (MORE.to_owned(), MORE.to_owned());
        }
        if self.told.get(&gist) == Some(&sentence) {
            return None;
        }
        let news = match loss {
            // Such a sentence tells of all up to now.
            Some((words, total)) => {
                let before = self.lost.insert(words, total).unwrap_or(0);
                (words.into(), total.checked_sub(before).unwrap_or(total))
            }
            None => (sentence.clone().into(), 0),
        };
        self.told.insert(gist, sentence);
        Some(news)
    }

    pub(super) fn into_told(self) -> Vec<String> {
        self.told.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many connection records were lost up to now.
    fn lost(count: u64) -> String {
        format!(
            "{count} connection records were lost: they came faster than they were read (`probe stop \
             --purge`, then `probe serve` with a larger --ring-bytes)"
        )
    }

    /// A reason of its own, however many came before.
    fn reason(n: usize) -> String {
        let letters: String = n.to_string().bytes().map(|digit| char::from(digit + 50)).collect();
        format!("cannot enter {letters}")
    }

    #[test]
    fn what_goes_on_is_told_again_and_kept_once() {
        let mut reasons = Reasons::default();
        assert_eq!(reasons.news("3 sockets are gone".into()).unwrap().1, 0);
        assert_eq!(reasons.news("3 sockets are gone".into()), None);
        assert_eq!(reasons.news("5 sockets are gone".into()).unwrap().0, "5 sockets are gone");
        assert_eq!(reasons.news(lost(7)).unwrap().1, 7);
        assert_eq!(reasons.news(lost(30)).unwrap().1, 23);
        // A new agent counts from its own start.
        assert_eq!(reasons.news(lost(2)).unwrap().1, 2);
        assert_eq!(reasons.into_told(), ["5 sockets are gone".into(), lost(2)]);
    }

    #[test]
    fn reasons_are_bounded_and_losses_are_told_all_the_same() {
        let mut reasons = Reasons::default();
        let told: Vec<_> = (0..1000).filter_map(|n| reasons.news(reason(n))).collect();
        assert_eq!(told.len(), MOST + 1);
        assert_eq!(told[MOST], (MORE.into(), 0));
        // Those that have a place keep it.
        assert_eq!(reasons.news(reason(MOST - 1)), None);
        assert_eq!(reasons.news(lost(7)).unwrap().1, 7);
        let told = reasons.into_told();
        assert_eq!(told.len(), MOST + 2);
        assert!(told.contains(&lost(7)));
    }
}
