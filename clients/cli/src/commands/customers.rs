//! `quittance customers …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quittance_api::v1;
use quittance_client::{ClientError, retrying};
use serde::Deserialize;

use super::missing;
use crate::{
    args::{Global, RequestId},
    failure::{Done, End, Failure},
    files,
    output::Output,
    resource, times, view,
};

#[derive(Subcommand)]
pub enum Command {
    /// Creates a customer with the first version of its agreement.
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// One customer with its agreement in force.
    Get { customer: String },
    /// All customers.
    List,
    /// All versions of a customer's agreement, newest first.
    Agreements { customer: String },
    /// Adds a version of the agreement. Open requests keep the dates that they have.
    AddAgreement(AddAgreement),
}

const CREATE_HELP: &str = "\
Examples:
  quittance customers create acme --display-name 'Acme B.V.' --time-zone Europe/Amsterdam --country EEA \\
      --signed 2026-01-01T00:00:00Z --window-days 30 --contact privacy=dpo@acme.example
  quittance customers create acme -f acme.yaml

acme.yaml:
  display_name: Acme B.V.
  agreement:
    signed_time: 2026-01-01T00:00:00Z
    window_days: 30
    # How long after its closing a request's identifiers and package are kept.
    retention_days: 30
    time_zone: Europe/Amsterdam
    allowed_countries: [EEA, CH]
    contacts:
      - {role: privacy, email: dpo@acme.example}
    facts:
      controller: Acme B.V., Dam 1, Amsterdam
      purposes: [running the shop]
    # To whom the data were disclosed (Art. 19); with a system of role recipient, requests may say that it be told.
    recipients:
      - {recipient_id: bank, display_name: The bank, contact: privacy@bank.example, received: name and IBAN, system: bank-desk}";

#[derive(Args)]
pub struct Create {
    /// The id: 1 to 63 of a-z, 0-9 and '-'.
    customer: String,
    /// For people.
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    display_name: Option<String>,
    #[command(flatten)]
    agreement: AgreementArgs,
    #[command(flatten)]
    request_id: RequestId,
}

#[derive(Args)]
pub struct AddAgreement {
    customer: String,
    #[command(flatten)]
    agreement: AgreementArgs,
    #[command(flatten)]
    request_id: RequestId,
}

#[derive(Args)]
struct AgreementArgs {
    /// All of it from a YAML file; `-` is standard input.
    #[arg(long, short, conflicts_with_all = ["time_zone", "country", "signed", "window_days", "retention_days", "contact"])]
    file: Option<PathBuf>,
    /// IANA name, as Europe/Amsterdam. The window's days are days there.
    #[arg(long, required_unless_present = "file")]
    time_zone: Option<String>,
    /// Where data may be processed: ISO 3166-1 alpha-2, or EEA. Repeat for more.
    #[arg(long, required_unless_present = "file")]
    country: Vec<String>,
    /// When both sides had signed, as 2026-01-01T00:00:00Z.
    #[arg(long, required_unless_present = "file", value_parser = times::parse, value_name = "TIME")]
    signed: Option<prost_types::Timestamp>,
    /// How many days a request may take; 1 to 90.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=90))]
    window_days: u32,
    /// How many days after its closing a request's identifiers and package are kept; then they are forgotten. 0 to 366.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=366))]
    retention_days: u32,
    /// Who is told, as privacy=dpo@acme.example. Repeat for more.
    #[arg(long, required_unless_present = "file", value_parser = contact, value_name = "ROLE=EMAIL")]
    contact: Vec<v1::Contact>,
}

