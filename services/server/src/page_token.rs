//! Page tokens: where the next page begins, bound to the query that they came with.

use aws_lc_rs::digest::{SHA256, digest};

use crate::error::{ApiError, ApiResult};

/// `query`: everything that the listing depends on, but for page size and token.
fn tag(query: &str) -> String {
    digest(&SHA256, query.as_bytes()).as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect()
}

pub fn issue(query: &str, after: &str) -> String {
    format!("{}.{after}", tag(query))
}

/// `None` for the first page.
pub fn read<'a>(query: &str, token: &'a str) -> ApiResult<Option<&'a str>> {
    if token.is_empty() {
        return Ok(None);
    }
    match token.split_once('.') {
        Some((of, after)) if of == tag(query) && after.len() <= 128 => Ok(Some(after)),
        _ => Err(ApiError::InvalidPageToken),
    }
}

/// A page of rows, of which one more was asked for than it holds, and the token of the next page: empty where this is the last.
pub fn page<T>(mut rows: Vec<T>, size: u32, token: impl FnOnce(&T) -> String) -> (Vec<T>, String) {
    let more = rows.len() > size as usize;
    rows.truncate(size as usize);
    let next = rows.last().filter(|_| more).map(token);
    (rows, next.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_page_has_no_token() {
        let cut = |rows: &[u32]| page(rows.to_vec(), 2, u32::to_string);
        assert_eq!(cut(&[1, 2, 3]), (vec![1, 2], "2".to_owned()));
        assert_eq!(cut(&[1, 2]), (vec![1, 2], String::new()), "as many as a page holds are all");
        assert_eq!(cut(&[]), (vec![], String::new()));
    }

    #[test]
    fn a_token_of_another_query_is_refused() {
        let token = issue("states=1", "0192");
        assert_eq!(read("states=1", &token).unwrap(), Some("0192"));
        assert!(read("states=2", &token).is_err());
        assert!(read("states=1", "garbage").is_err());
        assert_eq!(read("states=1", "").unwrap(), None);
    }
}
