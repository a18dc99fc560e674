//! What a fault does, and how it is undone.

use std::time::Duration;

use crate::{
    Failure,
    proxy::{Mode, Proxy},
    scene::Scene,
    schedule::{Fault, Kind, Target},
};

/// What each piece takes on a slow connection.
const SLOW: Duration = Duration::from_millis(40);
/// A drain may take this long: what is longer is counted as one that hangs.
pub const DRAIN: Duration = Duration::from_secs(50);

/// Inflicts it, waits, and undoes it.
pub async fn inflict(scene: &Scene, fault: &Fault) -> Result<(), Failure> {
    match fault.target {
        Target::Replica(n) => {
            let replica = &scene.replicas[n];
            match (fault.kind, &replica.clock) {
                (Kind::StepClock(by), Some(clock)) => {
                    clock.step(by)?;
                    tokio::time::sleep(fault.lasts).await;
                    clock.step(0)
                }
                _ => process(&replica.process, fault).await,
            }
        }
        Target::Worker(n) => process(&scene.workers[n].process, fault).await,
        Target::Postgres => match &scene.postgres {
            Some(postgres) => match fault.kind {
                Kind::KillBackend => postgres.kill_backend(),
                Kind::Stop => {
                    postgres.stop()?;
                    tokio::time::sleep(fault.lasts).await;
                    postgres.go_on()
                }
                _ => {
                    postgres.kill()?;
                    tokio::time::sleep(fault.lasts).await;
                    postgres.process.start()?;
                    postgres.ready().await
                }
            },
            None => Ok(()),
        },
        Target::StoreLink(n) => match &scene.replicas[n].store_link {
            Some(link) => connection(link, fault).await,
            None => Ok(()),
        },
        Target::ClientLink(n) => connection(&scene.replicas[n].client_link, fault).await,
        Target::WorkerLink(n) => connection(&scene.workers[n].link, fault).await,
        Target::Disk => match &scene.disk {
            Some(disk) => {
                disk.fill()?;
                tokio::time::sleep(fault.lasts).await;
                disk.empty()
            }
            None => Ok(()),
        },
    }
}

async fn process(process: &crate::process::Process, fault: &Fault) -> Result<(), Failure> {
    match fault.kind {
        Kind::Stop => {
            process.signal("STOP")?;
            tokio::time::sleep(fault.lasts).await;
            process.signal("CONT")
        }
        Kind::Terminate => {
            if process.terminate(DRAIN).await?.is_none() {
                return Err(format!("{} did not end within {DRAIN:?} of a SIGTERM", process.name).into());
            }
            process.start()
        }
        _ => {
            process.kill(&[])?;
            tokio::time::sleep(fault.lasts).await;
            process.start()
        }
    }
}

async fn connection(link: &Proxy, fault: &Fault) -> Result<(), Failure> {
    link.set(match fault.kind {
        Kind::Cut => Mode::Cut,
        Kind::Stall => Mode::Stalled,
        Kind::Slow => Mode::Slow(SLOW),
        _ => Mode::Deaf,
    });
    tokio::time::sleep(fault.lasts).await;
    link.set(Mode::Open);
    Ok(())
}
