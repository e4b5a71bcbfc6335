//! nginx `stub_status`: four lines, the third of which is the second's values.

use crate::Number;

#[derive(Debug, Default)]
pub(crate) struct Lines {
    totals_follow: bool,
}

impl Lines {
    pub(crate) fn line(&mut self, line: &str) -> Option<Vec<Number>> {
        if let Some(active) = line.strip_prefix("Active connections:") {
            return named(&["nginx_connections_active"], [active.trim()]);
        }
        if line == "server accepts handled requests" {
            self.totals_follow = true;
            return Some(Vec::new());
        }
        if std::mem::take(&mut self.totals_follow) {
            let names = [
                "nginx_connections_accepted",
                "nginx_connections_handled",
                "nginx_http_requests_total",
            ];
            return named(&names, line.split_whitespace());
        }
        let rest = line.strip_prefix("Reading: ")?;
        let (reading, rest) = rest.split_once(" Writing: ")?;
        let (writing, waiting) = rest.split_once(" Waiting: ")?;
        let names =
            ["nginx_connections_reading", "nginx_connections_writing", "nginx_connections_waiting"];
        named(&names, [reading, writing, waiting])
    }
}

fn named<'a>(names: &[&str], values: impl IntoIterator<Item = &'a str>) -> Option<Vec<Number>> {
    let values: Vec<f64> =
        values.into_iter().map(|value| value.trim().parse().ok()).collect::<Option<_>>()?;
    (values.len() == names.len())
        .then(|| names.iter().zip(values).map(|(name, value)| Number::new(*name, value)).collect())
}

#[cfg(test)]
mod tests {
    use crate::numbers;

    /// As nginx 1.22 wrote it.
    const PAGE: &str = "Active connections: 24 \nserver accepts handled requests\n 31 30 57 \n\
                        Reading: 0 Writing: 24 Waiting: 1 \n";

    #[test]
    fn a_page_is_read() {
        let found: Vec<_> = numbers(PAGE).into_iter().map(|one| (one.name, one.value)).collect();
        let expected = [
            ("nginx_connections_active", 24.0),
            ("nginx_connections_accepted", 31.0),
            ("nginx_connections_handled", 30.0),
            ("nginx_http_requests_total", 57.0),
            ("nginx_connections_reading", 0.0),
            ("nginx_connections_writing", 24.0),
            ("nginx_connections_waiting", 1.0),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn what_only_looks_like_it_has_no_numbers() {
        for page in [
            "Active connections: many\n",
            "server accepts handled requests\n 1 2\n",
            "Reading: 1 Waiting: 2\n",
        ] {
            assert_eq!(numbers(page), [], "{page}");
        }
    }
}
