//! Logs of health and metrics pages that somebody kept with curl: JSON lines with a time, or the text
//! of status pages (Prometheus, nginx, haproxy, Envoy) with a time before each (`date -Is; curl …`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use status_page::Reader;

use crate::error::InputError;
use crate::input::text::{Unreadable, each_line, head, json_why};
use crate::input::time::unix_ns;

/// Fields that hold a line's time, the first that is there.
const TIMES: [&str; 7] = ["time", "timestamp", "ts", "t", "at", "@timestamp", "date"];

/// Every number of the log by its name (`go_goroutines`, or `.checks.memory.used_mb`): Unix time and
/// value, in order of time.
#[derive(Debug, Default)]
pub(crate) struct KeptLog {
    pub(crate) path: String,
    pub(crate) numbers: BTreeMap<String, Vec<(i64, f64)>>,
    /// Times of all pages.
    pub(crate) pages_unix_ns: Vec<i64>,
    pub(crate) unreadable: Vec<Unreadable>,
    pub(crate) lines: u64,
}

/// The page that a line of text belongs to.
#[derive(Debug, Default)]
struct Page {
    at_unix_ns: Option<i64>,
    reader: Reader,
}

impl KeptLog {
    pub(crate) fn read(path: &Path) -> Result<Self, InputError> {
        let mut log = KeptLog { path: path.display().to_string(), ..Self::default() };
        let mut unreadable = Vec::new();
        let json = head(path)?.trim_ascii_start().starts_with(b"{");
        let mut page = Page::default();
        log.lines = each_line(path, &mut unreadable, |line| {
            if json { log.take_json(line) } else { log.take_text(line, &mut page) }
        })?;
        log.unreadable = unreadable;
        if log.numbers.is_empty() {
            let first = log.unreadable.first();
            return Err(InputError::NoLogLines {
                path: path.to_path_buf(),
                line: first.map_or(1, |bad| bad.line),
                why: first.map_or("no numbers".to_owned(), |bad| bad.why.clone()),
            });
        }
        for series in log.numbers.values_mut() {
            series.sort_by_key(|point| point.0);
        }
        log.pages_unix_ns.sort_unstable();
        log.pages_unix_ns.dedup();
        Ok(log)
    }

    fn take_json(&mut self, line: &[u8]) -> Result<(), String> {
        let value: Value = serde_json::from_slice(line).map_err(|error| json_why(&error))?;
        let time = TIMES.iter().find_map(|key| Some((*key, value.get(*key)?)));
        let Some((key, time)) = time else {
            return Err(format!("no time: expected a field {}", TIMES.join(", ")));
        };
        let text = time.as_str().map_or_else(|| time.to_string(), str::to_owned);
        let at = unix_ns(&text, None)?;
        self.pages_unix_ns.push(at);
        let Value::Object(fields) = value else { return Ok(()) };
        for (name, field) in fields.iter().filter(|(name, _)| *name != key) {
            self.take_value(at, format!(".{name}"), field);
        }
        Ok(())
    }

