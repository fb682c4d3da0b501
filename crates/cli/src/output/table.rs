//! Columns that line up.

/// Which side of a column its cells keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table with a heading line. Rows may be shorter than the heading; cells beyond it are not shown.
pub(crate) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let lines = || std::iter::once(&heading).chain(rows);
    let width = |column: usize| {
        lines().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for cells in lines() {
        let mut line = String::new();
        for (index, ((_, align), width)) in columns.iter().zip(&widths).enumerate() {
            let cell = cells.get(index).map_or("", String::as_str);
            let gap = if index == 0 { "" } else { "  " };
            let padded = match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            };
            line.push_str(gap);
            line.push_str(&padded);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Align, table};

    #[test]
    fn words_keep_left_and_numbers_keep_right() {
        let rows =
            [vec!["é".to_owned(), "5 B".to_owned()], vec!["longer".to_owned(), "1.5 KiB".to_owned()], vec![]];
        let text = table(&[("name", Align::Left), ("size", Align::Right)], &rows);
        assert_eq!(text, "name       size\né           5 B\nlonger  1.5 KiB\n\n");
    }
}