fn contact(text: &str) -> Result<v1::Contact, String> {
    match text.split_once('=') {
        Some((role, email)) if !role.is_empty() && email.contains('@') => {
            Ok(v1::Contact { role: role.to_owned(), email: email.to_owned(), display_name: String::new() })
        }
        _ => Err("must be a role and an address, as privacy=dpo@acme.example".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CustomerFile {
    display_name: String,
    agreement: AgreementFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgreementFile {
    signed_time: String,
    #[serde(default)]
    window_days: u32,
    retention_days: Option<u32>,
    time_zone: String,
    allowed_countries: Vec<String>,
    contacts: Vec<ContactFile>,
    facts: Option<FactsFile>,
    #[serde(default)]
    recipients: Vec<RecipientFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipientFile {
    recipient_id: String,
    display_name: String,
    #[serde(default)]
    contact: String,
    received: String,
    system: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContactFile {
    role: String,
    email: String,
    #[serde(default)]
    display_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FactsFile {
    controller: String,
    representative: String,
    data_protection_officer: String,
    purposes: Vec<String>,
    recipients: Vec<String>,
    processing_categories: Vec<String>,
    source: String,
    automated_decisions: String,
    security_measures: String,
}

impl AgreementFile {
    fn into_proto(self) -> Result<v1::Agreement, Failure> {
        let signed = times::parse(&self.signed_time).map_err(|p| Failure::Usage(format!("signed_time: {p}")))?;
        Ok(v1::Agreement {
            version: 0,
            signed_time: Some(signed),
            window_days: self.window_days,
            retention_days: self.retention_days,
            time_zone: self.time_zone,
            allowed_countries: self.allowed_countries,
            contacts: self
                .contacts
                .into_iter()
                .map(|c| v1::Contact { role: c.role, email: c.email, display_name: c.display_name })
                .collect(),
            facts: self.facts.map(|f| v1::ProcessingFacts {
                controller: f.controller,
                representative: f.representative,
                data_protection_officer: f.data_protection_officer,
                purposes: f.purposes,
                recipients: f.recipients,
                processing_categories: f.processing_categories,
                source: f.source,
                automated_decisions: f.automated_decisions,
                security_measures: f.security_measures,
            }),
            recipients: self
                .recipients
                .into_iter()
                .map(|r| v1::Recipient {
                    recipient_id: r.recipient_id,
                    display_name: r.display_name,
                    contact: r.contact,
                    received: r.received,
                    system: r.system.map(|system| resource::system(&system)).unwrap_or_default(),
                })
                .collect(),
        })
    }
}

impl AgreementArgs {
    fn into_proto(self) -> v1::Agreement {
        v1::Agreement {
            version: 0,
            signed_time: self.signed,
            window_days: self.window_days,
            retention_days: Some(self.retention_days),
            time_zone: self.time_zone.unwrap_or_default(),
            allowed_countries: self.country,
            contacts: self.contact,
            facts: None,
            recipients: Vec::new(),
        }
    }
}

fn show(customer: v1::Customer, out: &mut Output) -> Result<(), Failure> {
    let customer = view::Customer::from(customer);
    if out.is_json() {
        return out.document(&customer);
    }
    out.table(&view::Customer::table(&[customer]))
}

pub async fn run(command: Command, global: &Global, out: &mut Output) -> Done {
    match command {
        Command::Create(create) => {
            let (display_name, agreement) = match &create.agreement.file {
                Some(path) => {
                    let file: CustomerFile = files::yaml(path)?;
                    (file.display_name, file.agreement.into_proto()?)
                }
                None => (create.display_name.unwrap_or_default(), create.agreement.into_proto()),
            };
            let request = v1::CreateCustomerRequest {
                request_id: create.request_id.get(),
                customer_id: create.customer.strip_prefix("customers/").unwrap_or(&create.customer).to_owned(),
                customer: Some(v1::Customer { display_name, ..Default::default() }),
                agreement: Some(agreement),
            };
            let client = global.connect().await?;
            let answer = retrying(3, || async {
                client.customers().create_customer(request.clone()).await.map_err(ClientError::from)
            });
            show(missing(answer.await?.into_inner().customer)?, out)?;
        }
        Command::Get { customer } => {
            let client = global.connect().await?;
            let request = v1::GetCustomerRequest { name: resource::customer(&customer) };
            let answer = client.customers().get_customer(request).await?.into_inner();
            show(missing(answer.customer)?, out)?;
        }
        Command::List => {
            let client = global.connect().await?;
            let mut customers = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = v1::ListCustomersRequest { page_size: 1_000, page_token };
                let page = client.customers().list_customers(request).await?.into_inner();
                customers.extend(page.customers.into_iter().map(view::Customer::from));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            out.list(&customers, view::Customer::table)?;
        }
        Command::Agreements { customer } => {
            let client = global.connect().await?;
            let request = v1::ListAgreementsRequest { parent: resource::customer(&customer) };
            let answer = client.customers().list_agreements(request).await?.into_inner();
            let agreements: Vec<_> = answer.agreements.into_iter().map(view::Agreement::from).collect();
            out.list(&agreements, view::Agreement::table)?;
        }
        Command::AddAgreement(add) => {
            let agreement = match &add.agreement.file {
                Some(path) => files::yaml::<AgreementFile>(path)?.into_proto()?,
                None => add.agreement.into_proto(),
            };
            let request = v1::CreateAgreementRequest {
                request_id: add.request_id.get(),
                parent: resource::customer(&add.customer),
                agreement: Some(agreement),
            };
            let client = global.connect().await?;
            let answer = retrying(3, || async {
                client.customers().create_agreement(request.clone()).await.map_err(ClientError::from)
            });
            let agreement = view::Agreement::from(missing(answer.await?.into_inner().agreement)?);
            if out.is_json() {
                out.document(&agreement)?;
            } else {
                out.table(&view::Agreement::table(&[agreement]))?;
            }
        }
    }
    Ok(End::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_help_is_read() {
        let (_, yaml) = CREATE_HELP.split_once("acme.yaml:\n").unwrap();
        let file: CustomerFile = files::parse_yaml(yaml).unwrap();
        let agreement = file.agreement.into_proto().unwrap();
        assert_eq!(agreement.window_days, 30);
        assert_eq!(agreement.allowed_countries, ["EEA", "CH"]);
        assert_eq!(agreement.facts.unwrap().purposes, ["running the shop"]);
        assert_eq!(agreement.recipients[0].system, "systems/bank-desk");
    }

    #[test]
    fn a_field_that_is_not_known_is_refused() {
        let error = files::parse_yaml::<FactsFile>("controler: Acme\n").map(drop).unwrap_err();
        assert!(error.contains("controler"), "{error}");
    }

    #[test]
    fn norway_is_a_country() {
        let countries: Vec<String> = files::parse_yaml("[NL, NO]").unwrap();
        assert_eq!(countries, ["NL", "NO"]);
    }
}
