//! Tables for a terminal: no wider than it is. Columns that matter least are left out first, and
//! the last line names them; then the widest cells are wrapped.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::record::{Records, Value};
use super::terminal::{Page, Style, shown};

/// Blanks between two columns.
const GAP: usize = 2;
/// What a column with cut cells gets before others are left out for it.
const CUT_WIDTH_MIN: usize = 24;
/// What a column may be narrowed to before its cells are unreadable.
const WRAPPED_WIDTH_MIN: usize = 8;

/// One column: its title, and when it is left out.
#[derive(Clone, Debug)]
pub(super) struct Column {
    title: Cow<'static, str>,
    /// Columns of the highest rank go first where there is no room; those of rank 0 stay.
    rank: u8,
    /// Numbers stand at the right side.
    is_number: bool,
    /// Left out where no row has anything in it.
    is_seldom: bool,
    /// Gets the room that the others leave, and its cells are cut and not wrapped.
    is_cut: bool,
}

impl Column {
    pub(super) const fn new(title: &'static str, rank: u8) -> Self {
        Self {
            title: Cow::Borrowed(title),
            rank,
            is_number: false,
            is_seldom: false,
            is_cut: false,
        }
    }

    pub(super) const fn number(title: &'static str, rank: u8) -> Self {
        Self { title: Cow::Borrowed(title), rank, is_number: true, is_seldom: false, is_cut: false }
    }

    /// A column whose title came with the data. The first stays, the others may give way.
    pub(super) fn named(title: String, at: usize) -> Self {
        let rank = u8::try_from(at).unwrap_or(u8::MAX);
        Self { title: Cow::Owned(title), rank, is_number: false, is_seldom: false, is_cut: false }
    }

    /// A column of long texts of which the beginning is enough.
    pub(super) const fn cut(title: &'static str, rank: u8) -> Self {
        let title = Cow::Borrowed(title);
        Self { title, rank, is_number: false, is_seldom: false, is_cut: true }
    }

    pub(super) const fn seldom(title: &'static str, rank: u8) -> Self {
        Self { title: Cow::Borrowed(title), rank, is_number: false, is_seldom: true, is_cut: false }
    }
}

/// A text and its look.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn new(style: Style, text: impl AsRef<[u8]>) -> Self {
        Self { text: shown(text.as_ref()), style }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl<T: AsRef<[u8]>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Style::Plain, text)
    }
}

pub(super) struct Grid {
    columns: Cow<'static, [Column]>,
    rows: Vec<Vec<Cell>>,
}

impl Grid {
    pub(super) fn new(columns: &'static [Column], rows: impl Iterator<Item = Vec<Cell>>) -> Self {
        Self { columns: Cow::Borrowed(columns), rows: rows.collect() }
    }

    /// Records as rows, their fields as columns; a record alone has a row for each field.
    pub(super) fn of_records(records: &Records) -> Self {
        let cell = |value: &Value| -> Cell {
            match value {
                Value::Text(text) => text.into(),
                other => other.json().into(),
            }
        };
        let fields = |value: &Value| match value {
            Value::Map(fields) => fields.clone(),
            other => vec![("value".to_owned(), other.clone())],
        };
        let (Records::Many(all) | Records::Some(all)) = records else {
            static COLUMNS: [Column; 2] = [Column::new("FIELD", 0), Column::new("VALUE", 0)];
            let Records::One(one) = records else { return Self::new(&COLUMNS, [].into_iter()) };
            let rows = fields(one);
            let rows = rows.iter().map(|(name, value)| vec![name.into(), cell(value)]);
            return Self::new(&COLUMNS, rows);
        };
        let mut names: Vec<String> = Vec::new();
        for (name, _) in all.iter().flat_map(fields) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let row = |one: &Value| -> Vec<Cell> {
            let fields = fields(one);
            let found = |name: &String| fields.iter().find(|(known, _)| known == name);
            names
                .iter()
                .map(|name| found(name).map_or("".into(), |(_, value)| cell(value)))
                .collect()
        };
        let rows = all.iter().map(row).collect();
        let column = |(at, name): (usize, &String)| Column::named(name.to_uppercase(), at);
        Self { columns: names.iter().enumerate().map(column).collect(), rows }
    }

