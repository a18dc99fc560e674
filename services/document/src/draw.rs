//! From laid-out pages to a PDF/A-3a file that is PDF/UA-1 as well: krilla refuses to finish one that breaks a rule of either.

use std::sync::Arc;

use krilla::{
    Data, Document, SerializeSettings,
    color::luma,
    configure::{Accessibility, Archival, ConfigurationBuilder},
    destination::XyzDestination,
    embed::{AssociationKind, EmbeddedFile, MimeType},
    geom::{PathBuilder, Point, Rect},
    metadata::{DateTime, Metadata},
    num::NormalizedF32,
    outline::{Outline, OutlineNode},
    page::PageSettings,
    paint::Fill,
    surface::Surface,
    tagging::{Artifact, ArtifactType, ContentTag, SpanTag},
};
use quittance_domain::Timestamp;

use crate::{
    DocumentError,
    face::Faces,
    flow::{Flow, Landmark, PAGE, Piece, Role},
    tags::Structure,
};

/// What a file says of itself.
pub struct About<'a> {
    pub title: String,
    pub description: String,
    pub author: String,
    pub language: &'static str,
    pub issued_at: Timestamp,
    /// The same for the same certificate.
    pub id: String,
    /// The certificate's file, attached whole.
    pub file: &'a [u8],
}

pub fn draw(faces: &Faces, flow: Flow<'_>, about: &About<'_>) -> Result<Vec<u8>, DocumentError> {
    let configuration = ConfigurationBuilder::new()
        .with_archival_validator(Archival::A3_A)
        .with_accessibility_validator(Accessibility::UA1)
        .finish()
        .map_err(|_| DocumentError::Configuration)?;
    let mut document = Document::new_with(SerializeSettings { configuration, ..SerializeSettings::default() });
    let Flow { pages, mut structure, landmarks, .. } = flow;
    for pieces in &pages {
        let settings = PageSettings::from_wh(PAGE.0, PAGE.1).ok_or(DocumentError::Configuration)?;
        let mut page = document.start_page_with(settings);
        let mut surface = page.surface();
        for piece in pieces {
            draw_piece(&mut surface, &mut structure, faces, piece);
        }
        surface.finish();
        page.finish();
    }
    document.set_tag_tree(structure.into_tree());
    document.set_outline(outline(&landmarks));
    let date = date(about.issued_at);
    let metadata = Metadata::new()
        .title(about.title.clone())
        .description(about.description.clone())
        .authors(vec![about.author.clone()])
        .creator("Quittance".to_owned())
        .language(about.language.to_owned())
        .document_id(about.id.clone())
        .creation_date(date);
    document.set_metadata(metadata);
    let attached = EmbeddedFile {
        path: "certificate.json".to_owned(),
        mime_type: MimeType::new("application/json"),
        description: Some(about.title.clone()),
        association_kind: AssociationKind::Source,
        data: Data::from(Arc::new(about.file.to_vec())),
        modification_date: Some(date),
        compress: Some(true),
        location: None,
    };
    document.embed_file(attached).ok_or(DocumentError::Configuration)?;
    document.finish().map_err(|e| DocumentError::Standard(format!("{e:?}")))
}

fn date(at: Timestamp) -> DateTime {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    let small = |n: i8| u8::try_from(n).unwrap_or_default();
    DateTime::new(u16::try_from(at.year()).unwrap_or_default())
        .month(small(at.month()))
        .day(small(at.day()))
        .hour(small(at.hour()))
        .minute(small(at.minute()))
        .second(small(at.second()))
        .utc_offset_hour(0)
}

fn outline(landmarks: &[Landmark]) -> Outline {
    let node = |l: &Landmark| {
        OutlineNode::new(l.text.clone(), XyzDestination::new(l.page, Point::from_xy(0.0, l.y))).with_open(l.level == 1)
    };
    let mut outline = Outline::new();
    let mut section: Option<OutlineNode> = None;
    for landmark in landmarks {
        match (&mut section, landmark.level) {
            (Some(open), 3) => open.push_child(node(landmark)),
            (done, _) => {
                if let Some(done) = done.replace(node(landmark)) {
                    outline.push_child(done);
                }
            }
        }
    }
    if let Some(last) = section {
        outline.push_child(last);
    }
    outline
}

fn artifact(kind: ArtifactType) -> ContentTag<'static> {
    ContentTag::Artifact(Artifact::with_kind(kind))
}

fn draw_piece(surface: &mut Surface<'_>, structure: &mut Structure, faces: &Faces, piece: &Piece) {
    let (role, content) = match piece {
        Piece::Text { role, .. } => (*role, ContentTag::Span(SpanTag::empty())),
        Piece::Matrix { role, .. } => (*role, ContentTag::Other),
        Piece::Bar { .. } => (Role::Decoration, ContentTag::Other),
    };
    let tag = match role {
        Role::Content(_) => content,
        Role::RunningHead => artifact(ArtifactType::Header),
        Role::RunningFoot => artifact(ArtifactType::Footer),
        Role::Decoration => artifact(ArtifactType::Layout),
    };
    let identifier = surface.start_tagged(tag);
    match piece {
        Piece::Text { x, baseline, style, size, grey, text, .. } => {
            let face = faces.of(*style);
            surface.set_fill(Some(fill(*grey)));
            surface.draw_glyphs(
                Point::from_xy(*x, *baseline),
                &face.glyphs(text),
                face.font.clone(),
                text,
                *size,
                false,
            );
        }
        Piece::Bar { x, y, width, height, grey } => {
            surface.set_fill(Some(fill(*grey)));
            draw_rectangles(surface, [Rect::from_xywh(*x, *y, *width, *height)]);
        }
        Piece::Matrix { x, y, side, modules, .. } => {
            surface.set_fill(Some(fill(0)));
            draw_rectangles(surface, dark_runs(*x, *y, *side, modules));
        }
    }
    surface.end_tagged();
    if let Role::Content(at) = role {
        structure.content(at, identifier);
    }
}

fn fill(grey: u8) -> Fill {
    Fill { paint: luma::Color::new(grey).into(), opacity: NormalizedF32::ONE, ..Fill::default() }
}

/// Neighbours in a row are one rectangle, so that no viewer shows seams.
fn dark_runs(x: f32, y: f32, side: f32, modules: &[Vec<bool>]) -> Vec<Option<Rect>> {
    let count = |n: usize| f32::from(u16::try_from(n).unwrap_or(u16::MAX));
    let unit = side / count(modules.len().max(1));
    let mut runs = Vec::new();
    for (row, modules) in modules.iter().enumerate() {
        let mut at = 0;
        for run in modules.chunk_by(|a, b| a == b) {
            if run.first() == Some(&true) {
                let (left, top) = (x + count(at) * unit, y + count(row) * unit);
                runs.push(Rect::from_xywh(left, top, count(run.len()) * unit, unit));
            }
            at += run.len();
        }
    }
    runs
}

fn draw_rectangles(surface: &mut Surface<'_>, rectangles: impl IntoIterator<Item = Option<Rect>>) {
    let mut path = PathBuilder::new();
    for rectangle in rectangles.into_iter().flatten() {
        path.push_rect(rectangle);
    }
    if let Some(path) = path.finish() {
        surface.draw_path(&path);
    }
}
