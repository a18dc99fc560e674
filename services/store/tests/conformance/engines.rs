//! What each engine must be besides: one process on SQLite, this build's schema, Citus's rules, and claims that stay cheap.

use quittance_sql::Val;
use quittance_store::StoreError;

use crate::{
    harness::TestStore,
    isolation::{DEPLOYMENT_WIDE, customer_tables},
    statements::{CUSTOMERS_TABLES, Statements},
    world::*,
};

pub async fn a_second_handle_on_the_same_file_is_refused(t: &mut TestStore) {
    customer(t, "acme").await;
    for _ in 0..2 {
        let refused = t.another("keys").await;
        assert!(matches!(&refused, Err(StoreError::Startup(text)) if text.contains("in use")), "{refused:?}");
    }
    // A clone is the same handle.
    let clone = (**t).clone();
    t.close().await;
    assert!(t.another("keys").await.is_err());
    drop(clone);
    t.open("keys").await.unwrap();
    assert_eq!(t.list_customers("", 10).await.unwrap().len(), 1);
}

pub async fn a_store_of_a_newer_build_is_refused(t: &mut TestStore) {
    customer(t, "acme").await;
    t.change("UPDATE schema_version SET version = version + 1").await;
    t.close().await;
    for _ in 0..2 {
        let refused = t.another("keys").await;
        assert!(matches!(&refused, Err(StoreError::Startup(text)) if text.contains("newer build")), "{refused:?}");
    }
    assert_eq!(t.count("SELECT count(*) FROM customers").await, 1, "nothing was touched");
    t.change("UPDATE schema_version SET version = version - 1").await;
    t.open("keys").await.unwrap();
}

/// All that there is of schema, as the engine's own catalogue has it.
async fn schema(t: &TestStore) -> Vec<String> {
    let sql = if t.is_postgres() {
        "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable FROM information_schema.columns
           WHERE table_schema = 'public'
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL SELECT tablename || ' ' || policyname || ' ' || qual FROM pg_policies
         UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
           WHERE connamespace = 'public'::regnamespace
         ORDER BY 1"
    } else {
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    };
    t.rows(sql, vec![]).await.iter().map(|row| row.text(0).unwrap()).collect()
}

pub async fn migrating_twice_changes_nothing(t: &mut TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    let id = acme.instruct(at(1), erasure("mara")).await;
    let (before, version) = (schema(t).await, t.count("SELECT version FROM schema_version").await);
    assert!(version >= 1 && before.len() > 20);
    drop(acme);
    for _ in 0..2 {
        t.close().await;
        t.open("keys").await.unwrap();
    }
    assert_eq!(schema(t).await, before);
    assert_eq!(t.count("SELECT version FROM schema_version").await, version);
    assert_eq!(t.count("SELECT count(*) FROM requests").await, 1);
    let acme = quittance_domain::ids::CustomerId::new("acme").unwrap();
    assert_eq!(t.request(&acme, id).await.unwrap().0.id, id);
}

/// Replicas of a new deployment start together.
pub async fn replicas_that_start_at_once_migrate_once(t: &mut TestStore) {
    t.wear_out();
    let tables: Vec<String> = t.tables().await.into_iter().map(|(table, _)| table).collect();
    t.close().await;
    t.change(&format!("DROP TABLE {} CASCADE", tables.join(", "))).await;
    let opened = tokio::join!(t.another("keys"), t.another("keys"), t.another("keys"), t.another("keys"));
    for store in [opened.0, opened.1, opened.2, opened.3] {
        let store = store.unwrap();
        assert!(store.list_customers("", 10).await.unwrap().is_empty());
        store.close().await;
    }
    assert_eq!(t.count("SELECT count(*) FROM deployment").await, 1);
    t.open("keys").await.unwrap();
}

