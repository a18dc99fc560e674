-- The spine: customers, systems, requests, tasks, confirmations, staged ledger entries.
-- Written for PostgreSQL and SQLite alike: {bytes} and {uuid} are replaced per engine (services/store/src/migrate.rs).
-- Times are microseconds since 1970-01-01 UTC in a bigint: both engines then agree on order and precision.
-- Citus's rules: customer_id is in every primary key and unique index of a customer's table; the few tables without it are
-- small, deployment-wide and become reference tables.

-- Deployment-wide.

CREATE TABLE deployment (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  -- Raised by every change of systems: a request completes only when it was planned with the present one (I3).
  systems_generation BIGINT NOT NULL
);
INSERT INTO deployment (id, systems_generation) VALUES (1, 1);

CREATE TABLE customers (
  customer_id TEXT PRIMARY KEY,
  idempotency_id {uuid} NOT NULL UNIQUE,
  display_name TEXT NOT NULL,
  agreement_version BIGINT NOT NULL,
  created_us BIGINT NOT NULL
);

CREATE TABLE systems (
  system_id TEXT PRIMARY KEY,
  idempotency_id {uuid} NOT NULL UNIQUE,
  body TEXT NOT NULL,
  map_version BIGINT NOT NULL,
  created_us BIGINT NOT NULL
);

CREATE TABLE data_maps (
  system_id TEXT NOT NULL REFERENCES systems (system_id),
  version BIGINT NOT NULL,
  idempotency_id {uuid} NOT NULL,
  yaml TEXT NOT NULL,
  body TEXT NOT NULL,
  created_us BIGINT NOT NULL,
  PRIMARY KEY (system_id, version)
);

-- Which customer has due work where: the only thing that a dispatcher scans. A hint that is never lost: whoever makes work due
-- raises `bumps`, and whoever found none removes the row only at the `bumps` that it had seen.
CREATE TABLE ready (
  customer_id TEXT NOT NULL,
  system_id TEXT NOT NULL,
  action TEXT NOT NULL,
  work TEXT NOT NULL,
  ready_us BIGINT NOT NULL,
  bumps BIGINT NOT NULL,
  PRIMARY KEY (customer_id, system_id, action, work)
);
CREATE INDEX ready_due ON ready (ready_us);

-- Customers' tables.

CREATE TABLE agreements (
  customer_id TEXT NOT NULL,
  version BIGINT NOT NULL,
  idempotency_id {uuid} NOT NULL,
  body TEXT NOT NULL,
  signed_us BIGINT NOT NULL,
  created_us BIGINT NOT NULL,
  PRIMARY KEY (customer_id, version),
  UNIQUE (customer_id, idempotency_id)
);

CREATE TABLE requests (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  idempotency_id {uuid} NOT NULL,
  -- HMAC of the content under the request's own key: tells a repetition from a reuse, and nothing to anybody else.
  content_mac {bytes} NOT NULL,
  action TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN
    ('AWAITING_CUSTOMER', 'IN_PROGRESS', 'COMPLETED', 'COMPLETED_WITH_EXCEPTIONS', 'DECLINED', 'CANCELLED')),
  instruction TEXT NOT NULL,
  reference TEXT NOT NULL,
  restriction_ground TEXT,
  key_epoch TEXT NOT NULL,
  wrapped_key {bytes} NOT NULL,
  sealed_subject {bytes} NOT NULL,
  agreement_version BIGINT NOT NULL,
  systems_generation BIGINT NOT NULL,
  open_tasks BIGINT NOT NULL CHECK (open_tasks >= 0),
  exceptions BIGINT NOT NULL,
  created_us BIGINT NOT NULL,
  changed_us BIGINT NOT NULL,
  first_due_us BIGINT NOT NULL,
  due_us BIGINT NOT NULL,
  subject_asked_us BIGINT,
  subject_informed_us BIGINT,
  controller_due_us BIGINT,
  closed_us BIGINT,
  closing_reason TEXT,
  objection_reason TEXT,
  objection_us BIGINT,
  PRIMARY KEY (customer_id, request_id),
  UNIQUE (customer_id, idempotency_id),
  CHECK ((closed_us IS NULL) = (state IN ('AWAITING_CUSTOMER', 'IN_PROGRESS')))
);
-- Without the request's id: a look-up by id must find the primary key the better choice even before there are statistics.
CREATE INDEX requests_changed ON requests (customer_id, changed_us);
CREATE INDEX requests_open ON requests (customer_id, systems_generation, request_id) WHERE closed_us IS NULL;

