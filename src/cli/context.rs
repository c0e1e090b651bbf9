//! The input of a command: flags, arguments, the printer, and a client if the command asks for one.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::argv::{Flags, Word, path_of, text_of};
use super::exit::{Exit, Failure};
use super::explain;
use super::format::{Display, Format};
use super::hints;
use super::json;
use super::printer::Printer;
use super::spec::Program;
use crate::client::{Client, Config, Credentials, Deadline, Error, Reach, TlsOptions};
use crate::clock::{Clock, SystemClock};
use crate::dns::{self, Resolver, Service};
use crate::{go, limits, types};

/// One run of a command.
pub(super) struct Context {
    pub program: Program,
    pub flags: Flags,
    pub args: Vec<Word>,
    /// The whole command line; `watch` finds its command behind `--` in it.
    pub words: Vec<Word>,
    pub printer: Printer,
    pub clock: Arc<SystemClock>,
    /// The output format. Simple until [`Context::config`] has read the flags.
    pub display: Display,
}

impl Context {
    pub(super) fn new(
        program: Program,
        flags: Flags,
        args: Vec<Word>,
        words: Vec<Word>,
        printer: Printer,
    ) -> Self {
        let display = Display {
            format: Format::Simple,
            hex: false,
            value_only: false,
            decodes: false,
            is_chosen: false,
            is_rusd: program == Program::Rusd,
            is_titled: Arc::default(),
            out: printer.clone(),
        };
        let clock = Arc::new(SystemClock::new());
        Self { program, flags, args, words, printer, clock, display }
    }

    /// An argument as it was given; empty if it is missing.
    pub(super) fn arg(&self, index: usize) -> &[u8] {
        self.args.get(index).map_or(b"", Vec::as_slice)
    }

    /// An argument that becomes a string field of a request; fails unless it is UTF-8.
    pub(super) fn text(&self, index: usize) -> Result<String, Failure> {
        text_of(self.arg(index))
    }

    /// An argument as the path of a file.
    pub(super) fn path(&self, index: usize) -> &Path {
        path_of(self.arg(index))
    }

    /// The end of `--command-timeout`, counted from this call. Time for which a server is waited
    /// for is not part of it.
    pub(super) fn deadline(&self) -> Deadline {
        let time = self.flags.duration("command-timeout");
        Deadline::after(time.saturating_add(self.flags.duration("wait")))
    }

    /// The deadline of a call that takes as long as there is to do: etcdctl's, or under the name rusd
    /// `CLIENT_LONG_CALL_PATIENCE` unless another was asked for. A server that is gone ends it sooner.
    pub(super) fn long_deadline(&self) -> Deadline {
        match self.program == Program::Rusd && !self.flags.changed("command-timeout") {
            true => Deadline::after(limits::CLIENT_LONG_CALL_PATIENCE),
            false => self.deadline(),
        }
    }

    /// The deadline of a call for which etcdctl has none. Under the name rusd every call that is
    /// not meant to wait has one.
    pub(super) fn late_deadline(&self) -> Deadline {
        match self.program {
            Program::Rusd => self.deadline(),
            _ => Deadline::NONE,
        }
    }

    /// How many endpoints are asked at the same time. etcdctl asks one after the other.
    pub(super) fn asked_at_once(&self) -> usize {
        match self.program {
            Program::Rusd => limits::CLIENT_ENDPOINTS_AT_ONCE,
            _ => 1,
        }
    }

    /// An error of the client as a part of another text, or of a table.
    pub(super) fn words(&self, error: &Error) -> String {
        match self.program {
            Program::Rusd => explain::explain(error).text,
            _ => error.to_string(),
        }
    }

    /// Tells that an endpoint has not answered, in etcdctl's words or in rusd's own.
    pub(super) fn tell(&self, etcdctls: String, endpoint: &str, error: &Error) {
        let text = match (self.program, error) {
            (Program::Rusd, Error::Unreachable(_)) => format!("Error: {}", self.words(error)),
            (Program::Rusd, _) => format!("Error: {endpoint}: {}", self.words(error)),
            _ => etcdctls,
        };
        self.printer.err(format!("{text}\n"));
    }

    pub(super) fn reach(&self) -> Reach {
        match self.program {
            Program::Rusd => Reach::AtOnce { wait: self.flags.duration("wait") },
            _ => Reach::UntilDeadline,
        }
    }

