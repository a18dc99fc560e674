-- Row-level security on every customer's table (I8): a transaction sees one customer's rows, named by its settings, unless it is
-- one of the few deployment-wide transactions. FORCE: the owner of the tables is the service itself.
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['agreements', 'requests', 'tasks', 'task_waits', 'match_sets', 'subject_heads', 'subject_lines', 'restrictions',
    'confirmations', 'extensions', 'packages', 'package_records', 'ledger_entries']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    -- The sub-selects are evaluated once a statement, not once a row.
    EXECUTE format($p$CREATE POLICY one_customer ON %I USING (
      customer_id = (SELECT current_setting('quittance.customer_id', true))
      OR (SELECT current_setting('quittance.scope', true)) = 'deployment')$p$, t);
    -- One plan serves all customers, and a batch of the largest must not be joined as if it had one row: the planner takes each for
    -- the only one. (One most common value at most is kept: it would be believed rather than this.)
    EXECUTE format('ALTER TABLE %I ALTER COLUMN customer_id SET (n_distinct = 1), ALTER COLUMN customer_id SET STATISTICS 1', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['tasks', 'match_sets']
  LOOP
    EXECUTE format('ALTER TABLE %I ALTER COLUMN system_id SET (n_distinct = 1), ALTER COLUMN system_id SET STATISTICS 1', t);
  END LOOP;
END $$;
