//! Records of a package in parts, for clients that do not take messages of any length: how they are cut, and put together again.

use prost::Message as _;

use crate::v1::{PackageRecord, RecordField, RecordPart, download_package_response::Part};

/// Tags and lengths of a field and its members, at their longest, and those of the messages around.
const OVERHEAD: usize = 64;
/// Of a value that is cut, a part brings so much at least, however much else stands in it: a key is not cut.
const VALUE_BYTES_MIN: usize = 4 << 10;

/// The record as it goes out: whole, or in parts of about `bytes_max` at most.
pub fn record_parts(record: PackageRecord, bytes_max: usize) -> Vec<Part> {
    if record.encoded_len() <= bytes_max {
        return vec![Part::Record(record)];
    }
    let (fields, head) = (record.fields, PackageRecord { fields: Vec::new(), ..record });
    let room = bytes_max.saturating_sub(head.encoded_len() + OVERHEAD).max(VALUE_BYTES_MIN);
    let mut cut = Cut { room, left: room, head, begun: RecordPart::default(), parts: Vec::new() };
    fields.into_iter().for_each(|field| cut.put(field));
    cut.finish()
}

struct Cut {
    /// For fields, in each part.
    room: usize,
    left: usize,
    head: PackageRecord,
    begun: RecordPart,
    parts: Vec<RecordPart>,
}

impl Cut {
    fn put(&mut self, field: RecordField) {
        let RecordField { name, category, value } = field;
        let named = name.len() + category.len() + OVERHEAD;
        let Some(value) = value else { return self.push(RecordField { name, category, value }, named) };
        let mut rest = value.as_str();
        let piece = |cut: &mut Self, text: &str| {
            let (name, category) = (name.clone(), category.clone());
            cut.push(RecordField { name, category, value: Some(text.to_owned()) }, named + text.len());
        };
        // What fits into a part of its own is not cut, but where this one has room for a good deal of it.
        // What is no more than a long name has a part to itself.
        while !rest.is_empty() && rest.len() + named > self.left {
            let fits = rest.floor_char_boundary(self.left.saturating_sub(named));
            if fits < VALUE_BYTES_MIN && self.is_begun() {
                self.end();
                continue;
            }
            let (now, more) = rest.split_at(fits.max(rest.floor_char_boundary(VALUE_BYTES_MIN)));
            piece(self, now);
            rest = more;
            self.end();
            self.begun.continues_value = true;
        }
        piece(self, rest);
    }

    fn is_begun(&self) -> bool {
        self.begun.record.as_ref().is_some_and(|record| !record.fields.is_empty())
    }

    fn push(&mut self, field: RecordField, bytes: usize) {
        if bytes > self.left && self.is_begun() {
            self.end();
        }
        self.left = self.left.saturating_sub(bytes);
        self.begun.record.get_or_insert_with(|| self.head.clone()).fields.push(field);
    }

    fn end(&mut self) {
        self.parts.push(std::mem::take(&mut self.begun));
        self.left = self.room;
    }

    fn finish(mut self) -> Vec<Part> {
        self.begun.record.get_or_insert_with(|| self.head.clone());
        self.begun.last = true;
        self.end();
        self.parts.into_iter().map(Part::RecordPart).collect()
    }
}

/// Puts records together that come in parts.
#[derive(Default)]
pub struct RecordJoiner {
    begun: PackageRecord,
}

impl RecordJoiner {
    /// Takes a part; gives the record once it is whole.
    pub fn put(&mut self, part: RecordPart) -> Option<PackageRecord> {
        let PackageRecord { mut fields, system, collection, key, third_party } = part.record.unwrap_or_default();
        if part.continues_value
            && let Some(begun) = self.begun.fields.last_mut()
            && !fields.is_empty()
        {
            begun.value.get_or_insert_default().push_str(&fields.remove(0).value.unwrap_or_default());
        }
        self.begun.fields.append(&mut fields);
        self.begun =
            PackageRecord { fields: std::mem::take(&mut self.begun.fields), system, collection, key, third_party };
        part.last.then(|| std::mem::take(&mut self.begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64 << 10;

    fn record(values: &[Option<String>]) -> PackageRecord {
        let field = |(n, value): (usize, &Option<String>)| RecordField {
            name: format!("field_{n}"),
            category: "message".to_owned(),
            value: value.clone(),
        };
        PackageRecord {
            system: "systems/crm".to_owned(),
            collection: "notes".to_owned(),
            key: vec!["7".to_owned()],
            fields: values.iter().enumerate().map(field).collect(),
            third_party: true,
        }
    }

    fn joined(parts: Vec<Part>) -> Vec<PackageRecord> {
        let mut joiner = RecordJoiner::default();
        let one = |part| match part {
            Part::Record(record) => Some(record),
            Part::RecordPart(part) => joiner.put(part),
            Part::Header(_) | Part::Trailer(_) => panic!("a record gives neither"),
        };
        parts.into_iter().filter_map(one).collect()
    }

    #[test]
    fn what_is_cut_is_whole_again_when_it_is_put_together() {
        let text = |chars: usize| Some("\u{20ac}\u{e9}x".chars().cycle().take(chars).collect::<String>());
        for values in [
            vec![],
            vec![None, text(0), text(10)],
            vec![text(MAX * 5)],
            vec![text(10), text(MAX * 3), None, text(0), text(MAX / 2), text(MAX / 2), text(10)],
            vec![text(200); 5000],
            vec![None; 20_000],
        ] {
            let whole = record(&values);
            let parts = record_parts(whole.clone(), MAX);
            let long = parts.iter().map(Part::encoded_len).max().unwrap();
            assert!(long <= MAX, "{long} bytes");
            assert!(parts.len() <= 4 * whole.encoded_len() / MAX + 1, "{} parts", parts.len());
            assert_eq!(joined(parts), [whole]);
        }
    }

    #[test]
    fn a_name_that_fills_a_message_keeps_nothing_from_coming_out() {
        let mut long_name = record(&[Some("v".repeat(10)), Some("w".repeat(20_000)), None]);
        long_name.fields[1].name = "n".repeat(100_000);
        assert_eq!(joined(record_parts(long_name.clone(), MAX)), [long_name]);
    }

    #[test]
    fn a_key_that_fills_a_message_keeps_nothing_from_coming_out() {
        let long_key = PackageRecord { key: vec!["k".repeat(100_000)], ..record(&[Some("v".repeat(20_000)), None]) };
        let parts = record_parts(long_key.clone(), MAX);
        assert!(parts.len() > 1);
        assert_eq!(joined(parts), [long_key]);
    }
}
