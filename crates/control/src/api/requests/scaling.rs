//! Mayfly's own requests about scaling: SCF has none of these.

use super::*;

wire! {
    /// Mayfly's own. Sets the bounds of a function's number of instances, all versions together, and whether it follows forecasts; absent
    /// fields stay as they are. Instances that run are not restarted.
    struct PutFunctionScaling {
        function_name "FunctionName": String => Own, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Own, NAMESPACE;
        min_instances "MinInstances": Option<i64> => Own, "fewest, kept ready of the version that calls without a qualifier reach; 0–1000";
        max_instances "MaxInstances": Option<i64> => Own, "most, 1–100000; further calls wait for one to be free, and are refused with 429 when none was in time. 0: no limit but memory";
        forecast "Forecast": Option<String> => Own, "`off`, `conservative` or `eager`; empty: as the server's setting says";
    }

    /// Mayfly's own. Shows the demand that is known of each version, what is kept ready of it, and what each mode of pre-creation cost or
    /// would have cost it.
    struct GetForecast {
        function_name "FunctionName": Option<String> => Own, "only this function; else all of the namespace, or of all namespaces when none is named";
        namespace "Namespace": Option<String> => Own, NAMESPACE;
        offset "Offset": Option<i64> => Own, "default 0";
        limit "Limit": Option<i64> => Own, "0–100, default 20";
    }

    /// Mayfly's own. Lists the minutes in which versions were called, with the instances needed at once: what `mayfly simulate` replays.
    struct ListDemand {
        start_time "StartTime": Option<i64> => Own, "seconds since the epoch; default: all that is kept";
        end_time "EndTime": Option<i64> => Own, "seconds since the epoch; default: now";
        offset "Offset": Option<i64> => Own, "default 0";
        limit "Limit": Option<i64> => Own, "1–10000, default 10000";
    }
}
