//! What is to be served: the file, overridden by the command line.

use std::path::PathBuf;

use reactor::Limits;

use super::file::{self, AddressFrom, File, Table};
use super::options::{EachService, Whole, command_of};
use super::words::{merge, parse};
use crate::cli::failure::Failure;
use crate::cli::service::{self, ServiceOptions};
use crate::cli::target::Target;
use crate::cli::unused_options::{GivenOptions, Use};

/// What to serve, and how: the arguments of `serve` and of `config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to serve, and where; without any and without --config, every service at its default
    /// port.
    ///
    /// ADDR is PORT (on --host), HOST:PORT, [IPV6]:PORT, unix:PATH, or systemd:NAME for the sockets that
    /// systemd has opened under this name (FileDescriptorName=); port 0 takes a free one. If a HOST has
    /// several addresses, the service listens on all of them. Without ADDR it listens on its default
    /// port on --host. The service web is at 127.0.0.1 unless its ADDR names a host: it shows who is
    /// connected, and not to everybody for whom --host is.
    ///
    /// In front of it may stand what clients speak there, in the order of the bytes on the wire.
    /// proxy: (echo=proxy:2323) is a PROXY header, version 1 or 2, in which a balancer says who the
    /// client is; see --proxy-from. tls: is TLS; see --tls-cert. ws: is WebSocket, a line a message, for
    /// pages in browsers; see --origin. A host called proxy or systemd is written with a dot: proxy.:PORT.
    ///
    /// Several ADDRs with commas between them are doors of one service: echo=2323,unix:/run/e.sock.
    /// A service that is given twice is two, which share nothing; the log calls the second echo-2.
    ///
    /// With --config, a SERVICE may also be the name of a table. It takes the place of the address
    /// there; one without a table is one more.
    // Which names there are, the file says.
    #[arg(value_name = "SERVICE[=ADDR[,ADDR]...]")]
    targets: Vec<String>,

    /// Read services and options from this file too; options on the command line override it.
    ///
    /// It is TOML. Its keys are the long names of these options. Each table is a service: [echo], or
    /// [lunch] with service = "presence". It may have an address and options of its own; those above all
    /// tables are for every service. Paths in it are relative to the working directory, as on the command
    /// line.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    // Clap has checked them. They are parsed again, together with those of the file.
    #[command(flatten)]
    #[allow(dead_code, reason = "they are read again together with those of the file")]
    whole: Whole,

    #[command(flatten)]
    #[allow(dead_code, reason = "they are read again together with those of the file")]
    each: EachService,
}

/// The sources of a plan. At a reload the file may have changed.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) file: Option<PathBuf>,
    targets: Vec<String>,
    /// On the command line.
    given: GivenOptions,
}

/// What is to be served.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) whole: Whole,
    /// Of [`Whole`].
    pub(crate) given: GivenOptions,
    /// At least one; no two with the same name.
    pub(crate) services: Vec<PlannedService>,
}

/// One of the services, with its options.
#[derive(Clone, Debug)]
pub(crate) struct PlannedService {
    /// What it goes by in the log, and for web.
    pub(crate) name: String,
    pub(crate) target: Target,
    address_from: AddressFrom,
    pub(crate) options: EachService,
    pub(crate) limits: Limits,
    /// Of [`EachService`], those that it uses.
    pub(crate) given: GivenOptions,
}

impl Arguments {
    /// `given` is what was given on the command line.
    pub(crate) fn source(&self, given: &GivenOptions) -> Source {
        let (file, targets) = (self.config.clone(), self.targets.clone());
        Source { file, targets, given: given.clone() }
    }
}

impl Source {
    /// Reads the file if there is one.
    pub(crate) fn plan(&self) -> Result<Plan, Failure> {
        let Some(path) = &self.file else {
            let mut targets = self.targets.clone();
            if targets.is_empty() {
                targets = service::SERVICES.iter().map(|it| it.name.to_owned()).collect();
            }
            return Plan::merged(File::default(), &targets, &self.given);
        };
        self.plan_of(&file::read(path)?, &path.display().to_string())
    }

    /// The same where this is in the file.
    pub(crate) fn plan_of(&self, bytes: &[u8], name: &str) -> Result<Plan, Failure> {
        let file = File::parse(bytes, name)?;
        if file.tables.is_empty() && self.targets.is_empty() {
            let why = "there is no service in it: write a table, as [echo]";
            return Err(Failure::Runtime(format!("--config {name}: {why}")));
        }
        Plan::merged(file, &self.targets, &self.given)
    }
}

impl Plan {
    /// Makes a plan of a file, overridden by the command line.
    pub(super) fn merged(
        file: File,
        targets: &[String],
        given: &GivenOptions,
    ) -> Result<Plan, Failure> {
        let File { whole, each, tables } = file;
        let given_to_whole = merge(given, &whole, &command_of::<Whole>());
        let whole: Whole = parse(&given_to_whole)?;
        let services = with_targets(tables, targets)?;
        let above = merge(given, &GivenOptions::default(), &command_of::<EachService>());
        refuse_unused(&above, &each, &services)?;
        let services = services.into_iter().map(|table| planned(table, &above, &each));
        let services = services.collect::<Result<Vec<_>, _>>()?;
        let checked = whole.check(&given_to_whole, services.iter().map(|service| &service.target));
        checked.map_err(|failure| given_to_whole.located(failure))?;
        Ok(Plan { whole, given: given_to_whole, services })
    }
}

impl PlannedService {
    /// What it is called where it is said that it listens.
    pub(crate) fn label(&self) -> &str {
        match &self.address_from {
            AddressFrom::File(_) => &self.name,
            AddressFrom::CommandLine(name) => name,
        }
    }

