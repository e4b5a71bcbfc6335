//! Plots as inline SVG. Lines are stretched to the width of the page, labels are HTML beside them, so
//! that both stay readable on a phone, in print and without JavaScript.

use maud::{Markup, html};

use crate::clock::utc;
use crate::report::model::{Birth, Point};
use crate::report::verdict::thousands;

/// A line, or where `high` is given the band between `values` and it.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    /// Colour class of the style sheet.
    pub(crate) class: &'a str,
    pub(crate) values: Vec<i64>,
    pub(crate) high: Option<Vec<i64>>,
}

/// A plot of several series over the same times.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) at_unix_ns: Vec<i64>,
    pub(crate) series: Vec<Series<'a>>,
    /// How many of the values' digits stand behind the point.
    pub(crate) decimals: u32,
    /// Times to be shaded.
    pub(crate) births: &'a [Birth],
    pub(crate) tall: bool,
}

/// More points than a screen has pixels only make the file large.
const MAX_POINTS: usize = 1_500;

/// Joins neighbours so that no extreme is lost: of each group the lowest and highest kernel count,
/// and the report that is farthest from them.
pub(crate) fn thinned(points: &[Point]) -> Vec<Point> {
    let group = points.len().div_ceil(MAX_POINTS).max(1);
    points
        .chunks(group)
        .filter_map(|chunk| {
            let farthest =
                chunk.iter().max_by_key(|point| point.phantoms.max(point.reverse_phantoms))?;
            Some(Point {
                kernel_low: chunk.iter().map(|point| point.kernel_low).min()?,
                kernel_high: chunk.iter().map(|point| point.kernel_high).max()?,
                ..*farthest
            })
        })
        .collect()
}

impl Plot<'_> {
    /// Nothing without at least two times.
    pub(crate) fn render(&self) -> Option<Markup> {
        let (first, last) = (*self.at_unix_ns.first()?, *self.at_unix_ns.last()?);
        if first >= last {
            return None;
        }
        let all = self.series.iter().flat_map(|s| s.values.iter().chain(s.high.iter().flatten()));
        let highest = all.clone().copied().max()?.max(1);
        let lowest = all.copied().min()?.min(0);
        let y_ticks = ticks(lowest, highest);
        let (bottom, top) = (*y_ticks.first()?, *y_ticks.last()?);
        let scale = Scale { first, last, bottom, top };
        let x_ticks = time_ticks(first, last);
        Some(html! {
            figure class={ "plot" @if self.tall { " tall" } } data-plot="" {
                figcaption {
                    span.title { (self.title) }
                    span.legend {
                        @for series in &self.series {
                            span class={ "key " (series.class) } { (series.name) }
                        }
                    }
                }
                div.frame {
                    div.y {
                        @for tick in &y_ticks {
                            span style=(format!("top:{:.3}%", scale.y(*tick))) { (self.label(*tick)) }
                        }
                    }
                    div.canvas {
                        svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img"
                            aria-label=(self.title) {
                            @for birth in self.births {
                                (shade(birth, &scale))
                            }
                            @for tick in &y_ticks {
                                line.grid x1="0" x2="100" y1=(fixed(scale.y(*tick))) y2=(fixed(scale.y(*tick))) {}
                            }
                            @for series in &self.series {
                                (self.line(series, &scale))
                            }
                        }
                        div.cursor hidden {}
                        div.tip hidden {}
                    }
                    div.x {
                        @for (at, label) in &x_ticks {
                            span style=(format!("--at:{:.3}%", scale.x(*at))) { (label) }
                        }
                    }
                }
                script type="application/json" { (maud::PreEscaped(self.data())) }
            }
        })
    }

    fn line(&self, series: &Series<'_>, scale: &Scale) -> Markup {
        let point =
            |(at, value): (&i64, &i64)| format!("{:.3},{:.3}", scale.x(*at), scale.y(*value));
        let low: Vec<String> = self.at_unix_ns.iter().zip(&series.values).map(point).collect();
        let Some(high) = &series.high else {
            return html! { polyline class={ "line " (series.class) } points=(low.join(" ")) {} };
        };
        let high: Vec<String> = self.at_unix_ns.iter().zip(high).map(point).collect();
        let area: Vec<&str> = low.iter().chain(high.iter().rev()).map(String::as_str).collect();
        html! {
            polygon class={ "band " (series.class) } points=(area.join(" ")) {}
            polyline class={ "line " (series.class) } points=(high.join(" ")) {}
        }
    }

    /// A value as a reader expects it: `1,000`, or with decimals `1.5`.
    fn label(&self, value: i64) -> String {
        let one = 10_i64.pow(self.decimals);
        if value % one == 0 {
            thousands(value / one)
        } else {
            let text = format!("{:.*}", self.decimals as usize, value as f64 / one as f64);
            text.trim_end_matches('0').to_owned()
        }
    }

    /// What hovering shows: times, then each series' values, of which `decimals` digits stand behind the
    /// point.
    fn data(&self) -> String {
        let series: Vec<_> = self
            .series
            .iter()
            .map(|series| {
                serde_json::json!({
                    "name": series.name, "class": series.class,
                    "values": series.values, "high": series.high,
                })
            })
            .collect();
        let at_ms: Vec<i64> = self.at_unix_ns.iter().map(|at| at / 1_000_000).collect();
        let text = serde_json::json!({
            "at_ms": at_ms, "one": 10_i64.pow(self.decimals), "series": series,
        });
        let text = text.to_string();
        // Inside a script element only `</` could end it.
        text.replace('<', "\\u003c")
    }
}

