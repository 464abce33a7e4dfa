//! The figures behind the drawings, one row a line.

use maud::{Markup, html};

/// A table; columns that no row fills are left out.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Names of columns.
    pub columns: Vec<String>,
    /// Rows, a cell a column.
    pub rows: Vec<Vec<Cell>>,
}

/// What one row says in one column.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    value: Option<f64>,
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), value: None }
    }

    /// A figure and how it is written; nothing where it is unknown.
    pub fn figure(value: Option<f64>, written: fn(f64) -> String) -> Cell {
        Cell { text: value.map(written).unwrap_or_default(), value }
    }
}

impl Table {
    /// The table as HTML. Its headings sort it where scripts run.
    pub fn draw(&self) -> Markup {
        let filled = |column: &usize| self.rows.iter().any(|row| !row[*column].text.is_empty());
        let figures = |column: usize| self.rows.iter().any(|row| row[column].value.is_some());
        let columns: Vec<usize> = (0..self.columns.len()).filter(filled).collect();
        html! {
            details open[self.rows.len() <= 40] {
                summary { (super::words::count(self.rows.len() as u64, "line")) " as a table" }
                div.scroll tabindex="0" {
                    table {
                        thead {
                            tr {
                                @for column in &columns {
                                    th.n[figures(*column)] scope="col" { button type="button" {
                                        (self.columns[*column])
                                    } }
                                }
                            }
                        }
                        tbody {
                            @for row in &self.rows {
                                tr { @for column in &columns { (row[*column].draw()) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Cell {
    fn draw(&self) -> Markup {
        html! {
            @match self.value {
                Some(value) => td.n data-v=(value) { (self.text) },
                None => td { (self.text) },
            }
        }
    }
}
