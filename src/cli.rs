//! The command line: what is asked for, in the operator's words. Values are judged with the rest of
//! the configuration, so that a wrong flag and a wrong line of the file are reported together.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use tidegate::config::Flags;

use crate::token;

/// What the program is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Serve until a signal ends it.
    Serve,
    /// Say whether the configuration holds.
    Check,
    /// Print the configuration in force.
    Config,
    /// Print the reference table of all keys.
    Keys,
    /// Print the reference table of all metrics.
    Metrics,
    /// Make a token, or look at one.
    Token(Box<token::Arguments>),
}

/// A command line, understood.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) command: Command,
    /// `--config`, or the file named by `TIDEGATE_CONFIG` if the flag is absent.
    pub(crate) file: Option<PathBuf>,
    pub(crate) flags: Flags,
}

impl Invocation {
    /// Reads a command line that begins with the program's name.
    ///
    /// # Errors
    /// What clap wants to be printed, with its exit code: 2 for a usage error, 0 for `--help` and
    /// `--version`.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        environment: &[(String, String)],
    ) -> Result<Self, clap::Error> {
        let Cli { command, options } = Cli::try_parse_from(arguments)?;
        let (command, options) = match command {
            None => (Command::Serve, options),
            Some(Subcommands::Serve(options)) => (Command::Serve, options),
            Some(Subcommands::Check(options)) => (Command::Check, options),
            Some(Subcommands::Config {
                keys,
                metrics,
                options,
            }) => match (keys, metrics) {
                (true, _) => (Command::Keys, options),
                (false, true) => (Command::Metrics, options),
                (false, false) => (Command::Config, options),
            },
            Some(Subcommands::Token(arguments)) => {
                let (config, profile) = arguments.sources();
                let options = Options {
                    config,
                    profile,
                    ..Options::default()
                };
                (Command::Token(Box::new(arguments)), options)
            }
        };
        let Options {
            config,
            profile,
            listen,
            listen_tls,
            tls_cert,
            tls_key,
            reactors,
        } = options;
        let from_environment = || {
            let (_, name) = environment
                .iter()
                .rfind(|(name, _)| name == "TIDEGATE_CONFIG")?;
            Some(PathBuf::from(name))
        };
        Ok(Self {
            command,
            file: config.or_else(from_environment),
            flags: Flags {
                profile,
                reactors,
                listen,
                listen_tls,
                tls_cert,
                tls_key,
            },
        })
    }
}

/// A WebSocket server for hosts with very many connections.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Serve until SIGTERM or Ctrl-C (the default command)
    #[command(after_help = AFTER_HELP)]
    Serve(Options),
    /// Check the configuration and the files it names, and say what is wrong with them
    #[command(after_help = AFTER_HELP)]
    Check(Options),
    /// Print the configuration in force as TOML, with the source of each value
    #[command(after_help = AFTER_HELP)]
    Config {
        /// Print the table of all keys instead, in Markdown
        #[arg(long)]
        keys: bool,
        /// Print the table of all metrics instead, in Markdown
        #[arg(long, conflicts_with = "keys")]
        metrics: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Make a token to try things out, or say of one why it is refused
    Token(token::Arguments),
}

