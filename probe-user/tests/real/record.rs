//! What `probe record` writes down of the server's own words.

use arrow_array::{
    RecordBatch,
    cast::AsArray,
    types::{Float64Type, UInt32Type, UInt64Type},
};
use capture::{Capture, schema::Table};
use serde_json::json;

use crate::common::{Health, Held, assert_says, run};

fn rows(capture: &Capture, table: Table) -> Vec<RecordBatch> {
    capture.batches(table).unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_metrics_page_and_the_table_become_rows() {
    let held = Held::open("127.0.0.1:0", 7);
    let clients = held.clients();
    let peers: Vec<_> = clients.iter().map(|peer| json!({ "peer": peer })).collect();
    let table = Health::serve(&json!({ "connections": peers }).to_string());
    let metrics = Health::serve("process_open_fds 42\nopen{pool=\"a\"} 1.5\nother 3\n");
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let output = run(&[
        "record",
        "-o",
        dir.to_str().unwrap(),
        "--port",
        &held.address.port().to_string(),
        "--metrics",
        &metrics.url(),
        "--metric",
        "open",
        "--table",
        &table.url(),
        "--interval",
        "200ms",
        "--duration",
        "2s",
    ]);
    if output.status.code() == Some(96) {
        eprintln!("skipped: this host records nothing: no eBPF");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let capture = Capture::open(&dir).unwrap();
    assert_eq!(capture.meta().selection.metrics_urls, [metrics.url()]);
    assert_eq!(capture.meta().selection.table_urls, [table.url()]);
    let (mut pages, mut of_kernel) = (0, Vec::new());
    for batch in rows(&capture, Table::Metrics) {
        let urls = batch["url"].as_string::<i32>().iter();
        let names = batch["name"].as_string::<i32>().iter();
        let labels = batch["labels"].as_string::<i32>().iter();
        let values = batch["value"].as_primitive::<Float64Type>().iter();
        let (of_page, read): (Vec<_>, Vec<_>) = urls
            .zip(names.zip(labels).zip(values))
            .partition(|(url, _)| *url == Some(metrics.url().as_str()));
        of_kernel.extend(read.into_iter().map(|(url, ((name, _), value))| {
            (url.unwrap().to_owned(), name.unwrap().to_owned(), value.unwrap())
        }));
        let lines: Vec<_> = of_page.into_iter().map(|(_, line)| line).collect();
        for page in lines.chunks(2) {
            let fds = ((Some("process_open_fds"), None), Some(42.0));
            assert_eq!(page, [fds, ((Some("open"), Some("pool=\"a\"")), Some(1.5))]);
            pages += 1;
        }
    }
    assert!(pages >= 2, "{pages}");
    // This test's own process listens on the port.
    let end = format!(", port {}", held.address.port());
    assert!(of_kernel.iter().all(|(url, ..)| url.starts_with("kernel: ") && url.ends_with(&end)));
    let of = |wanted: &str| of_kernel.iter().find(|(_, name, _)| name == wanted).unwrap().2;
    assert_eq!(of("processes"), 1.0);
    assert!(of("process_open_fds") > of("process_sockets") && of("process_sockets") >= 7.0);

    let listings = rows(&capture, Table::Listings);
    let entries: Vec<_> =
        listings.iter().flat_map(|batch| batch["entries"].as_primitive::<UInt64Type>()).collect();
    assert!(entries.len() >= 2 && entries.iter().all(|count| *count == Some(7)), "{entries:?}");
    let listed = rows(&capture, Table::Listed);
    let mut ports: Vec<_> = listed
        .iter()
        .flat_map(|batch| batch["remote_port"].as_primitive::<UInt32Type>().values().to_vec())
        .collect();
    ports.sort_unstable();
    let mut expected: Vec<_> = clients.iter().map(|client| u32::from(client.port())).collect();
    expected.sort_unstable();
    assert_eq!(ports, expected);
}

#[test]
fn a_page_without_the_metric_says_what_it_has() {
    let page = Health::serve("process_open_fds 42\n");
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("capture");
    let args = ["record", "-o", dir.to_str().unwrap(), "--metrics", &page.url(), "--metric", "x"];
    let output = run(&args);
    if output.status.code() == Some(96) {
        eprintln!("skipped: this host records nothing: no eBPF");
        return;
    }
    assert_says(&output, 2, &["the page has none of x; it has process_open_fds"]);
}
