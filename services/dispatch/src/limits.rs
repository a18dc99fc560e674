//! Every limit of the dispatcher, with its reason.

use std::time::Duration;

#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DispatchLimits {
    /// Batches in work at once in this process, over all systems, beside the first of each system: bounds memory and connections.
    pub batches_max: usize,
    /// Systems that have a place for one batch whatever others take, so that slow systems do not keep a fast one waiting. Those beyond
    /// share `batches_max`.
    pub systems_max: usize,
    /// Large batches of one customer's bulk at one system that are in work at once in this process while single instructions come in: their
    /// answers come from the same database, and a bulk that is not held back keeps them waiting for it. At least 1.
    pub bulk_batches_beside_singles: u32,
    /// How long a lease lives without a heartbeat: a dead worker's tasks are taken over after that.
    pub lease_s: u64,
    /// How often `ready` is looked at when nothing wakes us: finds what a lost wake-up missed.
    pub poll_ms: u64,
    /// How old the known set of systems may be.
    pub topology_refresh_ms: u64,
    /// First and longest wait before a task is tried again; between them, full jitter doubles.
    pub retry_base_ms: u64,
    pub retry_cap_s: u64,
    /// Attempts of a task whose read-back finds something left, or that runs out of time alone, before a person looks.
    pub read_back_attempts_max: u32,
    /// Failures of a system in a row that open its breaker, and how long it then stays open at first and at most.
    pub breaker_failures: u32,
    pub breaker_open_s: u64,
    pub breaker_open_max_s: u64,
    /// Records of an access package that are held in memory at once; fewer where they are long.
    pub export_page: usize,
    /// How often requests are looked for whose time runs out.
    pub deadline_sweep_s: u64,
    /// Rows that a restored system is asked for at once, when it says what it holds.
    pub replay_page: usize,
    /// Identifiers that become requests at once when what was instructed at a restored system is carried out again, how long it then
    /// rests, and how many such requests may be open: the customers' own come in between.
    pub replay_chunk: u32,
    pub replay_pause_ms: u64,
    pub replay_open_max: u64,
    /// How often suppressions are looked for that no backup can bring back any more.
    pub suppression_sweep_s: u64,
    /// How long running batches may finish at a drain, before they are handed back.
    pub drain_s: u64,
}

impl Default for DispatchLimits {
    fn default() -> Self {
        Self {
            batches_max: 16,
            systems_max: 64,
            bulk_batches_beside_singles: 1,
            lease_s: 30,
            poll_ms: 500,
            topology_refresh_ms: 1000,
            retry_base_ms: 500,
            retry_cap_s: 300,
            read_back_attempts_max: 8,
            breaker_failures: 5,
            breaker_open_s: 5,
            breaker_open_max_s: 120,
            export_page: 500,
            deadline_sweep_s: 60,
            replay_page: 1000,
            replay_chunk: 200,
            replay_pause_ms: 1000,
            replay_open_max: 1000,
            suppression_sweep_s: 600,
            drain_s: 20,
        }
    }
}

impl DispatchLimits {
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s)
    }

    /// A heartbeat may be lost and the next one still comes in time.
    pub fn heartbeat(&self) -> Duration {
        self.lease() / 3
    }

    /// A transaction in a target ends well before the lease could pass, even if it began just before a heartbeat (I4).
    pub fn target_time_limit(&self) -> Duration {
        self.lease() / 3
    }

    pub fn deadline_sweep(&self) -> Duration {
        Duration::from_secs(self.deadline_sweep_s.max(1))
    }

    pub fn replay_pause(&self) -> Duration {
        Duration::from_millis(self.replay_pause_ms)
    }

    pub fn suppression_sweep(&self) -> Duration {
        Duration::from_secs(self.suppression_sweep_s.max(1))
    }

    pub fn retry_base(&self) -> Duration {
        Duration::from_millis(self.retry_base_ms)
    }

    pub fn retry_cap(&self) -> Duration {
        Duration::from_secs(self.retry_cap_s)
    }
}
