//! Waits for a batch: how many requests each system has confirmed, until all are closed.

use std::{collections::VecDeque, time::Duration};

use futures::{StreamExt as _, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use quittance_api::v1::{GetRequestRequest, Request, RequestState, TaskState};
use quittance_client::{Client, ClientError, retrying};
use serde::Serialize;
use tokio::time::{sleep, timeout_at};
use uuid::Uuid;

use super::{missing, wait};
use crate::{
    failure::{End, Failure},
    output::{note, people_watch},
    resource::last,
    table::Table,
};

/// Requests asked for at once, and in one round before a pause: the service has better things to do than to answer how far it is.
const AT_ONCE: usize = 16;
const ROUND: usize = 1_000;
const PAUSE: Duration = Duration::from_secs(1);
/// Systems that are counted apart; a request's confirmed ones are the bits of one number.
const SYSTEMS_MAX: usize = 128;

/// Where the requests of a batch stand.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    pub completed: u64,
    pub completed_with_exceptions: u64,
    pub declined_or_cancelled: u64,
    pub open: u64,
    /// Of the open ones: nothing goes on before the customer authorises or declines them.
    pub awaiting_customer: u64,
    /// Of the open ones: some task of theirs goes on only when a person has looked at it.
    pub needing_attention: u64,
    /// Why, of one of them.
    pub attention: Option<String>,
    #[serde(skip)]
    told: Option<Uuid>,
    pub systems: Vec<SystemCounts>,
}

#[derive(Debug, Serialize)]
pub struct SystemCounts {
    pub system: String,
    /// Tasks that were seen.
    pub tasks: u64,
    pub confirmed: u64,
}

impl Counts {
    pub fn end(&self) -> End {
        match self {
            Self { open: 1.., .. } => End::StillOpen,
            Self { declined_or_cancelled: 1.., .. } => End::Wrong,
            Self { completed_with_exceptions: 1.., .. } => End::WithExceptions,
            _ => End::Fine,
        }
    }

    pub fn table(&self) -> Table {
        let mut table = Table::of_fields();
        table.field("completed", self.completed.to_string());
        table.field("completed with exceptions", self.completed_with_exceptions.to_string());
        table.field("declined or cancelled", self.declined_or_cancelled.to_string());
        table.field("open", self.open.to_string());
        table.field("of these, waiting for the customer", self.awaiting_customer.to_string());
        table.field("of these, needing attention", self.needing_attention.to_string());
        if let Some(why) = self.attention.as_ref().filter(|_| self.needing_attention > 0) {
            table.field("one of them", why.clone());
        }
        for s in &self.systems {
            table.field(&s.system, format!("{} of {} confirmed", s.confirmed, s.tasks));
        }
        table
    }

    /// Counts what is new about one request. Whether it is closed.
    fn count(&mut self, followed: &mut Followed, request: &Request) -> bool {
        for task in &request.tasks {
            let system = last(&task.system);
            let index = match self.systems.iter().position(|s| s.system == system) {
                Some(index) => index,
                None if self.systems.len() < SYSTEMS_MAX => {
                    self.systems.push(SystemCounts { system: system.to_owned(), tasks: 0, confirmed: 0 });
                    self.systems.len() - 1
                }
                None => continue,
            };
            let bit = 1_u128 << index;
            if followed.seen & bit == 0 {
                followed.seen |= bit;
                self.systems[index].tasks += 1;
            }
            if task.state() == TaskState::Confirmed && followed.confirmed & bit == 0 {
                followed.confirmed |= bit;
                self.systems[index].confirmed += 1;
            }
        }
        let awaits = request.state() == RequestState::AwaitingCustomer;
        self.awaiting_customer += u64::from(awaits);
        self.awaiting_customer -= u64::from(std::mem::replace(&mut followed.awaits, awaits));
        let stopped = request.tasks.iter().find(|task| task.state() == TaskState::NeedsAttention);
        let needs = stopped.is_some() && !wait::is_closed(request.state());
        self.needing_attention += u64::from(needs);
        self.needing_attention -= u64::from(std::mem::replace(&mut followed.needs, needs));
        // Of the one that is told: as it is now, or whoever is seen next.
        if self.told == Some(followed.id) {
            (self.told, self.attention) = (None, None);
        }
        if let Some(task) = stopped.filter(|_| needs && self.told.is_none()) {
            self.told = Some(followed.id);
            self.attention = Some(format!("{} at {}: {}", request.name, last(&task.system), task.reason));
        }
        match request.state() {
            RequestState::Completed => self.completed += 1,
            RequestState::CompletedWithExceptions => self.completed_with_exceptions += 1,
            RequestState::Declined | RequestState::Cancelled => self.declined_or_cancelled += 1,
            RequestState::InProgress | RequestState::AwaitingCustomer | RequestState::Unspecified => return false,
        }
        self.open -= 1;
        true
    }
}

struct Followed {
    id: Uuid,
    seen: u128,
    confirmed: u128,
    awaits: bool,
    needs: bool,
}

impl Followed {
    const fn new(id: Uuid) -> Self {
        Self { id, seen: 0, confirmed: 0, awaits: false, needs: false }
    }
}

