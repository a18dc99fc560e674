//! One witness, as a log asks it: C2SP tlog-witness, the call `add-checkpoint`.

use quittance_ledger::{
    key::VerifierKey,
    note::MAX_NOTE_BYTES,
    witness::{AddCheckpoint, Answer, read_answer, read_old_size},
};

use crate::{FetchError, HttpClient, http::OK};

const CONFLICT: u16 = 409;
/// Of the answer with which a witness tells its own size.
const SIZE_TYPE: &str = "text/x.tlog.size";

/// What a witness said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WitnessReply {
    /// Perhaps nothing but nonsense, which is counted.
    Cosigned(Answer),
    /// The latest tree that it cosigned has another size than it was told.
    OldSize(u64),
    /// A status of the specification, or any other.
    Refused(u16),
}

#[derive(Clone, Debug)]
pub struct Witness {
    client: HttpClient,
    url: String,
    key: VerifierKey,
}

impl Witness {
    /// `prefix` is the witness's submission prefix.
    pub fn new(client: HttpClient, prefix: &str, key: VerifierKey) -> Self {
        Self { client, url: format!("{}/add-checkpoint", prefix.trim_end_matches('/')), key }
    }

    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    pub async fn ask(&self, request: &AddCheckpoint) -> Result<WitnessReply, FetchError> {
        let answer = self.client.post(&self.url, request.to_string().into_bytes(), MAX_NOTE_BYTES).await?;
        if answer.status == OK {
            let keys = std::slice::from_ref(&self.key);
            return Ok(WitnessReply::Cosigned(read_answer(&answer.body, &request.checkpoint, keys)));
        }
        let size = Some(answer.body).filter(|_| answer.status == CONFLICT && answer.content_type == SIZE_TYPE);
        Ok(size
            .and_then(|body| read_old_size(&body))
            .map_or(WitnessReply::Refused(answer.status), WitnessReply::OldSize))
    }
}