/// What will be sharded by customer can be: nothing unique or referred to spans customers.
pub async fn customers_tables_keep_the_rules_of_citus(t: &TestStore) {
    let customers: Vec<String> = customer_tables(t).await.into_iter().map(|(table, _)| table).collect();
    assert_eq!(customers, CUSTOMERS_TABLES, "a new table is either a customer's, or named as deployment-wide");
    let unique = "SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text,
        EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int[])
                AND a.attname = 'customer_id')::int::bigint, i.indisprimary::int::bigint
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique";
    let mut primaries = 0;
    for row in t.rows(unique, vec![]).await {
        let table = row.text(0).unwrap();
        primaries += row.i64(3).unwrap();
        assert!(DEPLOYMENT_WIDE.contains(&table.as_str()) || row.i64(2).unwrap() == 1, "{}", row.text(1).unwrap());
    }
    assert_eq!(
        usize::try_from(primaries).unwrap(),
        CUSTOMERS_TABLES.len() + DEPLOYMENT_WIDE.len(),
        "every table has its key"
    );
    let foreign = "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f'";
    for row in t.rows(foreign, vec![]).await {
        let (table, definition) = (row.text(0).unwrap(), row.text(1).unwrap());
        let both = definition.matches("customer_id").count() == 2;
        assert!(DEPLOYMENT_WIDE.contains(&table.as_str()) || both, "{table}: {definition}");
    }
    for (what, sql) in [
        ("sequences", "SELECT count(*) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"),
        ("triggers", "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"),
        ("functions", "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"),
    ] {
        assert_eq!(t.count(sql).await, 0, "{what}");
    }
    for table in CUSTOMERS_TABLES {
        let sql = format!(
            "SELECT (relrowsecurity AND relforcerowsecurity)::int::bigint FROM pg_class WHERE oid = '{table}'::regclass"
        );
        assert_eq!(t.count(&sql).await, 1, "{table} is under row-level security");
    }
    let bypass = "SELECT (rolsuper OR rolbypassrls)::int::bigint FROM pg_roles WHERE rolname = current_user";
    assert_eq!(t.count(bypass).await, 0, "or the suite would prove nothing");
}

const FINISHED: i64 = 20_000;

/// A store with a long past: finished tasks without end, and a few that are open.
async fn age(t: &mut TestStore, acme: &Customer) {
    t.wear_out();
    acme.instruct_all(at(1), (0..30).map(|n| erasure(&format!("p{n}"))).collect()).await;
    let (series, id, tail) = if t.is_postgres() {
        (
            format!("generate_series(1, {FINISHED}) AS s(n)"),
            "lpad(to_hex(n), 32, '0')::uuid",
            "ANALYZE tasks; ANALYZE requests;",
        )
    } else {
        let series = format!(
            "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {FINISHED}) SELECT n FROM s)"
        );
        (series, "unhex(printf('%032x', n))", "ANALYZE;")
    };
    let requests: Vec<String> = {
        let tables = t.tables().await;
        let (_, columns) = tables.into_iter().find(|(table, _)| table == "requests").unwrap();
        columns
    };
    let values: Vec<String> = requests
        .iter()
        .map(|column| match column.as_str() {
            "request_id" | "idempotency_id" => id.to_owned(),
            "state" => "'COMPLETED'".to_owned(),
            "open_tasks" => "0".to_owned(),
            "closed_us" => "1".to_owned(),
            other => format!("r.{other}"),
        })
        .collect();
    let one = "(SELECT * FROM requests LIMIT 1) r";
    t.change(&format!(
        "INSERT INTO requests ({}) SELECT {} FROM {one}, {series};
         INSERT INTO tasks (customer_id, request_id, system_id, action, work, state, map_version, attempts, lease, leased_by,
           run_at_us, reason) SELECT 'acme', {id}, 'crm', 'ERASURE', 'ACT', 'CONFIRMED', 1, 1, 1, 'worker', n, '' FROM {series};
         {tail}",
        requests.join(", "),
        values.join(", "),
    ))
    .await;
    assert_eq!(t.count("SELECT count(*) FROM tasks").await, FINISHED + 30);
}

/// The claim itself, as the store sends it, and the look for what comes next: on PostgreSQL that is one statement.
async fn claim_statements(t: &TestStore, system: &quittance_domain::ids::SystemId) -> Vec<String> {
    let statements = Statements::keep();
    {
        let _capturing = tracing::subscriber::set_default(statements.clone());
        // A test beside this one, without a subscriber, may have had the call sites remembered as of no interest.
        tracing::callsite::rebuild_interest_cache();
        let batch = claim_at(t, system, at(2), 1000).await.unwrap();
        assert_eq!(batch.tasks.len(), 30);
    }
    let found: Vec<_> = statements.all().into_iter().filter(|sql| sql.contains("AWAITING_CONFIRMATION")).collect();
    assert_eq!(found.len(), if t.is_postgres() { 1 } else { 2 }, "{found:#?}");
    found
}

