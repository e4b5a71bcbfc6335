//! haproxy's statistics as CSV (`/stats;csv`, or `show stat` on its socket): a row for each frontend,
//! backend, server and listener. Only numbers are taken.

use crate::Number;

#[derive(Debug)]
pub(crate) struct Columns(Vec<String>);

impl Columns {
    pub(crate) fn of_heading(line: &str) -> Option<Self> {
        let names = line.strip_prefix('#')?.trim_start();
        names.starts_with("pxname,svname,").then(|| Self(cells(names).unwrap_or_default()))
    }

    pub(crate) fn row(&self, line: &str) -> Option<Vec<Number>> {
        let cells = cells(line)?;
        let (proxy, server) = (cells.first()?, cells.get(1)?);
        // A row ends with a comma, or not, by version.
        if cells.len() + 1 < self.0.len() || cells.len() > self.0.len() {
            return None;
        }
        let (about, labels) = match server.as_str() {
            "FRONTEND" => ("frontend", format!("proxy={proxy:?}")),
            "BACKEND" => ("backend", format!("proxy={proxy:?}")),
            _ => ("server", format!("proxy={proxy:?},server={server:?}")),
        };
        let numbers = self.0.iter().zip(&cells).skip(2).filter_map(|(column, cell)| {
            let name = format!("haproxy_{about}_{column}");
            Some(Number { labels: Some(labels.clone()), ..Number::new(name, cell.parse().ok()?) })
        });
        Some(numbers.collect())
    }
}

fn cells(line: &str) -> Option<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let record = reader.records().next()?.ok()?;
    Some(record.iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use crate::{Reader, numbers};

    /// The first columns of a page of haproxy 2.6, and one with text that has a comma.
    const PAGE: &str = "# pxname,svname,qcur,scur,smax,stot,status,last_chk,econ,\n\
                        ws,FRONTEND,,24,24,31,OPEN,,,\n\
                        shards,s1,0,12,12,16,UP,\"Layer4 timeout, again\",3,\n\
                        shards,BACKEND,0,24,24,31,UP,,3,\n";

    #[test]
    fn a_page_is_read() {
        let found: Vec<_> = numbers(PAGE)
            .into_iter()
            .map(|one| (format!("{}{{{}}}", one.name, one.labels.unwrap()), one.value))
            .collect();
        let has = |name: &str, value| found.contains(&(name.to_owned(), value));
        assert_eq!(found.len(), 3 + 5 + 5, "{found:?}");
        assert!(has("haproxy_frontend_scur{proxy=\"ws\"}", 24.0));
        assert!(has("haproxy_server_econ{proxy=\"shards\",server=\"s1\"}", 3.0));
        assert!(has("haproxy_backend_stot{proxy=\"shards\"}", 31.0));
    }

    #[test]
    fn rows_that_do_not_fit_their_heading_are_none() {
        let mut reader = Reader::default();
        assert_eq!(reader.line("# pxname,svname,qcur,scur"), Some(vec![]));
        for line in ["ws", "ws,FRONTEND", "ws,FRONTEND,1,2,3,4,5"] {
            assert_eq!(reader.line(line), None, "{line}");
        }
    }
}
