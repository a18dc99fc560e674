DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['suppressions', 'replay_shares', 'replay_matches']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY one_customer ON %I USING (
      customer_id = (SELECT current_setting('quittance.customer_id', true))
      OR (SELECT current_setting('quittance.scope', true)) = 'deployment')$p$, t);
    EXECUTE format('ALTER TABLE %I ALTER COLUMN customer_id SET (n_distinct = 1), ALTER COLUMN customer_id SET STATISTICS 1', t);
  END LOOP;
END $$;
ALTER TABLE suppressions ALTER COLUMN system_id SET (n_distinct = 1), ALTER COLUMN system_id SET STATISTICS 1;
-- Row-level security has hidden the confirmations from the statement that both engines share.
SELECT set_config('quittance.scope', 'deployment', true);
UPDATE deployment SET suppressed_since_us = (SELECT coalesce(max(confirmed_us), 0) FROM confirmations) WHERE id = 1;
