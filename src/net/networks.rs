use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::Error;

/// A list of IP networks, as `127.0.0.0/8,::1/128`: from where [a listener](crate::Listen::allow)
/// is to be reached, and whose [proxies](crate::Listen::proxy) are believed.
///
/// A single address is the network of itself alone. An IPv4 address that comes over an IPv6 socket
/// (`::ffff:10.1.2.3`) counts as the IPv4 address it is, so `0.0.0.0/0` is all of IPv4, and `::/0`
/// all of IPv6 without it.
///
/// ```
/// use reactor::Networks;
///
/// let home: Networks = "192.168.0.0/16, fe80::/10, 127.0.0.1".parse()?;
/// assert!(home.contain("::ffff:192.168.7.7".parse().unwrap()));
/// assert!(!home.contain("127.0.0.2".parse().unwrap()));
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// This machine alone: `127.0.0.0/8,::1/128`.
    pub fn loopback() -> Networks {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        Networks(vec![v4.into(), IpAddr::V6(Ipv6Addr::LOCALHOST).into()])
    }

    /// Whether the address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// # Errors
/// [`Error::Address`] names the network that is none, with the remedy. An empty list is one too:
/// nobody could come.
impl FromStr for Networks {
    type Err = Error;

    fn from_str(text: &str) -> Result<Networks, Error> {
        text.split(',').map(|piece| network(piece.trim())).collect::<Result<_, _>>().map(Networks)
    }
}

/// The networks of all lists together.
impl FromIterator<Networks> for Networks {
    fn from_iter<I: IntoIterator<Item = Networks>>(lists: I) -> Networks {
        Networks(lists.into_iter().flat_map(|list| list.0).collect())
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, network) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if number > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

fn network(text: &str) -> Result<IpNet, Error> {
    let bad = |why: String| Error::Address { text: text.to_owned(), why };
    let network = match text.parse::<IpAddr>() {
        Ok(alone) => IpNet::from(alone),
        Err(_) => text.parse().map_err(|_| {
            bad("write a network as 10.0.0.0/8 or fd00::/8, several with commas".to_owned())
        })?,
    };
    // Most likely a slip of the pen, and either reading of it could let the wrong ones in.
    if network.trunc() != network {
        let network = network.trunc();
        return Err(bad(format!("it has bits behind the prefix: write {network}, or an address")));
    }
    Ok(canonical(network))
}

/// A network of IPv4 addresses in IPv6 form as the IPv4 network it is.
fn canonical(network: IpNet) -> IpNet {
    let v4 = |network: Ipv6Net| {
        let address = network.network().to_ipv4_mapped()?;
        Ipv4Net::new(address, network.prefix_len().checked_sub(96)?).ok()
    };
    match network {
        IpNet::V6(v6) => v4(v6).map_or(network, IpNet::V4),
        IpNet::V4(_) => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_and_who_is_not() {
        let all = ["127.0.0.1", "10.1.2.3", "::1", "::ffff:10.1.2.3", "2001:db8::1"];
        for (networks, inside) in [
            (&*Networks::loopback().to_string(), &["127.0.0.1", "::1"][..]),
            ("10.1.2.3", &["10.1.2.3", "::ffff:10.1.2.3"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3", "::ffff:10.1.2.3"]),
            ("::ffff:10.1.2.3", &["10.1.2.3", "::ffff:10.1.2.3"]),
            ("0.0.0.0/0", &["127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3"]),
            ("::/0", &["::1", "2001:db8::1"]),
            ("0.0.0.0/0 , ::/0", &all),
        ] {
            let parsed: Networks = networks.parse().unwrap();
            for address in all {
                let is_in = parsed.contain(address.parse().unwrap());
                assert_eq!(is_in, inside.contains(&address), "{address} in {networks}");
            }
            assert_eq!(parsed.to_string().parse::<Networks>().unwrap(), parsed);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, words) in [
            ("", "write a network"),
            ("127.0.0.1,", "write a network"),
            ("localhost", "\"localhost\": write a network"),
            ("10.0.0.0/33", "write a network"),
            ("10.0.0.0/", "write a network"),
            ("::1%1", "write a network"),
            ("127.0.0.1/8", "write 127.0.0.0/8"),
            ("::1/64", "write ::/64"),
        ] {
            let error = text.parse::<Networks>().unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
