//! The proof asks nobody: it reads the application databases and the print shop's folder itself, beside a copy from before.
//!
//! Whole tables are compared with what must stand in them, to the letter and in both directions: so nothing of the erased is left,
//! nothing else is missing, and nothing else was touched. Counts of before stand beside, so that nobody need believe in an empty search.

use std::{collections::BTreeMap, fs, path::Path};

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    Failure,
    people::{self, PEOPLE},
    print_shop_folder,
    tables::{CRM, HELD, SHOP, Table},
};

struct Database {
    connection: SqliteConnection,
    name: &'static str,
}

impl Database {
    async fn open(folder: &Path, name: &'static str) -> Result<Self, Failure> {
        let file = |folder: &Path| folder.join(format!("{name}.db"));
        let mut connection = SqliteConnectOptions::new().filename(file(folder)).connect().await?;
        let before = file(&folder.join("before")).display().to_string();
        sqlx::query("ATTACH $1 AS before").bind(before).execute(&mut connection).await?;
        let erased = (0..PEOPLE).filter(|n| people::is_erased(*n));
        let erased: Vec<_> = erased.map(|n| (people::id(n), people::email(n), people::user_id(n))).collect();
        let make = "CREATE TEMP TABLE erased AS
                    SELECT value ->> 0 AS id, value ->> 1 AS email, value ->> 2 AS user_id FROM json_each($1)";
        sqlx::query(make).bind(serde_json::to_string(&erased)?).execute(&mut connection).await?;
        Ok(Self { connection, name })
    }

    async fn count(&mut self, from: &str) -> Result<i64, Failure> {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {from}"));
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?)
    }

    async fn names(&mut self, sql: &'static str, of: &str) -> Result<Vec<String>, Failure> {
        Ok(sqlx::query_scalar(sql).bind(of).fetch_all(&mut self.connection).await?)
    }

    async fn table(&mut self, table: &Table, report: &mut Report) -> Result<(), Failure> {
        let Table { name, theirs, expected, empty } = table;
        let columns = self.names("SELECT name FROM pragma_table_info($1)", name).await?;
        // As literals: a comparison of texts might otherwise overlook case.
        let columns: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        let columns = columns.join(", ");
        let wanted = format!("SELECT {columns} FROM ({expected})");
        let found = format!("SELECT {columns} FROM main.{name} WHERE NOT ({empty})");
        let missing = self.count(&format!("({wanted} EXCEPT {found})")).await?;
        let surplus = self.count(&format!("({found} EXCEPT {wanted})")).await?;
        report.line(Line {
            place: format!("{}.{name}", self.name),
            theirs_before: self.count(&format!("before.{name} WHERE {theirs}")).await?,
            theirs_now: self.count(&format!("main.{name} WHERE ({theirs}) AND NOT ({empty})")).await?,
            others: self.count(&format!("({expected})")).await?,
            wrong: missing + surplus,
        });
        Ok(())
    }

    /// Every text column of every table, whatever the list of tables above says: rows that hold an address or user id of theirs.
    async fn sweep(&mut self, schema: &'static str) -> Result<i64, Failure> {
        let tables = self.names("SELECT name FROM before.sqlite_master WHERE type = $1", "table").await?;
        let mut rows = 0;
        for table in tables {
            let columns = self.names("SELECT name FROM pragma_table_info($1) WHERE type LIKE 'TEXT%'", &table).await?;
            let holds = |column: &String| {
                format!("lower({column}) IN (SELECT email FROM erased UNION ALL SELECT lower(user_id) FROM erased)")
            };
            let condition: Vec<String> = columns.iter().map(holds).collect();
            rows += self.count(&format!("{schema}.{table} WHERE {}", condition.join(" OR "))).await?;
        }
        Ok(rows)
    }
}

struct Line {
    place: String,
    theirs_before: i64,
    theirs_now: i64,
    others: i64,
    wrong: i64,
}

#[derive(Default)]
struct Report {
    wrong: bool,
}

