//! The metrics as Prometheus' protobuf messages: the one form in which native histograms travel.

use std::collections::BTreeMap;

use prost::Message;

use super::{
    prometheus::Histogram,
    spread::{BOUNDS_SECONDS, SCHEMA, Spread},
};

/// What a scraper asks for, and the form is served as.
pub(crate) const NAME: &str = "application/vnd.google.protobuf";
pub(crate) const TYPE: &str = "application/vnd.google.protobuf; \
                               proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Durations under it count as none, as in Prometheus' own libraries: 2^-128 s.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

// As in io.prometheus.client's metrics.proto, the fields that are used here.

#[derive(Clone, PartialEq, Message)]
struct Family {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(enumeration = "Kind", optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metrics: Vec<Metric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
enum Kind {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Durations>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Durations {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    buckets: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    spans: Vec<Span>,
    /// Each bucket's count minus the one's before.
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    deltas: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

/// Buckets in a row.
#[derive(Clone, PartialEq, Message)]
struct Span {
    /// Of the first of them: its index or, behind another span, how many were left out in between.
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

/// What [`classic`](super::classic) says, but for its histograms, which come from `histograms`.
pub(crate) fn of_classic(text: &str, histograms: &[Histogram]) -> Vec<u8> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), help) => families.push(Family {
                name: Some(name.to_owned()),
                help: help.map(str::to_owned),
                ..Family::default()
            }),
            (Some("#"), Some("TYPE"), Some(_), Some(kind)) => {
                if let Some(family) = families.last_mut() {
                    family.kind = Some(kind_of(kind).into());
                }
            }
            _ => {
                if let (Some(family), Some((labels, value))) = (families.last_mut(), sample(line)) {
                    family.metrics.extend(metric(family.kind(), labels, value));
                }
            }
        }
    }
    for (name, labels, spread) in histograms {
        let family = families.iter_mut().find(|family| family.name.as_ref() == Some(name));
        if let Some(family) = family {
            let label = |(name, value): &(&str, String)| label((*name).to_owned(), value.clone());
            let labels = labels.iter().map(label).collect();
            let histogram = Some(durations(spread));
            family.metrics.push(Metric { labels, histogram, ..Metric::default() });
        }
    }
    families.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

fn kind_of(kind: &str) -> Kind {
    match kind {
        "counter" => Kind::Counter,
        "histogram" => Kind::Histogram,
        _ => Kind::Gauge,
    }
}

fn metric(kind: Kind, labels: Vec<Label>, value: f64) -> Option<Metric> {
    let value = Some(Number { value: Some(value) });
    match kind {
        Kind::Counter => Some(Metric { labels, counter: value, ..Metric::default() }),
        Kind::Gauge => Some(Metric { labels, gauge: value, ..Metric::default() }),
        Kind::Histogram => None,
    }
}

fn label(name: String, value: String) -> Label {
    Label { name: Some(name), value: Some(value) }
}

/// The labels and the value of a line `name{label="value",…} 3`.
fn sample(line: &str) -> Option<(Vec<Label>, f64)> {
    let Some((_, mut rest)) = line.split_once('{') else {
        return Some((Vec::new(), line.rsplit_once(' ')?.1.parse().ok()?));
    };
    let mut labels = Vec::new();
    while !rest.starts_with('}') {
        let (name, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => value.push(match characters.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.push(label(name.to_owned(), value));
        rest = characters.as_str();
    }
    Some((labels, rest[1..].trim().parse().ok()?))
}

fn durations(spread: &Spread) -> Durations {
    let mut under = 0;
    let bounds = BOUNDS_SECONDS.into_iter().chain([f64::INFINITY]);
    let buckets = bounds.zip(spread.buckets).map(|(bound, count)| {
        under += count;
        Bucket { cumulative_count: Some(under), upper_bound: Some(bound) }
    });
    let buckets = buckets.collect();
    let (spans, deltas) = spans(&spread.fine);
    Durations {
        count: Some(spread.count()),
        sum: Some(spread.sum_seconds()),
        buckets,
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO_THRESHOLD),
        zero_count: Some(spread.zero),
        spans,
        deltas,
    }
}

fn spans(fine: &BTreeMap<i32, u64>) -> (Vec<Span>, Vec<i64>) {
    let mut spans: Vec<(i32, u32)> = Vec::new();
    let mut deltas = Vec::new();
    let (mut next, mut before) = (0, 0);
    for (&index, &count) in fine {
        match spans.last_mut() {
            Some((_, length)) if index == next => *length += 1,
            _ => spans.push((index - next, 1)),
        }
        let count = count.cast_signed();
        deltas.push(count - before);
        (next, before) = (index + 1, count);
    }
    let span = |(offset, length)| Span { offset: Some(offset), length: Some(length) };
    (spans.into_iter().map(span).collect(), deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_in_a_row_are_a_span() {
        let fine = BTreeMap::from([(-9, 4), (-8, 6), (-5, 1), (2, 1)]);
        let (spans, deltas) = spans(&fine);
        let spans: Vec<_> = spans.iter().map(|span| (span.offset(), span.length())).collect();
        assert_eq!(spans, [(-9, 2), (2, 1), (6, 1)]);
        assert_eq!(deltas, [4, 2, -5, 0]);
    }

    #[test]
    fn what_is_text_is_a_message() {
        let text = "# HELP a_total Made of things.\n# TYPE a_total counter\n\
                    a_total{x=\"y \\\"}# z\",b=\"\"} 3\na_total 0.5\n\
                    # HELP g Now.\n# TYPE g gauge\ng -1\n\
                    # HELP h Long.\n# TYPE h histogram\nh_count{p=\"1\"} 2\n";
        let mut spread = Spread::default();
        spread.observe(1, 1_000_001);
        spread.observe(1, 20_000_000_001);
        let histograms = [("h".to_owned(), vec![("p", "1".to_owned())], spread)];
        let bytes = of_classic(text, &histograms);
        let mut rest = bytes.as_slice();
        let mut families = Vec::new();
        while !rest.is_empty() {
            families.push(Family::decode_length_delimited(&mut rest).unwrap());
        }
        let names: Vec<_> = families.iter().map(|family| (family.name(), family.kind())).collect();
        assert_eq!(names, [("a_total", Kind::Counter), ("g", Kind::Gauge), ("h", Kind::Histogram)]);
        assert_eq!(families[0].help(), "Made of things.");
        let of = |metric: &Metric| -> Vec<(String, String)> {
            let pair = |label: &Label| (label.name().to_owned(), label.value().to_owned());
            metric.labels.iter().map(pair).collect()
        };
        let expected = [("x", "y \"}# z"), ("b", "")];
        assert_eq!(of(&families[0].metrics[0]), expected.map(|(n, v)| (n.into(), v.into())));
        let counters: Vec<_> = families[0].metrics.iter().map(|m| m.counter.clone()).collect();
        assert_eq!(counters, [3.0, 0.5].map(|value| Some(Number { value: Some(value) })));
        assert_eq!(families[1].metrics[0].gauge, Some(Number { value: Some(-1.0) }));
        let [metric] = &families[2].metrics[..] else { panic!("{families:?}") };
        let histogram = metric.histogram.clone().unwrap();
        assert_eq!((histogram.count(), histogram.sum(), histogram.schema()), (2, 20.001, 3));
        // 1 ms and 20 s: 2^(-79/8) is 1.07 ms, 2^(35/8) 20.7 s.
        let spans: Vec<_> = histogram.spans.iter().map(|s| (s.offset(), s.length())).collect();
        assert_eq!((spans, histogram.deltas), (vec![(-79, 1), (113, 1)], vec![1, 0]));
        let last = histogram.buckets.last().unwrap();
        assert_eq!((last.cumulative_count(), last.upper_bound()), (2, f64::INFINITY));
    }
}
