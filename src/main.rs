//! The `tidegate` program: command line and file become a configuration, that becomes a server, and
//! its end becomes an exit code. Prints and exits; decides nothing that a test would want to reach.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tidegate::admission::TokenDemand;
use tidegate::config::{
    Config, File, Flags, Host, Listen, Loaded, Profile, Source, Sources, keys_markdown, units,
};
use tidegate::keys::{self, KeyRing};
use tidegate::logging::{self, LinesLost};
use tidegate::metrics::metrics_markdown;
use tidegate::monitor::{self, Monitoring, Subject};
use tidegate::routes::reload::Places;
use tidegate::server::Routes;
use tidegate::tls::Acceptor;
use tidegate::{Server, Settings, api, demo, hooks, routes, ws};

use cli::{Command, Invocation};
use reload::Reloader;

mod cli;
mod reload;
mod token;

/// The allocator that gives memory back after a burst; benches/README.md has the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // A variable that is not UTF-8 keeps its place with marks in it: its key then says so.
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment: Vec<_> = std::env::vars_os()
        .map(|(k, v)| (lossy(k), lossy(v)))
        .collect();
    match Invocation::parse(std::env::args_os(), &environment) {
        Ok(invocation) => execute(invocation, environment),
        Err(usage) => {
            // Nobody is left to tell if this fails.
            let _ = usage.print();
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(USAGE))
        }
    }
}

fn execute(invocation: Invocation, environment: Vec<(String, String)>) -> ExitCode {
    match invocation.command {
        Command::Keys => return print(&keys_markdown()),
        Command::Metrics => return print(&metrics_markdown()),
        _ => {}
    }
    let origin = Origin {
        file: invocation.file,
        flags: invocation.flags,
        environment,
    };
    let loaded = match load(&origin) {
        Ok(loaded) => loaded,
        Err(faults) => {
            say(&format!("{faults}\n"));
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    match invocation.command {
        Command::Config => print(&loaded.to_toml()),
        Command::Check => check(&loaded),
        Command::Token(arguments) => token::execute(*arguments, &loaded.config),
        Command::Serve | Command::Keys | Command::Metrics => serve(&loaded, origin),
    }
}

/// Where the configuration comes from, so that it can be read again.
struct Origin {
    file: Option<PathBuf>,
    flags: Flags,
    environment: Vec<(String, String)>,
}

/// Reads the file, if any, and makes a configuration of it and the rest.
fn load(origin: &Origin) -> Result<Loaded, String> {
    let name = origin.file.as_ref().map(|path| path.to_string_lossy());
    let text = match &origin.file {
        Some(path) => read(path).map_err(|error| {
            format!(
                "the configuration file {} cannot be read: {error}",
                path.display()
            )
        })?,
        None => String::new(),
    };
    let sources = Sources {
        flags: origin.flags.clone(),
        environment: origin.environment.clone(),
        file: name.as_ref().map(|path| File { path, text: &text }),
        host: Host::detect(),
    };
    Config::load(&sources).map_err(|errors| errors.to_string())
}

/// Reads a file that may be a pipe, but not without end.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "longer than 1 MiB",
        ));
    }
    Ok(text)
}

/// Says whether the configuration holds: by itself, and with the files it names.
fn check(loaded: &Loaded) -> ExitCode {
    let held = Parts::read(&loaded.config).and_then(|parts| Ok(KeyRing::check(&parts.issuers)?));
    if let Err(error) = held {
        say(&format!("{error}\n"));
        return ExitCode::from(BAD_CONFIGURATION);
    }
    let warnings = loaded.warnings.iter();
    let mut text: String = warnings.map(|w| format!("warning: {w}\n")).collect();
    text += "the configuration holds\n";
    print(&text)
}

/// What a configuration asks for, with the files it names read: what `check` looks at and `serve` starts.
struct Parts {
    hooks: Option<hooks::Configured>,
    routes: Routes,
    settings: Settings,
    /// Their files are read by the key ring.
    issuers: Vec<keys::IssuerKeys>,
    /// `None`: monitoring is off.
    monitor: Option<monitor::Settings>,
}

impl Parts {
    /// # Errors
    /// The first file that cannot be used.
    fn read(config: &Config) -> Result<Self, Box<dyn Error>> {
        let hooks = hooks::configured(config)?;
        let on_routes = hooks.as_ref().map(|hooks| &*hooks.routes);
        let routes = routes::with_hooks(config, on_routes.unwrap_or_default())?;
        let mut settings = Settings::from_config(config)?;
        if let Some(api) = api::configured::settings(config)? {
            settings.endpoint = Some(api::endpoint(&api));
        }
        let monitor = match config.monitor.listen.is_empty() {
            true => None,
            false => Some(monitor::Settings::from_config(config)?),
        };
        Ok(Self {
            hooks,
            routes,
            settings,
            issuers: keys::issuers(config),
            monitor,
        })
    }
}

