//! The three fonts: how wide a text is, where its lines break, and which glyphs it is made of.

use std::ops::Range;

use krilla::text::{Font, GlyphId, KrillaGlyph};
use skrifa::{
    FontRef, MetadataProvider,
    charmap::Charmap,
    instance::{LocationRef, Size},
    metrics::GlyphMetrics,
};

use crate::DocumentError;

/// Liberation 2.1.5; see `fonts/LICENSE`. Latin, Greek and Cyrillic.
static REGULAR: &[u8] = include_bytes!("../fonts/LiberationSans-Regular.ttf");
static BOLD: &[u8] = include_bytes!("../fonts/LiberationSans-Bold.ttf");
static MONO: &[u8] = include_bytes!("../fonts/LiberationMono-Regular.ttf");

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Style {
    #[default]
    Regular,
    Bold,
    Mono,
}

pub struct Face {
    pub font: Font,
    charmap: Charmap<'static>,
    metrics: GlyphMetrics<'static>,
    units_per_em: f32,
}

pub struct Faces {
    regular: Face,
    bold: Face,
    mono: Face,
}

impl Faces {
    pub fn load() -> Result<Self, DocumentError> {
        Ok(Self { regular: Face::load(REGULAR)?, bold: Face::load(BOLD)?, mono: Face::load(MONO)? })
    }

    pub const fn of(&self, style: Style) -> &Face {
        match style {
            Style::Regular => &self.regular,
            Style::Bold => &self.bold,
            Style::Mono => &self.mono,
        }
    }
}

impl Face {
    fn load(data: &'static [u8]) -> Result<Self, DocumentError> {
        let font = Font::new(data.into(), 0).ok_or(DocumentError::Font)?;
        let read = FontRef::new(data).map_err(|_| DocumentError::Font)?;
        let metrics = read.glyph_metrics(Size::unscaled(), LocationRef::default());
        Ok(Self { units_per_em: font.units_per_em(), font, charmap: read.charmap(), metrics })
    }

    fn glyph(&self, c: char) -> Option<skrifa::GlyphId> {
        self.charmap.map(c).filter(|glyph| glyph.to_u32() != 0)
    }

    /// What can be printed: a character that the font lacks stands as its code point, control characters as blanks. Nothing is lost
    /// silently.
    pub fn printable(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if c.is_control() || c.is_whitespace() {
                out.push(' ');
            } else if self.glyph(c).is_some() {
                out.push(c);
            } else {
                out.push_str(&format!("[U+{:04X}]", u32::from(c)));
            }
        }
        out
    }

    fn advance(&self, c: char) -> f32 {
        let width = self.glyph(c).and_then(|glyph| self.metrics.advance_width(glyph));
        width.unwrap_or_default() / self.units_per_em
    }

    pub fn width(&self, text: &str, size: f32) -> f32 {
        text.chars().map(|c| self.advance(c)).sum::<f32>() * size
    }

    /// Of printable text.
    pub fn glyphs(&self, text: &str) -> Vec<KrillaGlyph> {
        let one = |(at, c): (usize, char)| {
            let glyph = GlyphId::new(self.glyph(c)?.to_u32());
            let range: Range<usize> = at..at + c.len_utf8();
            Some(KrillaGlyph::new(glyph, self.advance(c), 0.0, 0.0, 0.0, range, None))
        };
        text.char_indices().filter_map(one).collect()
    }

    /// Breaks at blanks, else after the marks that join names, else anywhere. A line that goes on keeps its blank, so that whoever copies
    /// the text gets it whole.
    pub fn wrap(&self, text: &str, size: f32, width: f32) -> Vec<String> {
        let printable = self.printable(text);
        let mut lines = vec![String::new()];
        let mut used = 0.0;
        for word in printable.split_inclusive(' ') {
            let visible = self.width(word.trim_end(), size);
            if used + visible <= width {
                used += self.put(&mut lines, word, size);
                continue;
            }
            if visible <= width {
                lines.push(String::new());
                used = self.put(&mut lines, word, size);
                continue;
            }
            for piece in pieces(word) {
                let whole = self.width(piece.trim_end(), size);
                if used + whole > width && used > 0.0 && whole <= width {
                    lines.push(String::new());
                    used = 0.0;
                }
                for c in piece.chars() {
                    let advance = self.advance(c) * size;
                    if used + advance > width && used > 0.0 && c != ' ' {
                        lines.push(String::new());
                        used = 0.0;
                    }
                    used += self.put(&mut lines, c.encode_utf8(&mut [0; 4]), size);
                }
            }
        }
        lines
    }

    fn put(&self, lines: &mut [String], text: &str, size: f32) -> f32 {
        if let Some(line) = lines.last_mut() {
            line.push_str(text);
        }
        self.width(text, size)
    }
}

/// A long word, cut after the marks that join names.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    word.split_inclusive(['_', '/', '.', '-', ':', ',', '@', '+', '='])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_allowed_and_nothing_is_lost() {
        let faces = Faces::load().unwrap();
        let face = faces.of(Style::Regular);
        let long = "customer_relationship_contacts and Donaudampfschifffahrtsgesellschaftskapitänswitwenrente, \
                    αβγ Ж x@example.com/a.b.c";
        for width in [20.0, 45.0, 80.0, 300.0] {
            let lines = face.wrap(long, 9.0, width);
            assert!(lines.iter().all(|l| face.width(l.trim_end(), 9.0) <= width), "{width}: {lines:?}");
            assert_eq!(lines.concat(), long);
        }
    }

    #[test]
    fn what_the_font_lacks_is_named_and_not_dropped() {
        let faces = Faces::load().unwrap();
        for style in [Style::Regular, Style::Bold, Style::Mono] {
            let face = faces.of(style);
            assert_eq!(face.printable("株 a\tb\u{0}\n"), "[U+682A] a b  ");
            assert_eq!(face.printable("Télécopie Łódź Αθήνα София ß–—·…€"), "Télécopie Łódź Αθήνα София ß–—·…€");
        }
    }
}
