//! Our log is checked by somebody else's software in another language, and theirs by ours (`tests/interop/tlog`, in Go).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
    time::{Duration, Instant},
};

use quittance_api::v1;
use quittance_ledger::{
    Leaf,
    checkpoint::{self, Checkpoint, LogKeys},
    cosignature::cosign,
    integrate::{RightEdge, integrate},
    key::{KeyType, SignerKey, VerifierKey},
    note::SignedNote,
    proof::{consistency, inclusion},
    tile::{Tile, TileSource, tiles_between},
    tlog_proof::TlogProof,
    tree::{Frontier, MerkleHash},
};
use quittance_tests::{
    Deployment, StoreKind,
    app_database::email,
    scenario::{acme_with_crm, by_email, certificate, completed, create},
};
use serde_json::Value;

const ORIGIN: &str = "ledger.example/log";

/// Built once, under target/.
static VERIFIER: LazyLock<PathBuf> = LazyLock::new(|| {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/tlog");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-tlog");
    let build = Command::new("go").arg("build").arg("-o").arg(&binary).arg(".").current_dir(module).output();
    let build = build.unwrap_or_else(|error| {
        panic!("`go` cannot be run ({error}): install a Go toolchain of at least 1.26 (https://go.dev/doc/install)")
    });
    assert!(build.status.success(), "go build: {}", String::from_utf8_lossy(&build.stderr));
    binary
});

fn go(command: &str, folder: &Path) -> Output {
    Command::new(&*VERIFIER).arg(command).arg(folder).output().unwrap()
}

/// Tiles in a folder, as a static site would serve them.
struct Folder<'a>(&'a Path);

impl TileSource for Folder<'_> {
    type Error = std::io::Error;

    fn read(&self, tile: Tile) -> std::io::Result<Vec<u8>> {
        fs::read(self.0.join(tile.to_string()))
    }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn signer(name: &str, key_type: KeyType, seed: u8) -> SignerKey {
    SignerKey::from_seed(name.parse().unwrap(), key_type, &[seed; 32]).unwrap()
}

fn leaf(index: u64) -> Leaf {
    Leaf(MerkleHash::of_entry(&index.to_le_bytes()).0)
}

fn lines(hashes: &[MerkleHash]) -> String {
    hashes.iter().map(|hash| format!("{hash}\n")).collect()
}

/// A log that grew to each of these sizes and signed a checkpoint there, with proofs between and into them.
fn write_log(folder: &Path, sizes: &[u64]) {
    let log = signer(ORIGIN, KeyType::Ed25519, 1);
    let witnesses = [2, 3].map(|n| signer(&format!("witness.example/w{n}"), KeyType::CosignatureV1, n));
    write(&folder.join("log.vkey"), format!("{}\n", log.verifier()));
    write(&folder.join("witnesses.vkey"), witnesses.each_ref().map(|w| format!("{}\n", w.verifier())).concat());

    let source = Folder(folder);
    let mut edge = RightEdge::empty();
    let mut checkpoints: BTreeMap<u64, SignedNote> = BTreeMap::new();
    for size in sizes {
        let leaves: Vec<Leaf> = (edge.head().size..*size).map(leaf).collect();
        let (next, tiles) = integrate(&edge, &leaves).unwrap();
        for tile in tiles {
            write(&folder.join(tile.tile.to_string()), tile.bytes);
        }
        // What a restart would do.
        edge = RightEdge::load(&next.head(), &source).unwrap();
        assert_eq!(edge, next);

        let checkpoint = Checkpoint::new(ORIGIN, edge.head()).unwrap();
        let mut note = checkpoint.sign(&[&log]).unwrap();
        for (witness, at_s) in witnesses.iter().zip(1_790_000_000..) {
            note.add(cosign(witness, &checkpoint, at_s).unwrap()).unwrap();
        }
        write(&folder.join(format!("checkpoints/{size}")), note.to_string());
        for old in checkpoints.keys() {
            let hashes = consistency(&source, *old, *size).unwrap();
            write(&folder.join(format!("consistency/{old}-{size}")), lines(&hashes));
        }
        for index in [0, size / 3, size / 2, size - 1] {
            let hashes = inclusion(&source, index, *size).unwrap();
            write(&folder.join(format!("inclusion/{size}-{index}")), lines(&hashes));
            let proof = TlogProof { extra: None, index, hashes, checkpoint: note.clone() };
            write(&folder.join(format!("proofs/{index}.tlog-proof")), proof.to_string());
        }
        checkpoints.insert(*size, note);
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn an_independent_implementation_verifies_checkpoints_tiles_and_all_three_kinds_of_proofs() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = [1, 2, 3, 255, 256, 257, 600, 66_000];
    write_log(folder.path(), &sizes);
    let output = go("verify", folder.path());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let count = |what: &str| said.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("ok checkpoints"), count("ok tiles"), count("ok consistency")), (8, 8, 28), "{said}");
    for kind in ["inclusion", "proofs"] {
        assert_eq!(count(&format!("ok {kind}")), files(&folder.path().join(kind)).len(), "{said}");
    }
}

