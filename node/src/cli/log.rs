//! Log lines on stderr: one per change of state.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::{Code, Diagnostic, Output};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Pretty,
    /// One JSON object.
    Json,
}

/// Starts logging. `TENURE_LOG` chooses what is shown, for example `info,actors=debug`.
pub(super) fn start(format: Format, output: &Output) -> Result<(), Diagnostic> {
    let wish = std::env::var("TENURE_LOG").unwrap_or_default();
    let default = if output.is_quiet() { "warn" } else { "info" };
    // The spans that the actor library opens around every message say nothing to whoever runs a node, and what membership
    // sees is logged by `gossip` under the members' names.
    let given = if wish.is_empty() { default } else { wish.as_str() };
    let filter = EnvFilter::try_new(format!("ractor=warn,ractor_cluster=warn,membership=error,{given}"));
    let filter = filter.map_err(|error| {
        Diagnostic::new(Code::Usage, format!("TENURE_LOG: `{wish}` is no filter: {error}"))
            .hint("write for example info or info,actors=debug")
    })?;
    // The subscriber heeds NO_COLOR, but does not look whether anybody reads on a terminal.
    let has_color =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(has_color);
    // If a subscriber is there already, it stays.
    let _ = match format {
        Format::Pretty => builder.with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
