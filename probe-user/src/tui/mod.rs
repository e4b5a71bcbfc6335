//! The terminal view: numbers ([`board`]), where the user is ([`state`]), and how it is drawn
//! ([`view`]), fed by a running kernel ([`live`]) or by a capture ([`replay`]).

pub(crate) mod board;
pub(crate) mod leg;
pub(crate) mod live;
pub(crate) mod replay;
pub(crate) mod shards;
mod state;
mod stderr;
pub(crate) mod table;
mod view;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, DisableMouseCapture, EnableMouseCapture, Event, KeyEventKind},
        execute,
    },
};
use tokio::sync::{mpsc, watch};

use self::{
    board::{Board, Service},
    live::Update,
    replay::Replay,
    state::{Action, Listed, Screen, State, Transport},
    table::Connection,
    view::View,
};
use crate::{
    exit::Exit,
    signal::{Signals, Stop},
    watch::style::Style,
};

/// Between two frames of a capture that plays.
const FRAME: Duration = Duration::from_millis(200);

/// Where the numbers come from.
pub(crate) enum Feed {
    Live { updates: mpsc::Receiver<Update>, wish: watch::Sender<Option<Service>> },
    Replay(Box<Replay>),
}

/// Clicks come here as long as this is there, instead of to the terminal's own selection.
struct Mouse;

impl Mouse {
    fn take() -> std::io::Result<Self> {
        execute!(std::io::stdout(), EnableMouseCapture)?;
        Ok(Self)
    }
}

impl Drop for Mouse {
    fn drop(&mut self) {
        // A terminal that is gone has no mouse to give back.
        let _ = execute!(std::io::stdout(), DisableMouseCapture);
    }
}

/// What stands in the title.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    pub(crate) host: String,
    /// `ebpf` or `sock_diag`.
    pub(crate) backend: String,
}

/// Draws until the user has seen enough; with `mouse` it takes clicks.
///
/// # Errors
/// When the terminal cannot be used, or the kernel or the agent cannot be asked any more.
pub(crate) async fn run(feed: Feed, title: Title, mouse: bool) -> anyhow::Result<Exit> {
    let mut signals = Signals::catch()?;
    let _held = stderr::Held::begin()?;
    let terminal = ratatui::try_init()?;
    let held_mouse = mouse.then(Mouse::take).transpose()?;
    let result = App::new(feed, title).run(terminal, &mut signals).await;
    drop(held_mouse);
    ratatui::try_restore()?;
    std::io::stdout().flush()?;
    result
}

struct App {
    feed: Feed,
    title: Title,
    style: Style,
    board: Board,
    connections: Vec<Connection>,
    /// What was on the screen when it was paused.
    frozen: Option<(Board, Vec<Connection>)>,
    state: State,
    listed: Listed,
}

impl App {
    fn new(feed: Feed, title: Title) -> Self {
        let mut board = Board::default();
        let transport = match &feed {
            Feed::Live { .. } => None,
            Feed::Replay(replay) => {
                board.at_mono_ns = replay.from_ns;
                Some(Transport::new(replay.from_ns, replay.until_ns))
            }
        };
        Self {
            feed,
            title,
            style: Style::of_stdout(),
            board,
            connections: Vec::new(),
            frozen: None,
            state: State::new(transport),
            listed: Listed::default(),
        }
    }

    async fn run(
        mut self,
        mut terminal: DefaultTerminal,
        signals: &mut Signals,
    ) -> anyhow::Result<Exit> {
        let mut keys = read_keys();
        let mut frames = tokio::time::interval(FRAME);
        let mut last = Instant::now();
        let mut dirty = true;
        loop {
            tokio::select! {
                biased;
                stop = signals.next() => return Ok(stop.exit()),
                event = keys.recv() => match event {
                    Some(Ok(event)) => match self.take_event(&event) {
                        Action::Quit => return Ok(Exit::Done),
                        Action::Interrupt => return Ok(Stop::Interrupt.exit()),
                        Action::Draw => {
                            self.play(last.elapsed());
                            last = Instant::now();
                            self.draw(&mut terminal)?;
                            dirty = false;
                        }
                    },
                    Some(Err(error)) => return Err(error.into()),
                    None => anyhow::bail!("the terminal's input ended"),
                },
                _ = frames.tick() => {
                    dirty |= self.play(last.elapsed());
                    last = Instant::now();
                    if dirty {
                        self.draw(&mut terminal)?;
                        dirty = false;
                    }
                }
                update = next(&mut self.feed) => {
                    self.take(update)?;
                    dirty = true;
                }
            }
        }
    }

    fn take_event(&mut self, event: &Event) -> Action {
        let before = self.state.screen.clone();
        let action = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                self.state.key(*key, &self.listed)
            }
            Event::Mouse(mouse) => {
                self.state.mouse(*mouse, &self.listed);
                Action::Draw
            }
            _ => Action::Draw,
        };
        if before != self.state.screen {
            self.connections.clear();
            if let Feed::Live { wish, .. } = &self.feed {
                wish.send_replace(self.state.wish());
            }
        }
        match (self.state.paused, &self.frozen) {
            (true, None) => self.frozen = Some((self.board.clone(), self.connections.clone())),
            (false, Some(_)) => self.frozen = None,
            _ => {}
        }
        action
    }

    /// Lets a capture go on; true if it has.
    fn play(&mut self, elapsed: Duration) -> bool {
        let (Feed::Replay(replay), Some(transport)) = (&mut self.feed, &mut self.state.transport)
        else {
            return false;
        };
        transport.pass(elapsed);
        let moved = transport.at_ns != self.board.at_mono_ns || self.board.lines.is_empty();
        if moved {
            replay.advance(&mut self.board, transport.at_ns);
        }
        if let Screen::Connections(service) = &self.state.screen {
            self.connections = Replay::connections(&self.board, service);
        }
        moved
    }

    fn take(&mut self, update: Update) -> anyhow::Result<()> {
        match update {
            Update::Connections(rows) => self.connections = rows,
            update => self.board.apply(update)?,
        }
        Ok(())
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
        let (board, connections) = match &self.frozen {
            Some((board, connections)) => (board, connections),
            None => (&self.board, &self.connections),
        };
        loop {
            let state = &self.state;
            let view = View { board, connections, state, title: &self.title, style: self.style };
            let mut listed = Listed::default();
            terminal.draw(|frame| listed = view.draw(frame))?;
            self.listed = listed;
            if !self.state.follow(&self.listed) {
                return Ok(());
            }
        }
    }
}

/// Never ready where a capture is shown.
async fn next(feed: &mut Feed) -> Update {
    match feed {
        Feed::Live { updates, .. } => updates
            .recv()
            .await
            .unwrap_or_else(|| Update::Failed(anyhow::anyhow!("the feed ended by itself"))),
        Feed::Replay(_) => std::future::pending().await,
    }
}

/// Events of the terminal, from a thread that ends with the process.
fn read_keys() -> mpsc::Receiver<std::io::Result<Event>> {
    let (sender, keys) = mpsc::channel(64);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if sender.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    keys
}
