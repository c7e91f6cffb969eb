//! What both command lines take.

use std::net::{SocketAddr, ToSocketAddrs};

/// Where a daemon listens or is reached: `HOST:PORT`, kept as written for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub text: String,
    pub socket: SocketAddr,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    /// Resolves names once, at start: blocking is allowed there, and a name that does not resolve is a start error.
    fn from_str(text: &str) -> Result<Address, String> {
        let socket = text
            .to_socket_addrs()
            .map_err(|error| format!("'{text}' is not an address: {error}; write HOST:PORT, like 127.0.0.1:5440"))?
            .next()
            .ok_or_else(|| format!("'{text}' resolves to no address; write HOST:PORT, like 127.0.0.1:5440"))?;
        Ok(Address { text: text.to_string(), socket })
    }
}

/// A comma-separated list of addresses; the empty text is the empty list.
pub fn parse_addresses(text: &str) -> Result<Vec<Address>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
}

/// A node's number: 1 or more.
pub fn parse_node_id(text: &str) -> Result<ironpage_layout::NodeId, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(ironpage_layout::NodeId(number)),
        _ => Err(format!("'{text}' is not a node id: it is a number of 1 or more, unique in the cluster")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ids_are_parsed_or_named_in_the_error() {
        let list = parse_addresses("127.0.0.1:1, [::1]:2").unwrap();
        assert_eq!(list.iter().map(|a| a.socket.port()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(parse_addresses("").unwrap(), []);
        for bad in ["127.0.0.1", "127.0.0.1:99999", ":"] {
            assert!(parse_addresses(bad).unwrap_err().contains(&format!("'{bad}'")));
        }
        assert!(parse_node_id("0").is_err() && parse_node_id("-1").is_err() && parse_node_id("7").is_ok());
    }
}
