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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_another_query_is_refused() {
        let token = issue("states=1", "0192");
        assert_eq!(read("states=1", &token).unwrap(), Some("0192"));
        assert!(read("states=2", &token).is_err());
        assert!(read("states=1", "garbage").is_err());
        assert_eq!(read("states=1", "").unwrap(), None);
    }
}
