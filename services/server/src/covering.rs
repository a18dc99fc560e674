//! Which checkpoint a request's entries are proven in: the first that witnesses have cosigned, and not the newest. So a witness's time on
//! a certificate is that of the request's completion, whenever the certificate is asked for (docs/decisions/0009).

use std::time::Duration;

use quittance_domain::Timestamp;
use quittance_ledger::{
    certificate::{Attestation, WitnessKey},
    checkpoint::{self, Cosignature, SignedHead},
    note::SignedNote,
};
use quittance_sequencer::begins_with;
use quittance_store::LogCheckpoint;

use crate::{
    app::App,
    error::{ApiError, ApiResult},
};

/// Where witnesses are asked and not required, one that answers a little later than the request completes is still waited for.
const WITNESSES_COME_WITHIN: Duration = Duration::from_secs(15);

/// A checkpoint, and whose times it bears.
pub struct Covering {
    pub signed: SignedHead,
    pub attested: Vec<Attestation>,
    pub witnesses: Vec<WitnessKey>,
}

fn unproven(error: impl std::fmt::Display) -> ApiError {
    ApiError::Internal(format!("the log cannot be proven: {error}"))
}

/// Of entries up to this one. `None`: no published checkpoint covers it yet, or the witnesses have hardly had the time to sign it.
pub async fn covering(app: &App, last: u64, finished_at: Option<Timestamp>) -> ApiResult<Option<Covering>> {
    let Some(row) = app.store.log_state().await?.checkpoint.filter(|row| last < row.size) else { return Ok(None) };
    let desk = &app.evidence;
    let keys = desk.keys.log_keys().map_err(unproven)?;
    let published = SignedHead::read(row.note.as_bytes(), &keys).map_err(unproven)?;
    // While a key is rotated, another replica may sign without the new one, which signs certificates already.
    let published = desk.keys.sign_again(&published.note).map_err(unproven)?;
    let wanted = desk.witnesses_required.max(1);
    if let Some(kept) = first_kept(app, last, wanted).await?.filter(|kept| kept.size < row.size) {
        match proven(app, &kept, &published).await? {
            // Others may have been the witnesses of that day.
            Ok(covering) if covering.witnesses.len() < wanted => {}
            Ok(covering) => return Ok(Some(covering)),
            Err(fault) => {
                tracing::error!(size = kept.size, %fault, "a checkpoint that was kept is none of this log: the newest is taken");
            }
        }
    }
    let covering = Covering::of(app, published).map_err(unproven)?;
    // Others may be its witnesses than are required today: it is published again with theirs.
    if covering.witnesses.len() < desk.witnesses_required {
        return Ok(None);
    }
    let just_finished =
        finished_at.is_some_and(|at| app.now().duration_since(at).unsigned_abs() < WITNESSES_COME_WITHIN);
    let waits = !desk.witnesses.is_empty() && covering.witnesses.is_empty() && just_finished;
    Ok((!waits).then_some(covering))
}

async fn first_kept(app: &App, last: u64, witnesses: usize) -> ApiResult<Option<LogCheckpoint>> {
    if app.evidence.witnesses.is_empty() {
        return Ok(None);
    }
    Ok(app.store.first_cosigned(last, witnesses).await?)
}

/// A row is not believed: it must be of a beginning of what is published, and of the size that it was found by. Then the keys of today sign
/// it, too, so that whoever has these alone can check it.
async fn proven(app: &App, kept: &LogCheckpoint, published: &SignedHead) -> ApiResult<Result<Covering, String>> {
    let covering = SignedNote::parse(kept.note.as_bytes())
        .map_err(|e| e.to_string())
        .and_then(|note| app.evidence.keys.sign_again(&note).map_err(|e| e.to_string()))
        .and_then(|signed| Covering::of(app, signed));
    let covering = match covering {
        Ok(covering) if covering.signed.head.size == kept.size => covering,
        Ok(covering) => return Ok(Err(format!("its note is of {} entries", covering.signed.head.size))),
        Err(fault) => return Ok(Err(fault)),
    };
    let halt = begins_with(&app.store, &covering.signed.head, &published.head).await?;
    Ok(halt.map_or(Ok(covering), |halt| Err(halt.to_string())))
}

impl Covering {
    fn of(app: &App, signed: SignedHead) -> Result<Self, String> {
        let desk = &app.evidence;
        let keys = desk.keys.log_keys().map_err(|e| e.to_string())?;
        let verified = checkpoint::verify(&signed.note, &keys, &desk.witnesses).map_err(|e| e.to_string())?;
        let attested = verified.cosignatures.iter().filter_map(attestation).collect();
        let witnesses = desk.witnesses.iter().filter(|key| verified.has_signed(key));
        let witnesses = witnesses.map(|key| WitnessKey { name: key.name().to_string(), vkey: key.to_string() });
        Ok(Self { attested, witnesses: witnesses.collect(), signed })
    }
}

/// The time of a witness's clock at which all that the checkpoint covers existed.
fn attestation(cosignature: &Cosignature) -> Option<Attestation> {
    let at = Timestamp::from_second(i64::try_from(cosignature.at_s).ok()?).ok()?;
    Some(Attestation { at, by: cosignature.witness.to_string() })
}
