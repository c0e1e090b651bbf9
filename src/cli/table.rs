//! The box that `-w table` draws.

/// Draws a header (upper case, centred, odd space to the right) and right-aligned rows.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<_> = header.iter().map(|cell| cell.replace('_', " ").to_uppercase()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.chain(&header[column..=column]).map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0)
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let bars: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", bars.join(middle))
    };
    let line = |cells: Vec<String>| format!("│ {} │\n", cells.join(" │ "));
    let mut out = rule("┌", "┬", "┐");
    out.push_str(&line(
        header.iter().zip(&widths).map(|(cell, w)| format!("{cell:^w$}")).collect(),
    ));
    if !rows.is_empty() {
        out.push_str(&rule("├", "┼", "┤"));
    }
    for row in rows {
        out.push_str(&line(
            row.iter().zip(&widths).map(|(cell, w)| format!("{cell:>w$}")).collect(),
        ));
    }
    out.push_str(&rule("└", "┴", "┘"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_centred_and_cells_are_right_aligned() {
        let rows = vec![vec!["1400776298".to_string(), "30".to_string()]];
        let expected = "\
┌────────────┬───────────────┐
│    HASH    │ HASH REVISION │
├────────────┼───────────────┤
│ 1400776298 │            30 │
└────────────┴───────────────┘
";
        assert_eq!(table(&["hash", "hash_revision"], &rows), expected);
    }

    #[test]
    fn no_rows_leave_out_the_middle_line() {
        assert_eq!(table(&["a"], &[]), "┌───┐\n│ A │\n└───┘\n");
    }
}
