//! The one way in for instructions: single, streamed, referred.

use std::{collections::BTreeSet, sync::Arc};

use quittance_api::v1;
use quittance_domain::{
    action::{Correction, CorrectionTarget, IdentifierChange},
    agreement::Agreement,
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, SystemId},
    request::{NewRequest, Notice},
    system::{System, SystemRole},
};
use quittance_store::{Intake, IntakeContext, IntakeItem, Said, StoreError, StoreResult, Topology};

use crate::{
    app::{App, check_countries},
    convert::{idempotency, new_request, required},
    error::{ApiError, ApiResult},
};

/// Systems or the agreement may change while a chunk is prepared; more often than this they do not.
pub const RULES_TRIES: u32 = 5;

/// Reads one instruction and checks it against the customer's systems.
pub fn read_item(
    app: &App,
    desk: &Desk,
    rules: &Rules,
    request_id: &str,
    request: Option<&v1::Request>,
    referred: Option<String>,
) -> ApiResult<Intake> {
    let idempotency = idempotency(request_id, "request_id")?;
    let sent = required(request, "request")?;
    let mut request = new_request(sent, app.now(), "request")?;
    check_corrections(&desk.customer, &rules.topology, &mut request)?;
    request.notices = notices(&desk.customer, &rules.agreement, &rules.topology, &sent.notify_recipients)?;
    request.check(app.now()).map_err(|e| ApiError::from(e).below("request"))?;
    Ok(Intake { idempotency, request, referred })
}

/// An instruction that may be looked for among those that were taken in before.
pub struct Sent<'a> {
    pub request_id: &'a str,
    pub request: Option<&'a v1::Request>,
    pub referred: Option<&'a str>,
}

/// Whether what is refused today was taken in before, for each that can be read at all. A repetition is answered as the first one was (I2),
/// though the agreement or the data maps have changed since and would not let it be read as it was.
pub async fn taken_in_before(app: &App, desk: &Desk, refused: &[Sent<'_>]) -> ApiResult<Vec<Option<IntakeItem>>> {
    let read = |sent: &Sent<'_>| {
        let request = sent.request?;
        let id = idempotency(sent.request_id, "request_id").ok()?;
        Some((id, new_request(request, app.now(), "request").ok()?))
    };
    let read: Vec<_> = refused.iter().map(read).collect();
    let mut said = Vec::with_capacity(refused.len());
    for (sent, read) in refused.iter().zip(&read) {
        if let (Some((id, request)), Some(asked)) = (read, sent.request) {
            let recipients = asked.notify_recipients.iter().map(String::as_str).collect();
            said.push((*id, Said { request, referred: sent.referred, recipients }));
        }
    }
    let mut known = app.store.repeated(&desk.customer, &said).await?.into_iter();
    Ok(read.iter().map(|read| read.as_ref().and_then(|_| known.next().flatten())).collect())
}

/// Who is to be told, and by which system. Whom we cannot tell is refused, lest the customer think that we did.
pub fn notices(
    customer: &CustomerId,
    agreement: &Agreement,
    topology: &Topology,
    names: &[String],
) -> ApiResult<Vec<Notice>> {
    let mut notices = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let refused = |why: &str| ApiError::field(format!("request.notify_recipients[{i}]"), why);
        let recipient = agreement.recipients.iter().find(|r| r.id.as_str() == name);
        let recipient = recipient.ok_or_else(|| refused("is no recipient of the agreement in force"))?;
        let by_itself = "the agreement names no system by which it can be told: tell it yourself";
        let system = recipient.system.as_ref().ok_or_else(|| refused(by_itself))?;
        let tells = |s: &Arc<System>| s.role == SystemRole::Recipient && s.customer_key(customer).is_some();
        if !topology.system(system).is_some_and(tells) {
            return Err(refused("its system is not registered for the customer with role RECIPIENT"));
        }
        let notice = Notice { recipient: recipient.id.clone(), system: system.clone() };
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }
    notices.sort();
    Ok(notices)
}

/// A correction names a field that some system of the customer's maps, and lets be corrected. Where that field is an identifier, the
/// change is noted on the request.
pub fn check_corrections(customer: &CustomerId, topology: &Topology, request: &mut NewRequest) -> ApiResult<()> {
    let mine: Vec<_> = topology.systems.iter().filter(|s| s.holds_data_of(customer)).collect();
    let mut changes: Vec<IdentifierChange> = Vec::new();
    for (i, c) in request.corrections.iter().enumerate() {
        let at = |name: &str| format!("request.corrections[{i}].{name}");
        let mapping: Vec<_> = mine.iter().filter(|s| s.map.collection(&c.collection).is_some()).collect();
        let collections: Vec<_> = mapping.iter().filter_map(|s| s.map.collection(&c.collection)).collect();
        if collections.is_empty() {
            return Err(ApiError::field(at("collection"), "is in no system's data map"));
        }
        let fields: Vec<_> = collections.iter().filter_map(|col| col.field(&c.field).map(|f| (*col, f))).collect();
        if fields.is_empty() {
            return Err(ApiError::field(at("field"), "is in no system's data map"));
        }
        let Some((collection, _)) = fields.iter().find(|(_, f)| f.rectify) else {
            return Err(ApiError::field(at("field"), "the data map does not let it be corrected"));
        };
        if let CorrectionTarget::Record { key, .. } = &c.target
            && !collection.key.is_empty()
            && key.len() != collection.key.len()
        {
            return Err(ApiError::field(at("record.key"), format!("the key has {} values", collection.key.len())));
        }
        let named_at = |kind| -> BTreeSet<SystemId> {
            let named = mapping.iter().filter(|s| s.map.identifier_kinds(&c.collection, &c.field).contains(&kind));
            named.map(|s| s.id.clone()).collect()
        };
        let kinds: BTreeSet<IdentifierKind> =
            mapping.iter().flat_map(|s| s.map.identifier_kinds(&c.collection, &c.field)).collect();
        for kind in kinds {
            if let Some(change) = identifier_change(c, kind, named_at(kind), &at)? {
                check_unambiguous(&changes, &change, &at("replace"))?;
                changes.push(change);
            }
        }
    }
    request.identifier_changes = changes;
    Ok(())
}

