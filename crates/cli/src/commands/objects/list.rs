//! Lists, and removing what is listed.

use super::{Objects, Place, file_name};
use crate::error::CliError;
use crate::output::bytes;
use crate::store_client::{Ask, Element, escaped};
use clap::Args;
use serde_json::json;
use std::path::Path;

/// Keys removed by one request: the store's most.
const REMOVE_MAX: usize = 1000;

/// What to list.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// BUCKET, or BUCKET/ and what keys begin with
    pub place: String,
    /// Also what is below folders
    #[arg(long, short = 'r')]
    pub recursive: bool,
    /// Every version and delete marker
    #[arg(long)]
    pub versions: bool,
}

/// What to remove.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// BUCKET/KEY; with -r everything that begins so
    #[arg(required = true)]
    pub places: Vec<String>,
    /// Everything that begins with each name
    #[arg(long, short = 'r')]
    pub recursive: bool,
    /// This version, for good
    #[arg(long, value_name = "ID", conflicts_with_all = ["recursive", "versions"])]
    pub version: Option<String>,
    /// With -r: all versions and delete markers, for good
    #[arg(long, requires = "recursive")]
    pub versions: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// One line of a list.
struct Row {
    key: String,
    size: u64,
    modified: String,
    etag: String,
    version: String,
    marker: bool,
    latest: bool,
}

fn row(element: &Element) -> Row {
    Row {
        key: element.text("Key"),
        size: element.text("Size").parse().unwrap_or(0),
        modified: element.text("LastModified"),
        etag: element.text("ETag").trim_matches('"').to_owned(),
        version: element.text("VersionId"),
        marker: false,
        latest: element.text("IsLatest") == "true",
    }
}

impl Objects {
    pub(super) fn list_buckets(&self) -> Result<(), CliError> {
        let found = self.client.document(&Ask::new("GET", "", ""))?;
        let buckets: Vec<&Element> = found.child("Buckets").map(|b| b.all("Bucket").collect()).unwrap_or_default();
        if self.out.is_json() {
            let all: Vec<_> = buckets
                .iter()
                .map(|b| json!({ "Name": b.text("Name"), "CreationDate": b.text("CreationDate") }))
                .collect();
            self.out.json(&json!(all).to_string());
        } else if buckets.is_empty() {
            self.out.note("no buckets; `mayfly objects buckets mb NAME` makes one");
        } else {
            let rows = buckets.iter().map(|b| vec![b.text("Name"), b.text("CreationDate")]).collect();
            self.out.table(&["BUCKET", "CREATED"], rows);
        }
        Ok(())
    }

    /// Calls `page` for each page of a list: its rows and its common prefixes.
    fn pages(
        &self,
        place: &Place,
        (delimiter, versions): (&str, bool),
        mut page: impl FnMut(Vec<Row>, Vec<String>) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let (mut marker, mut version) = (String::new(), String::new());
        loop {
            let mut query = vec![("prefix", place.key.as_str()), ("delimiter", delimiter)];
            if versions {
                query.extend([("versions", ""), ("key-marker", &marker)]);
                if !version.is_empty() {
                    query.push(("version-id-marker", &version));
                }
            } else {
                query.push(("marker", &marker));
            }
            let found = self.client.document(&Ask::new("GET", &place.bucket, "").query(&query))?;
            let mut rows: Vec<Row> = found.all(if versions { "Version" } else { "Contents" }).map(row).collect();
            rows.extend(found.all("DeleteMarker").map(|m| Row { marker: true, ..row(m) }));
            rows.sort_by(|a, b| a.key.cmp(&b.key).then_with(|| b.modified.cmp(&a.modified)));
            let prefixes = found.all("CommonPrefixes").map(|p| p.text("Prefix")).collect();
            let last = rows.last().map(|r| r.key.clone());
            page(rows, prefixes)?;
            if found.text("IsTruncated") != "true" {
                return Ok(());
            }
            let before = (marker, version);
            (marker, version) = if versions {
                (found.text("NextKeyMarker"), found.text("NextVersionIdMarker"))
            } else {
                (Some(found.text("NextMarker")).filter(|m| !m.is_empty()).or(last).unwrap_or_default(), String::new())
            };
            if (&marker, &version) == (&before.0, &before.1) {
                return Err(CliError::local("the list does not go on").hint("the platform's own log says why"));
            }
        }
    }

