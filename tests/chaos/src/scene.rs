//! Everything that a run is made of: the store's server, replicas, workers, proxies between them, customers and systems.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use quittance_chaos_check::{Apps, Manifest, Snapshot};
use quittance_client::{Client, api as v1};
use quittance_tests::{
    StoreKind,
    deployment::{binary, postgres_database},
    port::Port,
    scenario::{FILES_MAP, create_customer, register, system},
};
use tokio::net::TcpStream;

use crate::{
    Failure, Options,
    apps::{self, CRM_MAP, CUSTOMERS, SHOP_MAP},
    clock::Clock,
    disk::Disk,
    postgres::Postgres,
    process::Process,
    proxy::Proxy,
    schedule::Victims,
};

/// Short leases and waits, so that much happens in a short run.
const SETTINGS: [(&str, &str); 9] = [
    ("QUITTANCED_DISPATCH__LEASE_S", "3"),
    ("QUITTANCED_DISPATCH__POLL_MS", "100"),
    ("QUITTANCED_DISPATCH__RETRY_BASE_MS", "100"),
    ("QUITTANCED_DISPATCH__RETRY_CAP_S", "5"),
    ("QUITTANCED_DISPATCH__BREAKER_OPEN_S", "1"),
    ("QUITTANCED_DISPATCH__BREAKER_OPEN_MAX_S", "5"),
    ("QUITTANCED_DISPATCH__DEADLINE_SWEEP_S", "1"),
    ("QUITTANCED_LEDGER__LEASE_S", "4"),
    ("QUITTANCED_LIMITS__STORE_WAIT_S", "5"),
];
const REPLICAS: usize = 3;
const WORKERS: usize = 2;
const DISK_MEGABYTES: u64 = 512;

pub struct Replica {
    pub process: Arc<Process>,
    pub clock: Option<Clock>,
    pub store_link: Option<Proxy>,
    pub client_link: Proxy,
    port: Port,
}

pub struct Worker {
    pub process: Arc<Process>,
    pub link: Proxy,
}

