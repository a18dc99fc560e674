//! A store with a log to write, without the service around it: entries are staged by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use quittance_domain::Timestamp;
use quittance_ledger::{
    Leaf,
    audit::check,
    checkpoint::{LogKeys, SignedHead},
    integrate::RightEdge,
    key::VerifierKey,
    tile::{Tile, TileSource, tiles_between},
    tree::{Frontier, MerkleHash},
};
use quittance_sequencer::{
    AuditKeys, EntryIndex, LogFiles, LogKeyRing, Now, Sequencer, SequencerOptions, Writes, fetch,
};
use quittance_sql::{Column, ConnectOptions, Pool, Rows, Tx, Val};
use quittance_store::{Store, StoreOptions};
use quittance_tests::{StoreKind, deployment::postgres_database};
use tempfile::TempDir;
use uuid::Uuid;

pub struct Bed {
    pub store: Store,
    pub folder: TempDir,
    pub keys: Arc<LogKeyRing>,
    raw: Pool,
    clock: Arc<AtomicI64>,
    sequencers: AtomicI64,
    /// Entries of one transaction.
    pub batch: u32,
}

impl Bed {
    pub async fn new(kind: StoreKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match kind {
            StoreKind::Sqlite => format!("sqlite:{}", folder.path().join("store.db").display()),
            StoreKind::Postgres => postgres_database().await,
        };
        let options =
            StoreOptions { connect: ConnectOptions::new(url.clone()), key_ring: folder.path().join("key-ring") };
        let store = Store::open(&options).await.unwrap();
        let raw = Pool::open(&ConnectOptions { connections_max: 4, ..ConnectOptions::new(url) }).unwrap();
        let keys = LogKeyRing::open(&folder.path().join("keys"), "log.example", None, Timestamp::UNIX_EPOCH).unwrap();
        store.begin_log("log.example").await.unwrap();
        let clock = Arc::new(AtomicI64::new(1_800_000_000));
        Self { store, folder, keys: Arc::new(keys), raw, clock, sequencers: AtomicI64::new(0), batch: 256 }
    }

