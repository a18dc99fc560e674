//! Fills the two application databases and the print shop's folder.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{Failure, people, people::PEOPLE, print_shop_folder};

/// Rows travel as one JSON text: one statement a table.
async fn insert(db: &mut SqliteConnection, table: &str, rows: Vec<Value>) -> Result<(), Failure> {
    let width = rows.first().and_then(Value::as_array).map_or(0, Vec::len);
    let columns: Vec<String> = (0..width).map(|i| format!("value ->> {i}")).collect();
    let sql = format!("INSERT INTO {table} SELECT {} FROM json_each($1)", columns.join(", "));
    sqlx::query(AssertSqlSafe(sql)).bind(Value::Array(rows).to_string()).execute(db).await?;
    Ok(())
}

async fn create(file: &Path, schema: &'static str) -> Result<SqliteConnection, Failure> {
    let mut db = SqliteConnectOptions::new().filename(file).create_if_missing(true).connect().await?;
    sqlx::raw_sql(schema).execute(&mut db).await?;
    Ok(db)
}

async fn crm(file: &Path) -> Result<(), Failure> {
    let mut db = create(file, include_str!("../../../../deploy/demo/crm.sql")).await?;
    let customer = |n| {
        let (id, referred_by) = (people::id(n), people::referred_by(n).map(people::id));
        let (first, last) = (people::first_name(n), people::last_name(n));
        let (email, user_id) = (people::typed_email(n), people::user_id(n));
        json!([id, email, user_id, first, last, people::phone(n), people::birth_date(n), referred_by, 0])
    };
    let address = |n: u64, kind: &str, salt: u64| {
        let (postcode, city) = people::city(n, salt + 1);
        json!([people::id(n), kind, people::street(n, salt), postcode, city, 0])
    };
    let orders = |n: u64| (0..1 + people::number(n, 30, 3)).map(move |k| (n, n * 10 + k));
    let order = |(n, id): (u64, u64)| {
        let day = format!("202{}-{:02}-{:02}", id % 6, 1 + id % 12, 1 + id % 28);
        json!([id, people::id(n), day, people::note(id), 0])
    };
    let line = |order: u64, line: u64| {
        let n = order * 2 + line;
        json!([order, line, people::article(n), people::engraving(n), 0])
    };
    let message = |(id, (from, to)): (usize, (u64, u64))| {
        let (sender, recipient) = (people::typed_email(from), people::typed_email(to));
        json!([id, sender, people::full_name(from), recipient, people::full_name(to), people::letter(id as u64), 0])
    };
    // The first company's contact is the person whose erasure is shown.
    let company = |c: u64| json!([c, format!("Drukkerij {c} B.V."), people::id(people::ERASED + 33 * c)]);

    insert(&mut db, "customer", (0..PEOPLE).map(customer).collect()).await?;
    let home = (0..PEOPLE).map(|n| address(n, "home", 20));
    let parcels = (0..PEOPLE).filter(|n| n % 4 == 0).map(|n| address(n, "parcel", 40));
    insert(&mut db, "address", home.chain(parcels).collect()).await?;
    insert(&mut db, "orders", (0..PEOPLE).flat_map(orders).map(order).collect()).await?;
    let lines = (0..PEOPLE).flat_map(orders).flat_map(|(_, id)| (1..=1 + id % 2).map(move |l| (id, l)));
    insert(&mut db, "order_line", lines.map(|(id, l)| line(id, l)).collect()).await?;
    let letters = (0..PEOPLE).flat_map(|from| people::writes_to(from).map(move |to| (from, to)));
    insert(&mut db, "message", letters.enumerate().map(message).collect()).await?;
    insert(&mut db, "company", (0..300).map(company).collect()).await?;
    Ok(db.close().await?)
}

async fn shop(file: &Path) -> Result<(), Failure> {
    let mut db = create(file, include_str!("../../../../deploy/demo/shop.sql")).await?;
    let this_year: i64 = sqlx::query_scalar("SELECT CAST(strftime('%Y', 'now') AS INTEGER)").fetch_one(&mut db).await?;
    let this_year = this_year.unsigned_abs();
    let account = |n| json!([people::user_id(n), people::full_name(n), 0]);
    let session = |(n, k): (u64, u64)| {
        let id = n * 2 + k;
        json!([id, people::user_id(n), people::ip_address(id), people::browser(id), 0])
    };
    // One or two that are held, and one whose hold is over: years away from the border, so that no New Year's Eve changes the outcome.
    let invoices = |n: u64| {
        let recent = (0..1 + n % 2).map(move |k| (k, 1 + people::number(n * 3 + k, 31, 6)));
        recent.chain([(2, 9 + people::number(n, 32, 4))]).map(move |(k, age)| (n, n * 3 + k, age))
    };
    let invoice = |(n, number, age): (u64, u64, u64)| {
        let (postcode, city) = people::city(n, 21);
        let billing = format!("{}, {postcode} {city}", people::street(n, 20));
        let day = format!("{}-{:02}-{:02}", this_year - age, 1 + number % 12, 1 + number % 28);
        let amount = 500 + people::number(number, 33, 20_000);
        json!([number, people::user_id(n), people::full_name(n), billing, day, amount, 0])
    };
    let review = |n: u64| {
        let stars = 1 + people::number(n, 34, 5);
        json!([n, people::user_id(n), people::first_name(n), people::article(n), stars, people::opinion(n), 0])
    };
    insert(&mut db, "account", (0..PEOPLE).map(account).collect()).await?;
    insert(&mut db, "session", (0..PEOPLE).flat_map(|n| [(n, 0), (n, 1)]).map(session).collect()).await?;
    insert(&mut db, "invoice", (0..PEOPLE).flat_map(invoices).map(invoice).collect()).await?;
    insert(&mut db, "review", (0..PEOPLE).filter(|n| n % 5 < 2).map(review).collect()).await?;
    Ok(db.close().await?)
}

fn print_shop(root: &Path) -> Result<(), Failure> {
    for n in 0..PEOPLE {
        let folder = print_shop_folder(root, n);
        fs::create_dir_all(&folder)?;
        for (name, text) in people::files(n) {
            fs::write(folder.join(name), text)?;
        }
    }
    Ok(())
}

/// Makes everything below `folder`, and keeps a copy of the databases as they are now in `before`.
pub async fn run(folder: &Path) -> Result<(), Failure> {
    let before = folder.join("before");
    fs::create_dir_all(&before)?;
    crm(&folder.join("crm.db")).await?;
    shop(&folder.join("shop.db")).await?;
    for name in ["crm.db", "shop.db"] {
        fs::copy(folder.join(name), before.join(name))?;
    }
    print_shop(folder)?;
    let leavers: String = (0..PEOPLE).filter(|n| people::is_leaver(*n)).map(|n| people::email(n) + "\n").collect();
    fs::write(folder.join("leavers.csv"), format!("email\n{leavers}"))?;
    Ok(())
}
