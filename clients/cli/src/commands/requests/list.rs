//! `quittance requests list`

use clap::Args;
use quittance_api::v1::{Action, ListCustomersRequest, ListRequestsRequest, RequestFilter, RequestState, Timeliness};

use quittance_client::Client;

use super::parent;
use crate::{
    args::Global,
    failure::{Done, End, Failure},
    output::{Output, note},
    short_names::ShortName,
    times, view,
};

#[derive(Args)]
pub struct List {
    /// The customer; may be left out with a customer's own token.
    #[arg(long)]
    customer: Option<String>,
    /// Those of all customers, one customer after the other. Operators; with --needs-attention or --at-risk, what there is to do today.
    #[arg(long, conflicts_with = "customer")]
    all_customers: bool,
    /// Only in this state, as in_progress. Repeat for any of several.
    #[arg(long, value_parser = RequestState::parse)]
    state: Vec<RequestState>,
    /// Only this action. Repeat for any of several.
    #[arg(long, value_parser = Action::parse)]
    action: Vec<Action>,
    /// Only what is open and due before this time.
    #[arg(long, value_parser = times::parse, value_name = "TIME")]
    due_before: Option<prost_types::Timestamp>,
    /// Only what is open and runs out of time, or is overdue.
    #[arg(long)]
    at_risk: bool,
    /// Only with a task that needs attention.
    #[arg(long)]
    needs_attention: bool,
    /// Only with this reference of the customer's.
    #[arg(long)]
    reference: Option<String>,
    /// How many at most; 0 means all. Unless set, 100, and with --all-customers, --needs-attention or --at-risk all.
    #[arg(long)]
    limit: Option<usize>,
}

pub async fn run(list: List, global: &Global, out: &mut Output) -> Done {
    let filter = RequestFilter {
        states: list.state.into_iter().map(Into::into).collect(),
        actions: list.action.into_iter().map(Into::into).collect(),
        due_before: list.due_before,
        needs_attention: list.needs_attention,
        reference: list.reference.unwrap_or_default(),
        timeliness: if list.at_risk { vec![Timeliness::AtRisk.into(), Timeliness::Overdue.into()] } else { vec![] },
    };
    let client = global.connect().await?;
    let everything = list.all_customers || list.needs_attention || list.at_risk;
    let limit = list.limit.unwrap_or(if everything { 0 } else { 100 });
    let mut listing = Listing { left: if limit == 0 { usize::MAX } else { limit }, shown: false, cut: false };
    if list.all_customers {
        let mut page_token = String::new();
        while listing.left > 0 {
            let request = ListCustomersRequest { page_size: 1_000, page_token };
            let page = client.customers().list_customers(request).await?.into_inner();
            for customer in page.customers {
                listing.of(&client, customer.name, &filter, out).await?;
            }
            listing.cut |= listing.left == 0 && !page.next_page_token.is_empty();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
    } else {
        listing.of(&client, parent(list.customer.as_ref()), &filter, out).await?;
    }
    if !listing.shown {
        out.list(&[], view::Request::table)?;
    }
    if listing.cut {
        note(&format!("these are {limit}, and there may be more: --limit 0 shows all"));
    }
    Ok(End::Fine)
}

struct Listing {
    left: usize,
    shown: bool,
    /// The limit was reached before all had been looked at.
    cut: bool,
}

impl Listing {
    /// Page by page, for there may be a million.
    async fn of(
        &mut self,
        client: &Client,
        parent: String,
        filter: &RequestFilter,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let mut page_token = String::new();
        self.cut |= self.left == 0;
        while self.left > 0 {
            let request = ListRequestsRequest {
                parent: parent.clone(),
                page_size: i32::try_from(self.left.min(1_000)).unwrap_or(1_000),
                page_token,
                filter: Some(filter.clone()),
            };
            let page = client.requests().list_requests(request).await?.into_inner();
            let requests: Vec<_> = page.requests.into_iter().take(self.left).map(view::Request::from).collect();
            self.left -= requests.len();
            if !requests.is_empty() {
                out.list(&requests, view::Request::table)?;
                self.shown = true;
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(());
            }
            self.cut |= self.left == 0;
        }
        Ok(())
    }
}
