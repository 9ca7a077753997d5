//! Wiring only: builds every part from the configuration and runs them as one platform.
