//! The fields of a request. Forms have only text, JSON has numbers and switches too: both are read here.

use crate::catalogue::shown;
use crate::error::{ErrorKind, QueueError};
use serde_json::{Map, Value};

/// The fields of a request.
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

fn wrong(name: &str, what: &str) -> QueueError {
    ErrorKind::Invalid.says(format!("`{name}` is not {what}."))
}

impl Fields<'_> {
    /// The value, unless it is absent, null, or empty text.
    fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|v| !v.is_null() && v.as_str() != Some(""))
    }

    /// Text that has to be there.
    pub fn text(&self, name: &str) -> Result<String, QueueError> {
        self.text_or(name)?.ok_or_else(|| QueueError::missing(name))
    }

    /// Text.
    pub fn text_or(&self, name: &str) -> Result<Option<String>, QueueError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(wrong(name, "text")),
        }
    }

    /// Text, where empty text is a value of its own.
    pub fn text_even_empty(&self, name: &str) -> Result<Option<String>, QueueError> {
        match self.0.get(name) {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            _ => self.text_or(name),
        }
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, QueueError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_u64().map(Some).ok_or_else(|| wrong(name, "a whole number")),
            Some(Value::String(text)) => {
                text.trim().parse().map(Some).map_err(|_| wrong(name, &format!("a whole number: `{}`", shown(text))))
            }
            Some(_) => Err(wrong(name, "a whole number")),
        }
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, QueueError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::Number(number)) => match number.as_u64() {
                Some(0) => Ok(Some(false)),
                Some(1) => Ok(Some(true)),
                _ => Err(wrong(name, "true or false")),
            },
            Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(Some(true)),
                "false" | "0" => Ok(Some(false)),
                _ => Err(wrong(name, "true or false")),
            },
            Some(_) => Err(wrong(name, "true or false")),
        }
    }

    /// A list of texts. A single text is a list of one.
    pub fn list(&self, name: &str) -> Result<Option<Vec<String>>, QueueError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            Some(Value::Array(items)) => {
                let text = |v: &Value| v.as_str().map(str::to_owned).ok_or_else(|| wrong(name, "a list of texts"));
                items.iter().map(text).collect::<Result<_, _>>().map(Some)
            }
            Some(_) => Err(wrong(name, "a list of texts")),
        }
    }

    /// Where a page begins and how long it is.
    pub fn page(&self, offset: &str, limit: &str) -> Result<Page, QueueError> {
        let from = self.number(offset)?.unwrap_or(0);
        let count = self.number(limit)?.unwrap_or(20);
        if !(1..=Page::MAX).contains(&count) {
            return Err(QueueError::range(limit, 1, Page::MAX));
        }
        Ok(Page { from: usize::try_from(from).unwrap_or(usize::MAX), count: count as usize })
    }
}

/// A part of a list.
#[derive(Clone, Copy)]
pub(super) struct Page {
    pub from: usize,
    pub count: usize,
}

impl Page {
    /// Longest page. Source: `limit` of ListQueue.
    const MAX: u64 = 50;

    /// The part of `items`.
    pub fn of<T>(self, items: &[T]) -> &[T] {
        let from = self.from.min(items.len());
        &items[from..items.len().min(from.saturating_add(self.count))]
    }
}