CREATE TABLE tasks (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  system_id TEXT NOT NULL,
  action TEXT NOT NULL,
  work TEXT NOT NULL CHECK (work IN ('RESOLVE', 'ACT')),
  state TEXT NOT NULL CHECK (state IN
    ('WAITING', 'PENDING', 'RUNNING', 'AWAITING_CONFIRMATION', 'NEEDS_ATTENTION', 'CONFIRMED')),
  map_version BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  -- The fencing token: raised by every lease; a report under another one is refused (I4).
  lease BIGINT NOT NULL,
  leased_by TEXT NOT NULL,
  -- PENDING, AWAITING_CONFIRMATION: not before this. RUNNING: the lease passes then, and the task is due again.
  run_at_us BIGINT NOT NULL,
  reason TEXT NOT NULL,
  latest_start_us BIGINT,
  PRIMARY KEY (customer_id, request_id, system_id),
  FOREIGN KEY (customer_id, request_id) REFERENCES requests (customer_id, request_id)
);
-- Its size is that of the open work: what is finished costs a claim nothing.
CREATE INDEX tasks_due ON tasks (customer_id, system_id, action, work, run_at_us)
  WHERE state IN ('PENDING', 'RUNNING', 'AWAITING_CONFIRMATION');
CREATE INDEX tasks_attention ON tasks (customer_id, request_id) WHERE state = 'NEEDS_ATTENTION';

CREATE TABLE task_waits (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  system_id TEXT NOT NULL,
  before_work TEXT NOT NULL,
  on_request_id {uuid} NOT NULL,
  on_system_id TEXT NOT NULL,
  until_state TEXT NOT NULL CHECK (until_state IN ('RESOLVED', 'CONFIRMED')),
  PRIMARY KEY (customer_id, on_request_id, on_system_id, request_id, system_id, before_work, until_state)
);
CREATE INDEX task_waits_of ON task_waits (customer_id, request_id, system_id);

-- The keys of the rows that a task found; written before the system is touched (I4).
CREATE TABLE match_sets (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  system_id TEXT NOT NULL,
  sealed {bytes} NOT NULL,
  PRIMARY KEY (customer_id, request_id, system_id)
);

-- The newest open request about one person, known by a keyed pseudonym: what comes next about that person waits for it. The
-- upsert that replaces it locks the row, so two instructions about one person are always in an order.
CREATE TABLE subject_heads (
  customer_id TEXT NOT NULL,
  pseudonym {bytes} NOT NULL,
  request_id {uuid} NOT NULL,
  previous_request_id {uuid},
  PRIMARY KEY (customer_id, pseudonym)
);
CREATE INDEX subject_heads_of ON subject_heads (customer_id, request_id);

-- Open requests that had one before them about the same person, and which. Few: most persons have one request. It keeps the order
-- where waits cannot: at a system that is added meanwhile, and when one in the middle is cancelled.
CREATE TABLE subject_lines (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  pseudonym {bytes} NOT NULL,
  after_request_id {uuid} NOT NULL,
  PRIMARY KEY (customer_id, request_id, pseudonym)
);
CREATE INDEX subject_lines_after ON subject_lines (customer_id, after_request_id);

-- Restrictions that stand (Art. 18): an erasure asks the customer first where the subject wanted the data kept.
CREATE TABLE restrictions (
  customer_id TEXT NOT NULL,
  pseudonym {bytes} NOT NULL,
  request_id {uuid} NOT NULL,
  ground TEXT NOT NULL,
  -- The lifting (or the erasure) that is under way; once it is done, the restriction goes.
  ended_by_request_id {uuid},
  PRIMARY KEY (customer_id, pseudonym, request_id)
);
CREATE INDEX restrictions_ended ON restrictions (customer_id, ended_by_request_id);

CREATE TABLE confirmations (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  system_id TEXT NOT NULL,
  body TEXT NOT NULL,
  confirmed_us BIGINT NOT NULL,
  late BIGINT NOT NULL,
  PRIMARY KEY (customer_id, request_id, system_id)
);

CREATE TABLE extensions (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  due_us BIGINT NOT NULL,
  reason TEXT NOT NULL,
  created_us BIGINT NOT NULL,
  PRIMARY KEY (customer_id, request_id, due_us)
);

CREATE TABLE packages (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  released_us BIGINT NOT NULL,
  third_party_withheld BIGINT NOT NULL,
  PRIMARY KEY (customer_id, request_id)
);

CREATE TABLE package_records (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  system_id TEXT NOT NULL,
  -- Records of an attempt whose lease was lost never show: the confirmed attempt's lease is kept in `tasks`.
  lease BIGINT NOT NULL,
  number BIGINT NOT NULL,
  third_party BIGINT NOT NULL,
  sealed {bytes} NOT NULL,
  PRIMARY KEY (customer_id, request_id, system_id, lease, number)
);

-- What the log will hold, staged in the transaction that made it true (I6). leaf_index is set by the sequencer.
CREATE TABLE ledger_entries (
  customer_id TEXT NOT NULL,
  entry_id {uuid} NOT NULL,
  request_id {uuid} NOT NULL,
  kind TEXT NOT NULL,
  payload {bytes} NOT NULL,
  salt {bytes} NOT NULL,
  leaf {bytes} NOT NULL,
  leaf_index BIGINT,
  PRIMARY KEY (customer_id, request_id, entry_id)
);
CREATE INDEX ledger_entries_staged ON ledger_entries (entry_id) WHERE leaf_index IS NULL;
