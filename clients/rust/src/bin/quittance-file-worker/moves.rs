//! Art. 16: a changed identifier. Folders bear the subject's identifiers, so its files go to the folder of the new one.

use quittance_client::{api::LeasedTask, worker::BackendError};

use crate::{
    disk,
    found::Found,
    layout::{Layout, MARKER, Move, trouble},
};

fn occupied() -> BackendError {
    let reason = "files are kept under the new identifier already: look whose they are, then move them by hand";
    BackendError::NeedsAttention(reason.to_owned())
}

/// Before anything is moved: two persons' files are not thrown together. An earlier attempt has looked already.
pub fn check(layout: &Layout, customer: &str, task: &LeasedTask, moves: &[Move]) -> Result<(), BackendError> {
    for Move { from, to } in moves.iter().filter(|_| task.match_set.is_empty()) {
        if !layout.files_in(customer, from)?.is_empty() && !layout.files_in(customer, to)?.is_empty() {
            return Err(occupied());
        }
    }
    Ok(())
}

/// Moves what is not moved yet.
pub fn carry_out(layout: &Layout, customer: &str, found: &Found, moves: &[Move]) -> Result<(), BackendError> {
    for (from, to) in paths(found, moves) {
        if layout.is_there(customer, &from)? {
            if layout.is_there(customer, &to)? {
                return Err(occupied());
            }
            disk::rename(&layout.place(customer, &from)?, &layout.place(customer, &to)?)
                .map_err(trouble("a file cannot be moved"))?;
        }
    }
    for Move { from, to } in moves {
        let marker = |folder: &str| format!("{folder}/{MARKER}");
        if layout.is_there(customer, &marker(from))? {
            disk::rename(&layout.place(customer, &marker(from))?, &layout.place(customer, &marker(to))?)
                .map_err(trouble("a restriction's marker cannot be moved"))?;
        }
        disk::delete_empty_folders(&layout.place(customer, from)?).map_err(trouble("a folder cannot be deleted"))?;
    }
    Ok(())
}

/// How many files are where they belong now. `None` where one is not, or where more have come.
pub fn look_again(layout: &Layout, customer: &str, found: &Found, moves: &[Move]) -> Result<Option<u64>, BackendError> {
    for Move { from, .. } in moves {
        if !layout.files_in(customer, from)?.is_empty() {
            return Ok(None);
        }
    }
    let mut moved = 0;
    for (_, to) in paths(found, moves) {
        if !layout.is_there(customer, &to)? {
            return Ok(None);
        }
        moved += 1;
    }
    Ok(Some(moved))
}

/// From where to where, for each found file that moves.
pub fn paths(found: &Found, moves: &[Move]) -> Vec<(String, String)> {
    let to = |path: &str| moves.iter().find_map(|m| m.of(path));
    found.files.iter().filter_map(|file| Some((file.path.clone(), to(&file.path)?))).collect()
}
