//! What tests share: an in-process platform, a signed client, waits with a deadline.
