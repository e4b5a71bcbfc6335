//! Harness of the end-to-end tests: starts the built binaries among real namespaces, containers and
//! servers, and reads the truth from sources that are not ours (`ss`, `/proc/net/snmp`).
//!
//! A test begins with [`machine::require`], which keeps it alone on the machine and says `skipped`
//! where it cannot run. Everything it starts is ended on drop, so also when an assertion fails.
//! Harness functions panic with what they were doing: in a test that is the report.

pub mod answer;
pub mod certificate;
pub mod cgroup;
pub mod day;
pub mod disk;
pub mod docker;
pub mod document;
pub mod envoy;
pub mod kept_alive;
pub mod lab;
pub mod machine;
pub mod maps;
pub mod net;
pub mod nginx;
pub mod nobody;
pub mod node;
pub mod packed;
pub mod peer;
pub mod probe;
pub mod process;
pub mod protobuf;
pub mod recording;
pub mod scrape;
pub mod scratch;
pub mod tab;
pub mod terminal;
pub mod torture;
pub mod truth;