#[test]
fn the_independent_implementation_refuses_our_log_when_any_file_of_it_is_altered() {
    let folder = tempfile::tempdir().unwrap();
    write_log(folder.path(), &[3, 300]);
    assert!(go("verify", folder.path()).status.success());
    for path in files(folder.path()) {
        let good = fs::read(&path).unwrap();
        let text = good.is_ascii() || str::from_utf8(&good).is_ok();
        let step = if text { 29 } else { good.len() / 4 + 1 };
        let flipped = (0..good.len()).step_by(step).chain(good.len().checked_sub(2)).map(|at| {
            let mut bad = good.clone();
            bad[at] ^= 1;
            bad
        });
        let cut = good.len().checked_sub(1).map(|end| good[..end].to_vec());
        let longer = [&good[..], b"A"].concat();
        // Go reads keys without their last newline, and hashes too.
        let lenient = ["vkey", "inclusion", "consistency"].iter().any(|part| path.to_string_lossy().contains(part));
        for bad in flipped.chain(cut.filter(|_| !lenient)).chain([longer]) {
            fs::write(&path, &bad).unwrap();
            let output = go("verify", folder.path());
            assert_eq!(output.status.code(), Some(1), "{}", path.display());
            assert!(String::from_utf8(output.stdout).unwrap().contains("FAULT"));
        }
        fs::write(&path, good).unwrap();
    }
    assert!(go("verify", folder.path()).status.success());
}

