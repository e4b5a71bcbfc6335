//! Rules such as `phantoms.max_percent < 2`, from the command line, a TOML file, or a preset.

use std::path::Path;
use std::str::FromStr;
use std::{fmt, fs};

use crate::error::InputError;
use crate::threshold::measure::is_known;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

impl Op {
    fn sign(self) -> &'static str {
        match self {
            Op::Below => "<",
            Op::AtMost => "<=",
            Op::Above => ">",
            Op::AtLeast => ">=",
            Op::Equal => "==",
        }
    }

    fn is_upper(self) -> bool {
        matches!(self, Op::Below | Op::AtMost)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// `phantoms.max_percent`
    pub(crate) figure: String,
    limit: Bound,
    /// Beyond this, but within the limit: a warning, and no failure.
    warn: Option<Bound>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound {
    op: Op,
    number: f64,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>', '=']).ok_or_else(|| {
            format!("`{text}`: expected FIGURE OP NUMBER, such as 'phantoms.max_percent < 2'")
        })?;
        Rule::new(text[..at].trim(), &text[at..])
    }
}

impl Rule {
    /// `limit` has the operator in it, and may have a second step: `< 2`, or `<= 5, warn < 1`.
    fn new(figure: &str, limit: &str) -> Result<Self, String> {
        if !is_known(figure) {
            return Err(format!("no figure `{figure}`: `analyzer thresholds` lists them"));
        }
        let (limit, warn) = match limit.split_once(',') {
            Some((limit, warn)) => (limit, Some(warn.trim())),
            None => (limit, None),
        };
        let named = |why: String| format!("{figure}: {why}");
        let limit: Bound = limit.parse().map_err(named)?;
        let warn = warn.map(|warn| limit.warned_by(warn)).transpose().map_err(named)?;
        Ok(Rule { figure: figure.to_owned(), limit, warn })
    }

    /// `--max-imbalance`
    pub(crate) fn imbalance_at_most(percent: f64) -> Self {
        let limit = Bound { op: Op::AtMost, number: percent };
        Rule { figure: "shards.imbalance_percent".to_owned(), limit, warn: None }
    }

    pub(super) fn holds(&self, value: f64) -> bool {
        self.limit.holds(value)
    }

    pub(super) fn warns(&self, value: f64) -> bool {
        self.warn.is_some_and(|warn| !warn.holds(value))
    }

    /// As it was given: `< 2`, or `<= 5, warn < 1`.
    pub(crate) fn limit_text(&self) -> String {
        match self.warn {
            Some(warn) => format!("{}, warn {warn}", self.limit),
            None => self.limit.to_string(),
        }
    }

    pub(super) fn is_replaced_by(&self, later: &Rule) -> bool {
        self.figure == later.figure && self.limit.op.is_upper() == later.limit.op.is_upper()
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self.op {
            Op::Below => value < self.number,
            Op::AtMost => value <= self.number,
            Op::Above => value > self.number,
            Op::AtLeast => value >= self.number,
            Op::Equal => value == self.number,
        }
    }

    /// The step before this limit: `warn < 1`.
    fn warned_by(self, text: &str) -> Result<Bound, String> {
        let warn = text.strip_prefix("warn").ok_or_else(|| {
            format!("`{text}`: expected `warn`, an operator and a number, such as warn < 1")
        })?;
        let warn: Bound = warn.parse()?;
        let is_step = self.op != Op::Equal
            && warn.op != Op::Equal
            && self.op.is_upper() == warn.op.is_upper()
            && warn.number != self.number
            && (warn.number < self.number) == self.op.is_upper();
        if is_step {
            return Ok(warn);
        }
        Err(format!("`warn {warn}` is no step before `{self}`: a warning comes before the failure"))
    }
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // The longer signs first.
        let (op, number) = [Op::AtMost, Op::AtLeast, Op::Equal, Op::Below, Op::Above]
            .into_iter()
            .find_map(|op| Some((op, text.strip_prefix(op.sign())?.trim())))
            .ok_or_else(|| format!("`{text}`: expected <, <=, >, >= or == and a number"))?;
        let finite = number.parse::<f64>().ok().filter(|number| number.is_finite());
        let parsed = finite.ok_or_else(|| format!("`{number}` is no number"))?;
        Ok(Bound { op, number: parsed })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op.sign(), self.number)
    }
}

/// The thresholds of one scenario.
#[derive(Debug)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    /// Scenarios that are judged by it and have other names.
    pub(crate) scenarios: &'static [&'static str],
    text: &'static str,
}

macro_rules! presets {
    ($($name:literal $(for $($scenario:literal),*)?);* $(;)?) => {
        &[ $( Preset {
            name: $name,
            scenarios: &[ $($($scenario),*)? ],
            text: include_str!(concat!("preset/", $name, ".toml")),
        }, )* ]
    };
}

pub(crate) static PRESETS: &[Preset] = presets![
    "validate-100";
    "validate-1k";
    "quick";
    "medium";
    "stress";
    "balancer-12k";
    "smoke-30m";
    "emergency";
    "managers-50" for "tabs", "cold-start", "reconnects", "key-mismatch", "slow-cleanup";
    "managers";
    "managers-100" for "all";
];

impl Preset {
    pub(crate) fn rules(&self) -> Result<Vec<Rule>, InputError> {
        parse(self.text).map_err(|why| InputError::Thresholds { path: self.name.into(), why })
    }
}

