//! A request that owns its parts, so that tests can bend them.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::collections::HashMap;

use bytes::Bytes;
use mayfly_sign::{
    Credential, RequestView, SignError, Style, Tc3Request, V1Method, V1Request, Verified, Verifier, sign_tc3,
};

/// The time of the recorded requests, in seconds.
pub const T: u64 = 1_795_228_103;

#[derive(Clone)]
pub struct Wire {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
}

impl Wire {
    pub fn new(method: &str, query: &str, headers: &[(&str, &str)], body: &str) -> Self {
        Self {
            method: method.into(),
            path: "/".into(),
            query: query.into(),
            headers: headers.iter().map(|(k, v)| (k.to_ascii_lowercase(), v.as_bytes().to_vec())).collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(k, _)| k != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(k, _)| k != name);
        self
    }

    pub fn verify_with(
        &self,
        verifier: &Verifier,
        credentials: &HashMap<String, Credential>,
        now_ms: u64,
    ) -> Result<Verified, SignError> {
        let header = |name: &str| self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_slice());
        let view = RequestView {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            header: &header,
            body: &self.body,
        };
        verifier.verify(&view, credentials, now_ms)
    }

    /// As a request of CMQ's SDKs.
    pub fn verify_cmq(&self, now_ms: u64) -> Result<Verified, SignError> {
        let header = |name: &str| self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_slice());
        let view = RequestView {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            header: &header,
            body: &self.body,
        };
        Verifier::new(&["tdmq"]).verify_cmq(&view, &credentials(), now_ms)
    }

    /// Verifies at the time of the recordings with a fresh verifier for `scf`.
    pub fn verify(&self) -> Result<Verified, SignError> {
        self.verify_with(&Verifier::new(&["scf"]), &credentials(), T * 1000)
    }
}

/// A signed POST of `body` by `AKIDtest` at the time of the recordings; the rest can be changed before it is signed.
pub fn tc3_wire(body: &str, change: impl FnOnce(&mut Tc3Request<'_>)) -> Wire {
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let mut request = Tc3Request {
        secret_id: "AKIDtest",
        secret_key: "testsecretkey",
        token: None,
        host: "127.0.0.1:8700",
        service: "scf",
        action: "GetFunction",
        version: "2018-04-16",
        region: Some("ap-guangzhou"),
        timestamp_s: T,
        query: None,
        content_type: "application/json",
        body: &bytes,
    };
    change(&mut request);
    let headers = sign_tc3(&request).unwrap();
    let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
    Wire::new("POST", "", &headers, body)
}

/// A form to be signed by `AKIDtest` at the time of the recordings.
pub fn v1_request(style: Style, nonce: u64, fields: &[(String, String)]) -> V1Request<'_> {
    V1Request {
        method: V1Method::Post,
        secret_id: "AKIDtest",
        secret_key: "testsecretkey",
        token: None,
        host: "127.0.0.1:8700",
        path: "/",
        action: "GetFunction",
        version: "2018-04-16",
        region: None,
        timestamp_s: T,
        nonce,
        style,
        fields,
    }
}

pub fn v1_wire(form: &str) -> Wire {
    let headers = [("host", "127.0.0.1:8700"), ("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    Wire::new("POST", "", &headers, form)
}

pub fn credentials() -> HashMap<String, Credential> {
    HashMap::from([
        ("AKIDtest".into(), Credential::permanent("testsecretkey")),
        ("AKIDtemp".into(), Credential::temporary("tempsecret", "tok/en+1", (T + 60) * 1000)),
    ])
}
