//! What the program says of certificates and of logs, without any service of ours.

#[path = "../../verify/tests/certificate/proven.rs"]
mod proven;
#[expect(dead_code, reason = "shared with the ledger's tests, which need more of it")]
#[path = "../../../services/ledger/tests/certificate/sample.rs"]
mod sample;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use proven::{Log, log_key, witness};
use quittance_ledger::Leaf;
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::Value;
use tempfile::TempDir;

fn quittance(args: &[&str]) -> Output {
    // Nothing is set: no endpoint, no token.
    Command::new(env!("CARGO_BIN_EXE_quittance")).args(args).env_clear().output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }
}

fn vkey(seed: u8) -> String {
    log_key(seed).verifier().to_string()
}

#[test]
fn a_good_certificate_is_verified_with_the_key_alone_and_the_rest_is_told() {
    let folder = Folder::new();
    let file = folder.put("certificate.json", &proven::file(sample::rich()));
    let key_file = folder.put("log.vkey", format!("{}\n{}\n", vkey(6), vkey(7)).as_bytes());
    for key in [&vkey(7), &key_file] {
        let output = quittance(&["verify", &file, "--key", key]);
        assert_eq!(output.status.code(), Some(0), "{}{}", out(&output), err(&output));
        let said = out(&output);
        assert!(said.contains("checked: each of the 15 entries is in the log"), "{said}");
        assert!(said.contains("NOT checked: times called ASSERTED"), "{said}");
        assert!(
            said.lines().last().unwrap().starts_with("VERIFIED: certificate of customers/acme/requests/"),
            "{said}"
        );
    }
}

#[test]
fn a_statement_is_called_what_it_is_in_json_too() {
    for (statement, called, state) in [
        (sample::interim(), "interim statement", "INTERIM"),
        (sample::declined(), "statement of what was done", "DECLINED"),
    ] {
        let folder = Folder::new();
        let file = folder.put("statement.json", &proven::file(statement));
        let output = quittance(&["verify", &file, "--key", &vkey(7), "--output", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&verdict["verdict"], &verdict["document"]), (&"verified".into(), &called.into()));
        assert_eq!((&verdict["customer"], &verdict["state"]), (&"acme".into(), &state.into()));
        let lines = |of: &str| verdict[of].as_array().unwrap().len();
        assert!(lines("checked") > 4 && lines("not_checked") > 4);
    }
}

#[test]
fn what_is_altered_cut_or_by_another_key_is_refused_with_the_reason() {
    let folder = Folder::new();
    let good = proven::file(sample::small());
    let mut altered = good.clone();
    let at = good.len() / 2;
    altered[at] = if altered[at] == b'1' { b'2' } else { b'1' };
    let (good, cut) = (folder.put("good", &good), folder.put("cut", &good[..good.len() - 1]));
    let altered = folder.put("altered", &altered);
    let witness = witness().verifier().to_string();
    let stranger = sample::signer("other.example", quittance_ledger::key::KeyType::CosignatureV1, 9);
    let stranger = stranger.verifier().to_string();
    let required = ["--require-witnesses", "1"];
    for (args, reason) in [
        (vec![&*altered, "--key", &vkey(7)], "REFUSED: "),
        (vec![&*cut, "--key", &vkey(7)], "REFUSED: the file does not have the form"),
        (vec![&*good, "--key", &vkey(6)], "REFUSED: signature 0 is by a key that is not trusted here"),
        (
            [&[&*good, "--key", &vkey(7), "--witness", &stranger][..], &required].concat(),
            "REFUSED: entry 0: 1 witnesses",
        ),
    ] {
        let output = quittance(&[&["verify"], &args[..]].concat());
        assert_eq!(output.status.code(), Some(1), "{}{}", out(&output), err(&output));
        assert!(out(&output).starts_with(reason), "{reason}: {}", out(&output));
    }
    let fine = quittance(&[&["verify", &good, "--key", &vkey(7), "--witness", &witness][..], &required].concat());
    assert_eq!(fine.status.code(), Some(0), "{}", out(&fine));
    let json = quittance(&["verify", &altered, "--key", &vkey(7), "--output", "json"]);
    let verdict: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &verdict["verdict"]), (Some(1), &"refused".into()));
    // Wrong usage is no verdict.
    for args in [vec![&*good], vec![&*good, "--key", "no+such+key"], vec!["absent", "--key", &vkey(7)]] {
        let output = quittance(&[&["verify"], &args[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{}{}", out(&output), err(&output));
    }
}

/// `quittance verify … | head`: who pipes it goes by how it ends.
#[test]
fn what_is_refused_is_refused_though_nobody_reads_on() {
    let folder = Folder::new();
    let file = folder.put("certificate.json", &proven::file(sample::small()));
    for (key, code) in [(vkey(6), 1), (vkey(7), 0)] {
        let mut quittance = Command::new(env!("CARGO_BIN_EXE_quittance"));
        let verify = ["verify", &file, "--key", &key];
        let mut running = quittance.args(verify).env_clear().stdout(Stdio::piped()).spawn().unwrap();
        drop(running.stdout.take());
        assert_eq!(running.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn the_subject_opening_is_held_against_the_certificate() {
    let folder = Folder::new();
    let file = folder.put("certificate.json", &proven::file(sample::small()));
    let opening = sample::subject_opening().write().unwrap();
    let (good, other) = (folder.put("opening", &opening), folder.put("cut", &opening[..opening.len() - 1]));
    let verify = |opening: &str| quittance(&["verify", &file, "--key", &vkey(7), "--subject-opening", opening]);
    assert!(out(&verify(&good)).contains("checked: the subject opening opens it"));
    assert!(!out(&verify(&good)).contains("mara@"));
    let refused = verify(&other);
    assert_eq!(refused.status.code(), Some(1));
    assert!(out(&refused).starts_with("REFUSED: the subject opening: "), "{}", out(&refused));
}

/// A static site: what lies in the map, and 404.
#[derive(Clone, Default)]
struct Site(Arc<Mutex<HashMap<String, Vec<u8>>>>);

/// A client may connect, and ask only later: nobody waits for it.
fn serve_each(listener: TcpListener, answer: impl Fn(TcpStream) + Clone + Send + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream.unwrap()));
        }
    });
}

