//! What makes a function an HTTP service: `Type`, `InstanceConcurrencyConfig`, `ProtocolType`, `ProtocolParams`.

use super::common::filled;
use crate::api::requests::{InstanceConcurrencyConfig, ProtocolParams};
use crate::catalogue::clip;
use mayfly_model::{ApiError, ServiceConfig};
use serde_json::{Value, json};

/// Most requests that one instance takes at a time. Source: `InstanceConcurrencyConfig.MaxConcurrency`, 1–100.
pub const CONCURRENCY_MAX: u32 = 100;
/// Longest silence of a WebSocket that can be asked for, in seconds. Source: `WSParams.IdleTimeOut`, 1–1800.
const WEBSOCKET_IDLE_S_MAX: u32 = 1800;
/// Silence after which a WebSocket is closed when nothing else is asked for, in seconds.
const WEBSOCKET_IDLE_S_DEFAULT: u32 = 15;

/// `Type`: true for `HTTP`. Errors: `InvalidParameterValue.Type`.
pub fn is_http(text: &str) -> Result<bool, ApiError> {
    match text {
        t if t.eq_ignore_ascii_case("event") => Ok(false),
        t if t.eq_ignore_ascii_case("http") => Ok(true),
        other => Err(ApiError::new(
            "InvalidParameterValue.Type",
            format!("`Type` is `{}`; it is Event or HTTP.", clip(other)),
        )),
    }
}

/// `Type` as the API writes it.
pub fn type_name(service: Option<&ServiceConfig>) -> &'static str {
    if service.is_some() { "HTTP" } else { "Event" }
}

/// What a request says about the service, checked as far as it can be without the function.
#[derive(Debug, Default, PartialEq)]
pub struct ServiceRequest {
    /// Requests at a time; `None`: nothing was said.
    concurrency: Option<u32>,
    /// True when `ProtocolType` is `WS`.
    websocket: bool,
    /// `WSParams` was given; within, the seconds if they were.
    websocket_params: Option<Option<u32>>,
}

impl ServiceRequest {
    /// Errors: `InvalidParameterValue.{DynamicEnabled, MaxConcurrency, InstanceConcurrencyConfig, ProtocolType, IdleTimeOut}`.
    pub fn read(
        concurrency: Option<InstanceConcurrencyConfig>,
        protocol_type: &Option<String>,
        protocol_params: Option<ProtocolParams>,
    ) -> Result<Self, ApiError> {
        let websocket = match filled(protocol_type) {
            None => false,
            Some(t) if t.eq_ignore_ascii_case("ws") => true,
            Some(other) => {
                let message = format!("`ProtocolType` is `{}`; it is WS, or empty.", clip(other));
                return Err(ApiError::new("InvalidParameterValue.ProtocolType", message));
            }
        };
        let params = protocol_params.and_then(|params| params.ws_params);
        let websocket_params = params.map(|params| params.idle_time_out.map(idle_s).transpose()).transpose()?;
        let concurrency = concurrency.map(concurrency_of).transpose()?.flatten();
        Ok(Self { concurrency, websocket, websocket_params })
    }

    /// The settings of a new function. Errors: those of fields that only HTTP functions have, and
    /// `InvalidParameterValue.WebSocketsParams` for parameters without `ProtocolType` `WS`.
    pub fn create(self, http: bool) -> Result<Option<ServiceConfig>, ApiError> {
        if !http {
            self.check_event()?;
            return Ok(None);
        }
        let websocket_idle_s = match (self.websocket, self.websocket_params) {
            (true, params) => Some(params.flatten().unwrap_or(WEBSOCKET_IDLE_S_DEFAULT)),
            (false, None) => None,
            (false, Some(_)) => return Err(no_websocket()),
        };
        Ok(Some(ServiceConfig { concurrency: self.concurrency.unwrap_or(1), websocket_idle_s }))
    }

    /// The settings of a function that has `old`. Errors as for [`Self::create`].
    pub fn update(&self, old: Option<ServiceConfig>) -> Result<Option<ServiceConfig>, ApiError> {
        let Some(mut service) = old else {
            self.check_event()?;
            return Ok(None);
        };
        if let Some(concurrency) = self.concurrency {
            service.concurrency = concurrency;
        }
        match (self.websocket_params, service.websocket_idle_s) {
            (Some(_), None) => return Err(no_websocket()),
            (Some(Some(idle_s)), _) => service.websocket_idle_s = Some(idle_s),
            _ => {}
        }
        Ok(Some(service))
    }

    /// Real clients send the switched-off forms with every function: only what asks for something is refused.
    fn check_event(&self) -> Result<(), ApiError> {
        let only_http =
            |code, field: &str| Err(ApiError::new(code, format!("`{field}` is for functions of Type HTTP only.")));
        if self.concurrency.is_some_and(|n| n > 1) {
            return only_http("InvalidParameterValue.InstanceConcurrencyConfig", "InstanceConcurrencyConfig");
        }
        if self.websocket {
            return only_http("InvalidParameterValue.ProtocolType", "ProtocolType");
        }
        if self.websocket_params.is_some() {
            return only_http("InvalidParameterValue.WebSocketsParams", "ProtocolParams.WSParams");
        }
        Ok(())
    }
}

