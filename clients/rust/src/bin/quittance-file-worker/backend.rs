//! The five actions, on files.

use std::{collections::BTreeSet, time::Duration};

use quittance_client::{
    api::{Action, Evidence, EvidenceKind, Grade, IdentifierKind, LeasedTask, Outcome, OutcomeKind, TaskDone},
    worker::{Backend, BackendError, KeySink, ReadBack, RecordSink},
};
use tokio::time::sleep;

use crate::{
    access, disk,
    found::Found,
    layout::{Layout, MARKER, trouble},
    moves, statements,
};

pub struct Files {
    layout: Layout,
    act_delay: Duration,
}

impl Files {
    pub fn new(layout: Layout, act_delay: Duration) -> Self {
        Self { layout, act_delay }
    }

    /// Runs a step that waits for the disk where it holds nobody up. Steps are short: one that was begun goes on even if the task is dropped.
    async fn step<T, F>(&self, step: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(&Layout) -> Result<T, BackendError> + Send + 'static,
    {
        let layout = self.layout.clone();
        let done = tokio::task::spawn_blocking(move || step(&layout)).await;
        done.unwrap_or_else(|_| Err(BackendError::Retry("a step on the disk did not end".to_owned())))
    }

    async fn erase(&self, customer: &str, folders: Vec<String>, found: Found) -> Result<(), BackendError> {
        for (at, file) in found.files.into_iter().enumerate() {
            if at > 0 && !self.act_delay.is_zero() {
                sleep(self.act_delay).await;
            }
            let customer = customer.to_owned();
            self.step(move |layout| {
                disk::delete(&layout.place(&customer, &file.path)?).map_err(trouble("a file cannot be deleted"))
            })
            .await?;
        }
        let customer = customer.to_owned();
        self.step(move |layout| {
            for folder in &folders {
                let place = layout.place(&customer, folder)?;
                // The marker goes with the last file, not before: what came meanwhile is still restricted.
                if layout.files_in(&customer, folder)?.is_empty() {
                    disk::delete(&layout.place(&customer, &format!("{folder}/{MARKER}"))?)
                        .map_err(trouble("the restriction's marker cannot be deleted"))?;
                }
                disk::delete_empty_folders(&place).map_err(trouble("a folder cannot be deleted"))?;
            }
            Ok(())
        })
        .await
    }
}

/// The subject's folders in which something was found.
fn folders_of(folders: Vec<String>, found: &Found) -> Vec<String> {
    folders.into_iter().filter(|folder| found.below(folder).next().is_some()).collect()
}

fn outcome(kind: OutcomeKind, count: u64) -> Outcome {
    let (collection, category) =
        if kind == OutcomeKind::NotHeld { ("*", "*") } else { (statements::COLLECTION, "file") };
    Outcome {
        collection: collection.to_owned(),
        category: category.to_owned(),
        outcome: kind.into(),
        grade: Grade::Verified.into(),
        count,
        basis: String::new(),
        until: None,
    }
}

/// What the worker looks for after it acted. `Err` where it is not so.
fn look_again(layout: &Layout, task: &LeasedTask, found: &Found, records: u64) -> Result<Outcome, BackendError> {
    let customer = Layout::customer_folder(task)?;
    let all_folders = Layout::subject_folders(task)?;
    let not_so = |what: &str| Err(BackendError::Retry(what.to_owned()));
    if found.files.is_empty() {
        for folder in &all_folders {
            if !layout.files_in(&customer, folder)?.is_empty() {
                return not_so("files came while the task ran");
            }
        }
        return Ok(outcome(OutcomeKind::NotHeld, 0));
    }
    let files = found.files.len() as u64;
    let is_marked = |folder: &str| layout.is_there(&customer, &format!("{folder}/{MARKER}"));
    match task.action() {
        Action::Erasure => {
            for file in &found.files {
                if layout.is_there(&customer, &file.path)? {
                    return not_so("a file is still there");
                }
            }
            for folder in &all_folders {
                if !layout.files_in(&customer, folder)?.is_empty() {
                    return not_so("files came while the task ran");
                }
            }
            Ok(outcome(OutcomeKind::Erased, files))
        }
        Action::Restriction => {
            for folder in folders_of(all_folders, found) {
                if !is_marked(&folder)? {
                    return not_so("a folder is not marked");
                }
            }
            Ok(outcome(OutcomeKind::Restricted, files))
        }
        Action::LiftRestriction => {
            for folder in &all_folders {
                if is_marked(folder)? {
                    return not_so("a folder is still marked");
                }
            }
            // Files that bore no mark had none taken off.
            let lifted: BTreeSet<_> =
                found.restricted.iter().flat_map(|folder| found.below(folder)).map(|f| &f.path).collect();
            Ok(outcome(OutcomeKind::RestrictionLifted, lifted.len() as u64))
        }
        Action::Access => Ok(outcome(OutcomeKind::Exported, records)),
        Action::Rectification => {
            let texts = statements::of(task)?;
            let Some(moved) = moves::look_again(layout, &customer, found, &Layout::moves(task)?)? else {
                return not_so("a file is not under the new identifier");
            };
            for (text, path) in texts.iter().zip(&found.statements) {
                let content = std::fs::read(layout.place(&customer, path)?);
                if content.map_err(trouble("a statement cannot be read"))? != text.as_bytes() {
                    return not_so("a statement is not as it was written");
                }
            }
            match moved + texts.len() as u64 {
                // Its files are kept under identifiers that stay.
                0 => Ok(outcome(OutcomeKind::NotHeld, 0)),
                corrected => Ok(outcome(OutcomeKind::Rectified, corrected)),
            }
        }
        Action::Unspecified => Err(unknown_action()),
    }
}

fn unknown_action() -> BackendError {
    BackendError::NeedsAttention("the worker does not know this action: update the worker".to_owned())
}

fn find(layout: &Layout, task: &LeasedTask) -> Result<Vec<u8>, BackendError> {
    let customer = Layout::customer_folder(task)?;
    let folders = Layout::subject_folders(task)?;
    let mut found = Found::read(&task.match_set)?;
    for folder in &folders {
        found.add(layout.files_in(&customer, folder)?);
        if layout.is_there(&customer, &format!("{folder}/{MARKER}"))? && !found.restricted.contains(folder) {
            found.restricted.push(folder.clone());
        }
    }
    if task.action() == Action::Rectification {
        // Not the subject's files as they were: our own of an earlier attempt.
        let own = found.statements.clone();
        found.files.retain(|file| !own.contains(&file.path));
        let moves = Layout::moves(task)?;
        moves::check(layout, &customer, task, &moves)?;
        // Nothing held needs no correction; what is held does, or a person.
        if let Some(folder) = folders.iter().find(|folder| found.below(folder).next().is_some()) {
            let wanted = statements::of(task)?.len();
            if found.statements.len() != wanted {
                // Beside the files, where these will be.
                let then = |path: &str| moves.iter().find_map(|m| m.of(path)).unwrap_or_else(|| path.to_owned());
                let taken: Vec<String> = found.files.iter().map(|file| then(&file.path)).collect();
                found.statements = statements::names(&then(folder), wanted, &taken);
            }
        }
    }
    // Every path is checked now, those of an earlier attempt too: before anything is touched.
    for path in found.files.iter().map(|f| &f.path).chain(&found.statements) {
        layout.place(&customer, path)?;
    }
    for (_, to) in moves::paths(&found, &Layout::moves(task)?) {
        layout.place(&customer, &to)?;
    }
    found.write()
}

const KINDS: [IdentifierKind; 5] = [
    IdentifierKind::Email,
    IdentifierKind::Phone,
    IdentifierKind::UserId,
    IdentifierKind::DirectoryObjectId,
    IdentifierKind::CustomerKey,
];

impl Backend for Files {
    fn can_tell_held_keys(&self) -> bool {
        true
    }

