
ALTER TABLE ledger_batches ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger_batches FORCE ROW LEVEL SECURITY;
CREATE POLICY one_customer ON ledger_batches USING (
  customer_id = (SELECT current_setting('quittance.customer_id', true))
  OR (SELECT current_setting('quittance.scope', true)) = 'deployment');
ALTER TABLE ledger_batches ALTER COLUMN customer_id SET (n_distinct = 1), ALTER COLUMN customer_id SET STATISTICS 1;
