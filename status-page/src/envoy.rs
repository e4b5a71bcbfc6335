//! Envoy's `/stats`: `name: value`, with text and histograms among them.

use crate::Number;

pub(crate) fn line(line: &str) -> Option<Vec<Number>> {
    // Names may have colons, values of histograms as well.
    let (name, value) = line.split_once(": ")?;
    let sound = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '{' | '<');
    if name.is_empty() || !name.contains('.') || !name.chars().all(sound) {
        return None;
    }
    let value = value.trim();
    match value.parse() {
        Ok(value) => Some(vec![Number::new(name, value)]),
        Err(_) => {
            let passed_over =
                value.starts_with('"') || value.starts_with("P0(") || value == "No recorded values";
            passed_over.then(Vec::new)
        }
    }
}

/// By their Prometheus names as well.
pub(crate) fn without_admin(mut numbers: Vec<Number>) -> Vec<Number> {
    numbers.retain(|number| {
        let labels = number.labels.as_deref().unwrap_or_default();
        !["http.admin.", "listener.admin.", "envoy_listener_admin_"]
            .iter()
            .any(|start| number.name.starts_with(start))
            && !labels.contains("envoy_http_conn_manager_prefix=\"admin\"")
    });
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        for (text, name, value) in [
            ("cluster.web.upstream_cx_active: 12", "cluster.web.upstream_cx_active", 12.0),
            (
                "listener.[__1]_443.downstream_cx_total: 7",
                "listener.[__1]_443.downstream_cx_total",
                7.0,
            ),
            ("cluster.xds::443.membership_total: 1", "cluster.xds::443.membership_total", 1.0),
        ] {
            assert_eq!(line(text), Some(vec![Number::new(name, value)]), "{text}");
        }
    }

    #[test]
    fn text_and_histograms_have_no_number_and_other_lines_are_none() {
        for text in [
            "control_plane.identifier: \"\"",
            "cluster.web.upstream_cx_length_ms: P0(nan,1) P25(nan,5.1)",
            "cluster.web.upstream_rq_time: No recorded values",
        ] {
            assert_eq!(line(text), Some(vec![]), "{text}");
        }
        for text in ["no number: twelve", "server.live: true", "a: 1", "<p>a.b: 1"] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}