    async fn held_keys(&self, sink: &mut KeySink) -> Result<(), BackendError> {
        for customer in self.step(Layout::customers).await? {
            for kind in KINDS {
                let whose = customer.clone();
                for identifier in self.step(move |layout| layout.held(&whose, kind)).await? {
                    sink.send(&customer, identifier).await?;
                }
            }
        }
        Ok(())
    }

    async fn find(&self, task: &LeasedTask) -> Result<Vec<u8>, BackendError> {
        let task = task.clone();
        self.step(move |layout| find(layout, &task)).await
    }

    async fn act(&self, task: &LeasedTask, match_set: &[u8]) -> Result<(), BackendError> {
        let found = Found::read(match_set)?;
        let customer = Layout::customer_folder(task)?;
        let folders = Layout::subject_folders(task)?;
        match task.action() {
            Action::Erasure => self.erase(&customer, folders, found).await,
            Action::Restriction => {
                let folders = folders_of(folders, &found);
                self.step(move |layout| {
                    for folder in folders {
                        let marker = layout.place(&customer, &format!("{folder}/{MARKER}"))?;
                        disk::mark(&marker).map_err(trouble("a folder cannot be marked"))?;
                    }
                    Ok(())
                })
                .await
            }
            Action::LiftRestriction => {
                self.step(move |layout| {
                    for folder in folders {
                        let place = layout.place(&customer, &format!("{folder}/{MARKER}"))?;
                        disk::delete(&place).map_err(trouble("a folder's mark cannot be taken off"))?;
                        if let Some(folder) = place.parent() {
                            disk::sync_folder(folder).map_err(trouble("a folder cannot be synced"))?;
                        }
                    }
                    Ok(())
                })
                .await
            }
            Action::Rectification => {
                let texts: Vec<String> = statements::of(task)?.into_iter().map(str::to_owned).collect();
                let moves = Layout::moves(task)?;
                self.step(move |layout| {
                    moves::carry_out(layout, &customer, &found, &moves)?;
                    for (text, path) in texts.iter().zip(&found.statements) {
                        let place = layout.place(&customer, path)?;
                        disk::write(&place, text.as_bytes()).map_err(trouble("a statement cannot be written"))?;
                    }
                    Ok(())
                })
                .await
            }
            // Its records are handed over instead.
            Action::Access => Ok(()),
            Action::Unspecified => Err(unknown_action()),
        }
    }

