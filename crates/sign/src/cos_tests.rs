use super::*;
use crate::Credential;
use std::collections::HashMap;

const NOW_MS: u64 = 1_795_226_100_000;

fn keys() -> HashMap<String, Credential> {
    HashMap::from([
        ("AKIDtest".to_owned(), Credential::permanent("secret")),
        ("AKIDtemp".to_owned(), Credential::temporary("secret", "token", NOW_MS + 1000)),
    ])
}

fn verify(method: &str, path: &str, query: &str, headers: &[(&str, &str)]) -> Result<CosVerified, CosSignError> {
    let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes());
    verify_cos(&CosRequest { method, path, query, header: &header, path_style: true }, &keys(), NOW_MS)
}

/// What cos-python-sdk-v5 1.9.44 made of a PUT of a part at 1795226100 seconds.
const PYTHON: &str = "q-sign-algorithm=sha1&q-ak=AKIDtest&q-sign-time=1795226040;1795236100&q-key-time=1795226040;1795236100\
&q-header-list=content-length;host;x-cos-meta-who&q-url-param-list=partnumber;uploadid&q-signature=dc51ab5446c6ca2e59191198e3e9563790d6da78";

#[test]
fn a_signature_of_the_python_sdk_is_verified() {
    let host = "b-125.cos.ap-guangzhou.myqcloud.com";
    let headers = [("host", host), ("x-cos-meta-who", "me & you"), ("authorization", PYTHON), ("content-length", "0")];
    let verified = verify("PUT", "/a%20b/%C3%BC.txt", "partNumber=1&uploadId=A%2FB", &headers).unwrap();
    assert_eq!(verified.secret_id, "AKIDtest");
    assert!(!verified.presigned && verified.covers("uploadid") && verified.covers_header("x-cos-meta-who"));
    let changed = [headers[0], ("x-cos-meta-who", "you"), headers[2], headers[3]];
    assert_eq!(
        verify("PUT", "/a%20b/%C3%BC.txt", "partNumber=1&uploadId=A%2FB", &changed).unwrap_err(),
        CosSignError::Mismatch
    );
    for (method, path, query) in [
        ("GET", "/a%20b/%C3%BC.txt", "partNumber=1&uploadId=A%2FB"),
        ("PUT", "/a%20b/u.txt", "partNumber=1&uploadId=A%2FB"),
        ("PUT", "/a%20b/%C3%BC.txt", "partNumber=2&uploadId=A%2FB"),
        ("PUT", "/a%20b/%C3%BC.txt", "partNumber=1"),
    ] {
        assert_eq!(
            verify(method, path, query, &headers).unwrap_err(),
            CosSignError::Mismatch,
            "{method} {path} {query}"
        );
    }
}

fn signed(id: &str, span_s: (u64, u64)) -> String {
    let (params, headers) = ([("prefix", "a/b")], [("host", "127.0.0.1")]);
    sign_cos(&CosToSign {
        secret_id: id,
        secret_key: "secret",
        span_s,
        method: "GET",
        path: "/",
        params: &params,
        headers: &headers,
    })
}

#[test]
fn what_is_signed_here_is_verified_here() {
    let now_s = NOW_MS / 1000;
    let good = signed("AKIDtest", (now_s - 10, now_s + 10));
    // The client signed the host without its port, and the path without the bucket.
    let headers = [("host", "127.0.0.1:8701"), ("authorization", good.as_str())];
    verify("GET", "/bucket/", "prefix=a%2Fb", &headers).unwrap();
    let query = format!("prefix=a%2Fb&{}", good.replace(';', "%3B"));
    let presigned = verify("GET", "/bucket/", &query, &[("host", "127.0.0.1:8701")]).unwrap();
    assert!(presigned.presigned && presigned.covers("prefix") && !presigned.covers("uploads"));
    for (authorization, error) in [
        (signed("AKIDtest", (now_s - 20, now_s - 10)), CosSignError::Expired),
        (signed("AKIDtest", (now_s + 1000, now_s + 2000)), CosSignError::Expired),
        (signed("AKIDnobody", (now_s - 10, now_s + 10)), CosSignError::UnknownSecretId),
        (good.replace("q-signature=", "q-signature=0"), CosSignError::Mismatch),
        (good.replace("sha1", "md5"), CosSignError::Malformed("q-sign-algorithm is not sha1")),
        ("q-sign-algorithm=sha1".to_owned(), CosSignError::Malformed("q-ak")),
    ] {
        let headers = [("host", "127.0.0.1:8701"), ("authorization", authorization.as_str())];
        assert_eq!(verify("GET", "/bucket/", "prefix=a%2Fb", &headers).unwrap_err(), error, "{authorization}");
    }
}

#[test]
fn temporary_keys_need_their_token() {
    let now_s = NOW_MS / 1000;
    let authorization = signed("AKIDtemp", (now_s - 10, now_s + 10));
    let with = |token: &[(&'static str, &'static str)]| {
        let mut headers = vec![("host", "127.0.0.1"), ("authorization", authorization.as_str())];
        headers.extend(token);
        verify("GET", "/", "prefix=a%2Fb", &headers).map(|_| ())
    };
    assert_eq!(with(&[("x-cos-security-token", "token")]), Ok(()));
    assert_eq!(with(&[("x-cos-security-token", "other")]), Err(CosSignError::Token));
    assert_eq!(with(&[]), Err(CosSignError::Token));
    let key = Credential::temporary("secret", "token", NOW_MS);
    assert_eq!(check_session_token(&key, Some(b"token"), NOW_MS), Err(CosSignError::Token));
}
