//! Requests about triggers.

use super::*;

const TRIGGER_NAME: &str = "name of the trigger";
const TYPE: &str = "`http` (the URL of a function), `timer`, `cos`, `cmq`, `ckafka`, `apigw` (an API of the gateway, docs/apigw.md). Other types are not built yet: `UnsupportedOperation.Trigger`";
const DESC: &str = "http: JSON text with `AuthType` (`NONE` or `CAM`), `NetConfig`, `CorsConfig`. timer: a cron of seven fields, or JSON with it as `cron` and, ours, a `timeZone` (default: the platform's); five fields begin at the minute. cos: JSON with `event` and `filter`. cmq: JSON with `filterType` and `filterKey`. ckafka: JSON with `maxMsgNum` (1–10000, default 100), `offset` (`latest`, `earliest` or milliseconds), `retry` (0–10000, default 10000), `timeOut` (0–60 s; default 0, which waits for nothing), `consumerGroupName`; numbers may be texts. apigw: JSON with `api`, `service` and `release`. Unknown keys are refused with `InvalidParameterValue.TriggerDesc`";
const AGAIN: &str = "as at creation; tells several cos triggers of one bucket, or apigw triggers of one name, from each other, else not looked at";
const WHICH: &str = "given: only the trigger of this version or alias is meant";

wire! {
    /// Creates a trigger. Events come as asynchronous invocations (docs/events.md), messages of Kafka as synchronous ones (docs/kafka.md). Type `http` is the URL of a version or an alias, `http://<host>/fn/<namespace>/<function>/`, with `@<qualifier>` after the
    /// function's name for others than `$DEFAULT`. At most 10 per function, one per version or alias. Functions can be called at these addresses
    /// without a trigger too: HTTP functions by anybody (unless a trigger of the function is closed or wants signatures), event functions with a signature.
    struct CreateTrigger {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        trigger_name "TriggerName": String => Honoured, "1–100 characters; not twice for a type in a function. cos: the bucket's host or name; cmq: the topic; ckafka: `<cluster>-<topic>`, the cluster as the configuration names it (docs/kafka.md), else `ResourceNotFound.Ckafka`; apigw: any, or the name of the service";
        kind "Type": String => Honoured, TYPE;
        trigger_desc "TriggerDesc": Option<String> => Honoured, DESC;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        qualifier "Qualifier": Option<String> => Honoured, "version or alias that answers; default `$LATEST`";
        enable "Enable": Option<String> => Honoured, "`OPEN` (default) or `CLOSE`: closed URLs answer 404";
        custom_argument "CustomArgument": Option<String> => Honoured, "text of at most 4 KB: the `Message` of a timer's events; shown again for the others";
        description "Description": Option<String> => Honoured, "at most 1000 characters";
    }

    /// Deletes a trigger.
    struct DeleteTrigger {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        trigger_name "TriggerName": String => Honoured, TRIGGER_NAME;
        kind "Type": String => Honoured, TYPE;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        trigger_desc "TriggerDesc": Option<String> => Honoured, AGAIN;
        qualifier "Qualifier": Option<String> => Honoured, WHICH;
    }

    /// Changes a trigger; absent fields stay as they are.
    struct UpdateTrigger {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        trigger_name "TriggerName": String => Honoured, TRIGGER_NAME;
        kind "Type": String => Honoured, TYPE;
        enable "Enable": Option<String> => Honoured, "`OPEN` or `CLOSE`";
        qualifier "Qualifier": Option<String> => Honoured, WHICH;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        trigger_desc "TriggerDesc": Option<String> => Honoured, "as in CreateTrigger; replaces the old one as a whole";
        description "Description": Option<String> => Honoured, "at most 1000 characters";
        custom_argument "CustomArgument": Option<String> => Honoured, "at most 4 KB";
    }

    /// Opens or closes a trigger. (SCF: not for `http`.) `FailedOperation.UpdateTriggerStatus` when it is in that state already.
    struct UpdateTriggerStatus {
        enable "Enable": String => Honoured, "`OPEN` or `CLOSE`";
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        trigger_name "TriggerName": String => Honoured, TRIGGER_NAME;
        kind "Type": String => Honoured, TYPE;
        qualifier "Qualifier": Option<String> => Honoured, WHICH;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        trigger_desc "TriggerDesc": Option<String> => Honoured, AGAIN;
    }

    /// Shows one trigger. Ours.
    struct GetTrigger {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        trigger_name "TriggerName": String => Honoured, TRIGGER_NAME;
        kind "Type": String => Honoured, TYPE;
        qualifier "Qualifier": Option<String> => Honoured, WHICH;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        trigger_desc "TriggerDesc": Option<String> => Honoured, AGAIN;
    }

    /// Lists the triggers of a function.
    struct ListTriggers {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        offset "Offset": Option<i64> => Honoured, "default 0";
        limit "Limit": Option<i64> => Honoured, "0–100, default 20";
        order_by "OrderBy": Option<String> => Honoured, "`add_time` or `mod_time` (default)";
        order "Order": Option<String> => Honoured, "`ASC` or `DESC` (default)";
        filters "Filters": Option<Vec<Filter>> => Honoured, "all must hold: `Qualifier`, `TriggerName`, `Description` (a part of it), `Type`";
    }
}
