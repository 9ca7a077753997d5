//! Which instances go when there are too many.

/// What an instance carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceLoad {
    /// The instance.
    pub id: u64,
    /// Requests that will end by themselves.
    pub requests: u32,
    /// Streams and WebSockets that are open.
    pub streams: u32,
    /// Since when it has had nothing to do, in milliseconds; 0 while it has.
    pub idle_ms: u64,
}

/// How an instance goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// At once: it has nothing to do.
    End(u64),
    /// It gets no new requests, and ends when it has none left or at the deadline that the caller sets.
    Drain(u64),
}

/// Picks `count` instances: idle ones first, the longest idle foremost, then, with `drain`, those with the fewest requests.
/// One with a stream or WebSocket open is never picked, so there may be fewer.
pub fn victims(instances: &[InstanceLoad], count: usize, drain: bool) -> Vec<Ending> {
    let mut free: Vec<&InstanceLoad> = instances.iter().filter(|i| i.streams == 0).collect();
    free.sort_by_key(|i| (i.requests, std::cmp::Reverse(i.idle_ms), i.id));
    let picked = free.into_iter().filter(|i| drain || i.requests == 0).take(count);
    picked.map(|i| if i.requests == 0 { Ending::End(i.id) } else { Ending::Drain(i.id) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_stay_idle_ones_go_first() {
        let load = |id, requests, streams, idle_ms| InstanceLoad { id, requests, streams, idle_ms };
        let all = [load(1, 0, 1, 0), load(2, 0, 0, 50), load(3, 4, 0, 0), load(4, 0, 0, 900), load(5, 2, 0, 0)];
        assert_eq!(victims(&all, 1, true), [Ending::End(4)]);
        assert_eq!(victims(&all, 9, false), [Ending::End(4), Ending::End(2)]);
        assert_eq!(victims(&all, 9, true), [Ending::End(4), Ending::End(2), Ending::Drain(5), Ending::Drain(3)]);
        assert_eq!(victims(&all, 0, true), []);
    }
}
