//! Numbers of servers' status pages, told by their content, a line at a time: the Prometheus text
//! format, nginx `stub_status`, haproxy's statistics as CSV, Envoy's `/stats`.
//!
//! Names are those of the page where it has any (`go_goroutines`, Envoy's
//! `cluster.web.upstream_cx_active`); nginx's are those of its Prometheus exporter; haproxy's are its
//! CSV's columns, after what the row is about: `haproxy_server_scur{proxy="web",server="s1"}`. What Envoy's
//! admin interface counts of itself, which is whoever asks for the page, is left out.

mod envoy;
mod haproxy;
mod prometheus;
mod restarts;
mod stub_status;

pub use restarts::{ROUNDING_S, restarts};

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    pub name: String,
    /// As in Prometheus, without the braces; `None` where there are none.
    pub labels: Option<String>,
    /// Any float, also `NaN`.
    pub value: f64,
    /// Where the line has a time of its own.
    pub unix_ms: Option<i64>,
}

impl Number {
    fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), labels: None, value, unix_ms: None }
    }
}

/// Reads one page, line by line, since some lines only make sense after others.
#[derive(Debug, Default)]
pub struct Reader {
    haproxy: Option<haproxy::Columns>,
    stub_status: stub_status::Lines,
}

impl Reader {
    /// The numbers of the next line: none of a comment, a heading or a histogram. `None` for what is
    /// no line of any known page.
    pub fn line(&mut self, line: &str) -> Option<Vec<Number>> {
        let line = line.trim();
        if line.is_empty() {
            return Some(Vec::new());
        }
        if let Some(columns) = haproxy::Columns::of_heading(line) {
            self.haproxy = Some(columns);
            return Some(Vec::new());
        }
        if line.starts_with('#') {
            return Some(Vec::new());
        }
        if let Some(columns) = &self.haproxy {
            return columns.row(line);
        }
        self.stub_status
            .line(line)
            .or_else(|| prometheus::line(line).map(|number| vec![number]))
            .or_else(|| envoy::line(line))
            .map(envoy::without_admin)
    }
}

/// All numbers of a page; what is no line of a known page is passed over.
#[must_use]
pub fn numbers(page: &str) -> Vec<Number> {
    let mut reader = Reader::default();
    page.lines().filter_map(|line| reader.line(line)).flatten().collect()
}
