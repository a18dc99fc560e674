//! Resource names: in full, or as short as they can be understood.

use crate::failure::Failure;

/// `acme` or `customers/acme`. Empty stays empty: a customer's own token says who it is.
pub fn customer(text: &str) -> String {
    match text {
        "" => String::new(),
        full if full.starts_with("customers/") => full.to_owned(),
        id => format!("customers/{id}"),
    }
}

/// `crm-nl` or `systems/crm-nl`.
pub fn system(text: &str) -> String {
    if text.starts_with("systems/") { text.to_owned() } else { format!("systems/{text}") }
}

/// A flag that says something else than the full name does would be passed over, and what is named changed: one of the two is a mistake.
fn agrees(full: &str, flag: &str, named: Option<&str>, meant: Option<&str>) -> Result<(), Failure> {
    match meant {
        Some(meant) if named.is_none_or(|named| last(named) != last(meant)) => {
            Err(Failure::Usage(format!("{full} and {flag} {meant} contradict each other: leave one of them out")))
        }
        _ => Ok(()),
    }
}

/// `customers/{customer}/requests/{request}`, or the request's id beside `--customer`.
pub fn request(text: &str, customer_flag: Option<&str>) -> Result<String, Failure> {
    if text.starts_with("customers/") {
        agrees(text, "--customer", text.split('/').nth(1), customer_flag)?;
        return Ok(text.to_owned());
    }
    match customer_flag {
        Some(id) if !text.contains('/') => Ok(format!("{}/requests/{text}", customer(id))),
        _ => Err(Failure::Usage(
            "the request must be named in full, as customers/acme/requests/0199b7a4-…, or by its id with --customer"
                .to_owned(),
        )),
    }
}

/// `customers/{customer}/requests/{request}/tasks/{system}`, or a request's name beside `--system`.
pub fn task(text: &str, system_flag: Option<&str>, customer_flag: Option<&str>) -> Result<String, Failure> {
    match (text.contains("/tasks/"), system_flag) {
        (true, _) => {
            agrees(text, "--customer", text.split('/').nth(1), customer_flag)?;
            agrees(text, "--system", text.split('/').nth(5), system_flag)?;
            Ok(text.to_owned())
        }
        (false, Some(id)) => {
            let id = id.strip_prefix("systems/").unwrap_or(id);
            Ok(format!("{}/tasks/{id}", request(text, customer_flag)?))
        }
        (false, None) => Err(Failure::Usage(
            "the task must be named in full, as customers/acme/requests/0199b7a4-…/tasks/crm-nl, or by its request with --system".to_owned(),
        )),
    }
}

/// The last part of a name.
pub fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_full_names_are_the_same() {
        assert_eq!(customer("acme"), customer("customers/acme"));
        assert_eq!(system("crm"), "systems/crm");
        assert_eq!(request("1", Some("acme")).unwrap(), "customers/acme/requests/1");
        assert_eq!(request("customers/acme/requests/1", None).unwrap(), "customers/acme/requests/1");
        assert!(request("1", None).is_err());
        assert_eq!(task("1", Some("systems/crm"), Some("acme")).unwrap(), "customers/acme/requests/1/tasks/crm");
        assert!(task("1", None, Some("acme")).is_err());
        assert_eq!(last("customers/acme/requests/1"), "1");
    }

    #[test]
    fn a_flag_that_contradicts_the_full_name_is_refused() {
        let (named, at) = ("customers/acme/requests/1", "customers/acme/requests/1/tasks/crm");
        for same in ["acme", "customers/acme"] {
            assert_eq!(request(named, Some(same)).unwrap(), named);
            assert_eq!(task(at, Some("crm"), Some(same)).unwrap(), at);
        }
        assert_eq!(task(at, Some("systems/crm"), None).unwrap(), at);
        let contradicted = [
            request(named, Some("globex")),
            task(named, Some("crm"), Some("globex")),
            task(at, None, Some("customers/globex")),
            task(at, Some("mailer"), Some("acme")),
        ];
        for refused in contradicted {
            assert!(matches!(refused, Err(Failure::Usage(_))), "{refused:?}");
        }
    }
}
