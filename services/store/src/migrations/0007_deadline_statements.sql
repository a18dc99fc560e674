-- The interim statements that were issued by themselves when a request was overdue (I3), signed, and the due time that had passed: an
-- extended request that is overdue again has another one. `requests.urgency` 3: it is issued.
CREATE TABLE deadline_statements (
  customer_id TEXT NOT NULL,
  request_id {uuid} NOT NULL,
  due_us BIGINT NOT NULL,
  content {bytes} NOT NULL,
  issued_us BIGINT NOT NULL,
  PRIMARY KEY (customer_id, request_id, due_us),
  FOREIGN KEY (customer_id, request_id) REFERENCES requests (customer_id, request_id)
);