    /// Reads the environment and the global flags. Errors come in etcdctl's order.
    pub(super) async fn config(&mut self) -> Result<Config, Failure> {
        let config = self.config_as_given().await?;
        if self.program == Program::Rusd
            && let Err(text) = config.tls.validate()
        {
            return Err(Failure::bytes(Exit::BadArguments, self.of_tls_files(&config.tls, text)));
        }
        Ok(config)
    }

    /// As [`Self::config`], for commands that judge the files for TLS themselves.
    pub(super) async fn config_as_given(&mut self) -> Result<Config, Failure> {
        self.read_environment()?;
        if self.flags.bool("debug") {
            self.printer.show_details();
            for flag in self.flags.iter().filter(|flag| flag.inherited) {
                let name = variable(&flag.name);
                self.printer.err([name.as_bytes(), b"=", &flag.display(), b"\n"].concat());
            }
        }
        let endpoints = self.endpoints().await?;
        for name in ["cert", "key", "cacert"] {
            if self.flags.changed(name) && self.flags.bytes(name).is_empty() {
                let text = format!("empty string is passed to --{name} option");
                return Err(Failure::arguments(text));
            }
        }
        let credentials = self.credentials()?;
        self.display = self.display_of_flags()?;
        self.printer.set_colour(self.flags.bytes("color")).map_err(Failure::arguments)?;
        let path = |name| self.flags.path(name).map(PathBuf::from);
        let tls = TlsOptions {
            cert: path("cert"),
            key: path("key"),
            ca: path("cacert"),
            insecure_transport: self.flags.bool("insecure-transport"),
            skip_verify: self.flags.bool("insecure-skip-tls-verify"),
            // As in etcdctl: without --insecure-discovery, the servers must have certificates for
            // the domain.
            server_name: match self.flags.bool("insecure-discovery") {
                true => String::new(),
                false => self.flags.string("discovery-srv").to_owned(),
            },
        };
        let size = |name| usize::try_from(self.flags.int(name)).unwrap_or_default();
        Ok(Config {
            endpoints,
            dial_timeout: self.flags.duration("dial-timeout"),
            keep_alive_time: self.flags.duration("keepalive-time"),
            keep_alive_timeout: self.flags.duration("keepalive-timeout"),
            send_bytes_max: size("max-request-bytes"),
            receive_bytes_max: size("max-recv-bytes"),
            tls,
            credentials,
            reach: self.reach(),
            logger: "etcd-client",
        })
    }

    /// What is wrong with the files for TLS, with the variables that name them: one may be left from
    /// another cluster.
    fn of_tls_files(&self, tls: &TlsOptions, etcdctls: Vec<u8>) -> Vec<u8> {
        let names = ["cert", "key", "cacert"].map(|name| (name, variable(name)));
        let is_set = |(name, variable): &&(&str, String)| {
            let value = env::var_os(variable).map(OsString::into_vec);
            value.is_some_and(|value| value == self.flags.bytes(name))
        };
        let set: Vec<&str> = names.iter().filter(is_set).map(|(_, it)| it.as_str()).collect();
        let mut text = match (&tls.cert, &tls.key) {
            (Some(_), None) => b"--cert is given without --key; they go together".to_vec(),
            (None, Some(_)) => b"--key is given without --cert; they go together".to_vec(),
            _ => etcdctls,
        };
        if !set.is_empty() {
            let named = format!(". Set in the environment: {}", set.join(", "));
            text.extend_from_slice(named.as_bytes());
        }
        text
    }

    /// The display that the global flags ask for.
    pub(super) fn display_of_flags(&self) -> Result<Display, Failure> {
        let format = Format::parse(self.program, self.flags.bytes("write-out"))?;
        let decodes = self.flags.bool("decode");
        if decodes && !(format == Format::Simple || format == Format::Table || format.is_records())
        {
            let text = "--decode goes with the formats simple, table, yaml and jsonl";
            return Err(Failure::new(Exit::BadFeature, text));
        }
        Ok(Display {
            format,
            hex: self.flags.bool("hex"),
            decodes,
            is_chosen: self.flags.changed("write-out"),
            ..self.display.clone()
        })
    }

    /// A client, logged in if the flags name a user.
    pub(super) async fn client(&mut self) -> Result<Client, Failure> {
        let config = self.config().await?;
        self.connect(config).await
    }

