//! Whether a text can be the address of something to reach.

/// Says why a text is no `host:port`, if so. Whether the host exists, only looking it up can tell.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || (host.starts_with('[') && host.ends_with(']')) => (host, port),
        _ => return Err("it has no port".into()),
    };
    if host.is_empty() {
        return Err("it has no host".into());
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(format!("`{}` is no port; a port is a number from 1 to 65535", port.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for right in ["127.0.0.1:7400", "localhost:1", "[::1]:65535", "a.b-c_d:80"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for (wrong, why) in [
            ("nonsense", "it has no port"),
            ("", "it has no port"),
            ("::1", "it has no port"),
            ("[::1]", "it has no port"),
            (":7400", "it has no host"),
            ("host:", "`` is no port; a port is a number from 1 to 65535"),
            ("host:0", "`0` is no port; a port is a number from 1 to 65535"),
            ("host:99999", "`99999` is no port; a port is a number from 1 to 65535"),
            ("host:http", "`http` is no port; a port is a number from 1 to 65535"),
        ] {
            assert_eq!(check(wrong), Err(why.into()), "{wrong}");
        }
    }
}
