//! Messages as SCF's event: `{"Records":[{"Ckafka":{"topic":…,"partition":…,"offset":…,"msgKey":…,"msgBody":…}}]}`.
//!
//! Records are written one after the other into the buffer that becomes the event: each message is copied once. What SCF's form cannot say is
//! said in fields of our own: keys and bodies that are no UTF-8 are base64 (`msgKeyEncoding`, `msgBodyEncoding`), a message without a body has
//! `"msgBodyEncoding":"null"`, and headers are added where there are any. As with SCF, a message without a key has the key `None`.

use crate::Batch;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::io::Write;
use tokio::time::Instant;

const OPEN: &[u8] = b"{\"Records\":[";
const CLOSE: &[u8] = b"]}";
/// What a buffer begins with.
const CAPACITY_MIN: usize = 4096;
/// What a buffer begins with at most: one that was once large is not so for ever.
const CAPACITY_MAX: usize = 1 << 20;

/// A message as it came.
#[derive(Clone, Debug, Default)]
pub struct Record<'a> {
    pub offset: i64,
    /// In milliseconds since the epoch; 0: none.
    pub timestamp_ms: u64,
    pub key: Option<&'a [u8]>,
    pub body: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// A record that did not fit any more, and opens the next batch.
#[derive(Debug)]
struct Carried {
    text: Vec<u8>,
    offset: i64,
    timestamp_ms: u64,
}

/// A batch that is being gathered.
#[derive(Debug)]
pub struct Builder {
    topic: String,
    partition: i32,
    messages_max: u32,
    bytes_max: usize,
    /// What every record begins with, up to its offset.
    head: Vec<u8>,
    buffer: Vec<u8>,
    /// What the next buffer begins with, in bytes; a partition without messages holds none.
    capacity: usize,
    messages: u32,
    first: i64,
    next: i64,
    oldest_ms: u64,
    /// When the first message came.
    began: Option<Instant>,
    carried: Option<Carried>,
}

impl Builder {
    pub fn new(topic: &str, partition: i32, messages_max: u32, bytes_max: usize) -> Self {
        let mut head = b"{\"Ckafka\":{\"topic\":".to_vec();
        text(&mut head, topic);
        let _ = write!(head, ",\"partition\":{partition},\"offset\":");
        Self {
            topic: topic.to_owned(),
            partition,
            messages_max: messages_max.max(1),
            bytes_max,
            head,
            buffer: Vec::new(),
            capacity: CAPACITY_MIN,
            messages: 0,
            first: 0,
            next: 0,
            oldest_ms: 0,
            began: None,
            carried: None,
        }
    }

    /// True when it takes no more.
    pub fn is_full(&self) -> bool {
        self.messages >= self.messages_max || self.carried.is_some()
    }

    /// When its first message came; `None`: it has none.
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Its size so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds a message. It is not to be called when it is full.
    pub fn push(&mut self, record: &Record<'_>) {
        if self.buffer.is_empty() {
            self.buffer.reserve(self.capacity);
            self.buffer.extend_from_slice(OPEN);
        }
        let before = self.buffer.len();
        if self.messages > 0 {
            self.buffer.push(b',');
        }
        let start = self.buffer.len();
        self.write(record);
        if self.messages > 0 && self.buffer.len() + CLOSE.len() > self.bytes_max {
            let text = self.buffer.split_off(start);
            self.buffer.truncate(before);
            self.carried = Some(Carried { text, offset: record.offset, timestamp_ms: record.timestamp_ms });
            return;
        }
        self.count(record.offset, record.timestamp_ms);
    }

    fn count(&mut self, offset: i64, timestamp_ms: u64) {
        if self.messages == 0 {
            self.first = offset;
            self.oldest_ms = timestamp_ms;
            self.began = Some(Instant::now());
        }
        self.messages += 1;
        self.next = offset + 1;
    }

    fn write(&mut self, record: &Record<'_>) {
        let out = &mut self.buffer;
        out.extend_from_slice(&self.head);
        let _ = write!(out, "{}", record.offset);
        out.extend_from_slice(b",\"msgKey\":");
        match record.key {
            None => out.extend_from_slice(b"\"None\""),
            Some(key) => text_or_base64(out, key, "msgKeyEncoding"),
        }
        out.extend_from_slice(b",\"msgBody\":");
        match record.body {
            None => out.extend_from_slice(b"\"\",\"msgBodyEncoding\":\"null\""),
            Some(body) => text_or_base64(out, body, "msgBodyEncoding"),
        }
        if !record.headers.is_empty() {
            out.extend_from_slice(b",\"headers\":[");
            for (at, (name, value)) in record.headers.iter().enumerate() {
                out.extend_from_slice(if at == 0 { b"{\"key\":" } else { b",{\"key\":" });
                text(out, name);
                out.extend_from_slice(b",\"value\":");
                match value {
                    None => out.extend_from_slice(b"null"),
                    Some(value) => text_or_base64(out, value, "valueEncoding"),
                }
                out.push(b'}');
            }
            out.push(b']');
        }
        out.extend_from_slice(b"}}");
    }