    /// A new log, on the same keys.
    pub async fn clear(&self) {
        let mut tx = self.raw().await;
        tx.execute_script(
            "DELETE FROM ledger_entries; DELETE FROM ledger_batches; DELETE FROM ledger_tiles; DELETE FROM ledger_checkpoints;
             DELETE FROM ledger_log",
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        self.store.begin_log("log.example").await.unwrap();
        for path in [self.files().highest.parent().unwrap().to_owned(), self.public()] {
            if path.exists() {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }

    pub fn files(&self) -> LogFiles {
        let outside = self.folder.path().join("outside");
        let (highest, index) = (outside.join("checkpoint"), outside.join("entries"));
        LogFiles { highest, index, publish: Some(self.public()) }
    }

    pub fn public(&self) -> PathBuf {
        self.folder.path().join("public")
    }

    pub fn log(&self) -> LogKeys {
        self.keys.log_keys().unwrap()
    }

    /// A key that signs beside the others, in whatever sequencer is started from now on.
    pub fn add_key(&mut self) -> VerifierKey {
        let folder = self.folder.path().join("keys");
        let added = LogKeyRing::add(&folder, Timestamp::UNIX_EPOCH).unwrap();
        self.keys = Arc::new(LogKeyRing::open(&folder, "log.example", None, Timestamp::UNIX_EPOCH).unwrap());
        added
    }

    pub fn audit_keys(&self, witnesses: &[VerifierKey]) -> AuditKeys {
        AuditKeys { log: self.log(), ever: self.log(), witnesses: witnesses.to_vec() }
    }

    /// As a new process would have it.
    pub fn sequencer<W: Writes>(&self, writes: W) -> Sequencer<W> {
        self.sequencer_with(writes, self.files())
    }

    pub fn sequencer_with<W: Writes>(&self, writes: W, files: LogFiles) -> Sequencer<W> {
        let number = self.sequencers.fetch_add(1, Ordering::SeqCst);
        let options = SequencerOptions { batch: self.batch, ..SequencerOptions::new(format!("sequencer-{number}")) };
        Sequencer::with_writes(writes, self.store.clone(), self.now(), self.keys.clone(), files, options)
    }

    pub fn now(&self) -> Now {
        let clock = self.clock.clone();
        Arc::new(move || Timestamp::from_second(clock.load(Ordering::SeqCst)).unwrap())
    }

    /// Long enough for every lease to pass.
    pub fn an_hour_later(&self) {
        self.clock.fetch_add(3600, Ordering::SeqCst);
    }

    pub async fn raw(&self) -> Tx {
        self.raw.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap()
    }

    pub async fn stage(&self, count: usize) {
        let mut tx = self.raw().await;
        stage(&mut tx, count).await;
        tx.commit().await.unwrap();
    }

    pub async fn stage_together(&self, count: usize) {
        let mut tx = self.raw().await;
        stage_in_batches(&mut tx, count, count).await;
        tx.commit().await.unwrap();
    }

    /// Every entry by its place; those without one under `None`.
    pub async fn places(&self) -> Vec<(Option<u64>, Leaf)> {
        let sql = "SELECT b.first_index + e.batch_offset, e.leaf FROM ledger_entries e
                   JOIN ledger_batches b ON b.customer_id = e.customer_id AND b.batch_id = e.batch_id ORDER BY 1";
        let rows = self.raw().await.fetch(sql, Vec::<Val>::new()).await.unwrap();
        let place = |at: Option<i64>| at.map(|at| u64::try_from(at).unwrap());
        rows.iter()
            .map(|row| (place(row.opt_i64(0).unwrap()), Leaf(row.bytes(1).unwrap().try_into().unwrap())))
            .collect()
    }

    /// The request of every place.
    pub async fn requests(&self) -> Vec<(u64, Uuid)> {
        let sql = "SELECT b.first_index + e.batch_offset, e.request_id FROM ledger_entries e
                   JOIN ledger_batches b ON b.customer_id = e.customer_id AND b.batch_id = e.batch_id
                   WHERE b.first_index IS NOT NULL ORDER BY 1";
        let rows = self.raw().await.fetch(sql, Vec::<Val>::new()).await.unwrap();
        rows.iter().map(|row| (u64::try_from(row.i64(0).unwrap()).unwrap(), row.uuid(1).unwrap())).collect()
    }

    /// The same, as it is known outside the database.
    pub fn indexed(&self, places: Range<u64>) -> Vec<(u64, Uuid)> {
        let known = EntryIndex::new(self.files().index).read(&[places]).unwrap();
        known.iter().map(|entry| (entry.place, entry.request)).collect()
    }

    /// The published checkpoint, in the store and in the folder.
    pub async fn published(&self) -> [Option<SignedHead>; 2] {
        let row = self.store.log_state().await.unwrap().checkpoint.map(|c| c.note.into_bytes());
        let file = fs::read(self.public().join("checkpoint")).ok();
        [row, file].map(|note| note.map(|note| SignedHead::read(&note, &self.log()).unwrap()))
    }

    /// Every entry has exactly one place, every tile fits, and every note ever signed is of a beginning of this one log.
    pub async fn is_one_log_of(&self, entries: usize, signed: &BTreeSet<String>) {
        let places = self.places().await;
        let expected: Vec<Option<u64>> = (0..entries as u64).map(Some).collect();
        assert_eq!(places.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected, "no gap, and nothing twice");
        let mut frontier = Frontier::new();
        let mut roots = BTreeMap::from([(0, frontier.root())]);
        for (_, leaf) in &places {
            frontier.append(MerkleHash::of_leaf(leaf));
            roots.insert(frontier.size(), frontier.root());
        }
        for note in signed {
            let signed = SignedHead::read(note.as_bytes(), &self.log()).unwrap();
            assert_eq!(roots.get(&signed.head.size), Some(&signed.head.root), "no fork");
        }
        let head = frontier.head();
        assert_eq!(self.store.log_state().await.unwrap().head, head);
        let all: Vec<Tile> = tiles_between(0, head.size).collect();
        let stored = fetch(&self.store, all.iter().copied()).await.unwrap();
        is_whole(&stored, &all, &places, head.size);
        is_whole(&Folder(self.public()), &all, &places, head.size);
        RightEdge::load(&head, &stored).unwrap();
        for published in self.published().await {
            assert_eq!(published.unwrap().head, head, "the last of it is published");
        }
        let highest = SignedHead::read(&fs::read(self.files().highest).unwrap(), &self.log()).unwrap();
        assert_eq!(highest.head, head);
        assert_eq!(self.indexed(0..u64::MAX), self.requests().await, "whose entries they are is known outside");
    }
}

fn is_whole<S: TileSource>(source: &S, all: &[Tile], places: &[(Option<u64>, Leaf)], size: u64) {
    for tile in all {
        check(source, *tile, size).unwrap();
    }
    for (at, leaf) in places {
        let tile = Tile::in_tree(quittance_ledger::tile::TileKind::Entries, at.unwrap() / 256, size).unwrap();
        let bundle = source.read(tile).unwrap();
        let entry = usize::try_from(at.unwrap() % 256).unwrap() * 34;
        assert_eq!(bundle[entry + 2..entry + 34], leaf.0);
    }
}

struct Folder(PathBuf);

impl TileSource for Folder {
    type Error = std::io::Error;

    fn read(&self, tile: Tile) -> std::io::Result<Vec<u8>> {
        fs::read(Path::new(&self.0).join(tile.to_string()))
    }
}

/// Entries as the service stages them, of nobody's request; each a batch of its own, so that they are placed one by one.
pub async fn stage(tx: &mut Tx, count: usize) {
    stage_in_batches(tx, count, 1).await;
}

async fn stage_in_batches(tx: &mut Tx, count: usize, of: usize) {
    let all: Vec<_> = (0..count).map(|_| (Uuid::now_v7(), Uuid::new_v4())).collect();
    let salt = |id: &Uuid| [*id.as_bytes(), *id.as_bytes()].concat();
    let leaf = |id: &Uuid| Leaf::commit(&salt(id).try_into().unwrap(), b"{}").0.to_vec();
    let batches: Vec<_> = all.chunks(of).map(|batch| (Uuid::new_v4(), batch)).collect();
    let rows = Rows::new(vec![
        Column::uuids(all.iter().map(|(_, entry)| *entry)),
        Column::uuids(all.iter().map(|(request, _)| *request)),
        Column::bytes(all.iter().map(|(_, entry)| salt(entry))),
        Column::bytes(all.iter().map(|(_, entry)| leaf(entry))),
        Column::bytes(all.iter().map(|_| b"{}".to_vec())),
        Column::uuids(batches.iter().flat_map(|(id, batch)| batch.iter().map(|_| *id))),
        Column::i64s(batches.iter().flat_map(|(_, batch)| (0..).take(batch.len()))),
    ]);
    tx.execute_rows(
        "WITH v(entry_id, request_id, salt, leaf, payload, batch_id, batch_offset) AS ({rows})
         INSERT INTO ledger_entries (customer_id, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset)
         SELECT 'acme', entry_id, request_id, 'closed', payload, salt, leaf, batch_id, batch_offset FROM v WHERE true",
        vec![],
        rows,
    )
    .await
    .unwrap();
    let batches = Rows::new(vec![
        Column::uuids(batches.iter().map(|(id, _)| *id)),
        Column::bytes(batches.iter().map(|(_, batch)| batch.iter().flat_map(|(_, entry)| leaf(entry)).collect())),
    ]);
    tx.execute_rows(
        "WITH v(batch_id, leaves) AS ({rows})
         INSERT INTO ledger_batches (customer_id, batch_id, leaves) SELECT 'acme', batch_id, leaves FROM v WHERE true",
        vec![],
        batches,
    )
    .await
    .unwrap();
}
