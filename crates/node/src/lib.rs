//! Keeps the instances of one machine: pools, slots, templates, waiting room, log capture.
