//! Numbers of a server's metrics page, in the Prometheus text format.

use super::request::{Asked, Failure, Target};

/// What tells a leak of descriptors, tasks or memory; the names are those of the common client
/// libraries.
pub(crate) const USUAL: [&str; 6] = [
    "go_goroutines",
    "nodejs_active_handles_total",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
];

/// One sample line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Without the braces; `None` where there are none.
    pub(crate) labels: Option<String>,
    /// Any float, also `NaN`.
    pub(crate) value: f64,
}

/// Which page, and which of its numbers.
#[derive(Clone, Debug)]
pub(crate) struct MetricsPoller {
    pub(crate) target: Target,
    /// Beside the usual ones.
    pub(crate) names: Vec<String>,
}

impl MetricsPoller {
    pub(crate) async fn ask(&self) -> Asked<Vec<Series>> {
        self.target.get("text/plain;version=0.0.4", |body| self.pick(body)).await
    }

    fn pick(&self, body: &[u8]) -> Result<Vec<Series>, Failure> {
        let page = String::from_utf8_lossy(body);
        let all: Vec<Series> = page.lines().filter_map(parse).collect();
        let is_wanted = |series: &&Series| {
            USUAL.contains(&series.name.as_str()) || self.names.contains(&series.name)
        };
        let missing = self.names.iter().find(|name| !all.iter().any(|one| one.name == **name));
        let picked: Vec<Series> = all.iter().filter(is_wanted).cloned().collect();
        if missing.is_none() && !picked.is_empty() {
            return Ok(picked);
        }
        Err(Failure::NoMetric {
            wanted: missing.cloned().unwrap_or_else(|| USUAL.join(", ")),
            near: near(&all),
        })
    }
}

/// Names that the page does have.
fn near(all: &[Series]) -> String {
    let mut names: Vec<&str> = all.iter().map(|series| series.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return "it has no numbers at all".into();
    }
    let more = if names.len() > 6 { ", …" } else { "" };
    names.truncate(6);
    format!("it has {}{more}", names.join(", "))
}

/// `name{labels} value timestamp`; comments and what is no such line are none.
fn parse(line: &str) -> Option<Series> {
    let line = line.trim();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let end = line.find(|c| !is_part(c))?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return None;
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inside) => {
            let end = closing_brace(inside)?;
            (Some(inside[..end].trim().to_owned()), &inside[end + 1..])
        }
        None => (None, rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    let labels = labels.filter(|labels| !labels.is_empty());
    Some(Series { name: name.to_owned(), labels, value })
}

/// Braces within a label's value are no ends.
fn closing_brace(inside: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, labels: Option<&str>, value: f64) -> Option<Series> {
        Some(Series { name: name.into(), labels: labels.map(Into::into), value })
    }

    #[test]
    fn lines_are_read() {
        assert_eq!(parse("go_goroutines 2013"), series("go_goroutines", None, 2013.0));
        assert_eq!(parse("a:b_1  1.5e3 1700000000000"), series("a:b_1", None, 1500.0));
        assert_eq!(
            parse(r#"x{path="/{id}\"}",a="b",} +Inf"#),
            series("x", Some(r#"path="/{id}\"}",a="b","#), f64::INFINITY)
        );
        assert_eq!(parse("x{} -1"), series("x", None, -1.0));
        for line in ["# TYPE x gauge", "", "x", "x{a=\"b\" 1", "{a=\"b\"} 1", "x one", "<html>"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    fn pick(names: &[&str], page: &str) -> Result<Vec<Series>, String> {
        let target = Target {
            url: "http://localhost/metrics".parse().unwrap(),
            timeout: std::time::Duration::from_secs(1),
            ca: None,
        };
        let names = names.iter().map(|&name| name.to_owned()).collect();
        MetricsPoller { target, names }.pick(page.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_usual_ones_and_those_asked_for_are_picked() {
        let page = "process_open_fds 42\nws_open{pool=\"a\"} 1\nws_open{pool=\"b\"} 2\nother 9\n";
        let picked = pick(&["ws_open"], page).unwrap();
        let found: Vec<_> = picked.iter().map(|one| (one.name.as_str(), one.value)).collect();
        assert_eq!(found, [("process_open_fds", 42.0), ("ws_open", 1.0), ("ws_open", 2.0)]);
        assert_eq!(
            pick(&["ws_opne"], page).unwrap_err(),
            "the page has none of ws_opne; it has other, process_open_fds, ws_open (choose with --metric)"
        );
        assert!(
            pick(&[], "<html>\n")
                .unwrap_err()
                .ends_with("it has no numbers at all (choose with --metric)")
        );
    }
}