fn serve(loaded: &Loaded, origin: Origin) -> ExitCode {
    let log = match logging::init(&loaded.config.log) {
        Ok(guard) => guard,
        Err(error) => {
            say(&format!("the log cannot be started: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key, source = %warning.source, "{}", warning.text);
    }

    let written = loaded.config.clone();
    let mut loaded = loaded.clone();
    let token = token::ready_made(&mut loaded.config);
    let prepared = Parts::read(&loaded.config).and_then(|mut parts| {
        let issuers = std::mem::take(&mut parts.issuers);
        let ring = (!issuers.is_empty()).then(|| KeyRing::start(issuers));
        Ok((parts, ring.transpose()?))
    });
    let (parts, keys) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            tracing::error!(%error, "the configuration cannot be used");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let source = (origin, written);
    match run(
        &loaded,
        source,
        parts,
        keys,
        token.as_deref(),
        log.lines_lost(),
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the server ended");
            ExitCode::FAILURE
        }
    }
}

/// The demonstration routes, where they are served.
fn demo_routes(config: &Config) -> Result<Routes, Box<dyn Error>> {
    if !config.demo_routes {
        return Ok(Vec::new());
    }
    let limits = ws::Limits {
        message_bytes_max: config.websocket.message_bytes_max,
        fragments_max: config.websocket.fragments_max,
        inflate_ratio_max: config.websocket.inflate_ratio_max,
    };
    let mut demo = demo::routes(&limits, config.websocket.compression)?;
    if config.profile == Profile::Development && config.has_keys() {
        // Open to everyone as before; but a token that is sent is judged, so that one can try it.
        demo.iter_mut()
            .for_each(|(route, _)| route.token = TokenDemand::Optional);
    }
    Ok(demo)
}

/// Serves until a signal ends it. `written` is what was loaded before it was given a secret for `token`,
/// which is one to try things out with.
fn run(
    loaded: &Loaded,
    (origin, written): (Origin, Config),
    parts: Parts,
    keys: Option<KeyRing>,
    token: Option<&str>,
    lines_lost: LinesLost,
) -> Result<(), Box<dyn Error>> {
    let config = &loaded.config;
    raise_descriptor_limit();
    let Parts {
        mut hooks,
        mut routes,
        mut settings,
        monitor,
        ..
    } = parts;
    let own = demo_routes(config)?;
    let places = Places::new(config, own.len());
    routes.extend(own);
    let keys = keys.map(Arc::new);
    if let Some(ring) = &keys {
        settings.verifier = Some(Arc::new(ring.verifiers()));
    }
    let acceptor = settings.acceptor.clone();
    let monitoring = monitor.map(|settings| start_monitoring(loaded, settings));
    let monitoring = monitoring.transpose()?.flatten();
    settings.reporter = monitoring.as_ref().map(Monitoring::reporter);
    let server = Server::start(settings, routes)?;
    if let Some(hooks) = &mut hooks {
        hooks.hooks.start(server.handle())?;
    }
    let reloads = Arc::default();
    if let Some(monitoring) = &monitoring {
        monitoring.watch(Subject {
            handle: server.handle(),
            acceptor: acceptor.clone(),
            lines_lost: Some(lines_lost),
            reloads: Arc::clone(&reloads),
            hooks: hooks.as_ref().map(|hooks| hooks.hooks.watch()),
        });
    }
    listen_for_signals(Reloader {
        origin,
        written,
        in_force: config.clone(),
        places,
        handle: server.handle(),
        acceptor: acceptor.clone(),
        keys,
        reloads,
    })?;
    let admin = monitoring.as_ref().map(Monitoring::addresses);
    say(&banner(
        config,
        server.addresses(),
        admin,
        acceptor.as_ref(),
        token,
    ));
    let counters = server.wait();
    if let Some(hooks) = hooks {
        // What is under way, and the ends of the connections that were closed just now.
        hooks.hooks.finish(config.shutdown.drain_timeout);
    }
    if let Some(monitoring) = monitoring {
        monitoring.finish();
    }
    tracing::info!(
        accepted = counters.accepted,
        messages_received = counters.messages_received,
        messages_sent = counters.messages_sent,
        "all connections have ended"
    );
    Ok(())
}

/// Starts the metrics thread. A second server of a developer does without,
/// where it was not asked for: its address is the first one's.
fn start_monitoring(
    loaded: &Loaded,
    mut settings: monitor::Settings,
) -> Result<Option<Monitoring>, Box<dyn Error>> {
    let config = &loaded.config;
    let warnings = loaded.warnings.iter();
    settings.warnings = warnings
        .map(|warning| format!("{}: {}", warning.key, warning.text))
        .collect();
    let is_default = *loaded.provenance.of("monitor.listen") == Source::Default;
    match Monitoring::start(settings) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && is_default
                && config.profile == Profile::Development =>
        {
            tracing::warn!(%error, "monitoring is off; set monitor.listen to another address");
            Ok(None)
        }
        started => Ok(Some(started?)),
    }
}

/// What is running, where, with which limits, and how to try it.
fn banner(
    config: &Config,
    addresses: &[SocketAddr],
    admin: Option<&[SocketAddr]>,
    acceptor: Option<&Acceptor>,
    token: Option<&str>,
) -> String {
    let url = |(listen, address): (&Listen, &SocketAddr)| {
        format!("{}://{address}", if listen.tls { "wss" } else { "ws" })
    };
    let urls: Vec<String> = config.listen.iter().zip(addresses).map(url).collect();
    let mut text = format!(
        "tidegate {} · {} profile · {} {}\n  listening on  {}\n",
        env!("CARGO_PKG_VERSION"),
        config.profile,
        config.reactors,
        if config.reactors == 1 {
            "reactor"
        } else {
            "reactors"
        },
        urls.join("  "),
    );
    let admin = admin.map_or_else(
        || "off".to_owned(),
        |addresses| {
            let urls = addresses.iter().map(|address| format!("http://{address}"));
            urls.collect::<Vec<_>>().join("  ")
        },
    );
    text += &format!("  monitoring    {admin}\n");
    if let Some(acceptor) = acceptor.filter(|_| config.tls.certificates.is_empty()) {
        let fingerprint = acceptor.certificate_fingerprint();
        text += &format!("  certificate   made at start, SHA-256 {fingerprint}\n");
    }
    text += &format!(
        "  limits        {} connections, messages of {}, {} waiting for a slow client\n",
        config.limits.connections_max,
        units::format_size(config.websocket.message_bytes_max as u64),
        units::format_size(config.outbox.bytes_max as u64),
    );
    let scheme = if config.api.tls { "https" } else { "http" };
    for address in addresses.iter().skip(config.listen.len()) {
        text += &format!("  API           {scheme}://{address}/api\n");
    }
    let mut routes: Vec<String> = (config.routes.iter())
        .map(|route| route.path.to_string())
        .collect();
    if config.demo_routes {
        routes.push("/echo (back to you), /broadcast (to everybody there)".into());
    }
    if routes.is_empty() {
        routes.push("none".into());
    }
    text += &format!("  routes        {}\n", routes.join(", "));
    if let (true, Some(url)) = (config.demo_routes, urls.first()) {
        text += &format!("  try           {}\n", try_command(url));
    }
    if let Some(token) = token {
        text += &format!(
            "  token         for the user \"{}\", {}; TIDEGATE_TOKEN_SECRET and `tidegate token` make others\n  \
             \x20             {token}\n",
            token::DEVELOPER,
            units::format_duration(token::READY_MADE_FOR),
        );
    }
    text
}

/// The customary command-line client; `-n` accepts a certificate that nobody has signed.
fn try_command(url: &str) -> String {
    let trust = if url.starts_with("wss") { "-n " } else { "" };
    format!("npx wscat {trust}-c {url}/echo")
}

/// As many descriptors as the host allows: every connection is one. The configuration was checked
/// against the hard limit.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}

/// SIGTERM and SIGINT close every connection with 1001, a second one exits at once; SIGHUP reads
/// everything again.
fn listen_for_signals(mut reloader: Reloader) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let listen = move || {
        let mut is_ending = false;
        for signal in &mut signals {
            if signal == SIGHUP {
                reloader.reload();
            } else if is_ending {
                exit_at_once();
            } else {
                is_ending = true;
                tracing::info!("shutting down; a second signal exits at once");
                reloader.handle.shut_down();
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)?;
    Ok(())
}

#[expect(
    clippy::exit,
    reason = "the operator does not want to wait for anything"
)]
fn exit_at_once() {
    std::process::exit(0);
}

/// Writes to standard output. A reader that went away is no failure of the configuration.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Writes to standard error; nobody is left to tell if this fails.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

const USAGE: u8 = 2;
const BAD_CONFIGURATION: u8 = 78;

/// Longest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
