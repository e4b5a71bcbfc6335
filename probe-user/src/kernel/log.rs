//! What the kernel programs have to say, on stderr.

use aya::Ebpf;
use aya_log::EbpfLogger;

/// Prints a line for each message.
#[derive(Clone, Copy, Debug)]
pub struct ToStderr;

impl log::Log for ToStderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("probe: kernel: {}", record.args());
    }

    fn flush(&self) {}
}

/// Messages of the loaded programs; `None` where the object file has none.
pub fn open(ebpf: &mut Ebpf) -> Option<EbpfLogger<ToStderr>> {
    EbpfLogger::init_with_logger(ebpf, ToStderr).ok()
}
