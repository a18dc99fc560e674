//! `quittance systems …`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use quittance_api::v1;
use quittance_client::{ClientError, retrying};
use serde::Deserialize;

use super::{missing, replays};
use crate::{
    args::{Global, RequestId},
    failure::{Done, End, Failure},
    files,
    output::Output,
    resource,
    short_names::ShortName,
    times, view,
};

#[derive(Subcommand)]
pub enum Command {
    /// Registers a storage backend or a sub-processor from a file.
    #[command(after_help = REGISTER_HELP)]
    Register(Register),
    /// One system, with its data map.
    Get { system: String },
    /// All systems.
    List,
    /// Checks connection and data map against the live system now. Exit code 1 if something is wrong.
    Test { system: String },
    /// Adds a version of the data map. Requests that are under way keep theirs.
    UpdateMap(UpdateMap),
    /// Adds customers to those whose data the system may hold.
    #[command(after_help = ADD_CUSTOMERS_HELP)]
    AddCustomers(AddCustomers),
    /// After the system was restored from a backup, or moved: carries out again what was confirmed there since the snapshot.
    #[command(after_help = REPLAY_HELP)]
    Replay(replays::Start),
    /// Replays of a system, newest first.
    Replays { system: String },
    /// One replay, with what it found.
    GetReplay(replays::Named),
    /// Lets a replay go on that the guard has stopped.
    ApproveReplay(replays::Approve),
    /// Instructs nothing more; what is instructed by now is carried out.
    CancelReplay(replays::Named),
}

const REPLAY_HELP: &str = "\
Run it before anybody uses the restored system: what came in since the restore cannot be told from what the backup brought back.

Examples:
  quittance systems replay crm-nl --snapshot-time 2026-03-01T02:00:00Z --dry-run --wait
  quittance systems replay crm-nl --snapshot-time 2026-03-01T02:00:00Z --wait

Exit codes with --wait: 0 done; 1 failed or cancelled; 3 done, and requests are listed that a person must look at; 4 it waits for
`approve-replay`, or the time was over.";

const REGISTER_HELP: &str = "\
The data map is a file of its own (`data_map`, from the folder of the system's file) or inline (`data_map_yaml`). It is checked against
the live schema first: what would fail at night is refused now.

