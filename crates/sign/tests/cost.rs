//! What one verification costs. Run by hand: `cargo test --release -p mayfly-sign --test cost -- --ignored --nocapture`.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{T, Wire, credentials};
use mayfly_sign::{Style, Tc3Request, V1Method, V1Request, Verifier, sign_tc3, sign_v1};

fn best_of(rounds: usize, per_round: u32, mut run: impl FnMut()) -> Duration {
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            (0..per_round).for_each(|_| run());
            start.elapsed() / per_round
        })
        .min()
        .unwrap_or_default()
}

#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_a_verification() {
    let text = format!("{{\"FunctionName\":\"hello\",\"Event\":\"{}\"}}", "x".repeat(168));
    let body = Bytes::from(text.clone());
    for (name, host, scheme_in_host) in [("python", "127.0.0.1:8700", false), ("tccli", "http://127.0.0.1:8700", true)]
    {
        let headers = sign_tc3(&Tc3Request {
            secret_id: "AKIDtest",
            secret_key: "testsecretkey",
            token: None,
            host,
            service: "scf",
            action: "InvokeFunction",
            version: "2018-04-16",
            region: Some("ap-guangzhou"),
            timestamp_s: T,
            query: None,
            content_type: "application/json",
            body: &body,
        })
        .unwrap();
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let wire = Wire::new("POST", "", &headers, &text);
        let (verifier, known) = (Verifier::new(&["scf"]), credentials());
        let warm = best_of(20, 5000, || {
            black_box(wire.verify_with(&verifier, &known, T * 1000)).unwrap();
        });
        println!("TC3 {name} ({} B body, scheme in host: {scheme_in_host}): warm {warm:?}", text.len());
        let cold = best_of(20, 500, || {
            black_box(wire.verify_with(&Verifier::new(&["scf"]), &known, T * 1000)).unwrap();
        });
        println!("TC3 {name}: with a new verifier, key derived {cold:?}");
        let node = wire.clone().set("host", &format!("{host}:1"));
        let wrong = best_of(20, 2000, || {
            let _ = black_box(node.verify_with(&verifier, &known, T * 1000));
        });
        println!("TC3 {name}: with another host {wrong:?}");
    }
    let (verifier, known) = (Verifier::new(&["scf"]), credentials());
    let wires: Vec<_> = (0..20_000u64)
        .map(|nonce| {
            let form = sign_v1(&V1Request {
                method: V1Method::Post,
                secret_id: "AKIDtest",
                secret_key: "testsecretkey",
                token: None,
                host: "127.0.0.1:8700",
                path: "/",
                action: "InvokeFunction",
                version: "2018-04-16",
                region: Some("ap-guangzhou"),
                timestamp_s: T,
                nonce,
                style: Style::HmacSha1,
                fields: &[("FunctionName".into(), "hello".into()), ("Event".into(), "x".repeat(100))],
            })
            .unwrap();
            Wire::new(
                "POST",
                "",
                &[("host", "127.0.0.1:8700"), ("content-type", "application/x-www-form-urlencoded")],
                &form,
            )
        })
        .collect();
    let start = Instant::now();
    for wire in &wires {
        black_box(wire.verify_with(&verifier, &known, T * 1000)).unwrap();
    }
    println!("v1 HmacSHA1, replay guard growing: {:?}", start.elapsed() / wires.len() as u32);
}
