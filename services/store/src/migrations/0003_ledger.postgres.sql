
ALTER TABLE certificates ENABLE ROW LEVEL SECURITY;
ALTER TABLE certificates FORCE ROW LEVEL SECURITY;
CREATE POLICY one_customer ON certificates USING (
  customer_id = (SELECT current_setting('quittance.customer_id', true))
  OR (SELECT current_setting('quittance.scope', true)) = 'deployment');
ALTER TABLE certificates ALTER COLUMN customer_id SET (n_distinct = 1), ALTER COLUMN customer_id SET STATISTICS 1;
