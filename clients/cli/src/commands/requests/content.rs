//! What a request says: from flags, or from a file.

use std::path::PathBuf;

use clap::Args;
use quittance_api::v1::{
    Action, Correction, Identifier, IdentifierKind, InstructionKind, RecordValue, ReplaceValue, Request,
    RestrictionGround, correction::Target,
};
use serde::Deserialize;

use crate::{failure::Failure, files, short_names::ShortName, times};

/// Flags that describe a request.
#[derive(Args)]
pub struct Content {
    /// The customer; may be left out with a customer's own token.
    #[arg(long)]
    customer: Option<String>,
    /// access, rectification, erasure, restriction or lift_restriction.
    #[arg(long, value_parser = Action::parse, required_unless_present = "file")]
    action: Option<Action>,
    /// All of it from a YAML file; `-` is standard input, which keeps identifiers out of the list of processes.
    #[arg(long, short, conflicts_with_all = ["action", "email", "phone", "user_id", "directory_object_id", "customer_key", "correct",
        "statement", "ground", "subject_informed", "subject_asked", "controller_due", "reference", "notify", "instruction"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    subject: Subject,
    /// With rectification: COLLECTION.FIELD=OLD=>NEW. Repeat for more.
    #[arg(long, value_parser = replacement, value_name = "COLLECTION.FIELD=OLD=>NEW", help_heading = "Rectification")]
    correct: Vec<Correction>,
    /// With rectification: a supplementary statement, COLLECTION.FIELD=TEXT. Repeat for more.
    #[arg(long, value_parser = statement, value_name = "COLLECTION.FIELD=TEXT", help_heading = "Rectification")]
    statement: Vec<Correction>,
    /// With restriction: accuracy_contested, unlawful_processing, needed_for_legal_claims or objection_pending.
    #[arg(long, value_parser = RestrictionGround::parse, help_heading = "Restriction")]
    ground: Option<RestrictionGround>,
    /// With lift_restriction: when the subject was told (Art. 18(3)).
    #[arg(long, value_parser = times::parse, value_name = "TIME", help_heading = "Restriction")]
    subject_informed: Option<prost_types::Timestamp>,
    #[command(flatten)]
    circumstances: Circumstances,
}

/// Who the subject is. At least one that some system accepts.
#[derive(Args)]
#[command(next_help_heading = "The subject")]
struct Subject {
    /// Repeat for more, as every kind here.
    #[arg(long)]
    email: Vec<String>,
    /// In international form, as +31612345678.
    #[arg(long)]
    phone: Vec<String>,
    /// The processor's own user id.
    #[arg(long)]
    user_id: Vec<String>,
    /// A Microsoft Entra object id.
    #[arg(long)]
    directory_object_id: Vec<String>,
    /// The customer's own key for the person.
    #[arg(long)]
    customer_key: Vec<String>,
}

/// Of one request or of a whole batch.
#[derive(Args)]
#[command(next_help_heading = "Circumstances")]
pub struct Circumstances {
    /// When the subject asked the customer.
    #[arg(long, value_parser = times::parse, value_name = "TIME")]
    subject_asked: Option<prost_types::Timestamp>,
    /// When the customer itself must answer.
    #[arg(long, value_parser = times::parse, value_name = "TIME")]
    controller_due: Option<prost_types::Timestamp>,
    /// The customer's own reference. No personal data.
    #[arg(long)]
    reference: Option<String>,
    /// A recipient of the agreement's that is to be told of a rectification, erasure or restriction. Repeat for more.
    #[arg(long, value_name = "RECIPIENT")]
    notify: Vec<String>,
    /// Why we may act: customer_request (unless said otherwise), agreement_term or legal_requirement.
    #[arg(long, value_parser = InstructionKind::parse)]
    instruction: Option<InstructionKind>,
}

impl Circumstances {
    pub fn put(self, request: &mut Request) {
        request.subject_asked_time = self.subject_asked;
        request.controller_due_time = self.controller_due;
        request.reference = self.reference.unwrap_or_default();
        request.instruction = self.instruction.map(Into::into).unwrap_or_default();
        request.notify_recipients = self.notify;
    }
}

