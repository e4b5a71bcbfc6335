//! Runs `probe`, holds known numbers of connections, and serves health bodies.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// `probe`, sure not to find an agent.
pub(crate) fn probe(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.args(["--agent-socket", "/nonexistent/agent.sock"]).args(args);
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Output {
    probe(args).output().unwrap()
}

/// Exit code and standard error, line breaks taken for spaces.
#[track_caller]
pub(crate) fn assert_says(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in {said:?}");
    }
}

#[track_caller]
pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}")))
        .collect()
}

/// A server that accepts and holds, and its clients.
pub(crate) struct Held {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    ends: Vec<(TcpStream, TcpStream)>,
}

impl Held {
    pub(crate) fn open(address: &str, count: usize) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let mut held = Self { address: listener.local_addr().unwrap(), listener, ends: Vec::new() };
        held.add(count);
        held
    }

    pub(crate) fn add(&mut self, count: usize) {
        for _ in 0..count {
            let client = TcpStream::connect(self.address).unwrap();
            self.ends.push((client, self.listener.accept().unwrap().0));
        }
    }

    /// The clients' addresses.
    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        self.ends.iter().map(|(client, _)| client.local_addr().unwrap()).collect()
    }

    /// Both ends of the last `count` close.
    pub(crate) fn close(&mut self, count: usize) {
        self.ends.truncate(self.ends.len() - count);
    }

    /// The clients of the last `count` leave; the server does not notice.
    pub(crate) fn abandon(&mut self, count: usize) -> Vec<TcpStream> {
        let at = self.ends.len() - count;
        self.ends.split_off(at).into_iter().map(|(_, server)| server).collect()
    }
}

/// Answers every request with the body it has at that time; an empty one is a 503.
pub(crate) struct Health {
    pub(crate) address: SocketAddr,
    body: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Health {
    pub(crate) fn serve(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let body = Arc::new(Mutex::new(body.to_owned()));
        let asked = Arc::new(AtomicUsize::new(0));
        thread::spawn({
            let (body, asked) = (Arc::clone(&body), Arc::clone(&asked));
            move || {
                for stream in listener.incoming().flatten() {
                    let (body, asked) = (Arc::clone(&body), Arc::clone(&asked));
                    thread::spawn(move || answer(stream, &body, &asked));
                }
            }
        });
        Self { address, body, asked }
    }

    pub(crate) fn reporting(count: i64) -> Self {
        Self::serve(&report(count))
    }

    pub(crate) fn report(&self, count: i64) {
        self.say(&report(count));
    }

    pub(crate) fn say(&self, body: &str) {
        body.clone_into(&mut self.body.lock().unwrap());
    }

    /// Requests answered so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/health", self.address)
    }
}

fn report(count: i64) -> String {
    format!(r#"{{"checks":{{"capacity":{{"current":{count},"max":5000}}}}}}"#)
}

fn answer(mut stream: TcpStream, body: &Mutex<String>, asked: &AtomicUsize) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        if !line.is_empty() {
            continue;
        }
        let body = body.lock().unwrap().clone();
        let status = if body.is_empty() { "503 Unavailable" } else { "200 OK" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        asked.fetch_add(1, Ordering::SeqCst);
    }
}

/// A `probe watch` that is running.
pub(crate) struct Watching(Child);

impl Watching {
    /// Returns once it has asked the server, so that it knows where things stand.
    pub(crate) fn start(args: &[&str], health: &Health) -> Self {
        let child = probe(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while health.asked() == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "probe watch does not begin");
            thread::sleep(Duration::from_millis(50));
        }
        // The answer is on its way back.
        thread::sleep(Duration::from_millis(500));
        Self(child)
    }

    pub(crate) fn interrupt(self) -> Output {
        let pid = self.0.id().to_string();
        let killed = Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(killed.success());
        self.wait()
    }

    pub(crate) fn wait(self) -> Output {
        self.0.wait_with_output().unwrap()
    }
}
