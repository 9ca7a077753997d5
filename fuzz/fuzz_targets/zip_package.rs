//! Packages of strangers: checking never panics, and never says more was unpacked than the limits allow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_store::{PackageLimits, package};

fuzz_target!(|data: &[u8]| {
    let limits = PackageLimits { unpacked_bytes_max: 1 << 20, ..PackageLimits::default() };
    if let Ok(summary) = package::check(data, &limits) {
        assert!(summary.unpacked_bytes <= limits.unpacked_bytes_max);
        assert!(summary.entries > 0);
    }
});
