//! A program written for AWS Lambda, unchanged: the total of a basket, by lines.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Basket {
    items: Vec<Item>,
    /// In percent.
    #[serde(default)]
    tax: u64,
}

#[derive(Deserialize)]
struct Item {
    name: String,
    /// In cents: money is not a floating-point number.
    price_cents: u64,
    count: u64,
}

#[derive(Serialize)]
struct Bill {
    lines: Vec<(String, u64)>,
    tax_cents: u64,
    total_cents: u64,
    request_id: String,
}

async fn handler(event: LambdaEvent<Basket>) -> Result<Bill, Error> {
    let (basket, context) = event.into_parts();
    let mut lines = Vec::with_capacity(basket.items.len());
    let mut sum = 0u64;
    for item in basket.items {
        let line = item.price_cents.checked_mul(item.count).ok_or("a line is too large")?;
        sum = sum.checked_add(line).ok_or("the sum is too large")?;
        lines.push((item.name, line));
    }
    let tax_cents = sum.checked_mul(basket.tax).ok_or("the tax is too large")? / 100;
    let total_cents = sum.checked_add(tax_cents).ok_or("the total is too large")?;
    Ok(Bill { lines, tax_cents, total_cents, request_id: context.request_id })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handler)).await
}
