//! Mayfly's own requests about failures and about who hears of results: SCF has none of these.

use super::*;

const FILTER: &str = "which failures; absent: all";
const JOB: &str = "id of the job";

wire! {
    /// Mayfly's own. Says what is kept of a function's failures; absent fields stay as they are. Those of asynchronous events are always kept.
    struct PutFunctionFailures {
        function_name "FunctionName": String => Own, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Own, NAMESPACE;
        capture "Capture": Option<bool> => Own, "true: failures of synchronous requests are kept too, before they are answered";
        retention_hours "RetentionHours": Option<i64> => Own, "for how long failures are kept from now on, 1–8760; 0: the default, 168";
    }

    /// Mayfly's own. Shows what is kept of a function's failures.
    struct GetFunctionFailures {
        function_name "FunctionName": String => Own, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Own, NAMESPACE;
    }

    /// Mayfly's own. Says who hears of the ends of a function's asynchronous events; absent fields stay as they are. The message is the
    /// record that AWS Lambda sends, see [failures.md](failures.md).
    struct PutFunctionDestinations {
        function_name "FunctionName": String => Own, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Own, NAMESPACE;
        on_success "OnSuccess": Option<Destination> => Own, "gets the results; an empty Type: nobody";
        on_failure "OnFailure": Option<Destination> => Own, "gets the errors of those that failed for good; an empty Type: nobody";
    }

    /// Mayfly's own. Shows who hears of the ends of a function's asynchronous events.
    struct GetFunctionDestinations {
        function_name "FunctionName": String => Own, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Own, NAMESPACE;
    }

    /// Who gets a result.
    struct Destination {
        kind "Type": Option<String> => Own, "`function`, `queue` or `topic`; empty: nobody";
        name "Name": Option<String> => Own, "name of the function, queue or topic";
        namespace "Namespace": Option<String> => Own, "of a function; default: that of the function whose results these are";
        qualifier "Qualifier": Option<String> => Own, "of a function; default `$DEFAULT`";
        filter_type "FilterType": Option<String> => Own, "tag of a topic's message";
    }

    /// Mayfly's own. Lists failures, newest first.
    struct ListFailures {
        filter "Filter": Option<FailureFilter> => Own, FILTER;
        order "Order": Option<String> => Own, "`asc` or `desc` (default)";
        cursor "Cursor": Option<String> => Own, "`NextCursor` of the page before";
        limit "Limit": Option<i64> => Own, "0–100, default 20";
    }

    /// Mayfly's own. Shows a failure with its scene and its replays.
    struct GetFailure {
        request_id "FunctionRequestId": String => Own, "id of the request that failed";
    }

    /// Mayfly's own. Forgets failures.
    struct DeleteFailures {
        filter "Filter": Option<FailureFilter> => Own, "which failures; must say something unless `All`";
        all "All": Option<bool> => Own, "true: those of all functions, if the filter says nothing";
    }

    /// Mayfly's own. Runs failures again, as asynchronous events, in a job of its own. Those that a replay has resolved, or that have one
    /// under way, are passed over.
    struct ReplayFailures {
        filter "Filter": Option<FailureFilter> => Own, "which failures; must say something unless `All`";
        all "All": Option<bool> => Own, "true: those of all functions, if the filter says nothing";
        qualifier "Qualifier": Option<String> => Own, "version or alias to run; default: the one first asked for";
        event "Event": Option<String> => Own, "the event in place of the failure's own, JSON text of at most 128 KB; for one id";
        rate "Rate": Option<i64> => Own, "most replays sent in a second, 1–10000; 0 (default): as fast as events are taken";
        again "Again": Option<bool> => Own, "true: also those that are resolved or have a replay under way";
        dry_run "DryRun": Option<bool> => Own, "true: nothing is run; the answer tells how many, and lists the first 100";
        client_token "ClientToken": Option<String> => Own, "1–64 characters: asking twice with one is the same job";
    }

    /// Mayfly's own. Lists replay jobs, newest first.
    struct ListReplayJobs {
        offset "Offset": Option<i64> => Own, "default 0";
        limit "Limit": Option<i64> => Own, "0–100, default 20";
    }

    /// Mayfly's own. Shows how far a replay job is.
    struct GetReplayJob {
        job_id "JobId": String => Own, JOB;
    }

    /// Mayfly's own. Ends the sending of a replay job; what was sent runs to its end.
    struct CancelReplayJob {
        job_id "JobId": String => Own, JOB;
    }

    /// Which failures are meant: all that is said must hold.
    struct FailureFilter {
        request_ids "RequestIds": Option<Vec<String>> => Own, "these requests, at most 1000";
        namespace "Namespace": Option<String> => Own, "namespace; default: all";
        function_name "FunctionName": Option<String> => Own, "function; default: all";
        version "Version": Option<String> => Own, "version that ran";
        status_code "StatusCode": Option<i64> => Own, "how the request ended, such as 430";
        source "Source": Option<String> => Own, "`invoke`, `event`, `url`, `destination` or the type of a trigger";
        error "Error": Option<String> => Own, "a part of the error's text, in any case";
        start_time "StartTime": Option<String> => Own, "failed then or later, `YYYY-MM-DD HH:MM:SS`";
        end_time "EndTime": Option<String> => Own, "failed then or before";
        resolved "Resolved": Option<bool> => Own, "whether a replay has succeeded";
        replays "Replays": Option<bool> => Own, "true: also failures that were replays of others";
    }

    /// Where dead letters go.
    struct DeadLetterConfig {
        kind "Type": Option<String> => Honoured, "`CMQ-QUEUE` or `queue`, `CMQ-TOPIC` or `topic`; empty, with an empty Name: nowhere";
        name "Name": Option<String> => Honoured, "name of the queue or topic, which must exist";
        filter_type "FilterType": Option<String> => Honoured, "tag of a topic's message";
    }
}
