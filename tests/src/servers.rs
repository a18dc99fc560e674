//! Database servers of a test's own: with certificates, and to be killed. Where none of this is needed, the shared ones do.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use quittance_sql::{ConnectOptions, Pool};
use tempfile::TempDir;

use crate::{authority::Authority, deployment::test_server, port::Port};

/// A server refuses to run as root: the package's own user runs it then.
pub fn as_user(user: &str, program: impl AsRef<Path>) -> Command {
    if !is_root() {
        return Command::new(program.as_ref());
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}")]).arg("--init-groups").arg("--");
    command.arg(program.as_ref());
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0)
}

/// What a server has made so far becomes its user's own.
pub fn give_to(user: &str, path: &Path) {
    if is_root() {
        let given = Command::new("chown").arg("-R").arg(user).arg(path).status().unwrap();
        assert!(given.success(), "chown");
    }
}

/// A new PostgreSQL cluster of the user `admin`.
pub fn init_postgres(data: &Path) {
    let program = PathBuf::from(test_server("QUITTANCE_TEST_POSTGRES_BIN")).join("initdb");
    let made = as_user("postgres", program)
        .arg("-D")
        .arg(data)
        .args(["-U", "admin", "-A", "trust", "--locale=C.UTF-8", "-E", "UTF8"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success(), "initdb failed");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    MariaDb,
}

/// A server with a certificate for `localhost` (and no other name) that speaks plain to whoever asks, as they do.
pub struct OwnServer {
    kind: Kind,
    pub folder: TempDir,
    port: Port,
    child: Option<Child>,
    /// Who signed its certificate.
    pub authority: Authority,
}

impl OwnServer {
    pub async fn postgres() -> Self {
        Self::start(Kind::Postgres).await
    }

    pub async fn mariadb() -> Self {
        Self::start(Kind::MariaDb).await
    }

    async fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Its user looks into it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = folder.path().join("server");
        fs::create_dir(&home).unwrap();
        let authority = Authority::new("the test's own authority");
        let identity = authority.server("localhost", &home);
        fs::set_permissions(&identity.key, fs::Permissions::from_mode(0o600)).unwrap();
        give_to(kind.user(), &home);
        kind.init(&home);
        let mut server = Self { kind, folder, port: Port::hold(), child: None, authority };
        server.launch().await;
        server
    }

    /// Starts it, and waits until it answers.
    pub async fn launch(&mut self) {
        let home = self.folder.path().join("server");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.kind.command(&home, self.port.number());
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let pool = Pool::open(&ConnectOptions::new(self.url("127.0.0.1", ""))).unwrap();
            let answered = pool.run_script("SELECT 1").await;
            pool.close().await;
            if answered.is_ok() {
                return;
            }
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "the server does not answer: {answered:?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The children of a PostgreSQL that is killed end by themselves, and keep its memory until they have.
            let how = if self.kind == Kind::Postgres { "-QUIT" } else { "-KILL" };
            Command::new("kill").arg(how).arg(child.id().to_string()).status().unwrap();
            child.wait().unwrap();
        }
    }

    /// As its administrator, by a name of this machine; `options` are those of the URL, as `?sslmode=require`.
    pub fn url(&self, host: &str, options: &str) -> String {
        self.database_url(host, self.kind.first_database(), options)
    }

    pub fn database_url(&self, host: &str, database: &str, options: &str) -> String {
        let (scheme, user) = match self.kind {
            Kind::Postgres => ("postgres", "admin"),
            Kind::MariaDb => ("mysql", "root"),
        };
        format!("{scheme}://{user}@{host}:{}/{database}{options}", self.port)
    }

    /// How a client verifies the server, by the authority of a file.
    pub fn verified(&self, authority: &Path) -> String {
        match self.kind {
            Kind::Postgres => format!("?sslmode=verify-full&sslrootcert={}", authority.display()),
            Kind::MariaDb => format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={}", authority.display()),
        }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Kind {
    const fn user(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mysql",
        }
    }

    const fn first_database(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MariaDb => "mysql",
        }
    }

    fn init(self, home: &Path) {
        match self {
            Self::Postgres => init_postgres(&home.join("data")),
            Self::MariaDb => {
                let made = as_user(self.user(), "mariadb-install-db")
                    .arg("--no-defaults")
                    .arg(format!("--datadir={}", home.join("data").display()))
                    .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .unwrap();
                assert!(made.success(), "mariadb-install-db failed");
                // Over TCP the client's address is 127.0.0.1, and root is only root@localhost.
                let users = "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '';\n\
                             GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n";
                fs::write(home.join("users.sql"), users).unwrap();
            }
        }
    }

    fn command(self, home: &Path, port: u16) -> Command {
        let at = |name: &str| home.join(name).display().to_string();
        match self {
            Self::Postgres => {
                let program = PathBuf::from(test_server("QUITTANCE_TEST_POSTGRES_BIN")).join("postgres");
                let mut command = as_user(self.user(), program);
                command.args([
                    "-D",
                    &at("data"),
                    "-p",
                    &port.to_string(),
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-c",
                    "ssl=on",
                ]);
                for (name, file) in
                    [("unix_socket_directories", ""), ("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")]
                {
                    command.arg("-c").arg(format!("{name}={}", at(file)));
                }
                command
            }
            Self::MariaDb => {
                let mut command = as_user(self.user(), test_server("QUITTANCE_TEST_MARIADBD"));
                command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
                command.arg(format!("--port={port}"));
                for (name, file) in [
                    ("datadir", "data"),
                    ("socket", "sock"),
                    ("pid-file", "pid"),
                    ("init-file", "users.sql"),
                    ("ssl-cert", "server.pem"),
                    ("ssl-key", "server.key"),
                ] {
                    command.arg(format!("--{name}={}", at(file)));
                }
                command
            }
        }
    }
}