/// Looks at the open ones in turn until none is left, or the time is over.
pub async fn until_closed(
    client: &Client,
    customer: &str,
    requests: Vec<Uuid>,
    limit: Option<Duration>,
) -> Result<Counts, Failure> {
    let deadline = wait::deadline(limit);
    let mut counts = Counts { open: requests.len() as u64, ..Counts::default() };
    let all = counts.open;
    let mut open: VecDeque<Followed> = requests.into_iter().map(Followed::new).collect();
    let mut bars = Bars::new(all);
    while !open.is_empty() {
        let round: Vec<Followed> = open.drain(..open.len().min(ROUND)).collect();
        let mut answers = stream::iter(round)
            .map(|followed| async move {
                let name = format!("{customer}/requests/{}", followed.id);
                let get = || async {
                    client
                        .requests()
                        .get_request(GetRequestRequest { name: name.clone() })
                        .await
                        .map_err(ClientError::from)
                };
                (followed, retrying(8, get).await)
            })
            .buffer_unordered(AT_ONCE);
        loop {
            match timeout_at(deadline, answers.next()).await {
                Err(_) => {
                    drop(answers);
                    bars.finish();
                    return Ok(counts);
                }
                Ok(None) => break,
                Ok(Some((mut followed, answer))) => {
                    let request = missing(answer?.into_inner().request)?;
                    if !counts.count(&mut followed, &request) {
                        open.push_back(followed);
                    }
                }
            }
        }
        drop(answers);
        bars.show(&counts);
        if !open.is_empty() && timeout_at(deadline, sleep(PAUSE)).await.is_err() {
            break;
        }
    }
    bars.finish();
    Ok(counts)
}

/// One bar a system for people; now and then a line where nobody watches.
struct Bars {
    bars: MultiProgress,
    systems: Vec<ProgressBar>,
    all: u64,
    told: u64,
    /// That waited for the customer when they were last counted.
    awaiting: u64,
    /// That needed attention then.
    needing: u64,
}

impl Bars {
    fn new(all: u64) -> Self {
        Self { bars: MultiProgress::new(), systems: Vec::new(), all, told: all, awaiting: 0, needing: 0 }
    }

    fn show(&mut self, counts: &Counts) {
        let awaiting = counts.awaiting_customer;
        if awaiting > self.awaiting {
            let words = format!(
                "{awaiting} of {} wait for the customer's word (`quittance requests list --state awaiting_customer`): `quittance requests authorise …` or `decline …`",
                self.all
            );
            self.bars.suspend(|| note(&words));
        }
        self.awaiting = awaiting;
        if let Some(why) = counts.attention.as_ref().filter(|_| counts.needing_attention > self.needing) {
            let words = format!(
                "{} of {} need attention, {why} (all: `quittance requests list --needs-attention`)",
                counts.needing_attention, self.all
            );
            self.bars.suspend(|| note(&words));
        }
        self.needing = counts.needing_attention;
        if !people_watch() {
            // A line for each tenth that closes.
            if self.told - counts.open >= self.all.div_ceil(10) || (counts.open == 0 && self.told > 0) {
                self.told = counts.open;
                note(&format!("{} of {} requests closed", self.all - counts.open, self.all));
            }
            return;
        }
        for (at, system) in counts.systems.iter().enumerate() {
            if at == self.systems.len() {
                // The template is constant; were it wrong, the plain bar would do.
                let style = ProgressStyle::with_template("{prefix:24} {bar:40} {human_pos}/{human_len}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = ProgressBar::new(self.all).with_style(style).with_prefix(system.system.clone());
                self.systems.push(self.bars.add(bar));
            }
            self.systems[at].set_position(system.confirmed);
        }
    }

    fn finish(&self) {
        for bar in &self.systems {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use quittance_api::v1::Task;

    use super::*;

    #[test]
    fn a_task_is_counted_once_however_often_it_is_looked_at() {
        let task = |system: &str, state: TaskState| Task {
            system: format!("systems/{system}"),
            state: state.into(),
            ..Task::default()
        };
        let mut request = Request {
            tasks: vec![task("a", TaskState::Confirmed), task("b", TaskState::Running)],
            ..Request::default()
        };
        let mut counts = Counts { open: 1, ..Counts::default() };
        let mut followed = Followed::new(Uuid::nil());
        assert!(!counts.count(&mut followed, &request));
        assert!(!counts.count(&mut followed, &request));
        let of = |counts: &Counts| counts.systems.iter().map(|s| (s.tasks, s.confirmed)).collect::<Vec<_>>();
        assert_eq!(of(&counts), [(1, 1), (1, 0)]);
        assert_eq!(counts.end(), End::StillOpen);
        request.state = RequestState::AwaitingCustomer.into();
        for _ in 0..2 {
            assert!(!counts.count(&mut followed, &request));
            assert_eq!((counts.open, counts.awaiting_customer), (1, 1));
        }
        request.state = RequestState::InProgress.into();
        request.tasks[1].state = TaskState::NeedsAttention.into();
        request.tasks[1].reason = "NO_USABLE_IDENTIFIER".to_owned();
        for _ in 0..2 {
            assert!(!counts.count(&mut followed, &request));
            assert_eq!((counts.needing_attention, counts.awaiting_customer), (1, 0));
        }
        assert!(counts.attention.as_ref().unwrap().ends_with("at b: NO_USABLE_IDENTIFIER"));
        request.tasks[1].state = TaskState::Confirmed.into();
        request.state = RequestState::CompletedWithExceptions.into();
        assert!(counts.count(&mut followed, &request));
        assert_eq!((counts.open, counts.awaiting_customer, counts.needing_attention), (0, 0, 0));
        assert_eq!(counts.attention, None, "what is done needs nobody");
        assert_eq!(of(&counts), [(1, 1), (1, 1)]);
        assert_eq!(counts.end(), End::WithExceptions);
    }
}
