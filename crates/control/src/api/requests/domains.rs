//! Requests about custom domains and their certificates.

use super::*;

const DOMAIN: &str =
    "a host in lower or upper case, in Unicode or `xn--…`; not `*.…` (as in SCF), no address, not the platform's own";
const PROTOCOL: &str = "`HTTP`, `HTTPS` or `HTTP&HTTPS`";
const ENDPOINTS: &str =
    "1–100 paths and who answers them; of those that match, one without `*` comes before one with, then the longest";
const CERTIFICATE: &str = "id of a certificate of PutCertificate that is good for the domain; required with `HTTPS` and `HTTP&HTTPS`, refused with `HTTP`";
const CERTIFICATE_ID: &str = "1–64 letters, digits, `-`, `_` and `.`, a letter or digit first";
const NO_WAF: &str = "there is no web application firewall; put one in front of the platform";

wire! {
    /// Binds a host of your own to functions. The terms of the functions' URLs hold (CreateTrigger): an event function without an open
    /// trigger wants signatures here too. (SCF: checks a CNAME, and that the domain is registered.) Functions may be deleted while a
    /// domain leads to them: it answers 404 until one of the name is there again.
    struct CreateCustomDomain {
        domain "Domain": String => Honoured, DOMAIN;
        protocol "Protocol": String => Honoured, PROTOCOL;
        endpoints_config "EndpointsConfig": Vec<EndpointsConf> => Honoured, ENDPOINTS;
        cert_config "CertConfig": Option<CertConf> => Honoured, CERTIFICATE;
        waf_config "WafConfig": Option<WafConf> => ByFields, "firewall";
        tags "Tags": Option<Vec<Tag>> => Honoured, "at most 50";
    }

    /// Changes a custom domain; absent fields stay as they are.
    struct UpdateCustomDomain {
        domain "Domain": String => Honoured, "name of the domain";
        protocol "Protocol": Option<String> => Honoured, "`HTTP`, `HTTPS` or `HTTP&HTTPS`; with `HTTP` the domain has no certificate any more";
        cert_config "CertConfig": Option<CertConf> => Honoured, CERTIFICATE;
        waf_config "WafConfig": Option<WafConf> => ByFields, "firewall";
        endpoints_config "EndpointsConfig": Option<Vec<EndpointsConf>> => Honoured, "replaces all of them";
    }

    /// Deletes a custom domain.
    struct DeleteCustomDomain {
        domain "Domain": String => Honoured, "name of the domain";
    }

    /// Shows a custom domain. `FailedOperation.Domain.UnExist` when there is none of the name.
    struct GetCustomDomain {
        domain "Domain": String => Honoured, "name of the domain";
    }

    /// Lists the custom domains.
    struct ListCustomDomains {
        offset "Offset": Option<i64> => Honoured, "default 0";
        limit "Limit": Option<i64> => Honoured, "0–100, default 20";
        order_by "OrderBy": Option<String> => Honoured, "`AddTime` (default) or `ModTime`";
        order "Order": Option<String> => Honoured, "`ASC` or `DESC` (default)";
        filters "Filters": Option<Vec<Filter>> => Honoured, "all must hold: `Domain` (a part of it), `Protocol`, `Namespace` and `FunctionName` (of any endpoint)";
    }

    /// Mayfly's own; SCF takes certificates from the SSL service. Stores a certificate and its key, or replaces them (a renewal): domains that
    /// name it show the new one from the next connection on. No action shows the key again. An expired certificate is taken, and said to be expired.
    struct PutCertificate {
        certificate_id "CertificateId": String => Own, CERTIFICATE_ID;
        certificate_public_key "CertificatePublicKey": String => Own, "the chain in PEM, the server's own certificate first; at most 64 KiB";
        certificate_private_key "CertificatePrivateKey": String => Own, "its key in PEM, not encrypted";
    }

    /// Mayfly's own: lists the certificates by id, without their keys.
    struct ListCertificates {
        offset "Offset": Option<i64> => Own, "default 0";
        limit "Limit": Option<i64> => Own, "0–100, default 20";
    }

    /// Mayfly's own: deletes a certificate that no domain names. `ResourceInUse` when one does.
    struct DeleteCertificate {
        certificate_id "CertificateId": String => Own, "its id";
    }

    /// Who answers some paths of a domain.
    struct EndpointsConf {
        namespace "Namespace": Option<String> => Honoured, "default `default` (SCF: required)";
        function_name "FunctionName": String => Honoured, "a function that is there";
        qualifier "Qualifier": Option<String> => Honoured, "a version or alias that is there; default `$DEFAULT` (SCF: required)";
        path_match "PathMatch": String => Honoured, "`/`, `/*`, `/x`, `/x/a` or `/x/*`; not twice in a domain. `/x/*` is every path that begins with `/x/`";
        path_rewrite "PathRewrite": Option<Vec<PathRewriteRule>> => Honoured, "the first rule that matches holds; at most 20";
    }

    /// How a path is written anew before the function sees it. The query stays.
    struct PathRewriteRule {
        path "Path": String => Honoured, "as `PathMatch`";
        kind "Type": String => Honoured, "`WildcardRules` (`Path` ends with `/*`) or `ExactRules` (it does not)";
        rewrite "Rewrite": String => Honoured, "the new path; one `$` or `$1` in it stands for what `*` stood for";
    }

    /// The certificate of a domain.
    struct CertConf {
        certificate_id "CertificateId": Option<String> => Honoured, "id of a certificate";
    }

    /// A firewall.
    struct WafConf {
        waf_open "WafOpen": Option<String> => Refused { code: "UnsupportedOperation", when: "OPEN", test: super::super::schema::is_on, why: NO_WAF }, "`OPEN` or `CLOSE`";
        waf_instance_id "WafInstanceId": Option<String> => Ignored("there is none"), "firewall";
    }
}
