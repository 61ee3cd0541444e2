//! An argument of `serve`: `SERVICE[=ADDR[,ADDR]...]`.

use reactor::Address;

use super::address::{Endpoint, LOCALHOST, Layer, Layers, Place};
use super::failure::Failure;
use super::service::{self, Service};
use super::systemd::Inherited;

/// A service and where it listens.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) service: &'static Service,
    /// At least one.
    pub(crate) places: Vec<Place>,
}

impl Target {
    /// The service at its default port.
    pub(crate) fn usual(service: &'static Service) -> Target {
        Target { service, places: vec![Place::port(service.port)] }
    }

    /// Reads `SERVICE[=ADDR[,ADDR]...]`.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let name = text.split('=').next().unwrap_or_default();
        Target::of(service::named(name).ok_or_else(|| unknown(text))?, text)
    }

    /// Reads `NAME[=ADDR[,ADDR]...]`, where the name is that of a service of this kind.
    pub(crate) fn of(service: &'static Service, text: &str) -> Result<Target, String> {
        let Some((name, places)) = text.split_once('=') else { return Ok(Target::usual(service)) };
        let place = |(number, place)| {
            Place::parse(place).map_err(|why| match service::begins_with_one(place) {
                true if number > 0 => {
                    format!("write {}", text.replace(&format!(",{place}"), &format!(" {place}")))
                }
                _ => why,
            })
        };
        let places = places.split(',').enumerate().map(place).collect::<Result<Vec<_>, _>>()?;
        if service.http && places.iter().any(|place| place.layers.has(Layer::WebSocket)) {
            let plain = text.replace("ws:", "");
            return Err(format!("{name} has WebSocket at its paths /ws/NAME: write {plain}"));
        }
        Ok(Target { service, places })
    }

    /// Its addresses, as they are written.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.places.iter().map(Place::to_string).collect()
    }

    /// Whether it listens on `--host`.
    pub(crate) fn goes_by_host(&self) -> bool {
        !self.service.http && self.places.iter().any(Place::goes_by_host)
    }

    /// Where it is to listen.
    pub(crate) fn endpoints(
        &self,
        host: &Address,
        inherited: &Inherited,
    ) -> Result<Vec<Endpoint>, Failure> {
        let host = if self.service.http { &LOCALHOST } else { host };
        let places = self.places.iter().map(|place| place.endpoints(host, inherited));
        Ok(places.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

/// Why this is no target. The layers stand in front of the address, not of the service.
fn unknown(text: &str) -> String {
    match Layers::parse(text) {
        Ok((layers, rest)) if !layers.is_empty() && service::begins_with_one(rest) => {
            let (name, place) = rest.split_once('=').unwrap_or((rest, "PORT"));
            format!("write {name}={layers}{place}")
        }
        Ok(_) => service::unknown(text),
        Err(why) => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::address::host;

    fn endpoints(target: &Target, host: &Address) -> Vec<Endpoint> {
        target.endpoints(host, &Inherited::default()).unwrap()
    }

    #[test]
    fn every_form_of_an_address() {
        for (text, name, address) in [
            ("echo", "echo", "127.0.0.1:2323"),
            ("time", "time", "127.0.0.1:2205"),
            ("presence", "presence", "127.0.0.1:9907"),
            ("echo=0", "echo", "127.0.0.1:0"),
            ("echo=65535", "echo", "127.0.0.1:65535"),
            ("time=0.0.0.0:80", "time", "0.0.0.0:80"),
            ("time=[::1]:80", "time", "[::1]:80"),
            ("presence=unix:/tmp/a=b:c", "presence", "unix:/tmp/a=b:c"),
            ("echo=proxy:2323", "echo", "proxy:127.0.0.1:2323"),
            ("echo=1,proxy:2,unix:/a", "echo", "127.0.0.1:1 proxy:127.0.0.1:2 unix:/a"),
            #[cfg(feature = "tls")]
            ("echo=proxy:tls:unix:/a", "echo", "proxy:tls:unix:/a"),
            #[cfg(feature = "tls")]
            ("echo=tls:2323", "echo", "tls:127.0.0.1:2323"),
            #[cfg(feature = "tls")]
            ("echo=tls:[::1]:0", "echo", "tls:[::1]:0"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(target.service.name, name, "{text}");
            let host = host("127.0.0.1").unwrap();
            let all: Vec<_> = endpoints(&target, &host).iter().map(Endpoint::to_string).collect();
            assert_eq!(all.join(" "), address, "{text}");
        }
    }

    #[test]
    fn a_port_goes_to_the_host() {
        let echo = Target::parse("echo").unwrap();
        for (text, address) in [
            ("::", "[::]:2323"),
            ("localhost", "localhost:2323"),
            ("fe80::1%2", "[fe80::1%2]:2323"),
            ("fe80::1%eth0", "[fe80::1%eth0]:2323"),
        ] {
            assert_eq!(endpoints(&echo, &host(text).unwrap())[0].to_string(), address);
        }
        let everywhere = host("::").unwrap();
        for (text, address) in [
            ("web", "127.0.0.1:8023"),
            ("web=0", "127.0.0.1:0"),
            ("web=[::]:80", "[::]:80"),
            ("web=proxy:80", "proxy:127.0.0.1:80"),
        ] {
            let web = Target::parse(text).unwrap();
            assert_eq!(endpoints(&web, &everywhere)[0].to_string(), address);
            assert!(!web.goes_by_host());
        }
        for text in ["", "fe80::1", "127.0.0.1:80", "http://a", "unix:/a", "80"] {
            assert!(host(text).unwrap_err().contains("127.0.0.1, ::1"), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, words) in [
            ("", "unknown service; the services are echo, time, presence"),
            ("echo=", "the address is missing: write PORT"),
            ("echo=localhost", "write localhost:PORT"),
            ("echo=/tmp/socket", "unix:/tmp/socket"),
            ("echo=65536", "from 0 to 65535"),
            ("echo=-1", "write HOST:PORT"),
            ("echo=localhost:x", "from 0 to 65535"),
            ("echo=unix:", "path"),
            ("echo=1,", "the address is missing"),
            ("echo=systemd:", "write systemd:NAME, as FileDescriptorName= has it"),
            ("echo=systemd:a:80", "systemd.:a:80 for a host called so"),
            ("echo=1,time=2", "write echo=1 time=2"),
            ("echo=1,2,time", "write echo=1,2 time"),
            ("web=ws:8023", "write web=8023"),
            ("web=0,proxy:ws:80", "/ws/NAME: write web=0,proxy:80"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
