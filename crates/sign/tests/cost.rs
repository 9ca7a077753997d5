//! What one verification costs. Run by hand: `cargo test --release -p mayfly-sign --test cost -- --ignored --nocapture`.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{T, credentials, tc3_wire, v1_request, v1_wire};
use mayfly_sign::{Style, V1Request, Verifier, sign_v1};

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
    for (name, host, scheme_in_host) in [("python", "127.0.0.1:8700", false), ("tccli", "http://127.0.0.1:8700", true)]
    {
        let wire = tc3_wire(&text, |r| (r.host, r.action) = (host, "InvokeFunction"));
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
            let fields = [("FunctionName".into(), "hello".into()), ("Event".into(), "x".repeat(100))];
            let request = v1_request(Style::HmacSha1, nonce, &fields);
            v1_wire(&sign_v1(&V1Request { action: "InvokeFunction", ..request }).unwrap())
        })
        .collect();
    let start = Instant::now();
    for wire in &wires {
        black_box(wire.verify_with(&verifier, &known, T * 1000)).unwrap();
    }
    println!("v1 HmacSHA1, replay guard growing: {:?}", start.elapsed() / wires.len() as u32);
}