impl Report {
    fn head(&self) {
        println!("        {:18} {:>13} {:>5} {:>11} {:>9}", "", "THEIRS BEFORE", "NOW", "OTHER ROWS", "CHANGED");
    }

    fn line(&mut self, line: Line) {
        let Line { place, theirs_before, theirs_now, others, wrong } = line;
        // Had they held nothing before, it would prove nothing that nothing is there.
        let well = theirs_before > 0 && theirs_now == 0 && wrong == 0;
        let verdict = self.verdict(well);
        println!("{verdict}   {place:18} {theirs_before:>13} {theirs_now:>5} {others:>11} {wrong:>9}");
    }

    fn say(&mut self, well: bool, words: &str) {
        println!("{}   {words}", self.verdict(well));
    }

    fn verdict(&mut self, well: bool) -> &'static str {
        self.wrong |= !well;
        if well { "ok   " } else { "WRONG" }
    }
}

/// Every file below the print shop's folder, by its path from `folder`.
fn files_in(folder: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.join("print-shop")];
    while let Some(now) = open.pop() {
        for entry in fs::read_dir(now)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(path.strip_prefix(folder)?.display().to_string(), fs::read_to_string(&path)?);
            }
        }
    }
    Ok(files)
}

/// The print shop's files, in the same two ways.
fn print_shop(folder: &Path, statement: &str) -> Result<Line, Failure> {
    let files_of = |n: u64| {
        let folder = print_shop_folder(Path::new(""), n);
        people::files(n).into_iter().map(move |(name, text)| (folder.join(name).display().to_string(), text))
    };
    let found = files_in(folder)?;
    let theirs: Vec<_> = (0..PEOPLE).filter(|n| people::is_erased(*n)).flat_map(files_of).collect();
    let mut others: BTreeMap<_, _> = (0..PEOPLE).filter(|n| !people::is_erased(*n)).flat_map(files_of).collect();
    let stated = print_shop_folder(Path::new(""), people::RECTIFIED).join("statement-1.txt");
    others.insert(stated.display().to_string(), statement.to_owned());
    let missing = others.iter().filter(|(path, text)| found.get(*path) != Some(text)).count();
    let surplus = found.keys().filter(|path| !others.contains_key(*path)).count();
    Ok(Line {
        place: "print-shop files".to_owned(),
        theirs_before: i64::try_from(theirs.len())?,
        theirs_now: i64::try_from(theirs.iter().filter(|(path, _)| found.contains_key(path)).count())?,
        others: i64::try_from(others.len())?,
        wrong: i64::try_from(missing + surplus)?,
    })
}

/// Prints what was proved. Whether all of it holds.
pub async fn run(folder: &Path, statement: &str) -> Result<bool, Failure> {
    let mut crm = Database::open(folder, "crm").await?;
    let mut shop = Database::open(folder, "shop").await?;
    let mut report = Report::default();
    report.head();
    for table in CRM {
        crm.table(table, &mut report).await?;
    }
    for table in SHOP {
        shop.table(table, &mut report).await?;
    }
    report.line(print_shop(folder, statement)?);
    println!();

    let held = shop.count(&format!("before.invoice WHERE {HELD}")).await?;
    let marked = shop.count(&format!("main.invoice WHERE {HELD} AND restricted = 1")).await?;
    let words = format!("{marked} of {held} invoices of theirs under the seven-year hold are still there, and marked");
    report.say(held > 0 && marked == held, &words);
    let (before, now) = (crm.sweep("before").await?, crm.sweep("main").await?);
    let words =
        format!("crm: rows with an address or user id of theirs in any text column: {before} before, {now} now");
    report.say(before > 0 && now == 0, &words);
    let (before, now) = (shop.sweep("before").await?, shop.sweep("main").await?);
    let words = format!("shop: the same: {before} before, {now} now, which are the {held} held invoices");
    report.say(before > held && now == held, &words);
    crm.connection.close().await?;
    shop.connection.close().await?;
    Ok(!report.wrong)
}
