//! Requests about versions and aliases.

use super::*;

const ALIAS_NAME: &str = "1–64 characters: letters, digits, `-`, `_`; a letter first";

wire! {
    /// Publishes `$LATEST` as an immutable version. Numbers count up from 1 and are not given twice.
    struct PublishVersion {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        description "Description": Option<String> => Honoured, "at most 1000 characters";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }

    /// Lists `$LATEST` and the published versions.
    struct ListVersionByFunction {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        offset "Offset": Option<i64> => Honoured, "default 0";
        limit "Limit": Option<i64> => Honoured, "0–100, default 20";
        order "Order": Option<String> => Honoured, "`ASC` or `DESC`; default: `$LATEST` first, then the newest version first";
        order_by "OrderBy": Option<String> => Honoured, "`AddTime` or `ModTime`";
    }

    /// Deletes a published version that no alias and no trigger points at (`FailedOperation.DeleteFunction`: a trigger does).
    struct DeleteFunctionVersion {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        qualifier "Qualifier": String => Honoured, "number of the version";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        force_delete "ForceDelete": Option<String> => Honoured, "`true`: end its running instances; otherwise running requests finish";
    }

    /// Creates an alias.
    struct CreateAlias {
        name "Name": String => Honoured, ALIAS_NAME;
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        function_version "FunctionVersion": String => Honoured, "the main version";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        routing_config "RoutingConfig": Option<RoutingConfig> => Honoured, "where other requests go";
        description "Description": Option<String> => Honoured, "at most 1000 characters";
    }

    /// Re-points an alias. An absent RoutingConfig removes the old one; an absent Description keeps it.
    struct UpdateAlias {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        name "Name": String => Honoured, ALIAS_NAME;
        function_version "FunctionVersion": String => Honoured, "the main version";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        routing_config "RoutingConfig": Option<RoutingConfig> => Honoured, "where other requests go";
        description "Description": Option<String> => Honoured, "at most 1000 characters";
    }

    /// Deletes an alias that has no trigger (`FailedOperation.DeleteAlias`); `$DEFAULT` cannot be deleted.
    struct DeleteAlias {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        name "Name": String => Honoured, ALIAS_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }

    /// Shows an alias.
    struct GetAlias {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        name "Name": String => Honoured, ALIAS_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }

    /// Lists the aliases of a function, `$DEFAULT` among them, by name.
    struct ListAliases {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        function_version "FunctionVersion": Option<String> => Honoured, "only aliases that lead to this version";
        offset "Offset": Option<String> => Honoured, "a number as text, default 0";
        limit "Limit": Option<String> => Honoured, "a number as text, 0–100, default 20";
    }

    /// Where an alias sends the requests that do not go to its main version.
    struct RoutingConfig {
        additional_version_weights "AdditionalVersionWeights": Option<Vec<VersionWeight>> => Honoured, "shares of other versions, together at most 1 (SCF: one version; here up to 10)";
        addtion_version_matchs "AddtionVersionMatchs": Option<Vec<VersionMatchIn>> => Honoured, "rules, tried in order before the weights; at most 10";
    }

    /// A share of the requests.
    struct VersionWeight {
        version "Version": String => Honoured, "not the main version";
        weight "Weight": f64 => Honoured, "0–1";
    }

    /// A rule.
    struct VersionMatchIn {
        version "Version": String => Honoured, "where matching requests go";
        key "Key": String => Honoured, "`invoke.headers.<Name>`: the value of `<Name>` in RoutingKey";
        method "Method": String => Honoured, "`exact` or `range`";
        expression "Expression": String => Honoured, "the text, or an interval of integers: `(a,b)`, `[a,b]`, `[a,b)`, `(a,b]`";
    }
}
