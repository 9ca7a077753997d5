//! Requests about functions.

use super::*;

fn not_zip(value: &Value) -> bool {
    other_than(value, &["ZipFile", "Inline"])
}

fn gpu(value: &Value) -> bool {
    other_than(value, &["CPU"])
}

fn image(value: &Value) -> bool {
    other_than(value, &["code"])
}

const SOURCE: Treatment =
    Refused { code: "UnsupportedOperation", when: "other than `ZipFile` or `Inline`", test: not_zip, why: NO_COS };

wire! {
    /// Creates a function. It is `Active` when the answer arrives, unless dependencies are to be installed: then it is `Creating` until they are.
    struct CreateFunction {
        function_name "FunctionName": String => Honoured, "2–60 characters: letters, digits, `-`, `_`; a letter first, no `-` or `_` last";
        code "Code": Code => Honoured, "exactly one source";
        handler "Handler": Option<String> => Honoured, "`file.function`; required but for CustomRuntime and for Type `HTTP`";
        description "Description": Option<String> => Honoured, "at most 1000 characters";
        memory_size "MemorySize": Option<i64> => Honoured, "MB: 64, or 128–3072 in steps of 128; default 128";
        timeout "Timeout": Option<i64> => Honoured, "seconds, 1–900; default 3";
        environment "Environment": Option<Environment> => Honoured, "environment variables";
        runtime "Runtime": Option<String> => Honoured, "a runtime name of the table below, in any case; required (SCF's default, Python2.7, is not supported)";
        vpc_config "VpcConfig": Option<VpcConfig> => refused("UnsupportedOperation.VpcConfig", NO_VPC), "VPC attachment";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        role "Role": Option<String> => Honoured, ROLE;
        install_dependency "InstallDependency": Option<String> => Honoured, INSTALL;
        cls_logset_id "ClsLogsetId": Option<String> => Shown(CLS), "CLS logset";
        cls_topic_id "ClsTopicId": Option<String> => Shown(CLS), "CLS topic";
        kind "Type": Option<String> => Honoured, "`Event` (default), or `HTTP`: `scf_bootstrap` in the package starts a server that listens on port 9000";
        code_source "CodeSource": Option<String> => SOURCE, "kind of code source";
        layers "Layers": Option<Vec<LayerVersionSimple>> => Honoured, "at most 5; later ones overwrite earlier ones";
        dead_letter_config "DeadLetterConfig": Option<DeadLetterConfig> => Honoured, "where events that failed for good are told; `ResourceNotFound.Cmq` when it is not there. It holds for all versions, at once";
        public_net_config "PublicNetConfig": Option<PublicNetConfigIn> => Honoured, "access to the outside";
        cfs_config "CfsConfig": Option<CfsConfig> => refused("UnsupportedOperation", NO_CFS), "network file systems";
        init_timeout "InitTimeout": Option<i64> => Honoured, "seconds, 1–300; default 65";
        tags "Tags": Option<Vec<Tag>> => Honoured, "at most 50 tags";
        async_run_enable "AsyncRunEnable": Option<String> => Honoured, "`TRUE`: every call is answered at once and runs asynchronously, for up to 86400 seconds (`Timeout`), without retries of run errors; fixed at creation; event functions only (`UnsupportedOperation.AsyncRunEnable`)";
        trace_enable "TraceEnable": Option<String> => refused_on("UnsupportedOperation", "events are not traced"), "trace asynchronous events";
        auto_deploy_cls_topic_index "AutoDeployClsTopicIndex": Option<String> => refused_on("UnsupportedOperation", "there is no CLS; logs are read with GetFunctionLogs"), "create the CLS index";
        auto_create_cls_topic "AutoCreateClsTopic": Option<String> => refused_on("UnsupportedOperation", "there is no CLS; logs are read with GetFunctionLogs"), "create the CLS topic";
        protocol_type "ProtocolType": Option<String> => Honoured, "`WS`: WebSockets without traffic are closed (HTTP functions only). WebSockets pass without it too";
        protocol_params "ProtocolParams": Option<ProtocolParams> => ByFields, "parameters of ProtocolType; `InvalidParameterValue.WebSocketsParams` for a function without it";
        instance_concurrency_config "InstanceConcurrencyConfig": Option<InstanceConcurrencyConfig> => ByFields, "several requests in one instance (HTTP functions)";
        dns_cache "DnsCache": Option<String> => Shown(DNS), "cache DNS answers";
        intranet_config "IntranetConfig": Option<IntranetConfigIn> => ByFields, "fixed intranet address";
        fork_mode "ForkMode": Option<String> => Own, "`auto` (default): instances are forked from an initialised template where that is sound; `off`: each runs the module-level code itself";
        code_secret "CodeSecret": Option<String> => refused("UnsupportedOperation", "code is not encrypted with a key of the user's"), "key that protects the code";
        l5_enable "L5Enable": Option<String> => refused_on("UnsupportedOperation", "there is no L5 naming service"), "internal naming service";
        node_type "NodeType": Option<String> => Refused { code: "UnsupportedOperation", when: "other than `CPU`", test: gpu, why: NO_NODE }, "kind of machine";
        node_spec "NodeSpec": Option<String> => refused("UnsupportedOperation", NO_NODE), "GPU model";
        deploy_mode "DeployMode": Option<String> => Refused { code: "UnsupportedOperation", when: "other than `code`", test: image, why: NO_IMAGE }, "`code` or `image`";
        disk_size "DiskSize": Option<i64> => Ignored(DISK), "size of `/tmp`";
        stamp "Stamp": Option<String> => Ignored("marks the product that created the function"), "internal mark";
    }

    /// Replaces the code of `$LATEST`. Running requests finish on the old code; the next ones get the new.
    struct UpdateFunctionCode {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        handler "Handler": Option<String> => Honoured, "`file.function`; absent: unchanged";
        cos_bucket_name "CosBucketName": Option<String> => refused("UnsupportedOperation.Cos", NO_COS), "bucket";
        cos_object_name "CosObjectName": Option<String> => refused("UnsupportedOperation.Cos", NO_COS), "object";
        zip_file "ZipFile": Option<String> => Honoured, "the package: a zip in base64, at most 50 MB (SCF: 20 MB)";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        cos_bucket_region "CosBucketRegion": Option<String> => refused("UnsupportedOperation.Cos", NO_COS), "region of the bucket";
        install_dependency "InstallDependency": Option<String> => Honoured, INSTALL_AGAIN;
        env_id "EnvId": Option<String> => Shown("the functions of a CloudBase environment live in the namespace of its name; the field changes nothing and no read action of SCF shows it"), "CloudBase environment";
        publish "Publish": Option<String> => Honoured, "`TRUE`: also publish a version";
        code "Code": Option<Code> => Honoured, "in place of the flat fields";
        code_source "CodeSource": Option<String> => SOURCE, "kind of code source";
        code_secret "CodeSecret": Option<String> => refused("UnsupportedOperation", "code is not encrypted with a key of the user's"), "key that protects the code";
    }

    /// Changes settings of `$LATEST`; absent fields stay as they are.
    struct UpdateFunctionConfiguration {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        description "Description": Option<String> => Honoured, "at most 1000 characters";
        memory_size "MemorySize": Option<i64> => Honoured, "MB: 64, or 128–3072 in steps of 128";
        timeout "Timeout": Option<i64> => Honoured, "seconds, 1–900";
        runtime "Runtime": Option<String> => Honoured, "cannot be changed: any other than the present one is refused with `InvalidParameterValue.Runtime`";
        environment "Environment": Option<Environment> => Honoured, "replaces all variables";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        vpc_config "VpcConfig": Option<VpcConfig> => refused("UnsupportedOperation.VpcConfig", NO_VPC), "VPC attachment";
        role "Role": Option<String> => Honoured, ROLE;
        install_dependency "InstallDependency": Option<String> => Honoured, "what the next UpdateFunctionCode does that does not say; nothing is installed now";
        cls_logset_id "ClsLogsetId": Option<String> => Shown(CLS), "CLS logset";
        cls_topic_id "ClsTopicId": Option<String> => Shown(CLS), "CLS topic";
        publish "Publish": Option<String> => Honoured, "`TRUE`: also publish a version";
        l5_enable "L5Enable": Option<String> => refused_on("UnsupportedOperation", "there is no L5 naming service"), "internal naming service";
        layers "Layers": Option<Vec<LayerVersionSimple>> => Honoured, "replaces all layers";
        dead_letter_config "DeadLetterConfig": Option<DeadLetterConfig> => Honoured, "where events that failed for good are told; `ResourceNotFound.Cmq` when it is not there. It holds for all versions, at once";
        public_net_config "PublicNetConfig": Option<PublicNetConfigIn> => Honoured, "access to the outside";
        cfs_config "CfsConfig": Option<CfsConfig> => refused("UnsupportedOperation", NO_CFS), "network file systems";
        init_timeout "InitTimeout": Option<i64> => Honoured, "seconds, 1–300";
        protocol_params "ProtocolParams": Option<ProtocolParams> => ByFields, "parameters of ProtocolType; `InvalidParameterValue.WebSocketsParams` for a function without it";
        instance_concurrency_config "InstanceConcurrencyConfig": Option<InstanceConcurrencyConfig> => ByFields, "several requests in one instance (HTTP functions)";
        dns_cache "DnsCache": Option<String> => Shown(DNS), "cache DNS answers";
        intranet_config "IntranetConfig": Option<IntranetConfigIn> => ByFields, "fixed intranet address";
        kind "Type": Option<String> => Honoured, "cannot be changed: any other than the present one is refused with `InvalidParameterValue.Type`";
        ignore_sys_log "IgnoreSysLog": Option<bool> => Refused { code: "UnsupportedOperation", when: "true", test: given, why: "the platform's log lines are always kept" }, "drop the platform's log lines";
        fork_mode "ForkMode": Option<String> => Own, "as in CreateFunction";
        disk_size "DiskSize": Option<i64> => Ignored(DISK), "size of `/tmp`";
    }

    /// Shows a function in the state of one version.
    struct GetFunction {
        function_name "FunctionName": String => Honoured, "required here, though SCF's model leaves it optional";
        qualifier "Qualifier": Option<String> => Honoured, "version or alias; default `$LATEST`";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        show_code "ShowCode": Option<String> => Honoured, "`TRUE`: the text of the handler's file, up to 1 MB, in CodeInfo";
        show_triggers "ShowTriggers": Option<String> => Honoured, "`FALSE`: `Triggers` is empty. Otherwise it holds those of `Qualifier`, or all of the function when no Qualifier is given";
    }

    /// Lists the functions of a namespace.
    struct ListFunctions {
        order "Order": Option<String> => Honoured, "`ASC` or `DESC` (default)";
        order_by "Orderby": Option<String> => Honoured, "`AddTime`, `ModTime` (default) or `FunctionName`";
        offset "Offset": Option<i64> => Honoured, "default 0";
        limit "Limit": Option<i64> => Honoured, "0–100, default 20";
        search_key "SearchKey": Option<String> => Honoured, "part of the name, in any case";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        description "Description": Option<String> => Honoured, "part of the description, in any case";
        filters "Filters": Option<Vec<Filter>> => Honoured, "all must hold: `Status`, `Type`, `Runtime`, `FunctionName`, `Description`, `tag-<key>`";
        kind "Type": Option<String> => Honoured, "only functions of this type: `Event` or `HTTP`";
        stamp "Stamp": Option<String> => Ignored("marks the product that created the function"), "internal mark";
    }

    /// Deletes a function with its versions and aliases, or one version. The name is free at once.
    struct DeleteFunction {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        qualifier "Qualifier": Option<String> => Honoured, "one published version; absent: the function";
    }

    /// Copies a function's code and settings to another name or namespace. Versions, aliases, triggers and reservations are not copied.
    struct CopyFunction {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        new_function_name "NewFunctionName": String => Honoured, "name of the copy";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
        target_namespace "TargetNamespace": Option<String> => Honoured, NAMESPACE;
        description "Description": Option<String> => Honoured, "default: that of the source";
        target_region "TargetRegion": Option<String> => Honoured, "only the region that the request names (`UnsupportedOperation.Region` otherwise)";
        override_target "Override": Option<bool> => Honoured, "replace code and settings of a function of that name; default false";
        copy_configuration "CopyConfiguration": Option<bool> => Honoured, "copy the settings too; default true. False: the defaults of a new function";
    }

    /// Tells how the latest install of a function's dependencies goes: what the installer prints, and how it ended. Mayfly's own action. Answers with `Status`
    /// (as GetFunction), `Lines`, `NextOffset` (for the next call), `Cached`, `DurationMs`. What was printed is kept in memory: it is gone after a restart.
    struct GetInstallLog {
        function_name "FunctionName": String => Own, FUNCTION_NAME;
        namespace "Namespace": Option<String> => Own, NAMESPACE;
        offset "Offset": Option<i64> => Own, "number of the first line wanted; default 0";
    }

    /// Gives a download URL of the package, good for ten minutes. With installed dependencies it is the package that has them; `SourceSha256` (Mayfly's
    /// own) is that of the package as it was uploaded.
    struct GetFunctionAddress {
        function_name "FunctionName": String => Honoured, FUNCTION_NAME;
        qualifier "Qualifier": Option<String> => Honoured, "version or alias; default `$LATEST`";
        namespace "Namespace": Option<String> => Honoured, NAMESPACE;
    }
}
