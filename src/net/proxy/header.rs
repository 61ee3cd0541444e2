//! The header of the PROXY protocol: read from bytes, and made of addresses. HAProxy's
//! `proxy-protocol.txt` says what is in it.
//!
//! Nothing here reads a socket. Whoever does learns how many bytes the header has left at the least,
//! reads no more than that, and asks again: so nothing that comes behind the header is ever read.

use std::net::{IpAddr, SocketAddr};

/// The longest header of version 1, with its CRLF.
const LONGEST_V1: usize = 107;
/// The shortest one, which is shorter than any of version 2.
const SHORTEST_V1: usize = b"PROXY UNKNOWN\r\n".len();

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part of version 2 that every header has: the signature, what it is about, and the length of
/// the rest.
const FIXED_V2: usize = 16;
/// The longest rest that is taken. The addresses of Unix sockets, the longest, take 216 of it.
const LONGEST_REST_V2: usize = 536;

/// The longest header of either version.
pub(crate) const LONGEST: usize = FIXED_V2 + LONGEST_REST_V2;

/// The TLV that has a checksum of the whole header.
const CRC32C: u8 = 0x03;

/// Whom a header is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The proxy itself, which looks whether somebody is there.
    Local,
    /// Somebody whose address is not known, or is none of TCP.
    Unknown,
    /// A client over TCP: where it came from, and where it connected to. IPv4 in the form of IPv6
    /// is the IPv4 that it is.
    Client { source: SocketAddr, destination: SocketAddr },
}

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// At least so many bytes of it are to come. There is at least one.
    Wants(usize),
    /// It is complete.
    Complete(Origin),
}

/// Why bytes are no header that is taken.
pub(crate) type Fault = &'static str;

/// Reads as much of a header as has come.
pub(crate) fn read(bytes: &[u8]) -> Result<Progress, Fault> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    match () {
        () if bytes.is_empty() => Ok(Progress::Wants(SHORTEST_V1)),
        () if begins(SIGNATURE) => read_v2(bytes),
        () if begins(b"PROXY ") => read_v1(bytes),
        () => Err("it begins like none"),
    }
}

/// Reads a line as `PROXY TCP4 192.0.2.7 192.0.2.1 51234 443`.
fn read_v1(bytes: &[u8]) -> Result<Progress, Fault> {
    if bytes.len() < SHORTEST_V1 {
        return Ok(Progress::Wants(SHORTEST_V1 - bytes.len()));
    }
    let least = match bytes.strip_prefix(b"PROXY UNKNOWN") {
        // Whatever stands between is to be ignored.
        Some(b"\r\n") => return Ok(Progress::Complete(Origin::Unknown)),
        Some([b' ', .., b'\r', b'\n']) => return Ok(Progress::Complete(Origin::Unknown)),
        Some([b' ', .., b'\r']) => 1,
        Some([b' ', ..]) => 2,
        Some(_) => return Err("its family is unknown"),
        None => match bytes.strip_suffix(b"\r\n") {
            Some(line) => return read_addresses_v1(line).map(Progress::Complete),
            None => least_left_v1(bytes)?,
        },
    };
    match bytes.len() + least {
        ..=LONGEST_V1 => Ok(Progress::Wants(least)),
        _ => Err("its line is longer than 107 bytes"),
    }
}

/// How many bytes the line of a client over TCP has left at the least: the words behind the one
/// that is under way, each as short as it can be.
fn least_left_v1(bytes: &[u8]) -> Result<usize, Fault> {
    let behind_source = match &bytes[..11] {
        b"PROXY TCP4 " => " 0.0.0.0 0 0\r\n",
        b"PROXY TCP6 " => " :: 0 0\r\n",
        _ => return Err("its family is unknown"),
    };
    let (last, before) = bytes.split_last().ok_or("it is empty")?;
    if *last == b'\n' || before.contains(&b'\r') || before.contains(&b'\n') {
        return Err("its line does not end with CRLF");
    }
    let behind = match bytes.iter().filter(|byte| **byte == b' ').count() {
        _ if *last == b'\r' => "\n",
        2 => behind_source,
        3 => " 0 0\r\n",
        4 => " 0\r\n",
        5 => "\r\n",
        _ => return Err("it has too many words"),
    };
    Ok(behind.len())
}

