//! Waits for one request, showing how each of its systems gets on.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use quittance_api::v1::{GetRequestRequest, Request, RequestState, Task, TaskState};
use quittance_client::{Backoff, Client, ClientError};
use tokio::time::{Instant, sleep, timeout_at};

use super::missing;
use crate::{
    failure::{End, Failure},
    output::{note, people_watch},
    resource::last,
    short_names::ShortName as _,
};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A worker that comes as often as it should has come by then.
const SILENCE_MIN: Duration = Duration::from_secs(15);

pub fn is_closed(state: RequestState) -> bool {
    matches!(
        state,
        RequestState::Completed
            | RequestState::CompletedWithExceptions
            | RequestState::Declined
            | RequestState::Cancelled
    )
}

pub fn end_of(request: &Request) -> End {
    match request.state() {
        RequestState::Completed => End::Fine,
        RequestState::CompletedWithExceptions => End::WithExceptions,
        RequestState::Declined | RequestState::Cancelled => End::Wrong,
        RequestState::InProgress | RequestState::AwaitingCustomer | RequestState::Unspecified => End::StillOpen,
    }
}

/// Far enough away to be never, near enough to be a time.
pub fn deadline(limit: Option<Duration>) -> Instant {
    Instant::now() + limit.unwrap_or(Duration::from_secs(10 * 365 * 86_400))
}

/// The request as it is when it closes, or when the time is over.
pub async fn until_closed(client: &Client, name: &str, limit: Option<Duration>) -> Result<Request, Failure> {
    let deadline = deadline(limit);
    let mut systems = Systems::new();
    let mut latest = None;
    let mut backoff = Backoff::default();
    let mut pause = FIRST_PAUSE;
    loop {
        let mut service = client.requests();
        let get = service.get_request(GetRequestRequest { name: name.to_owned() });
        match timeout_at(deadline, get).await {
            Err(_) => break,
            Ok(Ok(answer)) => {
                backoff.reset();
                let request = missing(answer.into_inner().request)?;
                systems.show(&request.tasks);
                systems.tell_if_stopped(&request);
                let closed = is_closed(request.state());
                latest = Some(request);
                if closed {
                    break;
                }
            }
            Ok(Err(status)) => {
                let error = ClientError::from(status);
                if !error.is_retryable() || backoff.tries() >= 20 {
                    return Err(error.into());
                }
                pause = backoff.next_wait(error.retry_delay()).max(FIRST_PAUSE);
            }
        }
        if timeout_at(deadline, sleep(pause)).await.is_err() {
            break;
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
    systems.finish();
    latest.ok_or_else(|| {
        Failure::Other(
            "the request could not be looked at before the time was over: give a longer --timeout".to_owned(),
        )
    })
}

/// One bar a system for people; a line for every change where nobody watches.
struct Systems {
    bars: MultiProgress,
    by_name: BTreeMap<String, (ProgressBar, (i32, bool))>,
    watched: bool,
    /// It waited for the customer when it was last looked at.
    awaited: bool,
}

/// How long no worker has come, in words; `None` while that is nothing to speak of.
fn silence(since: Option<&prost_types::Timestamp>, now: SystemTime) -> Option<String> {
    let since = SystemTime::try_from(*since?).ok()?;
    let silent = now.duration_since(since).ok().filter(|silent| *silent >= SILENCE_MIN)?.as_secs();
    Some(match (silent / 3_600, silent / 60 % 60, silent % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    })
}

fn steps_done(state: TaskState) -> u64 {
    match state {
        TaskState::Unspecified | TaskState::Waiting => 0,
        TaskState::Pending => 1,
        TaskState::Running | TaskState::NeedsAttention => 2,
        TaskState::AwaitingConfirmation => 3,
        TaskState::Confirmed => 4,
    }
}

impl Systems {
    fn new() -> Self {
        Self { bars: MultiProgress::new(), by_name: BTreeMap::new(), watched: people_watch(), awaited: false }
    }

    /// Nothing goes on before the customer has said something, however long one waits here.
    fn tell_if_stopped(&mut self, request: &Request) {
        let awaits = request.state() == RequestState::AwaitingCustomer;
        if awaits && !self.awaited {
            let name = &request.name;
            let words = format!(
                "waits for the customer's word: `quittance requests authorise {name}`, or `quittance requests decline {name} --reason …`"
            );
            self.bars.suspend(|| note(&words));
        }
        self.awaited = awaits;
    }

    fn show(&mut self, tasks: &[Task]) {
        // The template is constant; were it wrong, the plain bar would do.
        let style =
            ProgressStyle::with_template("{prefix:24} {bar:16} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        for task in tasks {
            let system = last(&task.system).to_owned();
            let mut words = task.state().short_name().replace('_', " ");
            if !task.reason.is_empty() {
                words = format!("{words}: {}", task.reason);
            }
            let silence = silence(task.unattended_since_time.as_ref(), SystemTime::now());
            if let Some(silence) = &silence {
                words = format!("{words}: no worker has taken it for {silence}; does one run for {system}?");
            }
            let (bars, watched) = (&self.bars, self.watched);
            let (bar, state) = self.by_name.entry(system.clone()).or_insert_with(|| {
                let bar = if watched { bars.add(ProgressBar::new(4)) } else { ProgressBar::hidden() };
                (bar.with_style(style.clone()).with_prefix(system.clone()), (-1, false))
            });
            // Without a bar, the silence is told once.
            let told = (task.state, silence.is_some());
            if !self.watched && *state != told {
                note(&format!("{system}: {words}"));
            }
            *state = told;
            bar.set_position(steps_done(task.state()));
            bar.set_message(words);
        }
    }

    fn finish(&self) {
        for (bar, _) in self.by_name.values() {
            // Left as they are: what was not confirmed stays in sight.
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_when_it_is_one() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let after = |seconds: u64| silence(Some(&(now - Duration::from_secs(seconds)).into()), now);
        assert_eq!((silence(None, now), after(3)), (None, None));
        assert_eq!(after(15).as_deref(), Some("15 s"));
        assert_eq!(after(80).as_deref(), Some("1 min 20 s"));
        assert_eq!(after(7_260).as_deref(), Some("2 h 1 min"));
        assert_eq!(silence(Some(&(now + Duration::from_secs(90)).into()), now), None, "a clock that is ahead");
    }
}
