//! What evidence costs: appending to the log, proving out of a large one, checking a certificate, and what all that takes from W1.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_ledger::{
    Leaf,
    certificate::{KeyStatus, LogKey},
    proof::{inclusion, inclusion_tiles, verify_inclusion},
    tile::{Tile, TileKind, parse_hashes},
};
use quittance_sequencer::fetch;
use quittance_sql::{Column, ConnectOptions, Part, Pool, Rows};
use quittance_store::{Store, StoreOptions};
use quittance_tests::{
    Deployment, StoreKind,
    scenario::{by_email, completed, create, create_customer, register, system},
};
use quittance_verify::{Policy, VerifierKey, verify_certificate};
use rand::Rng as _;
use uuid::Uuid;

use crate::{
    Failure, Sizes,
    measure::{median, per_s},
    results::{Line, Machine, Reach, over, table, write},
    service::erase_all,
    w1::{Erasure, W1, email, map, number, patient},
};

/// Entries of one transaction, by hand and staged.
const CHUNK: u64 = 1_000;
/// Transactions that stage at once.
const CLIENTS: u64 = 2;
/// Systems of the request whose certificate is checked.
const CONFIRMATIONS: usize = 20;
const RUNS: usize = 501;
/// Leaf hashes of a tile.
const WIDTH: u64 = 256;

#[derive(Default)]
pub struct LedgerResults {
    pub append_per_s: f64,
    pub by_hand_per_s: f64,
    pub proof_ms_median: f64,
    pub verify_ms: f64,
    pub w1_loss_percent: f64,
    pub quick: bool,
    pub machine: Machine,
}

impl LedgerResults {
    fn lines(&self) -> Vec<Line> {
        let line = |name: &str, about, value, reach| Line { name: name.to_owned(), about, value: Some(value), reach };
        let ratio = over(Some(self.append_per_s), Some(self.by_hand_per_s)).unwrap_or_default();
        vec![
            line(
                "by_hand_per_s",
                "the same bytes by a set-based INSERT, 1,000 a transaction",
                self.by_hand_per_s,
                Reach::None,
            ),
            line(
                "append_per_s",
                "entries staged, integrated, and signed for",
                self.append_per_s,
                Reach::AtLeast(40_000.0),
            ),
            line("ratio_append", "the two, one over the other", ratio, Reach::AtLeast(0.3)),
            line("proof_ms_median", "an inclusion proof from the store", self.proof_ms_median, Reach::Below(1.0)),
            line("verify_ms", "checking a certificate of 20 confirmations", self.verify_ms, Reach::Below(5.0)),
            line(
                "w1_loss_percent",
                "what W1 loses by the sequencer beside it",
                self.w1_loss_percent,
                Reach::Below(15.0),
            ),
        ]
    }

    pub fn table(&self) -> String {
        let size = if self.quick { "quick, says nothing about speed" } else { "a log of 1,000,000 entries" };
        table(&format!("{size}; {}", self.machine.shown()), &self.lines())
    }

    pub fn write(&self, out: &Path) -> Result<(), Failure> {
        write(out, &self.lines(), self.quick, &self.machine, Vec::new())
    }
}

pub async fn ledger(w1: &W1, sizes: &Sizes, quick: bool) -> Result<LedgerResults, Failure> {
    let mut results = LedgerResults { quick, machine: w1.machine().await?, ..LedgerResults::default() };
    let deployment = Deployment::start(StoreKind::Postgres).await;
    crate::say("  a certificate of 20 confirmations");
    results.verify_ms = certificate(&deployment, w1, sizes).await?;

    crate::say("  appending");
    let url = std::fs::read_to_string(deployment.path("store-url"))?.trim().to_owned();
    let pool = Pool::open(&patient(url.clone()))?;
    let payload = confirmed_payload(&pool).await?;
    results.by_hand_per_s = by_hand(&pool, &payload, sizes.entries / 10).await?;
    results.append_per_s = append(&pool, &payload, sizes.entries).await?;

    crate::say("  proofs");
    let options = StoreOptions { connect: ConnectOptions::new(url), key_ring: deployment.data().join("keys") };
    let store = Store::open(&options).await?;
    results.proof_ms_median = proofs(&store).await?;
    store.close().await;
    pool.close().await;
    drop(deployment);

    crate::say("  W1 without and with the sequencer, in turns");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..sizes.rounds {
        for (roles, speeds) in [("api,worker", &mut without), ("api,worker,ledger", &mut with)] {
            let deployment = Deployment::start_with(StoreKind::Postgres, &[("QUITTANCED_ROLES", roles)]).await;
            speeds.push(erase_all(&deployment, w1, sizes, Erasure::Mask).await?.per_s);
        }
    }
    results.w1_loss_percent = (1.0 - median(with) / median(without)) * 100.0;
    Ok(results)
}

