
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['key_epoch_uses', 'kept_rows']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY one_customer ON %I USING (
      customer_id = (SELECT current_setting('quittance.customer_id', true))
      OR (SELECT current_setting('quittance.scope', true)) = 'deployment')$p$, t);
    EXECUTE format('ALTER TABLE %I ALTER COLUMN customer_id SET (n_distinct = 1), ALTER COLUMN customer_id SET STATISTICS 1', t);
  END LOOP;
END $$;
