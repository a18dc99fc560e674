-- Entries get their places by the batch in which they were staged: what a transaction stages stands together in the log, and giving a
-- place to a thousand entries is one narrow row's change. Entries themselves are written once and never changed.
CREATE TABLE ledger_batches (
  customer_id TEXT NOT NULL,
  batch_id {uuid} NOT NULL,
  -- The entries' leaves one after the other, 32 bytes each.
  leaves {bytes} NOT NULL,
  -- The first entry's place in the log; set by the sequencer.
  first_index BIGINT,
  PRIMARY KEY (customer_id, batch_id)
);
CREATE INDEX ledger_batches_staged ON ledger_batches (batch_id) WHERE first_index IS NULL;
-- Its batch, and how many entries stand before it there.
ALTER TABLE ledger_entries ADD COLUMN batch_id {uuid};
ALTER TABLE ledger_entries ADD COLUMN batch_offset BIGINT NOT NULL DEFAULT 0;
-- What was staged before is a batch of one each.
INSERT INTO ledger_batches (customer_id, batch_id, leaves, first_index)
  SELECT customer_id, entry_id, leaf, leaf_index FROM ledger_entries;
UPDATE ledger_entries SET batch_id = entry_id;
DROP INDEX ledger_entries_staged;
ALTER TABLE ledger_entries DROP COLUMN leaf_index;
