//! The ways in which clients sign the `Host` header.

/// The texts that a client may have signed as its host, without repeats, in the order to try them: the header as it
/// is, without port (Tencent's Node SDK), without scheme (`tccli` sends `Host: http://127.0.0.1:8700`), without both.
pub(crate) fn candidates(host: &str) -> impl Iterator<Item = &str> {
    let bare = without_scheme(host);
    let all = [host, without_port(host), bare, without_port(bare)];
    (0..all.len()).filter_map(move |i| (!all[..i].contains(&all[i])).then_some(all[i]))
}

/// True when `service` is the first label of the host, port cut or not: SDKs that take the service from the endpoint
/// sign `127` for `127.0.0.1:8700`.
pub(crate) fn first_label_is(host: &str, service: &str) -> bool {
    let bare = without_scheme(host);
    let label = |h: &str| h.split('.').next().is_some_and(|l| !l.is_empty() && l == service);
    label(bare) || label(without_port(bare))
}

fn without_scheme(host: &str) -> &str {
    let after = |scheme: &str| {
        let (head, tail) = host.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(tail)
    };
    after("http://").or_else(|| after("https://")).unwrap_or(host)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !is_bare_v6(name) => name,
        _ => host,
    }
}

/// `::1` is an address whose last group only looks like a port; `[::1]` is not bare.
fn is_bare_v6(name: &str) -> bool {
    name.contains(':') && !name.ends_with(']') && !name.contains("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_tried_once_each() {
        let all = |h| candidates(h).collect::<Vec<_>>();
        assert_eq!(all("scf.tencentcloudapi.com"), ["scf.tencentcloudapi.com"]);
        assert_eq!(all("127.0.0.1:8700"), ["127.0.0.1:8700", "127.0.0.1"]);
        assert_eq!(
            all("http://127.0.0.1:8700"),
            ["http://127.0.0.1:8700", "http://127.0.0.1", "127.0.0.1:8700", "127.0.0.1"]
        );
        assert_eq!(all("[::1]:8700"), ["[::1]:8700", "[::1]"]);
        assert_eq!(all("::1"), ["::1"]);
        assert_eq!(all(""), [""]);
    }

    #[test]
    fn first_labels() {
        for (host, label) in
            [("127.0.0.1:8700", "127"), ("http://127.0.0.1:1", "127"), ("localhost:1", "localhost"), ("scf.x.y", "scf")]
        {
            assert!(first_label_is(host, label), "{host}");
        }
        assert!(first_label_is("localhost:1", "localhost:1"));
        assert!(!first_label_is("127.0.0.1", "cvm"));
        assert!(!first_label_is("", ""));
    }
}