/// Where times and values are, in percent of the frame.
struct Scale {
    first: i64,
    last: i64,
    bottom: i64,
    top: i64,
}

impl Scale {
    fn x(&self, at: i64) -> f64 {
        let share = (at - self.first) as f64 / (self.last - self.first) as f64;
        (100.0 * share).clamp(0.0, 100.0)
    }

    fn y(&self, value: i64) -> f64 {
        100.0 - 100.0 * (value - self.bottom) as f64 / (self.top - self.bottom) as f64
    }
}

fn shade(birth: &Birth, scale: &Scale) -> Markup {
    if birth.before_first_sample {
        return html! {};
    }
    let (from, to) = (scale.x(birth.from_unix_ns), scale.x(birth.to_unix_ns));
    html! {
        rect.birth x=(fixed(from)) y="0" width=(fixed((to - from).max(0.15))) height="100" {}
    }
}

fn fixed(number: f64) -> String {
    format!("{number:.3}")
}

/// Three to seven round values from at most `low` to at least `high`.
fn ticks(low: i64, high: i64) -> Vec<i64> {
    let span = (high - low).max(1);
    let mut step = 1;
    while span / step > 5 {
        step = match step.to_string().as_bytes()[0] {
            b'2' => step / 2 * 5,
            _ => step * 2,
        };
    }
    let first = low.div_euclid(step) * step;
    let last = -(-high).div_euclid(step) * step;
    (0..=(last - first) / step).map(|n| first + n * step).collect()
}

/// Round times of day (UTC) between two times, at most eight.
fn time_ticks(first: i64, last: i64) -> Vec<(i64, String)> {
    const STEPS_S: [i64; 16] =
        [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 86_400];
    let span_s = (last - first) / 1_000_000_000;
    let step_s = STEPS_S.into_iter().find(|step| span_s / step <= 6).unwrap_or(span_s / 6);
    let step = step_s.max(1) * 1_000_000_000;
    let start = -(-first).div_euclid(step) * step;
    (0..8)
        .map(|n| start + n * step)
        .take_while(|at| *at <= last)
        .map(|at| {
            let text = utc(at);
            (at, if step_s < 60 { text[11..19].to_owned() } else { text[11..16].to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover() {
        assert_eq!(ticks(0, 1_000), [0, 200, 400, 600, 800, 1_000]);
        assert_eq!(ticks(0, 45), [0, 10, 20, 30, 40, 50]);
        assert_eq!(ticks(0, 1), [0, 1]);
        assert_eq!(ticks(-23, 100), [-50, 0, 50, 100]);
        assert_eq!(ticks(0, 997), [0, 200, 400, 600, 800, 1_000]);
    }

    #[test]
    fn values_with_decimals_keep_them() {
        let plot = |decimals, values: Vec<i64>| {
            let series = vec![Series { name: "cpu", class: "kernel", values, high: None }];
            let at_unix_ns = vec![0, 1_000_000_000];
            let plot =
                Plot { title: "cpu", at_unix_ns, series, decimals, births: &[], tall: false };
            plot.render().unwrap().into_string()
        };
        let page = plot(2, vec![24, 120]);
        for label in [">0<", ">0.5<", ">1<", ">1.5<"] {
            assert!(page.contains(label), "{label} {page}");
        }
        assert!(page.contains("\"one\":100") && page.contains("[24,120]"), "{page}");
        assert!(plot(0, vec![240, 1200]).contains(">1,500<"));
    }

    #[test]
    fn time_ticks_are_round() {
        let s = 1_000_000_000;
        let start = 1_700_000_000 * s;
        let labels: Vec<_> =
            time_ticks(start, start + 60 * s).into_iter().map(|(_, label)| label).collect();
        assert_eq!(
            labels,
            ["22:13:20", "22:13:30", "22:13:40", "22:13:50", "22:14:00", "22:14:10", "22:14:20"]
        );
        assert_eq!(time_ticks(start, start + 7_200 * s).len(), 4);
    }

    #[test]
    fn thinning_keeps_the_extremes() {
        let points: Vec<Point> = (0..100_000)
            .map(|n| Point {
                at_unix_ns: n,
                reported: 5,
                kernel_low: if n == 777 { -9 } else { 5 },
                kernel_high: if n == 888 { 99 } else { 5 },
                phantoms: i64::from(n == 999) * 45,
                reverse_phantoms: 0,
            })
            .collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MAX_POINTS);
        assert_eq!(thin.iter().map(|point| point.phantoms).max(), Some(45));
        assert_eq!(thin.iter().map(|point| point.kernel_low).min(), Some(-9));
        assert_eq!(thin.iter().map(|point| point.kernel_high).max(), Some(99));
    }
}
