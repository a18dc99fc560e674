//! For every table of the demonstration, what must stand in it afterwards, said in SQL from the copy of before.
//!
//! The statements see two things besides the application's own tables: `before`, the copy, and `erased (id, email, user_id)`.

pub struct Table {
    pub name: &'static str,
    /// Rows that are a subject's who was erased, or lead to one, and must not be there any more.
    pub theirs: &'static str,
    /// What must be there now.
    pub expected: &'static str,
    /// Rows that hold nothing any more and may be there or not.
    pub empty: &'static str,
}

pub const CRM: &[Table] = &[
    Table {
        name: "customer",
        theirs: "id IN (SELECT id FROM erased) OR referred_by IN (SELECT id FROM erased)",
        expected: "SELECT id, email, user_id, first_name, last_name, phone, birth_date,
                     iif(referred_by IN (SELECT id FROM erased), NULL, referred_by) AS referred_by, restricted
                   FROM before.customer WHERE id NOT IN (SELECT id FROM erased)",
        empty: "false",
    },
    Table {
        name: "address",
        theirs: "customer_id IN (SELECT id FROM erased)",
        // One address was corrected.
        expected:
            "SELECT customer_id, kind, street, postcode, iif(city = 'Amstredam', 'Amsterdam', city) AS city, restricted
                   FROM before.address WHERE customer_id NOT IN (SELECT id FROM erased)",
        empty: "false",
    },
    Table {
        name: "orders",
        theirs: "customer_id IN (SELECT id FROM erased)",
        expected: "SELECT * FROM before.orders WHERE customer_id NOT IN (SELECT id FROM erased)",
        empty: "false",
    },
    Table {
        name: "order_line",
        theirs: "order_id IN (SELECT o.id FROM before.orders o JOIN erased e ON o.customer_id = e.id)",
        expected: "SELECT * FROM before.order_line WHERE order_id NOT IN
                     (SELECT o.id FROM before.orders o JOIN erased e ON o.customer_id = e.id)",
        empty: "false",
    },
    Table {
        name: "message",
        theirs: "lower(sender_email) IN (SELECT email FROM erased) OR lower(recipient_email) IN (SELECT email FROM erased)",
        // Each side of a message is its own person's: what the other one wrote or received stays.
        expected: "SELECT id, iif(s, NULL, sender_email) AS sender_email, iif(s, NULL, sender_name) AS sender_name,
                     iif(r, NULL, recipient_email) AS recipient_email, iif(r, NULL, recipient_name) AS recipient_name,
                     iif(s, NULL, body) AS body, restricted
                   FROM (SELECT *, lower(sender_email) IN (SELECT email FROM erased) AS s,
                           lower(recipient_email) IN (SELECT email FROM erased) AS r FROM before.message)
                   WHERE NOT (s AND r)",
        empty: "coalesce(sender_email, sender_name, recipient_email, recipient_name, body) IS NULL",
    },
    Table {
        name: "company",
        theirs: "contact_id IN (SELECT id FROM erased)",
        expected: "SELECT id, name, iif(contact_id IN (SELECT id FROM erased), NULL, contact_id) AS contact_id FROM before.company",
        empty: "false",
    },
];

/// Booked less than seven book years ago.
macro_rules! held {
    () => {
        "CAST(substr(booked_on, 1, 4) AS INTEGER) + 7 >= CAST(strftime('%Y', 'now') AS INTEGER)"
    };
}

pub const SHOP: &[Table] = &[
    Table {
        name: "account",
        theirs: "user_id IN (SELECT user_id FROM erased)",
        expected: "SELECT * FROM before.account WHERE user_id NOT IN (SELECT user_id FROM erased)",
        empty: "false",
    },
    Table {
        name: "session",
        theirs: "user_id IN (SELECT user_id FROM erased)",
        expected: "SELECT * FROM before.session WHERE user_id NOT IN (SELECT user_id FROM erased)",
        empty: "false",
    },
    Table {
        name: "invoice",
        theirs: concat!("user_id IN (SELECT user_id FROM erased) AND NOT ", held!()),
        expected: concat!(
            "SELECT number, user_id, billing_name, billing_address, booked_on, amount_cents,
               iif(user_id IN (SELECT user_id FROM erased), 1, restricted) AS restricted
             FROM before.invoice WHERE user_id NOT IN (SELECT user_id FROM erased) OR ",
            held!()
        ),
        empty: "false",
    },
    Table {
        name: "review",
        theirs: "user_id IN (SELECT user_id FROM erased)",
        expected: "SELECT id, iif(e, NULL, user_id) AS user_id, iif(e, '[erased]', author) AS author, article, stars,
                     iif(e, NULL, opinion) AS opinion, restricted
                   FROM (SELECT *, user_id IN (SELECT user_id FROM erased) AS e FROM before.review)",
        empty: "false",
    },
];

pub const HELD: &str = concat!("user_id IN (SELECT user_id FROM erased) AND ", held!());
