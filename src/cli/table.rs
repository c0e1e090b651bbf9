//! The tables of `-w table`.

use comfy_table::{CellAlignment, ContentArrangement, Table};

/// comfy-table's preset for etcdctl's tables: borders, a line under the header, none between rows.
const PRESET: &str = "││──├─┼┤│    ┬┴┌┐└┘";

/// Draws a header (upper case, centred, an odd blank to the right) and right-aligned rows, as
/// etcdctl does.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<_> = header.iter().map(|cell| cell.replace('_', " ").to_uppercase()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.chain(&header[column..=column]).map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0)
    };
    let mut table = Table::new();
    table.load_preset(PRESET).set_content_arrangement(ContentArrangement::Disabled);
    // Centred here: comfy-table puts an odd blank to the left.
    let centred = header.iter().enumerate().map(|(at, cell)| format!("{cell:^w$}", w = width(at)));
    table.set_header(centred).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = table.to_string();
    if rows.is_empty() {
        // Without rows there is nothing below the header, and no line under it.
        let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with('├')).collect();
        out = lines.join("\n");
    }
    out.push('\n');
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