    fn take_value(&mut self, at: i64, path: String, value: &Value) {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::Bool(yes) => Some(f64::from(*yes)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.take_value(at, format!("{path}.{name}"), field);
                }
                None
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.take_value(at, format!("{path}[{index}]"), item);
                }
                None
            }
            Value::Null | Value::String(_) => None,
        };
        if let Some(number) = number {
            self.numbers.entry(path).or_default().push((at, number));
        }
    }

    /// A sample, a comment, or the time of the page that follows.
    fn take_text(&mut self, line: &[u8], page: &mut Page) -> Result<(), String> {
        let text = std::str::from_utf8(line).map_err(|_| "no UTF-8 text".to_owned())?;
        let bare = text.trim_start_matches('#').trim();
        if let Ok(at) = unix_ns(bare, None) {
            *page = Page { at_unix_ns: Some(at), ..Page::default() };
            self.pages_unix_ns.push(at);
            return Ok(());
        }
        let expected = || "expected a sample such as `go_goroutines 12`, or a time".to_owned();
        let numbers = page.reader.line(text).ok_or_else(expected)?;
        for number in numbers {
            let own = match number.unix_ms {
                Some(ms) => Some(ms.checked_mul(1_000_000).ok_or("a time far from now")?),
                None => None,
            };
            let at = own.or(page.at_unix_ns).ok_or(
                "a sample without a time: put one before each page, as `date -Is` prints it",
            )?;
            self.take_number(at, number.name, number.value);
        }
        Ok(())
    }

    /// One metric of several label sets is one number: their sum.
    fn take_number(&mut self, at: i64, name: String, value: f64) {
        if !value.is_finite() {
            return;
        }
        let series = self.numbers.entry(name).or_default();
        match series.last_mut() {
            Some(last) if last.0 == at => last.1 += value,
            _ => series.push((at, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<KeptLog, InputError> {
        read_bytes(text.as_bytes())
    }

    fn read_bytes(bytes: &[u8]) -> Result<KeptLog, InputError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        KeptLog::read(&path)
    }

    fn corpora() -> Vec<Vec<u8>> {
        ["logs", "status_page"].into_iter().flat_map(fuzz::corpus).collect()
    }

    const T: i64 = 1_700_000_000_000_000_000;

    #[test]
    fn json_lines_with_a_time() {
        let log = read(
            "{\"time\":\"2023-11-14T22:13:20Z\",\"checks\":{\"goroutines\":12,\"ok\":true}}\n\
             {\"cut\":\n{\"time\":1700000060,\"checks\":{\"goroutines\":15,\"pools\":[{\"idle\":3}]}}\n",
        )
        .unwrap();
        assert_eq!(log.numbers[".checks.goroutines"], [(T, 12.0), (T + 60_000_000_000, 15.0)]);
        assert_eq!(log.numbers[".checks.ok"], [(T, 1.0)]);
        assert_eq!(log.numbers[".checks.pools[0].idle"].len(), 1);
        assert_eq!((log.unreadable.len(), log.unreadable[0].line, log.lines), (1, 2, 3));
    }

    #[test]
    fn prometheus_pages_with_times_between_them() {
        let log = read(
            "2023-11-14T23:13:20+01:00\n# TYPE go_goroutines gauge\ngo_goroutines 12\n\
             http_total{code=\"200\"} 5\nhttp_total{code=\"5}0\"} 2\nnan NaN\n\
             # 1700000060\ngo_goroutines 14\nown 7 1700000090000\n<html>\n",
        )
        .unwrap();
        assert_eq!(log.numbers["go_goroutines"], [(T, 12.0), (T + 60_000_000_000, 14.0)]);
        assert_eq!(log.numbers["http_total"], [(T, 7.0)]);
        assert_eq!(log.numbers["own"], [(T + 90_000_000_000, 7.0)]);
        assert_eq!(log.pages_unix_ns.len(), 2);
        assert_eq!(log.unreadable[0].line, 10);
    }

    #[test]
    fn pages_of_proxies_with_times_between_them() {
        let log = read(
            "2023-11-14T22:13:20Z\nActive connections: 3 \nserver accepts handled requests\n 5 5 9 \n\
             Reading: 0 Writing: 1 Waiting: 2 \n2023-11-14T22:14:20Z\nActive connections: 4 \n\
             server accepts handled requests\n 7 7 12 \nReading: 0 Writing: 1 Waiting: 3 \n",
        )
        .unwrap();
        assert_eq!(log.numbers["nginx_connections_active"], [(T, 3.0), (T + 60_000_000_000, 4.0)]);
        assert_eq!((log.numbers.len(), log.unreadable.len()), (7, 0));
        let haproxy = "# pxname,svname,scur,status,\n";
        let log = read(&format!(
            "1700000000\n{haproxy}ws,s1,3,UP,\nws,s2,4,UP,\nws\n1700000060\n{haproxy}ws,s1,5,UP,\n"
        ))
        .unwrap();
        let servers = &log.numbers["haproxy_server_scur"];
        assert_eq!(servers, &[(T, 7.0), (T + 60_000_000_000, 5.0)]);
        assert_eq!((log.unreadable.len(), log.unreadable[0].line), (1, 5));
        let log = read("1700000000\nhttp.ws.downstream_cx_active: 3\n").unwrap();
        assert_eq!(log.numbers["http.ws.downstream_cx_active"], [(T, 3.0)]);
    }

    #[test]
    fn logs_without_any_number_are_refused_with_what_is_expected() {
        for (text, why) in [
            ("go_goroutines 12\n", "line 1: a sample without a time: put one before each page"),
            ("{\"goroutines\":1}\n", "line 1: no time: expected a field time, timestamp"),
            ("<html>\n", "line 1: expected a sample such as `go_goroutines 12`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn pages_of_proxies_that_are_cut_or_changed_are_refused() {
        for page in [
            "Active connections: many\n",
            "server accepts handled requests\n 1 2\n",
            "Reading: 0 Writing: 1\n",
            "# pxname,svname,scur\nws\n",
            "# pxname,svname,scur\nws,FRONTEND,1,2,3\n",
            "ws,FRONTEND,3\n",
            "server.live: true\n",
            "cluster web upstream_cx_active: 3\n",
            "cluster.web.upstream_cx_active=3\n",
        ] {
            let error = read(&format!("1700000000\n{page}")).unwrap_err().to_string();
            assert!(
                error.contains("expected a sample such as `go_goroutines 12`"),
                "{page}{error}"
            );
            let line = page.lines().count() + 1;
            assert!(error.contains(&format!("line {line}: ")), "{page}{error}");
        }
    }

    proptest! {
        #![proptest_config(fuzz::config())]

        /// Whatever somebody kept.
        #[test]
        fn hostile_logs(bytes in fuzz::damaged(corpora())) {
            let _ = read_bytes(&bytes);
        }
    }

    #[test]
    fn a_time_beyond_numbers_is_no_time() {
        for bytes in corpora() {
            let _ = read_bytes(&bytes);
        }
        let log = read("2023-11-14T23:13:20+01:00\na 1\nown 7 9223372036854775807\n").unwrap();
        assert_eq!(log.unreadable[0].why, "a time far from now");
    }
}