    /// What was gathered, and begins anew. `None`: nothing was.
    pub fn seal(&mut self) -> Option<Batch> {
        if self.messages == 0 {
            return None;
        }
        self.buffer.extend_from_slice(CLOSE);
        self.capacity = self.buffer.len().clamp(CAPACITY_MIN, CAPACITY_MAX);
        let event = Bytes::from(std::mem::take(&mut self.buffer));
        let batch = Batch {
            topic: self.topic.clone(),
            partition: self.partition,
            first: self.first,
            next: self.next,
            messages: self.messages,
            oldest_ms: self.oldest_ms,
            event,
        };
        self.messages = 0;
        self.began = None;
        if let Some(carried) = self.carried.take() {
            self.buffer.extend_from_slice(OPEN);
            self.buffer.extend_from_slice(&carried.text);
            self.count(carried.offset, carried.timestamp_ms);
        }
        Some(batch)
    }
}

/// Writes a JSON string.
fn text(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail, and a string can always be written.
    let _ = serde_json::to_writer(&mut *out, text);
}

/// Writes a JSON string, in base64 with a further field that says so if the bytes are no UTF-8.
fn text_or_base64(out: &mut Vec<u8>, bytes: &[u8], field: &str) {
    match std::str::from_utf8(bytes) {
        Ok(utf8) => text(out, utf8),
        Err(_) => {
            let _ = write!(out, "\"{}\",\"{field}\":\"base64\"", STANDARD.encode(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn record(offset: i64, body: &[u8]) -> Record<'_> {
        Record { offset, timestamp_ms: 5, key: Some(b"k"), body: Some(body), headers: Vec::new() }
    }

    fn json_of(batch: &Batch) -> Value {
        serde_json::from_slice(&batch.event).unwrap()
    }

    #[test]
    fn events_have_scfs_form() {
        let mut builder = Builder::new("t\"1", 3, 2, 6 << 20);
        assert_eq!(builder.seal(), None);
        builder.push(&record(36, "Hello \"you\"\n中".as_bytes()));
        builder.push(&Record { offset: 38, body: Some(b""), ..Record::default() });
        assert!(builder.is_full());
        let batch = builder.seal().unwrap();
        assert_eq!((batch.first, batch.next, batch.messages, batch.oldest_ms, batch.partition), (36, 39, 2, 5, 3));
        assert_eq!(
            json_of(&batch),
            json!({"Records": [
                {"Ckafka": {"topic": "t\"1", "partition": 3, "offset": 36, "msgKey": "k", "msgBody": "Hello \"you\"\n中"}},
                {"Ckafka": {"topic": "t\"1", "partition": 3, "offset": 38, "msgKey": "None", "msgBody": ""}},
            ]})
        );
        assert_eq!(builder.seal(), None);
    }

    #[test]
    fn what_is_no_text_is_said_to_be_base64() {
        let mut builder = Builder::new("t", 0, 10, 6 << 20);
        let headers = vec![("a", Some(&b"1"[..])), ("a", None), ("b", Some(&[0xff][..]))];
        builder.push(&Record { offset: 0, timestamp_ms: 0, key: Some(&[0xff, 0]), body: Some(&[0x80]), headers });
        builder.push(&Record::default());
        let records = json_of(&builder.seal().unwrap());
        assert_eq!(
            records["Records"][0]["Ckafka"],
            json!({"topic": "t", "partition": 0, "offset": 0, "msgKey": "/wA=", "msgKeyEncoding": "base64",
                "msgBody": "gA==", "msgBodyEncoding": "base64", "headers": [
                    {"key": "a", "value": "1"}, {"key": "a", "value": null},
                    {"key": "b", "value": "/w==", "valueEncoding": "base64"}]})
        );
        assert_eq!(records["Records"][1]["Ckafka"]["msgBodyEncoding"], "null");
    }

    #[test]
    fn events_keep_to_their_size_and_lose_nothing() {
        let body = [b'x'; 100];
        let mut builder = Builder::new("t", 0, 1000, 512);
        let mut seen = Vec::new();
        for offset in 0..50 {
            builder.push(&record(offset, &body));
            if builder.is_full() {
                let batch = builder.seal().unwrap();
                assert!(batch.event.len() <= 512 && batch.messages > 1);
                assert_eq!(i64::from(batch.messages), batch.next - batch.first);
                assert_eq!(json_of(&batch)["Records"].as_array().unwrap().len(), batch.messages as usize);
                seen.extend(batch.first..batch.next);
            }
        }
        let rest = builder.seal().unwrap();
        seen.extend(rest.first..rest.next);
        assert_eq!(seen, (0..50).collect::<Vec<i64>>());
        // One that is too large all alone comes alone: who gets it says so.
        builder.push(&record(50, &[b'x'; 600]));
        assert!(!builder.is_full());
        builder.push(&record(51, b"small"));
        assert!(builder.is_full());
        assert_eq!(builder.seal().unwrap().messages, 1);
        assert_eq!(builder.seal().unwrap().first, 51);
    }
}
