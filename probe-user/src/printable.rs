//! Text from elsewhere, such as a container's name: nothing in it reaches a terminal as a control sequence.

/// Of a line.
pub(crate) fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Of several lines.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(word).collect::<Vec<_>>().join("\n")
}
