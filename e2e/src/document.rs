//! Sections of a document that tests write, each its own.

use std::path::Path;

/// Replaces the section that begins with the line `heading` and ends before the next heading of its
/// rank; appends it where there is none. `text` begins with the heading.
///
/// # Panics
/// If the file cannot be read or written, or `text` begins otherwise.
pub fn write_section(path: &Path, heading: &str, text: &str) {
    assert!(text.starts_with(heading), "{heading:?} does not begin {text:?}");
    let old = std::fs::read_to_string(path).unwrap_or_default();
    std::fs::write(path, with_section(&old, heading, text))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn with_section(old: &str, heading: &str, text: &str) -> String {
    let text = text.trim_end();
    let lines: Vec<&str> = old.lines().collect();
    let Some(from) = lines.iter().position(|line| *line == heading) else {
        let old = old.trim_end();
        return if old.is_empty() { format!("{text}\n") } else { format!("{old}\n\n{text}\n") };
    };
    let rank = heading.split(' ').next().unwrap_or_default().len();
    let ends = |line: &str| {
        let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
        (1..=rank).contains(&hashes)
    };
    let after = lines[from + 1..].iter().position(|line| ends(line)).map(|at| from + 1 + at);
    let mut new: Vec<&str> = lines[..from].to_vec();
    new.push(text);
    if let Some(after) = after {
        new.push("");
        new.extend(&lines[after..]);
    }
    new.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::with_section;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let old = "# A\n\nintro\n\n## One\n\nold\n\n## Two\n\nstays\n";
        let new = with_section(old, "## One", "## One\n\nnew\n");
        assert_eq!(new, "# A\n\nintro\n\n## One\n\nnew\n\n## Two\n\nstays\n");
        assert_eq!(with_section(&new, "## Two", "## Two\n\nx"), new.replace("stays", "x"));
        assert_eq!(with_section("", "## One", "## One\n"), "## One\n");
        assert_eq!(with_section("# A\n", "## One", "## One\n"), "# A\n\n## One\n");
    }
}
