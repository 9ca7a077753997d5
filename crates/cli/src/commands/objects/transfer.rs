//! Bytes into the store and out of it.

use super::{Objects, Place, file_name, is_stream};
use crate::commands::progress::Bar;
use crate::error::{CliError, Kind};
use crate::store_client::{Ask, Told};
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Bodies up to this size are put by one request; longer ones in parts of at least this size, in bytes.
const PART_BYTES: usize = 16 << 20;
/// Most parts that an upload may have.
const PARTS_MAX: u64 = 10_000;
/// How often a part is tried.
const TRIES: usize = 3;

/// What to put.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The file; - is standard input
    pub file: PathBuf,
    /// BUCKET/KEY; one that ends in / gets the file's name
    pub to: String,
    /// Content type [default: by the name's ending]
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// NAME=VALUE to be kept with the object; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub meta: Vec<String>,
    /// Refuse if there is such an object
    #[arg(long)]
    pub no_overwrite: bool,
}

/// What to get.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// BUCKET/KEY
    pub from: String,
    /// The file, a folder, or - for standard output [default: the key's last part, here]
    pub file: Option<PathBuf>,
    /// A version instead of the current one
    #[arg(long, value_name = "ID")]
    pub version: Option<String>,
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> CliError {
    CliError::local(format!("cannot {what} {}: {error}", path.display()))
}

/// Reads until `buffer` is full or there is no more.
fn fill(input: &mut dyn Read, buffer: &mut Vec<u8>, most: usize) -> std::io::Result<()> {
    buffer.clear();
    input.take(most as u64).read_to_end(buffer).map(|_| ())
}

