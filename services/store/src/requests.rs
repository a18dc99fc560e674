//! Reading requests and their tasks.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use quittance_domain::{
    Timestamp,
    action::{Action, IdentifierChange, InstructionKind, RestrictionGround},
    identifier::IdentifierKind,
    ids::{CustomerId, ReplayId, RequestId, SystemId},
    outcome::Confirmation,
    request::{FollowUp, Notice, RequestState},
    task::TaskState,
    window::Timeliness,
};
use quittance_sql::{Column, Row, Rows, Tx, Val};

use crate::{
    Store, StoreError, StoreResult,
    replan::system_id,
    tx::{opt_time, parsed, time, us},
};

/// What a request says is to be done, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Instructed {
    pub action: Action,
    pub at: Timestamp,
}

/// A request as it is now, without what is sealed.
#[derive(Clone, Debug)]
pub struct RequestRow {
    pub id: RequestId,
    pub action: Action,
    pub state: RequestState,
    pub instruction: InstructionKind,
    pub reference: String,
    pub restriction_ground: Option<RestrictionGround>,
    pub agreement_version: i64,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
    pub first_due_at: Timestamp,
    pub due_at: Timestamp,
    pub subject_asked_at: Option<Timestamp>,
    pub subject_informed_at: Option<Timestamp>,
    pub controller_due_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub closing_reason: Option<String>,
    pub objection: Option<(String, Timestamp)>,
    pub identifier_changes: Vec<ChangedIdentifier>,
    pub notices: Vec<Notice>,
    /// Since when its identifiers, match sets and records are gone.
    pub forgotten_at: Option<Timestamp>,
    pub follow_up: Option<FollowUp>,
    /// A hold has ended: the request that it carries on.
    pub follows: Option<RequestId>,
}

/// That a rectification changes an identifier, and where it was named.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ChangedIdentifier {
    pub kind: IdentifierKind,
    pub collection: String,
    pub field: String,
}

impl ChangedIdentifier {
    pub(crate) fn of(change: &IdentifierChange) -> Self {
        Self { kind: change.kind, collection: change.collection.clone(), field: change.field.clone() }
    }
}

/// A list as a column has it: nothing where there is nothing, which is nearly always.
pub(crate) fn list_text<T: serde::Serialize>(items: &[T]) -> StoreResult<String> {
    if items.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(items)
        .map_err(|_| StoreError::Inconsistent { table: TABLE, what: "a list does not serialise" })
}

pub(crate) fn read_list<T: serde::de::DeserializeOwned>(text: &str) -> StoreResult<Vec<T>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|_| StoreError::Inconsistent { table: TABLE, what: "a list does not parse" })
}

#[derive(Clone, Debug)]
pub struct TaskRow {
    pub system: SystemId,
    pub state: TaskState,
    pub attempts: u32,
    pub reason: String,
    pub run_at: Timestamp,
    pub latest_start_at: Option<Timestamp>,
    pub confirmation: Option<(Confirmation, bool)>,
}

/// All conditions must hold; an empty one holds always.
#[derive(Clone, Debug, Default)]
pub struct RequestFilter {
    pub states: Vec<RequestState>,
    pub actions: Vec<Action>,
    pub due_before: Option<Timestamp>,
    pub needs_attention: bool,
    pub reference: String,
    pub timeliness: Option<TimelinessFilter>,
}

/// Open, and in any of these ways against its due time.
#[derive(Clone, Debug)]
pub struct TimelinessFilter {
    pub any_of: Vec<Timeliness>,
    pub now: Timestamp,
    /// How long before its due time a request is at risk.
    pub at_risk: Duration,
}

impl TimelinessFilter {
    /// As `window::timeliness` tells them apart.
    fn condition(&self, args: &mut Vec<Val>) -> String {
        let now = us(self.now);
        let risk_until = self.now.checked_add(self.at_risk).map_or(i64::MAX, us);
        let mut arg = |value: i64| {
            args.push(value.into());
            format!("${}", args.len())
        };
        let mut ways: Vec<String> = Vec::new();
        for timeliness in &self.any_of {
            ways.push(match timeliness {
                Timeliness::Overdue => format!("due_us < {}", arg(now)),
                Timeliness::AtRisk => format!("(due_us >= {} AND due_us <= {})", arg(now), arg(risk_until)),
                Timeliness::OnTrack => format!("due_us > {}", arg(now.max(risk_until))),
            });
        }
        format!(" AND closed_us IS NULL AND ({})", ways.join(" OR "))
    }
}

