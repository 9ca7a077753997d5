//! Requests about layers.

use super::*;

const LAYER_NAME: &str = "1–64 characters: letters, digits, `-`, `_`; a letter first, no `-` or `_` last";

wire! {
    /// Publishes a version of a layer; the first makes the layer. Numbers count up from 1 and are not given twice.
    struct PublishLayerVersion {
        layer_name "LayerName": String => Honoured, LAYER_NAME;
        compatible_runtimes "CompatibleRuntimes": Vec<String> => Honoured, "1–15 runtime names; shown and filtered by, not enforced";
        content "Content": Code => Honoured, "exactly one source";
        description "Description": Option<String> => Honoured, "at most 1000 characters";
        license_info "LicenseInfo": Option<String> => Honoured, "at most 1000 characters";
        tags "Tags": Option<Vec<Tag>> => Honoured, "at most 50 tags";
        stamp "Stamp": Option<String> => Ignored("marks the product that created the layer"), "internal mark";
    }

    /// Shows a version of a layer, with a download URL of its content that is good for ten minutes.
    struct GetLayerVersion {
        layer_name "LayerName": String => Honoured, LAYER_NAME;
        layer_version "LayerVersion": i64 => Honoured, "its number";
    }

    /// Deletes a version of a layer. Functions bound to it keep working.
    struct DeleteLayerVersion {
        layer_name "LayerName": String => Honoured, LAYER_NAME;
        layer_version "LayerVersion": i64 => Honoured, "its number";
    }

    /// Lists the layers by name, each in its newest version.
    struct ListLayers {
        compatible_runtime "CompatibleRuntime": Option<String> => Honoured, "only layers that name this runtime";
        offset "Offset": Option<i64> => Honoured, "default 0";
        limit "Limit": Option<i64> => Honoured, "0–100, default 20";
        search_key "SearchKey": Option<String> => Honoured, "part of the name, in any case";
        stamp "Stamp": Option<String> => Ignored("marks the product that created the layer"), "internal mark";
    }

    /// Lists the versions of a layer, newest first.
    struct ListLayerVersions {
        layer_name "LayerName": String => Honoured, LAYER_NAME;
        compatible_runtime "CompatibleRuntime": Option<Vec<String>> => Honoured, "only versions that name one of these runtimes";
    }
}
