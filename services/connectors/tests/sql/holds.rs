//! What must be kept (Art. 17(3)): per row, restricted meanwhile, gone afterwards.

use quittance_connectors::{BatchContext, Connector as _, MatchSet, Subject, SubjectError, sql::SqlConnector};
use quittance_domain::{Timestamp, action::Action};

use crate::harness::{Confirmed, Db, carried_out, ctx, email, found, on_all_engines, other, read, sets, subject};

on_all_engines!(
    book_years,
    single_fields,
    no_anchor,
    when_the_hold_has_ended,
    owners_of_what_is_held,
    lines_that_are_the_customers_too,
    lines_of_somebody_elses_order,
    what_one_of_two_owners_keeps,
    fields_that_were_held,
    held_by_nothing_but_an_identifier,
    whose_mark_is_gone,
    what_is_held_is_not_lifted,
);

const MAP: &str = "  customer: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}
  orders: {key: [id], owned_by: [{collection: customer, fields: {customer_id: id}}], fields: {iban: financial}, erase: delete, restriction: {field: restricted, set: 'yes'}, retain: {ground: Art. 52 AWR, anchor: booked_on, counted_from: end_of_year, period: P7Y}}
  line: {key: [order_id, nr], owned_by: [{collection: orders, fields: {order_id: id}}], fields: {engraving: message}, erase: delete}\n";

async fn seed(db: &Db) {
    db.sql(
        "CREATE TABLE customer (id integer primary key, email varchar(100));
         CREATE TABLE orders (id integer primary key, customer_id integer, iban varchar(40), booked_on date, restricted varchar(5), FOREIGN KEY (customer_id) REFERENCES customer (id));
         CREATE TABLE line (order_id integer, nr integer, engraving varchar(20), PRIMARY KEY (order_id, nr), FOREIGN KEY (order_id) REFERENCES orders (id));
         INSERT INTO customer VALUES (1, 'a@x.nl'), (2, 'b@x.nl');
         INSERT INTO orders VALUES (1, 1, 'NL1', '2018-12-31', null), (2, 1, 'NL2', '2019-01-01', null), (3, 1, 'NL3', '2021-06-01', null), (4, 2, 'NL4', '2019-01-01', null);
         INSERT INTO line VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 1, null), (4, 1, 'z');",
    )
    .await;
}

async fn book_years(db: &Db) {
    seed(db).await;
    let c = db.connector(MAP);
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    // Lines are kept with their order: without them the books would not be whole. In Amsterdam the year ends at 23:00 UTC.
    assert_eq!(
        outcomes,
        [[
            "customer.email ERASED 1",
            "line.* RETAINED 1 (Art. 52 AWR) until 2028-12-31T23:00:00Z",
            "line.message ERASED 1",
            "line.message RETAINED 1 (Art. 52 AWR) until 2026-12-31T23:00:00Z",
            "orders.financial ERASED 1",
            "orders.financial RETAINED 2 (Art. 52 AWR) until 2028-12-31T23:00:00Z",
        ]]
    );
    assert_eq!(db.dump("id, iban, restricted", "orders").await, ["2|NL2|yes", "3|NL3|yes", "4|NL4|-"]);
    assert_eq!(db.dump("order_id, engraving", "line").await, ["2|y", "3|-", "4|z"]);
}

async fn single_fields(db: &Db) {
    db.sql(
        "CREATE TABLE person (id integer primary key, email varchar(100), born date, closed_on date);
         INSERT INTO person VALUES (1, 'a@x.nl', '1980-01-01', '2024-06-14'), (2, 'a@x.nl', '1980-01-01', '2021-06-14'), (3, 'a@x.nl', null, null);",
    )
    .await;
    let c = db.connector(
        "  person: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, born: {category: birth_date, erase: {retain: {ground: Wwft, anchor: closed_on, period: P5Y}}}}, erase: mask}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(
        outcomes,
        [[
            "person.birth_date ERASED 1",
            "person.birth_date RETAINED 1 (Wwft) until 2029-06-14T22:00:00Z",
            "person.email ERASED 3",
        ]]
    );
    assert_eq!(db.dump("id, email, born", "person").await, ["1|-|1980-01-01", "2|-|-", "3|-|-"]);
}

