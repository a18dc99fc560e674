
ALTER TABLE key_epoch_uses ENABLE ROW LEVEL SECURITY;
ALTER TABLE key_epoch_uses FORCE ROW LEVEL SECURITY;
CREATE POLICY one_customer ON key_epoch_uses USING (
  customer_id = (SELECT current_setting('quittance.customer_id', true))
  OR (SELECT current_setting('quittance.scope', true)) = 'deployment');
ALTER TABLE key_epoch_uses ALTER COLUMN customer_id SET (n_distinct = 1), ALTER COLUMN customer_id SET STATISTICS 1;
