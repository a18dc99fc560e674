//! Which entry has which place, by ids alone, kept outside the database: of places whose entries a restored database lacks it tells whose
//! requests they were about. The published tiles, which anybody may read, cannot: they hold salted commitments.
//!
//! Lines of text (place, customer, request, kind) in segments, in the order of the places. A line is there before the checkpoint that covers
//! its place is signed. Of a place that has several (written again after a crash, or given and then lost unsigned) the last counts.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read as _, Seek as _},
    ops::Range,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use quittance_domain::ids::CustomerId;
use quittance_store::PlacedId;

use crate::{Writes, durable};

/// Places of one file: some five megabytes.
const SEGMENT: u64 = 1 << 16;
const SUFFIX: &str = "ids";
const FILE_MODE: u32 = 0o600;

#[derive(Clone, Debug)]
pub struct EntryIndex {
    folder: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct EntryIndexError {
    path: PathBuf,
    error: io::Error,
}

impl EntryIndex {
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where it goes on: behind what it has, and not beyond what was signed. What a crash left half written is cut off.
    pub(crate) fn resume(&self, signed: u64) -> Result<u64, EntryIndexError> {
        self.told(&self.folder, fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder))?;
        let _lock = self.locked()?;
        let Some(first) = self.segments()?.last().copied() else { return Ok(0) };
        let path = self.segment(first);
        self.told(&path, cut_torn_line(&path))?;
        let bytes = self.told(&path, fs::read(&path))?;
        let last = whole_lines(&bytes).split(|b| *b == b'\n').rev().find(|line| !line.is_empty()).and_then(parse);
        Ok(last.map_or(first, |last| last.place + 1).min(signed))
    }

    /// Adds these, which follow each other; on disk when it answers.
    pub(crate) fn append(&self, writes: &impl Writes, entries: &[PlacedId]) -> Result<(), EntryIndexError> {
        let _lock = self.locked()?;
        for some in entries.chunk_by(|a, b| a.place / SEGMENT == b.place / SEGMENT) {
            let Some(first) = some.first() else { continue };
            let path = self.segment(first.place - first.place % SEGMENT);
            // Another process may have died within a line after we began: ours do not continue it.
            self.told(&path, cut_torn_line(&path))?;
            let lines: String = some.iter().map(line).collect();
            self.told(&path, writes.extend(&path, lines.as_bytes(), FILE_MODE))?;
        }
        Ok(())
    }

    /// What is known of these places, in their order.
    pub fn read(&self, places: &[Range<u64>]) -> Result<Vec<PlacedId>, EntryIndexError> {
        let mut known = BTreeMap::new();
        for first in self.segments()? {
            let here = first..first.saturating_add(SEGMENT);
            if !places.iter().any(|range| range.start < here.end && range.end > here.start) {
                continue;
            }
            let path = self.segment(first);
            let bytes = self.told(&path, fs::read(&path))?;
            let entries = whole_lines(&bytes).split(|b| *b == b'\n').filter_map(parse);
            let asked = |entry: &PlacedId| places.iter().any(|range| range.contains(&entry.place));
            known.extend(entries.filter(asked).map(|entry| (entry.place, entry)));
        }
        Ok(known.into_values().collect())
    }

