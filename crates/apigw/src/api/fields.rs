//! The fields of a request. Forms have only text, JSON has numbers and switches too; both are read, and so is the `TRUE` that Tencent's
//! components send for a switch.

use crate::state::clip;
use mayfly_model::ApiError;
use serde_json::{Map, Value};
use std::ops::Range;

/// Most items of a page. Source: the API's list actions.
const PAGE_MAX: i64 = 100;

/// The fields of a request, or of an object in it.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a Map<String, Value>);

fn wrong(name: &str, what: &str) -> ApiError {
    ApiError::new("InvalidParameter.FormatError", format!("`{name}` is not {what}."))
}

/// The error for a value that is none of those that there are.
pub fn not_one_of(name: &str, value: &str, options: &[&str]) -> ApiError {
    let message = format!("`{name}` is `{}`; it is one of: {}.", clip(value), options.join(", "));
    ApiError::new("InvalidParameterValue.NotInOptions", message)
}

impl<'a> Fields<'a> {
    fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|v| !v.is_null() && v.as_str() != Some(""))
    }

    /// Errors: `UnknownParameter` when there is a field that the action does not have.
    pub fn known(&self, names: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|key| !names.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let message = format!("There is no parameter `{}` here; there are: {}.", clip(key), names.join(", "));
                Err(ApiError::new("UnknownParameter", message))
            }
        }
    }

    /// Text; absent, null and empty are the same.
    pub fn text_or(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(wrong(name, "text")),
        }
    }

    /// Text of at most so many characters; empty when absent.
    pub fn free_text(&self, name: &str, chars_max: usize) -> Result<String, ApiError> {
        let text = self.text_or(name)?.unwrap_or_default();
        if text.chars().nth(chars_max).is_some() {
            let message = format!("`{name}` has at most {chars_max} characters.");
            return Err(ApiError::new("InvalidParameterValue.LengthExceeded", message));
        }
        Ok(text)
    }

    /// Text that has to be there.
    pub fn text(&self, name: &str) -> Result<String, ApiError> {
        self.text_or(name)?.ok_or_else(|| ApiError::missing(name))
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_i64().map(Some).ok_or_else(|| wrong(name, "a whole number")),
            Some(Value::String(text)) => text.trim().parse().map(Some).map_err(|_| wrong(name, "a whole number")),
            Some(_) => Err(wrong(name, "a whole number")),
        }
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(wrong(name, "true or false")),
        }
    }

    /// A list of objects; empty when absent. Forms number the items of a list.
    pub fn objects(&self, name: &str) -> Result<Vec<Fields<'a>>, ApiError> {
        let object = |value: &'a Value| value.as_object().map(Fields).ok_or_else(|| wrong(name, "a list of objects"));
        items(self.value(name), name)?.into_iter().map(object).collect()
    }

    /// A list of texts; empty when absent.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(name, "a list of texts"));
        items(self.value(name), name)?.into_iter().map(text).collect()
    }

    /// An object; `None` when absent.
    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields(object))),
            Some(_) => Err(wrong(name, "an object")),
        }
    }

    /// `Offset` and `Limit` as the items of a list of this length that they mean.
    pub fn page(&self, total: usize) -> Result<Range<usize>, ApiError> {
        let (offset, limit) = (self.number("Offset")?.unwrap_or(0), self.number("Limit")?.unwrap_or(20));
        if offset < 0 || !(0..=PAGE_MAX).contains(&limit) {
            let message = format!("`Offset` is not negative, and `Limit` is 0 to {PAGE_MAX}.");
            return Err(ApiError::new("InvalidParameterValue.RangeExceeded", message));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(total);
        let end = start.saturating_add(usize::try_from(limit).unwrap_or(0)).min(total);
        Ok(start..end)
    }

    /// `Filters`: all have to hold, each with one of its values. Errors: a name that is none of `names`.
    pub fn filters(&self, names: &[&str]) -> Result<Vec<(String, Vec<String>)>, ApiError> {
        let mut found = Vec::new();
        for filter in self.objects("Filters")? {
            let name = filter.text("Name")?;
            if !names.contains(&name.as_str()) {
                let message =
                    format!("Nothing is filtered by `{}` here; it can be by: {}.", clip(&name), names.join(", "));
                return Err(ApiError::new("InvalidParameterValue.InvalidFilterNotSupportedName", message));
            }
            found.push((name, filter.texts("Values")?));
        }
        Ok(found)
    }
}

fn items<'a>(value: Option<&'a Value>, name: &str) -> Result<Vec<&'a Value>, ApiError> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list.iter().collect()),
        Some(Value::Object(numbered)) => {
            let mut list = Vec::new();
            for (key, value) in numbered {
                list.push((key.parse::<u32>().map_err(|_| wrong(name, "a list"))?, value));
            }
            list.sort_by_key(|(at, _)| *at);
            Ok(list.into_iter().map(|(_, value)| value).collect())
        }
        Some(_) => Err(wrong(name, "a list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_and_forms_say_the_same() {
        for value in [
            json!({"N": 5, "B": true, "L": ["a", "b"], "O": [{"X": 1}]}),
            json!({"N": "5", "B": "TRUE", "L": {"0": "a", "1": "b"}, "O": {"0": {"X": "1"}}}),
        ] {
            let fields = Fields(value.as_object().unwrap());
            assert_eq!((fields.number("N").unwrap(), fields.flag("B").unwrap()), (Some(5), Some(true)));
            assert_eq!(fields.texts("L").unwrap(), ["a", "b"]);
            assert_eq!(fields.objects("O").unwrap()[0].number("X").unwrap(), Some(1));
            assert_eq!(fields.known(&["N", "B", "L"]).unwrap_err().code, "UnknownParameter");
            assert!(fields.flag("N").is_err() && fields.texts("N").is_err() && fields.object("N").is_err());
        }
        let fields = json!({"Offset": 3, "Limit": 2});
        let fields = Fields(fields.as_object().unwrap());
        assert_eq!((fields.page(10).unwrap(), fields.page(4).unwrap(), fields.page(1).unwrap()), (3..5, 3..4, 1..1));
    }
}