/// Milliseconds to check a real one, by its file and the log's key alone.
async fn certificate(deployment: &Deployment, w1: &W1, sizes: &Sizes) -> Result<f64, Failure> {
    w1.seed().await?;
    deployment.secret("w1", &w1.url);
    let operator = deployment.operator().await;
    create_customer(&operator, "acme").await;
    for n in 0..CONFIRMATIONS {
        let about = system("acme", v1::ConnectorKind::Sql, "w1", &map(Erasure::Mask, false));
        register(&operator, &format!("w1-{n}"), about).await?;
    }
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let request = create(&acme, by_email(v1::Action::Erasure, email(sizes.subjects / 2))).await?;
    let request = completed(&acme, &request.name).await;
    let ask = v1::GetCertificateRequest { name: request.name, document_language: String::new() };
    let until = Instant::now() + Duration::from_secs(30);
    let file = loop {
        match acme.evidence().get_certificate(ask.clone()).await {
            Ok(answer) => break answer.into_inner().certificate,
            Err(status) if Instant::now() > until => return Err(status.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let history = std::fs::read(deployment.data().join("ledger/keys/history.json"))?;
    let history: Vec<LogKey> = serde_json::from_slice(&history)?;
    let keys: Result<Vec<VerifierKey>, _> =
        history.iter().filter(|key| key.status != KeyStatus::Revoked).map(|key| key.vkey.parse()).collect();
    let policy = Policy::new(keys?, Vec::new(), 0)?;
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let begun = Instant::now();
        verify_certificate(&file, &policy)?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(times))
}

/// The entry of a real confirmation, as the service staged it.
async fn confirmed_payload(pool: &Pool) -> Result<Vec<u8>, Failure> {
    let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await?;
    let sql = "SELECT payload FROM ledger_entries WHERE kind = 'confirmed' ORDER BY length(payload) DESC LIMIT 1";
    Ok(tx.fetch_one(sql, Vec::new()).await?.ok_or("nothing was confirmed")?.bytes(0)?)
}

/// A chunk of entries, each with its own id, salt and leaf.
struct Chunk {
    salts: Vec<[u8; 32]>,
    leaves: Vec<Leaf>,
}

impl Chunk {
    fn new(payload: &[u8]) -> Self {
        let salts: Vec<[u8; 32]> = (0..CHUNK).map(|_| rand::rng().random()).collect();
        let leaves = salts.iter().map(|salt| Leaf::commit(salt, payload)).collect();
        Self { salts, leaves }
    }

    fn columns(&self, payload: &[u8]) -> Vec<Column> {
        vec![
            Column::uuids(self.salts.iter().map(|_| Uuid::now_v7())),
            Column::uuids(self.salts.iter().map(|_| Uuid::now_v7())),
            Column::texts(self.salts.iter().map(|_| "confirmed")),
            Column::bytes(self.salts.iter().map(|_| payload.to_vec())),
            Column::bytes(self.salts.iter().map(|salt| salt.to_vec())),
            Column::bytes(self.leaves.iter().map(|leaf| leaf.0.to_vec())),
        ]
    }
}

/// Where a chunk goes.
#[derive(Clone, Copy)]
enum Into {
    /// A table with the same bytes.
    ByHand,
    /// The log, by the statements of `services/store/src/ledger.rs`.
    Log,
}

fn parts(into: Into, payload: &[u8]) -> Vec<Part> {
    let chunk = Chunk::new(payload);
    let mut columns = chunk.columns(payload);
    let customer = || vec!["acme".into()];
    match into {
        Into::ByHand => vec![Part::new(
            "WITH v(entry_id, request_id, kind, payload, salt, leaf) AS ({rows})
             INSERT INTO by_hand (customer_id, entry_id, request_id, kind, payload, salt, leaf)
             SELECT $1, entry_id, request_id, kind, payload, salt, leaf FROM v",
            customer(),
            Rows::new(columns),
        )],
        Into::Log => {
            let batch = Uuid::now_v7();
            columns.push(Column::uuids(chunk.leaves.iter().map(|_| batch)));
            columns.push(Column::i64s((0..).take(chunk.leaves.len())));
            let leaves: Vec<u8> = chunk.leaves.iter().flat_map(|leaf| leaf.0).collect();
            vec![
                Part::new(
                    "WITH v(entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset) AS ({rows})
                     INSERT INTO ledger_entries
                       (customer_id, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset)
                     SELECT $1, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset FROM v",
                    customer(),
                    Rows::new(columns),
                ),
                Part::new(
                    "WITH v(batch_id, leaves) AS ({rows})
                     INSERT INTO ledger_batches (customer_id, batch_id, leaves) SELECT $1, batch_id, leaves FROM v",
                    customer(),
                    Rows::new(vec![Column::uuids([batch]), Column::bytes([leaves])]),
                ),
            ]
        }
    }
}

async fn insert(pool: &Pool, into: Into, payload: &[u8], chunks: u64) -> Result<(), Failure> {
    for _ in 0..chunks {
        let mut tx = pool.begin_with_settings("SET LOCAL quittance.customer_id = 'acme'").await?;
        tx.execute_together(parts(into, payload)).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn insert_by_all(pool: &Pool, into: Into, payload: &[u8], count: u64, clients: u64) -> Result<(), Failure> {
    let chunks = count / CHUNK / clients;
    futures::future::try_join_all((0..clients).map(|_| insert(pool, into, payload, chunks))).await?;
    Ok(())
}

/// The better of one client and several.
async fn by_hand(pool: &Pool, payload: &[u8], count: u64) -> Result<f64, Failure> {
    let mut best: f64 = 0.0;
    for clients in [1, CLIENTS] {
        pool.run_script(
            "DROP TABLE IF EXISTS by_hand;
             CREATE TABLE by_hand (customer_id text COLLATE \"C\", entry_id uuid, request_id uuid, kind text COLLATE \"C\", payload bytea,
               salt bytea, leaf bytea, PRIMARY KEY (customer_id, request_id, entry_id));",
        )
        .await?;
        let begun = Instant::now();
        insert_by_all(pool, Into::ByHand, payload, count, clients).await?;
        best = best.max(per_s(count, begun.elapsed()));
    }
    Ok(best)
}

/// Until a signed checkpoint covers the last of them.
async fn append(pool: &Pool, payload: &[u8], count: u64) -> Result<f64, Failure> {
    let covered = "SELECT checkpoint_size FROM ledger_log";
    let before = number(pool, covered).await?;
    let begun = Instant::now();
    insert_by_all(pool, Into::Log, payload, count, CLIENTS).await?;
    let staged = begun.elapsed();
    let until = before + i64::try_from(count)?;
    while number(pool, covered).await? < until {
        if begun.elapsed() > Duration::from_secs(600) {
            return Err("the log does not get on".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let signed = begun.elapsed();
    crate::say(&format!(
        "  staged after {:.2} s, signed for after {:.2} s",
        staged.as_secs_f64(),
        signed.as_secs_f64()
    ));
    Ok(per_s(count, signed))
}

/// Median milliseconds of one, made from what the store has, and each verified.
async fn proofs(store: &Store) -> Result<f64, Failure> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let head = store.log_state().await?.head;
        let index = rand::rng().random_range(0..head.size);
        let begun = Instant::now();
        let tiles = fetch(store, inclusion_tiles(index, head.size)?).await?;
        let hashes = inclusion(&tiles, index, head.size)?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        let tile = Tile::in_tree(TileKind::Hashes { level: 0 }, index / WIDTH, head.size).ok_or("no tile")?;
        let leaves = parse_hashes(&tile, tiles.get(&tile).ok_or("no tile")?)?;
        verify_inclusion(&head, index, &leaves[usize::try_from(index % WIDTH)?], &hashes)?;
    }
    Ok(median(times))
}
