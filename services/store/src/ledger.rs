//! Stages what the log will hold, in the transaction that makes it true (I6).

use quittance_domain::ids::{CustomerId, EntryId, RequestId};
use quittance_ledger::{Event, StagedEntry};
use quittance_sql::{Column, Part, Rows, Tx, Val};
use uuid::Uuid;

use crate::{StoreResult, keyring::random};

/// Entries of a batch: bounds what the sequencer must read at once.
pub(crate) const BATCH_ENTRIES_MAX: usize = 1000;

/// Collects the entries of one transaction, to be written together.
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
        Ok(tx.execute_together(self.parts()).await?)
    }

    /// To be written with what else the transaction writes: the entries, and the batches in which they get their places.
    pub fn parts(self) -> Vec<Part> {
        let customer = || vec![Val::from(self.customer.as_str())];
        let batches: Vec<(Uuid, &[StagedEntry])> =
            self.entries.chunks(BATCH_ENTRIES_MAX).map(|entries| (Uuid::now_v7(), entries)).collect();
        let e = &self.entries;
        let entries = Rows::new(vec![
            Column::uuids(e.iter().map(|e| e.id.uuid())),
            Column::uuids(e.iter().map(|e| e.request.uuid())),
            Column::texts(e.iter().map(|e| e.kind)),
            Column::bytes(e.iter().map(|e| e.payload.clone())),
            Column::bytes(e.iter().map(|e| e.salt.to_vec())),
            Column::bytes(e.iter().map(|e| e.leaf.0.to_vec())),
            Column::uuids(batches.iter().flat_map(|(id, entries)| entries.iter().map(|_| *id))),
            Column::i64s(batches.iter().flat_map(|(_, entries)| (0..).take(entries.len()))),
        ]);
        let leaves = |entries: &[StagedEntry]| entries.iter().flat_map(|e| e.leaf.0).collect::<Vec<u8>>();
        let batches = Rows::new(vec![
            Column::uuids(batches.iter().map(|(id, _)| *id)),
            Column::bytes(batches.iter().map(|(_, entries)| leaves(entries))),
        ]);
        vec![
            Part::new(
                "WITH v(entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset) AS ({rows})
                 INSERT INTO ledger_entries (customer_id, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset)
                 SELECT $1, entry_id, request_id, kind, payload, salt, leaf, batch_id, batch_offset FROM v",
                customer(),
                entries,
            ),
            Part::new(
                "WITH v(batch_id, leaves) AS ({rows})
                 INSERT INTO ledger_batches (customer_id, batch_id, leaves) SELECT $1, batch_id, leaves FROM v",
                customer(),
                batches,
            ),
        ]
    }
}
