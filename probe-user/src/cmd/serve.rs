//! `probe serve`: the agent.

use std::{
    fs, future::IntoFuture, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration,
};

use anyhow::Context;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    cli::{Command, Listen, Questions, Serve},
    config::{self, Settings},
    error::Error,
    exit::Exit,
    export::{
        http::{self, Agent},
        listener,
        lock::Lock,
        otlp,
        token::Token,
    },
    identity::Identity,
    kernel,
    page::{Page, Subject},
    signal::Signals,
    truth::{choose::unsupported, source::Source},
};

/// Between walks over all sockets, tens of milliseconds each.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// Keys that take effect when the settings are read again; the others wait for a restart.
const RELOADED: [&str; 10] = [
    "ca",
    "health",
    "health_timeout",
    "interval",
    "metric",
    "metrics",
    "peer",
    "reported",
    "shards",
    "table",
];

pub(crate) async fn run(
    socket: &Path,
    settings: Settings,
    arguments: &Serve,
) -> anyhow::Result<Exit> {
    let (token, tls) = guard(&arguments.listen)?;
    let listen = arguments.listen.listen;
    let hangups = signal(SignalKind::hangup())?;
    let mut signals = Signals::catch()?;
    let _socket = Lock::take(socket)?;
    let _programs = kernel::hold::take(Path::new(kernel::PIN_ROOT))?;
    // Asked before the programs are loaded, so that a port in use costs nothing.
    let tcp = TcpListener::bind(listen).await.map_err(|error| {
        Error::input(
            format!("cannot listen on {listen}: {error}"),
            "choose another address with --listen",
        )
    })?;
    let source: Arc<dyn Source> = kernel::open(&kernel::Options {
        connections: arguments.max_connections,
        ring_bytes: arguments.ring_bytes,
        pin: Some(kernel::PIN_ROOT.into()),
        counts_only: arguments.counts_only,
        without: Vec::new(),
    })
    .map_err(unsupported)?;
    kernel::cost::sample_now_and_then();
    let unix = bind(socket)?;
    let identity = Arc::new(Identity::new()?);
    tend_now_and_then(Arc::clone(&source), Arc::clone(&identity));
    let (wish, asked) = watch::channel(arguments.asked.clone());
    let page = Page::start(Subject {
        source: Arc::clone(&source),
        identity: Arc::clone(&identity),
        asked: asked.clone(),
    });
    if let Some(url) = arguments.otlp.clone() {
        let target = arguments.asked.health.target(&url);
        let receiver = otlp::Receiver { target, interval: arguments.otlp_interval };
        tokio::spawn(otlp::export(receiver, Arc::clone(&source), Arc::clone(&identity)));
    }
    let agent = Agent::new(source, identity, asked);
    let scheme = if tls.is_some() { "https" } else { "http" };
    eprintln!("probe: listening on {scheme}://{} and {}", tcp.local_addr()?, socket.display());

    let public = listener::serve(tcp, tls, http::public(agent.clone(), &page, token));
    let private = axum::serve(unix, http::private(agent));
    let stop = tokio::select! {
        stop = signals.next() => stop,
        result = reload_on(hangups, settings, &wish) => return result,
        never = public => match never {},
        result = private.into_future() => {
            result.context("the listener failed")?;
            anyhow::bail!("the listener ended by itself");
        }
    };
    // Streams that are open end with the process; nobody waits for them.
    let _ = fs::remove_file(socket);
    eprintln!(
        "probe: stopped by {}; what is pinned stays (`probe stop --purge` removes it)",
        stop.name()
    );
    Ok(stop.exit())
}

/// Reads the settings again at every SIGHUP. What counts is not touched by it, so nothing is lost.
async fn reload_on(
    mut hangups: Signal,
    mut settings: Settings,
    wish: &watch::Sender<Questions>,
) -> anyhow::Result<Exit> {
    while hangups.recv().await.is_some() {
        let cli = match config::load("serve") {
            Ok(cli) => cli,
            Err(failure) => {
                eprintln!("probe: the settings stay as they were: {failure}");
                continue;
            }
        };
        let changed = config::changed(&settings, &cli.settings);
        let (now, later): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|key| RELOADED.contains(&key.as_str()));
        if !now.is_empty()
            && let Some(Command::Serve(arguments)) = &cli.command
        {
            wish.send_replace(arguments.asked.clone());
        }
        let named = |keys: &[String]| match keys {
            [] => "nothing".to_owned(),
            keys => keys.join(", "),
        };
        eprintln!("probe: read the settings again: {} changed", named(&now));
        if !later.is_empty() {
            eprintln!("probe: for {} restart the agent; no count is lost by it", named(&later));
        }
        settings = cli.settings;
    }
    anyhow::bail!("SIGHUP can no longer be waited for")
}

/// What the HTTP side asks of who comes, and speaks with them.
fn guard(arguments: &Listen) -> anyhow::Result<(Option<Arc<Token>>, Option<TlsAcceptor>)> {
    let listen = arguments.listen;
    let token = arguments.token_file.as_deref().map(Token::read).transpose()?.map(Arc::new);
    if token.is_none() && !listen.ip().is_loopback() {
        return Err(Error::input(
            format!("{listen} is reachable from other hosts, and would answer everybody there"),
            "ask for a token with --token-file FILE, or listen on --listen 127.0.0.1:9464",
        )
        .into());
    }
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(listener::tls(certificate, key)?),
        _ => None,
    };
    if tls.is_none() && !listen.ip().is_loopback() {
        eprintln!(
            "probe: warning: the token crosses the network in the clear; encrypt it with --tls-cert and --tls-key"
        );
    }
    Ok((token, tls))
}

/// Walks all sockets now and then, as [`Source::settle`] asks of an agent, and gives counters back.
fn tend_now_and_then(source: Arc<dyn Source>, identity: Arc<Identity>) {
    // A thread of its own, not a task: nobody waits for it at the end.
    std::thread::spawn(move || {
        let (mut is_failing, mut told) = (false, None);
        loop {
            std::thread::sleep(TEND_EVERY);
            match source.settle() {
                Ok(()) => is_failing = false,
                // Said once; the verdict on the counts tells how long it lasts.
                Err(error) if !is_failing => {
                    is_failing = true;
                    eprintln!("probe: cannot walk the sockets of this host: {error:#}");
                }
                Err(_) => {}
            }
            // Where this never succeeds, counts say so once counters run short.
            let trouble = source.reclaim(&identity).err().map(|error| format!("{error:#}"));
            if let Some(why) = trouble.as_ref().filter(|_| trouble != told) {
                eprintln!("probe: cannot give counters back: {why}");
            }
            told = trouble;
        }
    });
}

/// We hold the lock, so a socket that is there was left behind.
fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    // Raw records show every connection of the host.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", socket.display()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags;

    #[test]
    fn what_is_reloaded_can_be_set() {
        let flags = flags::of_command(&config::command(), "serve").unwrap();
        for key in RELOADED {
            assert!(flags.iter().any(|flag| flag.key() == key), "{key}");
        }
    }
}
