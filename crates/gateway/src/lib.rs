//! The front door: the HTTP listener, its limits, and the way of a call to the control API.
