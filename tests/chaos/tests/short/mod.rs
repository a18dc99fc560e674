//! A short run whose checker finds nothing.

use std::{fs, time::Duration};

use quittance_chaos::{Options, Outcome, StoreKind};

/// Always the same schedule here: `make chaos` takes another one each time.
fn seed() -> u64 {
    let seed = std::env::var("QUITTANCE_TEST_SEED").map_or(Ok(1), |text| text.parse());
    let seed = seed.expect("QUITTANCE_TEST_SEED is a number");
    println!("QUITTANCE_TEST_SEED={seed}");
    seed
}

pub async fn run(store: StoreKind, seconds: u64) -> Outcome {
    let options = Options {
        seed: seed(),
        lasts: Duration::from_secs(seconds),
        apart: Duration::from_secs(2),
        store,
        faults: true,
        people: 600,
        pace: Duration::from_millis(400),
        settle: Duration::from_secs(120),
    };
    let outcome = quittance_chaos::run(&options, &|line| println!("{line}")).await.unwrap();
    println!("{outcome:#?}");
    assert!(outcome.findings.is_empty(), "{:#?}\nin {}", outcome.findings, outcome.folder.display());
    assert!(outcome.figures.requests > 50 && outcome.figures.checkpoints >= 3, "{:?}", outcome.figures);
    fs::remove_dir_all(&outcome.folder).unwrap();
    outcome
}