pub(crate) const COLUMNS: &str = "request_id, action, state, instruction, reference, restriction_ground, agreement_version, created_us,
    changed_us, first_due_us, due_us, subject_asked_us, subject_informed_us, controller_due_us, closed_us, closing_reason,
    objection_reason, objection_us, identifier_changes, notices, repeats_request_id, only_system, replay_id, forgotten_us,
    follows_request_id";
/// How many they are.
pub(crate) const COLUMNS_LEN: usize = 25;
const TABLE: &str = "requests";

pub(crate) fn read(row: &Row) -> StoreResult<RequestRow> {
    let ground = row.opt_text(5)?;
    let objection = match (row.opt_text(16)?, opt_time(row.opt_i64(17)?, TABLE)?) {
        (Some(reason), Some(at)) => Some((reason, at)),
        _ => None,
    };
    let follow_up = match (row.opt_uuid(20)?, row.opt_text(21)?, row.opt_uuid(22)?) {
        (Some(follows), Some(system), Some(replay)) => Some(FollowUp {
            follows: RequestId::new(follows),
            system: system_id(&system)?,
            replay: ReplayId::new(replay),
        }),
        _ => None,
    };
    Ok(RequestRow {
        id: RequestId::new(row.uuid(0)?),
        action: parsed(row, 1, TABLE, Action::parse)?,
        state: parsed(row, 2, TABLE, RequestState::parse)?,
        instruction: parsed(row, 3, TABLE, InstructionKind::parse)?,
        reference: row.text(4)?,
        restriction_ground: ground.as_deref().and_then(RestrictionGround::parse),
        agreement_version: row.i64(6)?,
        created_at: time(row.i64(7)?, TABLE)?,
        changed_at: time(row.i64(8)?, TABLE)?,
        first_due_at: time(row.i64(9)?, TABLE)?,
        due_at: time(row.i64(10)?, TABLE)?,
        subject_asked_at: opt_time(row.opt_i64(11)?, TABLE)?,
        subject_informed_at: opt_time(row.opt_i64(12)?, TABLE)?,
        controller_due_at: opt_time(row.opt_i64(13)?, TABLE)?,
        closed_at: opt_time(row.opt_i64(14)?, TABLE)?,
        closing_reason: row.opt_text(15)?,
        objection,
        identifier_changes: read_list(&row.text(18)?)?,
        notices: read_list(&row.text(19)?)?,
        forgotten_at: opt_time(row.opt_i64(23)?, TABLE)?,
        follow_up,
        follows: row.opt_uuid(24)?.map(RequestId::new),
    })
}

pub(crate) async fn read_request(tx: &mut Tx, customer: &CustomerId, id: RequestId) -> StoreResult<RequestRow> {
    let sql = format!("SELECT {COLUMNS} FROM requests WHERE customer_id = $1 AND request_id = $2");
    let row = tx.fetch_one(&sql, vec![customer.as_str().into(), id.uuid().into()]).await?;
    read(&row.ok_or(StoreError::NotFound("the request"))?)
}

pub(crate) async fn read_with_tasks(
    tx: &mut Tx,
    customer: &CustomerId,
    id: RequestId,
) -> StoreResult<(RequestRow, Vec<TaskRow>)> {
    let sql = format!(
        "WITH r AS (SELECT {COLUMNS} FROM requests WHERE customer_id = $1 AND request_id = $2)
         SELECT r.*, t.system_id, t.state, t.attempts, t.reason, t.run_at_us, t.latest_start_us, c.body, c.late FROM r
         LEFT JOIN tasks t ON t.customer_id = $1 AND t.request_id = r.request_id
         LEFT JOIN confirmations c ON c.customer_id = $1 AND c.request_id = t.request_id AND c.system_id = t.system_id
         ORDER BY t.system_id"
    );
    let rows = tx.fetch(&sql, vec![customer.as_str().into(), id.uuid().into()]).await?;
    let request = read(rows.first().ok_or(StoreError::NotFound("the request"))?)?;
    // One that waits for its customer's word may have no task yet.
    let mut tasks = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(system) = row.opt_text(COLUMNS_LEN)? {
            tasks.push(read_task(row, &system)?);
        }
    }
    Ok((request, tasks))
}

/// `column IN (…)` with arguments appended; nothing for an empty list.
fn any_of(sql: &mut String, args: &mut Vec<Val>, column: &str, texts: &[&str]) {
    if texts.is_empty() {
        return;
    }
    let mut list = Vec::with_capacity(texts.len());
    for text in texts {
        args.push((*text).into());
        list.push(format!("${}", args.len()));
    }
    sql.push_str(&format!(" AND {column} IN ({})", list.join(", ")));
}

