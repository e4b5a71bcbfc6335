//! Where the user is and what their keys do. Knows nothing of how it is drawn.

use ratatui::{
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    layout::Rect,
};

use super::{board::Service, table::Order};

/// What is on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    Services,
    Port(Service),
    Connections(Service),
}

/// What the services are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    Established,
    Failed,
    New,
    Name,
}

impl Sort {
    const ALL: [Self; 4] = [Self::Established, Self::Failed, Self::New, Self::Name];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|&sort| sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Failed => "failed",
            Self::New => "new/s",
            Self::Name => "name",
        }
    }
}

/// What the loop has to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Draw,
    /// `q`
    Quit,
    /// Ctrl-C
    Interrupt,
}

/// The list on the screen, as it was drawn last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    /// What a row leads to; none where rows are connections.
    pub(crate) services: Vec<Service>,
    pub(crate) rows: usize,
    /// Where the rows are, without their header, and which of them is the first there.
    pub(crate) area: Rect,
    pub(crate) first: usize,
}

impl Listed {
    fn row_at(&self, column: u16, row: u16) -> Option<usize> {
        let index = self.first + usize::from(row.checked_sub(self.area.y)?);
        (self.area.contains((column, row).into()) && index < self.rows).then_some(index)
    }
}

/// A capture's time line, in monotonic nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Transport {
    pub(crate) from_ns: i64,
    pub(crate) until_ns: i64,
    pub(crate) at_ns: i64,
    pub(crate) speed: f64,
    pub(crate) playing: bool,
}

impl Transport {
    const SECOND: i64 = 1_000_000_000;
    const FASTEST: f64 = 64.0;
    const SLOWEST: f64 = 0.125;

    pub(crate) fn new(from_ns: i64, until_ns: i64) -> Self {
        Self { from_ns, until_ns, at_ns: from_ns, speed: 1.0, playing: true }
    }

    /// Lets this much real time pass.
    pub(crate) fn pass(&mut self, elapsed: std::time::Duration) {
        if self.playing {
            self.seek((elapsed.as_nanos() as f64 * self.speed) as i64);
            self.playing = self.at_ns < self.until_ns;
        }
    }

    fn seek(&mut self, by_ns: i64) {
        self.at_ns = self.at_ns.saturating_add(by_ns).clamp(self.from_ns, self.until_ns);
    }

    /// True if the key was one of the time line's.
    fn key(&mut self, code: KeyCode) -> bool {
        match code {
            KeyCode::Char(' ' | 'p') => {
                if !self.playing && self.at_ns == self.until_ns {
                    self.at_ns = self.from_ns;
                }
                self.playing = !self.playing;
            }
            KeyCode::Char('.') => self.step(Self::SECOND),
            KeyCode::Char(',') => self.step(-Self::SECOND),
            KeyCode::Right => self.seek(10 * Self::SECOND),
            KeyCode::Left => self.seek(-10 * Self::SECOND),
            KeyCode::Char('0') => self.at_ns = self.from_ns,
            KeyCode::Char('$') => self.at_ns = self.until_ns,
            KeyCode::Char('+' | '=') => self.speed = (self.speed * 2.0).min(Self::FASTEST),
            KeyCode::Char('-') => self.speed = (self.speed / 2.0).max(Self::SLOWEST),
            _ => return false,
        }
        true
    }

    fn step(&mut self, by_ns: i64) {
        self.playing = false;
        self.seek(by_ns);
    }
}

/// Everything about the view that is not a number from the kernel.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) screen: Screen,
    /// The screens on the way here.
    way: Vec<Screen>,
    /// What was left just now: to be selected, wherever it is listed by now.
    left: Option<Service>,
    pub(crate) sort: Sort,
    pub(crate) order: Order,
    pub(crate) reverse: bool,
    /// What rows must contain.
    pub(crate) search: String,
    /// Whether keys go into `search`.
    pub(crate) typing: bool,
    pub(crate) paused: bool,
    pub(crate) help: bool,
    /// The selected row of the list on the screen.
    pub(crate) selected: usize,
    /// Of a capture.
    pub(crate) transport: Option<Transport>,
}