#[derive(Debug, Default, Args)]
struct Options {
    /// Configuration file, TOML [env: TIDEGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// "development" (loopback, open routes) or "production" (refuses what is unsafe)
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Serve ws:// on this address instead of the configured listeners; may be repeated
    #[arg(long, value_name = "IP:PORT")]
    listen: Vec<String>,
    /// Serve wss:// on this address instead of the configured listeners; may be repeated
    #[arg(long, value_name = "IP:PORT")]
    listen_tls: Vec<String>,
    /// Certificate chain, PEM; may be repeated, with a --tls-key each, in the same order
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    tls_cert: Vec<String>,
    /// Private key, PEM, of the --tls-cert in the same place
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Vec<String>,
    /// Reactor threads, 1 to 255 [default: the cores this process may use]
    #[arg(long, value_name = "N")]
    reactors: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  tidegate
      development: ws://127.0.0.1:8080 and wss://127.0.0.1:8443, routes /echo and /broadcast
  tidegate serve --config /etc/tidegate.toml
  tidegate serve --config prod.toml --listen-tls 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem
      flags over a file that has the routes
  tidegate check --config /etc/tidegate.toml
  tidegate config --config /etc/tidegate.toml
  tidegate token user_id=42 role=Admin

A flag wins over the environment (TIDEGATE_SECTION_KEY), that over the file, that over the default.
--listen and --listen-tls replace all listeners written elsewhere; `tidegate config --keys` lists
every key.

Exit codes: 0 clean, 1 failure while running, 2 usage, 78 bad configuration.";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, clap::Error> {
        parse_in(line, &[])
    }

    fn parse_in(line: &str, environment: &[(&str, &str)]) -> Result<Invocation, clap::Error> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let environment: Vec<_> = environment.iter().map(own).collect();
        let arguments = std::iter::once("tidegate").chain(line.split_whitespace());
        Invocation::parse(arguments.map(OsString::from), &environment)
    }

    #[test]
    fn serve_is_the_default_command() {
        for (line, expected) in [
            ("", Command::Serve),
            ("--reactors 2", Command::Serve),
            ("serve --reactors 2", Command::Serve),
            ("check", Command::Check),
            ("config", Command::Config),
            ("config --keys", Command::Keys),
            ("config --metrics", Command::Metrics),
        ] {
            assert_eq!(parse(line).unwrap().command, expected, "{line:?}");
        }
    }

    #[test]
    fn flags_keep_their_order() {
        let line = "serve --profile production --listen-tls 0.0.0.0:1 --tls-cert a --tls-key b \
                    --listen-tls 0.0.0.0:2 --tls-cert c --tls-key d --listen [::1]:3 --reactors 9";
        let flags = parse(line).unwrap().flags;
        assert_eq!(flags.listen, ["[::1]:3"]);
        assert_eq!(flags.listen_tls, ["0.0.0.0:1", "0.0.0.0:2"]);
        assert_eq!(
            (flags.tls_cert, flags.tls_key),
            (
                vec!["a".to_owned(), "c".to_owned()],
                vec!["b".to_owned(), "d".to_owned()],
            )
        );
        assert_eq!(flags.profile.as_deref(), Some("production"));
        assert_eq!(flags.reactors.as_deref(), Some("9"));
    }

    #[test]
    fn the_config_flag_wins_over_its_variable() {
        let environment = [("TIDEGATE_CONFIG", "b.toml")];
        let file = |line| parse_in(line, &environment).unwrap().file;
        assert_eq!(file("check --config a.toml"), Some("a.toml".into()));
        assert_eq!(file("check"), Some("b.toml".into()));
        assert_eq!(parse("check").unwrap().file, None);
    }

    #[test]
    fn a_token_is_made_or_looked_at_by_the_configuration_that_is_named() {
        for line in [
            "token --config a.toml --profile production",
            "token user_id=42 --config a.toml --profile production role=Admin",
            "token inspect --config a.toml --profile production x.y.z",
            "token inspect - --config a.toml --profile production",
        ] {
            let invocation = parse_in(line, &[("TIDEGATE_CONFIG", "b.toml")]).unwrap();
            assert!(matches!(invocation.command, Command::Token(_)), "{line}");
            assert_eq!(invocation.file, Some("a.toml".into()), "{line}");
            assert_eq!(invocation.flags.profile.as_deref(), Some("production"));
        }
    }

    #[test]
    fn usage_errors_exit_with_2_and_help_with_0() {
        for (line, expected) in [
            ("--help", 0),
            ("--version", 0),
            ("serve --help", 0),
            ("sreve", 2),
            ("--lisen 127.0.0.1:1", 2),
            ("--listen", 2),
            ("--tls-cert a", 2),
            ("--tls-key a", 2),
            ("--reactors 1 --reactors 2", 2),
            ("--reactors 1 serve", 2),
            ("token --help", 0),
            ("token inspect --help", 0),
            ("token user_id", 2),
            ("token =42", 2),
            ("token --expires-in soon", 2),
            ("token --expires-in 60", 2),
            ("token --algorithm none", 2),
            ("token --algorithm hs256", 2),
            ("token --secret x", 2),
            ("token inspect a b", 2),
            ("token user_id=42 inspect", 2),
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), expected, "{line:?}");
        }
    }

    #[test]
    fn help_shows_examples_and_exit_codes() {
        let help = parse("--help").unwrap_err().to_string();
        for expected in [
            "Examples:",
            "--listen-tls <IP:PORT>",
            "78 bad configuration",
        ] {
            assert!(help.contains(expected), "{expected:?} is not in:\n{help}");
        }
    }
}