/// What a correction makes of an identifier. Nothing, where it only writes the same one in another way.
fn identifier_change(
    c: &Correction,
    kind: IdentifierKind,
    named_at: BTreeSet<SystemId>,
    at: &impl Fn(&str) -> String,
) -> ApiResult<Option<IdentifierChange>> {
    let (old, new) = match &c.target {
        CorrectionTarget::Replace { old, new } => (old, new),
        CorrectionTarget::Record { .. } => {
            let message = "the field is an identifier: say with replace what it was, so that other systems can follow";
            return Err(ApiError::field(at("record"), message));
        }
        CorrectionTarget::Append { .. } => {
            return Err(ApiError::field(
                at("append_statement"),
                "the field is an identifier: nothing is appended to it",
            ));
        }
    };
    let new = Identifier::normalise(kind, new).map_err(|e| ApiError::field(at("replace.new_value"), e))?;
    let old = Identifier::normalise(kind, old).ok();
    if old.as_ref() == Some(&new) {
        return Ok(None);
    }
    let (collection, field) = (c.collection.clone(), c.field.clone());
    Ok(Some(IdentifierChange { kind, collection, field, old, new, named_at }))
}

/// One identifier becomes one other, and no other becomes it meanwhile: or what is carried would depend on who comes first.
fn check_unambiguous(known: &[IdentifierChange], change: &IdentifierChange, field: &str) -> ApiResult<()> {
    let chains = |a: &IdentifierChange, b: &IdentifierChange| a.old.as_ref() == Some(&b.new);
    for other in known {
        if change.old.is_some() && other.old == change.old && other.new != change.new {
            return Err(ApiError::field(field, "another correction makes something else of the same identifier"));
        }
        if chains(other, change) || chains(change, other) {
            return Err(ApiError::field(
                field,
                "another correction changes this identifier too: send them one after the other",
            ));
        }
    }
    Ok(())
}

/// What instructions are read and planned by. The store looks whether both still are what holds.
pub struct Rules {
    pub agreement: Arc<Agreement>,
    pub topology: Arc<Topology>,
}

impl Rules {
    /// As they were a moment ago; where they do not go together, as they are now: one of the two has changed since.
    pub async fn known(app: &App, customer: &CustomerId) -> ApiResult<Self> {
        let known = Self { agreement: app.known_agreement(customer).await?, topology: app.topology.get().await? };
        match check_countries(customer, &known.agreement, &known.topology) {
            Ok(()) => Ok(known),
            Err(_) => Self::present(app, customer).await,
        }
    }

    /// As they are now. For whoever refuses something for what is not known: another replica may have changed them a moment ago.
    pub async fn present(app: &App, customer: &CustomerId) -> ApiResult<Self> {
        Ok(Self { agreement: app.agreement(customer).await?, topology: app.topology.present().await? })
    }

    pub fn are(&self, others: &Self) -> bool {
        self.agreement.version == others.agreement.version && self.topology.generation == others.topology.generation
    }
}

/// Who takes instructions in, and whose.
pub struct Desk {
    pub customer: CustomerId,
    pub by: String,
}

impl Desk {
    /// Takes one in, and gives it as the API does. It is read anew where the rules have changed since: whom a new agreement does not name
    /// any more is not told by the old one.
    pub async fn take_one(&self, app: &App, read: impl Fn(&Rules) -> ApiResult<Intake>) -> ApiResult<v1::Request> {
        let mut rules = Rules::known(app, &self.customer).await?;
        let mut item = match read(&rules) {
            Ok(item) => item,
            Err(_) => {
                rules = Rules::present(app, &self.customer).await?;
                read(&rules)?
            }
        };
        app.dispatch.single_came();
        for _ in 0..RULES_TRIES {
            match by_these_rules(app, app.store.create_request(&self.context(app, &rules)?, &item).await)? {
                Some((request, tasks)) => {
                    return app.shown(&self.customer, &request, &tasks, Some(&rules.agreement)).await;
                }
                None => {
                    rules = Rules::present(app, &self.customer).await?;
                    item = read(&rules)?;
                }
            }
        }
        Err(rules_change())
    }

    pub fn context<'a>(&'a self, app: &App, rules: &'a Rules) -> ApiResult<IntakeContext<'a>> {
        check_countries(&self.customer, &rules.agreement, &rules.topology)?;
        Ok(IntakeContext {
            customer: &self.customer,
            by: &self.by,
            now: app.now(),
            agreement: &rules.agreement,
            topology: &rules.topology,
        })
    }
}

/// `None`: they changed meanwhile. Then what is to be taken in is read anew.
pub fn by_these_rules<T>(app: &App, taken: StoreResult<T>) -> ApiResult<Option<T>> {
    match taken {
        Err(StoreError::WrongState(_) | StoreError::AgreementChanged) => Ok(None),
        taken => {
            app.dispatch.wake();
            Ok(Some(taken?))
        }
    }
}

pub fn rules_change() -> ApiError {
    ApiError::Unavailable("systems or the agreement are being changed: try again".to_owned())
}