/// `collection.field=rest`. The text is not repeated in errors: it holds personal data.
fn place(text: &str) -> Option<(&str, &str, &str)> {
    let (place, rest) = text.split_once('=')?;
    let (collection, field) = place.split_once('.')?;
    (!collection.is_empty() && !field.is_empty()).then_some((collection, field, rest))
}

fn replacement(text: &str) -> Result<Correction, String> {
    let wrong = || "must be COLLECTION.FIELD=OLD=>NEW, as customer.city=Amstredam=>Amsterdam".to_owned();
    let (collection, field, rest) = place(text).ok_or_else(wrong)?;
    let (old, new) = rest.split_once("=>").ok_or_else(wrong)?;
    if new.contains("=>") {
        return Err("has more than one =>: put it into a file and give that with -f".to_owned());
    }
    let target = Target::Replace(ReplaceValue { old_value: old.to_owned(), new_value: new.to_owned() });
    Ok(Correction { collection: collection.to_owned(), field: field.to_owned(), target: Some(target) })
}

fn statement(text: &str) -> Result<Correction, String> {
    let (collection, field, rest) = place(text)
        .filter(|(_, _, text)| !text.is_empty())
        .ok_or_else(|| "must be COLLECTION.FIELD=TEXT, as files.note=\"The person disagrees.\"".to_owned())?;
    let target = Target::AppendStatement(rest.to_owned());
    Ok(Correction { collection: collection.to_owned(), field: field.to_owned(), target: Some(target) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestFile {
    action: String,
    identifiers: Vec<IdentifierFile>,
    #[serde(default)]
    corrections: Vec<CorrectionFile>,
    restriction_ground: Option<String>,
    subject_informed_time: Option<String>,
    subject_asked_time: Option<String>,
    controller_due_time: Option<String>,
    #[serde(default)]
    reference: String,
    instruction: Option<String>,
    #[serde(default)]
    notify_recipients: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentifierFile {
    kind: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CorrectionFile {
    collection: String,
    field: String,
    replace: Option<ReplaceFile>,
    record: Option<RecordFile>,
    append_statement: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceFile {
    old_value: String,
    new_value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    key: Vec<String>,
    new_value: String,
}

fn at<T>(field: &str, parsed: Result<T, String>) -> Result<T, Failure> {
    parsed.map_err(|problem| Failure::Usage(format!("{field}: {problem}")))
}

impl RequestFile {
    fn into_request(self) -> Result<Request, Failure> {
        let time = |field: &str, text: Option<&String>| text.map(|text| at(field, times::parse(text))).transpose();
        let mut identifiers = Vec::new();
        for (index, identifier) in self.identifiers.into_iter().enumerate() {
            let kind = at(&format!("identifiers[{index}].kind"), IdentifierKind::parse(&identifier.kind))?;
            identifiers.push(Identifier { kind: kind.into(), value: identifier.value });
        }
        let mut corrections = Vec::new();
        for (index, correction) in self.corrections.into_iter().enumerate() {
            let target = match (correction.replace, correction.record, correction.append_statement) {
                (Some(r), None, None) => {
                    Target::Replace(ReplaceValue { old_value: r.old_value, new_value: r.new_value })
                }
                (None, Some(r), None) => Target::Record(RecordValue { key: r.key, new_value: r.new_value }),
                (None, None, Some(text)) => Target::AppendStatement(text),
                _ => {
                    return Err(Failure::Usage(format!(
                        "corrections[{index}]: give one of replace, record and append_statement"
                    )));
                }
            };
            corrections.push(Correction {
                collection: correction.collection,
                field: correction.field,
                target: Some(target),
            });
        }
        let ground = self.restriction_ground.as_deref().map(RestrictionGround::parse).transpose();
        let instruction = self.instruction.as_deref().map(InstructionKind::parse).transpose();
        Ok(Request {
            action: at("action", Action::parse(&self.action))?.into(),
            identifiers,
            corrections,
            restriction_ground: at("restriction_ground", ground)?.map(Into::into).unwrap_or_default(),
            subject_informed_time: time("subject_informed_time", self.subject_informed_time.as_ref())?,
            subject_asked_time: time("subject_asked_time", self.subject_asked_time.as_ref())?,
            controller_due_time: time("controller_due_time", self.controller_due_time.as_ref())?,
            reference: self.reference,
            instruction: at("instruction", instruction)?.map(Into::into).unwrap_or_default(),
            notify_recipients: self.notify_recipients,
            ..Request::default()
        })
    }
}

impl Content {
    /// The customer's resource name; empty where the token says it.
    pub fn parent(&self) -> String {
        super::parent(self.customer.as_ref())
    }

    pub fn into_request(self) -> Result<Request, Failure> {
        if let Some(path) = &self.file {
            return files::yaml::<RequestFile>(path)?.into_request();
        }
        let kinds = [
            (IdentifierKind::Email, self.subject.email),
            (IdentifierKind::Phone, self.subject.phone),
            (IdentifierKind::UserId, self.subject.user_id),
            (IdentifierKind::DirectoryObjectId, self.subject.directory_object_id),
            (IdentifierKind::CustomerKey, self.subject.customer_key),
        ];
        let identifiers: Vec<Identifier> = kinds
            .into_iter()
            .flat_map(|(kind, values)| values.into_iter().map(move |value| Identifier { kind: kind.into(), value }))
            .collect();
        if identifiers.is_empty() {
            return Err(Failure::Usage("who is it about? Give --email, --user-id or another identifier".to_owned()));
        }
        let mut corrections = self.correct;
        corrections.extend(self.statement);
        let mut request = Request {
            action: self.action.map(Into::into).unwrap_or_default(),
            identifiers,
            corrections,
            restriction_ground: self.ground.map(Into::into).unwrap_or_default(),
            subject_informed_time: self.subject_informed,
            ..Request::default()
        };
        self.circumstances.put(&mut request);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_are_read_from_flags() {
        let correction = replacement("customer.city=A=B=>Amsterdam").unwrap();
        assert_eq!((correction.collection.as_str(), correction.field.as_str()), ("customer", "city"));
        let replace = ReplaceValue { old_value: "A=B".to_owned(), new_value: "Amsterdam".to_owned() };
        assert_eq!(correction.target, Some(Target::Replace(replace)));
        let added = statement("files.note=x=>y").unwrap();
        assert_eq!(added.target, Some(Target::AppendStatement("x=>y".to_owned())));
        for bad in ["", "city=a=>b", "customer.=a=>b", "customer.city=a", "customer.city=a=>b=>c"] {
            assert!(replacement(bad).is_err(), "{bad:?}");
        }
        assert!(statement("files.note=").is_err());
    }

    #[test]
    fn errors_do_not_repeat_personal_data() {
        let error = files::parse_yaml::<RequestFile>(
            "{action: erasure, identifiers: [{kind: email, value: [anna@example.com]}]}",
        )
        .map(drop)
        .unwrap_err();
        assert!(!error.contains("anna"), "{error}");
        assert!(!replacement("anna@example.com").unwrap_err().contains("anna"));
    }

    #[test]
    fn a_file_says_it_all() {
        let yaml = "
action: rectification
reference: DSR-17
subject_asked_time: 2026-03-01T09:00:00Z
identifiers:
  - {kind: email, value: anna@example.com}
  - {kind: user_id, value: '17'}
corrections:
  - {collection: customer, field: city, replace: {old_value: Amstredam, new_value: Amsterdam}}
  - {collection: orders, field: note, record: {key: ['7'], new_value: gift}}
  - {collection: files, field: text, append_statement: She disagrees.}
";
        let request = files::parse_yaml::<RequestFile>(yaml).unwrap().into_request().unwrap();
        assert_eq!(request.action(), Action::Rectification);
        assert_eq!(request.identifiers.len(), 2);
        assert!(matches!(request.corrections[1].target, Some(Target::Record(_))));
        let bad = "{action: erasure, identifiers: [], corrections: [{collection: a, field: b}]}";
        let error = files::parse_yaml::<RequestFile>(bad).unwrap().into_request().unwrap_err().to_string();
        assert!(error.starts_with("corrections[0]"), "{error}");
    }
}
