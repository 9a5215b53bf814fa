//! The `tidegate` program: command line and file become a configuration, that becomes a server, and
//! its end becomes an exit code. Prints and exits; decides nothing that a test would want to reach.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use tidegate::config::{Config, File, Host, Loaded, Sources, keys_markdown};
use tidegate::logging;

use cli::{Command, Invocation};

mod cli;

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
    if invocation.command == Command::Keys {
        return print(&keys_markdown());
    }
    let loaded = match load(&invocation, environment) {
        Ok(loaded) => loaded,
        Err(faults) => {
            say(&format!("{faults}\n"));
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    match invocation.command {
        Command::Config => print(&loaded.to_toml()),
        Command::Check => {
            let warnings = loaded
                .warnings
                .iter()
                .map(|warning| format!("warning: {warning}\n"));
            print(
                &warnings
                    .chain(["the configuration holds\n".to_owned()])
                    .collect::<String>(),
            )
        }
        Command::Serve | Command::Keys => serve(&loaded),
    }
}

/// Reads the file, if any, and makes a configuration of it and the rest.
fn load(invocation: &Invocation, environment: Vec<(String, String)>) -> Result<Loaded, String> {
    let name = invocation.file.as_ref().map(|path| path.to_string_lossy());
    let text = match &invocation.file {
        Some(path) => read(path).map_err(|error| {
            format!(
                "the configuration file {} cannot be read: {error}",
                path.display()
            )
        })?,
        None => String::new(),
    };
    let sources = Sources {
        flags: invocation.flags.clone(),
        environment,
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

fn serve(loaded: &Loaded) -> ExitCode {
    let _log = match logging::init(&loaded.config.log) {
        Ok(guard) => guard,
        Err(error) => {
            say(&format!("the log cannot be started: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key, source = %warning.source, "{}", warning.text);
    }

    // ---- The one call that turns a configuration into a running server. ----
    let result = run(&loaded.config);

    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the server ended");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal ends it.
fn run(_config: &Config) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this build has no server",
    ))
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