async fn no_anchor(db: &Db) {
    seed(db).await;
    db.sql("UPDATE orders SET booked_on = null WHERE id = 3;").await;
    let c = db.connector(MAP);
    let subjects = [subject(&[email("a@x.nl")]), subject(&[email("b@x.nl")])];
    let found = found(&c, &ctx(Action::Erasure), &subjects).await;
    assert!(other(found[0].as_ref().unwrap_err()).contains("no anchor date"));
    assert!(found[1].is_ok());
    // Access does not care how long a row is kept.
    assert_eq!(sets(&c, &ctx(Action::Access), &subjects).await[0].rows(), 7);
}

/// What is kept of match sets for the day a hold ends.
fn held_at(sets: &[MatchSet], ctx: &BatchContext) -> Vec<MatchSet> {
    sets.iter().map(|set| set.held_at(ctx.now).unwrap().0).collect()
}

/// As whom the dispatcher knows the subject by then.
fn nobody(known: &Subject) -> Subject {
    Subject { identifiers: Vec::new(), ..known.clone() }
}

/// Erases, and comes back on a day that is after all holds; says what was confirmed then.
async fn erased_when_all_holds_have_ended(
    c: &SqlConnector,
    subjects: &[Subject],
    between: impl AsyncFnOnce(),
) -> Confirmed {
    let mut ctx = ctx(Action::Erasure);
    let sets = sets(c, &ctx, subjects).await;
    c.act(&ctx, subjects, &sets).await.unwrap().into_iter().for_each(|done| done.unwrap());
    read(c, &ctx, subjects, &sets).await.into_iter().for_each(|confirmed| drop(confirmed.unwrap()));
    let held = held_at(&sets, &ctx);
    let forgotten: Vec<Subject> = subjects.iter().map(nobody).collect();
    between().await;
    ctx.now = "2040-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
    c.act(&ctx, &forgotten, &held).await.unwrap().into_iter().for_each(|done| done.unwrap());
    let confirmed = read(c, &ctx, &forgotten, &held).await;
    // A rerun of it, as after a crash before the report.
    c.act(&ctx, &forgotten, &held).await.unwrap().into_iter().for_each(|done| done.unwrap());
    assert_eq!(read(c, &ctx, &forgotten, &held).await, confirmed);
    confirmed
}

/// The dispatcher comes back with the stored match set; the identifiers are forgotten by then.
async fn when_the_hold_has_ended(db: &Db) {
    seed(db).await;
    let c = db.connector(MAP);
    let mut ctx = ctx(Action::Erasure);
    let known = [subject(&[email("a@x.nl")])];
    let sets = sets(&c, &ctx, &known).await;
    c.act(&ctx, &known, &sets).await.unwrap()[0].clone().unwrap();
    let held = held_at(&sets, &ctx);
    let forgotten = [nobody(&known[0])];
    ctx.now = "2028-12-31T22:59:59Z".parse::<Timestamp>().unwrap();
    c.act(&ctx, &forgotten, &held).await.unwrap()[0].clone().unwrap();
    assert_eq!(db.dump("id", "orders").await, ["3", "4"], "the last day is not over");
    ctx.now = "2028-12-31T23:00:00Z".parse::<Timestamp>().unwrap();
    c.act(&ctx, &forgotten, &held).await.unwrap()[0].clone().unwrap();
    assert_eq!(db.dump("id", "orders").await, ["4"]);
    assert_eq!(db.dump("order_id", "line").await, ["4"]);
    assert_eq!(
        read(&c, &ctx, &forgotten, &held).await,
        [Ok(vec![
            "line.* ERASED 1".to_owned(),
            "line.message ERASED 1".to_owned(),
            "orders.financial ERASED 2".to_owned()
        ])]
    );
}

