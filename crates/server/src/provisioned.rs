//! Provisioned concurrency: orders of the control API to keep instances of a version ready, carried out on the node.

use mayfly_control::{ProvisionedOrder, ProvisionedState, RouteTarget};
use mayfly_model::VersionKey;
use mayfly_node::Node;
use mayfly_node::pool::Pool;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Looks at an order that follows utilisation before its number is thought over: a minute of them.
const SAMPLES: u32 = 60;

struct Order {
    pool: Arc<Pool>,
    order: Arc<ProvisionedOrder>,
    /// The number in force.
    wanted: u32,
    samples: u32,
    busy_sum: u64,
}

/// The orders in force.
#[derive(Default)]
pub struct Orders(Mutex<HashMap<VersionKey, Order>>, Mutex<HashMap<String, Minimum>>);

/// The minimum of a function, and the pool of the version that it is kept of.
type Minimum = (Arc<Pool>, u32);

impl Orders {
    /// Takes an order, or its end. `pool`: the pool of the version.
    pub fn set(
        &self,
        node: &Node,
        target: &RouteTarget,
        pool: Arc<Pool>,
        order: Option<Arc<ProvisionedOrder>>,
        now_ms: u64,
    ) {
        let key = target.spec.key.clone();
        match order {
            Some(order) => {
                let wanted = order.wanted(now_ms);
                node.provision(&pool, wanted as usize);
                self.0.lock().insert(key, Order { pool, order, wanted, samples: 0, busy_sum: 0 });
            }
            None => {
                if let Some(ended) = self.0.lock().remove(&key) {
                    node.provision(&ended.pool, 0);
                }
            }
        }
    }

    /// Takes the minimum of a function, or its end.
    pub fn set_minimum(&self, node: &Node, function_id: &str, minimum: Option<Minimum>) {
        let mut minima = self.1.lock();
        let old = match &minimum {
            Some(new) => minima.insert(function_id.to_owned(), new.clone()),
            None => minima.remove(function_id),
        };
        drop(minima);
        if let Some((pool, _)) = old {
            node.set_minimum(&pool, 0);
        }
        if let Some((pool, count)) = minimum {
            node.set_minimum(&pool, count as usize);
        }
    }

    /// Forgets the order of a version that is gone.
    pub fn forget(&self, key: &VersionKey) {
        self.0.lock().remove(key);
    }

    /// How an order stands.
    pub fn state(&self, node: &Node, key: &VersionKey) -> Option<ProvisionedState> {
        let orders = self.0.lock();
        let order = orders.get(key)?;
        let (ready, starting, blocked) = node.readiness(&order.pool);
        let ready = u32::try_from(ready).unwrap_or(u32::MAX);
        // What is under way may still come.
        let blocked = blocked.filter(|_| starting == 0 && ready < order.wanted);
        Some(ProvisionedState { wanted: order.wanted, ready, blocked })
    }

    /// One look at all orders, about once a second: timed changes take effect, those that follow utilisation follow it, and what has
    /// ended is started anew.
    pub fn tend(&self, node: &Node, now_ms: u64) {
        let minima: Vec<Minimum> = self.1.lock().values().cloned().collect();
        for (pool, count) in minima {
            node.set_minimum(&pool, count as usize);
        }
        for order in self.0.lock().values_mut() {
            order.wanted = match order.order.tracking() {
                None => order.order.wanted(now_ms),
                Some(tracking) => {
                    order.samples += 1;
                    order.busy_sum += node.busy(&order.pool) as u64;
                    if order.samples < SAMPLES {
                        order.wanted
                    } else {
                        let busy = order.busy_sum as f64 / f64::from(order.samples);
                        (order.samples, order.busy_sum) = (0, 0);
                        tracking.wanted(order.wanted, busy)
                    }
                }
            };
            node.provision(&order.pool, order.wanted as usize);
        }
    }
}
