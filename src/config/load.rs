//! Loads a configuration: applies its layers in order, and collects every fault on the way.
//!
//! Promises that one bad value hides no other: it counts as not given, so that the rest is still
//! checked. Must not know the ranges of the values.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::error::ConfigError;
use super::layers::{self, DEFAULT_TOML, KeyType, OPTIONAL_KEYS};
use super::{Config, KeyInForce};

/// A loaded configuration with all that is wrong with it.
#[derive(Debug)]
pub struct Examined {
    /// The configuration; a default stands for each value that could not be read.
    pub config: Config,
    /// Every fault, in the order of the layers, then of the ranges.
    pub faults: Vec<ConfigError>,
    /// What is suspicious but allowed: variables that look like misspelt keys.
    pub warnings: Vec<String>,
    /// Every key with its value, sorted, and where it comes from.
    pub keys: Vec<KeyInForce>,
}

impl Examined {
    /// The configuration, if it has no fault.
    ///
    /// # Errors
    /// All faults.
    pub fn valid(self) -> Result<Config, ConfigError> {
        match ConfigError::of(self.faults) {
            None => Ok(self.config),
            Some(error) => Err(error),
        }
    }
}

struct Loader {
    defaults: Table,
    known: BTreeMap<String, KeyType>,
    /// What the layers gave, each value with its place.
    given: BTreeMap<String, (Value, String)>,
    faults: Vec<ConfigError>,
}

/// Applies the layers; see [`Config::examine`].
pub(super) fn examine(
    file: Option<(&str, &str)>,
    env: &BTreeMap<String, String>,
    sets: &[(String, String)],
) -> Result<Examined, ConfigError> {
    let defaults = parse(DEFAULT_TOML, "default.toml")?;
    let known = layers::known_keys(&defaults);
    let mut loader = Loader { defaults, known, given: BTreeMap::new(), faults: Vec::new() };
    if let Some((text, place)) = file {
        loader.take_file(&parse(text, place)?, place);
    }
    let mut warnings = Vec::new();
    for (name, value) in env {
        if let Some(key) = layers::env_key(name, &loader.known) {
            loader.take_text(&key, value, &format!("the environment ({name})"));
        } else if let Some(meant) = layers::meant_variable(name, &loader.known) {
            warnings.push(format!("the variable {name} sets nothing; did you mean {meant}?"));
        }
    }
    for (key, value) in sets {
        loader.take_text(key, value, "--set");
    }
    loader.finish(warnings)
}

impl Loader {
    fn take_file(&mut self, table: &Table, place: &str) {
        for (key, value) in layers::flatten(table) {
            let empty_table = value.as_table().is_some_and(Table::is_empty);
            if empty_table {
                self.faults.extend(layers::unknown_table(&key, &self.known, place));
                continue;
            }
            self.take(&key, place, |key_type| layers::from_file(key_type, value.clone()));
        }
    }

    /// Takes a value from the environment or the command line. An empty one is not given.
    fn take_text(&mut self, key: &str, text: &str, place: &str) {
        if text.is_empty() && self.known.contains_key(key) {
            return;
        }
        self.take(key, place, |key_type| layers::from_text(key_type, text));
    }

    fn take(
        &mut self,
        key: &str,
        place: &str,
        read: impl FnOnce(KeyType) -> Result<Value, String>,
    ) {
        let Some(key_type) = self.known.get(key) else {
            self.faults.push(layers::unknown(key, &self.known, place));
            return;
        };
        let (key, place) = (key.to_owned(), place.to_owned());
        match read(*key_type).and_then(|value| self.check_form(&key, value)) {
            Ok(value) => {
                // a value that is overridden does no harm
                let same = |fault: &ConfigError| match fault {
                    ConfigError::Value { key: other, .. } => *other == key,
                    _ => false,
                };
                self.faults.retain(|fault| !same(fault));
                self.given.insert(key, (value, place));
            }
            Err(problem) => self.faults.push(ConfigError::Value { key, place, problem }),
        }
    }

    /// Checks that the configuration takes the value, whatever the other keys are.
    fn check_form(&self, key: &str, value: Value) -> Result<Value, String> {
        let mut table = self.defaults.clone();
        layers::set(&mut table, key, value.clone());
        let parsed = table.try_into::<Config>();
        parsed.map(|_| value).map_err(|e| e.message().to_owned())
    }

    fn finish(self, warnings: Vec<String>) -> Result<Examined, ConfigError> {
        let Self { defaults, known, given, mut faults } = self;
        let mut table = defaults.clone();
        for (key, (value, _)) in &given {
            layers::set(&mut table, key, value.clone());
        }
        let place = |key: &str| given.get(key).map(|(_, place)| place.clone());
        let set = layers::flatten(&table);
        let unset = OPTIONAL_KEYS.iter().filter(|key| !given.contains_key(**key));
        let mut keys: Vec<_> = set
            .into_iter()
            .map(|(key, value)| (key, Some(value.clone())))
            .chain(unset.map(|key| ((*key).to_owned(), None)))
            .map(|(key, value)| KeyInForce { place: place(&key), key, value })
            .collect();
        keys.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(keys.len(), known.len(), "every known key is there once");
        let parsed = table.try_into::<Config>();
        let config = parsed.map_err(|e| ConfigError::Invalid(e.message().to_owned()))?;
        faults.extend(config.faults());
        Ok(Examined { config, faults, warnings, keys })
    }
}

/// Parses TOML. The error is one line with the number of the line at fault.
fn parse(text: &str, place: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|e| {
        let start = e.span().and_then(|span| text.get(..span.start));
        let line = start.map_or(1, |before| before.matches('\n').count() + 1);
        let message = e.message().replace('\n', ", ");
        ConfigError::Invalid(format!("{place}, line {line}: {message}; correct the TOML there"))
    })
}

/// Reads the configuration file.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })
}