/// Deleting the owner would take the held row along, or be stopped by it.
async fn owners_of_what_is_held(db: &Db) {
    seed(db).await;
    let c = db.connector(&MAP.replacen("erase: mask", "erase: delete", 1));
    let subjects = [subject(&[email("a@x.nl")])];
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &subjects).await;
    assert_eq!(outcomes[0][0], "customer.email RETAINED 1 (Art. 52 AWR) until 2028-12-31T23:00:00Z");
    assert_eq!(db.dump("id, email", "customer").await, ["1|a@x.nl", "2|b@x.nl"]);
    assert_eq!(db.dump("id", "orders").await, ["2", "3", "4"]);
    // And again, with nothing left to do.
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &subjects).await;
    assert_eq!(outcomes[0].len(), 4);
    // When all holds have ended, nothing of them is left: the owner has no mark, and its identifiers are forgotten.
    let confirmed = erased_when_all_holds_have_ended(&c, &subjects, async || {}).await;
    assert_eq!(
        confirmed,
        [Ok(vec![
            "customer.email ERASED 1".to_owned(),
            "line.* ERASED 1".to_owned(),
            "line.message ERASED 1".to_owned(),
            "orders.financial ERASED 2".to_owned(),
        ])]
    );
    assert_eq!(db.dump("id, email", "customer").await, ["2|b@x.nl"]);
    assert_eq!(db.dump("id", "orders").await, ["4"]);
}

/// The walk meets a line through its customer first; it is kept with its order all the same.
async fn lines_that_are_the_customers_too(db: &Db) {
    db.sql(
        "CREATE TABLE customer (id integer primary key, email varchar(100));
         CREATE TABLE orders (id integer primary key, customer_id integer, iban varchar(40), booked_on date);
         CREATE TABLE line (id integer primary key, customer_id integer, order_id integer, engraving varchar(20), FOREIGN KEY (order_id) REFERENCES orders (id));
         INSERT INTO customer VALUES (1, 'a@x.nl');
         INSERT INTO orders VALUES (1, 1, 'NL1', '2010-01-01'), (2, 1, 'NL2', '2019-01-01');
         INSERT INTO line VALUES (1, 1, 1, 'x'), (2, 1, 2, 'y'), (3, 1, null, 'z'), (4, null, 2, 'w');",
    )
    .await;
    let c = db.connector(
        "  customer: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}
  orders: {key: [id], owned_by: [{collection: customer, fields: {customer_id: id}}], fields: {iban: financial}, erase: delete, retain: {ground: Art. 52 AWR, anchor: booked_on, counted_from: end_of_year, period: P7Y}}
  line: {key: [id], owned_by: [{collection: orders, fields: {order_id: id}}, {collection: customer, fields: {customer_id: id}}], fields: {engraving: message}, erase: delete}\n",
    );
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(
        outcomes,
        [[
            "customer.email ERASED 1",
            "line.message ERASED 2",
            "line.message RETAINED 2 (Art. 52 AWR) until 2026-12-31T23:00:00Z",
            "orders.financial ERASED 1",
            "orders.financial RETAINED 1 (Art. 52 AWR) until 2026-12-31T23:00:00Z",
        ]]
    );
    assert_eq!(db.dump("id, engraving", "line").await, ["2|y", "4|w"]);
    assert_eq!(db.dump("id", "orders").await, ["2"]);
}

/// A line of another's order: whoever is erased, it is kept with the order, and goes when that may.
async fn lines_of_somebody_elses_order(db: &Db) {
    db.sql(
        "CREATE TABLE customer (id integer primary key, email varchar(100));
         CREATE TABLE orders (id integer primary key, customer_id integer, iban varchar(40), booked_on date);
         CREATE TABLE line (id integer primary key, customer_id integer, order_id integer, engraving varchar(20));
         INSERT INTO customer VALUES (1, 'a@x.nl'), (2, 'b@x.nl');
         INSERT INTO orders VALUES (1, 1, 'NL1', '2010-01-01'), (2, 1, 'NL2', '2019-01-01');
         INSERT INTO line VALUES (1, 2, 1, 'old'), (2, 2, 2, 'kept'), (3, 2, null, 'own'), (4, 2, 9, 'nowhere'), (5, 1, 2, 'hers');",
    )
    .await;
    let c = db.connector(
        "  customer: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: mask}
  orders: {key: [id], owned_by: [{collection: customer, fields: {customer_id: id}}], fields: {iban: financial}, erase: delete, retain: {ground: Art. 52 AWR, anchor: booked_on, counted_from: end_of_year, period: P7Y}}
  line: {key: [id], owned_by: [{collection: orders, fields: {order_id: id}}, {collection: customer, fields: {customer_id: id}}], fields: {engraving: message}, erase: delete}\n",
    );
    let kept = "line.message RETAINED 1 (Art. 52 AWR) until 2026-12-31T23:00:00Z";
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("b@x.nl")])]).await;
    assert_eq!(outcomes, [["customer.email ERASED 1", "line.message ERASED 3", kept]]);
    assert_eq!(db.dump("id", "line").await, ["2", "5"]);
    assert_eq!(db.dump("id", "orders").await, ["1", "2"]);
    // And hers: the first order may go, and what is kept of the other is kept for both.
    carried_out(&c, &ctx(Action::Erasure), &[subject(&[email("a@x.nl")])]).await;
    assert_eq!(
        (db.dump("id", "line").await, db.dump("id", "orders").await),
        (vec!["2".into(), "5".into()], vec!["2".into()])
    );
}

