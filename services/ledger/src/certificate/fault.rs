//! Why a file is not a certificate, or says what it may not say. No personal data, and no values, in any of these (I10).

use quittance_domain::{ids::SystemId, outcome::OutcomeError};

use crate::PayloadError;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateFault {
    #[error("the file is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the file does not have the form of a certificate: {0}")]
    Form(String),
    #[error("{0} is not written in the one canonical way")]
    NotCanonical(&'static str),
    #[error("there must be 1 to {0} signatures, each by another key")]
    Signatures(usize),
    #[error("signature {0} is by a key that is not trusted here")]
    UntrustedKey(usize),
    #[error("signature {0} does not hold over the certificate's bytes")]
    Signature(usize),
    #[error("the key of signature {0} is not in the certificate's own key history")]
    KeyNotInHistory(usize),
    #[error("the key that is to sign is not in use at the time of issue, the key history says")]
    SignerOutOfUse,
    #[error("signing failed")]
    Signing,
    #[error("the key history {0}")]
    KeyHistory(&'static str),
    #[error("{0} exceeds what a certificate may hold")]
    Limit(&'static str),
    #[error("entry {index}: {fault}")]
    Entry { index: usize, fault: EntryFault },
    #[error("no entry says what was instructed")]
    NoInstruction,
    #[error("it was referred, and nobody authorised it, but systems were planned")]
    NotAuthorised,
    #[error("the entries say that it was completed, and that it was declined or cancelled")]
    Closed,
    #[error("the entries say that it is complete, but {0} has not confirmed")]
    NotConfirmed(SystemId),
    #[error("the entries say that it is complete, but nothing was planned")]
    NothingPlanned,
    #[error("the state of completion does not fit what the systems confirmed")]
    CompletionState,
    #[error("what is called late does not fit the dates")]
    Late,
    #[error("nothing describes the system {0}")]
    Undescribed(SystemId),
    #[error("{0} is described, but was not planned")]
    NotPlanned(SystemId),
    #[error("how an open task stands is said of {0}, or not said of it, against what the entries say")]
    OpenTask(SystemId),
    #[error("{0} is not what the entries say")]
    Statement(&'static str),
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EntryFault {
    #[error("its leaf is not that of its payload and salt")]
    Leaf,
    #[error("its payload: {0}")]
    Payload(#[from] PayloadError),
    #[error("its kind is not its payload's")]
    Kind,
    #[error("it has no proof")]
    NoProof,
    #[error("it is of another customer or request than the first")]
    OtherRequest,
    #[error("it stands there twice")]
    Twice,
    #[error("there is another instruction before it")]
    SecondInstruction,
    #[error("there is another completion before it")]
    SecondCompletion,
    #[error("there is another end of the request before it")]
    SecondClosing,
    #[error("it ends the request as what is neither declined nor cancelled")]
    ClosingState,
    #[error("it reviews a package, and the request is none for access")]
    NoPackage,
    #[error("there is another review before it")]
    SecondReview,
    #[error("it withholds records of {0}, which has not confirmed")]
    WithholdsUnconfirmed(SystemId),
    #[error("it plans {0} again")]
    PlannedTwice(SystemId),
    #[error("it confirms {0}, which was not planned")]
    ConfirmsUnplanned(SystemId),
    #[error("it confirms {0} again")]
    ConfirmedTwice(SystemId),
    #[error("it says more than is known: {0}")]
    Overstated(#[from] OutcomeError),
    #[error("it tells of no request")]
    NoRequest,
    #[error("a time is out of range")]
    Time,
    #[error("a digest is not one")]
    Digest,
}
