//! Lines of a block that fit a terminal of 80 columns.

/// Less the two by which a block indents.
const COLUMNS: usize = 78;

/// `lead` and the parts, as many in a line as fit; further lines begin with `hanging`.
pub(crate) fn fit(
    lead: &str,
    parts: impl IntoIterator<Item = String>,
    between: &str,
    hanging: &str,
) -> String {
    let mut text = lead.to_owned();
    let mut columns = width(lead);
    let mut begins = lead.is_empty();
    for part in parts {
        let needed = width(between) + width(&part);
        if begins {
            columns += width(&part);
        } else if columns + needed <= COLUMNS {
            text.push_str(between);
            columns += needed;
        } else {
            text.push('\n');
            text.push_str(hanging);
            columns = width(hanging) + width(&part);
        }
        text.push_str(&part);
        begins = false;
    }
    text
}

/// Columns on a terminal; colours have none.
fn width(text: &str) -> usize {
    let mut colour = false;
    text.chars()
        .filter(|c| {
            colour |= *c == '\u{1b}';
            let counts = !colour;
            colour &= *c != 'm';
            counts
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_goes_on_below() {
        let parts = |n: usize| (0..n).map(|n| format!("\u{1b}[32mpart {n}\u{1b}[0m"));
        let nine = fit("lead:", parts(9), "  ", "      ");
        assert_eq!(nine.lines().count(), 1, "{nine}");
        let more = fit("lead:", parts(20), "  ", "      ");
        let columns: Vec<usize> = more.lines().map(width).collect();
        assert_eq!(columns, [77, 75, 31], "{more}");
        assert!(more.lines().skip(1).all(|line| line.starts_with("      ")), "{more}");
        assert_eq!(fit("", parts(0), "  ", ""), "");
        assert!(fit("", parts(1), "  ", "").starts_with('\u{1b}'));
    }
}
