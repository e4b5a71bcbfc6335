//! Rules such as `phantoms.max_percent < 2`, from the command line, a TOML file, or a preset.

use std::fs;
use std::path::Path;
use std::str::FromStr;

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
    op: Op,
    limit: f64,
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
    /// `limit` has the operator in it: `< 2`.
    fn new(figure: &str, limit: &str) -> Result<Self, String> {
        if !is_known(figure) {
            return Err(format!("no figure `{figure}`: `analyzer thresholds` lists them"));
        }
        let limit = limit.trim();
        // The longer signs first.
        let (op, number) = [Op::AtMost, Op::AtLeast, Op::Equal, Op::Below, Op::Above]
            .into_iter()
            .find_map(|op| Some((op, limit.strip_prefix(op.sign())?)))
            .ok_or_else(|| {
                format!("{figure}: `{limit}`: expected <, <=, >, >= or == and a number")
            })?;
        let number = number.trim();
        let limit = number.parse::<f64>().ok().filter(|limit| limit.is_finite());
        let limit = limit.ok_or_else(|| format!("{figure}: `{number}` is no number"))?;
        Ok(Rule { figure: figure.to_owned(), op, limit })
    }

    /// `--max-imbalance`
    pub(crate) fn imbalance_at_most(percent: f64) -> Self {
        Rule { figure: "shards.imbalance_percent".to_owned(), op: Op::AtMost, limit: percent }
    }

    pub(crate) fn holds(&self, value: f64) -> bool {
        match self.op {
            Op::Below => value < self.limit,
            Op::AtMost => value <= self.limit,
            Op::Above => value > self.limit,
            Op::AtLeast => value >= self.limit,
            Op::Equal => value == self.limit,
        }
    }

    pub(crate) fn limit_text(&self) -> String {
        format!("{} {}", self.op.sign(), self.limit)
    }

    pub(super) fn is_replaced_by(&self, later: &Rule) -> bool {
        self.figure == later.figure && self.op.is_upper() == later.op.is_upper()
    }
}

/// The thresholds of one scenario.
#[derive(Debug)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    text: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[ $( Preset { name: $name, text: include_str!(concat!("preset/", $name, ".toml")) }, )* ]
    };
}

pub(crate) static PRESETS: &[Preset] = presets![
    "validate-100",
    "validate-1k",
    "quick",
    "medium",
    "stress",
    "balancer-12k",
    "smoke-30m",
    "managers",
];

impl Preset {
    pub(crate) fn rules(&self) -> Result<Vec<Rule>, InputError> {
        parse(self.text).map_err(|why| InputError::Thresholds { path: self.name.into(), why })
    }
}

pub(crate) fn preset_name(name: &str) -> Result<&'static Preset, String> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        format!("expected one of {}", names.join(", "))
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
