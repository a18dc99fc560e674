-- The customer administration, as its own developers made it. Quittance adds nothing to it.
CREATE TABLE customer (
  id INTEGER PRIMARY KEY,
  email TEXT COLLATE NOCASE,
  user_id TEXT NOT NULL,
  first_name TEXT,
  last_name TEXT,
  phone TEXT,
  birth_date TEXT,
  referred_by INTEGER REFERENCES customer (id),
  restricted INTEGER NOT NULL
);
CREATE INDEX customer_email ON customer (email);
CREATE INDEX customer_referred_by ON customer (referred_by);

CREATE TABLE address (
  customer_id INTEGER NOT NULL REFERENCES customer (id),
  kind TEXT NOT NULL,
  street TEXT,
  postcode TEXT,
  city TEXT,
  restricted INTEGER NOT NULL,
  PRIMARY KEY (customer_id, kind)
);

CREATE TABLE orders (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER NOT NULL REFERENCES customer (id),
  ordered_on TEXT NOT NULL,
  note TEXT,
  restricted INTEGER NOT NULL
);
CREATE INDEX orders_customer ON orders (customer_id);

CREATE TABLE order_line (
  order_id INTEGER NOT NULL REFERENCES orders (id),
  line INTEGER NOT NULL,
  article TEXT NOT NULL,
  engraving TEXT,
  restricted INTEGER NOT NULL,
  PRIMARY KEY (order_id, line)
);

-- Two people's: who wrote it, and who received it.
CREATE TABLE message (
  id INTEGER PRIMARY KEY,
  sender_email TEXT COLLATE NOCASE,
  sender_name TEXT,
  recipient_email TEXT COLLATE NOCASE,
  recipient_name TEXT,
  body TEXT,
  restricted INTEGER NOT NULL
);
CREATE INDEX message_sender ON message (sender_email);
CREATE INDEX message_recipient ON message (recipient_email);

-- Nobody's row; it only points at whom to ring.
CREATE TABLE company (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  contact_id INTEGER REFERENCES customer (id)
);
CREATE INDEX company_contact ON company (contact_id);
