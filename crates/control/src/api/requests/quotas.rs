//! Requests about reserved concurrency and the account.

use super::*;

wire! {
    /// Sets the reserved quota of a function: its cap, and a share that others cannot use.
    struct PutReservedConcurrencyConfig {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        reserved_concurrency_mem "ReservedConcurrencyMem": i64 => Honoured, "MB; 0 stops the function; all reservations together leave 12800 MB of the account's quota free";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }

    /// Shows the reserved quota of a function.
    struct GetReservedConcurrencyConfig {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }

    /// Removes the reserved quota of a function.
    struct DeleteReservedConcurrencyConfig {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }

    /// Orders instances of a published version to be kept ready, in place of what was ordered before: a fixed number, changed by schedules, or as
    /// many as keep a share of them busy. The memory of all of them counts against the function's reserved quota, or else the account's.
    struct PutProvisionedConcurrencyConfig {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        qualifier "Qualifier": String => Honoured, "number of a published version";
        version_provisioned_concurrency_num "VersionProvisionedConcurrencyNum": i64 => Honoured, "instances kept ready; 0 with `ConcurrencyUtilizationTracking`";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        trigger_actions "TriggerActions": Option<Vec<TriggerAction>> => Honoured, "timed changes of the number, at most 10; the newest that has fired since the order counts";
        provisioned_type "ProvisionedType": Option<String> => Honoured, "`Default` (a fixed number) or `ConcurrencyUtilizationTracking`";
        tracking_target "TrackingTarget": Option<f64> => Honoured, "share of busy instances that is aimed at, between 0 and 1";
        min_capacity "MinCapacity": Option<i64> => Honoured, "fewest instances, from 1; default 1";
        max_capacity "MaxCapacity": Option<i64> => Honoured, "most instances; required for `ConcurrencyUtilizationTracking`";
    }

    /// Shows what is ordered to be kept ready, and how far it is. Mayfly adds `ProvisionedType`, `TrackingTarget`, `MinCapacity` and `MaxCapacity`.
    struct GetProvisionedConcurrencyConfig {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        qualifier "Qualifier": Option<String> => Honoured, "only this version";
    }

    /// Withdraws an order; one that is not there is withdrawn already.
    struct DeleteProvisionedConcurrencyConfig {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        qualifier "Qualifier": String => Honoured, "number of a published version";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }

    /// A timed change of the number of instances kept ready.
    struct TriggerAction {
        trigger_name "TriggerName": String => Honoured, "1–60 characters; once in an order";
        trigger_provisioned_concurrency_num "TriggerProvisionedConcurrencyNum": i64 => Honoured, "instances from then on";
        trigger_cron_config "TriggerCronConfig": String => Honoured, "seven fields, `second minute hour day month weekday year`, in the server's time zone; `,` `-` `*` `/`; the second is one number";
        provisioned_type "ProvisionedType": Option<String> => Honoured, "`Default`";
    }

    /// Shows what the account uses and what it may use.
    struct GetAccount {
        stamp "Stamp": Option<String> => Ignored("marks the product that asks"), "internal mark";
    }
}
