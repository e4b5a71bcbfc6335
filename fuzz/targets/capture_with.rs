//! A capture of which one file comes from the fuzzer.

use std::fs;

use capture::Capture;
use capture::schema::Table;

/// Reads the connections of a capture that is sound but for `file`.
pub fn read(file: &str, bytes: &[u8]) {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = sound();
    }
    DIRECTORY.with(|directory| {
        fs::write(directory.path().join(file), bytes).expect("scratch can be written");
        let Ok(capture) = Capture::open(directory.path()) else { return };
        let Ok(batches) = capture.batches(Table::Connections) else { return };
        for batch in batches {
            let Ok(batch) = batch else { return };
            // Looks at the cells.
            assert!(!format!("{:?}", batch.columns()).is_empty());
        }
    });
}

fn sound() -> tempfile::TempDir {
    // The reader catches panics of Arrow's decoder, which libFuzzer's hook would end; what nobody
    // catches still ends it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let directory = tempfile::tempdir().expect("a scratch directory can be made");
    let files: [(&str, &[u8]); 2] = [
        ("meta.json", include_bytes!("../corpus/capture_meta/whole")),
        ("connections.arrows", include_bytes!("../corpus/capture_table/whole")),
    ];
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).expect("scratch can be written");
    }
    directory
}
