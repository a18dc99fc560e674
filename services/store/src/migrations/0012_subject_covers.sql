-- Subjects' pseudonyms (subject_heads, subject_lines, restrictions) are covered by the epoch's key from the second epoch on that begins under
-- this schema: the first is for builds that know nothing of it and may still run beside (docs/decisions/0005-forgetting.md). '': the epoch
-- was begun by such a build.
ALTER TABLE key_epochs ADD COLUMN subject_form TEXT NOT NULL DEFAULT '';
-- By name, as they are covered anew; until now they were only looked up by request.
CREATE INDEX subject_lines_by_name ON subject_lines (customer_id, pseudonym);
