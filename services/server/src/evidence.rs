//! What is issued of a request: its certificate, an interim statement, the opening of its subject.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quittance_document::Language;
use quittance_domain::{
    Timestamp,
    action::Action,
    ids::{CustomerId, RequestId, SystemId},
    request::RequestState,
    task::TaskState,
};
use quittance_ledger::{
    Event, Hex, RecordedEvent,
    certificate::{
        AgreementTerms, CertificateInput, Customer, EntryOpening, Issuer, LogKeys, OpenTask, SubjectOpening,
        SystemDescription, TrustedKey, WitnessKey, issue, open,
    },
    key::VerifierKey,
    proof::{inclusion, inclusion_tiles, verify_inclusion},
    tlog_proof::TlogProof,
    tree::MerkleHash,
};
use quittance_sequencer::{LogKeyRing, fetch};
use quittance_store::{IssuedCertificate, LedgerEntryRow, RequestRow, StoreError, SubjectSecrets, TaskRow};

use crate::{
    app::App,
    covering::{Covering, covering},
    error::{ApiError, ApiResult},
};

/// Who issues, and with which keys.
pub struct EvidenceDesk {
    pub keys: Arc<LogKeyRing>,
    /// Whose times are believed.
    pub witnesses: Vec<VerifierKey>,
    pub witnesses_required: usize,
    /// The processor, as it calls itself.
    pub processor: String,
}

/// The certificate of a request that is complete: made once, and then the same for ever, unless the key that signed it is revoked.
pub async fn certificate(app: &App, customer: &CustomerId, id: RequestId) -> ApiResult<Vec<u8>> {
    let kept = app.store.certificate(customer, id).await?;
    let worthless = match kept {
        Some(kept) if is_by_revoked_key(app, &kept.content)? => Some(kept),
        Some(kept) => return Ok(kept.content),
        None => None,
    };
    let (request, tasks) = app.store.request(customer, id).await?;
    if !is_complete(&request) {
        return Err(match request.state {
            RequestState::Declined | RequestState::Cancelled => ApiError::WrongState(
                "the request was declined or cancelled, and has no certificate: GetInterimStatement states what had been done before".to_owned(),
            ),
            _ => ApiError::CertificateNotIssued,
        });
    }
    app.not_halted()?;
    let mut finished_at = request.closed_at;
    // What is withheld is part of it. Where nobody has said, and the package is forgotten, nothing was handed out of it.
    if request.action == Action::Access && request.forgotten_at.is_none() {
        let package = app.store.package(customer, id).await?;
        if package.third_party > 0 && package.released_at.is_none() {
            return Err(ApiError::PackageAwaitingReview);
        }
        finished_at = finished_at.max(package.released_at);
    }
    let content = sign(app, customer, &request, &tasks, finished_at).await?.ok_or(ApiError::CertificateNotIssued)?;
    let issued = IssuedCertificate { content, issued_at: app.now() };
    let stands = match worthless {
        Some(old) => app.store.replace_certificate(customer, id, &old, issued).await?,
        None => app.store.keep_certificate(customer, id, issued).await?,
    };
    Ok(stands.content)
}

const fn is_complete(request: &RequestRow) -> bool {
    matches!(request.state, RequestState::Completed | RequestState::CompletedWithExceptions)
}

fn is_by_revoked_key(app: &App, file: &[u8]) -> ApiResult<bool> {
    let revoked = app.evidence.keys.revoked().map_err(|e| ApiError::Internal(format!("the log's keys: {e}")))?;
    if revoked.is_empty() {
        return Ok(false);
    }
    let revoked: Vec<TrustedKey> = revoked.iter().map(TrustedKey::from).collect();
    Ok(open(file, &revoked).is_ok())
}

/// How a request stands, or, of one that was declined or cancelled, what had been done; signed. `None`: the log does not cover its entries
/// yet, or is halted; or the request is complete, and has a certificate.
pub async fn interim(app: &App, customer: &CustomerId, id: RequestId) -> ApiResult<Option<Vec<u8>>> {
    let (request, tasks) = app.store.request(customer, id).await?;
    if is_complete(&request) {
        return Ok(None);
    }
    sign(app, customer, &request, &tasks, request.closed_at).await
}