fn read_addresses_v1(line: &[u8]) -> Result<Origin, Fault> {
    let line = std::str::from_utf8(line).map_err(|_| "it is no text")?;
    let words: Vec<_> = line.split(' ').collect();
    let ["PROXY", family, source, destination, from, to] = words[..] else {
        return Err("it has too few words");
    };
    let ip = |text: &str| match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        "TCP6" => text.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits && (text == "0" || !text.starts_with('0')))
    };
    let place = |ip, port| Some(SocketAddr::new(IpAddr::to_canonical(&ip?), port?));
    let places = place(ip(source), port(from)).zip(place(ip(destination), port(to)));
    let (source, destination) = places.ok_or("its addresses are none")?;
    Ok(Origin::Client { source, destination })
}

fn read_v2(bytes: &[u8]) -> Result<Progress, Fault> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_V2>() else {
        return Ok(Progress::Wants(FIXED_V2 - bytes.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, 0x20 | 0x21) {
        return Err("its version or command is unknown");
    }
    if length > LONGEST_REST_V2 {
        return Err("it is longer than 552 bytes");
    }
    if rest.len() < length {
        return Ok(Progress::Wants(length - rest.len()));
    }
    if command == 0x20 {
        // The rest is to be ignored, its family too.
        return Ok(Progress::Complete(Origin::Local));
    }
    let addresses = match family {
        // How much of the rest are addresses is not known.
        0x00 => return Ok(Progress::Complete(Origin::Unknown)),
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err("its family is unknown"),
    };
    let (addresses, _) = rest.split_at_checked(addresses).ok_or("its addresses are cut off")?;
    check_tlvs(bytes, FIXED_V2 + addresses.len())?;
    Ok(Progress::Complete(match family {
        0x11 | 0x21 => read_addresses_v2(addresses),
        // Unix sockets, and datagrams, of which a proxy of streams has nothing to say.
        _ => Origin::Unknown,
    }))
}

/// Two IP addresses of one family, and two ports.
fn read_addresses_v2(bytes: &[u8]) -> Origin {
    let (ips, ports) = bytes.split_at(bytes.len() - 4);
    let ip = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => {
            let mut v6 = [0; 16];
            v6.copy_from_slice(bytes);
            IpAddr::from(v6).to_canonical()
        }
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let (source, destination) = ips.split_at(ips.len() / 2);
    Origin::Client {
        source: SocketAddr::new(ip(source), port(0)),
        destination: SocketAddr::new(ip(destination), port(2)),
    }
}

/// Looks whether the TLVs, which begin there, fill the rest of the header, and compares the checksum
/// if one of them has it.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), Fault> {
    while at < header.len() {
        let Some([kind, high, low]) = header[at..].first_chunk() else {
            return Err("its last TLV is cut off");
        };
        let begin = at + 3;
        let end = begin + usize::from(u16::from_be_bytes([*high, *low]));
        let value = header.get(begin..end).ok_or("its last TLV is cut off")?;
        if *kind == CRC32C {
            // The checksum is that of the header with zeros in its own place.
            let bytes = header[..begin].iter().chain(&[0; 4]).chain(&header[end..]);
            if value != crc32c(bytes).to_be_bytes() {
                return Err("its checksum is wrong");
            }
        }
        at = end;
    }
    Ok(())
}

/// CRC-32C, bit by bit: a header is short, and a connection has one.
fn crc32c<'b>(bytes: impl Iterator<Item = &'b u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

