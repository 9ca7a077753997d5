//! `mayfly cert`: certificates for domains.

use super::{Context, confirm, pages, quoted, raw_items};
use crate::api::{Certificate, DeleteCertificate, ListCertificates, PutCertificate};
use crate::error::CliError;
use clap::{Args, Subcommand};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is sent, in bytes: what the platform takes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Certificates for domains.
#[derive(Debug, Args)]
pub struct CertArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CertCommand,
}

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Store a certificate and its key, or replace them after a renewal
    ///
    /// Domains that use it show the new one from their next connection on. The platform never shows the key again.
    Add {
        /// What domains call it
        id: String,
        /// The chain in PEM, the server's own certificate first
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// Its private key in PEM, not encrypted
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Send the key to another machine over a connection that is not encrypted
        #[arg(long)]
        in_the_clear: bool,
    },
    /// List certificates
    Ls,
    /// Delete a certificate that no domain uses
    Rm {
        /// The certificate
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

fn read(path: &Path) -> Result<String, CliError> {
    let error = |why: String| CliError::local(format!("cannot read {}: {why}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| error(e.to_string()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| {
        error(e.to_string()).hint("certificates and keys are PEM text; convert DER with `openssl x509 -inform der`")
    })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(error("it is larger than 64 KiB".into()));
    }
    Ok(text)
}

/// True when requests to this URL do not leave the machine.
fn stays_here(url: &str) -> bool {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn warn(context: &Context, certificate: &Certificate) {
    let id = &certificate.certificate_id;
    match certificate.status.as_str() {
        "EXPIRED" => {
            context.out.warning(format_args!("{id} has expired on {}; clients refuse it", certificate.cert_end_time))
        }
        "EXPIRES_SOON" => context.out.warning(format_args!("{id} expires on {}", certificate.cert_end_time)),
        "NOT_YET_VALID" => {
            context.out.warning(format_args!("{id} is not valid before {}", certificate.cert_begin_time));
        }
        "UNREADABLE" => context.out.warning(format_args!("{id} cannot be used any more; add it anew")),
        _ => {}
    }
}

/// Runs the command.
pub fn run(args: &CertArgs, context: &Context) -> Result<(), CliError> {
    let out = context.out;
    match &args.command {
        CertCommand::Add { id, cert, key, in_the_clear } => {
            let url = context.client.url();
            if !in_the_clear && !stays_here(&url) {
                return Err(CliError::local(format!("the private key would cross the network to {url} in the clear"))
                    .hint("use a tunnel (ssh -L 8700:127.0.0.1:8700 HOST), or add --in-the-clear"));
            }
            let answer = context.client.call(&PutCertificate {
                certificate_id: id.clone(),
                certificate_public_key: read(cert)?,
                certificate_private_key: read(key)?,
            })?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            let stored = answer.body;
            out.note(format_args!(
                "stored {id}: good for {}, until {}",
                stored.subject_alt_name.join(", "),
                stored.cert_end_time
            ));
            warn(context, &stored);
        }
        CertCommand::Ls => {
            let mut raw = Vec::new();
            let all = pages(|offset, limit| {
                let answer = context.client.call(&ListCertificates { offset, limit })?;
                raw.extend(raw_items(&answer, "Certificates")?);
                Ok((answer.body.certificates, answer.body.total_count))
            })?;
            if out.is_json() {
                out.json(&json!({"Certificates": raw, "TotalCount": raw.len()}).to_string());
                return Ok(());
            }
            for certificate in &all {
                warn(context, certificate);
            }
            let row = |c: Certificate| {
                vec![c.certificate_id, c.subject_alt_name.join(", "), c.cert_end_time, c.domains.join(", ")]
            };
            out.table(&["CERTIFICATE", "NAMES", "UNTIL", "DOMAINS"], all.into_iter().map(row).collect());
        }
        CertCommand::Rm { id, yes } => {
            if !yes && !confirm(&format!("Delete the certificate {} and its key?", quoted(id)), out)? {
                return Err(CliError::local("nothing was deleted"));
            }
            let answer = context.client.call(&DeleteCertificate { certificate_id: id.clone() })?;
            if out.is_json() {
                out.json(&answer.raw);
            }
            out.note(format_args!("deleted the certificate {id}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_leave_the_machine_unasked() {
        for here in ["http://127.0.0.1:8700/", "http://localhost/", "http://[::1]:8700/", "http://x.localhost:1/"] {
            assert!(stays_here(here), "{here}");
        }
        for away in ["http://192.0.2.1:8700/", "http://example.com/", "http://127.0.0.1.example.com/"] {
            assert!(!stays_here(away), "{away}");
        }
    }
}
