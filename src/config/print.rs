//! The configuration written out: the values in force with their sources, and the reference table.

use super::raw::environment_name;
use super::{Config, Host, Loaded, Profile};

/// What the reference table says about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key as in the file: `section.key`.
    pub name: &'static str,
    /// The default as TOML, or in words where it depends on the host or the profile.
    pub default: String,
    /// The accepted values, with units.
    pub accepted: String,
    /// The environment variable that sets it.
    pub environment: String,
    /// The flags that set it, if any.
    pub flag: Option<&'static str>,
    /// What it does, in one line.
    pub about: &'static str,
}

/// Every key there is, in the order of the sections.
pub fn keys() -> Vec<KeyInfo> {
    // The host matters only to defaults that are given in words.
    let host = Host {
        cores: 1,
        descriptors_max: None,
    };
    let mut development = Config::defaults(Profile::Development, &host);
    let mut production = Config::defaults(Profile::Production, &host);
    let pairs = development
        .settings()
        .into_iter()
        .zip(production.settings());
    pairs
        .map(|(setting, in_production)| {
            let (here, there) = (setting.slot.write(), in_production.slot.write());
            KeyInfo {
                name: setting.key,
                default: match setting.default_in_words {
                    Some(words) => words.to_owned(),
                    None if here == there => format!("`{here}`"),
                    None => format!("`{here}`; production: `{there}`"),
                },
                accepted: setting.slot.accepted(),
                environment: environment_name(setting.key),
                flag: setting.flag,
                about: setting.about,
            }
        })
        .collect()
}

/// The reference table in Markdown, as the README shows it. Ends in a newline.
pub fn keys_markdown() -> String {
    let mut out = String::from(
        "| key | default | accepted | environment | flag | what it does |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for key in keys() {
        let flag = key
            .flag
            .map_or_else(String::new, |flag| format!("`{flag}`"));
        let KeyInfo {
            name,
            default,
            accepted,
            environment,
            about,
            ..
        } = key;
        out.push_str(&format!(
            "| `{name}` | {default} | {accepted} | `{environment}` | {flag} | {about} |\n"
        ));
    }
    out
}

impl Loaded {
    /// The configuration in force as TOML, with the source of each value in a comment. Loading it
    /// again gives the same configuration.
    pub fn to_toml(&self) -> String {
        let mut config = self.config.clone();
        let mut out = String::new();
        let mut section = "";
        for setting in config.settings() {
            let (in_section, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
            if in_section != section {
                section = in_section;
                out.push_str(&format!("\n[{section}]\n"));
            }
            let source = self.provenance.of(setting.key);
            out.push_str(&format!("{name} = {} # {source}\n", setting.slot.write()));
        }
        out
    }
}