/// For the customer alone. Empty once the request's data are forgotten, or where they cannot be opened, or where nobody was named: the
/// certificate stands without.
pub async fn subject_opening(app: &App, customer: &CustomerId, id: RequestId) -> ApiResult<Vec<u8>> {
    let subject = match app.store.subject(customer, id).await {
        Ok(Some(subject)) => subject,
        Ok(None) => return Ok(Vec::new()),
        Err(error @ (StoreError::NoEpochKey(_) | StoreError::Unsealable(_))) => {
            tracing::error!(%customer, request = %id, %error, "whom a certificate is about cannot be opened");
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let Some(opening) = opening_of(customer, id, &subject) else { return Ok(Vec::new()) };
    let file = opening.write().map_err(|e| ApiError::Internal(e.to_string()))?;
    Ok(file.to_vec())
}

/// `None` of a request that carries on what was kept: it was made without identifiers, and tells by `follows` whom it is about.
fn opening_of(customer: &CustomerId, id: RequestId, subject: &SubjectSecrets) -> Option<SubjectOpening> {
    let instructed = subject.instructed();
    let named = || SubjectOpening::new(customer.clone(), id, subject.commitment_salt, instructed);
    (!instructed.is_empty()).then(named)
}

/// The certificate on paper. Half a second of work for the largest: not on the threads that serve.
pub async fn document(app: &App, certificate: Vec<u8>, language: Language) -> ApiResult<Vec<u8>> {
    let internal = |e: String| ApiError::Internal(format!("a certificate could not be rendered: {e}"));
    let keys = app.evidence.keys.clone();
    let rendered = tokio::task::spawn_blocking(move || {
        // Reads the history that other replicas write.
        let known = keys.known_now().map_err(|e| e.to_string())?;
        let trusted: Vec<TrustedKey> = known.keys().iter().map(TrustedKey::from).collect();
        quittance_document::render(&certificate, &trusted, language).map_err(|e| e.to_string())
    });
    rendered.await.map_err(|e| internal(e.to_string()))?.map_err(internal)
}

/// The file, as things stand. `None`: the log does not cover its entries yet, or is halted, or none of its keys has begun by our clock: then
/// nothing is signed. Witnesses are given a while from `finished_at` on, when the last of what it tells happened.
pub async fn sign(
    app: &App,
    customer: &CustomerId,
    request: &RequestRow,
    tasks: &[TaskRow],
    finished_at: Option<Timestamp>,
) -> ApiResult<Option<Vec<u8>>> {
    if app.not_halted().is_err() {
        return Ok(None);
    }
    let rows = app.store.ledger_entries(customer, request.id).await?;
    let Some((entries, witnesses)) = openings(app, &rows, finished_at).await? else { return Ok(None) };
    let about = app.store.customer(customer).await?;
    let versions = app.store.list_agreements(customer).await?;
    let planned_under = |a: &&quittance_domain::agreement::Agreement| i64::from(a.version) == request.agreement_version;
    let agreement = versions.iter().find(planned_under).unwrap_or(&about.agreement);
    let issued_at = app.now();
    let Some(signer) = app.evidence.keys.signer_at(issued_at) else {
        tracing::warn!(%customer, request = %request.id, "nothing is signed: by this clock no key of the log has begun");
        return Ok(None);
    };
    let input = CertificateInput {
        issued_at,
        issuer: Issuer {
            name: app.evidence.processor.clone(),
            deployment: app.evidence.keys.origin().as_str().to_owned(),
        },
        customer: Customer::new(customer.clone(), about.display_name.clone(), &agreement.facts),
        agreement: AgreementTerms {
            version: agreement.version,
            signed: agreement.signed_at,
            window_days: agreement.window_days,
            time_zone: agreement.time_zone.clone(),
        },
        systems: systems(app, &entries).await?,
        open: open_tasks(tasks),
        entries,
        log: LogKeys {
            origin: app.evidence.keys.origin().as_str().to_owned(),
            keys: app.evidence.keys.history().to_vec(),
            witnesses,
        },
    };
    issue(input, signer)
        .map(Some)
        .map_err(|fault| ApiError::Internal(format!("a certificate could not be issued: {fault}")))
}

/// Each entry with its proof under the checkpoint that covers them, and the witnesses that signed it; `None` while there is none.
async fn openings(
    app: &App,
    rows: &[LedgerEntryRow],
    finished_at: Option<Timestamp>,
) -> ApiResult<Option<(Vec<EntryOpening>, Vec<WitnessKey>)>> {
    let placed: Option<Vec<u64>> = rows.iter().map(|row| row.index).collect();
    let Some(indices) = placed else { return Ok(None) };
    let Some(last) = indices.iter().max().copied() else { return Ok(None) };
    let Some(Covering { signed, attested, witnesses }) = covering(app, last, finished_at).await? else {
        return Ok(None);
    };
    let internal = |e: String| ApiError::Internal(format!("the log cannot be proven: {e}"));
    let size = signed.head.size;
    let mut tiles = BTreeSet::new();
    for index in &indices {
        tiles.extend(inclusion_tiles(*index, size).map_err(|e| internal(e.to_string()))?);
    }
    let tiles = fetch(&app.store, tiles).await?;
    let mut openings = Vec::with_capacity(rows.len());
    for (row, index) in rows.iter().zip(indices) {
        let hashes = inclusion(&tiles, index, size).map_err(|e| internal(e.to_string()))?;
        // What was altered meanwhile is not handed out.
        let leaf = MerkleHash::of_leaf(&row.leaf);
        verify_inclusion(&signed.head, index, &leaf, &hashes).map_err(|e| internal(e.to_string()))?;
        let proof = TlogProof { extra: None, index, hashes, checkpoint: signed.note.clone() };
        openings.push(EntryOpening {
            kind: row.kind.clone(),
            payload: String::from_utf8(row.payload.clone()).map_err(|e| internal(e.to_string()))?,
            salt: Hex(row.salt),
            leaf: Hex(row.leaf.0),
            proof: proof.to_string(),
            attested: attested.clone(),
        });
    }
    Ok(Some((openings, witnesses)))
}

/// All that were planned, by the log: of a request that was declined or cancelled, what had not begun is no task any more.
async fn systems(app: &App, entries: &[EntryOpening]) -> ApiResult<BTreeMap<SystemId, SystemDescription>> {
    let mut topology = app.topology.get().await?;
    let mut systems = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.kind == Event::PLANNED) {
        let read = RecordedEvent::read(entry.payload.as_bytes());
        let Event::Planned { systems: planned, .. } =
            read.map_err(|e| ApiError::Internal(format!("an entry of the log: {e}")))?.event
        else {
            continue;
        };
        for planned in planned {
            if topology.system(&planned.system).is_none() {
                // Registered a moment ago, by another replica.
                topology = app.topology.present().await?;
            }
            let system = topology.system(&planned.system).ok_or(ApiError::NotFound("a planned system"))?;
            systems.insert(planned.system, SystemDescription::from(&system.registration));
        }
    }
    Ok(systems)
}

fn open_tasks(tasks: &[TaskRow]) -> BTreeMap<SystemId, OpenTask> {
    let open = tasks.iter().filter(|task| task.state != TaskState::Confirmed);
    open.map(|task| (task.system.clone(), OpenTask { state: task.state, reason: task.reason.clone() })).collect()
}

#[cfg(test)]
mod tests {
    use quittance_domain::identifier::{Identifier, IdentifierKind};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_what_names_somebody_has_an_opening_and_its_reader_takes_it() {
        let mara = Identifier::normalise(IdentifierKind::Email, "mara@example.com").unwrap();
        let opening = |instructed: usize| {
            let subject = SubjectSecrets {
                identifiers: vec![mara.clone()],
                instructed,
                corrections: Vec::new(),
                identifier_changes: Vec::new(),
                words: None,
                commitment_salt: [7; 32],
            };
            opening_of(&CustomerId::new("acme").unwrap(), RequestId::new(Uuid::nil()), &subject)
        };
        let named = opening(1).unwrap();
        assert_eq!(SubjectOpening::read(&named.write().unwrap()), Ok(named));
        assert!(opening(0).is_none(), "what systems yielded is not under the commitment");
    }
}
