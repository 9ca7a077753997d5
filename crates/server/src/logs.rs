//! The node's records on their way to the log store and the metrics, and control's questions to the log store.

use async_trait::async_trait;
use mayfly_control::{LogError, LogFilter, LogOrder, LogStatus, Logs};
use mayfly_model::{InvocationRecord, Status};
use mayfly_node::RecordSink;
use mayfly_observe::{LogQuery, LogStore, Metrics, StatusFilter};
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes the record of each invocation.
pub struct Sink {
    logs: LogStore,
    metrics: Metrics,
}

impl Sink {
    /// A sink into both.
    pub fn new(logs: LogStore, metrics: Metrics) -> Self {
        Self { logs, metrics }
    }
}

impl RecordSink for Sink {
    fn record(&self, record: InvocationRecord) {
        // What a service printed while its requests go on is no invocation.
        if record.status == Status::RUNNING {
            self.logs.record(record);
            return;
        }
        let metrics = self.metrics.function(&record.namespace, &record.function);
        metrics.invoked(record.status, record.duration_us, record.wait_us);
        if let Some(start) = &record.cold_start {
            metrics.cold_start(start);
        }
        // A full queue drops the record and counts that; the invocation is not held up for its log.
        self.logs.record(record);
    }
}

/// Answers control's queries.
pub struct Query {
    store: LogStore,
    /// Held while the store writes; the number of such writes that have begun.
    writing: tokio::sync::Mutex<()>,
    begun: AtomicU64,
}

impl Query {
    /// Answers from `store`.
    pub fn new(store: LogStore) -> Self {
        Self { store, writing: tokio::sync::Mutex::default(), begun: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Logs for Query {
    async fn query(&self, filter: LogFilter) -> Result<(u64, Vec<InvocationRecord>), LogError> {
        let store = self.store.clone();
        let query = translate(filter);
        let answer = tokio::task::spawn_blocking(move || store.query(&query)).await;
        match answer {
            Ok(Ok(page)) => Ok((page.total, page.records)),
            Ok(Err(error)) => Err(LogError(error.to_string())),
            Err(error) => Err(LogError(error.to_string())),
        }
    }

    fn append(&self, record: InvocationRecord) {
        self.store.record(record);
    }

    async fn written(&self) {
        let before = self.begun.load(Ordering::Acquire);
        let _writing = self.writing.lock().await;
        // Many wait at once; a write that began after this one came has its records too.
        if self.begun.load(Ordering::Acquire) != before {
            return;
        }
        self.begun.fetch_add(1, Ordering::AcqRel);
        let store = self.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.flush()).await {
            tracing::error!(%error, "the log could not be written");
        }
    }
}

fn translate(filter: LogFilter) -> LogQuery {
    LogQuery {
        filter: mayfly_observe::LogFilter {
            namespace: Some(filter.namespace),
            function: filter.function,
            version: filter.version,
            request_id: filter.request_id,
            status: match filter.status {
                LogStatus::Any => StatusFilter::Any,
                LogStatus::Ok => StatusFilter::Ok,
                LogStatus::Failed => StatusFilter::NotOk,
                LogStatus::TimeLimit => StatusFilter::TimeLimitExceeded,
                LogStatus::ResourceLimit => StatusFilter::ResourceLimitExceeded,
                LogStatus::UserException => StatusFilter::UserCodeException,
            },
            from_ms: Some(filter.start_ms),
            to_ms: Some(filter.end_ms),
            keyword: None,
            events_only: filter.events_only,
        },
        order_by: match filter.order_by {
            LogOrder::StartTime => mayfly_observe::LogOrder::StartTime,
            LogOrder::Function => mayfly_observe::LogOrder::FunctionName,
            LogOrder::Duration => mayfly_observe::LogOrder::Duration,
            LogOrder::Memory => mayfly_observe::LogOrder::MemUsage,
        },
        descending: !filter.ascending,
        offset: filter.offset,
        limit: filter.limit,
    }
}
