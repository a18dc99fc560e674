//! Requests and tasks.

use jiff::{SignedDuration, Timestamp};
use quittance_api::v1;
use quittance_domain::{
    action::{Correction, CorrectionTarget, InstructionKind},
    agreement::Recipient,
    identifier::{Identifier, IdentifierKind},
    ids::{CustomerId, TaskKey, replay_name, request_name},
    request::{NewRequest, check_lengths},
    task::TaskState,
    window,
};
use quittance_store::{RequestRow, TaskRow, TaskWait};

use super::{
    confirmation_to,
    enums::{
        action_from, action_to, ground_from, ground_to, identifier_kind_from, identifier_kind_to, instruction_from,
        instruction_to, request_state_to, task_state_to, timeliness_to, wait_until_to,
    },
    opt_time_from, required_text, text_within, time_to,
};
use crate::error::{ApiError, ApiResult};

const VALUE_BYTES_MAX: usize = 16 << 10;

pub fn identifier_from(identifier: &v1::Identifier, field: &str) -> ApiResult<Identifier> {
    let kind = identifier_kind_from(identifier.kind, &format!("{field}.kind"))?;
    Identifier::normalise(kind, &identifier.value).map_err(|e| ApiError::field(format!("{field}.value"), e))
}

pub fn identifier_to(identifier: &Identifier) -> v1::Identifier {
    v1::Identifier { kind: identifier_kind_to(identifier.kind()), value: identifier.value().expose().clone() }
}

/// A whole instruction, valid on its own; `field` is where it stands.
pub fn new_request(r: &v1::Request, now: Timestamp, field: &str) -> ApiResult<NewRequest> {
    let at = |name: &str| format!("{field}.{name}");
    let action = action_from(r.action, &at("action"))?;
    check_lengths(r.identifiers.len(), r.corrections.len()).map_err(|e| ApiError::from(e).below(field))?;
    let mut identifiers = Vec::with_capacity(r.identifiers.len());
    for (i, identifier) in r.identifiers.iter().enumerate() {
        let identifier = identifier_from(identifier, &at(&format!("identifiers[{i}]")))?;
        if !identifiers.contains(&identifier) {
            identifiers.push(identifier);
        }
    }
    let corrections = r.corrections.iter().enumerate();
    let corrections = corrections.map(|(i, c)| correction_from(c, &at(&format!("corrections[{i}]"))));
    let request = NewRequest {
        action,
        identifiers,
        corrections: corrections.collect::<ApiResult<_>>()?,
        identifier_changes: Vec::new(),
        restriction_ground: match r.restriction_ground {
            0 => None,
            ground => Some(ground_from(ground, &at("restriction_ground"))?),
        },
        subject_informed_at: opt_time_from(r.subject_informed_time.as_ref(), &at("subject_informed_time"))?,
        subject_asked_at: opt_time_from(r.subject_asked_time.as_ref(), &at("subject_asked_time"))?,
        controller_due_at: opt_time_from(r.controller_due_time.as_ref(), &at("controller_due_time"))?,
        reference: text_within(&r.reference, 128, &at("reference"))?,
        instruction: match r.instruction {
            0 => InstructionKind::CustomerRequest,
            kind => instruction_from(kind, &at("instruction"))?,
        },
        notices: Vec::new(),
        follow_up: None,
    };
    request.check(now).map_err(|e| ApiError::from(e).below(field))?;
    Ok(request)
}

fn correction_from(c: &v1::Correction, field: &str) -> ApiResult<Correction> {
    use v1::correction::Target;
    let value = |text: &str, name: &str| -> ApiResult<String> {
        if text.len() > VALUE_BYTES_MAX {
            return Err(ApiError::field(format!("{field}.{name}"), format!("is longer than {VALUE_BYTES_MAX} bytes")));
        }
        Ok(text.to_owned())
    };
    let target = match c.target.as_ref() {
        None => return Err(ApiError::field(format!("{field}.target"), "say replace, record or append_statement")),
        Some(Target::Replace(r)) => CorrectionTarget::Replace {
            old: value(&r.old_value, "replace.old_value")?,
            new: value(&r.new_value, "replace.new_value")?,
        },
        Some(Target::Record(r)) if r.key.is_empty() || r.key.len() > 16 => {
            return Err(ApiError::field(
                format!("{field}.record.key"),
                "between 1 and 16 values, in the map's key order",
            ));
        }
        Some(Target::Record(r)) => {
            CorrectionTarget::Record { key: r.key.clone(), new: value(&r.new_value, "record.new_value")? }
        }
        Some(Target::AppendStatement(s)) if s.trim().is_empty() => {
            return Err(ApiError::field(format!("{field}.append_statement"), "is empty"));
        }
        Some(Target::AppendStatement(s)) => CorrectionTarget::Append { statement: value(s, "append_statement")? },
    };
    Ok(Correction {
        collection: required_text(&c.collection, 128, &format!("{field}.collection"))?,
        field: required_text(&c.field, 128, &format!("{field}.field"))?,
        target,
    })
}