fn arguments() -> Vec<Val> {
    let mut args: Vec<Val> = ["acme", "crm", "ERASURE", "ACT", "worker"].into_iter().map(Val::from).collect();
    args.extend([at(100).as_microsecond(), at(50).as_microsecond(), 1000].map(Val::from));
    args
}

pub async fn a_claim_costs_nothing_for_what_is_finished(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    age(t, &acme).await;
    for (n, sql) in claim_statements(t, &crm).await.into_iter().enumerate() {
        let explain = if t.is_postgres() { "EXPLAIN" } else { "EXPLAIN QUERY PLAN" };
        let mut args = arguments();
        if t.is_postgres() {
            args.push(1.into());
        }
        if n > 0 {
            // What it looks for, and the hint's bumps.
            args.truncate(4);
            args.push(1.into());
        }
        let column = if t.is_postgres() { 0 } else { 3 };
        let rows = t.rows(&format!("{explain} {sql}"), args).await;
        let plan: Vec<String> = rows.iter().map(|row| row.text(column).unwrap()).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("tasks_due"), "{plan}");
        assert!(!plan.contains("Seq Scan on tasks") && !plan.contains("SCAN tasks"), "{plan}");
    }
}

/// Without statistics, which a server that is killed now and then never comes to: by the batch alone, a planner thought of reading all that the
/// customer has for each of its batches, and the log stood still (found by chaos).
pub async fn entries_are_found_by_their_customer_and_batch_though_nothing_was_counted(t: &mut TestStore) {
    let (acme, _) = acme_and_crm(t).await;
    acme.instruct(at(1), erasure("mara")).await;
    let statements = Statements::keep();
    {
        let _capturing = tracing::subscriber::set_default(statements.clone());
        tracing::callsite::rebuild_interest_cache();
        t.placed_entries(0..256).await.unwrap();
    }
    let sql = statements.all().into_iter().find(|sql| sql.contains("e.payload")).expect("it is asked for");
    let explain = if t.is_postgres() { "EXPLAIN" } else { "EXPLAIN QUERY PLAN" };
    let column = if t.is_postgres() { 0 } else { 3 };
    let args = [0, 256, 257, -1000].map(Val::from).to_vec();
    let rows = t.rows(&format!("{explain} {sql}"), args).await;
    let plan = rows.iter().map(|row| row.text(column).unwrap()).collect::<Vec<_>>().join("\n");
    let by = match t.is_postgres() {
        true => plan
            .lines()
            .any(|line| line.contains("Cond") && line.contains("customer_id =") && line.contains("batch_id =")),
        false => plan.contains("ledger_entries_batch (customer_id=? AND batch_id=?)"),
    };
    assert!(by && plan.contains("ledger_entries_batch"), "{plan}");
}

/// Not only planned so: PostgreSQL's own counters say what was read.
pub async fn a_claim_reads_nothing_that_is_finished(t: &mut TestStore) {
    let (acme, crm) = acme_and_crm(t).await;
    age(t, &acme).await;
    drop(acme);
    // A connection gives its counters away when it ends.
    let read = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables WHERE relname = 'tasks'";
    t.close().await;
    t.open("keys").await.unwrap();
    let before = settled(t, read).await;
    assert_eq!(claim_at(t, &crm, at(2), 1000).await.unwrap().tasks.len(), 30);
    t.close().await;
    let after = {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let now = t.count(read).await;
            if now > before || std::time::Instant::now() > deadline {
                break settled(t, read).await;
            }
        }
    };
    assert!((30..2000).contains(&(after - before)), "{} rows were read for a claim of 30", after - before);
    t.open("keys").await.unwrap();
}

/// The counter once it does not move any more.
async fn settled(t: &TestStore, sql: &str) -> i64 {
    let mut last = t.count(sql).await;
    let mut same = 0;
    while same < 10 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let now = t.count(sql).await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}
