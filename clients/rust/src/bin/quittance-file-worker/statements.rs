//! Art. 16: files cannot be corrected by a machine, but a supplementary statement can be laid beside them.

use quittance_client::{
    api::{LeasedTask, correction::Target},
    worker::BackendError,
};

/// The one collection of this system.
pub const COLLECTION: &str = "files";

/// The statements that are meant for this system. Anything else that is meant for it needs a person.
pub fn of(task: &LeasedTask) -> Result<Vec<&str>, BackendError> {
    let mut texts = Vec::new();
    for correction in task.corrections.iter().filter(|c| c.collection == COLLECTION) {
        match &correction.target {
            Some(Target::AppendStatement(text)) => texts.push(text.as_str()),
            _ => {
                return Err(BackendError::NeedsAttention(
                    "files cannot be corrected here: correct them by hand, then resolve the task".to_owned(),
                ));
            }
        }
    }
    if texts.is_empty() && task.identifier_changes.is_empty() {
        let reason =
            "no correction names the collection `files`: look whether the files need one, then resolve the task";
        return Err(BackendError::NeedsAttention(reason.to_owned()));
    }
    Ok(texts)
}

/// `statement-<n>.txt`, the lowest numbers that are free.
pub fn names(folder: &str, count: usize, taken: &[String]) -> Vec<String> {
    (1..).map(|n: u64| format!("{folder}/statement-{n}.txt")).filter(|path| !taken.contains(path)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use quittance_client::api::{Correction, ReplaceValue};

    use super::*;

    fn correction(collection: &str, target: Target) -> Correction {
        Correction { collection: collection.to_owned(), field: "text".to_owned(), target: Some(target) }
    }

    #[test]
    fn only_statements_are_done_here() {
        let task = |corrections| LeasedTask { corrections, ..LeasedTask::default() };
        let statement = || correction("files", Target::AppendStatement("She disagrees.".to_owned()));
        let replace = |collection| correction(collection, Target::Replace(ReplaceValue::default()));
        assert_eq!(of(&task(vec![statement(), replace("customer")])), Ok(vec!["She disagrees."]));
        assert!(of(&task(vec![statement(), replace("files")])).is_err());
        assert!(of(&task(vec![replace("customer")])).is_err());
    }

    #[test]
    fn numbers_that_are_taken_are_left_out() {
        assert_eq!(names("f", 2, &["f/statement-1.txt".to_owned()]), ["f/statement-2.txt", "f/statement-3.txt"]);
    }
}
