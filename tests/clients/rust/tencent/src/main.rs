//! A Tencent SCF custom-runtime function, unchanged: the `tencent_scf` crate over SCF's runtime API.
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{json, Value};
use tencent_scf::{make_scf, start, Context};

type Error = Box<dyn std::error::Error + Send + Sync + 'static>;

static CALLS: AtomicU64 = AtomicU64::new(0);

fn main() {
    start(make_scf(handler));
}

fn handler(event: Value, context: Context) -> Result<Value, Error> {
    let calls = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
    println!("tencent_scf call {calls}");
    if event["fail"].as_bool() == Some(true) {
        return Err("asked to fail".into());
    }
    Ok(json!({
        "hello": event["name"],
        "calls": calls,
        "request_id": context.request_id,
        "function": context.function_name,
        "memory": context.memory_limit_in_mb,
    }))
}
