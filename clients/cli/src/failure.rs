//! How the program can end, and the words it ends with.

use std::process::ExitCode;

use quittance_client::ClientError;

/// Exit codes, as `--help` tells them.
pub const ERROR: u8 = 1;
pub const USAGE: u8 = 2;
pub const WITH_EXCEPTIONS: u8 = 3;
pub const STILL_OPEN: u8 = 4;

/// Why a command did not do what it was asked. Never holds a token or an identifier's value.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command line, or a file that it names, is not right.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Other(String),
    /// Nobody reads our output any more, as in `quittance … | head`. Nothing is wrong.
    #[error("the output was closed")]
    OutputClosed,
    #[error("the output cannot be written: {0}")]
    Output(std::io::Error),
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Client(status.into())
    }
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::OutputClosed => 0,
            Self::Client(_) | Self::Other(_) | Self::Output(_) => ERROR,
        }
    }
}

/// How a command that went through ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Fine,
    /// It ran, and found or left something wrong; that was told already.
    Wrong,
    WithExceptions,
    StillOpen,
}

impl End {
    /// It counts, though nobody has read on to it: who pipes our output through `head` goes by how we end.
    pub fn after(self, shown: Result<(), Failure>) -> Done {
        match shown {
            Ok(()) | Err(Failure::OutputClosed) => Ok(self),
            Err(failure) => Err(failure),
        }
    }
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(match end {
            End::Fine => 0,
            End::Wrong => ERROR,
            End::WithExceptions => WITH_EXCEPTIONS,
            End::StillOpen => STILL_OPEN,
        })
    }
}

pub type Done = Result<End, Failure>;
