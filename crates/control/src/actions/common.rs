//! Reading of fields that many actions share.

use crate::catalogue::{Catalogue, FunctionEntry, clip};
use crate::control::Inner;
use mayfly_model::{ApiError, FunctionName, NamespaceName, Qualifier, limits};
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;

/// A text that was given and is not empty.
pub fn filled(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|t| !t.is_empty())
}

/// `Namespace`, default `default`. Errors: `InvalidParameterValue.Namespace`.
pub fn namespace(text: &Option<String>) -> Result<NamespaceName, ApiError> {
    match filled(text) {
        None => Ok(NamespaceName::default_namespace()),
        Some(text) => NamespaceName::parse(text)
            .map_err(|e| ApiError::new("InvalidParameterValue.Namespace", format!("`Namespace` is not valid: {e}."))),
    }
}

/// `FunctionName`. Errors: `InvalidParameterValue.FunctionName`.
pub fn function_name(text: &str) -> Result<FunctionName, ApiError> {
    named_function("FunctionName", text)
}

/// A function name in the field `field`. Errors: `InvalidParameterValue.FunctionName`.
pub fn named_function(field: &str, text: &str) -> Result<FunctionName, ApiError> {
    FunctionName::parse(text)
        .map_err(|e| ApiError::new("InvalidParameterValue.FunctionName", format!("`{field}` is not valid: {e}.")))
}

/// A function that must be there. Errors: as [`namespace`] and [`function_name`], and `ResourceNotFound.{Namespace,Function}`.
pub fn find(
    control: &Inner,
    namespace_text: &Option<String>,
    name: &str,
) -> Result<(NamespaceName, FunctionName, Arc<FunctionEntry>), ApiError> {
    let (namespace, name) = (namespace(namespace_text)?, function_name(name)?);
    let entry = existing(&control.catalogue, &namespace, &name)?;
    Ok((namespace, name, entry))
}

/// A function that must be there.
pub fn existing(
    catalogue: &Catalogue,
    namespace: &NamespaceName,
    name: &FunctionName,
) -> Result<Arc<FunctionEntry>, ApiError> {
    catalogue
        .function(namespace.as_str(), name.as_str())
        .ok_or_else(|| catalogue.no_function(namespace.as_str(), name.as_str()))
}

/// A text of limited length. Errors: `code` naming `field`.
pub fn limited(
    text: Option<String>,
    field: &str,
    code: &'static str,
    chars_max: usize,
) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.chars().nth(chars_max).is_some() => {
            Err(ApiError::new(code, format!("`{field}` has more than {chars_max} characters.")))
        }
        text => Ok(text),
    }
}

/// `Description`. Errors: `InvalidParameterValue.Description`.
pub fn description(text: Option<String>) -> Result<Option<String>, ApiError> {
    limited(text, "Description", "InvalidParameterValue.Description", limits::DESCRIPTION_CHARS_MAX)
}

/// A switch written as "TRUE" or "FALSE", in any case. Absent and empty are false. Errors: `InvalidParameterValue` naming `field`.
pub fn switch(text: &Option<String>, field: &str) -> Result<bool, ApiError> {
    match filled(text) {
        None => Ok(false),
        Some(t) if t.eq_ignore_ascii_case("true") => Ok(true),
        Some(t) if t.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(ApiError::invalid(format!("`{field}` is `{}`; it is TRUE or FALSE.", clip(other)))),
    }
}

/// `Order`. Errors: `InvalidParameterValue.Order`.
pub fn ascending(text: &Option<String>, default: bool) -> Result<bool, ApiError> {
    match filled(text) {
        None => Ok(default),
        Some(t) if t.eq_ignore_ascii_case("asc") => Ok(true),
        Some(t) if t.eq_ignore_ascii_case("desc") => Ok(false),
        Some(other) => Err(ApiError::new(
            "InvalidParameterValue.Order",
            format!("`Order` is `{}`; it is ASC or DESC.", clip(other)),
        )),
    }
}

