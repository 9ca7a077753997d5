//! Packages on their way in (checked and stored before anything refers to them) and out (download links).

use crate::api::requests::Code;
use crate::catalogue::{UploadGuard, store_error};
use crate::control::Inner;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use mayfly_model::{ApiError, CodeRef, Digest, RuntimeId, VersionConfig, limits};
use mayfly_store::blobs::digest_of;
use mayfly_store::{PackageError, PackageLimits, package};
use sha2::Sha256;
use std::io::Read;

/// How long a download link works, in milliseconds.
pub const LINK_LIFE_MS: u64 = 10 * 60 * 1000;
/// Path under which the server answers download links; the token follows.
pub const DOWNLOAD_PATH: &str = "/_mayfly/code/";
/// The largest file that GetFunction shows as CodeInfo, in bytes.
const CODE_INFO_BYTES_MAX: u64 = 1024 * 1024;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The zip in a `Code` whose other sources are refused already. Errors: `MissingParameter.Code`.
pub fn zip_of(code: Code) -> Result<String, ApiError> {
    match code.zip_file {
        Some(zip) if !zip.is_empty() => Ok(zip),
        _ => Err(ApiError::new("MissingParameter.Code", "No code was given: put a base64 zip into `ZipFile`.")),
    }
}

/// Decodes, checks and stores a package. The guard keeps it from being collected until a row refers to it.
///
/// Errors: `InvalidParameterValue.ZipFileBase64BinasciiError`; `bad_zip` for anything wrong with the package; see [`store_error`].
pub async fn receive(
    control: &Inner,
    base64: String,
    bad_zip: &'static str,
) -> Result<(CodeRef, UploadGuard), ApiError> {
    if base64.len() / 4 * 3 > limits::PACKAGE_ZIP_BYTES_MAX + 3 * (1 << 20) {
        return Err(too_large(bad_zip));
    }
    let checked = tokio::task::spawn_blocking(move || {
        let zip = decode(base64)?;
        let summary = package::check(&zip, &PackageLimits::default()).map_err(|e| package_error(&e, bad_zip))?;
        let digest = digest_of(&zip);
        Ok::<_, ApiError>((zip, summary, digest))
    });
    let (zip, summary, digest) = match checked.await {
        Ok(result) => result?,
        Err(error) => {
            tracing::error!(%error, "checking a package did not end");
            return Err(ApiError::internal("The package could not be checked."));
        }
    };
    let guard = control.catalogue.protect([digest]);
    let zip_bytes = zip.len() as u64;
    let stored = control.blobs.put(Bytes::from(zip)).await.map_err(store_error)?;
    debug_assert_eq!(stored, digest);
    Ok((CodeRef { digest: stored, zip_bytes, unpacked_bytes: summary.unpacked_bytes }, guard))
}

fn too_large(code: &'static str) -> ApiError {
    let mb = limits::PACKAGE_ZIP_BYTES_MAX >> 20;
    ApiError::new(code, format!("The package is larger than {mb} MB, the limit for packages in a request."))
}

fn decode(mut text: String) -> Result<Vec<u8>, ApiError> {
    // Some encoders break lines.
    if text.bytes().any(|b| b.is_ascii_whitespace()) {
        text.retain(|c| !c.is_ascii_whitespace());
    }
    BASE64.decode(text).map_err(|e| {
        let message = format!("`ZipFile` is not base64: {e}.");
        ApiError::new("InvalidParameterValue.ZipFileBase64BinasciiError", message)
    })
}

fn package_error(error: &PackageError, code: &'static str) -> ApiError {
    match error {
        PackageError::TooLarge { .. } => too_large(code),
        PackageError::Io(_) => {
            tracing::error!(%error, "checking a package failed");
            ApiError::internal("The package could not be checked.")
        }
        error => ApiError::new(code, format!("The package cannot be used: {error}.")),
    }
}

