//! The network of instances: a veth pair each, routed and translated by the host, with no way back into it.
//!
//! Every instance has a /31 of its own: the even address is the host's end, the odd one the instance's. There is no bridge,
//! so instances share no link. What they may reach is one nftables table, made at start and removed at the end.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// An IPv4 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First address.
    pub base: u32,
    /// Prefix length.
    pub prefix: u8,
}

impl Block {
    /// Reads `10.213.0.0/16`. The host bits must be zero.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
        let prefix: u8 = prefix.parse().ok()?;
        if prefix > 32 || (prefix < 32 && base & (u32::MAX >> prefix) != 0) {
            return None;
        }
        Some(Self { base, prefix })
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// Settings of the network.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct NetOptions {
    /// The block that instances' addresses are taken from, for example `10.213.0.0/16`.
    pub pool: String,
    /// Blocks that functions may reach although they are private.
    pub allow: Vec<String>,
    /// Blocks that sandboxes in which something is built may reach as well.
    #[serde(default)]
    pub build_allow: Vec<String>,
}

/// Prefix of the part of the pool that one platform takes: 2,048 instances. Several platforms may run on one machine (tests do).
const SLICE_PREFIX: u8 = 20;

/// Links of ended sandboxes that are passed over in search of a free address, before one of them is removed.
const STALE_LINKS_PASSED_MAX: usize = 16;

/// What an instance's side of a link needs to know.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Endpoint {
    /// Address of the instance.
    pub address: Ipv4Addr,
    /// The host's end, through which everything goes.
    pub gateway: Ipv4Addr,
}

/// The host's side of all links.
pub struct Network {
    table: String,
    link_prefix: String,
    slice: Block,
    used: Vec<bool>,
    /// Links of sandboxes in which something is built, as long as the rules have an exception for such.
    builders: Option<HashSet<usize>>,
    next: usize,
    netlink: Socket,
    sequence: u32,
    _lock: File,
}

/// Addresses that no function reaches: this host, other machines nearby, cloud metadata, and what is not unicast.
const NEVER: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3";

impl Network {
    /// Sets up translation and the rules. `id` is the platform's six-character id; `run_dir` a place for locks shared by all
    /// platforms on this machine. Errors say what is missing on the machine.
    pub fn start(id: &str, options: &NetOptions, run_dir: &Path) -> io::Result<Self> {
        let bad = |m: String| io::Error::new(io::ErrorKind::InvalidInput, m);
        let pool = Block::parse(&options.pool)
            .filter(|b| b.prefix <= SLICE_PREFIX)
            .ok_or_else(|| bad(format!("`{}` is not an IPv4 block of at least /{SLICE_PREFIX}", options.pool)))?;
        for block in options.allow.iter().chain(&options.build_allow) {
            Block::parse(block).ok_or_else(|| bad(format!("`{block}` is not an IPv4 block")))?;
        }
        let (slice, lock) = take_slice(pool, run_dir)?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let table = format!("mayfly_{id}");
        let link_prefix = format!("mf{id}");
        let mut netlink = Socket::new(NETLINK_ROUTE)?;
        netlink.bind_auto()?;
        netlink.connect(&SocketAddr::new(0, 0))?;
        let network = Self {
            table,
            link_prefix,
            slice,
            used: vec![false; 1 << (31 - SLICE_PREFIX)],
            builders: (!options.build_allow.is_empty()).then(HashSet::new),
            next: 0,
            netlink,
            sequence: 0,
            _lock: lock,
        };
        nft(&network.rules(options, &resolvers()))?;
        Ok(network)
    }

    fn rules(&self, options: &NetOptions, resolvers: &[Ipv4Addr]) -> String {
        let (table, links, slice) = (&self.table, &self.link_prefix, self.slice);
        let mut out = String::new();
        for block in &options.allow {
            out.push_str(&format!("    ip daddr {block} accept\n"));
        }
        for block in &options.build_allow {
            out.push_str(&format!("    ip saddr @builders ip daddr {block} accept\n"));
        }
        for r in resolvers {
            out.push_str(&format!("    ip daddr {r} udp dport 53 accept\n    ip daddr {r} tcp dport 53 accept\n"));
        }
        format!(
            "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n\
  set builders {{\n    type ipv4_addr\n  }}\n\
  chain input {{\n    type filter hook input priority -10; policy accept;\n\
    iifname \"{links}*\" ct state established,related accept\n    iifname \"{links}*\" drop\n  }}\n\
  chain forward {{\n    type filter hook forward priority -10; policy accept;\n\
    iifname \"{links}*\" jump out\n\
    oifname \"{links}*\" ct state established,related accept\n    oifname \"{links}*\" drop\n  }}\n\
  chain out {{\n    oifname \"mf*\" drop\n    meta nfproto ipv6 drop\n    ip saddr != {slice} drop\n    ct state established,related accept\n{out}\
    ip daddr {{ {NEVER} }} drop\n    accept\n  }}\n\
  chain postrouting {{\n    type nat hook postrouting priority 100; policy accept;\n\
    ip saddr {slice} oifname != \"{links}*\" masquerade\n  }}\n}}\n"
        )
    }

