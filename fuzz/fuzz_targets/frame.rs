//! Frames from inside a sandbox: any bytes are read without panic, and what is read lies within the buffer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_guest::{Failure, HEADER_BYTES, Hello, PAYLOAD_BYTES_MAX, Ready, payload, take_frame};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some((kind, range, len))) = take_frame(rest) {
        assert!(len >= HEADER_BYTES && len <= rest.len() && range.end <= len && range.len() <= PAYLOAD_BYTES_MAX);
        let bytes = &rest[range];
        let _ = payload::<Hello>(kind, bytes);
        let _ = payload::<Ready>(kind, bytes);
        let _ = payload::<Failure>(kind, bytes);
        rest = &rest[len..];
    }
});