/// The text of the file that a version's handler names, or of an HTTP service's `scf_bootstrap`. `None` when there is none, or when it is not text of at most 1 MB.
pub async fn entry_file(control: &Inner, config: &VersionConfig) -> Result<Option<String>, ApiError> {
    let extensions: &'static [&'static str] = match config.runtime {
        _ if config.service.is_some() => &[""],
        RuntimeId::Python => &[".py"],
        RuntimeId::Node => &[".js", ".mjs", ".cjs"],
        RuntimeId::Php => &[".php"],
        RuntimeId::Go | RuntimeId::Java | RuntimeId::Custom => return Ok(None),
    };
    let file = match (config.service, config.handler.rsplit_once('.')) {
        (Some(_), _) => "scf_bootstrap",
        (None, Some((file, _))) => file,
        (None, None) => return Ok(None),
    };
    let file = file.to_owned();
    let zip = control.blobs.get(&config.code.digest).await.map_err(store_error)?;
    let read = tokio::task::spawn_blocking(move || {
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip)).ok()?;
        let name = extensions.iter().map(|e| format!("{file}{e}")).find(|n| archive.index_for_name(n).is_some())?;
        let mut text = Vec::new();
        archive.by_name(&name).ok()?.take(CODE_INFO_BYTES_MAX + 1).read_to_end(&mut text).ok()?;
        if text.len() as u64 > CODE_INFO_BYTES_MAX {
            return None;
        }
        String::from_utf8(text).ok()
    });
    Ok(read.await.unwrap_or_default())
}

/// Makes and reads download links: digest and deadline, signed with a key that lives as long as the process.
pub struct Links([u8; 32]);

impl Links {
    /// With a fresh key.
    pub fn new() -> Self {
        Self(crate::ids::random_bytes())
    }

    fn mac(&self, digest: &Digest, until_ms: u64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(&digest.0);
        mac.update(&until_ms.to_be_bytes());
        mac
    }

    /// The URL of a package, for ten minutes from now.
    pub fn url(&self, host: &str, digest: &Digest, now_ms: u64) -> String {
        format!("http://{host}{DOWNLOAD_PATH}{}", self.token(digest, now_ms + LINK_LIFE_MS))
    }

    fn token(&self, digest: &Digest, until_ms: u64) -> String {
        let mac = self.mac(digest, until_ms).finalize().into_bytes();
        format!("{digest}{until_ms:016x}{}", hex::encode(mac))
    }

    /// The package that a token names. `None` when the token is forged or too old.
    pub fn read(&self, token: &str, now_ms: u64) -> Option<Digest> {
        if token.len() != 144 || !token.is_ascii() {
            return None;
        }
        let digest = Digest::parse(&token[..64])?;
        let until_ms = u64::from_str_radix(&token[64..80], 16).ok()?;
        let mac = hex::decode(&token[80..]).ok()?;
        self.mac(&digest, until_ms).verify_slice(&mac).ok()?;
        (now_ms <= until_ms).then_some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_work_until_they_are_too_old_or_touched() {
        let links = Links::new();
        let digest = digest_of(b"x");
        let url = links.url("127.0.0.1:8700", &digest, 1000);
        let token = url.strip_prefix("http://127.0.0.1:8700/_mayfly/code/").unwrap().to_owned();
        assert_eq!(links.read(&token, 1000 + LINK_LIFE_MS), Some(digest));
        assert_eq!(links.read(&token, 1001 + LINK_LIFE_MS), None);
        for i in 0..token.len() {
            let mut bad = token.clone().into_bytes();
            bad[i] = if bad[i] == b'0' { b'1' } else { b'0' };
            assert_eq!(links.read(std::str::from_utf8(&bad).unwrap(), 1000), None, "{i}");
        }
        assert_eq!(links.read(&token[1..], 1000), None);
        assert_eq!(links.read(&"é".repeat(72), 1000), None);
        assert_eq!(Links::new().read(&token, 1000), None, "a key of another process");
    }

    #[test]
    fn base64_is_read_with_and_without_padding_and_line_breaks() {
        for text in ["aGk=", "aGk", "aG\nk=\r\n"] {
            assert_eq!(decode(text.into()).unwrap(), b"hi", "{text}");
        }
        let error = decode("a$k=".into()).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue.ZipFileBase64BinasciiError");
    }
}
