-- What the customer is to see of a request, beyond the spine.

-- Rectifications that change an identifier: JSON, kind and field of each; never a value. Empty: none.
ALTER TABLE requests ADD COLUMN identifier_changes TEXT NOT NULL DEFAULT '';

-- Recipients that the instruction says to tell (Art. 19): JSON, recipient and system of each. Empty: none.
ALTER TABLE requests ADD COLUMN notices TEXT NOT NULL DEFAULT '';

-- How late it was when it was last told of: 0 in time, 1 at risk, 2 overdue. What is told of leaves the range that a sweep looks at.
ALTER TABLE requests ADD COLUMN urgency BIGINT NOT NULL DEFAULT 0;
CREATE INDEX requests_late ON requests (customer_id, urgency, due_us) WHERE closed_us IS NULL;

-- Which transaction changed a request last (services/store/src/changes.rs): a watch goes by it, since the order of stamps is not that of
-- commits.
ALTER TABLE requests ADD COLUMN changed_seq BIGINT NOT NULL DEFAULT 0;
DROP INDEX requests_changed;
CREATE INDEX requests_changed ON requests (customer_id, changed_seq);
-- The server that counts the transactions, and what is added to its numbers.
ALTER TABLE deployment ADD COLUMN cluster TEXT NOT NULL DEFAULT '';
ALTER TABLE deployment ADD COLUMN change_base BIGINT NOT NULL DEFAULT 0;
