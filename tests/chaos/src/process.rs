//! A process that is started, killed, stopped and started again; and whoever starts it again when it ended by itself.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::Failure;

pub struct Process {
    pub name: String,
    make: Box<dyn Fn() -> Command + Send + Sync>,
    pub log: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    child: Option<Child>,
    /// Whoever looks after it starts it again.
    wanted: bool,
    /// How often it ended by itself with an error that it told.
    gave_up: u32,
    /// It crashed: what nobody asked for.
    crashes: Vec<String>,
}

/// Sends a signal, as `KILL`. Those that are gone meanwhile are not missed.
pub fn signal(name: &str, pids: &[u32]) -> Result<(), Failure> {
    if !pids.is_empty() {
        let pids = pids.iter().map(u32::to_string);
        Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status()?;
    }
    Ok(())
}

impl Process {
    pub fn new(name: String, log: PathBuf, make: impl Fn() -> Command + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { name, make: Box::new(make), log, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start(&self) -> Result<(), Failure> {
        let mut state = self.state();
        state.wanted = true;
        self.spawn(&mut state)
    }

    fn spawn(&self, state: &mut State) -> Result<(), Failure> {
        if state.child.is_none() {
            let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
            state.child = Some((self.make)().stdout(Stdio::null()).stderr(log).spawn()?);
        }
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.state().child.as_ref().map(Child::id)
    }

    pub fn signal(&self, name: &str) -> Result<(), Failure> {
        signal(name, self.pid().as_slice())
    }

    /// SIGKILL, with `others` in the same breath; gone when it returns.
    pub fn kill(&self, others: &[u32]) -> Result<(), Failure> {
        let mut state = self.state();
        state.wanted = false;
        if let Some(mut child) = state.child.take() {
            signal("KILL", &[others, &[child.id()]].concat())?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM; how it ended, or `None` if it did not within the time.
    pub async fn terminate(&self, within: Duration) -> Result<Option<ExitStatus>, Failure> {
        let Some(mut child) = ({
            let mut state = self.state();
            state.wanted = false;
            state.child.take()
        }) else {
            return Ok(None);
        };
        signal("TERM", &[child.id()])?;
        let until = Instant::now() + within;
        while Instant::now() < until {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        child.kill()?;
        child.wait()?;
        Ok(None)
    }

    /// Notices that it ended by itself, and starts it again, as a supervisor does.
    pub fn look_after(&self) -> Result<(), Failure> {
        let mut state = self.state();
        let ended = match &mut state.child {
            Some(child) => child.try_wait()?,
            None => None,
        };
        if let Some(status) = ended {
            state.child = None;
            match status.code() {
                Some(1) => state.gave_up += 1,
                code => state.crashes.push(format!("{} ended: exit {code:?}, signal {:?}", self.name, status.signal())),
            }
        }
        if state.wanted { self.spawn(&mut state) } else { Ok(()) }
    }

    /// How often it gave up with an error and was started again, and how it crashed.
    pub fn past(&self) -> (u32, Vec<String>) {
        let state = self.state();
        (state.gave_up, state.crashes.clone())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process dies of it, too.
        drop(self.kill(&[]));
    }
}

/// Processes whose parent is this one.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let of_parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: state, then the parent.
        let parent_of: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        (parent_of == parent).then_some(())
    };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| of_parent(pid).is_some()).collect()
}
