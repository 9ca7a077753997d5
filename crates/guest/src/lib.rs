//! The frames between a node and the runtime shim inside a sandbox (see `docs/runtime-protocol.md`).
