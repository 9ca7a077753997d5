//! Requests that run functions, and those that ask what became of a run.

use super::*;

wire! {
    /// Runs a function, and answers with its result or at once.
    struct Invoke {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        invocation_type "InvocationType": Option<String> => Honoured, "`RequestResponse` (default) or `Event`: answered as soon as the event is durable";
        qualifier "Qualifier": Option<String> => Honoured, "version or alias; default `$LATEST`";
        client_context "ClientContext": Option<String> => Honoured, "the event, JSON text of at most 6 MB (`Event`: 128 KB); absent or empty: `{}`";
        log_type "LogType": Option<String> => Honoured, "`None` (default) or `Tail`, in any case: the last 4 KB of the log";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        routing_key "RoutingKey": Option<String> => Honoured, "a JSON object of strings, at most 1024 bytes, for the rules of an alias";
    }

    /// Runs a function and answers with its result.
    struct InvokeFunction {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        qualifier "Qualifier": Option<String> => Honoured, "version or alias; default `$DEFAULT`";
        event "Event": Option<String> => Honoured, "the event, JSON text of at most 6 MB; absent or empty: `{}`";
        log_type "LogType": Option<String> => Honoured, "`None` (default) or `Tail`, in any case: the last 4 KB of the log";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        routing_key "RoutingKey": Option<String> => Honoured, "a JSON object of strings, at most 1024 bytes, for the rules of an alias";
    }

    /// What is known of one invocation: one entry for each attempt, and one for a run that is waiting or running.
    struct GetRequestStatus {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        function_request_id "FunctionRequestId": String => Honoured, "request id";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        start_time "StartTime": Option<String> => Honoured, "`YYYY-MM-DD HH:MM:SS`; default: 15 minutes ago";
        end_time "EndTime": Option<String> => Honoured, "needed with StartTime; default: now";
    }

    /// How an asynchronous event fares.
    struct GetAsyncEventStatus {
        invoke_request_id "InvokeRequestId": String => Honoured, "request id of the invocation";
    }

    /// Asynchronous events of a function: all that are not done, and what is in the log of the last three days (of these, the newest 10000 runs).
    struct ListAsyncEvents {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        qualifier "Qualifier": Option<String> => Honoured, "version or alias that the caller named; absent: all";
        invoke_type "InvokeType": Option<Vec<String>> => Honoured, "any of these: `API`, or the kind of a trigger";
        status "Status": Option<Vec<String>> => Honoured, "any of `RUNNING`, `FINISHED`, `ABORTED`, `FAILED`";
        start_time_interval "StartTimeInterval": Option<TimeInterval> => Honoured, "accepted within";
        end_time_interval "EndTimeInterval": Option<TimeInterval> => Honoured, "ended within";
        order "Order": Option<String> => Honoured, "`ASC` or `DESC` (default), in any case";
        orderby "Orderby": Option<String> => Honoured, "`StartTime` (default) or `EndTime`; those that have not ended come last by their end";
        offset "Offset": Option<i64> => Honoured, "default 0";
        limit "Limit": Option<i64> => Honoured, "default 20, at most 100";
        invoke_request_id "InvokeRequestId": Option<String> => Honoured, "one event";
    }

    /// A time from `Start` on and before `End`.
    struct TimeInterval {
        start "Start": String => Honoured, "`YYYY-MM-DD HH:MM:SS`, with a fraction or without";
        end "End": String => Honoured, "the same";
    }

    /// Ends an asynchronous event that waits or runs. When this is answered it will not run again, whatever happens to the platform.
    struct TerminateAsyncEvent {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        invoke_request_id "InvokeRequestId": String => Honoured, "request id of the invocation";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        grace_shutdown "GraceShutdown": Option<bool> => Honoured, "true: SIGTERM first, and 10 seconds for it; default false: SIGKILL";
    }

    /// The log records of invocations.
    struct GetFunctionLogs {
        function_name "FunctionName": Option<String> => Honoured, "absent: every function of the namespace";
        offset "Offset": Option<i64> => Honoured, "default 0; Offset + Limit ≤ 10000";
        limit "Limit": Option<i64> => Honoured, "default 20; Offset + Limit ≤ 10000";
        order "Order": Option<String> => Honoured, "`asc` or `desc` (default), in any case";
        order_by "OrderBy": Option<String> => Honoured, "`start_time` (default), `function_name`, `duration` or `mem_usage`";
        filter "Filter": Option<LogFilter> => Honoured, "by result";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        qualifier "Qualifier": Option<String> => Honoured, "version";
        function_request_id "FunctionRequestId": Option<String> => Honoured, "one request";
        start_time "StartTime": Option<String> => Honoured, "`YYYY-MM-DD HH:MM:SS`; with EndTime, at most a day apart; default: the last day";
        end_time "EndTime": Option<String> => Honoured, "see StartTime";
        search_context "SearchContext": Option<LogSearchContext> => refused("UnsupportedOperation", "SCF has withdrawn it; use Offset and Limit"), "withdrawn";
    }

    /// A filter of log records.
    struct LogFilter {
        ret_code "RetCode": Option<String> => Honoured, "`not0`, `is0`, `TimeLimitExceeded`, `ResourceLimitExceeded`, `UserCodeException`";
    }

    /// Sets what becomes of a function's asynchronous events that fail. It holds for events that wait already, too.
    struct UpdateFunctionEventInvokeConfig {
        async_trigger_config "AsyncTriggerConfig": AsyncTriggerConfig => Honoured, "the policy, as a whole";
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }

    /// Shows what becomes of a function's asynchronous events that fail.
    struct GetFunctionEventInvokeConfig {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        qualifier "Qualifier": Option<String> => Honoured, "must exist; the policy is the same for all versions";
    }

    /// A policy for events that fail.
    struct AsyncTriggerConfig {
        retry_config "RetryConfig": Vec<RetryConfig> => Honoured, "one entry";
        msg_ttl "MsgTTL": i64 => Honoured, "the age at which an event that failed or was turned away is given up, 60–21600 seconds; every event is tried once, however old it is";
    }

    /// Retries after run errors.
    struct RetryConfig {
        retry_num "RetryNum": i64 => Honoured, "0–2: after one minute, and after two more";
    }
}