fn type_of(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase();
    match ending.as_str() {
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "csv" => "text/csv",
        "txt" | "md" | "log" => "text/plain",
        "js" | "mjs" => "text/javascript",
        "json" => "application/json",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        "mp4" => "video/mp4",
        "mp3" => "audio/mpeg",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

impl Objects {
    pub(super) fn put(&self, args: &PutArgs) -> Result<(), CliError> {
        let stream = is_stream(&args.file);
        let place = Place::target(&args.to, file_name(&args.file).filter(|_| !stream))?;
        let (mut input, size): (Box<dyn Read>, Option<u64>) = if stream {
            (Box::new(std::io::stdin().lock()), None)
        } else {
            let file = File::open(&args.file).map_err(|e| cannot("read", &args.file, &e))?;
            let about = file.metadata().map_err(|e| cannot("read", &args.file, &e))?;
            if about.is_dir() {
                return Err(CliError::local(format!("{} is a folder", args.file.display()))
                    .hint("pack it: tar c FOLDER | mayfly objects put - BUCKET/KEY"));
            }
            (Box::new(file), about.is_file().then_some(about.len()))
        };
        let mut headers = vec![(
            "content-type".to_owned(),
            args.content_type.clone().unwrap_or_else(|| type_of(&place.key).to_owned()),
        )];
        for pair in &args.meta {
            let (name, value) = pair.split_once('=').filter(|(n, _)| !n.is_empty()).ok_or_else(|| {
                CliError::local(format!("`{pair}` is not NAME=VALUE")).hint("write it as --meta author=ada")
            })?;
            headers.push((format!("x-cos-meta-{}", name.to_ascii_lowercase()), value.to_owned()));
        }
        if args.no_overwrite {
            headers.push(("x-cos-forbid-overwrite".to_owned(), "true".to_owned()));
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let bar = Bar::of("uploading", size, self.out);
        let mut buffer = Vec::new();
        fill(&mut *input, &mut buffer, PART_BYTES + 1).map_err(|e| cannot("read", &args.file, &e))?;
        let put = if buffer.len() <= PART_BYTES {
            let ask = Ask::new("PUT", &place.bucket, &place.key).headers(&headers);
            self.client.send_bytes(&ask, &buffer, &mut |n| bar.at(n)).map(|a| (header(&a, "etag"), buffer.len() as u64))
        } else {
            let rest = Rest { input: &mut *input, path: &args.file, size, first: buffer };
            self.put_in_parts(&place, &headers, rest, &bar)
        };
        drop(bar);
        let (etag, bytes) = put?;
        match self.out.is_json() {
            true => self.out.json(
                &json!({ "Bucket": place.bucket, "Key": place.key, "Size": bytes, "ETag": etag.trim_matches('"') })
                    .to_string(),
            ),
            false => self.out.note(format!("put {} ({})", place.shown(), crate::output::bytes(bytes))),
        }
        Ok(())
    }

    fn put_in_parts(
        &self,
        place: &Place,
        headers: &[(&str, &str)],
        rest: Rest<'_>,
        bar: &Bar,
    ) -> Result<(String, u64), CliError> {
        let begin = Ask::new("POST", &place.bucket, &place.key).query(&[("uploads", "")]);
        let creating: Vec<_> = headers.iter().copied().filter(|(n, _)| *n != "x-cos-forbid-overwrite").collect();
        let upload = self.client.document(&begin.headers(&creating))?.text("UploadId");
        let sent = self.parts(place, &upload, rest, bar).and_then(|(document, bytes)| {
            let query = [("uploadId", upload.as_str())];
            let only: Vec<_> = headers.iter().copied().filter(|(n, _)| *n == "x-cos-forbid-overwrite").collect();
            let ask = Ask::new("POST", &place.bucket, &place.key).query(&query).headers(&only);
            Ok((self.client.document_for(&ask, document.as_bytes())?.text("ETag"), bytes))
        });
        if sent.is_err() {
            // What arrived is of no use. If this fails too, the store clears it away after some days.
            let query = [("uploadId", upload.as_str())];
            let ask = Ask::new("DELETE", &place.bucket, &place.key).query(&query);
            let _ = self.client.send(&ask, &mut std::io::empty(), 0);
        }
        sent
    }

    /// Sends all parts, and returns the document that completes them, and their bytes.
    fn parts(&self, place: &Place, upload: &str, rest: Rest<'_>, bar: &Bar) -> Result<(String, u64), CliError> {
        let Rest { input, path, size, first } = rest;
        let (mut document, mut total) = (String::from("<CompleteMultipartUpload>"), 0);
        let (mut part, mut carried) = (Vec::new(), first);
        for number in 1..=PARTS_MAX {
            // Of a stream nobody knows the length: parts grow, so that their number goes far.
            let wanted = match size {
                Some(size) => usize::try_from(size.div_ceil(PARTS_MAX)).unwrap_or(PART_BYTES).max(PART_BYTES),
                None => PART_BYTES << (number / 2500),
            };
            std::mem::swap(&mut part, &mut carried);
            let read = input.take((wanted + 1).saturating_sub(part.len()) as u64).read_to_end(&mut part);
            read.map_err(|e| cannot("read", path, &e))?;
            carried = if part.len() > wanted { part.split_off(wanted) } else { Vec::new() };
            let etag = self.part(place, (upload, number), &part, &mut |n| bar.at(total + n))?;
            document += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
            total += part.len() as u64;
            part.clear();
            if carried.is_empty() {
                return Ok((document + "</CompleteMultipartUpload>", total));
            }
        }
        Err(CliError::local("this is longer than an object can be").hint("split it"))
    }

    fn part(
        &self,
        place: &Place,
        (upload, number): (&str, u64),
        bytes: &[u8],
        progress: &mut dyn FnMut(u64),
    ) -> Result<String, CliError> {
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", upload)];
        let ask = Ask::new("PUT", &place.bucket, &place.key).query(&query);
        let mut tried = 0;
        loop {
            tried += 1;
            match self.client.send_bytes(&ask, bytes, progress) {
                Ok(answer) => return Ok(header(&answer, "etag")),
                Err(error) if tried < TRIES && (error.kind == Kind::Unreachable || error.is_api("SlowDown")) => {
                    std::thread::sleep(std::time::Duration::from_millis(200 << tried));
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn get(&self, args: &GetArgs) -> Result<(), CliError> {
        let place = Place::object(&args.from)?;
        let query: Vec<(&str, &str)> = args.version.iter().map(|v| ("versionId", v.as_str())).collect();
        let ask = Ask::new("GET", &place.bucket, &place.key).query(&query);
        let file = match &args.file {
            Some(file) if is_stream(file) => None,
            Some(folder) if folder.is_dir() => Some(folder.join(own_name(&place)?)),
            Some(file) => Some(file.clone()),
            None => Some(PathBuf::from(own_name(&place)?)),
        };
        let answer = self.client.send(&ask, &mut std::io::empty(), 0)?;
        let size: Option<u64> = header(&answer, "content-length").parse().ok();
        let bar = Bar::of("downloading", size, self.out);
        let mut body = answer.into_body();
        let mut progress = |n| bar.at(n);
        let mut reader = Told { inner: body.as_reader(), done: 0, progress: &mut progress };
        let Some(file) = file else {
            let mut stdout = std::io::stdout().lock();
            let done = std::io::copy(&mut reader, &mut stdout).and_then(|n| stdout.flush().map(|()| n));
            return match done {
                Ok(n) => whole(n, size),
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                Err(e) => Err(broken(&e)),
            };
        };
        // Beside its place until it is whole: a file of that name is the old one or the new one.
        let mut partial = file.clone().into_os_string();
        partial.push(format!(".{}.part", std::process::id()));
        let partial = PathBuf::from(partial);
        let mut write = || -> Result<u64, CliError> {
            let mut out = File::create(&partial).map_err(|e| cannot("write", &partial, &e))?;
            let n = std::io::copy(&mut reader, &mut out).map_err(|e| broken(&e))?;
            whole(n, size)?;
            std::fs::rename(&partial, &file).map_err(|e| cannot("write", &file, &e))?;
            Ok(n)
        };
        let written = write();
        drop(bar);
        if written.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        let n = written?;
        match self.out.is_json() {
            true => self.out.json(&json!({ "File": file.display().to_string(), "Size": n }).to_string()),
            false => self.out.note(format!("got {} ({})", file.display(), crate::output::bytes(n))),
        }
        Ok(())
    }
}

/// What is to be sent in parts.
struct Rest<'a> {
    input: &'a mut dyn Read,
    path: &'a Path,
    /// If it is known.
    size: Option<u64>,
    /// What has been read already.
    first: Vec<u8>,
}

fn whole(got: u64, size: Option<u64>) -> Result<(), CliError> {
    if size.is_some_and(|size| size != got) {
        return Err(
            CliError::new(Kind::Unreachable, "the object broke off").hint("try again; the platform's log says why")
        );
    }
    Ok(())
}

fn broken(error: &std::io::Error) -> CliError {
    CliError::new(Kind::Unreachable, format!("the transfer broke: {error}")).hint("try again")
}

/// The last part of a key, as the name of a file. It never leads out of the folder.
fn own_name(place: &Place) -> Result<&str, CliError> {
    let name = place.key.rsplit('/').next().unwrap_or("");
    if name.is_empty() || name == "." || name == ".." {
        return Err(
            CliError::local(format!("{} has no name for a file", place.shown())).hint("give the file's name too")
        );
    }
    Ok(name)
}

fn header(answer: &crate::store_client::Answer, name: &str) -> String {
    answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_here() {
        let place = |key: &str| Place { bucket: "b".into(), key: key.into() };
        assert_eq!(own_name(&place("a/b.txt")).unwrap(), "b.txt");
        for bad in ["a/", "..", "a/..", "."] {
            assert!(own_name(&place(bad)).is_err(), "{bad}");
        }
        assert_eq!(
            (type_of("a.JPG"), type_of("x"), type_of("a.b.json")),
            ("image/jpeg", "application/octet-stream", "application/json")
        );
    }
}
