//! `mayfly layers`: content that functions share.

use super::{Context, confirm, pages, quoted, raw_items};
use crate::api::{
    Code, DeleteLayerVersion, GetLayerVersion, LayerVersion, ListLayerVersions, ListLayers, PublishLayerVersion,
};
use crate::error::CliError;
use crate::guess::family_of;
use crate::manifest;
use crate::output::{Output, bytes, files};
use crate::package::pack;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use mayfly_model::LayerName;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Layers: content shared by functions. It appears at /opt, which is on the search path of Python and Node.js modules.
#[derive(Debug, Args)]
pub struct LayersArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LayersCommand,
}

/// What can be done with layers.
#[derive(Debug, Subcommand)]
pub enum LayersCommand {
    /// List layers, or the versions of one
    Ls {
        /// Only this layer, all its versions
        name: Option<String>,
    },
    /// Publish a folder as a version of a layer, unless its newest version is the same
    Publish {
        /// The folder; what is in it appears in /opt
        dir: PathBuf,
        /// Name of the layer [default: the folder's name]
        #[arg(long)]
        name: Option<String>,
        /// Runtime that it is made for, shown in lists; may be repeated [default: Python3, Nodejs and CustomRuntime]
        #[arg(long = "runtime", value_name = "RUNTIME")]
        runtimes: Vec<String>,
        /// What it is
        #[arg(long, short = 'm', value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a version of a layer; functions that use it keep working
    Rm {
        /// The version
        #[arg(value_name = "NAME:VERSION")]
        layer: String,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
}

/// Runs the command.
pub fn run(
    args: &LayersArgs,
    out: Output,
    context: impl FnOnce() -> Result<Context, CliError>,
) -> Result<(), CliError> {
    match &args.command {
        LayersCommand::Ls { name: Some(name) } => {
            let answer = context()?.client.call(&ListLayerVersions { layer_name: name.clone() })?;
            match out.is_json() {
                true => out.json(&answer.raw),
                false => show(out, answer.body.layer_versions),
            }
        }
        LayersCommand::Ls { name: None } => {
            let context = context()?;
            let mut raw = Vec::new();
            let all = pages(|offset, limit| {
                let answer = context.client.call(&ListLayers { offset, limit })?;
                raw.extend(raw_items(&answer, "Layers")?);
                Ok((answer.body.layers, answer.body.total_count))
            })?;
            if out.is_json() {
                out.json(&json!({"Layers": raw, "TotalCount": raw.len()}).to_string());
            } else if all.is_empty() {
                out.note("no layers; `mayfly layers publish DIR` makes one");
            } else {
                show(out, all);
            }
        }
        LayersCommand::Publish { dir, name, runtimes, description } => {
            publish(dir, name.as_deref(), runtimes, description.clone(), out, context)?;
        }
        LayersCommand::Rm { layer, yes } => {
            let version = manifest::layer(layer)?;
            if !yes && !confirm(&format!("delete the layer version {layer}?"), out)? {
                return Err(CliError::local("nothing was deleted"));
            }
            let answer = context()?
                .client
                .call(&DeleteLayerVersion { layer_name: version.layer_name, layer_version: version.layer_version })?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(format_args!("deleted the layer version {layer}"));
        }
    }
    Ok(())
}

fn show(out: Output, layers: Vec<LayerVersion>) {
    let rows = layers.into_iter().map(|l| {
        vec![
            format!("{}:{}", l.layer_name, l.layer_version),
            l.status,
            l.compatible_runtimes.join(", "),
            l.add_time,
            l.description,
        ]
    });
    out.table(&["LAYER", "STATUS", "RUNTIMES", "CREATED", "DESCRIPTION"], rows.collect());
}

fn publish(
    dir: &Path,
    name: Option<&str>,
    runtimes: &[String],
    description: Option<String>,
    out: Output,
    context: impl FnOnce() -> Result<Context, CliError>,
) -> Result<(), CliError> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => {
            let full = std::fs::canonicalize(dir);
            let full = full.map_err(|e| CliError::local(format!("cannot open {}: {e}", dir.display())))?;
            let name = full.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            out.note(format_args!("name: {name} (the folder's)"));
            name
        }
    };
    LayerName::parse(&name).map_err(|e| {
        CliError::local(format!("`{name}` cannot be a layer's name: {e}")).hint("give another with --name")
    })?;
    for runtime in runtimes {
        family_of(runtime)?;
    }
    let compatible_runtimes: Vec<String> = match runtimes.is_empty() {
        true => ["Python3", "Nodejs", "CustomRuntime"].map(Into::into).to_vec(),
        false => runtimes.to_vec(),
    };
    let package = pack(dir, &[])?;
    let context = context()?;
    let newest = context
        .client
        .find(&ListLayerVersions { layer_name: name.clone() }, "ResourceNotFound")?
        .and_then(|a| a.body.layer_versions.into_iter().max_by_key(|v| v.layer_version));
    if let Some(newest) = newest {
        let get = GetLayerVersion { layer_name: name.clone(), layer_version: newest.layer_version };
        let same_text = description.as_ref().is_none_or(|d| *d == newest.description);
        let same_runtimes = runtimes.is_empty() || runtimes == newest.compatible_runtimes;
        if same_text && same_runtimes && context.client.call(&get)?.body.code_sha256 == package.sha256 {
            return published(out, &name, newest.layer_version, "the same already");
        }
    }
    let answer = context.client.call(&PublishLayerVersion {
        layer_name: name.clone(),
        compatible_runtimes,
        content: Code { zip_file: BASE64_STANDARD.encode(&package.zip) },
        description,
    })?;
    let how = format!("{}, {}", files(package.paths.len()), bytes(package.zip.len() as u64));
    published(out, &name, answer.body.layer_version, &how)
}

fn published(out: Output, name: &str, version: u64, how: &str) -> Result<(), CliError> {
    if out.is_json() {
        out.json(&json!({"LayerName": name, "LayerVersion": version}).to_string());
        return Ok(());
    }
    out.line(format_args!("{name}:{version}"));
    out.note(format_args!("{how}; use it with: mayfly deploy DIR --layer {}", quoted(&format!("{name}:{version}"))));
    Ok(())
}