#[test]
fn we_verify_keys_notes_tiles_and_offline_proofs_that_the_independent_implementation_made() {
    let folder = tempfile::tempdir().unwrap();
    let output = go("write", folder.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let entry = |index: u64| index.to_be_bytes();

    let log: VerifierKey = read("log.vkey").parse().unwrap();
    let private = read("log.skey");
    let signer = SignerKey::decode(&private).unwrap();
    assert_eq!(signer.verifier(), &log);
    assert_eq!(*signer.encode(), private);
    let log = LogKeys::new(vec![log]).unwrap();
    let witnesses = [read("witnesses.vkey").parse().unwrap()];

    let note = SignedNote::parse(read("checkpoint").as_bytes()).unwrap();
    let verified = checkpoint::verify(&note, &log, &witnesses).unwrap();
    assert_eq!(verified.cosignatures.len(), 1);
    let head = verified.checkpoint.head();
    let mut frontier = Frontier::new();
    (0..head.size).for_each(|index| frontier.append(MerkleHash::of_entry(&entry(index))));
    assert_eq!(&frontier.head(), head);

    let source = Folder(folder.path());
    for index in 0..head.size {
        let text = read(&format!("proofs/{index}.tlog-proof"));
        let proof = TlogProof::parse(text.as_bytes()).unwrap();
        assert_eq!(proof.to_string(), text);
        let verified = proof.verify(&MerkleHash::of_entry(&entry(index)), &log, &witnesses).unwrap();
        assert_eq!(verified.cosignatures.len(), 1);
        assert_eq!(inclusion(&source, index, head.size).unwrap(), proof.hashes);
        assert!(proof.verify(&MerkleHash::of_entry(&entry(index + 1)), &log, &witnesses).is_err());
    }
    let written: Vec<Tile> = files(&folder.path().join("tile"))
        .iter()
        .map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    // The program writes no bundles.
    let mut expected: Vec<Tile> =
        tiles_between(0, head.size).filter(|tile| !tile.to_string().contains("entries")).collect();
    expected.sort_unstable_by_key(ToString::to_string);
    assert_eq!(written, expected);
}

/// The folder that the service publishes, as it is; the proofs that it answers over the API; and those of a customer's certificate.
#[tokio::test(flavor = "multi_thread")]
async fn an_independent_implementation_verifies_what_the_running_service_publishes_and_certifies() {
    let public = tempfile::tempdir().unwrap();
    let folder = public.path();
    let deployment =
        Deployment::start_with(StoreKind::Sqlite, &[("QUITTANCED_LEDGER__PUBLISH", folder.to_str().unwrap())]).await;
    let _crm = acme_with_crm(&deployment, 20).await;
    let token = deployment.customer_token("acme");
    let acme = deployment.client(&token).await;
    write(&folder.join("log.vkey"), deployment.command().args(["ledger", "keys"]).output().unwrap().stdout);
    write(&folder.join("witnesses.vkey"), "");

    let hashes = |proof: &[Vec<u8>]| -> String {
        proof.iter().map(|hash| format!("{}\n", MerkleHash(hash.as_slice().try_into().unwrap()))).collect()
    };
    let mut sizes: Vec<i64> = Vec::new();
    let mut of_certificates = 0;
    for person in 0..3 {
        let name = create(&acme, by_email(v1::Action::Erasure, email(person))).await.unwrap().name;
        completed(&acme, &name).await;
        let file = certificate(&acme, &name, "").await.certificate;
        let file: Value = serde_json::from_slice(&file).unwrap();
        for entry in file["certificate"]["entries"].as_array().unwrap() {
            // As docs/ledger.md says: the proof as it stands, and the entry that salt and payload make.
            let text = entry["proof"].as_str().unwrap();
            let salt = hex(entry["salt"].as_str().unwrap());
            let made = Leaf::commit(&salt, entry["payload"].as_str().unwrap().as_bytes());
            assert_eq!(made.0, hex(entry["leaf"].as_str().unwrap()));
            let proof = TlogProof::parse(text.as_bytes()).unwrap();
            write(&folder.join(format!("proofs/{}.tlog-proof", proof.index)), text);
            write(&folder.join(format!("entries/{}", proof.index)), made.0);
            of_certificates += 1;
        }
        let asked = v1::GetInclusionProofRequest { log_index: 1, tree_size: 0 };
        let answer = acme.evidence().get_inclusion_proof(asked).await.unwrap().into_inner();
        let size = answer.tree_size;
        write(&folder.join(format!("inclusion/{size}-1")), hashes(&answer.hashes));
        write(&folder.join(format!("checkpoints/{size}")), &answer.checkpoint);
        for old in &sizes {
            let asked = v1::GetConsistencyProofRequest { old_tree_size: *old, tree_size: size };
            let answer = acme.evidence().get_consistency_proof(asked).await.unwrap().into_inner();
            write(&folder.join(format!("consistency/{old}-{size}")), hashes(&answer.hashes));
        }
        sizes.push(size);
    }
    // The checkpoint of the folder itself, once it has caught up with what was answered.
    let size = sizes[2].to_string();
    let deadline = Instant::now() + Duration::from_secs(20);
    let published = loop {
        let note = fs::read_to_string(folder.join("checkpoint")).unwrap();
        if note.lines().nth(1) == Some(&size) {
            break note;
        }
        assert!(Instant::now() < deadline, "{note}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    write(&folder.join(format!("checkpoints/{size}")), published);

    let output = go("verify", folder);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let count = |what: &str| said.lines().filter(|line| line.starts_with(what)).count();
    let counts = ["ok checkpoints", "ok tiles", "ok inclusion", "ok consistency", "ok proofs", "ok entries"].map(count);
    assert_eq!(counts, [3, 3, 3, 3, of_certificates, of_certificates], "{said}");
    // Another request's entry under this proof is refused.
    let (a, b) = (folder.join("entries/0"), folder.join("entries/1"));
    fs::copy(&b, &a).unwrap();
    let output = go("verify", folder);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("FAULT entries/0"), "{said}");
}

fn hex(text: &str) -> [u8; 32] {
    let byte = |at: usize| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap();
    std::array::from_fn(byte)
}