fn no_websocket() -> ApiError {
    let message = "`ProtocolParams.WSParams` is for functions that were created with `ProtocolType` WS.";
    ApiError::new("InvalidParameterValue.WebSocketsParams", message)
}

fn idle_s(seconds: i64) -> Result<u32, ApiError> {
    match u32::try_from(seconds) {
        Ok(s) if (1..=WEBSOCKET_IDLE_S_MAX).contains(&s) => Ok(s),
        _ => Err(ApiError::new(
            "InvalidParameterValue.IdleTimeOut",
            format!(
                "`ProtocolParams.WSParams.IdleTimeOut` is {seconds}; it is a number of seconds from 1 to {WEBSOCKET_IDLE_S_MAX}."
            ),
        )),
    }
}

/// The number of requests that is asked for; `None`: the structure says nothing about it.
fn concurrency_of(config: InstanceConcurrencyConfig) -> Result<Option<u32>, ApiError> {
    match config.dynamic_enabled.as_deref() {
        // The empty text is the switch that turns concurrency off, whatever number stands beside it.
        Some("") => return Ok(Some(1)),
        Some(t) if !t.eq_ignore_ascii_case("false") => {
            let message = format!(
                "`InstanceConcurrencyConfig.DynamicEnabled` is `{}`; it is FALSE (a fixed number), or empty (off).",
                clip(t)
            );
            return Err(ApiError::new("InvalidParameterValue.DynamicEnabled", message));
        }
        _ => {}
    }
    match (config.max_concurrency.map(u32::try_from), config.dynamic_enabled) {
        (Some(Ok(n)), _) if (1..=CONCURRENCY_MAX).contains(&n) => Ok(Some(n)),
        (Some(_), _) => Err(ApiError::new(
            "InvalidParameterValue.MaxConcurrency",
            format!("`InstanceConcurrencyConfig.MaxConcurrency` is a number from 1 to {CONCURRENCY_MAX}."),
        )),
        (None, Some(_)) => Err(ApiError::new(
            "InvalidParameterValue.MaxConcurrency",
            "`InstanceConcurrencyConfig.DynamicEnabled` FALSE goes with a number in `MaxConcurrency`.",
        )),
        (None, None) => Ok(None),
    }
}

/// The fields of GetFunction that only HTTP functions have.
pub fn show(service: &ServiceConfig) -> [(String, Value); 3] {
    let websocket = service.websocket_idle_s;
    [
        ("ProtocolType".to_owned(), json!(if websocket.is_some() { "WS" } else { "" })),
        (
            "ProtocolParams".to_owned(),
            websocket.map_or(Value::Null, |idle_s| json!({"WSParams": {"IdleTimeOut": idle_s}})),
        ),
        (
            "InstanceConcurrencyConfig".to_owned(),
            json!({
                "DynamicEnabled": if service.concurrency > 1 { "FALSE" } else { "" },
                "MaxConcurrency": service.concurrency,
                "InstanceIsolationEnabled": "FALSE",
                "Type": "Request-Based",
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concurrency(dynamic: Option<&str>, max: Option<i64>) -> Result<Option<u32>, &'static str> {
        let config = InstanceConcurrencyConfig {
            dynamic_enabled: dynamic.map(Into::into),
            max_concurrency: max,
            ..InstanceConcurrencyConfig::default()
        };
        concurrency_of(config).map_err(|e| e.code)
    }

    #[test]
    fn concurrency_is_a_number_or_off() {
        assert_eq!(concurrency(Some("FALSE"), Some(100)), Ok(Some(100)));
        assert_eq!(concurrency(None, Some(7)), Ok(Some(7)));
        assert_eq!(concurrency(Some(""), Some(1000)), Ok(Some(1)));
        assert_eq!(concurrency(None, None), Ok(None));
        assert_eq!(concurrency(Some("on"), Some(2)), Err("InvalidParameterValue.DynamicEnabled"));
        for bad in [0, -1, 101, i64::MAX] {
            assert_eq!(concurrency(Some("false"), Some(bad)), Err("InvalidParameterValue.MaxConcurrency"), "{bad}");
        }
        assert_eq!(concurrency(Some("FALSE"), None), Err("InvalidParameterValue.MaxConcurrency"));
    }

    #[test]
    fn silence_has_its_limits() {
        assert_eq!((idle_s(1), idle_s(1800)), (Ok(1), Ok(1800)));
        for bad in [0, -1, 1801] {
            assert_eq!(idle_s(bad).unwrap_err().code, "InvalidParameterValue.IdleTimeOut", "{bad}");
        }
    }
}