impl Site {
    fn start() -> (Self, String) {
        let site = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/log/", listener.local_addr().unwrap());
        let served = site.clone();
        serve_each(listener, move |stream| served.answer(stream));
        (site, url)
    }

    /// The same, with TLS: gives the authority of its certificate, which nobody knows, as PEM.
    fn start_with_tls() -> (Self, String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let (site, config) = (Self::default(), Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/log/", listener.local_addr().unwrap());
        let served = site.clone();
        serve_each(listener, move |stream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            served.answer(StreamOwned::new(connection, stream));
        });
        (site, url, made.cert.pem())
    }

    fn answer(&self, mut stream: impl Read + Write) {
        let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        lines.take_while(|line| !line.is_empty()).for_each(drop);
        let path = first.split(' ').nth(1).and_then(|path| path.strip_prefix("/log/")).unwrap_or_default();
        let found = self.0.lock().unwrap().get(path).cloned();
        let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        drop(stream.write_all(&[head.as_bytes(), &body].concat()));
    }

    fn publish(&self, log: &Log) {
        let mut files = self.0.lock().unwrap();
        files.extend(log.tiles.iter().map(|(tile, bytes)| (tile.to_string(), bytes.clone())));
        files.insert("checkpoint".to_owned(), proven::cosigned(log).to_string().into_bytes());
    }
}

fn watch(url: &str, state: &Path) -> Output {
    let state = state.to_str().unwrap();
    quittance(&["ledger", "watch", "--url", url, "--key", &vkey(7), "--state", state, "--once"])
}

fn grow(log: &mut Log, by: u16) {
    log.append(&(0..by).map(|n| Leaf([n.to_be_bytes(); 16].concat().try_into().unwrap())).collect::<Vec<_>>());
}

#[test]
fn a_log_that_only_grows_is_followed_from_the_first_checkpoint_trusted() {
    let ((site, url), folder) = (Site::start(), Folder::new());
    let (state, mut log) = (folder.path("state"), Log::of(&sample::small(), 0));
    site.publish(&log);
    let first = watch(&url, &state);
    assert_eq!(first.status.code(), Some(0), "{}", err(&first));
    assert!(out(&first).contains("305 entries") && out(&first).contains("trusted on first use"), "{}", out(&first));
    assert!(out(&watch(&url, &state)).contains("unchanged"));
    for by in [1, 200, 700] {
        grow(&mut log, by);
        site.publish(&log);
        let grown = watch(&url, &state);
        assert_eq!(grown.status.code(), Some(0), "{}", err(&grown));
        assert!(out(&grown).contains("it begins with the"), "{}", out(&grown));
    }
    assert_eq!(fs::read_to_string(&state).unwrap(), proven::cosigned(&log).to_string());
    // Partial tiles may be gone when their full ones are there.
    let mut behind = Log::of(&sample::small(), 0);
    grow(&mut behind, 1);
    fs::write(&state, proven::cosigned(&behind).to_string()).unwrap();
    site.0
        .lock()
        .unwrap()
        .retain(|path, _| !path.contains(".p/") || path.starts_with("tile/1/") || path.ends_with("/182"));
    let full = watch(&url, &state);
    assert_eq!(full.status.code(), Some(0), "{}", err(&full));
}

