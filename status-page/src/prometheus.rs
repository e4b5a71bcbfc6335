//! The Prometheus text format: `name{labels} value timestamp`.

use crate::Number;

pub(crate) fn line(line: &str) -> Option<Number> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let end = line.find(|c| !is_part(c))?;
    let (name, rest) = line.split_at(end);
    // A colon at the end is Envoy's.
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || name.ends_with(':') {
        return None;
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inside) => {
            let end = closing_brace(inside)?;
            (Some(inside[..end].trim().to_owned()), &inside[end + 1..])
        }
        None => (None, rest),
    };
    let mut cells = rest.split_whitespace();
    let value = cells.next()?.parse().ok()?;
    let unix_ms = cells.next().and_then(|time| time.parse().ok());
    let labels = labels.filter(|labels| !labels.is_empty());
    Some(Number { name: name.to_owned(), labels, value, unix_ms })
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

    fn number(
        name: &str,
        labels: Option<&str>,
        value: f64,
        unix_ms: Option<i64>,
    ) -> Option<Number> {
        Some(Number { name: name.into(), labels: labels.map(Into::into), value, unix_ms })
    }

    #[test]
    fn lines_are_read() {
        assert_eq!(line("go_goroutines 2013"), number("go_goroutines", None, 2013.0, None));
        assert_eq!(
            line("a:b_1  1.5e3 1700000000000"),
            number("a:b_1", None, 1500.0, Some(1_700_000_000_000))
        );
        assert_eq!(
            line(r#"x{path="/{id}\"}",a="b",} +Inf"#),
            number("x", Some(r#"path="/{id}\"}",a="b","#), f64::INFINITY, None)
        );
        assert_eq!(line("x{} -1"), number("x", None, -1.0, None));
        for text in ["x", "x{a=\"b\" 1", "{a=\"b\"} 1", "x one", "<html>"] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}
