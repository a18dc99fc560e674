use std::{fs, path::Path};

use quittance_client::api::{Correction, Identifier, IdentifierKind, IdentifierReplacement, correction::Target};
use tempfile::TempDir;

use super::*;

const FOLDER: &str = "acme/email/anna%40example.com";

fn put(root: &TempDir, path: &str, content: &str) {
    let place = root.path().join(path);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(place, content).unwrap();
}

fn files(root: &TempDir) -> Files {
    Files::new(Layout::open(root.path()).unwrap(), Duration::ZERO)
}

fn task(action: Action) -> LeasedTask {
    LeasedTask {
        name: "customers/acme/requests/0/tasks/exports".to_owned(),
        action: action.into(),
        customer_key: "acme".to_owned(),
        identifiers: vec![Identifier { kind: IdentifierKind::Email.into(), value: "anna@example.com".to_owned() }],
        ..LeasedTask::default()
    }
}

async fn done(files: &Files, task: &LeasedTask, match_set: &[u8]) -> (OutcomeKind, u64) {
    let ReadBack::Done(done) = files.read_back(task, match_set, 0).await.unwrap() else { panic!("must be done") };
    (done.outcomes[0].outcome(), done.outcomes[0].count)
}

async fn all(files: &Files, task: &LeasedTask) -> (OutcomeKind, u64) {
    let match_set = files.find(task).await.unwrap();
    files.act(task, &match_set).await.unwrap();
    done(files, task, &match_set).await
}

fn there(root: &TempDir, path: &str) -> bool {
    Path::exists(&root.path().join(path))
}

#[tokio::test]
async fn an_erasure_takes_the_subjects_files_and_no_others() {
    let root = TempDir::new().unwrap();
    put(&root, &format!("{FOLDER}/a.txt"), "a");
    put(&root, &format!("{FOLDER}/deep/er/b.txt"), "b");
    put(&root, &format!("{FOLDER}/{MARKER}"), "");
    put(&root, "acme/email/ben%40example.com/c.txt", "c");
    put(&root, "other/email/anna%40example.com/d.txt", "d");
    assert_eq!(all(&files(&root), &task(Action::Erasure)).await, (OutcomeKind::Erased, 2));
    assert!(!there(&root, FOLDER));
    assert!(there(&root, "acme/email/ben%40example.com/c.txt"));
    assert!(there(&root, "other/email/anna%40example.com/d.txt"));
    assert_eq!(all(&files(&root), &task(Action::Erasure)).await, (OutcomeKind::NotHeld, 0));
}

#[tokio::test]
async fn a_rerun_counts_what_the_first_attempt_erased() {
    let root = TempDir::new().unwrap();
    for name in ["a", "b", "c"] {
        put(&root, &format!("{FOLDER}/{name}"), name);
    }
    let files = files(&root);
    let mut task = task(Action::Erasure);
    task.match_set = files.find(&task).await.unwrap();
    // The crash: one file is gone, and another came.
    fs::remove_file(root.path().join(format!("{FOLDER}/a"))).unwrap();
    put(&root, &format!("{FOLDER}/d"), "d");
    assert_eq!(all(&files, &task).await, (OutcomeKind::Erased, 4));
}

