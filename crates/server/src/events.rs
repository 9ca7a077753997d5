//! Which event log there is, as the options say.

use crate::data::DataDir;
use anyhow::{Context, Result, anyhow, bail};
use mayfly_base::config::PlatformOptions;
use mayfly_store::{EventLimits, EventLog, NatsAddress, NatsEvents, SqliteEvents};
use std::sync::Arc;

/// What is stored with an event beside its text, in bytes: names and times.
const HEAD_BYTES: usize = 4096;

/// Opens it.
pub async fn open(data: &DataDir, options: &PlatformOptions) -> Result<Arc<dyn EventLog>> {
    let limits = EventLimits { count_max: options.events_max, bytes_max: options.events_mb << 20 };
    let log: Arc<dyn EventLog> = if options.events.is_empty() {
        Arc::new(SqliteEvents::open(&data.path("events.db"), limits).await?)
    } else {
        let address: NatsAddress = options
            .events
            .parse()
            .map_err(|why| anyhow!("the address of the option `events` cannot be used: {why}"))?;
        let address = match &options.events_credentials {
            file if file.as_os_str().is_empty() => address,
            file => address.with_credentials(file.clone()),
        };
        let owner = data.owner()?;
        let (shown, stream) = (address.shown(), address.stream().to_owned());
        let log = NatsEvents::open(&address, &owner, limits)
            .await
            .with_context(|| format!("use the stream {stream} of the NATS server at {shown}"))?;
        tracing::info!(server = shown, stream, "asynchronous events are kept by NATS");
        Arc::new(log)
    };
    // As JSON within JSON, where each byte may need another before it.
    let needed = 2 * options.event_bytes_max + HEAD_BYTES;
    if needed > log.payload_bytes_max() {
        bail!(
            "`event_bytes_max` is {}, and the event log takes messages of {} bytes, where {needed} are needed: set a smaller one, or raise `max_payload` of the NATS server",
            options.event_bytes_max,
            log.payload_bytes_max()
        );
    }
    Ok(log)
}