    /// Whether its handler reads this option only when it is made, so that another value needs another
    /// handler.
    pub(crate) fn is_of_handler(&self, id: &str) -> bool {
        let sites = self.target.service.http && ["origin", "web_host"].contains(&id);
        sites || command_of::<ServiceOptions>().get_arguments().any(|arg| *arg.get_id() == *id)
    }

    /// The options in force once this service follows `next`, while its handler stays as it is.
    pub(crate) fn followed_by(&self, next: &PlannedService) -> PlannedService {
        let kept = self.given.0.iter().filter(|option| self.is_of_handler(&option.id));
        let new = next.given.0.iter().filter(|option| !self.is_of_handler(&option.id));
        PlannedService { given: GivenOptions(new.chain(kept).cloned().collect()), ..next.clone() }
    }

    /// The same failure, with its place in the file: that of the option it begins with, or of the address.
    pub(crate) fn located(&self, failure: Failure) -> Failure {
        match &self.address_from {
            AddressFrom::File(place) if !failure.to_string().starts_with("--") => {
                place.failure(format_args!("address: {failure}"))
            }
            _ => self.given.located(failure),
        }
    }

    /// How another address is chosen for it.
    pub(crate) fn how(&self) -> String {
        match &self.address_from {
            AddressFrom::File(_) => format!("with address in [{}]", self.name),
            AddressFrom::CommandLine(name) => format!("with {name}=PORT"),
        }
    }
}

/// The services of the file and of the command line. One that is given there takes the place of the
/// address in the table of that name; the next one of the name has a number behind it.
fn with_targets(mut tables: Vec<Table>, targets: &[String]) -> Result<Vec<Table>, Failure> {
    let in_file = tables.len();
    let names: Vec<_> = tables.iter().map(|table| table.name.clone()).collect();
    let names = match &*names.join(", ") {
        "" => String::new(),
        names => format!(", and the tables of the file {names}"),
    };
    for text in targets {
        let called = text.split('=').next().unwrap_or_default();
        let address_from = AddressFrom::CommandLine(called.to_owned());
        let table = tables[..in_file].iter_mut().find(|table| table.name == called);
        let target = match &table {
            Some(table) => Target::of(table.target.service, text),
            None => Target::parse(text),
        };
        let target = target.map_err(|why| {
            let is_known = table.is_some() || service::named(called).is_some();
            let names = if is_known { "" } else { &names };
            let what =
                format!("invalid value '{text}' for 'SERVICE[=ADDR[,ADDR]...]': {why}{names}");
            // On a line, as what clap says.
            let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
            Failure::Usage(format!("{what}; see reactor serve --help"))
        })?;
        if let Some(table) =
            table.filter(|table| matches!(table.address_from, AddressFrom::File(_)))
        {
            (table.target, table.address_from) = (target, address_from);
            continue;
        }
        let numbered = (2..).map(|number| format!("{called}-{number}"));
        let taken = |name: &String| tables.iter().any(|table| table.name == *name);
        let name = [called.to_owned()].into_iter().chain(numbered).find(|name| !taken(name));
        let name = name.expect("there are numbers enough");
        tables.push(Table { name, target, address_from, options: GivenOptions::default() });
    }
    Ok(tables)
}

/// Who uses the options of a service.
fn uses(service: &Table, above: &GivenOptions, below: &GivenOptions) -> Vec<Use> {
    let mut uses = EachService::uses(&service.target);
    let rate = [above, &service.options, below].iter().any(|given| given.get("rate").is_some());
    uses.push(Use { options: &["burst"], used: rate, user: "--rate N/s; add it" });
    uses
}

/// Refuses options of a table that its service does not use, and options for all services that none
/// uses.
fn refuse_unused(
    above: &GivenOptions,
    below: &GivenOptions,
    services: &[Table],
) -> Result<(), Failure> {
    let mut together: Vec<Use> = Vec::new();
    for service in services {
        let uses = uses(service, above, below);
        service.options.refuse_unused(&uses)?;
        match together.is_empty() {
            true => together = uses,
            false => together.iter_mut().zip(uses).for_each(|(all, it)| all.used |= it.used),
        }
    }
    above.refuse_unused(&together)?;
    below.refuse_unused(&together)
}

/// A service with its options: those of the command line override those of its table, which override those
/// that the file has for all services.
fn planned(
    table: Table,
    above: &GivenOptions,
    below: &GivenOptions,
) -> Result<PlannedService, Failure> {
    let command = command_of::<EachService>();
    let mut given = merge(above, &merge(&table.options, below, &command), &command);
    // What another service uses is given to this one too.
    let uses = uses(&table, above, below);
    let unused = |id: &str| uses.iter().any(|it| !it.used && it.options.contains(&id));
    given.0.retain(|option| !unused(&option.id));
    let options: EachService = parse(&given)?;
    let limits = options.limits().map_err(|failure| given.located(failure))?;
    let Table { name, target, address_from, .. } = table;
    let limits = target.service.limits(limits);
    Ok(PlannedService { name, target, address_from, options, limits, given })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_given_again_has_a_number() {
        let targets = ["echo", "time=1,2", "echo=3", "lunch=5", "echo=4", "lunch"];
        let file = File::parse(b"[lunch]\nservice = \"presence\"", "f").unwrap();
        let tables = with_targets(file.tables, &targets.map(str::to_owned)).unwrap();
        let named = tables.iter().map(|it| format!("{}={}", it.name, it.target.addresses()[0]));
        let named: Vec<_> = named.collect();
        assert_eq!(named.join(" "), "lunch=5 echo=2323 time=1 echo-2=3 echo-3=4 lunch-2=9907");
        assert!(
            tables.iter().all(|table| matches!(table.address_from, AddressFrom::CommandLine(_)))
        );
    }
}