    async fn records(&self, task: &LeasedTask, match_set: &[u8], sink: RecordSink) -> Result<(), BackendError> {
        let customer = Layout::customer_folder(task)?;
        let system =
            task.name.rsplit_once("/tasks/").map(|(_, system)| format!("systems/{system}")).unwrap_or_default();
        for file in Found::read(match_set)?.files {
            let (customer, system) = (customer.clone(), system.clone());
            let record = self
                .step(move |layout| {
                    let place = layout.place(&customer, &file.path)?;
                    access::record(&system, &file.path, &place).map_err(trouble("a file cannot be read"))
                })
                .await?;
            if let Some(record) = record {
                sink.send(record).await?;
            }
        }
        Ok(())
    }

    async fn read_back(&self, task: &LeasedTask, match_set: &[u8], records: u64) -> Result<ReadBack, BackendError> {
        let found = Found::read(match_set)?;
        let task = task.clone();
        let outcome = self.step(move |layout| look_again(layout, &task, &found, records)).await?;
        let evidence = Evidence {
            kind: EvidenceKind::SystemReport.into(),
            reference: "files and folders read back".to_owned(),
            sha256: String::new(),
            time: Some(std::time::SystemTime::now().into()),
        };
        Ok(ReadBack::Done(TaskDone { outcomes: vec![outcome], evidence: Some(evidence) }))
    }
}

#[cfg(test)]
mod tests;
