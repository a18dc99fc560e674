-- Forgetting (I7): which epochs there are, who turns them over, and what of each customer's was under one.

-- Whatever is sealed is sealed under this epoch: whoever writes a wrapped key holds the row (FOR SHARE), as intake does for the systems'
-- generation. 0: a store that knows of none yet.
ALTER TABLE deployment ADD COLUMN key_epoch BIGINT NOT NULL DEFAULT 0;

-- Since when it is forgotten. The key, and with it its epoch, is taken off with the last of what was sealed.
ALTER TABLE requests ADD COLUMN forgotten_us BIGINT;
-- What lives under an epoch; what is forgotten costs nothing.
CREATE INDEX requests_epoch ON requests (customer_id, key_epoch, request_id) WHERE key_epoch <> '';

-- Deployment-wide, a row an epoch. The keys themselves are in the key ring only.
CREATE TABLE key_epochs (
  epoch BIGINT PRIMARY KEY,
  -- CLOSED: nothing new comes under it. REWRAPPED: nothing is under it any more. DESTROYED: its key is gone. LOGGED: and that is on record.
  state TEXT NOT NULL CHECK (state IN ('CURRENT', 'CLOSED', 'REWRAPPED', 'DESTROYED', 'LOGGED')),
  -- Tells its key from another one; a MAC under the key itself.
  key_check {bytes} NOT NULL,
  -- When it became the current one; 0: not known yet.
  current_us BIGINT NOT NULL,
  closed_us BIGINT,
  rewrapped_us BIGINT,
  destroyed_us BIGINT,
  logged_us BIGINT
);

-- One row: which replica turns epochs over, until when, and whether an operator has asked for it.
CREATE TABLE key_rotation (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  held_by TEXT NOT NULL,
  held_until_us BIGINT NOT NULL,
  asked BIGINT NOT NULL
);
INSERT INTO key_rotation (id, held_by, held_until_us, asked) VALUES (1, '', 0, 0);

-- What became of a customer's keys that were under an epoch, until its destruction is on record.
CREATE TABLE key_epoch_uses (
  customer_id TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  forgotten BIGINT NOT NULL,
  rewrapped BIGINT NOT NULL,
  PRIMARY KEY (customer_id, epoch)
);

-- What holds still need of a request: keys of rows and when they may go, and who the subject was by keyed pseudonyms; no identifier. Under a key
-- of its own, since the request's is forgotten long before (docs/decisions/0004). It goes with the confirmation that nothing is held any more.
CREATE TABLE kept_rows (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  system_id TEXT NOT NULL,
  map_version BIGINT NOT NULL,
  -- The earliest end of a hold among them.
  due_us BIGINT NOT NULL,
  key_epoch TEXT NOT NULL,
  wrapped_key {bytes} NOT NULL,
  sealed {bytes} NOT NULL,
  -- The request that was made for them on that day.
  follow_request_id {uuid},
  PRIMARY KEY (customer_id, request_id, system_id)
);
CREATE INDEX kept_rows_due ON kept_rows (customer_id, due_us) WHERE follow_request_id IS NULL;
CREATE INDEX kept_rows_followed ON kept_rows (customer_id, follow_request_id) WHERE follow_request_id IS NOT NULL;
CREATE INDEX kept_rows_epoch ON kept_rows (customer_id, key_epoch, request_id);

-- The request whose confirmation it carries on.
ALTER TABLE requests ADD COLUMN follows_request_id {uuid};
