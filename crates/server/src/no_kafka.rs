//! In the place of `kafka`, for a program that was built without it.

use anyhow::{Result, bail};
use mayfly_base::Kafka;
use mayfly_control::{Control, KafkaTopics};
use mayfly_triggers::Maker;
use std::convert::Infallible;
use std::sync::Arc;

/// Clusters that nobody can reach.
pub struct Clusters(Infallible);

impl Clusters {
    /// `None`, unless the operator named some.
    pub fn open(options: &Kafka) -> Result<Option<Self>> {
        if !options.clusters.is_empty() {
            bail!(
                "this program was built without Kafka triggers: build it with the feature `kafka`, or take `kafka` out of the configuration"
            );
        }
        Ok(None)
    }

    /// Never called.
    pub fn topics(&self) -> Arc<dyn KafkaTopics> {
        match self.0 {}
    }

    /// Never called.
    pub fn maker(&self, _control: Control) -> Arc<dyn Maker> {
        match self.0 {}
    }
}
