//! Configuration, telemetry set-up, shutdown, back-off: what every part of the server needs.
