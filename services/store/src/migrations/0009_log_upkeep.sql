-- The log's upkeep: whether it is halted, how far the scrub is, and what a restored database lacks.

-- Why nothing is signed; empty while the log is written. Every replica looks here: no work begins while it is set.
ALTER TABLE ledger_log ADD COLUMN halted TEXT NOT NULL DEFAULT '';
-- The scrub goes on from here after a restart or a take-over: the entry that it looks at next, and when this round began.
ALTER TABLE ledger_log ADD COLUMN scrub_next BIGINT NOT NULL DEFAULT 0;
ALTER TABLE ledger_log ADD COLUMN scrub_begun_us BIGINT NOT NULL DEFAULT 0;

-- By place: the scrub goes through the log in its order. Not unique: no unique index lacks the customer (docs/ARCHITECTURE.md).
CREATE INDEX ledger_batches_placed ON ledger_batches (first_index) WHERE first_index IS NOT NULL;
-- By its own customer and batch: without statistics, a planner that has the batch alone reads all of the customer's entries for each of them.
CREATE INDEX ledger_entries_batch ON ledger_entries (customer_id, batch_id);

-- Places of the log whose entries were lost with a database that was restored from a backup: the leaves are there, what they commit to is
-- not. From `first_index` up to, and without, `end_index`.
CREATE TABLE ledger_lost (
  first_index BIGINT PRIMARY KEY,
  end_index BIGINT NOT NULL,
  found_us BIGINT NOT NULL
);
