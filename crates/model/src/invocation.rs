//! What is known of one invocation, while it runs and after.

use crate::status::Status;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The id of one invocation: a UUID in its usual text form, as SCF gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u128);

impl RequestId {
    /// Reads the 36-character form. `None` when `text` is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return None;
        }
        let mut value = 0u128;
        for (i, &b) in bytes.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if b != b'-' {
                    return None;
                }
                continue;
            }
            value = value << 4 | u128::from(char::from(b).to_digit(16)?);
        }
        Some(Self(value))
    }

    /// Makes a version-4 id from 16 random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (v >> 96) as u32,
            (v >> 80) as u16,
            (v >> 64) as u16,
            (v >> 48) as u16,
            v & 0xffff_ffff_ffff
        )
    }
}

impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a request id"))
    }
}

/// Why an instance had to be started. Exactly one holds for each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColdStartReason {
    /// No instance of this version has ever run on this node since the platform started.
    First,
    /// Instances exist, and all are busy.
    ScaleOut,
    /// The code or settings were updated; instances of the old state were drained.
    CodeUpdated,
    /// The last instances were idle longer than the keep-alive allows.
    Expired,
    /// The last instances gave way to another function when memory was short.
    Evicted,
    /// The last instance died or was discarded after an error.
    Crashed,
}

impl ColdStartReason {
    /// The name in logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::ScaleOut => "scale_out",
            Self::CodeUpdated => "code_updated",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Crashed => "crashed",
        }
    }
}

/// Where the time of a start went, in microseconds. SCF's `Init Report` shows the same three phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// Making the code present and mounted.
    pub pull_code_us: u64,
    /// Getting a sandbox with a running runtime.
    pub init_runtime_us: u64,
    /// Running the module-level code of the function.
    pub init_function_us: u64,
}

/// How an instance came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// A process started from scratch for this request.
    Fresh,
    /// A process that was started ahead, waiting for any function of its runtime.
    Precreated,
    /// Forked from a template in which this version was initialised.
    Forked,
}

impl StartKind {
    /// The name in logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Precreated => "precreated",
            Self::Forked => "forked",
        }
    }
}

/// One start of an instance, as the log line and the metric report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdStart {
    /// Why it had to start.
    pub reason: ColdStartReason,
    /// How it started.
    pub kind: StartKind,
    /// Where the time went.
    pub phases: Phases,
    /// From the need for an instance to the instance being ready, in microseconds.
    pub total_us: u64,
}

/// How one invocation ended, as the API answers it.
#[derive(Clone, Debug)]
pub struct InvokeOutcome {
    /// The invocation's id.
    pub request_id: RequestId,
    /// How it ended.
    pub status: Status,
    /// The return value as JSON text when `status` is OK, else the error JSON.
    pub body: Vec<u8>,
    /// Run time of the handler, in microseconds; 0 when it never ran.
    pub duration_us: u64,
    /// Peak memory of the instance so far, in bytes.
    pub memory_bytes: u64,
    /// Set when this invocation waited for a start.
    pub cold_start: Option<ColdStart>,
    /// The log of this invocation, with the platform's lines; filled only when asked for.
    pub log: Option<String>,
}

impl InvokeOutcome {
    /// Billed time, in milliseconds: run time rounded up to the next millisecond.
    pub fn bill_ms(&self) -> u64 {
        self.duration_us.div_ceil(1000)
    }
}

/// What called an invocation, when that was another one: calls from inside a function, triggers of what it wrote, destinations of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage {
    /// How many invocations are before it in the chain; 0: it was called from outside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub depth: u32,
    /// The one that it comes of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RequestId>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Lineage {
    /// True when it was called from outside.
    pub fn is_root(&self) -> bool {
        *self == Self::default()
    }

    /// What `id`, which has this lineage, calls.
    pub fn child(&self, id: RequestId) -> Self {
        Self { depth: self.depth.saturating_add(1), parent: Some(id) }
    }
}

/// What is kept with an invocation that ran an asynchronous event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMark {
    /// Where the event came from: `API`, or the kind of trigger, such as `TIMER` or `COS`. The API calls it `InvokeType`.
    pub source: String,
    /// When it was accepted, in milliseconds since the epoch.
    pub accepted_ms: u64,
}

/// One invocation as it is kept in the log store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InvocationRecord {
    /// The invocation's id.
    pub request_id: RequestId,
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Version that ran: `$LATEST` or a number.
    pub version: String,
    /// The alias or version the caller named.
    pub qualifier: String,
    /// When the invocation began, in milliseconds since the epoch.
    pub start_ms: u64,
    /// Run time of the handler, in microseconds.
    pub duration_us: u64,
    /// Time spent waiting for an instance, in microseconds.
    pub wait_us: u64,
    /// How it ended.
    pub status: Status,
    /// The return value or error JSON, cut to [`RECORD_RET_BYTES_MAX`].
    pub ret_msg: String,
    /// Configured memory, in MB.
    pub memory_mb: u32,
    /// Peak memory of the instance, in bytes.
    pub memory_bytes: u64,
    /// Set when this invocation waited for a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// Which attempt this was: 0 for the first, counting up for retries of asynchronous events.
    #[serde(default)]
    pub retry: u32,
    /// Set when it ran an asynchronous event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventMark>,
    /// The failed request that this replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RequestId>,
    /// What called it, when that was another invocation.
    #[serde(default, skip_serializing_if = "Lineage::is_root")]
    pub lineage: Lineage,
    /// What the function printed (stdout and stderr as they came).
    pub output: String,
    /// Bytes of output that were cut because the invocation printed more than the limit.
    #[serde(default)]
    pub output_cut_bytes: u64,
}