pub(crate) fn preset_name(name: &str) -> Result<&'static Preset, String> {
    let called = |preset: &&Preset| preset.name == name || preset.scenarios.contains(&name);
    PRESETS.iter().find(called).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        format!("expected one of {}, or a leak scenario of the lab", names.join(", "))
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<Rule>, InputError> {
    let text = fs::read_to_string(path)
        .map_err(|error| InputError::Read { path: path.to_path_buf(), error })?;
    parse(&text).map_err(|why| InputError::Thresholds { path: path.to_path_buf(), why })
}

/// A table `[thresholds]` of figures, nested at the dot or not, each with a limit or several.
fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    })?;
    if let Some(other) = document.keys().find(|key| *key != "thresholds") {
        return Err(format!("unknown key {other}: expected a table [thresholds]"));
    }
    let table = document.get("thresholds").and_then(toml::Value::as_table);
    let table = table.ok_or("expected a table [thresholds]")?;
    let mut rules = Vec::new();
    collect("", table, &mut rules)?;
    if rules.is_empty() {
        return Err("[thresholds] has no rule, such as phantoms.max = \"<= 5\"".to_owned());
    }
    Ok(rules)
}

fn collect(prefix: &str, table: &toml::Table, rules: &mut Vec<Rule>) -> Result<(), String> {
    for (key, value) in table {
        let figure = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let limits = match value {
            toml::Value::Table(nested) => {
                collect(&figure, nested, rules)?;
                continue;
            }
            toml::Value::String(limit) => vec![limit.as_str()],
            toml::Value::Array(limits) if limits.iter().all(|limit| limit.as_str().is_some()) => {
                limits.iter().filter_map(toml::Value::as_str).collect()
            }
            other => {
                let kind = other.type_str();
                return Err(format!("{figure} is {kind}: expected text such as \"< 2\""));
            }
        };
        for limit in limits {
            rules.push(Rule::new(&figure, limit)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_written_as_in_k6() {
        let rule: Rule = "phantoms.max_percent<2.5".parse().unwrap();
        assert_eq!(
            (rule.figure.as_str(), rule.limit_text()),
            ("phantoms.max_percent", "< 2.5".into())
        );
        assert!(rule.holds(2.4) && !rule.holds(2.5));
        let rule: Rule = "clients.success_rate >= 0.99".parse().unwrap();
        assert!(rule.holds(0.99) && !rule.holds(0.98));
        for (text, why) in [
            ("phantoms", "expected FIGURE OP NUMBER"),
            ("phantom.max < 2", "no figure `phantom.max`: `analyzer thresholds` lists them"),
            ("phantoms.max < two", "phantoms.max: `two` is no number"),
            ("phantoms.max = 2", "expected <, <=, >, >= or == and a number"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_warning_comes_before_the_failure() {
        let rule: Rule = "clients.errors_percent <= 5, warn < 1".parse().unwrap();
        assert_eq!(rule.limit_text(), "<= 5, warn < 1");
        let seen = [0.5, 1.0, 5.0, 5.1].map(|value| (rule.holds(value), rule.warns(value)));
        assert_eq!(seen, [(true, false), (true, true), (true, true), (false, true)]);
        let rule: Rule = "clients.success_rate>=0.9,warn>=0.99".parse().unwrap();
        assert!(rule.holds(0.95) && rule.warns(0.95) && !rule.warns(0.99));
        for (text, why) in [
            ("phantoms.max < 5, < 2", "phantoms.max: `< 2`: expected `warn`, an operator"),
            ("phantoms.max < 5, warn 2", "phantoms.max: `2`: expected <, <=, >, >= or =="),
            ("phantoms.max < 5, warn < 9", "`warn < 9` is no step before `< 5`"),
            ("phantoms.max < 5, warn < 5", "`warn < 5` is no step before `< 5`"),
            ("phantoms.max < 5, warn > 2", "`warn > 2` is no step before `< 5`"),
            ("phantoms.max == 5, warn < 2", "`warn < 2` is no step before `== 5`"),
            ("clients.success_rate > 0.9, warn > 0.5", "`warn > 0.5` is no step before `> 0.9`"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn files_may_nest_and_give_several_limits() {
        let rules = parse(
            "[thresholds]\nphantoms.max = \"<= 5\"\n\"handshake.p99_ms\" = [\"< 50\", \"> 0\"]\n\
             [thresholds.leaks]\ngoroutines_per_minute = \"< 10\"\n",
        )
        .unwrap();
        let mut figures: Vec<_> =
            rules.iter().map(|rule| format!("{} {}", rule.figure, rule.limit_text())).collect();
        figures.sort_unstable();
        assert_eq!(
            figures,
            [
                "handshake.p99_ms < 50",
                "handshake.p99_ms > 0",
                "leaks.goroutines_per_minute < 10",
                "phantoms.max <= 5"
            ]
        );
        for (text, why) in [
            ("[thresholds\n", "line 1: "),
            ("[limits]\nphantoms.max = \"< 1\"\n", "unknown key limits"),
            ("", "expected a table [thresholds]"),
            ("[thresholds]\n", "[thresholds] has no rule"),
            ("[thresholds]\nphantoms.max = 5\n", "phantoms.max is integer: expected text"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn every_preset_is_sound() {
        for preset in PRESETS {
            assert!(!preset.rules().unwrap().is_empty(), "{}", preset.name);
        }
        for (scenario, preset) in [("tabs", "managers-50"), ("all", "managers-100")] {
            assert_eq!(preset_name(scenario).unwrap().name, preset);
        }
        assert!(preset_name("nope").unwrap_err().contains("managers-100, or a leak scenario"));
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        #[test]
        fn hostile_files(bytes in fuzz::damaged(fuzz::corpus("thresholds"))) {
            if let Ok(text) = String::from_utf8(bytes) {
                let _ = parse(&text);
            }
        }
    }
}
