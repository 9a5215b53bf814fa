//! The configuration written out: the values in force with their sources, and the reference table.

use super::raw::environment_name;
use super::setting::{Setting, Slot};
use super::{Config, Host, Loaded, Profile, Source};

/// What the reference table says about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key as in the file: `section.key`. Keys of the tables of a list follow the list's own.
    pub name: &'static str,
    /// The default as TOML, or in words where it depends on the host or the profile.
    pub default: String,
    /// The accepted values, with units.
    pub accepted: String,
    /// The environment variable that sets it; `None` for lists of tables and what stands in them.
    pub environment: Option<String>,
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
    let mut keys = Vec::new();
    for (here, there) in pairs {
        let variable = here.has_variable().then(|| environment_name(here.key));
        keys.push(describe(&here, &there, variable));
        describe_tables(&here, &there, &mut keys);
    }
    keys
}

/// Describes the keys of the tables of a list, and of the lists in those.
fn describe_tables(here: &Setting<'_>, there: &Setting<'_>, keys: &mut Vec<KeyInfo>) {
    let (Slot::Tables(here), Slot::Tables(there)) = (&here.slot, &there.slot) else {
        return;
    };
    let (mut here, mut there) = (here.template(), there.template());
    for (here, there) in here.settings().into_iter().zip(there.settings()) {
        keys.push(describe(&here, &there, None));
        describe_tables(&here, &there, keys);
    }
}

fn describe(here: &Setting<'_>, there: &Setting<'_>, environment: Option<String>) -> KeyInfo {
    let (in_development, in_production) = (here.slot.write(), there.slot.write());
    KeyInfo {
        name: here.key,
        default: match (here.default_in_words, here.inherits) {
            (Some(words), _) => words.to_owned(),
            (None, Some(other)) => format!("as `{other}`"),
            (None, None) if here.required.is_some() => "none: must be written".to_owned(),
            (None, None) if here.slot.is_secret() => "none".to_owned(),
            (None, None) if in_development == in_production => format!("`{in_development}`"),
            (None, None) => format!("`{in_development}`; production: `{in_production}`"),
        },
        accepted: here.slot.accepted(),
        environment,
        flag: here.flag,
        about: here.about,
    }
}

/// The reference table in Markdown, as the README shows it. Ends in a newline.
pub fn keys_markdown() -> String {
    let mut out = String::from(
        "| key | default | accepted | environment | flag | what it does |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    let code = |text: Option<&str>| text.map_or_else(String::new, |text| format!("`{text}`"));
    for key in keys() {
        let environment = code(key.environment.as_deref());
        let flag = code(key.flag);
        let KeyInfo {
            name,
            default,
            accepted,
            about,
            ..
        } = key;
        out.push_str(&format!(
            "| `{name}` | {default} | {accepted} | {environment} | {flag} | {about} |\n"
        ));
    }
    out
}

impl Loaded {
    /// The configuration in force as TOML, with the source of each value in a comment. Loading it
    /// again gives the same configuration, but for secrets: those are not shown.
    pub fn to_toml(&self) -> String {
        let mut config = self.config.clone();
        let mut out = String::new();
        let mut section = "";
        for setting in config.settings() {
            let key = setting.key;
            if let Slot::Tables(tables) = &setting.slot {
                for (index, mut table) in tables.tables().into_iter().enumerate() {
                    out.push_str(&format!("\n[[{key}]]\n"));
                    for field in table.settings() {
                        let source = self.source_of_field(key, index, &field);
                        write_line(&mut out, &field, source);
                    }
                }
                continue;
            }
            let in_section = key.split_once('.').map_or("", |(section, _)| section);
            if in_section != section {
                section = in_section;
                out.push_str(&format!("\n[{section}]\n"));
            }
            write_line(&mut out, &setting, self.provenance.of(key));
        }
        out
    }

    /// Where the value of a key in a table came from: the table, the section it is inherited from, or
    /// nobody.
    fn source_of_field(&self, list: &str, index: usize, field: &Setting<'_>) -> &Source {
        let written = self.provenance.of_field(list, index, field.name());
        written
            .or_else(|| Some(self.provenance.of(field.inherits?)))
            .unwrap_or(&Source::Default)
    }
}

fn write_line(out: &mut String, setting: &Setting<'_>, source: &Source) {
    let name = setting.name();
    let value = setting.slot.write();
    let is_secret = setting.slot.is_secret();
    // As a comment, so that nobody takes what stands for a secret for one.
    let comment = if is_secret { "# " } else { "" };
    out.push_str(&format!("{comment}{name} = {value} # {source}\n"));
}
