//! `mayfly doctor`: which guarantees hold on this machine, line by line, and how to get the missing ones.

use crate::cgroup::Layout;
use crate::net;
use std::path::Path;
use std::process::Command;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Ok,
    /// The platform works without it, with less.
    Warn,
    /// The platform does not work without it.
    Fail,
}

/// One line.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What follows from it or how to mend it; empty when all is well.
    pub advice: &'static str,
}

fn finding(name: &'static str, verdict: Verdict, found: impl Into<String>, advice: &'static str) -> Finding {
    let advice = if verdict == Verdict::Ok { "" } else { advice };
    Finding { name, verdict, found: found.into(), advice }
}

fn ok_or(ok: bool, otherwise: Verdict) -> Verdict {
    if ok { Verdict::Ok } else { otherwise }
}

/// Looks at everything. Changes nothing.
pub fn examine() -> Vec<Finding> {
    vec![
        root(),
        kernel(),
        cgroups(),
        user_namespaces(),
        seccomp(),
        landlock(),
        tun_and_nft(),
        forwarding(),
        resolvers(),
        kvm(),
    ]
}

fn root() -> Finding {
    // SAFETY: takes no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    let found = if root { "running as root" } else { "not running as root" };
    finding("user", ok_or(root, Verdict::Fail), found, "sandboxes are built by root; run as root or with sudo")
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.trim().split(['.', '-']).map(|p| p.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let verdict = ok_or(version >= (5, 14), Verdict::Fail);
    finding(
        "kernel",
        verdict,
        format!("Linux {}", release.trim()),
        "Linux 5.14 or newer is needed (clone3, mount_setattr)",
    )
}

fn cgroups() -> Finding {
    match Layout::detect() {
        Some(layout) => finding("control groups", Verdict::Ok, format!("version {}", layout.version()), ""),
        None => finding(
            "control groups",
            Verdict::Fail,
            "memory, cpu and pids controllers are not all there",
            "mount cgroup2 on /sys/fs/cgroup (systemd does), or the three version-1 controllers",
        ),
    }
}

fn user_namespaces() -> Finding {
    let max = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let max: u64 = max.trim().parse().unwrap_or(0);
    let advice = "set sysctl user.max_user_namespaces to at least 10000: each sandbox has one of its own";
    finding("user namespaces", ok_or(max >= 1000, Verdict::Fail), format!("at most {max}"), advice)
}

fn seccomp() -> Finding {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let verdict = ok_or(actions.contains("errno"), Verdict::Fail);
    let found = if verdict == Verdict::Ok { "filters available" } else { "no filters" };
    finding("seccomp", verdict, found, "the kernel needs CONFIG_SECCOMP_FILTER")
}

fn landlock() -> Finding {
    let version = crate::spawner::landlock_version();
    let found = if version > 0 { format!("ABI {version}") } else { "not available".to_owned() };
    let advice = "sandboxes hold without it, by read-only mounts alone; add landlock to the kernel's lsm= list";
    finding("landlock", ok_or(version > 0, Verdict::Warn), found, advice)
}

fn tun_and_nft() -> Finding {
    let version = Command::new("nft").arg("--version").output();
    let ok = version.as_ref().is_ok_and(|o| o.status.success());
    let found = version.map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    finding(
        "nftables",
        ok_or(ok, Verdict::Warn),
        found,
        "functions get no network without it: apt-get install nftables",
    )
}

fn forwarding() -> Finding {
    let on = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|t| t.trim() == "1");
    let found = if on { "on" } else { "off; `mayfly up` switches it on" };
    finding("IPv4 forwarding", Verdict::Ok, found, "")
}

fn resolvers() -> Finding {
    let all = net::resolvers();
    let found = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let found = if found.is_empty() { "only on the host's loopback, or none".to_owned() } else { found };
    let advice = "functions cannot look up names: give /etc/resolv.conf a name server that is not on 127.0.0.0/8";
    finding("name servers", ok_or(!all.is_empty(), Verdict::Warn), found, advice)
}

fn kvm() -> Finding {
    let ok = Path::new("/dev/kvm").exists();
    let found = if ok { "/dev/kvm is there (not used by this release)" } else { "no /dev/kvm" };
    finding("KVM", ok_or(ok, Verdict::Warn), found, "only microVM isolation will need it; process sandboxes do not")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_ok_says_what_to_do() {
        let all = examine();
        assert!(all.len() >= 8);
        for f in all {
            assert!(!f.found.is_empty(), "{}", f.name);
            assert_eq!(f.verdict == Verdict::Ok, f.advice.is_empty(), "{}", f.name);
        }
    }
}