#[test]
fn a_forked_or_shrunk_log_is_told_with_both_signed_checkpoints() {
    let input = sample::small();
    for (published, told) in [("fork", "forked"), ("longer fork", "does not prove"), ("shorter", "the log shrank")] {
        let ((site, url), folder) = (Site::start(), Folder::new());
        let state = folder.path("state");
        let mut log = Log::of(&input, 0);
        if published == "shorter" {
            grow(&mut log, 1);
        }
        site.publish(&log);
        assert_eq!(watch(&url, &state).status.code(), Some(0));
        let mut other = Log::of(&input, u8::from(published != "shorter"));
        if published == "longer fork" {
            grow(&mut other, 3);
        }
        site.publish(&other);
        let output = watch(&url, &state);
        assert_eq!(output.status.code(), Some(1), "{published}");
        assert!(err(&output).contains(told), "{published}: {}", err(&output));
        for log in [&log, &other] {
            assert!(err(&output).contains(&proven::cosigned(log).to_string()), "{published}: {}", err(&output));
        }
        // What was trusted stays so.
        assert_eq!(fs::read_to_string(&state).unwrap(), proven::cosigned(&log).to_string(), "{published}");
    }
}

#[test]
fn what_the_log_did_not_sign_and_what_is_not_there_is_never_trusted() {
    let ((site, url), folder) = (Site::start(), Folder::new());
    let state = folder.path("state");
    let nothing = watch(&url, &state);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(err(&nothing).contains("/log/checkpoint is not there"), "{}", err(&nothing));
    let log = Log::of(&sample::small(), 0);
    site.publish(&log);
    let strange = log.checkpoint().sign(&[&log_key(5)]).unwrap().to_string();
    site.0.lock().unwrap().insert("checkpoint".to_owned(), strange.clone().into_bytes());
    let refused = watch(&url, &state);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("no signature is of a known key"), "{}", err(&refused));
    assert!(!state.exists());
    fs::write(&state, strange).unwrap();
    assert_eq!(watch(&url, &state).status.code(), Some(2));
}

#[test]
fn a_log_behind_ones_own_authority_is_followed_with_its_certificate_alone() {
    let ((site, url, authority), folder) = (Site::start_with_tls(), Folder::new());
    let (state, ca_file) = (folder.path("state"), folder.put("ca.pem", authority.as_bytes()));
    site.publish(&Log::of(&sample::small(), 0));
    let unknown = watch(&url, &state);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("certificate"), "{}", err(&unknown));
    assert!(!state.exists());
    let (key, state) = (vkey(7), state.to_str().unwrap());
    let arguments = ["--url", url.as_str(), "--key", key.as_str(), "--ca-file", ca_file.as_str()];
    let known = quittance(&[&["ledger", "watch", "--once", "--state", state], &arguments[..]].concat());
    assert_eq!(known.status.code(), Some(0), "{}", err(&known));
    let whole = quittance(&[&["ledger", "fsck"], &arguments[..]].concat());
    assert_eq!(
        (whole.status.code(), out(&whole).starts_with("whole: 305 entries")),
        (Some(0), true),
        "{}",
        err(&whole)
    );
    let nonsense = folder.put("nonsense.pem", b"nonsense");
    let refused = quittance(&["ledger", "fsck", "--url", &url, "--key", &key, "--ca-file", &nonsense]);
    assert_eq!(refused.status.code(), Some(1), "{}", out(&refused));
}

#[test]
fn a_published_log_is_read_whole_and_the_first_bad_entry_is_named() {
    let ((site, url), folder) = (Site::start(), Folder::new());
    let log = Log::of(&sample::small(), 0);
    site.publish(&log);
    let key = vkey(7);
    let fsck = |place: [&str; 2]| quittance(&["ledger", "fsck", place[0], place[1], "--key", &key]);
    assert_eq!(fsck(["--url", &url]).status.code(), Some(0));
    let bundle = "tile/entries/001.p/49";
    site.0.lock().unwrap().get_mut(bundle).unwrap()[2] ^= 1;
    let damaged = fsck(["--url", &url]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(out(&damaged).starts_with("damaged: entry 256 of the log"), "{}", out(&damaged));
    site.0.lock().unwrap().remove(bundle);
    assert!(out(&fsck(["--url", &url])).starts_with("damaged: entry 256 of the log"));
    // What cannot be reached is not called damaged.
    let nowhere = fsck(["--folder", folder.path("nothing").to_str().unwrap()]);
    assert_eq!((nowhere.status.code(), out(&nowhere).as_str()), (Some(1), ""));
    for wrong in [vec![], vec!["--url", &url, "--folder", "x"]] {
        let usage = quittance(&[&["ledger", "fsck", "--key", &key], &wrong[..]].concat());
        assert_eq!(usage.status.code(), Some(2));
    }
}