pub fn correction_to(c: &Correction) -> v1::Correction {
    use v1::correction::Target;
    let target = match c.target.clone() {
        CorrectionTarget::Replace { old, new } => Target::Replace(v1::ReplaceValue { old_value: old, new_value: new }),
        CorrectionTarget::Record { key, new } => Target::Record(v1::RecordValue { key, new_value: new }),
        CorrectionTarget::Append { statement } => Target::AppendStatement(statement),
    };
    v1::Correction { collection: c.collection.clone(), field: c.field.clone(), target: Some(target) }
}

pub fn identifier_change_to(kind: IdentifierKind, collection: &str, field: &str) -> v1::IdentifierChange {
    v1::IdentifierChange { kind: identifier_kind_to(kind), collection: collection.to_owned(), field: field.to_owned() }
}

pub fn request_to(
    customer: &CustomerId,
    r: &RequestRow,
    tasks: &[TaskRow],
    now: Timestamp,
    at_risk: SignedDuration,
) -> v1::Request {
    // A closed request is measured at its end, not at the moment of asking.
    let measured_at = r.closed_at.unwrap_or(now);
    v1::Request {
        name: request_name(customer, r.id),
        action: action_to(r.action),
        identifiers: Vec::new(),
        corrections: Vec::new(),
        restriction_ground: r.restriction_ground.map_or(0, ground_to),
        subject_informed_time: r.subject_informed_at.map(time_to),
        subject_asked_time: r.subject_asked_at.map(time_to),
        controller_due_time: r.controller_due_at.map(time_to),
        reference: r.reference.clone(),
        instruction: instruction_to(r.instruction),
        state: request_state_to(r.state),
        create_time: Some(time_to(r.created_at)),
        first_due_time: Some(time_to(r.first_due_at)),
        due_time: Some(time_to(r.due_at)),
        timeliness: timeliness_to(window::timeliness(measured_at, r.due_at, at_risk)),
        complete_time: r.closed_at.map(time_to),
        tasks: tasks.iter().map(|t| task_to(customer, r, t, now)).collect(),
        objection: r
            .objection
            .as_ref()
            .map(|(reason, at)| v1::Objection { reason: reason.clone(), time: Some(time_to(*at)) }),
        closing_reason: r.closing_reason.clone().unwrap_or_default(),
        identifier_changes: r
            .identifier_changes
            .iter()
            .map(|c| identifier_change_to(c.kind, &c.collection, &c.field))
            .collect(),
        notify_recipients: r.notices.iter().map(|notice| notice.recipient.as_str().to_owned()).collect(),
        recipients: Vec::new(),
        forget_time: r.forgotten_at.map(time_to),
        follows: r
            .follows
            .or(r.follow_up.as_ref().map(|f| f.follows))
            .map(|id| request_name(customer, id))
            .unwrap_or_default(),
        replay: r.follow_up.as_ref().map(|f| replay_name(&f.system, f.replay)).unwrap_or_default(),
        etag: format!("{:x}", r.changed_at.as_microsecond()),
    }
}

/// All that the agreement names, told or not.
pub fn recipients_to(customer: &CustomerId, r: &RequestRow, recipients: &[Recipient]) -> Vec<v1::RequestRecipient> {
    let task = |recipient: &Recipient| {
        let notice = r.notices.iter().find(|notice| notice.recipient == recipient.id)?;
        Some(TaskKey { customer: customer.clone(), request: r.id, system: notice.system.clone() }.resource_name())
    };
    let one = |recipient: &Recipient| v1::RequestRecipient {
        recipient_id: recipient.id.as_str().to_owned(),
        display_name: recipient.display_name.clone(),
        contact: recipient.contact.clone(),
        received: recipient.received.clone(),
        task: task(recipient).unwrap_or_default(),
    };
    recipients.iter().map(one).collect()
}

pub fn task_to(customer: &CustomerId, r: &RequestRow, t: &TaskRow, now: Timestamp) -> v1::Task {
    let key = TaskKey { customer: customer.clone(), request: r.id, system: t.system.clone() };
    let waits = matches!(t.state, TaskState::Pending | TaskState::AwaitingConfirmation);
    // Of a running one, when its lease passes.
    let unattended = (waits || t.state == TaskState::Running) && t.run_at < now;
    v1::Task {
        name: key.resource_name(),
        system: t.system.resource_name(),
        state: task_state_to(t.state),
        attempts: t.attempts,
        reason: t.reason.clone(),
        next_attempt_time: waits.then(|| time_to(t.run_at)),
        latest_start_time: t.latest_start_at.map(time_to),
        unattended_since_time: unattended.then(|| time_to(t.run_at)),
        confirmation: t.confirmation.as_ref().map(|(c, late)| confirmation_to(&key, c, *late)),
        waits: Vec::new(),
    }
}

pub fn wait_to(customer: &CustomerId, wait: &TaskWait) -> v1::TaskWait {
    v1::TaskWait {
        request: request_name(customer, wait.on_request),
        system: wait.on_system.resource_name(),
        until: wait_until_to(wait.until),
    }
}
