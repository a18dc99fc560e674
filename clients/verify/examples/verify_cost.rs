//! What verifying a certificate of 20 confirmations costs: `cargo run --release -p quittance-verify --example verify_cost`.
//! Once with all proofs under one checkpoint, as a request that ran through in a second has them, and once with a checkpoint each.

#[path = "../tests/certificate/proven.rs"]
mod proven;
#[expect(dead_code, reason = "shared with the ledger's tests, which need more of it")]
#[path = "../../../services/ledger/tests/certificate/sample.rs"]
mod sample;

use std::time::{Duration, Instant};

use proven::{Log, cosigned, log_key, witness};
use quittance_ledger::{Leaf, certificate::CertificateInput};
use quittance_verify::{Policy, verify_certificate};

const CONFIRMATIONS: usize = 20;
const RUNS: usize = 201;

fn median(file: &[u8], policy: &Policy) -> Duration {
    let mut took: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let begin = Instant::now();
            verify_certificate(file, policy).unwrap();
            begin.elapsed()
        })
        .collect();
    took.sort();
    took[RUNS / 2]
}

/// Every entry under a checkpoint of its own.
fn spread(mut input: CertificateInput) -> CertificateInput {
    let mut log = Log::of(&input, 0);
    for (entry, opening) in input.entries.iter_mut().enumerate() {
        opening.proof = log.proof(entry, cosigned(&log));
        log.append(&[Leaf([entry as u8; 32])]);
    }
    input
}

fn main() {
    let public = |key: quittance_ledger::key::SignerKey| vec![key.verifier().clone()];
    let policy = Policy::new(public(log_key(7)), public(witness()), 1).unwrap();
    let large = || sample::large(CONFIRMATIONS);
    for (what, file) in
        [("one checkpoint", proven::file(large())), ("a checkpoint an entry", sample::signed(spread(large())))]
    {
        let took = median(&file, &policy).as_secs_f64() * 1000.0;
        eprintln!("{CONFIRMATIONS} confirmations, {what}, {} bytes: {took:.3} ms", file.len());
    }
}