/// An invoice is its customer's and its order's: neither can go from under it.
async fn what_one_of_two_owners_keeps(db: &Db) {
    db.sql(
        "CREATE TABLE customer (id integer primary key, email varchar(100));
         CREATE TABLE orders (id integer primary key, customer_id integer, note varchar(40));
         CREATE TABLE invoice (id integer primary key, customer_id integer, order_id integer, iban varchar(40), booked_on date, FOREIGN KEY (customer_id) REFERENCES customer (id), FOREIGN KEY (order_id) REFERENCES orders (id));
         INSERT INTO customer VALUES (1, 'a@x.nl');
         INSERT INTO orders VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 1, 'z');
         INSERT INTO invoice VALUES (1, 1, 1, 'NL1', '2010-01-01'), (2, 1, 2, 'NL2', '2019-01-01');",
    )
    .await;
    let c = db.connector(
        "  customer: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email}, erase: delete}
  orders: {key: [id], owned_by: [{collection: customer, fields: {customer_id: id}}], fields: {note: message}, erase: delete}
  invoice: {key: [id], owned_by: [{collection: customer, fields: {customer_id: id}}, {collection: orders, fields: {order_id: id}}], fields: {iban: financial}, erase: delete, retain: {ground: Art. 52 AWR, anchor: booked_on, counted_from: end_of_year, period: P7Y}}\n",
    );
    let subjects = [subject(&[email("a@x.nl")])];
    let outcomes = carried_out(&c, &ctx(Action::Erasure), &subjects).await;
    assert_eq!(
        outcomes,
        [[
            "customer.email RETAINED 1 (Art. 52 AWR) until 2026-12-31T23:00:00Z",
            "invoice.financial ERASED 1",
            "invoice.financial RETAINED 1 (Art. 52 AWR) until 2026-12-31T23:00:00Z",
            "orders.message ERASED 2",
            "orders.message RETAINED 1 (Art. 52 AWR) until 2026-12-31T23:00:00Z",
        ]]
    );
    assert_eq!((db.dump("id", "orders").await, db.dump("id", "invoice").await), (vec!["2".into()], vec!["2".into()]));
    let confirmed = erased_when_all_holds_have_ended(&c, &subjects, async || {}).await;
    assert_eq!(
        confirmed,
        [Ok(vec![
            "customer.email ERASED 1".into(),
            "invoice.financial ERASED 1".into(),
            "orders.message ERASED 1".into()
        ])]
    );
    assert!(db.dump("id", "orders").await.is_empty() && db.dump("id", "customer").await.is_empty());
}

const PERSON: &str = "CREATE TABLE person (id integer primary key, email varchar(100), born date, closed_on date, restricted varchar(5));
    INSERT INTO person VALUES (1, 'a@x.nl', '1980-01-01', '2024-06-14', null), (2, 'b@x.nl', '1980-01-01', '2024-06-14', null);";
const BORN: &str = "born: {category: birth_date, erase: {retain: {ground: Wwft, anchor: closed_on, period: P5Y}}}";

/// The identifier is masked at once, so the mark is what leads to the row again.
async fn fields_that_were_held(db: &Db) {
    db.sql(PERSON).await;
    let map = format!(
        "  person: {{key: [id], identifiers: [{{kind: email, field: email}}], fields: {{email: email, {BORN}}}, erase: mask, restriction: {{field: restricted, set: 'yes'}}}}\n"
    );
    let c = db.connector(&map);
    let meanwhile = async || {
        let there = db.dump("id, email, born, restricted", "person").await;
        assert_eq!(there, ["1|-|1980-01-01|yes", "2|b@x.nl|1980-01-01|-"]);
    };
    let confirmed = erased_when_all_holds_have_ended(&c, &[subject(&[email("a@x.nl")])], meanwhile).await;
    assert_eq!(confirmed, [Ok(vec!["person.birth_date ERASED 1".to_owned()])]);
    assert_eq!(db.dump("id, born", "person").await, ["1|-", "2|1980-01-01"]);
}

