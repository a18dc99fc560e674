//! The log as it is published: over HTTP and in a folder, after C2SP tlog-tiles; and witnessed, where that is asked for.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_client::Client;
use quittance_ledger::{
    certificate::{Certificate, KeyStatus},
    checkpoint::{LogKeys, SignedHead},
    key::VerifierKey,
    proof,
    tile::{Tile, TileKind, TileSource, tiles_between},
    tree::{MerkleHash, TreeHead},
};
use quittance_sql::{Column, ConnectOptions, Pool, Rows};
use quittance_tests::{
    Deployment, StoreKind,
    app_database::email,
    deployment::binary,
    port::Port,
    scenario::{acme_with_crm, by_email, certificate, completed, create},
    witness::{Manner, TestWitness},
};
use quittance_verify::{Fact, Gap, Policy, verify_certificate};
use tonic::Code;
use uuid::Uuid;

struct Got {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// As a program of no particular make would.
fn get(address: &str, method: &str, path: &str) -> Got {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned()));
    Got { status, headers: headers.collect(), body: answer[end + 4..].to_vec() }
}

fn keys(deployment: &Deployment) -> LogKeys {
    let printed = deployment.command().args(["ledger", "keys"]).output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    LogKeys::new(printed.lines().map(|line| line.parse().unwrap()).collect()).unwrap()
}

