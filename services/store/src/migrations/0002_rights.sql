-- What the customer is to see of a request, beyond the spine.

-- Rectifications that change an identifier: JSON, kind and field of each; never a value. Empty: none.
ALTER TABLE requests ADD COLUMN identifier_changes TEXT NOT NULL DEFAULT '';

-- Recipients that the instruction says to tell (Art. 19): JSON, recipient and system of each. Empty: none.
ALTER TABLE requests ADD COLUMN notices TEXT NOT NULL DEFAULT '';