/// Neither a mark nor an owner.
const TICKETS: &str = "  ticket: {key: [id], identifiers: [{kind: email, field: email}], fields: {email: email, born: birth_date}, erase: delete, retain: {ground: Wwft, anchor: closed_on, period: P5Y}, table: person}\n";

async fn held_by_nothing_but_an_identifier(db: &Db) {
    db.sql(PERSON).await;
    let c = db.connector(TICKETS);
    let confirmed = erased_when_all_holds_have_ended(&c, &[subject(&[email("a@x.nl")])], async || {}).await;
    assert_eq!(confirmed, [Ok(vec!["ticket.birth_date ERASED 1".to_owned(), "ticket.email ERASED 1".to_owned()])]);
    assert_eq!(db.dump("id", "person").await, ["2"]);
    // Of a row that names somebody else by then nobody says that it is erased: a person looks.
    let renamed = async || db.sql("UPDATE person SET email = 'c@x.nl' WHERE id = 2;").await;
    let confirmed = erased_when_all_holds_have_ended(&c, &[subject(&[email("b@x.nl")])], renamed).await;
    assert_eq!(confirmed, [Err(SubjectError::NotYet { rows: 1 })]);
    assert_eq!(db.dump("id, email", "person").await, ["2|c@x.nl"]);
}

/// It was all that led to the row: what is still there is not called erased.
async fn whose_mark_is_gone(db: &Db) {
    db.sql(PERSON).await;
    let map = TICKETS.replace("table: person", "table: person, restriction: {field: restricted, set: 'yes'}");
    let c = db.connector(&map);
    let subjects = [subject(&[email("a@x.nl")])];
    let lifted = async || db.sql("UPDATE person SET restricted = null;").await;
    let confirmed = erased_when_all_holds_have_ended(&c, &subjects, lifted).await;
    assert_eq!(confirmed, [Err(SubjectError::NotYet { rows: 1 })]);
    assert_eq!(db.dump("id", "person").await, ["1", "2"]);
}

/// What holds it is known to whoever asks for the lifting; a retention that only runs holds nothing.
async fn what_is_held_is_not_lifted(db: &Db) {
    seed(db).await;
    db.sql("ALTER TABLE customer ADD restricted varchar(5); ALTER TABLE line ADD restricted varchar(5); UPDATE customer SET restricted = 'yes'; UPDATE orders SET restricted = 'yes'; UPDATE line SET restricted = 'yes'").await;
    let c = db.connector(
        &MAP.replace("erase: mask}", "erase: mask, restriction: {field: restricted, set: 'yes'}}").replace(
            "{engraving: message}, erase: delete",
            "{engraving: message}, erase: delete, restriction: {field: restricted, set: 'yes'}",
        ),
    );
    let (ctx, subjects) = (ctx(Action::LiftRestriction), [subject(&[email("a@x.nl")])]);
    let mut known = sets(&c, &ctx, &subjects).await;
    assert!(known[0].hold(|name, key| name == "orders" && key == ["2"]));
    assert!(!known[0].hold(|name, key| name == "orders" && key == ["2"]), "it is known by now");
    for _ in 0..2 {
        assert_eq!(c.act(&ctx, &subjects, &known).await.unwrap(), [Ok(())]);
        let said = read(&c, &ctx, &subjects, &known).await.remove(0).unwrap();
        assert!(said.contains(&"orders.financial RESTRICTION_LIFTED 2".to_owned()), "{said:?}");
    }
    assert_eq!(db.dump("id, restricted", "orders").await, ["1|-", "2|yes", "3|-", "4|yes"]);
    // Where nothing else is there, nothing is lifted, and nobody is told so.
    assert!(known[0].hold(|_, _| true));
    let told = c.act(&ctx, &subjects, &known).await.unwrap().remove(0);
    assert!(other(&told.unwrap_err()).starts_with("all that is there is held by an erasure"));
}
