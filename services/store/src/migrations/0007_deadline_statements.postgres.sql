
ALTER TABLE deadline_statements ENABLE ROW LEVEL SECURITY;
ALTER TABLE deadline_statements FORCE ROW LEVEL SECURITY;
CREATE POLICY one_customer ON deadline_statements USING (
  customer_id = (SELECT current_setting('quittance.customer_id', true))
  OR (SELECT current_setting('quittance.scope', true)) = 'deployment');
ALTER TABLE deadline_statements ALTER COLUMN customer_id SET (n_distinct = 1), ALTER COLUMN customer_id SET STATISTICS 1;
