//! Ports for what a test starts.

use std::{fmt, fs, net::TcpListener};

/// Below those that the kernel gives to connections, above those that `with-servers.sh` looks in.
const RANGE: std::ops::Range<u16> = 16_000..32_000;

/// One that nothing listens at, and that no other test is given while this is held: a port that was only looked at is
/// another's by the time that a server binds it, and the test then speaks to that other server.
pub struct Port {
    number: u16,
    /// Its lock goes when the process does, however that ends.
    _held: fs::File,
}

impl Port {
    pub fn hold() -> Self {
        let folder = std::env::temp_dir().join("quittance-test-ports");
        fs::create_dir_all(&folder).unwrap();
        // Programs begin at places of their own, so that few meet.
        let first = uuid::Uuid::new_v4().as_u64_pair().0;
        let range = u64::from(RANGE.end - RANGE.start);
        (0..range)
            .find_map(|n| {
                let number = RANGE.start + u16::try_from((first % range + n) % range).unwrap();
                let held = fs::File::create(folder.join(number.to_string())).unwrap();
                let free = held.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok();
                free.then_some(Self { number, _held: held })
            })
            .expect("a port is free")
    }

    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Where a server on it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}