    /// The lines, none wider than `width`.
    pub(super) fn page(&self, width: usize) -> Page {
        let (kept, left_out) = self.choose(width);
        if kept.is_empty() {
            // Records whose fields nobody knows, since there are none.
            let mut page = Page::default();
            page.text(Style::Dim, if width == usize::MAX { "" } else { "none\n" });
            return page;
        }
        let mut widths: Vec<usize> = kept.iter().map(|at| self.width(*at)).collect();
        narrow(&mut widths, width);
        for (place, at) in kept.iter().enumerate().filter(|(_, at)| self.columns[**at].is_cut) {
            let used = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
            let wanted = self.natural_width(*at);
            widths[place] = wanted.min(widths[place] + width.saturating_sub(used));
        }
        let mut page = Page::default();
        let titles = kept.iter().map(|at| Cell::new(Style::Bold, self.columns[*at].title.as_ref()));
        self.line(&mut page, &kept, &widths, &titles.collect::<Vec<_>>());
        for row in &self.rows {
            let cells = kept.iter().map(|at| row.get(*at).cloned().unwrap_or_else(|| "".into()));
            self.line(&mut page, &kept, &widths, &cells.collect::<Vec<_>>());
        }
        if !left_out.is_empty() {
            let names: Vec<&str> = left_out.iter().map(|at| &*self.columns[*at].title).collect();
            let text = format!("No room for {}; -o yaml shows all.", names.join(", "));
            for line in wrapped(&text, width) {
                page.text(Style::Dim, line).end_line();
            }
        }
        page
    }

    /// The table for a pipe, with all columns.
    pub(super) fn text(&self) -> Vec<u8> {
        self.page(usize::MAX).render(false, false)
    }

    /// What a column needs at least, unless cells are wrapped.
    fn width(&self, column: usize) -> usize {
        let natural = self.natural_width(column);
        if self.columns[column].is_cut { natural.min(CUT_WIDTH_MIN) } else { natural }
    }

    fn natural_width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let texts = cells.map(|cell| cell.text.width());
        texts.chain([self.columns[column].title.width()]).max().unwrap_or(0)
    }

    fn is_empty(&self, column: usize) -> bool {
        self.rows.iter().filter_map(|row| row.get(column)).all(|cell| cell.text.is_empty())
    }

    /// The columns that are shown, and those that are not for want of room.
    fn choose(&self, width: usize) -> (Vec<usize>, Vec<usize>) {
        let is_used = |at: &usize| !(self.columns[*at].is_seldom && self.is_empty(*at));
        let mut kept: Vec<usize> = (0..self.columns.len()).filter(is_used).collect();
        let mut left_out = Vec::new();
        loop {
            let sum: usize = kept.iter().map(|at| self.width(*at) + GAP).sum();
            if sum.saturating_sub(GAP) <= width {
                break;
            }
            // Of equal ranks the one more to the right goes first.
            let last = kept.iter().max_by_key(|at| (self.columns[**at].rank, **at)).copied();
            let Some(at) = last.filter(|at| self.columns[*at].rank > 0) else { break };
            kept.retain(|kept| *kept != at);
            left_out.push(at);
        }
        left_out.sort_unstable();
        (kept, left_out)
    }

    /// Writes one row, on as many lines as its longest cell needs.
    fn line(&self, page: &mut Page, kept: &[usize], widths: &[usize], cells: &[Cell]) {
        let piece = |((cell, width), at): ((&Cell, &usize), &usize)| match self.columns[*at].is_cut
        {
            true => vec![cut(&cell.text, *width)],
            false => wrapped(&cell.text, *width),
        };
        let pieces: Vec<Vec<String>> = cells.iter().zip(widths).zip(kept).map(piece).collect();
        let height = pieces.iter().map(Vec::len).max().unwrap_or(1);
        for turn in 0..height {
            let is_there = |at: usize| pieces[at].get(turn).is_some_and(|text| !text.is_empty());
            let last = (0..kept.len()).rev().find(|at| is_there(*at));
            for at in 0..=last.unwrap_or(0) {
                let text = pieces[at].get(turn).map_or("", String::as_str);
                let fill = " ".repeat(widths[at].saturating_sub(text.width()));
                let is_number = self.columns[kept[at]].is_number;
                if is_number {
                    page.text(Style::Plain, fill.as_str());
                }
                page.text(cells[at].style, text);
                if Some(at) != last {
                    let gap = if is_number { String::new() } else { fill };
                    page.text(Style::Plain, gap + &" ".repeat(GAP));
                }
            }
            page.end_line();
        }
    }
}

