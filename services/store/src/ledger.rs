//! Stages what the log will hold, in the transaction that makes it true (I6).

use quittance_domain::ids::{CustomerId, EntryId, RequestId};
use quittance_ledger::{Event, StagedEntry};
use quittance_sql::{Column, Part, Rows, Tx, Val};
use uuid::Uuid;

use crate::{StoreResult, keyring::random};

/// Collects the entries of one transaction, to be written with one statement.
pub(crate) struct Staging {
    customer: CustomerId,
    entries: Vec<StagedEntry>,
}

impl Staging {
    pub fn new(customer: &CustomerId) -> Self {
        Self { customer: customer.clone(), entries: Vec::new() }
    }

    pub fn add(&mut self, request: RequestId, event: &Event) {
        let id = EntryId::new(Uuid::now_v7());
        self.entries.push(StagedEntry::new(self.customer.clone(), request, id, random(), event));
    }

    pub async fn write(self, tx: &mut Tx) -> StoreResult<()> {
        Ok(tx.execute_together(vec![self.part()]).await?)
    }

    /// To be written with what else the transaction writes.
    pub fn part(self) -> Part {
        let e = self.entries;
        let rows = Rows::new(vec![
            Column::uuids(e.iter().map(|e| e.id.uuid())),
            Column::uuids(e.iter().map(|e| e.request.uuid())),
            Column::texts(e.iter().map(|e| e.kind)),
            Column::bytes(e.iter().map(|e| e.payload.clone())),
            Column::bytes(e.iter().map(|e| e.salt.to_vec())),
            Column::bytes(e.iter().map(|e| e.leaf.0.to_vec())),
        ]);
        Part::new(
            "WITH v(entry_id, request_id, kind, payload, salt, leaf) AS ({rows})
             INSERT INTO ledger_entries (customer_id, entry_id, request_id, kind, payload, salt, leaf)
             SELECT $1, entry_id, request_id, kind, payload, salt, leaf FROM v",
            vec![Val::from(self.customer.as_str())],
            rows,
        )
    }
}
