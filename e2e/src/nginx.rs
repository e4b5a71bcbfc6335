//! Debian's nginx with a configuration of the test's own: a server that isn't ours.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::net::Place;
use crate::process::{Running, finish};
use crate::truth::wait_equal;

/// A running nginx; stopped and removed on drop.
#[derive(Debug)]
pub struct Nginx {
    process: Running,
    place: Place,
    dir: PathBuf,
}

impl Nginx {
    /// Starts it with this text inside of `http { … }`, and waits until `port` answers.
    ///
    /// # Panics
    /// If nginx does not like it.
    #[must_use]
    pub fn start(place: &Place, port: u16, http: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("groundtruth-nginx-{}-{port}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        let path = dir.display();
        // Connections idle for as long as they like: what ends them is the test.
        let text = format!(
            "daemon off; worker_processes 2; worker_rlimit_nofile 20000;\n\
             pid {path}/pid; error_log stderr error;\n\
             events {{ worker_connections 9000; }}\n\
             http {{\n\
             access_log off; client_header_timeout 1h; keepalive_timeout 1h;\n\
             client_body_temp_path {path}; proxy_temp_path {path}; fastcgi_temp_path {path};\n\
             uwsgi_temp_path {path}; scgi_temp_path {path};\n\
             {http}\n}}\n"
        );
        fs::write(dir.join("nginx.conf"), text).expect("a temporary file");
        let mut command = place.command("nginx");
        command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf"));
        let process = Running::start(&mut command);
        wait_equal("nginx listens", &1, || {
            crate::truth::ss(place, "listening", &format!("sport = :{port}")).min(1)
        });
        Self { process, place: place.clone(), dir }
    }

    /// The body of a plain GET from nginx's own namespace, over one connection that ends with it.
    #[must_use]
    pub fn get(&self, address: &str, path: &str) -> String {
        let mut command = self.place.command("busybox");
        command.args(["wget", "-q", "-O", "-", &format!("http://{address}{path}")]);
        finish(&mut command).success("wget")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master's SIGKILL, also while it ends, would leave workers behind, and with them their port.
        let _ = std::process::Command::new("nginx")
            .arg("-p")
            .arg(&self.dir)
            .arg("-c")
            .arg(self.dir.join("nginx.conf"))
            .args(["-s", "stop"])
            .output();
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.process.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