system.yaml:
  name: crm-nl
  display_name: CRM (Netherlands)
  role: storage_backend          # or sub_processor
  country: NL
  connector: sql                 # or remote
  connection_secret: crm-nl-url
  customers:                     # or all_customers: true
    - acme
    - {customer: globex, key: \"4711\"}
  accepts: [email, user_id]      # remote systems
  yields: [user_id]
  settle_after: 5m
  backup_retention: 35d
  grace_period: 0s
  limits: {concurrency: 4, batches_per_second: 0, batch_size: 1000}
  data_map: ./crm-nl.map.yaml";

#[derive(Args)]
pub struct Register {
    /// The system's file; `-` is standard input.
    #[arg(long, short)]
    file: PathBuf,
    #[command(flatten)]
    request_id: RequestId,
}

#[derive(Args)]
pub struct UpdateMap {
    system: String,
    /// The whole map, as YAML; `-` is standard input.
    #[arg(long, short)]
    file: PathBuf,
    #[command(flatten)]
    request_id: RequestId,
}

const ADD_CUSTOMERS_HELP: &str = "\
Open requests of theirs get a task at the system before they complete. May be run again; no key is changed, and nobody taken out.

Examples:
  quittance systems add-customers crm-nl acme
  quittance systems add-customers crm-nl globex=4711 initech=4712";

#[derive(Args)]
pub struct AddCustomers {
    system: String,
    /// A customer, or with `=` and what the system's rows carry for it (`customer_field`); without: the customer's id.
    #[arg(required = true, value_name = "CUSTOMER[=KEY]")]
    customers: Vec<String>,
}

impl From<AddCustomers> for v1::AddSystemCustomersRequest {
    fn from(add: AddCustomers) -> Self {
        let customers = add.customers.iter().map(|text| {
            let (customer, key) = text.split_once('=').unwrap_or((text, ""));
            v1::SystemCustomer { customer: resource::customer(customer), key: key.to_owned() }
        });
        Self { name: resource::system(&add.system), customers: customers.collect() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemFile {
    #[serde(alias = "system_id")]
    name: String,
    display_name: String,
    role: String,
    country: String,
    connector: String,
    #[serde(default)]
    connection_secret: String,
    #[serde(default)]
    customers: Vec<CustomerAt>,
    #[serde(default)]
    all_customers: bool,
    #[serde(default)]
    accepts: Vec<String>,
    #[serde(default)]
    yields: Vec<String>,
    settle_after: Option<String>,
    backup_retention: Option<String>,
    grace_period: Option<String>,
    limits: Option<LimitsFile>,
    data_map: Option<PathBuf>,
    data_map_yaml: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CustomerAt {
    Plain(String),
    Keyed(Keyed),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keyed {
    customer: String,
    #[serde(default)]
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitsFile {
    concurrency: u32,
    batches_per_second: u32,
    batch_size: u32,
}

fn named<E: ShortName>(field: &str, text: &str) -> Result<E, Failure> {
    E::parse(text).map_err(|problem| Failure::Usage(format!("{field}: {problem}")))
}

fn duration(field: &str, text: Option<&String>) -> Result<Option<prost_types::Duration>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let duration = times::parse_duration(text).map_err(|problem| Failure::Usage(format!("{field}: {problem}")))?;
    Ok(prost_types::Duration::try_from(duration).ok())
}

impl SystemFile {
    /// The system's id, and the message.
    fn into_proto(self, path: &Path) -> Result<(String, v1::System), Failure> {
        let kinds = |field: &str, kinds: &[String]| -> Result<Vec<i32>, Failure> {
            kinds.iter().map(|kind| named::<v1::IdentifierKind>(field, kind).map(Into::into)).collect()
        };
        let data_map_yaml = match (&self.data_map, self.data_map_yaml) {
            (Some(_), Some(_)) => {
                return Err(Failure::Usage("data_map and data_map_yaml: give one of them".to_owned()));
            }
            (Some(map), None) => files::text(&files::beside(path, map))?,
            (None, inline) => inline.unwrap_or_default(),
        };
        let customers = self.customers.into_iter().map(|at| match at {
            CustomerAt::Plain(customer) => {
                v1::SystemCustomer { customer: resource::customer(&customer), key: String::new() }
            }
            CustomerAt::Keyed(at) => v1::SystemCustomer { customer: resource::customer(&at.customer), key: at.key },
        });
        let system = v1::System {
            name: String::new(),
            role: named::<v1::SystemRole>("role", &self.role)?.into(),
            connector: named::<v1::ConnectorKind>("connector", &self.connector)?.into(),
            accepts: kinds("accepts", &self.accepts)?,
            yields: kinds("yields", &self.yields)?,
            settle_after: duration("settle_after", self.settle_after.as_ref())?,
            backup_retention: duration("backup_retention", self.backup_retention.as_ref())?,
            grace_period: duration("grace_period", self.grace_period.as_ref())?,
            display_name: self.display_name,
            country: self.country,
            connection_secret: self.connection_secret,
            customers: customers.collect(),
            all_customers: self.all_customers,
            data_map_yaml,
            data_map_version: 0,
            limits: self.limits.map(|l| v1::SystemLimits {
                concurrency: l.concurrency,
                batches_per_second: l.batches_per_second,
                batch_size: l.batch_size,
            }),
            create_time: None,
        };
        Ok((resource::last(&self.name).to_owned(), system))
    }
}

#[derive(serde::Serialize)]
struct WithFindings {
    system: view::System,
    findings: Vec<view::Finding>,
}

fn show(system: Option<v1::System>, findings: Vec<v1::Finding>, out: &mut Output) -> Result<(), Failure> {
    let shown =
        WithFindings { system: missing(system)?.into(), findings: findings.into_iter().map(Into::into).collect() };
    if out.is_json() {
        return out.document(&shown);
    }
    out.table(&view::System::table(std::slice::from_ref(&shown.system)))?;
    if !shown.findings.is_empty() {
        out.line("")?;
        out.table(&view::Finding::table(&shown.findings))?;
    }
    Ok(())
}

pub async fn run(command: Command, global: &Global, out: &mut Output) -> Done {
    match command {
        Command::Register(register) => {
            let file: SystemFile = files::yaml(&register.file)?;
            let (system_id, system) = file.into_proto(&register.file)?;
            let request =
                v1::RegisterSystemRequest { request_id: register.request_id.get(), system_id, system: Some(system) };
            let client = global.connect().await?;
            let answer = retrying(3, || async {
                client.systems().register_system(request.clone()).await.map_err(ClientError::from)
            });
            let answer = answer.await?.into_inner();
            show(answer.system, answer.findings, out)?;
        }
        Command::Get { system } => {
            let client = global.connect().await?;
            let request = v1::GetSystemRequest { name: resource::system(&system) };
            let answer = client.systems().get_system(request).await?.into_inner();
            let system = view::System::from(missing(answer.system)?);
            if out.is_json() {
                out.document(&system)?;
            } else {
                let map = system.data_map_yaml.trim_end().to_owned();
                out.table(&view::System::table(&[system]))?;
                if !map.is_empty() {
                    out.line("")?;
                    out.line(&map)?;
                }
            }
        }
        Command::List => {
            let client = global.connect().await?;
            let mut systems = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = v1::ListSystemsRequest { page_size: 1_000, page_token };
                let page = client.systems().list_systems(request).await?.into_inner();
                systems.extend(page.systems.into_iter().map(view::System::from));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            out.list(&systems, view::System::table)?;
        }
        Command::Test { system } => {
            let client = global.connect().await?;
            let request = v1::TestSystemRequest { name: resource::system(&system) };
            let answer = client.systems().test_system(request).await?.into_inner();
            let findings: Vec<_> = answer.findings.into_iter().map(view::Finding::from).collect();
            let end = if findings.iter().any(|finding| finding.error) { End::Wrong } else { End::Fine };
            return end.after(if findings.is_empty() && !out.is_json() {
                out.line("all well")
            } else {
                out.list(&findings, view::Finding::table)
            });
        }
        Command::UpdateMap(update) => {
            let request = v1::UpdateDataMapRequest {
                request_id: update.request_id.get(),
                name: resource::system(&update.system),
                data_map_yaml: files::text(&update.file)?,
            };
            let client = global.connect().await?;
            let answer = retrying(3, || async {
                client.systems().update_data_map(request.clone()).await.map_err(ClientError::from)
            });
            let answer = answer.await?.into_inner();
            show(answer.system, answer.findings, out)?;
        }
        Command::AddCustomers(add) => {
            let request = v1::AddSystemCustomersRequest::from(add);
            let client = global.connect().await?;
            let answer = retrying(3, || async {
                client.systems().add_system_customers(request.clone()).await.map_err(ClientError::from)
            });
            let answer = answer.await?.into_inner();
            show(answer.system, answer.findings, out)?;
        }
        Command::Replay(start) => return replays::start(start, global, out).await,
        Command::Replays { system } => return replays::list(&system, global, out).await,
        Command::GetReplay(named) => return replays::get(named, global, out).await,
        Command::ApproveReplay(approve) => return replays::approve(approve, global, out).await,
        Command::CancelReplay(named) => return replays::cancel(named, global, out).await,
    }
    Ok(End::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_help_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("crm-nl.map.yaml"), "version: 1\n").unwrap();
        let (_, yaml) = REGISTER_HELP.split_once("system.yaml:\n").unwrap();
        let file: SystemFile = files::parse_yaml(yaml).unwrap();
        let (id, system) = file.into_proto(&folder.path().join("system.yaml")).unwrap();
        assert_eq!(id, "crm-nl");
        assert_eq!(system.role(), v1::SystemRole::StorageBackend);
        assert_eq!(system.connector(), v1::ConnectorKind::Sql);
        assert_eq!(system.data_map_yaml, "version: 1\n");
        assert_eq!(system.backup_retention.unwrap().seconds, 35 * 86_400);
        assert_eq!(system.customers[0], v1::SystemCustomer { customer: "customers/acme".into(), key: String::new() });
        assert_eq!(system.customers[1].key, "4711");
        assert_eq!(system.accepts, [v1::IdentifierKind::Email as i32, v1::IdentifierKind::UserId as i32]);
    }

    #[test]
    fn customers_are_added_by_id_or_with_what_the_rows_carry() {
        let customers = ["acme", "customers/globex=4711", "initech=a=b"].map(ToOwned::to_owned).to_vec();
        let request = v1::AddSystemCustomersRequest::from(AddCustomers { system: "crm".to_owned(), customers });
        let at = |id: &str, key: &str| v1::SystemCustomer { customer: format!("customers/{id}"), key: key.to_owned() };
        assert_eq!(request.name, "systems/crm");
        assert_eq!(request.customers, [at("acme", ""), at("globex", "4711"), at("initech", "a=b")]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        let yaml = "{name: a, display_name: A, role: backend, country: NL, connector: sql}";
        let file: SystemFile = files::parse_yaml(yaml).unwrap();
        let error = file.into_proto(Path::new("-")).unwrap_err().to_string();
        assert!(error.starts_with("role: must be one of storage_backend"), "{error}");
    }
}
