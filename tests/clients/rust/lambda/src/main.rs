//! An AWS Lambda function, unchanged: `lambda_runtime` over the Lambda Runtime API.
use std::sync::atomic::{AtomicU64, Ordering};

use lambda_runtime::{run, service_fn, Error, LambdaEvent};
use serde_json::{json, Value};

static CALLS: AtomicU64 = AtomicU64::new(0);

async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (event, context) = event.into_parts();
    let calls = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
    println!("lambda_runtime call {calls}");
    if event["fail"].as_bool() == Some(true) {
        return Err("asked to fail".into());
    }
    Ok(json!({ "hello": event["name"], "calls": calls, "request_id": context.request_id }))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    run(service_fn(handler)).await
}