impl Store {
    pub async fn request(&self, customer: &CustomerId, id: RequestId) -> StoreResult<(RequestRow, Vec<TaskRow>)> {
        read_with_tasks(&mut self.customer_read(customer).await?, customer, id).await
    }

    /// What each of them instructs, and since when, with the version of the map that its task at the system was planned with.
    pub async fn instructed(
        &self,
        customer: &CustomerId,
        system: &SystemId,
        ids: &BTreeSet<RequestId>,
    ) -> StoreResult<HashMap<RequestId, (Instructed, Option<i64>)>> {
        let mut tx = self.customer_read(customer).await?;
        let rows = tx
            .fetch_rows(
                "WITH v(request_id) AS ({rows}) SELECT r.request_id, r.action, r.created_us, t.map_version FROM v
                 JOIN requests r ON r.customer_id = $1 AND r.request_id = v.request_id
                 LEFT JOIN tasks t ON t.customer_id = $1 AND t.request_id = v.request_id AND t.system_id = $2",
                vec![customer.as_str().into(), system.as_str().into()],
                Rows::new(vec![Column::uuids(ids.iter().map(|id| id.uuid()))]),
            )
            .await?;
        if rows.len() < ids.len() {
            return Err(StoreError::NotFound("the request"));
        }
        let one = |row: &Row| {
            let action = parsed(row, 1, "requests", Action::parse)?;
            let instructed = Instructed { action, at: time(row.i64(2)?, "requests")? };
            Ok((RequestId::new(row.uuid(0)?), (instructed, row.opt_i64(3)?)))
        };
        rows.iter().map(one).collect()
    }

    /// Newest first, those before `before`.
    pub async fn list_requests(
        &self,
        customer: &CustomerId,
        filter: &RequestFilter,
        before: Option<RequestId>,
        limit: u32,
    ) -> StoreResult<Vec<RequestRow>> {
        let mut sql = format!("SELECT {COLUMNS} FROM requests WHERE customer_id = $1");
        let mut args: Vec<Val> = vec![customer.as_str().into()];
        if let Some(before) = before {
            args.push(before.uuid().into());
            sql.push_str(&format!(" AND request_id < ${}", args.len()));
        }
        let states: Vec<&str> = filter.states.iter().map(|s| s.as_str()).collect();
        any_of(&mut sql, &mut args, "state", &states);
        let actions: Vec<&str> = filter.actions.iter().map(|a| a.as_str()).collect();
        any_of(&mut sql, &mut args, "action", &actions);
        if let Some(due) = filter.due_before {
            args.push(us(due).into());
            sql.push_str(&format!(" AND closed_us IS NULL AND due_us < ${}", args.len()));
        }
        if !filter.reference.is_empty() {
            args.push(filter.reference.as_str().into());
            sql.push_str(&format!(" AND reference = ${}", args.len()));
        }
        if let Some(timeliness) = filter.timeliness.as_ref().filter(|t| !t.any_of.is_empty()) {
            let condition = timeliness.condition(&mut args);
            sql.push_str(&condition);
        }
        if filter.needs_attention {
            sql.push_str(
                " AND EXISTS (SELECT 1 FROM tasks t WHERE t.customer_id = $1 AND t.request_id = requests.request_id
                  AND t.state = 'NEEDS_ATTENTION')",
            );
        }
        args.push(limit.into());
        sql.push_str(&format!(" ORDER BY request_id DESC LIMIT ${}", args.len()));
        let mut tx = self.customer_read(customer).await?;
        tx.fetch(&sql, args).await?.iter().map(read).collect()
    }
}

fn read_task(row: &Row, system: &str) -> StoreResult<TaskRow> {
    let at = |column: usize| COLUMNS_LEN + column;
    let confirmation = match row.opt_text(at(6))? {
        None => None,
        Some(body) => {
            let parsed = serde_json::from_str(&body)
                .map_err(|_| StoreError::Inconsistent { table: "confirmations", what: "it does not parse" })?;
            Some((parsed, row.opt_i64(at(7))? == Some(1)))
        }
    };
    Ok(TaskRow {
        system: system_id(system)?,
        state: parsed(row, at(1), "tasks", TaskState::parse)?,
        attempts: u32::try_from(row.i64(at(2))?).unwrap_or(u32::MAX),
        reason: row.text(at(3))?,
        run_at: time(row.i64(at(4))?, "tasks")?,
        latest_start_at: opt_time(row.opt_i64(at(5))?, "tasks")?,
        confirmation,
    })
}
