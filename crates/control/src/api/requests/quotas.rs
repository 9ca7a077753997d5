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

    /// Shows what the account uses and what it may use.
    struct GetAccount {
        stamp "Stamp": Option<String> => Ignored("marks the product that asks"), "internal mark";
    }
}