/// Fields are dropped in this order: whoever writes goes before what is written to.
pub struct Scene {
    pub workers: Vec<Worker>,
    pub replicas: Vec<Replica>,
    pub postgres: Option<Postgres>,
    pub disk: Option<Disk>,
    pub folder: PathBuf,
    pub operator: String,
    pub manifest: Manifest,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// One command of the service's, as an operator gives it.
fn quittanced(data: &Path, args: &[&str]) -> Result<String, Failure> {
    let done = Command::new(binary("quittanced")).args(args).arg("--data-dir").arg(data).output()?;
    if !done.status.success() {
        return Err(format!("quittanced {args:?}: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}

impl Scene {
    pub async fn build(folder: PathBuf, options: &Options) -> Result<Self, Failure> {
        // The store's server may run as another user.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let data = folder.join("data");
        let disk = match options.store {
            StoreKind::Sqlite if options.faults => Disk::mount(&data, DISK_MEGABYTES)?,
            _ => None,
        };
        fs::create_dir_all(data.join("secrets"))?;
        let postgres = match options.store {
            StoreKind::Postgres => Some(Postgres::start(&folder).await?),
            StoreKind::Sqlite => None,
        };
        let manifest = Self::apps(&folder, options, &data, postgres.as_ref()).await?;
        let operator = quittanced(&data, &["token", "add", "--name", "ops", "--role", "operator"])?;
        let mut replicas = Vec::new();
        for n in 0..if postgres.is_some() { REPLICAS } else { 1 } {
            replicas.push(Self::replica(&folder, n, &data, postgres.as_ref()).await?);
        }
        for replica in &replicas {
            replica.process.start()?;
        }
        let mut scene = Self { workers: Vec::new(), replicas, postgres, disk, folder, operator, manifest };
        scene.ready().await?;
        scene.manifest.log_keys = quittanced(&data, &["ledger", "keys"])?.lines().map(str::to_owned).collect();
        scene.register().await?;
        scene.start_workers(&data).await?;
        scene.manifest.logs = scene.processes().iter().map(|p| p.log.clone()).collect();
        scene.manifest.write(&scene.folder)?;
        Ok(scene)
    }

    async fn apps(
        folder: &Path,
        options: &Options,
        data: &Path,
        postgres: Option<&Postgres>,
    ) -> Result<Manifest, Failure> {
        let embedded = |name: &str| format!("sqlite:{}", folder.join(format!("{name}.db")).display());
        let apps = Apps {
            // On a server that is no victim.
            crm: match options.store {
                StoreKind::Postgres => postgres_database().await,
                StoreKind::Sqlite => embedded("crm"),
            },
            shop: embedded("shop"),
            files: folder.join("files"),
        };
        fs::create_dir_all(&apps.files)?;
        apps::make(&apps.crm, &apps.shop, &apps.files, options.people).await?;
        fs::write(data.join("secrets/crm"), &apps.crm)?;
        fs::write(data.join("secrets/shop"), &apps.shop)?;
        let manifest = Manifest {
            store: match postgres {
                Some(postgres) => postgres.url("admin", "quittance"),
                None => format!("sqlite:{}", data.join("quittance.db").display()),
            },
            published: folder.join("published"),
            log_keys: Vec::new(),
            journal: folder.join("journal"),
            before: folder.join("before.json"),
            apps,
            systems: ["crm", "shop", "print"].map(str::to_owned).to_vec(),
            logs: Vec::new(),
        };
        Snapshot::take(&manifest.apps).await?.write(&manifest.before)?;
        Ok(manifest)
    }

    async fn replica(folder: &Path, n: usize, data: &Path, postgres: Option<&Postgres>) -> Result<Replica, Failure> {
        let held = Port::hold();
        let port = held.number();
        let name = format!("replica-{n}");
        let clock = Clock::new(folder, &name)?;
        let store_link = match postgres {
            Some(postgres) => Some(Proxy::start(local(postgres.port.number())).await?),
            None => None,
        };
        let url = store_link.as_ref().map(|link| format!("postgres://quittance@127.0.0.1:{}/quittance", link.port));
        let (log, published) = (folder.join(format!("{name}.log")), folder.join("published"));
        let (data, stepped) = (data.to_owned(), clock.clone());
        let process = Process::new(name, log, move || {
            let mut command = Command::new(binary("quittanced"));
            command.envs(SETTINGS).env("QUITTANCE_LOG", "info").env("QUITTANCED_LEDGER__PUBLISH", &published);
            if let Some(url) = &url {
                command.env("QUITTANCED_STORE_URL", url);
            }
            if let Some(clock) = &stepped {
                clock.give(&mut command);
            }
            command.arg("--data-dir").arg(&data).arg("--listen").arg(local(port).to_string());
            command
        });
        let client_link = Proxy::start(local(port)).await?;
        Ok(Replica { process, clock, store_link, client_link, port: held })
    }

    /// Until every replica listens, which it does when its store is open.
    async fn ready(&self) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_secs(60);
        for replica in &self.replicas {
            while TcpStream::connect(local(replica.port.number())).await.is_err() {
                if Instant::now() > until {
                    return Err(format!("{} does not answer", replica.process.name).into());
                }
                replica.process.look_after()?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn register(&self) -> Result<(), Failure> {
        let operator = Client::connect(self.replicas[0].client_link.endpoint(), &self.operator).await?;
        for customer in CUSTOMERS {
            create_customer(&operator, customer).await;
        }
        let customers = CUSTOMERS
            .map(|customer| v1::SystemCustomer { customer: format!("customers/{customer}"), key: customer.to_owned() });
        // Small batches, so that there are many moments to be hurt at.
        let limits = Some(v1::SystemLimits { concurrency: 4, batches_per_second: 0, batch_size: 10 });
        let sql = v1::ConnectorKind::Sql;
        for (id, map) in [("crm", CRM_MAP), ("shop", SHOP_MAP)] {
            let of_all = v1::System { customers: customers.to_vec(), limits, ..system("", sql, id, map) };
            register(&operator, id, of_all).await?;
        }
        let print = v1::System {
            accepts: vec![v1::IdentifierKind::Email.into()],
            display_name: "Print shop".to_owned(),
            customers: customers.to_vec(),
            limits,
            ..system("", v1::ConnectorKind::Remote, "", FILES_MAP)
        };
        register(&operator, "print", print).await?;
        Ok(())
    }

    async fn start_workers(&mut self, data: &Path) -> Result<(), Failure> {
        let token = quittanced(data, &["token", "add", "--name", "print", "--role", "connector", "--system", "print"])?;
        for n in 0..WORKERS {
            let name = format!("worker-{n}");
            let link = Proxy::start(local(self.replicas[n % self.replicas.len()].port.number())).await?;
            let (endpoint, root, token) = (link.endpoint(), self.manifest.apps.files.clone(), token.clone());
            let log = self.folder.join(format!("{name}.log"));
            let process = Process::new(name.clone(), log, move || {
                let mut command = Command::new(binary("quittance-file-worker"));
                command.args(["--endpoint", &endpoint, "--system", "print", "--name", &name, "--act-delay-ms", "3"]);
                command.arg("--root").arg(&root).env("QUITTANCE_TOKEN", &token);
                command
            });
            process.start()?;
            self.workers.push(Worker { process, link });
        }
        Ok(())
    }

    pub fn token(&self, customer: &str) -> Result<String, Failure> {
        let data = self.folder.join("data");
        quittanced(&data, &["token", "add", "--name", "erp", "--role", "customer", "--customer", customer])
    }

    pub fn processes(&self) -> Vec<Arc<Process>> {
        let replicas = self.replicas.iter().map(|r| r.process.clone());
        replicas.chain(self.workers.iter().map(|w| w.process.clone())).collect()
    }

    pub fn victims(&self) -> Victims {
        Victims {
            replicas: self.replicas.len(),
            workers: self.workers.len(),
            postgres: self.postgres.is_some(),
            clocks: self.replicas.iter().all(|r| r.clock.is_some()),
            disk: self.disk.is_some(),
        }
    }
}