    pub(super) async fn connect(&self, config: Config) -> Result<Client, Failure> {
        config.tls.validate().map_err(|text| Failure::bytes(Exit::BadArguments, text))?;
        let log = Arc::new(self.printer.clone());
        Client::connect(config, log, self.clock.clone()).await.map_err(|error| {
            let is_argument = matches!(error, Error::Tls(_));
            let exit = if is_argument { Exit::BadArguments } else { Exit::BadConnection };
            Failure::of(exit, &error, error.clone())
        })
    }

    /// The endpoints from the SRV records of --discovery-srv, or else those of --endpoints.
    async fn endpoints(&self) -> Result<Vec<String>, Failure> {
        let domain = self.flags.string("discovery-srv");
        if !domain.is_empty() {
            let found = self.discover(domain).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let endpoints = self.flags.strings("endpoints");
        Ok(endpoints.iter().map(|endpoint| endpoint.trim().to_string()).collect())
    }

    async fn discover(&self, domain: &str) -> Result<Vec<String>, Failure> {
        let suffix = match self.flags.string("discovery-srv-name") {
            "" => String::new(),
            name => format!("-{name}"),
        };
        let resolver = Resolver::new(env::var_os(dns::VARIABLE));
        let look_up = async |scheme: &str, service: &str| {
            let service = format!("{service}{suffix}");
            let found = resolver.services(&*self.clock, &service, domain).await?;
            let url = |it: &Service| format!("{scheme}://{}:{}", it.host, it.port);
            Ok::<Vec<String>, dns::Error>(found.iter().map(url).collect())
        };
        let secure = look_up("https", "etcd-client-ssl").await;
        let plain = look_up("http", "etcd-client").await;
        if let (Err(first), Err(second)) = (&secure, &plain) {
            return Err(Failure::error(format!("dns lookup errors: {first} and {second}")));
        }
        let mut endpoints = secure.unwrap_or_default();
        let plain = plain.unwrap_or_default();
        if self.flags.bool("insecure-discovery") {
            endpoints.extend(plain);
        } else {
            for endpoint in plain {
                let endpoint = go::quote(endpoint.as_bytes());
                self.printer.err(format!("ignoring discovered insecure endpoint {endpoint}\n"));
            }
        }
        Ok(endpoints)
    }

    fn credentials(&self) -> Result<Credentials, Failure> {
        let token = self.flags.bytes("auth-jwt-token");
        if !token.is_empty() {
            return Ok(Credentials::Token(token.to_vec()));
        }
        self.password_login("user", "password")
    }

    /// The credentials in the flags with these names: user and password, `user:password`, or a user
    /// whose password is asked for.
    pub(super) fn password_login(
        &self,
        user: &str,
        password: &str,
    ) -> Result<Credentials, Failure> {
        let (user, password) = (self.flags.bytes(user), self.flags.bytes(password));
        if user.is_empty() {
            return Ok(Credentials::None);
        }
        let asked;
        let colon = user.iter().position(|byte| *byte == b':');
        let (user, password) = match colon {
            _ if !password.is_empty() => (user, password),
            Some(at) => (&user[..at], &user[at + 1..]),
            None => {
                asked = self.ask("Password: ").map_err(Failure::error)?;
                (user, asked.as_slice())
            }
        };
        let refused = |failure| Failure { exit: Exit::BadConnection, ..failure };
        let text = |word| text_of(word).map_err(refused);
        Ok(Credentials::Password { user: text(user)?, password: text(password)? })
    }

    /// Prints a prompt to standard output and reads one line. A terminal does not echo it.
    pub(super) fn ask(&self, prompt: impl AsRef<[u8]>) -> io::Result<Word> {
        self.printer.out(prompt);
        let hidden = Hidden::new();
        let mut line = Word::new();
        io::stdin().lock().read_until(b'\n', &mut line)?;
        drop(hidden);
        self.printer.out("\n");
        Ok(line.trim_ascii().to_vec())
    }

    /// Standard input to its end.
    pub(super) fn read_stdin(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Sets flags that were not given from variables `ETCDCTL_*`.
    fn read_environment(&mut self) -> Result<(), Failure> {
        if env::var_os("ETCD_CLIENT_DEBUG").is_some_and(|level| {
            ["error", "dpanic", "panic", "fatal"].iter().any(|it| level.eq_ignore_ascii_case(it))
        }) {
            self.printer.silence_warnings();
        }
        let mut used = Vec::new();
        let mut given = Vec::new();
        let names: Vec<_> = self
            .flags
            .iter()
            .filter(|flag| flag.inherited)
            .map(|flag| (flag.name.clone(), flag.changed))
            .collect();
        for (name, changed) in names {
            let key = variable(&name);
            if changed {
                given.push(key);
                continue;
            }
            let value = env::var_os(&key).map(OsString::into_vec).unwrap_or_default();
            if !value.is_empty() {
                if let Some(flag) = self.flags.get_mut(&name)
                    && let Err(takes) = flag.set(&value)
                    && self.program == Program::Rusd
                {
                    let text = hints::wrong_value(&key, &go::quote(&value), &takes);
                    return Err(Failure::bytes(Exit::Usage, text));
                }
                // etcdctl ignores a malformed value without a message.
                used.push(key);
            }
        }
        if self.flags.get("progress-notify").is_some() {
            used.extend(["ETCDCTL_WATCH_KEY".to_string(), "ETCDCTL_WATCH_RANGE_END".to_string()]);
        }
        for (key, value) in env::vars_os() {
            let (key, value) = (key.into_vec(), value.into_vec());
            if used.iter().any(|name| name.as_bytes() == key) {
                continue;
            }
            if given.iter().any(|name| name.as_bytes() == key) {
                if self.program == Program::Rusd {
                    // Under the name rusd the flag wins: `export ETCDCTL_ENDPOINTS=…` need not be
                    // unset for one command to another endpoint.
                    continue;
                }
                self.log("fatal", 86, CONFLICT, &key, ",\"stacktrace\":\"\"");
                return Err(Failure::silent(Exit::Error));
            }
            if key.starts_with(b"ETCDCTL_") && self.program == Program::Rusd {
                self.tell_unknown(&key, &value);
            } else if key.starts_with(b"ETCDCTL_") {
                let pair = [key.as_slice(), b"=", &value].concat();
                self.log("warn", 94, "unrecognized environment variable", &pair, "");
            }
        }
        Ok(())
    }

    /// Says that no flag has this variable. `ETCDCTL_API` chose between two programs once, and
    /// `watch` reads those about it. An empty one is as good as none.
    fn tell_unknown(&self, key: &[u8], value: &[u8]) {
        if value.is_empty() || key == b"ETCDCTL_API" || key.starts_with(b"ETCDCTL_WATCH_") {
            return;
        }
        let names: Vec<_> = self.flags.iter().map(|flag| variable(&flag.name)).collect();
        let shown = std::str::from_utf8(key).unwrap_or_default();
        let near = types::nearest(shown, names.iter().map(String::as_str));
        let hint = near.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        let before = b"Warning: the variable ".as_slice();
        let after = b" is set, and no flag reads it".as_slice();
        self.printer.err([before, key, after, hint.as_bytes(), b"\n"].concat());
    }

    fn log(&self, level: &str, line: u32, message: &str, variable: &[u8], tail: &str) {
        let (message, variable) = (json::string(message.as_bytes()), json::string(variable));
        let time = go::timestamp(self.clock.unix_nanos());
        // Not by the client's logger, which alone `ETCD_CLIENT_DEBUG` makes quiet.
        self.printer.err(format!(
            "{{\"level\":\"{level}\",\"ts\":\"{time}\",\"caller\":\"flags/flag.go:{line}\",\
             \"msg\":{message},\"environment-variable\":{variable}{tail}}}\n"
        ));
    }
}

const CONFLICT: &str = "conflicting environment variable is shadowed by corresponding \
    command-line flag (either unset environment variable or disable flag))";

/// The environment variable of a flag.
fn variable(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.replace('-', "_").to_uppercase())
}

/// Switches the terminal's echo off until this is dropped.
struct Hidden(Option<rustix::termios::Termios>);

impl Hidden {
    fn new() -> Self {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Self(None);
        }
        let Ok(before) = rustix::termios::tcgetattr(&stdin) else { return Self(None) };
        let mut silent = before.clone();
        silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
        let action = rustix::termios::OptionalActions::Now;
        match rustix::termios::tcsetattr(&stdin, action, &silent) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let action = rustix::termios::OptionalActions::Now;
            // The error is ignored: the terminal may be gone.
            let _ = rustix::termios::tcsetattr(io::stdin(), action, before);
        }
    }
}
