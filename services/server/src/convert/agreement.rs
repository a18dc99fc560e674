//! Customers and agreements.

use std::collections::BTreeSet;

use quittance_api::v1;
use quittance_domain::{
    agreement::{Agreement, Contact, ProcessingFacts, Recipient},
    country::{Country, EEA},
    ids::{RecipientId, SystemId},
    window,
};
use quittance_store::CustomerRow;

use super::{id, required, required_text, text_within, time_from, time_to};
use crate::error::{ApiError, ApiResult};

const TEXT_MAX: usize = 1024;
const LIST_MAX: usize = 100;

pub fn agreement_from(a: &v1::Agreement, field: &str) -> ApiResult<Agreement> {
    let at = |name: &str| format!("{field}.{name}");
    let window_days = match a.window_days {
        0 => Agreement::WINDOW_DAYS_DEFAULT,
        days => u16::try_from(days).unwrap_or(u16::MAX),
    };
    if window_days > Agreement::WINDOW_DAYS_MAX {
        let message = format!("must be between 1 and {}", Agreement::WINDOW_DAYS_MAX);
        return Err(ApiError::field(at("window_days"), message));
    }
    let retention_days = match a.retention_days {
        None => Agreement::RETENTION_DAYS_DEFAULT,
        Some(days) => u16::try_from(days).unwrap_or(u16::MAX),
    };
    if retention_days > Agreement::RETENTION_DAYS_MAX {
        let message = format!("must be between 0 and {}", Agreement::RETENTION_DAYS_MAX);
        return Err(ApiError::field(at("retention_days"), message));
    }
    window::zone(&a.time_zone).map_err(|e| ApiError::field(at("time_zone"), e))?;
    Ok(Agreement {
        version: 0,
        signed_at: time_from(required(a.signed_time.as_ref(), &at("signed_time"))?, &at("signed_time"))?,
        window_days,
        retention_days,
        time_zone: a.time_zone.clone(),
        allowed_countries: countries(&a.allowed_countries, &at("allowed_countries"))?,
        contacts: contacts(&a.contacts, &at("contacts"))?,
        facts: facts(a.facts.as_ref(), &at("facts"))?,
        recipients: recipients(&a.recipients, &at("recipients"))?,
    })
}

fn countries(codes: &[String], field: &str) -> ApiResult<BTreeSet<Country>> {
    let mut allowed = BTreeSet::new();
    for (i, code) in codes.iter().enumerate().take(300) {
        if code == "EEA" {
            allowed.extend(EEA);
        } else {
            allowed.insert(Country::parse(code).map_err(|e| ApiError::field(format!("{field}[{i}]"), e))?);
        }
    }
    if allowed.is_empty() {
        return Err(ApiError::field(field, "at least one is needed, or EEA"));
    }
    Ok(allowed)
}

fn contacts(contacts: &[v1::Contact], field: &str) -> ApiResult<Vec<Contact>> {
    if contacts.is_empty() || contacts.len() > LIST_MAX {
        return Err(ApiError::field(field, format!("between 1 and {LIST_MAX} are needed")));
    }
    let one = |(i, c): (usize, &v1::Contact)| {
        Ok(Contact {
            role: required_text(&c.role, 64, &format!("{field}[{i}].role"))?,
            email: required_text(&c.email, 254, &format!("{field}[{i}].email"))?,
            display_name: text_within(&c.display_name, 256, &format!("{field}[{i}].display_name"))?,
        })
    };
    contacts.iter().enumerate().map(one).collect()
}

fn recipients(recipients: &[v1::Recipient], field: &str) -> ApiResult<Vec<Recipient>> {
    if recipients.len() > LIST_MAX {
        return Err(ApiError::field(field, format!("at most {LIST_MAX}")));
    }
    let mut known = BTreeSet::new();
    let one = |(i, r): (usize, &v1::Recipient)| {
        let at = |name: &str| format!("{field}[{i}].{name}");
        let recipient = id(RecipientId::new(&r.recipient_id), &at("recipient_id"))?;
        if !known.insert(recipient.clone()) {
            return Err(ApiError::field(at("recipient_id"), "stands here twice"));
        }
        let system = match r.system.as_str() {
            "" => None,
            name => Some(id(SystemId::from_resource_name(name), &at("system"))?),
        };
        Ok(Recipient {
            id: recipient,
            display_name: required_text(&r.display_name, 256, &at("display_name"))?,
            contact: text_within(&r.contact, 256, &at("contact"))?,
            received: required_text(&r.received, TEXT_MAX, &at("received"))?,
            system,
        })
    };
    recipients.iter().enumerate().map(one).collect()
}

fn facts(facts: Option<&v1::ProcessingFacts>, field: &str) -> ApiResult<ProcessingFacts> {
    let Some(f) = facts else { return Ok(ProcessingFacts::default()) };
    let text = |text: &str, name: &str| text_within(text, TEXT_MAX, &format!("{field}.{name}"));
    let list = |texts: &[String], name: &str| -> ApiResult<Vec<String>> {
        if texts.len() > LIST_MAX {
            return Err(ApiError::field(format!("{field}.{name}"), format!("at most {LIST_MAX}")));
        }
        texts.iter().map(|t| text(t, name)).collect()
    };
    Ok(ProcessingFacts {
        controller: text(&f.controller, "controller")?,
        representative: text(&f.representative, "representative")?,
        data_protection_officer: text(&f.data_protection_officer, "data_protection_officer")?,
        purposes: list(&f.purposes, "purposes")?,
        recipients: list(&f.recipients, "recipients")?,
        processing_categories: list(&f.processing_categories, "processing_categories")?,
        source: text(&f.source, "source")?,
        automated_decisions: text(&f.automated_decisions, "automated_decisions")?,
        security_measures: text(&f.security_measures, "security_measures")?,
    })
}

pub fn agreement_to(a: &Agreement) -> v1::Agreement {
    let f = &a.facts;
    v1::Agreement {
        version: a.version,
        signed_time: Some(time_to(a.signed_at)),
        window_days: a.window_days.into(),
        retention_days: Some(a.retention_days.into()),
        time_zone: a.time_zone.clone(),
        allowed_countries: a.allowed_countries.iter().map(|c| c.as_str().to_owned()).collect(),
        contacts: a
            .contacts
            .iter()
            .map(|c| v1::Contact { role: c.role.clone(), email: c.email.clone(), display_name: c.display_name.clone() })
            .collect(),
        facts: Some(v1::ProcessingFacts {
            controller: f.controller.clone(),
            representative: f.representative.clone(),
            data_protection_officer: f.data_protection_officer.clone(),
            purposes: f.purposes.clone(),
            recipients: f.recipients.clone(),
            processing_categories: f.processing_categories.clone(),
            source: f.source.clone(),
            automated_decisions: f.automated_decisions.clone(),
            security_measures: f.security_measures.clone(),
        }),
        recipients: a
            .recipients
            .iter()
            .map(|r| v1::Recipient {
                recipient_id: r.id.as_str().to_owned(),
                display_name: r.display_name.clone(),
                contact: r.contact.clone(),
                received: r.received.clone(),
                system: r.system.as_ref().map(SystemId::resource_name).unwrap_or_default(),
            })
            .collect(),
    }
}

pub fn customer_to(c: &CustomerRow) -> v1::Customer {
    v1::Customer {
        name: c.id.resource_name(),
        display_name: c.display_name.clone(),
        agreement: Some(agreement_to(&c.agreement)),
        create_time: Some(time_to(c.created_at)),
    }
}
