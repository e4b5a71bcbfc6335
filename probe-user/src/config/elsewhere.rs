//! A flag that another command has is told as that, not as the one of this command that is spelt most alike.

use clap::{
    Command,
    builder::StyledStr,
    error::{ContextKind, ContextValue, Error, ErrorKind},
};

/// What an agent follows without a choice.
const FOLLOWED: [&str; 3] = ["port", "container", "role"];

/// `of` is the command that was typed.
pub(super) fn told(mut error: Error, root: &Command, of: Option<&str>) -> Error {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let Some(long) =
        typed.strip_prefix("--").filter(|_| error.kind() == ErrorKind::UnknownArgument)
    else {
        return error;
    };
    let has = |command: &&Command| {
        !command.is_hide_set()
            && command.get_arguments().any(|argument| argument.get_long() == Some(long))
    };
    let others: Vec<&str> =
        root.get_subcommands().filter(has).map(|command| command.get_name()).collect();
    if others.is_empty() {
        return error;
    }
    let who = format!("probe {}", others.join(", "));
    let tip = match of {
        Some("serve") if FOLLOWED.contains(&long) => {
            format!("the agent follows all; --{long} is for those who ask it: {who}")
        }
        _ => format!("--{long} is for: {who}"),
    };
    error.remove(ContextKind::SuggestedArg);
    // With the suggestion in it.
    error.remove(ContextKind::Usage);
    let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
    error.insert(ContextKind::Suggested, tips);
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::command;

    fn said(words: &[&str]) -> String {
        let error = command().try_get_matches_from(words).unwrap_err();
        told(error, &command(), words.get(1).copied()).to_string()
    }

    #[test]
    fn who_has_the_flag_is_named() {
        let serve = said(&["probe", "serve", "--port", "3005"]);
        let agent = "tip: the agent follows all; --port is for those who ask it: probe count, \
                     connections, watch, record, top";
        assert!(serve.contains(agent) && !serve.contains("--reported"), "{serve}");
        let doctor = said(&["probe", "doctor", "--health", "http://127.0.0.1:3005/"]);
        assert!(
            doctor.contains("tip: --health is for: probe watch, record, top, serve"),
            "{doctor}"
        );
        let misspelt = said(&["probe", "serve", "--helth"]);
        assert!(misspelt.contains("'--health'"), "{misspelt}");
    }
}