    /// The first places of the segments that are there, in order.
    fn segments(&self) -> Result<Vec<u64>, EntryIndexError> {
        let listed = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => self.told(&self.folder, listed)?,
        };
        let mut firsts = Vec::new();
        for file in listed {
            let name = PathBuf::from(self.told(&self.folder, file)?.file_name());
            let is_segment = name.extension().is_some_and(|suffix| suffix == SUFFIX);
            firsts.extend(name.file_stem().filter(|_| is_segment).and_then(|stem| stem.to_str()?.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    fn segment(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:020}.{SUFFIX}"))
    }

    /// One writer at a time, also among processes.
    fn locked(&self) -> Result<fs::File, EntryIndexError> {
        let lock = durable::lock(&self.folder).and_then(|lock| lock.ok_or_else(|| io::ErrorKind::ResourceBusy.into()));
        self.told(&self.folder, lock)
    }

    fn told<T>(&self, path: &Path, done: io::Result<T>) -> Result<T, EntryIndexError> {
        done.map_err(|error| EntryIndexError { path: path.to_owned(), error })
    }
}

/// Cuts off the beginning of a line whose writer died. By who holds the lock: nobody is writing it.
fn cut_torn_line(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(io::SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok(());
    }
    let whole = whole_lines(&fs::read(path)?).len();
    file.set_len(whole as u64)?;
    file.sync_all()
}

/// Without the beginning of a line that a crash cut off.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
    &bytes[..end]
}

fn line(entry: &PlacedId) -> String {
    let PlacedId { place, customer, request, kind } = entry;
    format!("{place} {} {request} {kind}\n", customer.as_str())
}

fn parse(line: &[u8]) -> Option<PlacedId> {
    let mut fields = str::from_utf8(line).ok()?.split(' ');
    let place = fields.next()?.parse().ok()?;
    let customer = CustomerId::new(fields.next()?).ok()?;
    let request = fields.next()?.parse().ok()?;
    let kind = fields.next()?.to_owned();
    fields.next().is_none().then_some(PlacedId { place, customer, request, kind })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use uuid::Uuid;

    use super::*;
    use crate::Direct;

    fn entries(places: Range<u64>, kind: &str) -> Vec<PlacedId> {
        let one = |place| PlacedId {
            place,
            customer: CustomerId::new("acme").unwrap(),
            request: Uuid::from_u128(u128::from(place)),
            kind: kind.to_owned(),
        };
        places.map(one).collect()
    }

    fn index() -> (tempfile::TempDir, EntryIndex) {
        let dir = tempfile::tempdir().unwrap();
        let index = EntryIndex::new(dir.path().join("entries"));
        assert_eq!(index.resume(0).unwrap(), 0);
        (dir, index)
    }

    #[test]
    fn what_is_written_is_read_over_the_ends_of_segments_and_by_its_user_alone() {
        let (_dir, index) = index();
        let all = entries(0..SEGMENT * 2 + 10, "closed");
        index.append(&Direct, &all[..100]).unwrap();
        index.append(&Direct, &all[100..]).unwrap();
        let asked = [5..7, SEGMENT - 2..SEGMENT + 2, SEGMENT * 2 + 9..SEGMENT * 3];
        let expected: Vec<PlacedId> =
            all.iter().filter(|entry| asked.iter().any(|range| range.contains(&entry.place))).cloned().collect();
        assert_eq!(index.read(&asked).unwrap(), expected);
        assert_eq!(index.segments().unwrap(), [0, SEGMENT, SEGMENT * 2]);
        for path in [index.folder.clone(), index.segment(0), index.segment(SEGMENT)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0);
        }
        assert_eq!(index.resume(u64::MAX).unwrap(), SEGMENT * 2 + 10);
        assert_eq!(index.resume(12).unwrap(), 12, "what was not signed is written again");
    }

    #[test]
    fn of_a_place_that_is_written_twice_the_last_counts_and_a_torn_line_does_not() {
        let (_dir, index) = index();
        index.append(&Direct, &entries(0..5, "planned")).unwrap();
        index.append(&Direct, &entries(3..8, "closed")).unwrap();
        let all: Vec<PlacedId> = entries(0..3, "planned").into_iter().chain(entries(3..8, "closed")).collect();
        let torn = line(&entries(8..9, "confirmed")[0]);
        for cut in 1..torn.len() {
            Direct.extend(&index.segment(0), &torn.as_bytes()[..cut], FILE_MODE).unwrap();
            assert_eq!(index.read(std::slice::from_ref(&(0..100))).unwrap(), all);
            assert_eq!(index.resume(100).unwrap(), 8);
        }
        index.append(&Direct, &entries(8..9, "confirmed")).unwrap();
        assert_eq!(index.read(std::slice::from_ref(&(8..9))).unwrap(), entries(8..9, "confirmed"));
    }

    /// Who has the log by now began before that one died, and does not read the index anew.
    #[test]
    fn a_line_that_a_former_writer_died_within_is_not_continued_by_who_goes_on() {
        let torn = line(&entries(4..5, "confirmed")[0]);
        for cut in 1..torn.len() {
            let (_dir, index) = index();
            index.append(&Direct, &entries(0..8, "closed")).unwrap();
            Direct.extend(&index.segment(0), &torn.as_bytes()[..cut], FILE_MODE).unwrap();
            index.append(&Direct, &entries(8..12, "closed")).unwrap();
            assert_eq!(index.read(std::slice::from_ref(&(0..100))).unwrap(), entries(0..12, "closed"), "{cut}");
            assert_eq!(index.resume(100).unwrap(), 12);
        }
    }

    /// What an earlier build may have left.
    #[test]
    fn lines_that_do_not_parse_are_passed_over_and_at_the_end_their_segment_is_written_again() {
        let (_dir, index) = index();
        index.append(&Direct, &entries(0..3, "closed")).unwrap();
        Direct.extend(&index.segment(0), b"3 acme 00000000-00004 acme x y\n\xff\n", FILE_MODE).unwrap();
        assert_eq!(index.read(std::slice::from_ref(&(0..100))).unwrap(), entries(0..3, "closed"));
        assert_eq!(index.resume(100).unwrap(), 0);
        index.append(&Direct, &entries(0..6, "closed")).unwrap();
        assert_eq!(index.read(std::slice::from_ref(&(0..100))).unwrap(), entries(0..6, "closed"));
        assert_eq!(index.resume(100).unwrap(), 6);
    }
}
