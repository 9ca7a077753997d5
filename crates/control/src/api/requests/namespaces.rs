//! Requests about namespaces.

use super::*;

const NAME: &str = "1–30 characters: letters, digits, `-`, `_`; a letter first, no `-` or `_` last";

wire! {
    /// Creates a namespace.
    struct CreateNamespace {
        namespace "Namespace": String => Honoured, NAME;
        description "Description": Option<String> => Honoured, "at most 1000 characters";
        resource_env "ResourceEnv": Option<NamespaceResourceEnv> => refused("UnsupportedOperation", "functions run on the platform's own nodes"), "own cluster or off-line pool";
        stamp "Stamp": Option<String> => Ignored("marks the product that created the namespace"), "internal mark";
    }

    /// Changes the description of a namespace.
    struct UpdateNamespace {
        namespace "Namespace": String => Honoured, NAME;
        description "Description": String => Honoured, "at most 1000 characters";
    }

    /// Deletes an empty namespace; `default` cannot be deleted.
    struct DeleteNamespace {
        namespace "Namespace": String => Honoured, NAME;
    }

    /// Lists the namespaces.
    struct ListNamespaces {
        limit "Limit": Option<i64> => Honoured, "0–100, default 20";
        offset "Offset": Option<i64> => Honoured, "default 0";
        order_by "Orderby": Option<String> => Honoured, "`Name` or `Updatetime` (default)";
        order "Order": Option<String> => Honoured, "`ASC` or `DESC` (default)";
        search_key "SearchKey": Option<Vec<SearchKey>> => Honoured, "all must hold";
        stamp "Stamp": Option<String> => Ignored("marks the product that created the namespace"), "internal mark";
    }

    /// A search in a list.
    struct SearchKey {
        key "Key": String => Honoured, "`Namespace` or `Description`";
        value "Value": String => Honoured, "a part of it, in any case";
    }
}
