//! The numbered parameters of a statement's text.

/// Writes each `$n` anew. Quoted names and texts are left alone: a column may well be called `a$1`.
pub(crate) fn rewrite(sql: &str, mut parameter: impl FnMut(&mut String, usize)) -> String {
    let mut text = String::with_capacity(sql.len() + 16);
    let mut chars = sql.chars().peekable();
    let mut quote: Option<char> = None;
    while let Some(c) = chars.next() {
        match quote {
            Some(end) if c == end => quote = None,
            None if matches!(c, '`' | '\'' | '"') => quote = Some(c),
            _ => {}
        }
        if quote.is_some() || c != '$' || !chars.peek().is_some_and(char::is_ascii_digit) {
            text.push(c);
            continue;
        }
        let mut number = 0_usize;
        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
            number = number * 10 + digit as usize;
            chars.next();
        }
        parameter(&mut text, number);
    }
    text
}
