-- Published checkpoints that witnesses have cosigned. The first that covers all of a request fixes the time on its certificate, whenever
-- that is asked for (docs/decisions/0009-when-a-certificate-is-issued.md). One a second at most, and each covers an entry that no earlier one
-- did.
CREATE TABLE ledger_checkpoints (
  tree_size BIGINT PRIMARY KEY,
  -- How many of the witnesses of that day had signed it.
  cosigned BIGINT NOT NULL,
  -- A signed note.
  note TEXT NOT NULL
);