    pub(super) fn ls(&self, args: &LsArgs) -> Result<(), CliError> {
        let place = Place::parse(&args.place)?;
        let delimiter = if args.recursive || args.versions { "" } else { "/" };
        let (mut objects, mut folders, mut total) = (Vec::new(), Vec::new(), 0);
        self.pages(&place, (delimiter, args.versions), |rows, prefixes| {
            total += rows.iter().map(|r| r.size).sum::<u64>();
            objects.extend(rows);
            folders.extend(prefixes);
            Ok(())
        })?;
        if self.out.is_json() {
            let all: Vec<_> = objects
                .iter()
                .map(|r| {
                    let mut one = json!({ "Key": r.key, "Size": r.size, "LastModified": r.modified, "ETag": r.etag });
                    if args.versions {
                        one["VersionId"] = json!(r.version);
                        one["IsLatest"] = json!(r.latest);
                        one["DeleteMarker"] = json!(r.marker);
                    }
                    one
                })
                .collect();
            self.out.json(&json!({ "Objects": all, "Prefixes": folders }).to_string());
            return Ok(());
        }
        if objects.is_empty() && folders.is_empty() {
            self.out.note(format!("nothing begins with {}", place.shown()));
            return Ok(());
        }
        let mut rows: Vec<Vec<String>> = folders.into_iter().map(|f| vec!["–".into(), String::new(), f]).collect();
        for r in &objects {
            let size = if r.marker { "deleted".to_owned() } else { bytes(r.size) };
            let mut cells = vec![size, r.modified.clone()];
            if args.versions {
                cells.push(format!("{}{}", r.version, if r.latest { " *" } else { "" }));
            }
            cells.push(r.key.clone());
            rows.push(cells);
        }
        match args.versions {
            true => self.out.table(&["SIZE", "MODIFIED", "VERSION", "KEY"], rows),
            false => self.out.table(&["SIZE", "MODIFIED", "KEY"], rows),
        }
        self.out.note(format!("{}, {}", count(objects.len()), bytes(total)));
        Ok(())
    }

    pub(super) fn cp(&self, from: &str, to: &str, version: Option<&str>) -> Result<(), CliError> {
        let from = Place::object(from)?;
        let to = Place::target(to, file_name(Path::new(&from.key)))?;
        // The store takes the bucket from what comes before `.cos.`.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
        let key: String =
            from.key.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
        let version = version.map(|v| format!("?versionId={v}")).unwrap_or_default();
        let source = format!("{}.cos.local.myqcloud.com/{key}{version}", from.bucket);
        let headers = [("x-cos-copy-source", source.as_str())];
        self.client.document(&Ask::new("PUT", &to.bucket, &to.key).headers(&headers))?;
        self.done("copied", &to.shown());
        Ok(())
    }

    pub(super) fn rm(&self, args: &RmArgs) -> Result<(), CliError> {
        let places: Vec<Place> = args
            .places
            .iter()
            .map(|text| if args.recursive { Place::parse(text) } else { Place::object(text) })
            .collect::<Result<_, _>>()?;
        if args.recursive && !args.yes {
            let what = args.places.join(" and ");
            if !super::super::confirm(&format!("Remove everything that begins with {what}?"), self.out)? {
                return Err(CliError::local("nothing was removed"));
            }
        }
        let mut removed = 0;
        for place in &places {
            if args.recursive {
                loop {
                    // From the beginning each time: what was listed is gone by then.
                    let mut some: Vec<(String, String)> = Vec::new();
                    self.first(place, args.versions, &mut some)?;
                    if some.is_empty() {
                        break;
                    }
                    removed += self.remove(&place.bucket, &some, args.versions)?;
                }
            } else {
                let query: Vec<(&str, &str)> = args.version.iter().map(|v| ("versionId", v.as_str())).collect();
                let ask = Ask::new("DELETE", &place.bucket, &place.key).query(&query);
                self.client.send(&ask, &mut std::io::empty(), 0)?;
                removed += 1;
            }
        }
        match self.out.is_json() {
            true => self.out.json(&json!({ "Removed": removed }).to_string()),
            false => self.out.note(format!("removed {}", count(removed))),
        }
        Ok(())
    }

    /// The first page of what begins so: keys and versions.
    fn first(&self, place: &Place, versions: bool, into: &mut Vec<(String, String)>) -> Result<(), CliError> {
        let query = [("prefix", place.key.as_str()), ("versions", "")];
        let query = if versions { &query[..] } else { &query[..1] };
        let found = self.client.document(&Ask::new("GET", &place.bucket, "").query(query))?;
        for name in ["Contents", "Version", "DeleteMarker"] {
            into.extend(found.all(name).map(|e| (e.text("Key"), e.text("VersionId"))));
        }
        into.truncate(REMOVE_MAX);
        Ok(())
    }

    fn remove(&self, bucket: &str, what: &[(String, String)], versions: bool) -> Result<usize, CliError> {
        let mut body = String::from("<Delete><Quiet>true</Quiet>");
        for (key, version) in what {
            body += &format!("<Object><Key>{}</Key>", escaped(key));
            if versions {
                body += &format!("<VersionId>{}</VersionId>", escaped(version));
            }
            body += "</Object>";
        }
        body += "</Delete>";
        let sum = {
            use base64::Engine as _;
            use sha2::Digest as _;
            base64::prelude::BASE64_STANDARD.encode(sha2::Sha256::digest(&body))
        };
        let headers = [("x-cos-checksum-sha256", sum.as_str()), ("x-cos-sdk-checksum-algorithm", "SHA256")];
        let ask = Ask::new("POST", bucket, "").query(&[("delete", "")]).headers(&headers);
        let answer = self.client.document_for(&ask, body.as_bytes())?;
        match answer.child("Error") {
            None => Ok(what.len()),
            Some(error) => {
                let (code, message) = (error.text("Code"), error.text("Message"));
                let text = format!("{code}: {}: {message}", error.text("Key"));
                Err(CliError::new(crate::error::Kind::Api(code), text).hint("what was named before it is removed"))
            }
        }
    }
}

fn count(n: usize) -> String {
    if n == 1 { "1 object".to_owned() } else { format!("{n} objects") }
}
