-- What the customer is to see of a request, beyond the spine.

-- Rectifications that change an identifier: JSON, kind and field of each; never a value. Empty: none.
ALTER TABLE requests ADD COLUMN identifier_changes TEXT NOT NULL DEFAULT '';
