//! `lab token`.

use std::time::Duration;

use clap::Args;

use crate::server::token::issue;
use crate::units::{duration, unix_ns};

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Whom it is for
    #[arg(long, value_name = "NAME", default_value = "alice")]
    user: String,

    /// What `lab serve --jwt-secret` has
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    secret: String,

    /// How long it is valid
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "24h")]
    valid: Duration,
}

impl Token {
    /// Prints it.
    pub(crate) fn run(&self) {
        let now = unix_ns() / 1_000_000_000;
        let seconds = i64::try_from(self.valid.as_secs()).unwrap_or(i64::MAX / 4);
        println!("{}", issue(&self.user, &self.secret, now, now.saturating_add(seconds)));
    }
}
