//! Picks where counts come from: a running agent, else our own programs, else sock_diag.

use std::{path::Path, sync::Arc};

use super::{agent::Agent, polled::Polled, source::Source};
use crate::{error::Error, kernel};

/// What a command can do without exact counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: exit 96.
    Exact,
    /// Go on with sock_diag, and say so on stderr.
    Any,
}

/// Opens the best source there is.
pub(crate) fn open(agent_socket: &Path, need: Need) -> anyhow::Result<Arc<dyn Source>> {
    open_with(agent_socket, need, &kernel::Options::default())
}

/// Likewise; where there is no agent, with these options.
pub(crate) fn open_with(
    agent_socket: &Path,
    need: Need,
    options: &kernel::Options,
) -> anyhow::Result<Arc<dyn Source>> {
    if let Some(agent) = Agent::connect(agent_socket)? {
        return Ok(Arc::new(agent));
    }
    own(need, options)
}

/// The best source but an agent.
pub(crate) fn own(need: Need, options: &kernel::Options) -> anyhow::Result<Arc<dyn Source>> {
    match kernel::open(options) {
        Ok(source) => Ok(source),
        Err(unavailable) if need == Need::Exact => Err(unsupported(unavailable).into()),
        Err(unavailable) => {
            eprintln!("probe: {unavailable}; polling sock_diag instead, which is not exact");
            let kernel::Unavailable { what, why, .. } = unavailable;
            Ok(Arc::new(Polled::new(format!("cannot {what}: {why}"))))
        }
    }
}

impl Need {
    pub(crate) fn of(require_exact: bool) -> Self {
        if require_exact { Self::Exact } else { Self::Any }
    }

    /// Whether counts may be used, whoever they come from. `why` not, if they are not exact.
    ///
    /// # Errors
    /// [`Error::NotExact`] where they are not, and have to be.
    pub(crate) fn check(self, exact: bool, why: &[String]) -> Result<(), Error> {
        if exact || self == Self::Any {
            return Ok(());
        }
        Err(Error::NotExact { why: why.join("; ") })
    }
}

pub(crate) fn unsupported(unavailable: kernel::Unavailable) -> Error {
    let kernel::Unavailable { what, why, cure } = unavailable;
    Error::Unsupported { what, why, cure }
}