/// A choice among names, in any case. Errors: `InvalidParameterValue.OrderBy`.
pub fn order_by<'a>(text: &Option<String>, names: &[&'a str], default: &'a str) -> Result<&'a str, ApiError> {
    match filled(text) {
        None => Ok(default),
        Some(text) => names.iter().find(|n| n.eq_ignore_ascii_case(text)).copied().ok_or_else(|| {
            let message = format!("The list cannot be ordered by `{}`; it can by: {}.", clip(text), names.join(", "));
            ApiError::new("InvalidParameterValue.OrderBy", message)
        }),
    }
}

/// A page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    offset: u64,
    limit: u64,
}

impl Page {
    /// Reads `Offset` (default 0) and `Limit` (default 20, at most 100). Errors: `InvalidParameterValue.Offset`, `InvalidParameterValue.Limit`.
    pub fn read(offset: Option<i64>, limit: Option<i64>) -> Result<Self, ApiError> {
        let offset = u64::try_from(offset.unwrap_or(0))
            .map_err(|_| ApiError::new("InvalidParameterValue.Offset", "`Offset` is negative."))?;
        let limit = limit.map_or(Ok(limits::PAGE_LIMIT_DEFAULT), u64::try_from);
        match limit {
            Ok(limit) if limit <= limits::PAGE_LIMIT_MAX => Ok(Self { offset, limit }),
            _ => Err(ApiError::new(
                "InvalidParameterValue.Limit",
                format!("`Limit` is a number from 0 to {}.", limits::PAGE_LIMIT_MAX),
            )),
        }
    }

    /// The part of a list of `total` items.
    pub fn of(self, total: usize) -> Range<usize> {
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX).min(total);
        let end = start.saturating_add(self.limit as usize).min(total);
        start..end
    }
}

/// True when `part` occurs in `text`, in any case. An empty part always does.
pub fn contains(text: &str, part: Option<&str>) -> bool {
    part.is_none_or(|part| text.to_lowercase().contains(&part.to_lowercase()))
}

/// A published version's number, or `$LATEST`, as text that exists. `None` for aliases and for anything that is not there.
pub fn version_text(entry: &FunctionEntry, text: &str) -> Option<String> {
    match Qualifier::parse(text).ok()? {
        Qualifier::Alias(_) => None,
        version => {
            let version = version.to_string();
            entry.state.config(&version).map(|_| version)
        }
    }
}

/// Tags as the API writes them.
pub fn show_tags(tags: &[(String, String)]) -> Value {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_within_the_list() {
        let page = |offset, limit| Page::read(offset, limit);
        assert_eq!(page(None, None).unwrap().of(50), 0..20);
        assert_eq!(page(Some(45), Some(10)).unwrap().of(50), 45..50);
        assert_eq!(page(Some(i64::MAX), Some(100)).unwrap().of(50), 50..50);
        assert_eq!(page(Some(0), Some(0)).unwrap().of(50), 0..0);
        assert_eq!(page(Some(-1), None).unwrap_err().code, "InvalidParameterValue.Offset");
        assert_eq!(page(None, Some(-1)).unwrap_err().code, "InvalidParameterValue.Limit");
        assert_eq!(page(None, Some(101)).unwrap_err().code, "InvalidParameterValue.Limit");
    }

    #[test]
    fn switches_and_orders_are_read_in_any_case() {
        assert!(switch(&Some("True".into()), "Publish").unwrap());
        assert!(!switch(&None, "Publish").unwrap());
        assert!(switch(&Some("1".into()), "Publish").unwrap_err().message.contains("`Publish`"));
        assert!(ascending(&Some("asc".into()), false).unwrap());
        assert_eq!(ascending(&Some("up".into()), false).unwrap_err().code, "InvalidParameterValue.Order");
        assert_eq!(order_by(&Some("modtime".into()), &["AddTime", "ModTime"], "AddTime").unwrap(), "ModTime");
        assert!(limited(Some("é".repeat(5)), "D", "InvalidParameterValue", 5).is_ok());
        assert!(limited(Some("é".repeat(6)), "D", "InvalidParameterValue", 5).is_err());
    }
}