    /// Makes a link into the network namespace of process `pid`: `eth0` there, up on the host's side.
    pub fn link(&mut self, pid: i32) -> io::Result<(usize, Endpoint)> {
        self.link_again(pid, self.used.len())
    }

    fn link_again(&mut self, pid: i32, attempts: usize) -> io::Result<(usize, Endpoint)> {
        let index = (0..self.used.len())
            .map(|i| (self.next + i) % self.used.len())
            .find(|i| !self.used[*i])
            .ok_or_else(|| io::Error::new(io::ErrorKind::QuotaExceeded, "no free address for another instance"))?;
        let host = Ipv4Addr::from(self.slice.base + 2 * index as u32);
        let endpoint = Endpoint { address: Ipv4Addr::from(u32::from(host) + 1), gateway: host };
        let name = self.name(index);

        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName("eth0".into()));
        peer.attributes.push(LinkAttribute::NetNsPid(pid as u32));
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::IfName(name.clone()));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.next = index + 1;
        match self.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL) {
            // The kernel removes the link of an ended sandbox in its own time; that address is not free before.
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) && attempts > 0 => {
                // After several of them in a row it is somebody's doing: a template that keeps its forks' namespaces open. Its
                // links are not in use, and removing one takes effect at once (in milliseconds, which is why it is not the rule).
                if self.used.len() - attempts >= STALE_LINKS_PASSED_MAX {
                    self.unlink(index);
                    self.next = index;
                }
                return self.link_again(pid, attempts - 1);
            }
            other => other?,
        }
        self.used[index] = true;
        let linked = self.address(&name, host);
        if let Err(e) = linked {
            self.unlink(index);
            return Err(e);
        }
        Ok((index, endpoint))
    }

    fn address(&mut self, name: &str, host: Ipv4Addr) -> io::Result<()> {
        let c = std::ffi::CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: `c` is a valid string.
        let ifindex = unsafe { libc::if_nametoindex(c.as_ptr()) };
        if ifindex == 0 {
            return Err(io::Error::last_os_error());
        }
        let mut message = AddressMessage::default();
        message.header.family = netlink_packet_route::AddressFamily::Inet;
        message.header.prefix_len = 31;
        message.header.index = ifindex;
        message.attributes.push(AddressAttribute::Local(IpAddr::V4(host)));
        message.attributes.push(AddressAttribute::Address(IpAddr::V4(host)));
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn name(&self, index: usize) -> String {
        format!("{}{index:x}", self.link_prefix)
    }

    /// Says that the sandbox of a link is gone. The kernel removes the link with the sandbox's network namespace.
    pub fn release(&mut self, index: usize) {
        let table = &self.table;
        if self.builders.as_mut().is_some_and(|builders| builders.remove(&index))
            && let Err(e) = nft(&format!("delete element inet {table} builders {{ {} }}\n", self.address_of(index)))
        {
            // Its address keeps a right that the next instance must not inherit: nobody gets it.
            tracing::error!(error = %e, index, "an exception for a build could not be removed; its address stays unused");
            return;
        }
        self.used[index] = false;
    }

    fn address_of(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::from(self.slice.base + 2 * index as u32 + 1)
    }

    /// Lets the sandbox of a link reach what only builds may, until the link is released.
    pub fn open_to_builds(&mut self, index: usize) -> io::Result<()> {
        let (table, address) = (self.table.clone(), self.address_of(index));
        let Some(builders) = &mut self.builders else { return Ok(()) };
        // Noted first: an element that is removed without having been added is only an error in the log.
        builders.insert(index);
        nft(&format!("add element inet {table} builders {{ {address} }}\n"))
    }

    /// Removes a link at once. The other end goes with it.
    fn unlink(&mut self, index: usize) {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(self.name(index)));
        match self.request(RouteNetlinkMessage::DelLink(link), 0) {
            Err(e) if e.raw_os_error() != Some(libc::ENODEV) => {
                tracing::warn!(error = %e, index, "a network link could not be removed; its address stays unused");
            }
            _ => self.used[index] = false,
        }
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.netlink.send(&buffer, 0)?;
        let mut answer = Vec::with_capacity(8192);
        loop {
            answer.clear();
            let n = self.netlink.recv(&mut answer, 0)?;
            let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..n])
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            if parsed.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(e) = parsed.payload {
                return match e.code {
                    None => Ok(()),
                    Some(code) => Err(io::Error::from_raw_os_error(-code.get())),
                };
            }
        }
    }

    /// Removes the rules, and the links that the kernel has not removed yet.
    pub fn stop(&mut self) {
        for name in links(&self.link_prefix) {
            if let Some(index) =
                usize::from_str_radix(&name[self.link_prefix.len()..], 16).ok().filter(|i| *i < self.used.len())
            {
                self.unlink(index);
            }
        }
        let _ = nft(&format!("delete table inet {}\n", self.table));
    }
}

/// The host's ends of links whose names begin with `prefix`.
fn links(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| name.starts_with(prefix)).collect()
}

