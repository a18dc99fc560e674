//! One module a group of commands.

pub mod customers;
pub mod evidence;
pub mod keys;
pub mod ledger;
pub mod packages;
pub mod replays;
pub mod requests;
pub mod systems;
pub mod tasks;
pub mod verify;

/// An answer without what it is about: a service that breaks its contract.
fn missing<T>(part: Option<T>) -> Result<T, crate::failure::Failure> {
    part.ok_or_else(|| {
        crate::failure::Failure::Other(
            "the service's answer is empty: check that client and service are of one version".to_owned(),
        )
    })
}