/// Makes the widest columns narrower until all fit.
fn narrow(widths: &mut [usize], width: usize) {
    let room = width.saturating_sub(GAP * widths.len().saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max() else { return };
        if *widest <= WRAPPED_WIDTH_MIN {
            return;
        }
        *widest -= 1;
    }
}

/// The beginning of a text that is too wide.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let is_within = |letter: &char| {
        used += letter.width().unwrap_or(0);
        used <= width
    };
    let mut kept: String = text.chars().take_while(is_within).collect();
    kept.push('…');
    kept
}

/// A text in pieces of at most this width, broken at blanks and commas if there are any.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while rest.width() > width.max(1) {
        let mut end = 0;
        let mut used = 0;
        let mut blank = 0;
        for (at, letter) in rest.char_indices() {
            let next = at + letter.len_utf8();
            used += rest[at..next].width();
            if used > width && end > 0 {
                // A word that ends with the line fits.
                blank = if letter == ' ' { end } else { blank };
                break;
            }
            end = next;
            if matches!(letter, ' ' | ',') {
                blank = next;
            }
        }
        let cut = if blank > 0 { blank } else { end };
        lines.push(rest[..cut].trim_end_matches(' ').to_owned());
        rest = rest[cut..].trim_start_matches(' ');
    }
    lines.push(rest.to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLUMNS: [Column; 4] = [
        Column::new("ENDPOINT", 0),
        Column::number("SIZE", 2),
        Column::new("ID", 1),
        Column::seldom("ERRORS", 0),
    ];

    fn lines(rows: &[[&str; 4]], width: usize) -> Vec<String> {
        let rows = rows.iter().map(|row| row.iter().map(Cell::from).collect());
        let page = Grid::new(&COLUMNS, rows).page(width);
        let text = String::from_utf8(page.render(false, false)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_left_out_by_rank_and_named() {
        let rows = [["127.0.0.1:2379", "20 kB", "8e9e05c52164694d", ""]];
        assert_eq!(
            lines(&rows, 80),
            ["ENDPOINT         SIZE  ID", "127.0.0.1:2379  20 kB  8e9e05c52164694d"]
        );
        let narrow = lines(&rows, 34);
        assert_eq!(narrow[..2], ["ENDPOINT        ID", "127.0.0.1:2379  8e9e05c52164694d"]);
        assert_eq!(narrow[2..].join(" "), "No room for SIZE; -o yaml shows all.");
    }

    #[test]
    fn records_become_rows() {
        let record = |id: &str| Value::Map(vec![("id".to_owned(), id.into())]);
        let text = |records, width| {
            String::from_utf8(Grid::of_records(&records).page(width).render(false, false)).unwrap()
        };
        assert_eq!(text(Records::Many(vec![record("a"), record("b")]), 80), "ID\na\nb\n");
        assert_eq!(text(Records::One(record("a")), 80), "FIELD  VALUE\nid     a\n");
        assert_eq!(text(Records::Many(Vec::new()), 80), "none\n");
        assert_eq!(text(Records::Many(Vec::new()), usize::MAX), "");
    }

    #[test]
    fn a_cut_counts_columns() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("漢字漢字", 5), "漢字…");
        assert_eq!(cut("漢字漢字", 4), "漢…");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let long = "x".repeat(90);
        let rows = [
            ["https://漢字.example.org:2379", "1", "2", "memberID:1 alarm:NOSPACE, and more words"],
            [long.as_str(), "2", "3", ""],
        ];
        for width in [20, 33, 60, 80, 120, 200] {
            for line in lines(&rows, width) {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
        assert!(lines(&rows, 200)[0].contains("ERRORS"));
    }
}