impl State {
    pub(crate) fn new(transport: Option<Transport>) -> Self {
        Self {
            screen: Screen::Services,
            way: Vec::new(),
            left: None,
            sort: Sort::default(),
            order: Order::default(),
            reverse: false,
            search: String::new(),
            typing: false,
            paused: false,
            help: false,
            selected: 0,
            transport,
        }
    }

    pub(crate) fn key(&mut self, key: KeyEvent, listed: &Listed) -> Action {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Action::Interrupt;
        }
        if self.typing {
            self.type_in(key.code);
            return Action::Draw;
        }
        if self.help {
            self.help = false;
            return Action::Draw;
        }
        if self.transport.as_mut().is_some_and(|transport| transport.key(key.code)) {
            return Action::Draw;
        }
        let last = listed.rows.saturating_sub(1);
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('/') if !matches!(self.screen, Screen::Port(_)) => {
                self.typing = true;
                self.search.clear();
                self.selected = 0;
            }
            KeyCode::Char('s') => {
                self.selected = 0;
                match self.screen {
                    Screen::Connections(_) => self.order = self.order.next(),
                    _ => self.sort = self.sort.next(),
                }
            }
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Char('c') => self.enter_connections(listed),
            KeyCode::Enter => self.enter(listed),
            KeyCode::Esc | KeyCode::Backspace => self.leave(),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::PageDown => self.selected = (self.selected + 10).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            _ => {}
        }
        Action::Draw
    }

    fn type_in(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.search.clear();
            }
            KeyCode::Backspace => {
                self.search.pop();
            }
            KeyCode::Char(c) => self.search.push(c),
            _ => {}
        }
        self.selected = 0;
    }

    /// A click selects a row, one on the selected row goes into it.
    pub(crate) fn mouse(&mut self, mouse: MouseEvent, listed: &Listed) {
        if self.help {
            self.help = !matches!(mouse.kind, MouseEventKind::Down(_));
            return;
        }
        match mouse.kind {
            MouseEventKind::ScrollDown => {
                self.selected = (self.selected + 1).min(listed.rows.saturating_sub(1));
            }
            MouseEventKind::ScrollUp => self.selected = self.selected.saturating_sub(1),
            MouseEventKind::Down(MouseButton::Left) => {
                match listed.row_at(mouse.column, mouse.row) {
                    Some(row) if row == self.selected => self.enter(listed),
                    Some(row) => self.selected = row,
                    None => {}
                }
            }
            MouseEventKind::Down(MouseButton::Right) => self.leave(),
            _ => {}
        }
    }

    /// Into the selected row, and from a port without shards into its connections.
    fn enter(&mut self, listed: &Listed) {
        match (&self.screen, listed.services.get(self.selected)) {
            (Screen::Connections(_), _) | (Screen::Services, None) => {}
            (Screen::Services | Screen::Port(_), Some(service)) => {
                self.go(Screen::Port(service.clone()));
            }
            (Screen::Port(service), None) => self.go(Screen::Connections(service.clone())),
        }
    }

    fn enter_connections(&mut self, listed: &Listed) {
        let service = match &self.screen {
            Screen::Services => listed.services.get(self.selected).cloned(),
            Screen::Port(service) => Some(service.clone()),
            Screen::Connections(_) => None,
        };
        if let Some(service) = service {
            self.go(Screen::Connections(service));
        }
    }

    fn leave(&mut self) {
        if !self.search.is_empty() {
            self.search.clear();
            self.selected = 0;
        } else if let Some(screen) = self.way.pop() {
            self.selected = 0;
            self.left = match std::mem::replace(&mut self.screen, screen) {
                Screen::Port(service) => Some(service),
                Screen::Services | Screen::Connections(_) => None,
            };
        }
    }

    /// Moves the selection with what was listed; true if that is to be drawn anew.
    pub(crate) fn follow(&mut self, listed: &Listed) -> bool {
        let before = self.selected;
        // A list that became shorter takes the selection along.
        self.selected = before.min(listed.rows.saturating_sub(1));
        if let Some(left) = self.left.take() {
            let now = listed.services.iter().position(|known| *known == left);
            self.selected = now.unwrap_or(self.selected);
        }
        self.selected != before
    }

    fn go(&mut self, screen: Screen) {
        self.way.push(std::mem::replace(&mut self.screen, screen));
        self.selected = 0;
        self.search.clear();
    }

    /// The service whose connections are to be listed.
    pub(crate) fn wish(&self) -> Option<Service> {
        match &self.screen {
            Screen::Connections(service) => Some(service.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(port: u16) -> Service {
        Service { container: "web".into(), port, role: "passive".into(), netns: 0 }
    }

    fn listed(services: &[Service]) -> Listed {
        let area = Rect { x: 0, y: 3, width: 80, height: 10 };
        Listed { services: services.to_vec(), rows: services.len(), area, first: 0 }
    }

    fn press_on(state: &mut State, keys: &str, listed: &Listed) -> Action {
        let mut last = Action::Draw;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '>' => KeyCode::Right,
                '<' => KeyCode::Left,
                other => KeyCode::Char(other),
            };
            last = state.key(KeyEvent::new(code, KeyModifiers::NONE), listed);
        }
        last
    }

    fn press(state: &mut State, keys: &str) -> Action {
        press_on(state, keys, &listed(&[service(3005), service(80)]))
    }

    #[test]
    fn down_into_connections_and_back() {
        let mut state = State::new(None);
        press(&mut state, "j\n");
        assert_eq!(state.screen, Screen::Port(service(80)));
        press_on(&mut state, "\n", &Listed::default());
        assert_eq!(state.wish(), Some(service(80)));
        press(&mut state, "\u{1b}\u{1b}");
        assert_eq!(state.screen, Screen::Services);
        // Others have come meanwhile.
        assert!(state.follow(&listed(&[service(1), service(3005), service(80)])));
        assert_eq!(state.selected, 2);
        assert_eq!(press(&mut state, "q"), Action::Quit);
    }

    #[test]
    fn down_into_a_shard_and_back() {
        let mut state = State::new(None);
        press(&mut state, "\n");
        let shards = listed(&[service(3002), service(3003)]);
        press_on(&mut state, "j\n", &shards);
        assert_eq!(state.screen, Screen::Port(service(3003)));
        press_on(&mut state, "c", &Listed::default());
        assert_eq!(state.wish(), Some(service(3003)));
        press(&mut state, "\u{1b}\u{1b}");
        assert_eq!(state.screen, Screen::Port(service(3005)));
        assert!(state.follow(&shards));
        assert_eq!(state.selected, 1);
    }

    #[test]
    fn a_click_selects_and_another_goes_in() {
        let mut state = State::new(None);
        let listed = listed(&[service(3005), service(80)]);
        let click = |state: &mut State, row| {
            let kind = MouseEventKind::Down(MouseButton::Left);
            let modifiers = KeyModifiers::NONE;
            state.mouse(MouseEvent { kind, column: 5, row, modifiers }, &listed);
            (state.screen.clone(), state.selected)
        };
        // The header, the second row, below the last.
        assert_eq!(click(&mut state, 2), (Screen::Services, 0));
        assert_eq!(click(&mut state, 4), (Screen::Services, 1));
        assert_eq!(click(&mut state, 5), (Screen::Services, 1));
        assert_eq!(click(&mut state, 4), (Screen::Port(service(80)), 0));
    }

    #[test]
    fn what_is_typed_is_searched_for_and_no_command() {
        let mut state = State::new(None);
        press(&mut state, "/quit\n");
        assert_eq!((state.search.as_str(), state.typing), ("quit", false));
        press(&mut state, "\u{1b}");
        assert_eq!((state.search.as_str(), state.screen.clone()), ("", Screen::Services));
    }

    #[test]
    fn a_capture_is_paused_stepped_and_sought() {
        let mut state = State::new(Some(Transport::new(0, 60_000_000_000)));
        let at = |state: &State| state.transport.unwrap().at_ns / 1_000_000_000;
        press(&mut state, ">>.,,");
        assert_eq!((at(&state), state.transport.unwrap().playing), (19, false));
        press(&mut state, "<<<");
        assert_eq!(at(&state), 0);
        press(&mut state, "++ ");
        let transport = state.transport.as_mut().unwrap();
        transport.pass(std::time::Duration::from_secs(10));
        assert_eq!((transport.at_ns, transport.playing), (40_000_000_000, true));
        transport.pass(std::time::Duration::from_secs(10));
        assert_eq!((transport.at_ns, transport.playing), (60_000_000_000, false));
        press(&mut state, " ");
        assert_eq!(at(&state), 0);
    }
}
