//! The metrics in Prometheus' classic text format, for whoever does not ask for OpenMetrics: curl,
//! `promtool check metrics`, older scrapers.

use std::fmt::Write;

/// What the format is served as.
pub(crate) const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters and infos are declared under the names that their samples have, an info is a gauge that
/// is 1, and nothing marks the end.
pub(crate) fn of_openmetrics(text: &str) -> String {
    let kinds = |name: &str| {
        let declares = |line: &&str| {
            let mut words = line.split(' ');
            words.nth(1) == Some("TYPE") && words.next() == Some(name)
        };
        text.lines().find(declares).and_then(|line| line.rsplit(' ').next()).unwrap_or_default()
    };
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# EOF")) {
        let mut words = line.splitn(4, ' ');
        let declared = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(word @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                Some((word, name, rest))
            }
            _ => None,
        };
        // Writing to a String cannot fail.
        let _ = match declared {
            None => writeln!(classic, "{line}"),
            Some((word, name, rest)) => match (kinds(name), word) {
                ("counter", _) => writeln!(classic, "# {word} {name}_total {rest}"),
                ("info", "TYPE") => writeln!(classic, "# TYPE {name}_info gauge"),
                ("info", _) => writeln!(classic, "# {word} {name}_info {rest}"),
                _ => writeln!(classic, "{line}"),
            },
        };
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_declared_as_their_samples_are_called() {
        let open = "# HELP a Made of things.\n# TYPE a counter\na_total{x=\"y # z\"} 3\n\
                    # HELP b Now.\n# TYPE b gauge\nb 1\n\
                    # HELP c Who.\n# TYPE c info\nc_info{version=\"1\"} 1\n# EOF\n";
        assert_eq!(
            of_openmetrics(open),
            "# HELP a_total Made of things.\n# TYPE a_total counter\na_total{x=\"y # z\"} 3\n\
             # HELP b Now.\n# TYPE b gauge\nb 1\n\
             # HELP c_info Who.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n"
        );
    }
}
