-- The log: who writes it, what it has integrated, its tiles. Deployment-wide: on Citus these are local to the coordinator.

-- One row. What is integrated is integrated by the transaction that changes it; `epoch` rises with every take-over, and a writer
-- whose epoch has passed writes nothing (docs/ledger.md).
CREATE TABLE ledger_log (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  -- Whose keys sign: a replica with other keys is refused.
  origin TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  held_by TEXT NOT NULL,
  held_until_us BIGINT NOT NULL,
  tree_size BIGINT NOT NULL,
  root {bytes} NOT NULL,
  -- The newest checkpoint that is published, as a signed note; empty before the first.
  checkpoint TEXT NOT NULL,
  checkpoint_size BIGINT NOT NULL
);

-- The widest known of each tile: a narrower one is its beginning. `level` is -1 for bundles of entries.
CREATE TABLE ledger_tiles (
  level BIGINT NOT NULL,
  tile_index BIGINT NOT NULL,
  width BIGINT NOT NULL,
  content {bytes} NOT NULL,
  PRIMARY KEY (level, tile_index)
);

-- What was issued is given again, byte for byte.
CREATE TABLE certificates (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  content {bytes} NOT NULL,
  issued_us BIGINT NOT NULL,
  PRIMARY KEY (customer_id, request_id),
  FOREIGN KEY (customer_id, request_id) REFERENCES requests (customer_id, request_id)
);
