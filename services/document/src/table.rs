//! Tables that break over pages: the header is repeated, a row is kept together where a page can hold it.

use krilla::tagging::{TableHeaderScope, Tag};

use crate::{
    face::Style,
    flow::{CONTENT, Flow, MARGIN, Piece, Role},
    tags::NodeId,
};

const SIZE: f32 = 8.5;
const PAD: f32 = 2.6;
const GAP: f32 = 8.0;
/// For a cell with nothing in it: a reader must see that it is not a misprint.
const EMPTY: &str = "\u{2013}";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

#[derive(Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    /// Of the content's width, in parts of all columns' shares.
    pub share: f32,
    pub align: Align,
    pub style: Style,
}

impl Column {
    pub const fn new(title: &'static str, share: f32) -> Self {
        Self { title, share, align: Align::Left, style: Style::Regular }
    }

    pub const fn number(title: &'static str, share: f32) -> Self {
        Self { align: Align::Right, ..Self::new(title, share) }
    }

    /// The first of a list of facts.
    const fn label(share: f32) -> Self {
        Self { style: Style::Bold, ..Self::new("", share) }
    }
}

struct Geometry {
    x: Vec<f32>,
    width: Vec<f32>,
}

struct Row {
    cells: Vec<Vec<String>>,
    at: Vec<NodeId>,
}

impl Row {
    fn lines(&self) -> usize {
        self.cells.iter().map(Vec::len).max().unwrap_or(0)
    }
}

fn height(lines: usize) -> f32 {
    f32::from(u16::try_from(lines).unwrap_or(u16::MAX)) * Flow::line_height(SIZE) + 2.0 * PAD
}

impl Geometry {
    fn new(columns: &[Column]) -> Self {
        let shares: f32 = columns.iter().map(|c| c.share).sum();
        let gaps = GAP * f32::from(u16::try_from(columns.len().saturating_sub(1)).unwrap_or(0));
        let width: Vec<f32> = columns.iter().map(|c| (CONTENT - gaps) * c.share / shares).collect();
        let mut x = Vec::with_capacity(width.len());
        let mut left = MARGIN;
        for w in &width {
            x.push(left);
            left += w + GAP;
        }
        Self { x, width }
    }
}

impl Flow<'_> {
    /// Label and value, line by line.
    pub fn facts(&mut self, facts: &[(&'static str, String)]) {
        let columns = [Column::label(30.0), Column::new("", 70.0)];
        let rows: Vec<Vec<String>> = facts.iter().map(|(label, v)| vec![(*label).to_owned(), v.clone()]).collect();
        self.rows(&columns, &rows, None, true);
    }

    /// `summary` says what the table is about, for whoever hears it read.
    pub fn table(&mut self, columns: &[Column], rows: &[Vec<String>], summary: &str) {
        self.rows(columns, rows, Some(summary), false);
    }

    fn rows(&mut self, columns: &[Column], rows: &[Vec<String>], summary: Option<&str>, labelled: bool) {
        let geometry = Geometry::new(columns);
        let place = self.place();
        let table = self.structure.under(place, Tag::Table.with_summary(summary.map(str::to_owned)));
        let titles = summary.map(|_| self.titles(columns, &geometry));
        if let Some(titles) = &titles {
            self.want(height(titles.lines()) + height(2));
            let head = self.structure.under(table, Tag::THead);
            let row = self.structure.under(head, Tag::TR);
            let at = columns.iter().map(|_| self.structure.under(row, Tag::TH(TableHeaderScope::Column))).collect();
            self.draw_titles(columns, &geometry, &Row { cells: titles.cells.clone(), at });
        }
        let body = self.structure.under(table, Tag::TBody);
        for cells in rows {
            let row = self.structure.under(body, Tag::TR);
            let mut at = Vec::with_capacity(cells.len());
            for n in 0..cells.len() {
                let header = labelled && n == 0;
                at.push(match header {
                    true => self.structure.under(row, Tag::TH(TableHeaderScope::Row)),
                    false => self.structure.under(row, Tag::TD),
                });
            }
            let cells = self.wrapped(columns, &geometry, cells);
            self.draw_row(columns, &geometry, &Row { cells, at }, titles.as_ref());
        }
        self.space(4.0);
    }

    fn wrapped(&self, columns: &[Column], geometry: &Geometry, cells: &[String]) -> Vec<Vec<String>> {
        let of = |((cell, column), width): ((&String, &Column), &f32)| {
            let text = if cell.is_empty() { EMPTY } else { cell };
            self.faces.of(column.style).wrap(text, SIZE, *width)
        };
        cells.iter().zip(columns).zip(&geometry.width).map(of).collect()
    }

    fn titles(&self, columns: &[Column], geometry: &Geometry) -> Row {
        let of = |(column, width): (&Column, &f32)| self.faces.of(Style::Bold).wrap(column.title, SIZE, *width);
        Row { cells: columns.iter().zip(&geometry.width).map(of).collect(), at: Vec::new() }
    }

    /// With `at`, the header itself; without, its repetition on a later page, which only the eye needs.
    fn draw_titles(&mut self, columns: &[Column], geometry: &Geometry, titles: &Row) {
        let bold: Vec<Column> = columns.iter().map(|c| Column { style: Style::Bold, ..*c }).collect();
        self.draw_lines(&bold, geometry, titles, 0..titles.lines());
        self.put(Piece::Bar { x: MARGIN, y: self.y - 0.4, width: CONTENT, height: 0.8, grey: 60 });
    }

    fn draw_row(&mut self, columns: &[Column], geometry: &Geometry, row: &Row, titles: Option<&Row>) {
        let lines = row.lines();
        let mut from = 0;
        while from < lines {
            let fits = (self.room() - 2.0 * PAD) / Flow::line_height(SIZE);
            // Only what no page holds whole is cut.
            let whole = height(lines) <= Flow::page_height() / 2.0;
            let to = if fits >= (lines - from) as f32 {
                lines
            } else if whole || fits < 2.0 {
                self.new_page();
                if let Some(titles) = titles {
                    self.draw_titles(columns, geometry, titles);
                }
                continue;
            } else {
                from + fits as usize
            };
            self.draw_lines(columns, geometry, row, from..to);
            self.put(Piece::Bar { x: MARGIN, y: self.y - 0.2, width: CONTENT, height: 0.4, grey: 175 });
            from = to;
        }
    }

    fn draw_lines(&mut self, columns: &[Column], geometry: &Geometry, row: &Row, lines: std::ops::Range<usize>) {
        let top = self.y + PAD;
        for (n, cell) in row.cells.iter().enumerate() {
            let role = row.at.get(n).map_or(Role::Decoration, |at| Role::Content(*at));
            let (column, mut y) = (&columns[n], top);
            for text in cell.iter().take(lines.end).skip(lines.start) {
                let used = self.faces.of(column.style).width(text.trim_end(), SIZE);
                let x = match column.align {
                    Align::Left => geometry.x[n],
                    Align::Right => geometry.x[n] + geometry.width[n] - used,
                };
                let (baseline, style) = (Flow::baseline(y, SIZE), column.style);
                self.put(Piece::Text { x, baseline, style, size: SIZE, grey: 0, text: text.clone(), role });
                y += Flow::line_height(SIZE);
            }
        }
        self.y += height(lines.len());
    }
}
