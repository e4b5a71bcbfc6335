//! A real terminal (tmux), typed into and read like a person would.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::process::finish;

const ENDED: &str = "ended with ";
/// Says on the screen how the program ended: tmux 3.3 sometimes never learns it.
const SHELL: &str = r#""$@"; echo "ended with $?"; sleep 1000"#;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A terminal with one program in it; both end on drop.
#[derive(Debug)]
pub struct Terminal {
    server: String,
}

impl Terminal {
    /// A terminal of this size that runs the command (its environment's additions included).
    ///
    /// # Panics
    /// Without tmux.
    #[track_caller]
    #[must_use]
    pub fn start(columns: u16, rows: u16, command: &Command) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let this = Self { server: format!("groundtruth-{}-{number}", std::process::id()) };
        let mut tmux = this.tmux();
        tmux.args(["new-session", "-d", "-x", &columns.to_string(), "-y", &rows.to_string()]);
        for (name, value) in command.get_envs() {
            let value = value.unwrap_or_default().to_string_lossy();
            tmux.arg("-e").arg(format!("{}={value}", name.to_string_lossy()));
        }
        tmux.args(["sh", "-c", SHELL, "sh"]).arg(command.get_program()).args(command.get_args());
        let _ = finish(&mut tmux).success("tmux");
        this
    }

    /// Types keys, by tmux's names: `Enter`, `BSpace`, `Left`, or text. (An `Escape` right before
    /// another key reads as Alt with it, in every terminal.)
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        let _ = finish(self.tmux().arg("send-keys").args(keys)).success("tmux send-keys");
    }

    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = ["-x", &columns.to_string(), "-y", &rows.to_string()];
        let _ = finish(self.tmux().arg("resize-window").args(size)).success("tmux resize-window");
    }

    /// The process of the program.
    ///
    /// # Panics
    /// Once it has ended.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> u32 {
        let shell = ["display-message", "-p", "#{pane_pid}"];
        let shell = finish(self.tmux().args(shell)).success("tmux display-message");
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let children = std::fs::read_to_string(children).expect("the shell's children");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child")
    }

    #[track_caller]
    #[must_use]
    pub fn screen(&self) -> String {
        finish(self.tmux().args(["capture-pane", "-p"])).success("tmux capture-pane")
    }

    /// The screen with its escape sequences.
    #[track_caller]
    #[must_use]
    pub fn screen_with_colours(&self) -> String {
        finish(self.tmux().args(["capture-pane", "-p", "-e"])).success("tmux capture-pane")
    }

    /// The screen, once it shows what is looked for.
    ///
    /// # Panics
    /// If it does not within 90 s.
    #[track_caller]
    pub fn wait(&self, what: &str, shows: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let screen = self.screen();
            if shows(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "never on the screen: {what}\n{screen}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The exit code of the program, once it has ended.
    ///
    /// # Panics
    /// If it does not end within 30 s.
    #[track_caller]
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        let code = |screen: &str| {
            let line = screen.lines().find_map(|line| line.strip_prefix(ENDED));
            line.and_then(|code| code.trim().parse().ok())
        };
        code(&self.wait("the end of the program", |screen| code(screen).is_some())).expect("seen")
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.server, "-f", "/dev/null"]);
        command
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").output();
    }
}

/// The words of the first line that begins so.
#[must_use]
pub fn row(screen: &str, start: &[&str]) -> Vec<String> {
    screen
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .find(|words| words.len() >= start.len() && words.iter().zip(start).all(|(a, b)| a == b))
        .unwrap_or_default()
}
