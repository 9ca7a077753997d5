//! Ports to state (metadata, blobs, events) and their embedded implementations; package reading and the code cache.
