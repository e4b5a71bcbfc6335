//! What `/proc` and the cgroup file system say: whoever may make a cgroup chooses its name.

#![no_main]
#![allow(dead_code, reason = "only the parsers are called")]

use libfuzzer_sys::fuzz_target;

#[path = "../../probe-user/src/identity"]
mod identity {
    pub mod cgroup;
    pub mod netns;
}

fuzz_target!(|text: &str| {
    let container = identity::cgroup::Container::of_path(text);
    assert!(!container.name.is_empty());
    assert!(container.id.is_none_or(|id| id.len() == 64));
    let _ = identity::cgroup::Mounted::of_mountinfo(text);
});