/// Entries of nobody, so that the log is worth looking at.
async fn stage(deployment: &Deployment, count: usize) {
    let pool = Pool::open(&ConnectOptions::new(deployment.store_url())).unwrap();
    let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
    let all: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    let salt = |id: &Uuid| [*id.as_bytes(), *id.as_bytes()].concat();
    let leaf = |id: &Uuid| quittance_ledger::Leaf::commit(&salt(id).try_into().unwrap(), b"{}").0.to_vec();
    let rows = Rows::new(vec![
        Column::uuids(all.iter().copied()),
        Column::bytes(all.iter().map(salt)),
        Column::bytes(all.iter().map(leaf)),
        Column::bytes(all.iter().map(|_| b"{}".to_vec())),
        Column::i64s((0..).take(count)),
    ]);
    let batch = Uuid::now_v7();
    let sql = "WITH v(id, salt, leaf, payload, batch_offset) AS ({rows})
               INSERT INTO ledger_entries (customer_id, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset)
               SELECT 'acme', id, id, 'closed', payload, salt, leaf, $1, batch_offset FROM v WHERE true";
    tx.execute_rows(sql, vec![batch.into()], rows).await.unwrap();
    let leaves: Vec<u8> = all.iter().flat_map(leaf).collect();
    let sql = "INSERT INTO ledger_batches (customer_id, batch_id, leaves) VALUES ('acme', $1, $2)";
    tx.execute(sql, vec![batch.into(), leaves.into()]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn until_published(folder: &Path, size: u64, keys: &LogKeys) -> SignedHead {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let note = fs::read(folder.join("checkpoint")).unwrap_or_default();
        match SignedHead::read(&note, keys) {
            Ok(signed) if signed.head.size == size => return signed,
            _ => assert!(Instant::now() < deadline, "{size} entries are not published"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn fsck(place: [&str; 2], key: &Path) -> std::process::Output {
    Command::new(binary("quittance"))
        .args(["ledger", "fsck", place[0], place[1], "--key", key.to_str().unwrap(), "--output", "json"])
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_and_checkpoint_are_served_and_published_as_the_specification_has_them() {
    let port = Port::hold();
    let address = port.address();
    let public = tempfile::tempdir().unwrap();
    let folder = public.path().join("log");
    let settings =
        [("QUITTANCED_LEDGER__LISTEN", address.as_str()), ("QUITTANCED_LEDGER__PUBLISH", folder.to_str().unwrap())];
    let mut deployment = Deployment::start_with(StoreKind::Sqlite, &settings).await;
    let keys = keys(&deployment);
    assert_eq!(get(&address, "GET", "/checkpoint").status, 404, "an empty log has none");
    stage(&deployment, 200).await;
    until_published(&folder, 200, &keys).await;
    stage(&deployment, 400).await;
    let signed = until_published(&folder, 600, &keys).await;

    let checkpoint = get(&address, "GET", "/checkpoint");
    assert_eq!((checkpoint.status, checkpoint.headers["content-type"].as_str()), (200, "text/plain; charset=utf-8"));
    assert_eq!(checkpoint.headers["cache-control"], "no-cache");
    assert_eq!(checkpoint.body, signed.note.to_string().into_bytes());
    // Every tile of this tree, also those of the smaller trees before it.
    for tile in tiles_between(0, 600).chain(tiles_between(0, 200)) {
        let got = get(&address, "GET", &format!("/{tile}"));
        assert_eq!((got.status, got.headers["content-type"].as_str()), (200, "application/octet-stream"), "{tile}");
        assert_eq!(got.headers["cache-control"], "public, max-age=31536000, immutable", "{tile}");
        let each = if tile.kind() == TileKind::Entries { 34 } else { 32 };
        assert_eq!(got.body.len(), usize::from(tile.width()) * each, "{tile}");
        assert_eq!(got.body, fs::read(folder.join(tile.to_string())).unwrap(), "{tile}: the folder has the same");
    }
    assert_eq!(get(&address, "HEAD", "/tile/0/000").body, b"");
    // What is not in the published tree, and what is no tile.
    let beyond = Tile::in_tree(TileKind::Hashes { level: 0 }, 2, 601).unwrap();
    for (path, status) in [
        (format!("/{beyond}"), 404),
        ("/tile/0/002".to_owned(), 404),
        ("/tile/0/003.p/1".to_owned(), 404),
        ("/tile/1/000".to_owned(), 404),
        ("/tile/5/000.p/1".to_owned(), 404),
        ("/tile/entries/x001/000".to_owned(), 404),
        ("/tile/0/0".to_owned(), 400),
        ("/tile/0/000.p/256".to_owned(), 400),
        ("/tile/data/000".to_owned(), 400),
        ("/tile/0/../../checkpoint".to_owned(), 400),
        ("/".to_owned(), 404),
        ("/keys".to_owned(), 404),
    ] {
        assert_eq!(get(&address, "GET", &path).status, status, "{path}");
    }
    assert_eq!(get(&address, "POST", "/checkpoint").status, 405);

    proofs_are_given_of_what_is_published(&deployment, &folder, &signed.head, &checkpoint.body).await;

    let key = public.path().join("log.vkey");
    fs::write(&key, keys.keys()[0].to_string()).unwrap();
    for place in [["--url", &format!("http://{address}")], ["--folder", folder.to_str().unwrap()]] {
        let whole = fsck(place, &key);
        assert_eq!(whole.status.code(), Some(0), "{}", String::from_utf8_lossy(&whole.stderr));
        let found: serde_json::Value = serde_json::from_slice(&whole.stdout).unwrap();
        assert_eq!((found["entries"].as_u64(), found["damaged_portions"].as_u64()), (Some(600), Some(0)));
    }
    // The service would repair its folder before anybody had looked.
    deployment.terminate().await;
    for (path, byte, index) in
        [("tile/entries/001", 34 * 3 + 9, 259), ("tile/0/000", 32 * 200, 200), ("tile/0/002.p/88", 5, 512)]
    {
        let path = folder.join(path);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[byte] ^= 1;
        for bad in [Some(bad), Some(good[1..].to_vec()), Some([&good[..], b"x"].concat()), None] {
            match &bad {
                Some(bad) => fs::write(&path, bad).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let damaged = fsck(["--folder", folder.to_str().unwrap()], &key);
            assert_eq!(damaged.status.code(), Some(1), "{}", path.display());
            let found: serde_json::Value = serde_json::from_slice(&damaged.stdout).unwrap();
            let first = found["first"]["index"].as_u64().unwrap();
            let altered = bad.is_some_and(|bad| bad.len() == good.len());
            assert_eq!(first, if altered { index } else { index / 256 * 256 }, "{}: {found}", path.display());
        }
        fs::write(&path, good).unwrap();
    }
}

/// However much there is to sign for, and not before there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_signed_every_second_at_most_and_only_while_there_is_news() {
    let public = tempfile::tempdir().unwrap();
    let folder = public.path().join("log");
    let settings = [("QUITTANCED_LEDGER__PUBLISH", folder.to_str().unwrap())];
    let deployment = Deployment::start_with(StoreKind::Sqlite, &settings).await;
    let keys = keys(&deployment);
    let mut seen: Vec<(u64, Instant)> = Vec::new();
    let mut staged = 0;
    while seen.len() < 5 {
        stage(&deployment, 1).await;
        staged += 1;
        let note = fs::read(folder.join("checkpoint")).unwrap_or_default();
        if let Ok(signed) = SignedHead::read(&note, &keys)
            && seen.last().is_none_or(|(size, _)| *size != signed.head.size)
        {
            seen.push((signed.head.size, Instant::now()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The first may have been seen late, by less than the next one came.
    let passed = seen[4].1 - seen[0].1;
    assert!(passed > Duration::from_millis(2900), "five checkpoints within {passed:?}: {seen:?}");
    let last = until_published(&folder, staged, &keys).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let note = fs::read(folder.join("checkpoint")).unwrap();
    assert_eq!(note, last.note.to_string().into_bytes(), "nothing came, and nothing was signed");
}

/// The tiles of the largest tree hold those of the smaller ones.
struct Folder<'a> {
    folder: &'a Path,
    size: u64,
}

impl TileSource for Folder<'_> {
    type Error = std::io::Error;

    fn read(&self, tile: Tile) -> std::io::Result<Vec<u8>> {
        let widest = Tile::in_tree(tile.kind(), tile.index(), self.size).unwrap();
        let mut hashes = fs::read(self.folder.join(widest.to_string()))?;
        hashes.truncate(usize::from(tile.width()) * 32);
        Ok(hashes)
    }
}

async fn proofs_are_given_of_what_is_published(deployment: &Deployment, folder: &Path, head: &TreeHead, note: &[u8]) {
    let token = deployment.customer_token("acme");
    let mut evidence = deployment.client(&token).await.evidence();
    let hashes = |proof: &[Vec<u8>]| -> Vec<MerkleHash> {
        proof.iter().map(|hash| MerkleHash(hash.as_slice().try_into().unwrap())).collect()
    };
    let published = Folder { folder, size: head.size };
    let root = |size| TreeHead { size, root: proof::root(&published, size).unwrap() };
    assert_eq!(root(head.size), *head);
    let leaves = fs::read(folder.join("tile/0/001")).unwrap();
    let leaf = |index: usize| MerkleHash(leaves[(index - 256) * 32..][..32].try_into().unwrap());
    for (log_index, tree_size) in [(300, 0), (300, 600), (300, 301), (511, 550)] {
        let got = evidence.get_inclusion_proof(v1::GetInclusionProofRequest { log_index, tree_size }).await.unwrap();
        let got = got.into_inner();
        let size = if tree_size == 0 { 600 } else { tree_size };
        assert_eq!((got.tree_size, got.checkpoint.as_bytes()), (size, note));
        let (index, leaf) = (log_index as u64, leaf(log_index as usize));
        proof::verify_inclusion(&root(size as u64), index, &leaf, &hashes(&got.hashes)).unwrap();
    }
    for (old_tree_size, tree_size) in [(200, 0), (200, 600), (256, 257), (0, 600), (600, 600)] {
        let asked = v1::GetConsistencyProofRequest { old_tree_size, tree_size };
        let got = evidence.get_consistency_proof(asked).await.unwrap().into_inner();
        let (old, new) = (root(old_tree_size as u64), root(got.tree_size as u64));
        proof::verify_consistency(&old, &new, &hashes(&got.hashes)).unwrap();
    }
    for (log_index, tree_size, code) in [
        (600, 0, Code::OutOfRange),
        (300, 300, Code::OutOfRange),
        (300, 601, Code::OutOfRange),
        (300, i64::MAX, Code::OutOfRange),
        (-1, 0, Code::InvalidArgument),
        (0, -1, Code::InvalidArgument),
    ] {
        let asked = v1::GetInclusionProofRequest { log_index, tree_size };
        assert_eq!(evidence.get_inclusion_proof(asked).await.unwrap_err().code(), code, "{log_index} of {tree_size}");
    }
    for (old_tree_size, tree_size) in [(601, 0), (400, 300), (1, 601)] {
        let asked = v1::GetConsistencyProofRequest { old_tree_size, tree_size };
        let refused = evidence.get_consistency_proof(asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{old_tree_size} and {tree_size}: {refused}");
    }
}

const A_LOGS_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

/// A witness that is there before the deployment whose log it witnesses: it is told of that by `know`.
async fn witness(name: &str, seed: u8, manner: Manner) -> TestWitness {
    let log = LogKeys::new(vec![A_LOGS_KEY.parse().unwrap()]).unwrap();
    TestWitness::start(&format!("witness.example/{name}"), seed, log, manner).await
}

/// The configuration of who asks it.
fn asking(witness: &TestWitness, required: usize) -> String {
    let (url, key) = (witness.url(), witness.key());
    format!("[ledger]\nwitnesses_required = {required}\n[[ledger.witness]]\nurl = \"{url}\"\nvkey = \"{key}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_bears_the_times_of_the_required_witness() {
    let witness = witness("w", 9, Manner::Status(500)).await;
    let toml = asking(&witness, 1);
    let deployment = Deployment::start_configured(StoreKind::Sqlite, &[], &toml).await;
    let keys = keys(&deployment);
    witness.know(keys.clone());
    let _crm = acme_with_crm(&deployment, 5).await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let name = create(&acme, by_email(v1::Action::Erasure, email(1))).await.unwrap().name;
    completed(&acme, &name).await;
    let ask = v1::GetCertificateRequest { name: name.clone(), document_language: String::new() };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waits = acme.evidence().get_certificate(ask).await.unwrap_err();
    assert_eq!(waits.code(), tonic::Code::FailedPrecondition, "it waits for the witness: {waits}");
    witness.behave(Manner::Faithful);
    let file = certificate(&acme, &name, "").await.certificate;
    let policy = Policy::new(keys.keys().to_vec(), vec![witness.key()], 1).unwrap();
    let report = verify_certificate(&file, &policy).unwrap();
    let entries = &report.certificate.entries;
    assert!(entries.iter().all(|entry| entry.attested.len() == 1 && entry.attested[0].by == "witness.example/w"));
    assert_eq!(report.certificate.log.witnesses[0].vkey, witness.key().to_string());
    let received = &report.certificate.statement.dates.received;
    assert!(received.attested.is_some(), "the witness's time stands beside ours");
}

/// Whose signature counts is said by today's configuration: where others had signed, the one that is required now is waited for. It signs
/// what stands, and needs no new entry for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_takes_anothers_place_signs_before_a_certificate_is_issued() {
    let before = witness("before", 9, Manner::Faithful).await;
    let after = witness("after", 10, Manner::Status(500)).await;
    let mut deployment = Deployment::start_configured(StoreKind::Sqlite, &[], &asking(&before, 1)).await;
    let keys = keys(&deployment);
    before.know(keys.clone());
    after.know(keys.clone());
    let _crm = acme_with_crm(&deployment, 5).await;
    let token = deployment.customer_token("acme");
    let acme = deployment.client(&token).await;
    let name = create(&acme, by_email(v1::Action::Erasure, email(1))).await.unwrap().name;
    completed(&acme, &name).await;
    let size = until_cosigned(&deployment).await as u64;
    deployment.terminate().await;
    fs::write(deployment.path("quittanced.toml"), asking(&after, 1)).unwrap();
    deployment.launch().await;
    let acme = deployment.client(&token).await;
    let ask = || v1::GetCertificateRequest { name: name.clone(), document_language: String::new() };
    let asked = Instant::now();
    while !after.answered().contains(&500) {
        assert!(asked.elapsed() < Duration::from_secs(20), "it is asked about what stands");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let waits = acme.evidence().get_certificate(ask()).await.unwrap_err();
    assert_eq!(waits.code(), tonic::Code::FailedPrecondition, "the other's signature is not enough: {waits}");
    after.behave(Manner::Faithful);
    let file = certificate(&acme, &name, "").await.certificate;
    let policy = Policy::new(keys.keys().to_vec(), vec![after.key()], 1).unwrap();
    let report = verify_certificate(&file, &policy).unwrap();
    let of_that_size = |fact: &Fact| matches!(fact, Fact::Head { size: head, .. } if *head == size);
    assert!(report.checked.iter().any(of_that_size), "{:?}", report.checked);
}

/// Until every entry is under a checkpoint that the witness has signed.
async fn until_cosigned(deployment: &Deployment) -> i64 {
    let pool =
        Pool::open(&ConnectOptions { connections_max: 1, ..ConnectOptions::new(deployment.store_url()) }).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut tx = pool.begin_with_settings("SET LOCAL quittance.scope = 'deployment'").await.unwrap();
        let sql = "SELECT (SELECT count(*) FROM ledger_entries), (SELECT coalesce(max(tree_size), 0) FROM ledger_checkpoints)";
        let row = tx.fetch_one(sql, vec![]).await.unwrap().unwrap();
        let (entries, covered) = (row.i64(0).unwrap(), row.i64(1).unwrap());
        drop(tx);
        if entries == covered {
            pool.close().await;
            return covered;
        }
        assert!(Instant::now() < deadline, "{covered} of {entries} entries are cosigned");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asked for years later, from other processes, after the log has grown and its key was replaced: the witness's time is that of completion,
/// and today's key alone is enough to check it.
async fn a_certificate_bears_the_witness_time_of_completion(store: StoreKind) {
    let witness = witness("w", 9, Manner::Faithful).await;
    let toml = asking(&witness, 0);
    let mut deployment = Deployment::start_configured(store, &[], &toml).await;
    witness.know(keys(&deployment));
    let _crm = acme_with_crm(&deployment, 9).await;
    let token = deployment.customer_token("acme");
    let mut sizes = Vec::new();
    let mut names = Vec::new();
    for (person, command) in [(1, None), (2, None), (3, Some("add-key")), (4, Some("retire-keys")), (5, None)] {
        if let Some(command) = command {
            deployment.terminate().await;
            let done = deployment.command().args(["ledger", command]).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            witness.know(keys(&deployment));
            deployment.launch().await;
        }
        let acme = deployment.client(&token).await;
        let name = create(&acme, by_email(v1::Action::Erasure, email(person))).await.unwrap().name;
        completed(&acme, &name).await;
        sizes.push(until_cosigned(&deployment).await as u64);
        names.push(name);
    }
    let acme = deployment.client(&token).await;
    let newest = keys(&deployment).keys().last().cloned().unwrap();
    let policy = Policy::new(vec![newest], vec![witness.key()], 1).unwrap();
    let mut times = Vec::new();
    for (name, size) in names.iter().zip(&sizes) {
        let file = certificate(&acme, name, "").await.certificate;
        let report = verify_certificate(&file, &policy).unwrap();
        let heads: Vec<u64> = report
            .checked
            .iter()
            .filter_map(|fact| match fact {
                Fact::Head { size, .. } => Some(*size),
                _ => None,
            })
            .collect();
        assert_eq!(heads, [*size], "of all that came later nothing moves it");
        let completed = report.certificate.statement.dates.completed.unwrap();
        times.push(completed.attested.unwrap().at);
    }
    assert!(times.is_sorted_by(|a, b| a < b), "each bears the time of its own completion: {times:?}");
}

/// The store is not believed: where what was kept is damaged, the newest checkpoint proves the certificate, and its time is a later one.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_checkpoint_that_is_damaged_keeps_no_certificate_back() {
    let witness = witness("w", 9, Manner::Faithful).await;
    let toml = asking(&witness, 0);
    let deployment = Deployment::start_configured(StoreKind::Sqlite, &[], &toml).await;
    witness.know(keys(&deployment));
    let _crm = acme_with_crm(&deployment, 9).await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let mut sizes = Vec::new();
    let mut names = Vec::new();
    for person in 1..=5 {
        let name = create(&acme, by_email(v1::Action::Erasure, email(person))).await.unwrap().name;
        completed(&acme, &name).await;
        sizes.push(until_cosigned(&deployment).await);
        names.push(name);
    }
    let newest = *sizes.last().unwrap();
    let [first, second, third] = [sizes[0], sizes[1], sizes[2]];
    let damages = [
        format!("UPDATE ledger_checkpoints SET note = 'nonsense' WHERE tree_size = {first}"),
        // A good note of this log, of another size than its row says.
        format!(
            "UPDATE ledger_checkpoints SET note = (SELECT note FROM ledger_checkpoints WHERE tree_size = {newest})
             WHERE tree_size = {second}"
        ),
        // A good note with a cosignature that is none.
        format!(
            "UPDATE ledger_checkpoints SET note = substr(note, 1, length(note) - 5) || 'AAAA' || char(10)
             WHERE tree_size = {third}"
        ),
    ];
    let options = ConnectOptions { connections_max: 1, ..ConnectOptions::new(deployment.store_url()) };
    let pool = Pool::open(&options).unwrap();
    let policy = Policy::new(keys(&deployment).keys().to_vec(), vec![witness.key()], 1).unwrap();
    for (name, damage) in names.iter().zip(damages) {
        pool.run_script(&damage).await.unwrap();
        let file = certificate(&acme, name, "").await.certificate;
        let report = verify_certificate(&file, &policy).unwrap();
        let of_newest = |fact: &Fact| matches!(fact, Fact::Head { size, .. } if *size == newest as u64);
        assert!(report.checked.iter().any(of_newest), "{damage}");
    }
    pool.close().await;
    assert!(deployment.log().contains("is none of this log"), "and it is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_certificate_bears_the_witness_time_of_completion() {
    a_certificate_bears_the_witness_time_of_completion(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_certificate_bears_the_witness_time_of_completion() {
    a_certificate_bears_the_witness_time_of_completion(StoreKind::Postgres).await;
}

/// Optional witnesses that never answer hold a certificate up for a moment, and not for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_not_required_and_silent_keeps_no_certificate_back() {
    let witness = witness("w", 9, Manner::Silent).await;
    let toml = asking(&witness, 0);
    let deployment = Deployment::start_configured(StoreKind::Sqlite, &[], &toml).await;
    let _crm = acme_with_crm(&deployment, 5).await;
    let acme = deployment.client(&deployment.customer_token("acme")).await;
    let name = create(&acme, by_email(v1::Action::Erasure, email(1))).await.unwrap().name;
    completed(&acme, &name).await;
    let file = certificate(&acme, &name, "").await.certificate;
    let policy = Policy::new(keys(&deployment).keys().to_vec(), Vec::new(), 0).unwrap();
    let report = verify_certificate(&file, &policy).unwrap();
    assert!(report.certificate.entries.iter().all(|entry| entry.attested.is_empty()));
}

#[tokio::test]
async fn witnesses_that_cannot_be_are_refused_at_the_start() {
    let key = TestWitness::key_of("witness.example/w", 9);
    let one = |vkey: &str| format!("[[ledger.witness]]\nurl = \"http://127.0.0.1:1\"\nvkey = \"{vkey}\"\n");
    for (toml, told) in [
        (
            format!("[ledger]\nwitnesses_required = 2\n{}", one(&key.to_string())),
            "2 witnesses are required, and only 1",
        ),
        (one(A_LOGS_KEY), "not one for cosignatures"),
        (one("nonsense"), "not a verifier key"),
        (format!("{0}{0}", one(&key.to_string())), "the same public key"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("quittanced.toml");
        fs::write(&config, toml).unwrap();
        let ended = Command::new(binary("quittanced"))
            .args(["--config", config.to_str().unwrap(), "--listen", "127.0.0.1:0"])
            .args(["--data-dir", folder.path().join("data").to_str().unwrap()])
            .output()
            .unwrap();
        assert!(!ended.status.success());
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains(told), "{told}: {said}");
    }
}

/// The key was stolen. A newer one signs what stands, also without a new entry; after that nothing rests on the old one: not what the log says
/// of itself, no certificate, no witness's time.
async fn a_revoked_key_is_not_believed_and_what_it_certified_is_certified_anew(store: StoreKind) {
    let witness = witness("w", 9, Manner::Faithful).await;
    let toml = asking(&witness, 0);
    let public = tempfile::tempdir().unwrap();
    let folder = public.path().join("log");
    let settings = [("QUITTANCED_LEDGER__PUBLISH", folder.to_str().unwrap())];
    let mut deployment = Deployment::start_configured(store, &settings, &toml).await;
    witness.know(keys(&deployment));
    let _crm = acme_with_crm(&deployment, 9).await;
    let token = deployment.customer_token("acme");
    let acme = deployment.client(&token).await;
    let erased = async |client: &Client, person| {
        let name = create(client, by_email(v1::Action::Erasure, email(person))).await.unwrap().name;
        completed(client, &name).await;
        name
    };
    let certified = async |client: &Client, name: &str| certificate(client, name, "").await.certificate;
    let (asked, size) = (erased(&acme, 1).await, until_cosigned(&deployment).await);
    let before = certified(&acme, &asked).await;
    let unasked = erased(&acme, 2).await;
    let newest = until_cosigned(&deployment).await as u64;

    let ledger = |deployment: &Deployment, args: &[&str]| {
        let ran = deployment.command().arg("ledger").args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (ran.status.success(), text(ran.stdout), text(ran.stderr))
    };
    let refused = |deployment: &Deployment, id: &str, why: &str| {
        let (done, _, told) = ledger(deployment, &["revoke-key", id]);
        assert!(!done && told.contains(why), "{why}: {told}");
    };
    // SQLite is one process; the log in PostgreSQL is written meanwhile.
    let stops = store == StoreKind::Sqlite;
    let old = keys(&deployment).keys()[0].clone();
    let id = old.id().to_string();
    if stops {
        deployment.terminate().await;
    }
    refused(&deployment, &id, "ledger add-key");
    refused(&deployment, "0000000a", "ledger keys");
    refused(&deployment, &old.to_string(), "eight hexadecimal digits");
    assert!(ledger(&deployment, &["add-key"]).0);
    refused(&deployment, &id, "start every quittanced again");
    let new = keys(&deployment).keys()[1].clone();
    refused(&deployment, &new.id().to_string(), "ledger add-key");
    witness.know(keys(&deployment));
    if !stops {
        deployment.terminate().await;
    }
    deployment.launch().await;
    let left = LogKeys::new(vec![new.clone()]).unwrap();
    until_published(&folder, newest, &left).await;
    if stops {
        deployment.terminate().await;
    }
    for _ in 0..2 {
        let (done, printed, told) = ledger(&deployment, &["revoke-key", &id]);
        assert!(done, "{told}");
        assert_eq!(printed.lines().collect::<Vec<_>>(), [new.to_string()]);
    }
    assert!(!deployment.data().join("ledger/keys/1.key").exists(), "nobody signs with it again");
    witness.know(left.clone());
    if !stops {
        deployment.terminate().await;
    }
    deployment.launch().await;

    let acme = deployment.client(&token).await;
    let trusting = |keys: &[&VerifierKey]| {
        Policy::new(keys.iter().map(|key| (*key).clone()).collect(), vec![witness.key()], 1).unwrap()
    };
    let after = certified(&acme, &asked).await;
    let report = verify_certificate(&after, &trusting(&[&new])).unwrap();
    let history = &report.certificate.log.keys;
    assert_eq!(history.iter().map(|key| key.status).collect::<Vec<_>>(), [KeyStatus::Revoked, KeyStatus::Current]);
    assert!(history[0].to.is_some_and(|to| to <= report.certificate.issued.at));
    assert!(report.checked.contains(&Fact::Head { size: size as u64, key: new.id() }), "in the checkpoint of that day");
    let was = verify_certificate(&before, &trusting(&[&old])).unwrap().certificate;
    let completed_at = |certificate: &Certificate| certificate.statement.dates.completed.clone().unwrap();
    assert_eq!(completed_at(&report.certificate), completed_at(&was), "the witness's time stands");
    assert!(verify_certificate(&before, &trusting(&[&new])).is_err());
    let both = verify_certificate(&after, &trusting(&[&old, &new])).unwrap();
    assert!(both.unchecked.contains(&Gap::RevokedKey(old.id())));
    assert!(certified(&acme, &asked).await == after, "and then it is the same again");
    verify_certificate(&certified(&acme, &unasked).await, &trusting(&[&new])).unwrap();
    let next = erased(&acme, 3).await;
    let grown = until_cosigned(&deployment).await as u64;
    let by = until_published(&folder, grown, &left).await.note;
    assert!(by.signatures().iter().all(|signature| signature.id() != old.id()), "it does not sign any more");
    verify_certificate(&certified(&acme, &next).await, &trusting(&[&new])).unwrap();
    // What was kept under the old key alone is still of this log.
    if stops {
        deployment.terminate().await;
    }
    let (whole, found, told) = ledger(&deployment, &["fsck"]);
    assert!(whole, "{found}{told}");
    assert!(!deployment.log().contains("not written any more"), "{}", deployment.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_revoked_key_is_not_believed_and_what_it_certified_is_certified_anew() {
    a_revoked_key_is_not_believed_and_what_it_certified_is_certified_anew(StoreKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_a_revoked_key_is_not_believed_and_what_it_certified_is_certified_anew() {
    a_revoked_key_is_not_believed_and_what_it_certified_is_certified_anew(StoreKind::Postgres).await;
}
