//! What a verified certificate is worth: what was checked, and what no check of the file can tell. Both in plain sentences.

use std::fmt;

use quittance_ledger::{
    Hex,
    certificate::{Certificate, Checked},
    key::{KeyId, KeyName},
};

use crate::tlog_proof::write_time;

/// What kind of file it is. The format is one: which of these it is follows from its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DocumentKind {
    Certificate,
    /// The request was open when it was issued.
    InterimStatement,
    /// The request was declined or cancelled: what had been done before.
    ClosingStatement,
}

/// A file that was verified. It holds its words as well: nothing else of the file needs to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub kind: DocumentKind,
    /// Of the whole file.
    pub sha256: Hex<32>,
    pub certificate: Certificate,
    pub checked: Vec<Fact>,
    pub unchecked: Vec<Gap>,
}

/// Something that was checked and is true, given the policy's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    Canonical,
    Signed { kind: DocumentKind, key: String },
    KeyHistory { keys: usize },
    Statement { kind: DocumentKind, consistent: Checked },
    Inclusion { entries: usize, log: KeyName },
    Head { size: u64, key: KeyId },
    Cosignature { witness: KeyName, key: KeyId, size: u64, at_s: u64, trusted: bool },
    Witnesses { required: usize },
    Attested { entries: usize },
    Subject { identifiers: usize },
}

/// Something that the file, or the keys handed in, cannot tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gap {
    AssertedTimes,
    NotAttested {
        entries: usize,
        of: usize,
    },
    SignatureAlone(&'static str),
    NoWitness,
    WitnessOfTheFile(KeyName),
    SilentWitness(KeyName),
    UnknownSignatures(usize),
    HeadsNotLinked {
        heads: usize,
    },
    /// Handed in, called revoked by the file, and needed for nothing.
    RevokedKey(KeyId),
    Revocation,
    OtherEntries,
    Deeds,
    Subject,
    /// It was made without identifiers: there is no opening of it.
    SubjectOfFollowed,
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::InterimStatement => "interim statement",
            Self::ClosingStatement => "statement of what was done",
        })
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Canonical => {
                f.write_str("the file is whole: nothing was changed, added, cut or reordered since it was signed")
            }
            Self::Signed { kind, key } => write!(f, "the {kind} is signed by the key {key}, which was handed in"),
            Self::KeyHistory { keys } => {
                write!(f, "the file's own history of {keys} keys, a hint only, does not speak against that key")
            }
            Self::Statement { kind, consistent } => write!(
                f,
                "the {kind} says what its {} log entries say, recomputed from payload and salt: {} systems, {} confirmations, {} outcomes",
                consistent.entries, consistent.systems, consistent.confirmations, consistent.outcomes
            ),
            Self::Inclusion { entries, log } => {
                write!(f, "each of the {entries} entries is in the log {log}, at a place of its own")
            }
            Self::Head { size, key } => {
                write!(f, "the checkpoint of the log at {size} entries is signed by the log (key {key})")
            }
            Self::Cosignature { witness, key, size, at_s, trusted } => {
                write!(f, "the checkpoint at {size} entries is cosigned by the witness {witness} (key {key}) at ")?;
                write_time(f, *at_s)?;
                f.write_str(if *trusted { "" } else { ", by the key that the file gives for it" })
            }
            Self::Witnesses { required } => {
                write!(f, "each checkpoint is cosigned by at least {required} of the witnesses that were handed in")
            }
            Self::Attested { entries } => {
                write!(f, "{entries} entries bear a witness's time, and a cosignature in their proofs says so")
            }
            Self::Subject { identifiers } => {
                write!(f, "the subject opening opens it: it is about the person with these {identifiers} identifiers")
            }
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AssertedTimes => f.write_str(
                "times called ASSERTED are the issuer's own word, those called CUSTOMER the customer's; a witness's time says only that \
                 the entry existed by then",
            ),
            Self::NotAttested { entries, of } => {
                write!(f, "{entries} of {of} entries bear no witness's time: all times in them are only asserted")
            }
            Self::SignatureAlone(what) => write!(f, "{what}: no log entry says it, the issuer's signature alone covers it"),
            Self::NoWitness => f.write_str(
                "no witness cosigned: that everybody sees the same log, and when an entry was in it, rests on the log's word",
            ),
            Self::WitnessOfTheFile(witness) => {
                write!(
                    f,
                    "the key that the file gives for the witness {witness} was not handed in: that this is its key is the issuer's word"
                )
            }
            Self::SilentWitness(witness) => write!(f, "the witness {witness} has not cosigned"),
            Self::UnknownSignatures(1) => f.write_str("one signature under a checkpoint is of an unknown key"),
            Self::UnknownSignatures(count) => write!(f, "{count} signatures under checkpoints are of unknown keys"),
            Self::HeadsNotLinked { heads } => {
                write!(f, "the file has checkpoints of {heads} sizes; that one tree grew from the other is not proven in it")
            }
            Self::RevokedKey(key) => {
                write!(f, "the key {key} was handed in, and the file calls it revoked: no signature of it was counted")
            }
            Self::Revocation => f.write_str("whether a key was revoked after the file was issued: ask its issuer, and others"),
            Self::OtherEntries => {
                f.write_str("whether the log holds more entries about this request, which the file leaves out")
            }
            Self::Deeds => f.write_str(
                "what the systems really did: each confirmation tells its evidence and grade, and whose word it is",
            ),
            Self::Subject => f.write_str("whom it is about: that takes the subject opening, which the customer holds"),
            Self::SubjectOfFollowed => f.write_str(
                "whom it is about: it carries on another request, named in `follows`, and that one's subject opening tells",
            ),
        }
    }
}