/// Makes a header of version 2 for a client: where it came from, and where it connected to. One
/// without such addresses is unspecified.
pub(crate) fn write(client: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut rest = Vec::new();
    let canonical = |addr: SocketAddr| addr.ip().to_canonical();
    let family = match client.map(|(source, to)| (canonical(source), canonical(to))) {
        None => 0x00,
        Some((IpAddr::V4(source), IpAddr::V4(to))) => {
            rest.extend([source.octets(), to.octets()].concat());
            0x11
        }
        Some((source, to)) => {
            rest.extend([source, to].map(v6).concat());
            0x21
        }
    };
    for port in client.iter().flat_map(|(source, to)| [source.port(), to.port()]) {
        rest.extend(port.to_be_bytes());
    }
    // It is at most 36 bytes long.
    let length = (rest.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[0x21, family], &length, &rest].concat()
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn client(source: &str, destination: &str) -> Result<Origin, Fault> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Ok(Origin::Client { source, destination })
    }

    /// Feeds it as a reader does, and looks whether it asks for bytes that are not its own.
    fn fed(header: &[u8]) -> Result<Origin, Fault> {
        let (mut have, mut wanted) = (0, 0);
        loop {
            match read(&header[..have])? {
                Progress::Complete(origin) => {
                    assert_eq!((have, wanted), (header.len(), header.len()), "{header:?}");
                    return Ok(origin);
                }
                Progress::Wants(count) => {
                    wanted = have + count;
                    assert!(count > 0 && wanted <= LONGEST);
                    if have == header.len() {
                        return Err("wants more");
                    }
                    have = wanted.min(header.len());
                }
            }
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    /// The addresses of a header of TCP over IPv4, and TLVs.
    fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 7, 127, 0, 0, 1, 0xc8, 0x22, 0x01, 0xbb];
        v2(0x21, 0x11, &[&addresses, tlvs].concat())
    }

    #[test]
    fn lines_of_version_1() {
        let two = client("192.0.2.7:51234", "127.0.0.1:443");
        assert_eq!(fed(b"PROXY TCP4 192.0.2.7 127.0.0.1 51234 443\r\n"), two);
        let shortest = client("0.0.0.0:0", "0.0.0.0:0");
        assert_eq!(fed(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), shortest);
        let longest = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                        ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n";
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff";
        assert_eq!(fed(longest), client(&format!("[{all}f]:65535"), &format!("[{all}e]:65535")));
        assert_eq!(fed(b"PROXY TCP6 :: :: 0 0\r\n"), client("[::]:0", "[::]:0"));
        let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::1 7 8\r\n";
        assert_eq!(fed(mapped), client("192.0.2.7:7", "[::1]:8"));
        assert_eq!(fed(b"PROXY UNKNOWN\r\n"), Ok(Origin::Unknown));
        assert_eq!(fed(b"PROXY UNKNOWN any\nthing\rat \xffall\r\n"), Ok(Origin::Unknown));
        let longest = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 91], b"\r\n".to_vec()].concat();
        assert_eq!((longest.len(), fed(&longest)), (LONGEST_V1, Ok(Origin::Unknown)));
    }

    #[test]
    fn what_is_no_line_of_version_1() {
        for line in [
            "hello\r\n",
            "PROXY\r\n",
            "PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
            "proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\nhello\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\nhello\r\n",
            "PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
            "PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n",
            "PROXY TCP4 ::1 1.1.1.1 1 1\r\n",
            "PROXY TCP6 ::1 1.1.1.1 1 1\r\n",
            "PROXY TCP6 fe80::1%lo ::1 1 1\r\n",
            "PROXY TCP4 localhost 1.1.1.1 1 1\r\n",
        ] {
            let outcome = fed(line.as_bytes());
            assert!(outcome.is_err() && outcome != Err("wants more"), "{line:?}: {outcome:?}");
        }
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat();
        assert_eq!(fed(&long), Err("its line is longer than 107 bytes"));
        let long = [&b"PROXY TCP6 "[..], &[b'1'; 96], b"\r\n"].concat();
        assert_eq!(fed(&long), Err("its line is longer than 107 bytes"));
    }

    #[test]
    fn what_does_not_begin_like_a_header_is_known_at_its_first_wrong_byte() {
        assert_eq!(read(b"P"), Ok(Progress::Wants(14)));
        assert_eq!(read(b"\r\n\r\n"), Ok(Progress::Wants(12)));
        for bytes in [&b"p"[..], b"PROXYx", b"\r\n\r\nG", b"\n", b"GET /"] {
            assert_eq!(read(bytes), Err("it begins like none"));
        }
    }

    #[test]
    fn a_line_takes_few_reads() {
        let (line, mut have, mut reads) = (b"PROXY TCP4 127.0.0.1 127.0.0.1 56324 443\r\n", 0, 0);
        while let Ok(Progress::Wants(count)) = read(&line[..have]) {
            (have, reads) = (have + count, reads + 1);
        }
        assert_eq!((have, reads), (line.len(), 6));
    }

    #[test]
    fn headers_of_version_2() {
        assert_eq!(fed(&with_tlvs(b"")), client("192.0.2.7:51234", "127.0.0.1:443"));
        let ip = |last: u8| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        let six = [&ip(1)[..], &ip(2), &[0, 7, 0, 8]].concat();
        assert_eq!(fed(&v2(0x21, 0x21, &six)), client("[2001:db8::1]:7", "[2001:db8::2]:8"));
        for (family, length) in [(0x12, 12), (0x22, 36), (0x31, 216), (0x32, 216), (0, 0), (0, 9)] {
            assert_eq!(
                fed(&v2(0x21, family, &vec![1; length])),
                Ok(Origin::Unknown),
                "{family:#x}"
            );
        }
        // Whatever it holds.
        for (family, rest) in [(0x00, &b""[..]), (0x11, b"short"), (0xff, &[0; LONGEST_REST_V2])] {
            assert_eq!(fed(&v2(0x20, family, rest)), Ok(Origin::Local));
        }
    }

    #[test]
    fn what_is_no_header_of_version_2() {
        let long = vec![0; LONGEST_REST_V2 + 1];
        for (header, why) in [
            (v2(0x11, 0x11, &[0; 12]), "its version or command is unknown"),
            (v2(0x22, 0x11, &[0; 12]), "its version or command is unknown"),
            (v2(0x21, 0x13, &[0; 12]), "its family is unknown"),
            (v2(0x21, 0x41, &[0; 12]), "its family is unknown"),
            (v2(0x21, 0x11, &[0; 11]), "its addresses are cut off"),
            (v2(0x21, 0x31, &[0; 215]), "its addresses are cut off"),
            (v2(0x20, 0x00, &long), "it is longer than 552 bytes"),
            (with_tlvs(b"\x04"), "its last TLV is cut off"),
            (with_tlvs(b"\x04\0\x02x"), "its last TLV is cut off"),
            (with_tlvs(b"\x03\0\x03abc"), "its checksum is wrong"),
            (with_tlvs(b"\x03\0\x04abcd"), "its checksum is wrong"),
        ] {
            assert_eq!(fed(&header), Err(why));
        }
    }

    #[test]
    fn tlvs_are_read_over_and_the_checksum_compared() {
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
        let mut header = with_tlvs(b"\x04\0\0\x02\0\x0bexample.org\x03\0\x04\0\0\0\0\xe0\0\x01x");
        let place = header.len() - 8;
        let sum = crc32c(header.iter()).to_be_bytes();
        header[place..place + 4].copy_from_slice(&sum);
        assert_eq!(fed(&header), client("192.0.2.7:51234", "127.0.0.1:443"));
        for at in [16, place, place - 8] {
            let mut forged = header.clone();
            forged[at] ^= 1;
            assert_eq!(fed(&forged), Err("its checksum is wrong"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_client_comes_through_in_either_version(source: SocketAddr, destination: SocketAddr) {
            let known = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
            let origin = Origin::Client { source: known(source), destination: known(destination) };
            prop_assert_eq!(fed(&write(Some((source, destination)))), Ok(origin));
            let (from, to) = (source.port(), destination.port());
            let line = match (known(source).ip(), known(destination).ip()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => format!("PROXY TCP4 {a} {b} {from} {to}\r\n"),
                (a, b) => {
                    let [a, b] = [a, b].map(|ip| Ipv6Addr::from(v6(ip)));
                    format!("PROXY TCP6 {a} {b} {from} {to}\r\n")
                }
            };
            prop_assert_eq!(fed(line.as_bytes()), Ok(origin));
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for (source, destination) in [
            ("192.0.2.7:51234", "127.0.0.1:443"),
            ("[2001:db8::7]:1", "[::1]:2"),
            ("[2001:db8::7]:1", "127.0.0.1:2"),
        ] {
            let places = (source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(fed(&write(Some(places))), client(source, destination));
        }
        let mapped =
            Some(("[::ffff:192.0.2.7]:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()));
        assert_eq!(write(mapped)[13], 0x11);
        assert_eq!(fed(&write(None)), Ok(Origin::Unknown));
    }
}