/// Removes links and rules that an earlier, killed platform with this id left behind. Returns how many links went.
pub fn sweep(id: &str) -> usize {
    let mut removed = 0;
    let prefix = format!("mf{id}");
    for name in links(&prefix) {
        let gone = Command::new("ip")
            .args(["link", "delete", &name])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success());
        removed += usize::from(gone);
    }
    let _ = nft(&format!("table inet mayfly_{id}\ndelete table inet mayfly_{id}\n"));
    removed
}

/// Takes a part of the pool that no other platform on this machine has, held by a lock for as long as the file is open.
fn take_slice(pool: Block, run_dir: &Path) -> io::Result<(Block, File)> {
    std::fs::create_dir_all(run_dir)?;
    for n in 0..1u32 << (SLICE_PREFIX - pool.prefix) {
        let base = pool.base + (n << (32 - SLICE_PREFIX));
        let slice = Block { base, prefix: SLICE_PREFIX };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(run_dir.join(format!("net-{}-{SLICE_PREFIX}.lock", Ipv4Addr::from(base))))?;
        // SAFETY: flock on an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok((slice, file));
        }
    }
    Err(io::Error::new(io::ErrorKind::QuotaExceeded, format!("every part of {pool} is taken by another platform")))
}

fn nft(script: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("`nft` cannot be run ({e}); install the package nftables")))?;
    child.stdin.take().expect("stdin is piped").write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// IPv4 name servers that a sandbox can use: those of the host that are not on its loopback.
pub fn resolvers() -> Vec<Ipv4Addr> {
    for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found = nameservers(&text);
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn nameservers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    resolv_conf
        .lines()
        .filter_map(|l| l.trim().strip_prefix("nameserver"))
        .filter_map(|a| a.trim().parse::<Ipv4Addr>().ok())
        .filter(|a| !a.is_loopback())
        .collect()
}

/// Configures the instance's side, from inside its network namespace, with the two ioctls this takes; no netlink socket is
/// needed there. `endpoint` absent: only the loopback comes up.
pub fn configure_inside(endpoint: Option<Endpoint>) -> io::Result<()> {
    // SAFETY: makes a socket; the result is checked and closed by OwnedFd.
    let fd =
        crate::sys::check(i64::from(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }))?;
    // SAFETY: made just now by the kernel for us.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) };
    up(&socket, "lo")?;
    let Some(endpoint) = endpoint else { return Ok(()) };
    set_address(&socket, "eth0", libc::SIOCSIFADDR, endpoint.address)?;
    set_address(&socket, "eth0", libc::SIOCSIFNETMASK, Ipv4Addr::from(0xffff_fffe))?;
    up(&socket, "eth0")?;
    // SAFETY: an all-zero rtentry is valid.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = sockaddr(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = sockaddr(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = sockaddr(endpoint.gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: `route` is a filled-in rtentry.
    crate::sys::check(i64::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &raw const route) }))?;
    Ok(())
}

/// Takes the link down, from inside. Nobody in the sandbox has the capability to bring it up again.
pub fn take_down_inside() -> io::Result<()> {
    // SAFETY: makes a socket; the result is checked and closed by OwnedFd.
    let fd =
        crate::sys::check(i64::from(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }))?;
    // SAFETY: made just now by the kernel for us.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) };
    let mut request = request_for("eth0");
    request.ifr_ifru.ifru_flags = 0;
    // SAFETY: `request` is a filled-in ifreq.
    match crate::sys::check(i64::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    })) {
        Err(e) if e.raw_os_error() != Some(libc::ENODEV) => Err(e),
        _ => Ok(()),
    }
}

fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn up(socket: &std::os::fd::OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: `request` is a filled-in ifreq.
    crate::sys::check(i64::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    }))?;
    Ok(())
}

fn set_address(socket: &std::os::fd::OwnedFd, name: &str, what: u64, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_addr = sockaddr(address);
    // SAFETY: `request` is a filled-in ifreq.
    crate::sys::check(i64::from(unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw const request) }))?;
    Ok(())
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: sockaddr_in and sockaddr have the same size, and every bit pattern of the latter is valid.
    unsafe { std::mem::transmute(inet) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_strictly() {
        assert_eq!(Block::parse("10.213.0.0/16").unwrap().to_string(), "10.213.0.0/16");
        for bad in ["10.213.0.0", "10.213.0.1/16", "10.213.0.0/33", "x/8", "10.0.0.0/-1"] {
            assert_eq!(Block::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn loopback_resolvers_are_no_use_in_a_sandbox() {
        assert_eq!(nameservers("nameserver 127.0.0.53\noptions x\nnameserver 9.9.9.9\n"), [Ipv4Addr::new(9, 9, 9, 9)]);
    }

    #[test]
    fn platforms_on_one_machine_take_different_parts_of_the_pool() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Block::parse("10.213.0.0/19").unwrap();
        let (a, lock_a) = take_slice(pool, dir.path()).unwrap();
        let (b, _lock_b) = take_slice(pool, dir.path()).unwrap();
        assert_ne!(a, b);
        assert!(take_slice(pool, dir.path()).is_err());
        drop(lock_a);
        assert_eq!(take_slice(pool, dir.path()).unwrap().0, a);
    }
}
