//! What the environment says: `FOVEAL_SERVE_LIMITS__MAX_K=100` is `[limits] max_k = 100`.

use std::str::FromStr;

use toml::{Table, Value};
use tracing::info;

use super::{ConfigError, merge, understood};

/// Variables that start with this are keys of the configuration.
pub const VARIABLE_PREFIX: &str = "FOVEAL_SERVE_";

/// What the names of all our variables start with.
const OURS: &str = "FOVEAL_";

/// Those that are read elsewhere: by this program, its tests and its examples.
const ELSEWHERE: [&str; 5] = ["CONFIG", "CPU", "LOG", "PROTO", "PYTHON"];

/// The variables as a table: the rest of the name in lower case, `__` between a table and its key.
/// Those whose names do not start with `FOVEAL_` are no concern of ours, nor are those that
/// platforms set for a service or a container that is called `foveal` or `foveal-serve`.
///
/// # Errors
/// A variable that is unknown, or whose value cannot be understood, by its name.
pub(super) fn table_of(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Table, ConfigError> {
    let mut table = Table::new();
    let mut keys = std::collections::BTreeMap::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(OURS) else { continue };
        if ELSEWHERE.contains(&rest) || rest.starts_with("TEST_") {
            continue;
        }
        if is_of_platform(rest, &text) {
            info!(name, "variable ignored: container platforms set it; --listen sets the address");
            continue;
        }
        let refused = |what: String| ConfigError::Source { origin: name.clone(), what };
        let Some(key) = name.strip_prefix(VARIABLE_PREFIX) else {
            let what =
                format!("unknown variable; wanted a name that begins with {VARIABLE_PREFIX}");
            return Err(refused(what));
        };
        let key = key.to_ascii_lowercase();
        if let Some(other) = keys.insert(key.clone(), name.clone()) {
            return Err(refused(format!("says the same as {other}; wanted one of them")));
        }
        let value = scalar(&text);
        let one = match key.split_once("__") {
            None => Table::from_iter([(key, value)]),
            Some((outer, inner)) => {
                let inner = Table::from_iter([(inner.to_string(), value)]);
                Table::from_iter([(outer.to_string(), Value::Table(inner))])
            }
        };
        // Each on its own, so that an error names the variable.
        understood(one.clone(), &name)?;
        merge(&mut table, one);
    }
    Ok(table)
}

/// Whether Kubernetes sets a variable for a service (`X_SERVICE_HOST`, `X_SERVICE_PORT_GRPC`,
/// `X_PORT`, `X_PORT_50151_TCP_ADDR`), or Docker for a link (`X_NAME`, `X_ENV_PATH`).
fn is_of_platform(rest: &str, value: &str) -> bool {
    // No service has a name with two such signs in a row; our tables and keys have them between.
    if rest.contains("__") {
        return false;
    }
    let is_port = rest == "PORT" || rest.ends_with("_PORT");
    let of_port = rest.split("_PORT_").nth(1).or(rest.strip_prefix("PORT_"));
    let is_of_port = of_port.is_some_and(|of| of.starts_with(|first: char| first.is_ascii_digit()));
    let has = |part: &str| {
        rest.strip_prefix(part).or(rest.split_once(&format!("_{part}")).map(|(_, after)| after))
    };
    let is_of_service = ["SERVICE_HOST", "SERVICE_PORT"]
        .into_iter()
        .filter_map(has)
        .any(|after| after.is_empty() || after.starts_with('_'));
    let is_name = (rest == "NAME" || rest.ends_with("_NAME")) && value.starts_with('/');
    let is_env = rest.starts_with("ENV_") || rest.contains("_ENV_");
    is_port || is_of_port || is_of_service || is_name || is_env
}

/// A variable's text as what it looks like: a number, a truth value, or itself.
fn scalar(text: &str) -> Value {
    if let Ok(number) = i64::from_str(text) {
        return Value::Integer(number);
    }
    bool::from_str(text).map_or_else(|_| Value::String(text.into()), Value::Boolean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(variables: &[(&str, &str)]) -> Result<Table, String> {
        let variables = variables.iter().map(|(name, text)| (name.to_string(), text.to_string()));
        table_of(variables).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_of_platforms_are_ignored() {
        for (name, text) in [
            ("FOVEAL_SERVE_PORT", "tcp://10.96.0.1:50151"),
            ("FOVEAL_SERVE_SERVICE_HOST", "10.96.0.1"),
            ("FOVEAL_SERVE_SERVICE_PORT", "50151"),
            ("FOVEAL_SERVE_SERVICE_PORT_GRPC", "50151"),
            ("FOVEAL_SERVE_PORT_50151_TCP", "tcp://10.96.0.1:50151"),
            ("FOVEAL_SERVE_PORT_50151_TCP_PROTO", "tcp"),
            ("FOVEAL_SERVE_PORT_50151_TCP_ADDR", "10.96.0.1"),
            ("FOVEAL_SERVE_NAME", "/web/foveal"),
            ("FOVEAL_SERVE_ENV_PATH", "/bin"),
            ("FOVEAL_PORT", "tcp://10.96.0.1:50151"),
            ("FOVEAL_SERVICE_HOST", "10.96.0.1"),
            ("FOVEAL_PORT_50151_TCP_PORT", "50151"),
            ("FOVEAL_STAGING_SERVICE_PORT", "50151"),
            ("FOVEAL_LOG", "debug"),
            ("FOVEAL_TEST_REQUIRE", "uring"),
            ("PORT", "80"),
        ] {
            assert_eq!(table(&[(name, text)]), Ok(Table::new()), "{name}");
        }
        // A collection may well be called so.
        let port = table(&[("FOVEAL_SERVE_COLLECTIONS__PORT", "/x")]).unwrap();
        assert_eq!(port["collections"]["port"].as_str(), Some("/x"));
    }

    #[test]
    fn whatever_else_is_unknown_is_named() {
        for (name, text) in [
            ("FOVEAL_SERVE_LISTN", "127.0.0.1:1"),
            ("FOVEAL_LISTEN", "127.0.0.1:1"),
            ("FOVEAL_MEMORY", "1GiB"),
            ("FOVEAL_SERVE_", "x"),
            ("FOVEAL_SERVE_NAME", "x"),
            ("FOVEAL_SERVE_PORTS", "1"),
            ("FOVEAL_SERVE_TRANSPORT", "1"),
            ("FOVEAL_SERVE_TRANSPORT_PORT_X", "1"),
            ("FOVEAL_SERVE_LIMITS__MAX_KK", "1"),
            ("FOVEAL_SERVE_LIMITS__MAX_K", "many"),
            ("FOVEAL_SERVE_THREADS", "-1"),
            ("FOVEAL_SERVE_THREADS", "NaN"),
        ] {
            let error = table(&[(name, text)]).expect_err(name);
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
        }
        let twice = [("FOVEAL_SERVE_THREADS", "1"), ("FOVEAL_SERVE_threads", "2")];
        let error = table(&twice).unwrap_err();
        assert!(error.contains("FOVEAL_SERVE_threads") && error.contains("FOVEAL_SERVE_THREADS"));
    }
}
