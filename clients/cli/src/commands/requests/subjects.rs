//! A CSV file with one subject a line. Problems are told by line and column, never by what stands there.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use quittance_api::v1::{Identifier, IdentifierKind};

use crate::{failure::Failure, short_names::ShortName as _};

/// A line of the file.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// Where it begins; blank lines before it belong to it.
    pub line: u64,
    /// Who it is, or what is wrong with the line.
    pub subject: Result<Vec<Identifier>, String>,
}

/// Reading failed, and nothing comes behind it, though the file may go on: what was read is not all of it.
#[derive(Debug, PartialEq)]
pub struct Cut {
    /// The last line that was read.
    pub line: u64,
    pub problem: String,
}

pub struct Subjects {
    reader: csv::Reader<Box<dyn Read + Send>>,
    columns: Vec<IdentifierKind>,
}

pub fn open(path: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let file =
        File::open(path).map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
    Ok(Box::new(file))
}

impl Subjects {
    pub fn read(input: Box<dyn Read + Send>) -> Result<Self, Failure> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(input);
        let head = reader
            .headers()
            .map_err(|e| Failure::Usage(format!("the CSV's first line cannot be read: {}", problem(&e))))?;
        let mut columns = Vec::new();
        for name in head {
            let kind = IdentifierKind::parse(name.trim_start_matches('\u{feff}')).map_err(|wanted| {
                Failure::Usage(format!("the CSV's first line must name the columns, and each {wanted}"))
            })?;
            if columns.contains(&kind) {
                return Err(Failure::Usage(format!("the CSV has two columns {}", kind.short_name())));
            }
            columns.push(kind);
        }
        if columns.is_empty() {
            return Err(Failure::Usage(
                "the CSV is empty: its first line names the columns, as email,user_id".to_owned(),
            ));
        }
        Ok(Self { reader, columns })
    }
}

/// What is wrong, without the field's text.
fn problem(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Io(error) => error.kind().to_string(),
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => "it is not CSV".to_owned(),
    }
}

impl Iterator for Subjects {
    type Item = Result<Row, Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = csv::StringRecord::new();
        let found = self.reader.read_record(&mut record);
        let line = record.position().unwrap_or_else(|| self.reader.position()).line();
        let subject = match found {
            Ok(false) => return None,
            Err(error) if error.is_io_error() => {
                return Some(Err(Cut { line: line.saturating_sub(1), problem: problem(&error) }));
            }
            Err(error) => Err(problem(&error)),
            Ok(true) if record.len() != self.columns.len() => {
                Err(format!("it has {} fields, and the first line has {}", record.len(), self.columns.len()))
            }
            Ok(true) => {
                let filled = self.columns.iter().zip(&record).filter(|(_, value)| !value.is_empty());
                let identifiers: Vec<_> =
                    filled.map(|(kind, value)| Identifier { kind: (*kind).into(), value: value.to_owned() }).collect();
                if identifiers.is_empty() { Err("it names nobody".to_owned()) } else { Ok(identifiers) }
            }
        };
        Some(Ok(Row { line, subject }))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }

    /// A file whose disk, or whose sender, fails behind `text`.
    pub fn breaking_off(text: &'static str) -> Box<dyn Read + Send> {
        Box::new(text.as_bytes().chain(Broken))
    }

    fn rows(text: &'static str) -> Vec<Row> {
        Subjects::read(Box::new(text.as_bytes())).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn every_line_is_a_subject() {
        let rows = rows("email,user_id\r\nanna@example.com,17\r\n,18\r\n\"b,en@example.com\",\r\n");
        let values: Vec<Vec<(IdentifierKind, String)>> = rows
            .into_iter()
            .map(|row| row.subject.unwrap().into_iter().map(|i| (i.kind(), i.value)).collect())
            .collect();
        assert_eq!(
            values,
            [
                vec![(IdentifierKind::Email, "anna@example.com".to_owned()), (IdentifierKind::UserId, "17".to_owned())],
                vec![(IdentifierKind::UserId, "18".to_owned())],
                vec![(IdentifierKind::Email, "b,en@example.com".to_owned())],
            ]
        );
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_the_others_go_on() {
        let rows = rows("email,user_id\na@b.nl,1\nc@d.nl\n,\n\ne@f.nl,2\n");
        let told: Vec<(u64, bool)> = rows.iter().map(|row| (row.line, row.subject.is_ok())).collect();
        assert_eq!(told, [(2, true), (3, false), (4, false), (5, true)]);
        assert!(!format!("{:?}", rows[1].subject).contains("c@d.nl"));
    }

    #[test]
    fn a_file_that_cannot_be_read_on_is_no_bad_line() {
        let mut subjects = Subjects::read(breaking_off("email,user_id\na@b.nl,1\nc@d.nl,2\ne@f")).unwrap();
        let told: Vec<u64> = subjects.by_ref().map_while(Result::ok).map(|row| row.line).collect();
        assert_eq!(told, [2, 3]);
        let mut subjects = Subjects::read(breaking_off("email\na@b.nl\n")).unwrap();
        let cut = subjects.find_map(Result::err).unwrap();
        assert_eq!(cut, Cut { line: 2, problem: "connection reset".to_owned() });
        assert_eq!(subjects.next(), None);
    }

    #[test]
    fn columns_must_be_kinds_of_identifiers() {
        for bad in ["", "mail\nx\n", "email,email\na,b\n"] {
            assert!(Subjects::read(Box::new(bad.as_bytes())).is_err(), "{bad:?}");
        }
        assert!(Subjects::read(Box::new("\u{feff}email\na@b.nl\n".as_bytes())).is_ok());
    }
}
