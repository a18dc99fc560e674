-- Suppression after a restore (docs/decisions/0006-replay.md): what was instructed at a system whose backups live on, by pseudonyms, and
-- what came of carrying it out again.

-- Written with the confirmation, for as long as a backup may bring the data back. The pseudonym is an HMAC of an identifier by which the
-- system's rows are found, keyed by customer, system and generation. An empty one: nothing leads to the system, so nothing it streams will match.
CREATE TABLE suppressions (
  customer_id TEXT NOT NULL,
  system_id TEXT NOT NULL,
  pseudonym {bytes} NOT NULL,
  request_id {uuid} NOT NULL,
  generation BIGINT NOT NULL,
  action TEXT NOT NULL,
  confirmed_us BIGINT NOT NULL,
  until_us BIGINT NOT NULL,
  -- A rectification gave the person this name instead: what came later under it concerns who is found by the old one.
  renamed_to {bytes},
  PRIMARY KEY (customer_id, system_id, pseudonym, request_id)
);
-- Both for those that are over, and for whether a generation is still in use.
CREATE INDEX suppressions_until ON suppressions (customer_id, generation, until_us);

-- Deployment-wide: a system is. One at a time for each; its row is the lease of whoever works on it.
CREATE TABLE replays (
  replay_id {uuid} PRIMARY KEY,
  idempotency_id {uuid} NOT NULL UNIQUE,
  system_id TEXT NOT NULL REFERENCES systems (system_id),
  snapshot_us BIGINT NOT NULL,
  dry_run BIGINT NOT NULL,
  matches_max BIGINT NOT NULL,
  share_percent_max BIGINT NOT NULL,
  -- Of the pseudonyms that its matches are told apart by.
  generation BIGINT NOT NULL,
  state TEXT NOT NULL CHECK (state IN
    ('MATCHING', 'AWAITING_APPROVAL', 'INSTRUCTING', 'CONFIRMING', 'COMPLETED', 'CANCELLED', 'FAILED')),
  reason TEXT NOT NULL,
  asked_by TEXT NOT NULL,
  asked_us BIGINT NOT NULL,
  -- Who approved or cancelled it.
  decided_by TEXT NOT NULL,
  keys_read BIGINT NOT NULL,
  keys_matched BIGINT NOT NULL,
  -- Rises with every lease; whoever comes with an older one has lost it.
  epoch BIGINT NOT NULL,
  held_by TEXT NOT NULL,
  run_at_us BIGINT NOT NULL,
  ended_us BIGINT,
  -- Whether every customer's log has it.
  recorded BIGINT NOT NULL,
  CHECK ((ended_us IS NULL) = (state IN ('MATCHING', 'AWAITING_APPROVAL', 'INSTRUCTING', 'CONFIRMING')))
);
CREATE UNIQUE INDEX replays_open ON replays (system_id) WHERE ended_us IS NULL;
CREATE INDEX replays_of ON replays (system_id, replay_id);
CREATE INDEX replays_due ON replays (run_at_us) WHERE recorded = 0;

-- A customer's part in a replay.
CREATE TABLE replay_shares (
  customer_id TEXT NOT NULL,
  replay_id {uuid} NOT NULL,
  -- Seals the identifiers that were matched, until each is part of a request.
  key_epoch TEXT NOT NULL,
  wrapped_key {bytes} NOT NULL,
  erasures BIGINT NOT NULL,
  restrictions BIGINT NOT NULL,
  liftings BIGINT NOT NULL,
  rectifications BIGINT NOT NULL,
  unreachable BIGINT NOT NULL,
  -- Whether the customer's log has it.
  recorded BIGINT NOT NULL,
  PRIMARY KEY (customer_id, replay_id)
);

-- What was found: an identifier that the system holds again and something is to be done for, or a request that a person must look at.
CREATE TABLE replay_matches (
  customer_id TEXT NOT NULL,
  replay_id {uuid} NOT NULL,
  what TEXT NOT NULL CHECK (what IN ('ERASURE', 'RESTRICTION', 'LIFT_RESTRICTION', 'RECTIFICATION', 'UNREACHABLE')),
  follows_request_id {uuid} NOT NULL,
  -- The identifier's pseudonym; empty where it is about the request alone.
  match_id {bytes} NOT NULL,
  sealed {bytes},
  state TEXT NOT NULL CHECK (state IN ('OPEN', 'INSTRUCTED', 'NOTHING', 'LISTED')),
  -- Another instruction about the person is under way: not before this.
  run_at_us BIGINT NOT NULL,
  follow_up_request_id {uuid},
  until_us BIGINT NOT NULL,
  PRIMARY KEY (customer_id, replay_id, what, follows_request_id, match_id)
);
CREATE INDEX replay_matches_open ON replay_matches (customer_id, replay_id, follows_request_id) WHERE state = 'OPEN';
CREATE INDEX replay_matches_until ON replay_matches (customer_id, until_us);

-- A request that carries out again what another had instructed, at one system alone.
ALTER TABLE requests ADD COLUMN repeats_request_id {uuid};
ALTER TABLE requests ADD COLUMN only_system TEXT;
ALTER TABLE requests ADD COLUMN replay_id {uuid};
CREATE INDEX requests_replayed ON requests (customer_id, replay_id) WHERE replay_id IS NOT NULL;

-- Nothing is kept of what was confirmed before: no replay goes back behind it.
ALTER TABLE deployment ADD COLUMN suppressed_since_us BIGINT NOT NULL DEFAULT 0;
UPDATE deployment SET suppressed_since_us = (SELECT coalesce(max(confirmed_us), 0) FROM confirmations) WHERE id = 1;
