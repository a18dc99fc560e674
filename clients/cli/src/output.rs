//! The one place that writes: results to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use crate::{failure::Failure, table::Table};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one document, or one a line.
    Json,
}

pub struct Output {
    format: Format,
    out: Box<dyn Write>,
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Output(error),
    })
}

impl Output {
    pub fn stdout(format: Format) -> Self {
        Self { format, out: Box::new(io::stdout().lock()) }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        written(writeln!(self.out, "{text}").and_then(|()| self.out.flush()))
    }

    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        written(self.out.write_all(bytes).and_then(|()| self.out.flush()))
    }

    /// One document, indented, for it stands alone.
    pub fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Output(e.into()))?;
        self.line(&text)
    }

    /// One of many: JSON Lines.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|e| Failure::Output(e.into()))?;
        self.line(&text)
    }

    pub fn table(&mut self, table: &Table) -> Result<(), Failure> {
        written(self.out.write_all(table.render().as_bytes()).and_then(|()| self.out.flush()))
    }

    /// Many: a table of them, or a line of JSON each.
    pub fn list<V: Serialize>(&mut self, values: &[V], table: impl FnOnce(&[V]) -> Table) -> Result<(), Failure> {
        if self.is_json() {
            values.iter().try_for_each(|value| self.json_line(value))
        } else {
            self.table(&table(values))
        }
    }
}

/// To people, beside the result. Where even that cannot be written, there is nobody to tell.
pub fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

pub fn people_watch() -> bool {
    io::stderr().is_terminal()
}
