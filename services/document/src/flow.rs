//! The layout: text flows down the page and onto the next one. Nothing is drawn yet, so that every page can say how many there are.

use std::num::NonZeroU16;

use krilla::tagging::Tag;

use crate::{
    face::{Faces, Style},
    tags::{NodeId, Structure},
};

/// A4, in points.
pub const PAGE: (f32, f32) = (595.276, 841.89);
pub const MARGIN: f32 = 56.0;
pub const CONTENT: f32 = PAGE.0 - 2.0 * MARGIN;
const TOP: f32 = 62.0;
const BOTTOM: f32 = PAGE.1 - 62.0;

pub const BODY: f32 = 9.5;
const LEADING: f32 = 1.38;
/// What a heading wants below itself on the same page.
const KEPT_WITH_HEADING: f32 = 64.0;

/// Where a piece stands in the logical structure; what is there for the eye alone stands in none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Content(NodeId),
    RunningHead,
    RunningFoot,
    Decoration,
}

pub enum Piece {
    Text {
        x: f32,
        baseline: f32,
        style: Style,
        size: f32,
        grey: u8,
        text: String,
        role: Role,
    },
    /// A filled rectangle: a rule, a frame's side.
    Bar {
        x: f32,
        y: f32,
        width: f32,
        height: f32,
        grey: u8,
    },
    /// A matrix of dark modules, row by row.
    Matrix {
        x: f32,
        y: f32,
        side: f32,
        modules: Vec<Vec<bool>>,
        role: Role,
    },
}

/// A heading for the outline.
pub struct Landmark {
    pub page: usize,
    pub y: f32,
    pub level: u16,
    pub text: String,
}

pub struct Flow<'f> {
    pub faces: &'f Faces,
    pub pages: Vec<Vec<Piece>>,
    pub structure: Structure,
    pub landmarks: Vec<Landmark>,
    pub y: f32,
    section: Option<NodeId>,
}

impl<'f> Flow<'f> {
    pub fn new(faces: &'f Faces) -> Self {
        Self {
            faces,
            pages: vec![Vec::new()],
            structure: Structure::default(),
            landmarks: Vec::new(),
            y: TOP,
            section: None,
        }
    }

    pub fn put(&mut self, piece: Piece) {
        if let Some(page) = self.pages.last_mut() {
            page.push(piece);
        }
    }

    pub fn room(&self) -> f32 {
        BOTTOM - self.y
    }

    pub fn page_height() -> f32 {
        BOTTOM - TOP
    }

    pub fn new_page(&mut self) {
        self.pages.push(Vec::new());
        self.y = TOP;
    }

    /// A new page if there is less room than that.
    pub fn want(&mut self, height: f32) {
        if self.room() < height {
            self.new_page();
        }
    }

    pub fn space(&mut self, height: f32) {
        self.y += height;
    }

    /// Where blocks stand: the section that the last heading began.
    pub fn place(&mut self) -> NodeId {
        match self.section {
            Some(section) => section,
            None => {
                let section = self.structure.root(Tag::Section);
                self.section = Some(section);
                section
            }
        }
    }

    pub fn line_height(size: f32) -> f32 {
        size * LEADING
    }

    /// The baseline of a line whose top is at `y`.
    pub fn baseline(y: f32, size: f32) -> f32 {
        y + size * (LEADING - 1.0) / 2.0 + size * 0.82
    }

    pub fn title(&mut self, text: &str, width: f32) {
        self.heading_of(text, 1, 21.0, width);
        self.space(2.0);
    }

    pub fn heading(&mut self, text: &str) {
        self.space(16.0);
        self.want(KEPT_WITH_HEADING + 20.0);
        self.section = Some(self.structure.root(Tag::Section));
        self.heading_of(text, 2, 12.5, CONTENT);
        self.put(Piece::Bar { x: MARGIN, y: self.y + 1.0, width: CONTENT, height: 0.8, grey: 60 });
        self.space(7.0);
    }

    pub fn subheading(&mut self, text: &str) {
        self.space(9.0);
        self.want(KEPT_WITH_HEADING);
        self.heading_of(text, 3, 10.5, CONTENT);
        self.space(2.0);
    }

    fn heading_of(&mut self, text: &str, level: u16, size: f32, width: f32) {
        let place = self.place();
        let title = self.faces.of(Style::Bold).printable(text);
        let level_number = NonZeroU16::new(level).unwrap_or(NonZeroU16::MIN);
        let heading = self.structure.under(place, Tag::Hn(level_number, Some(title.clone())));
        let page = self.pages.len() - 1;
        self.landmarks.push(Landmark { page, y: self.y, level, text: title });
        self.lines(text, Style::Bold, size, width, 0, heading);
    }

    pub fn paragraph(&mut self, text: &str) {
        self.paragraph_within(text, CONTENT, BODY, 0);
    }

    /// Smaller and grey: what explains.
    pub fn note(&mut self, text: &str) {
        self.paragraph_within(text, CONTENT, 8.5, 70);
    }

    pub fn paragraph_within(&mut self, text: &str, width: f32, size: f32, grey: u8) {
        let place = self.place();
        let paragraph = self.structure.under(place, Tag::P);
        self.lines(text, Style::Regular, size, width, grey, paragraph);
        self.space(4.0);
    }

    /// Under a figure: it stands where it is told to, and the flow goes on where it was.
    pub fn caption(&mut self, text: &str, x: f32, y: f32, width: f32) {
        const SIZE: f32 = 7.0;
        let place = self.place();
        let paragraph = self.structure.under(place, Tag::P);
        let mut y = y;
        for text in self.faces.of(Style::Regular).wrap(text, SIZE, width) {
            let (baseline, role) = (Self::baseline(y, SIZE), Role::Content(paragraph));
            self.put(Piece::Text { x, baseline, style: Style::Regular, size: SIZE, grey: 70, text, role });
            y += Self::line_height(SIZE);
        }
    }

    fn lines(&mut self, text: &str, style: Style, size: f32, width: f32, grey: u8, at: NodeId) {
        for line in self.faces.of(style).wrap(text, size, width) {
            self.want(Self::line_height(size));
            let baseline = Self::baseline(self.y, size);
            self.put(Piece::Text { x: MARGIN, baseline, style, size, grey, text: line, role: Role::Content(at) });
            self.y += Self::line_height(size);
        }
    }

    /// A framed line in capitals: the result, to be seen at once.
    pub fn framed(&mut self, text: &str, width: f32) {
        const SIZE: f32 = 11.0;
        const PAD: f32 = 6.0;
        let place = self.place();
        let paragraph = self.structure.under(place, Tag::P);
        let lines = self.faces.of(Style::Bold).wrap(text, SIZE, width - 2.0 * PAD);
        let count = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let height = f32::from(count) * Self::line_height(SIZE) + 2.0 * PAD;
        let (x, y) = (MARGIN, self.y);
        for (x, y, width, height) in [
            (x, y, width, 1.0),
            (x, y + height - 1.0, width, 1.0),
            (x, y, 1.0, height),
            (x + width - 1.0, y, 1.0, height),
        ] {
            self.put(Piece::Bar { x, y, width, height, grey: 0 });
        }
        self.y += PAD;
        for text in lines {
            let (baseline, role) = (Self::baseline(self.y, SIZE), Role::Content(paragraph));
            self.put(Piece::Text { x: x + PAD, baseline, style: Style::Bold, size: SIZE, grey: 0, text, role });
            self.y += Self::line_height(SIZE);
        }
        self.y = y + height + 8.0;
    }
}
