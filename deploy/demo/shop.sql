-- The web shop, as its own developers made it.
CREATE TABLE account (
  user_id TEXT PRIMARY KEY NOT NULL,
  display_name TEXT,
  restricted INTEGER NOT NULL
);

CREATE TABLE session (
  id INTEGER PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES account (user_id),
  ip_address TEXT,
  user_agent TEXT,
  restricted INTEGER NOT NULL
);
CREATE INDEX session_user ON session (user_id);

-- The books: kept seven years from the end of the book year, whoever asks.
CREATE TABLE invoice (
  number INTEGER PRIMARY KEY,
  user_id TEXT,
  billing_name TEXT,
  billing_address TEXT,
  booked_on TEXT NOT NULL,
  amount_cents INTEGER NOT NULL,
  restricted INTEGER NOT NULL
);
CREATE INDEX invoice_user ON invoice (user_id);

CREATE TABLE review (
  id INTEGER PRIMARY KEY,
  user_id TEXT,
  author TEXT NOT NULL,
  article TEXT NOT NULL,
  stars INTEGER NOT NULL,
  opinion TEXT,
  restricted INTEGER NOT NULL
);
CREATE INDEX review_user ON review (user_id);
