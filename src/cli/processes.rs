//! The hidden subcommands behind which the keeper's other processes run.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Exit, chain, talk};
use crate::daemon::runner;
use crate::net::privileges::RunnerNeeds;

/// What a runner is started with.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct RunnerArguments {
    /// The proxy connects from its clients' addresses
    #[arg(long)]
    client_source: bool,
}

/// What a proxy process is started with.
#[derive(Debug, clap::Args)]
pub(super) struct ProxyArguments {
    /// Where the keeper listens
    #[arg(long)]
    keeper_socket: PathBuf,
    /// Where sockets live
    #[arg(long)]
    runtime_dir: PathBuf,
}

/// `lbd runner`.
pub(super) fn runner(arguments: RunnerArguments) -> ExitCode {
    ended(runner::run(if arguments.client_source {
        RunnerNeeds::ClientSource
    } else {
        RunnerNeeds::Nothing
    }))
}

/// `lbd proxy`.
pub(super) fn proxy(arguments: ProxyArguments) -> ExitCode {
    ended(crate::daemon::proxy::run(crate::daemon::proxy::ProxyArgs {
        keeper_socket: arguments.keeper_socket,
        runtime_dir: arguments.runtime_dir,
    }))
}

fn ended<E: std::error::Error>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            talk(&format!("error: {}", chain(&error)));
            Exit::Failure.into()
        }
    }
}
