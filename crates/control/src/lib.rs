//! The control API: SCF actions, signing, the catalogue of functions, asynchronous events.