#[tokio::test]
async fn a_file_that_comes_meanwhile_is_no_confirmation() {
    let root = TempDir::new().unwrap();
    put(&root, &format!("{FOLDER}/a"), "a");
    let files = files(&root);
    let task = task(Action::Erasure);
    let match_set = files.find(&task).await.unwrap();
    put(&root, &format!("{FOLDER}/b"), "b");
    files.act(&task, &match_set).await.unwrap();
    assert!(matches!(files.read_back(&task, &match_set, 0).await, Err(BackendError::Retry(_))));
    assert!(there(&root, &format!("{FOLDER}/b")));
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_is_deleted_and_what_it_points_at_is_not() {
    let root = TempDir::new().unwrap();
    put(&root, "elsewhere/kept", "kept");
    put(&root, &format!("{FOLDER}/a"), "a");
    std::os::unix::fs::symlink(root.path().join("elsewhere"), root.path().join(format!("{FOLDER}/link"))).unwrap();
    assert_eq!(all(&files(&root), &task(Action::Erasure)).await, (OutcomeKind::Erased, 2));
    assert!(there(&root, "elsewhere/kept"));
}

#[tokio::test]
async fn a_match_set_cannot_reach_another_customer() {
    let root = TempDir::new().unwrap();
    put(&root, "other/email/x/secret", "s");
    let files = files(&root);
    let mut task = task(Action::Erasure);
    for path in ["other/email/x/secret", "acme/../other/email/x/secret"] {
        task.match_set = format!(r#"{{"files":[{{"path":"{path}","size":1}}]}}"#).into_bytes();
        assert!(matches!(files.find(&task).await, Err(BackendError::NeedsAttention(_))));
        assert!(files.act(&task, &task.match_set).await.is_err());
    }
    assert!(there(&root, "other/email/x/secret"));
}

#[tokio::test]
async fn a_restriction_is_marked_and_lifted() {
    let root = TempDir::new().unwrap();
    put(&root, &format!("{FOLDER}/a"), "a");
    let files = files(&root);
    assert_eq!(all(&files, &task(Action::Restriction)).await, (OutcomeKind::Restricted, 1));
    assert!(there(&root, &format!("{FOLDER}/{MARKER}")));
    let mut lift = task(Action::LiftRestriction);
    lift.match_set = files.find(&lift).await.unwrap();
    files.act(&lift, &lift.match_set).await.unwrap();
    // The rerun finds no mark and says what was done all the same.
    assert_eq!(all(&files, &lift).await, (OutcomeKind::RestrictionLifted, 1));
    assert!(!there(&root, &format!("{FOLDER}/{MARKER}")));
    assert_eq!(all(&files, &task(Action::LiftRestriction)).await, (OutcomeKind::RestrictionLifted, 0));
}

#[tokio::test]
async fn a_statement_is_laid_beside_the_files_once() {
    let root = TempDir::new().unwrap();
    let mut task = task(Action::Rectification);
    let target = Some(Target::AppendStatement("She disagrees.".to_owned()));
    task.corrections = vec![Correction { collection: "files".to_owned(), field: "text".to_owned(), target }];
    let files = files(&root);
    assert_eq!(all(&files, &task).await, (OutcomeKind::NotHeld, 0));
    put(&root, &format!("{FOLDER}/statement-1.txt"), "an earlier one");
    task.match_set = files.find(&task).await.unwrap();
    files.act(&task, &task.match_set).await.unwrap();
    assert_eq!(all(&files, &task).await, (OutcomeKind::Rectified, 1));
    assert_eq!(fs::read_to_string(root.path().join(format!("{FOLDER}/statement-2.txt"))).unwrap(), "She disagrees.");
    assert!(!there(&root, &format!("{FOLDER}/statement-3.txt")));
}

#[tokio::test]
async fn files_follow_a_changed_identifier_and_a_rerun_says_so() {
    let root = TempDir::new().unwrap();
    let identifier = |value: &str| Identifier { kind: IdentifierKind::Email.into(), value: value.to_owned() };
    let mut task = task(Action::Rectification);
    task.identifier_changes = vec![IdentifierReplacement {
        old_identifier: Some(identifier("anna@example.com")),
        new_identifier: Some(identifier("anna@example.org")),
    }];
    let files = files(&root);
    assert_eq!(all(&files, &task).await, (OutcomeKind::NotHeld, 0));
    put(&root, &format!("{FOLDER}/a.txt"), "a");
    put(&root, &format!("{FOLDER}/deep/b.txt"), "b");
    put(&root, &format!("{FOLDER}/{MARKER}"), "");
    put(&root, "acme/email/ben%40example.com/c.txt", "c");
    // The crash: after the act, before the report.
    task.match_set = files.find(&task).await.unwrap();
    files.act(&task, &task.match_set).await.unwrap();
    assert_eq!(all(&files, &task).await, (OutcomeKind::Rectified, 2));
    let new = "acme/email/anna%40example.org";
    assert!(
        !there(&root, FOLDER) && there(&root, &format!("{new}/deep/b.txt")) && there(&root, &format!("{new}/{MARKER}"))
    );
    assert!(there(&root, "acme/email/ben%40example.com/c.txt"));
}

#[tokio::test]
async fn files_of_two_persons_are_not_thrown_together() {
    let root = TempDir::new().unwrap();
    put(&root, &format!("{FOLDER}/a"), "a");
    put(&root, "acme/email/ben%40example.com/a", "b");
    let identifier = |value: &str| Identifier { kind: IdentifierKind::Email.into(), value: value.to_owned() };
    let mut task = task(Action::Rectification);
    task.identifier_changes = vec![IdentifierReplacement {
        old_identifier: Some(identifier("anna@example.com")),
        new_identifier: Some(identifier("ben@example.com")),
    }];
    assert!(matches!(files(&root).find(&task).await, Err(BackendError::NeedsAttention(_))));
    assert!(there(&root, &format!("{FOLDER}/a")));
}