/// The part of a return value that is kept with the log, in bytes.
pub const RECORD_RET_BYTES_MAX: usize = 2048;

impl InvocationRecord {
    /// When it ended, in milliseconds since the epoch.
    pub fn end_ms(&self) -> u64 {
        self.start_ms.saturating_add((self.wait_us.saturating_add(self.duration_us)) / 1000)
    }

    /// The log text of this invocation as SCF shows it: START, Init Report (cold starts), the output, ERROR or Response,
    /// END and Report lines. A record with status [`Status::RUNNING`] is what a service printed while its requests went on, and has no such
    /// lines.
    pub fn render(&self) -> String {
        use fmt::Write;
        let id = self.request_id;
        let mut text = String::with_capacity(self.output.len() + 400);
        let whole = self.status != Status::RUNNING;
        if whole {
            let _ = writeln!(text, "START RequestId:{id}");
        }
        if let Some(cold) = &self.cold_start {
            let p = cold.phases;
            let _ = writeln!(
                text,
                "Init Report RequestId: {id} Coldstart: {} (PullCode: {} InitRuntime: {} InitFunction: {}) Memory: {}MB MemUsage: {:.2}MB Reason: {} Kind: {}",
                Millis(cold.total_us),
                Millis(p.pull_code_us),
                Millis(p.init_runtime_us),
                Millis(p.init_function_us),
                self.memory_mb,
                self.memory_bytes as f64 / 1048576.0,
                cold.reason.as_str(),
                cold.kind.as_str(),
            );
        }
        text.push_str(&self.output);
        if !self.output.is_empty() && !self.output.ends_with('\n') {
            text.push('\n');
        }
        if self.output_cut_bytes > 0 {
            let _ = writeln!(
                text,
                "[mayfly] output cut: {} more bytes were printed than an invocation may log",
                self.output_cut_bytes
            );
        }
        if !whole {
            return text;
        }
        if self.status.is_ok() {
            let _ = writeln!(text, "Response RequestId:{id} RetMsg:{}", self.ret_msg);
        } else {
            let _ = writeln!(text, "ERROR RequestId:{id} Result:{} {}", self.status.0, self.ret_msg);
        }
        let _ = writeln!(text, "END RequestId:{id}");
        let _ = write!(
            text,
            "Report RequestId:{id} Duration:{}ms Memory:{}MB MemUsage:{:.6}MB",
            self.duration_us.div_ceil(1000),
            self.memory_mb,
            self.memory_bytes as f64 / 1048576.0
        );
        // SCF's line ends here.
        if self.wait_us >= 1000 {
            let _ = write!(text, " Wait:{}", Millis(self.wait_us));
        }
        if let Some(origin) = self.origin {
            let _ = write!(text, " ReplayOf:{origin}");
        }
        if let Some(parent) = self.lineage.parent {
            let _ = write!(text, " CalledBy:{parent} Depth:{}", self.lineage.depth);
        }
        text.push('\n');
        text
    }
}

/// Shows microseconds as `1.25ms`, or `236ms` from 10 ms on.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 10_000 {
            write!(f, "{}.{:02}ms", self.0 / 1000, self.0 % 1000 / 10)
        } else {
            write!(f, "{}ms", self.0 / 1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> InvocationRecord {
        InvocationRecord {
            request_id: RequestId::from_random([7; 16]),
            namespace: "default".into(),
            function: "hello".into(),
            version: "$LATEST".into(),
            qualifier: "$LATEST".into(),
            start_ms: 0,
            duration_us: 1200,
            wait_us: 0,
            status: Status::OK,
            ret_msg: "\"hi\"".into(),
            memory_mb: 128,
            memory_bytes: 31_177_728,
            cold_start: None,
            retry: 0,
            event: None,
            origin: None,
            lineage: Lineage::default(),
            output: "line".into(),
            output_cut_bytes: 0,
        }
    }

    #[test]
    fn request_ids_round_trip() {
        let id = RequestId::from_random([0xab; 16]);
        let text = id.to_string();
        assert_eq!(text, "abababab-abab-4bab-abab-abababababab");
        assert_eq!(RequestId::parse(&text), Some(id));
        assert_eq!(RequestId::parse("abababab-abab-4bab-abab-ababababababx"), None);
        assert_eq!(RequestId::parse("abababab+abab-4bab-abab-abababababab"), None);
    }

    #[test]
    fn log_text_has_the_lines_of_scf() {
        let text = record().render();
        let id = record().request_id;
        assert_eq!(
            text,
            format!(
                "START RequestId:{id}\nline\nResponse RequestId:{id} RetMsg:\"hi\"\nEND RequestId:{id}\nReport RequestId:{id} Duration:2ms Memory:128MB MemUsage:29.733398MB\n"
            )
        );
    }

    #[test]
    fn a_cold_start_and_a_failure_show_their_reasons() {
        let mut r = record();
        r.status = Status::TIME_LIMIT;
        r.cold_start = Some(ColdStart {
            reason: ColdStartReason::ScaleOut,
            kind: StartKind::Forked,
            phases: Phases { pull_code_us: 70, init_runtime_us: 8_000, init_function_us: 158_000 },
            total_us: 236_000,
        });
        let text = r.render();
        assert!(text.contains("Coldstart: 236ms (PullCode: 0.07ms InitRuntime: 8.00ms InitFunction: 158ms)"), "{text}");
        assert!(text.contains("Reason: scale_out Kind: forked"), "{text}");
        assert!(text.contains("Result:433 "), "{text}");
        r.lineage = Lineage { depth: 2, parent: Some(RequestId(7)) };
        let text = r.render();
        assert!(text.ends_with("CalledBy:00000000-0000-0000-0000-000000000007 Depth:2\n"), "{text}");
    }
}
