//! The figures, as a table for people and as JSON for programs.

use std::{fmt::Write as _, path::Path};

use serde_json::{Map, Value};

use crate::Failure;

#[derive(Default)]
pub struct Machine {
    pub cores: usize,
    pub postgresql: String,
}

/// A figure is missing where its part was not asked for.
#[derive(Default)]
pub struct Results {
    pub quick: bool,
    pub machine: Machine,
    pub hand_single_per_s: Option<f64>,
    pub hand_set_per_s: Option<f64>,
    pub hand_delete_per_s: Option<f64>,
    pub quittance_postgres_per_s: Option<f64>,
    pub quittance_sqlite_per_s: Option<f64>,
    pub quittance_delete_per_s: Option<f64>,
    pub wide_per_s: Option<f64>,
    pub intake_per_s: Option<f64>,
    pub server_rss_mb: Option<f64>,
    pub server_rss_requests: Option<u64>,
    /// Processor time of one subject or request: by hand, and end to end with PostgreSQL as store.
    pub hand_set_cpu_ms: Option<f64>,
    pub server_cpu_ms: Option<f64>,
    pub postgresql_cpu_ms: Option<f64>,
    pub lease_ms_fresh: Option<f64>,
    pub lease_ms_after_1m_finished: Option<f64>,
    pub ready_ms_postgres: Option<f64>,
    pub ready_ms_sqlite: Option<f64>,
}

/// What we want to reach.
#[derive(Clone, Copy)]
pub enum Reach {
    AtLeast(f64),
    Below(f64),
    None,
}

pub struct Line {
    pub name: String,
    pub about: &'static str,
    pub value: Option<f64>,
    pub reach: Reach,
}

pub fn over(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b?)
}

impl Results {
    fn lines(&self) -> Vec<Line> {
        let line = |name: &str, about, value, reach| Line { name: name.to_owned(), about, value, reach };
        let slowest_lease = self.lease_ms_fresh.map_or(Reach::None, |fresh| Reach::Below(fresh * 1.2));
        vec![
            line(
                "hand_single_per_s",
                "by hand, one subject a transaction, prepared",
                self.hand_single_per_s,
                Reach::None,
            ),
            line("hand_set_per_s", "by hand, 1,000 subjects a transaction", self.hand_set_per_s, Reach::None),
            line("hand_delete_per_s", "by hand, the same, deleting", self.hand_delete_per_s, Reach::None),
            line(
                "quittance_postgres_per_s",
                "end to end, PostgreSQL store",
                self.quittance_postgres_per_s,
                Reach::None,
            ),
            line("quittance_sqlite_per_s", "end to end, SQLite store", self.quittance_sqlite_per_s, Reach::None),
            line(
                "quittance_delete_per_s",
                "end to end, PostgreSQL store, deleting",
                self.quittance_delete_per_s,
                Reach::None,
            ),
            line(
                "ratio_single",
                "end to end over by hand, one subject a transaction",
                over(self.quittance_postgres_per_s, self.hand_single_per_s),
                Reach::None,
            ),
            line(
                "ratio_set",
                "end to end over by hand, 1,000 a transaction",
                over(self.quittance_postgres_per_s, self.hand_set_per_s),
                Reach::AtLeast(0.25),
            ),
            line(
                "delete_ratio_set",
                "the same, deleting",
                over(self.quittance_delete_per_s, self.hand_delete_per_s),
                Reach::None,
            ),
            line("wide_per_s", "end to end, a customer a request", self.wide_per_s, Reach::AtLeast(300.0)),
            line("intake_per_s", "intake alone, streamed", self.intake_per_s, Reach::AtLeast(10_000.0)),
            line("server_rss_mb", "the server's peak memory after all that", self.server_rss_mb, Reach::Below(150.0)),
            line(
                "hand_set_cpu_ms",
                "by hand, PostgreSQL's processor time a subject",
                self.hand_set_cpu_ms,
                Reach::None,
            ),
            line("server_cpu_ms", "end to end, the server's processor time a request", self.server_cpu_ms, Reach::None),
            line(
                "postgresql_cpu_ms",
                "end to end, PostgreSQL's processor time a request, system and store",
                self.postgresql_cpu_ms,
                Reach::None,
            ),
            line("lease_ms_fresh", "claiming 1,000 tasks, nothing finished", self.lease_ms_fresh, Reach::None),
            line(
                "lease_ms_after_1m_finished",
                "claiming 1,000 tasks, a million finished",
                self.lease_ms_after_1m_finished,
                slowest_lease,
            ),
            line(
                "ready_ms_postgres",
                "from start to ready, a million finished requests in PostgreSQL",
                self.ready_ms_postgres,
                Reach::Below(500.0),
            ),
            line("ready_ms_sqlite", "the same in SQLite", self.ready_ms_sqlite, Reach::Below(500.0)),
        ]
    }

    /// What ran, in words.
    fn ran(&self) -> String {
        let size = if self.quick { "quick, says nothing about speed" } else { "W1, 10,000 subjects" };
        format!("{size}; {}", self.machine.shown())
    }

    pub fn table(&self) -> String {
        table(&self.ran(), &self.lines())
    }

    pub fn write(&self, out: &Path) -> Result<(), Failure> {
        let requests = self.server_rss_requests.map(|requests| ("server_rss_requests", requests.into()));
        write(out, &self.lines(), self.quick, &self.machine, requests.into_iter().collect())
    }
}

impl Machine {
    pub fn shown(&self) -> String {
        format!("{} cores, PostgreSQL {}", self.cores, self.postgresql)
    }
}

pub fn table(ran: &str, lines: &[Line]) -> String {
    let mut table = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(table, "{ran}\n\n| figure | | value | reach |\n| --- | --- | ---: | --- |");
    for line in lines {
        let Some(value) = line.value else { continue };
        let reach = match line.reach {
            Reach::AtLeast(least) => verdict(value >= least, &format!("≥ {least}")),
            Reach::Below(most) => verdict(value < most, &format!("< {}", shown(most))),
            Reach::None => String::new(),
        };
        let _ = writeln!(table, "| {} | {} | {} | {reach} |", line.name, line.about, shown(value));
    }
    table
}

/// `about`: what is said beside the figures.
pub fn write(
    out: &Path,
    lines: &[Line],
    quick: bool,
    machine: &Machine,
    about: Vec<(&'static str, Value)>,
) -> Result<(), Failure> {
    let mut json: Map<String, Value> = about.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for line in lines {
        if let Some(value) = line.value {
            json.insert(line.name.clone(), Value::from((value * 1000.0).round() / 1000.0));
        }
    }
    json.insert("quick".to_owned(), quick.into());
    json.insert("cores".to_owned(), machine.cores.into());
    json.insert("postgresql".to_owned(), machine.postgresql.clone().into());
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(out, serde_json::to_string_pretty(&Value::Object(json))? + "\n")?)
}

fn verdict(reached: bool, bound: &str) -> String {
    format!("{bound}: {}", if reached { "reached" } else { "**not reached**" })
}

fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
