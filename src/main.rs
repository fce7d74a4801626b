//! Turns arguments into an exit code.

use std::{process::ExitCode, time::Duration};

use aiproxy::{
    cli::{self, Cli, CliError, Command, ExitStatus},
    secrets::secret,
};
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

/// How long `main` waits after a command for threads that are still busy: a keyring prompt, an open
/// connection.
const EXIT_WAIT: Duration = Duration::from_millis(200);
/// Size of the block that `retain_freed_memory` frees; most bodies are smaller.
const RETAINED_BLOCK_BYTES: usize = 1 << 20;
/// More threads than this only cost memory on a laptop.
const MAX_WORKER_THREADS: usize = 4;

fn main() -> ExitCode {
    if cli::answer_completion_request() {
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version end here too.
        Err(error) => {
            let code = cli::report_usage(&error);
            return ExitCode::from(u8::try_from(code).unwrap_or(1));
        }
    };
    let runs_proxy = cli.command.as_ref().is_some_and(Command::runs_proxy);
    let runs_program = cli.command.as_ref().is_some_and(Command::runs_program);
    // The other program would inherit the limit; this one reads no key of a provider.
    if !runs_program {
        // A system that refuses to disable core dumps must not stop the program.
        drop(secret::disable_core_dumps());
    }
    let runtime = match build_runtime(runs_proxy) {
        Ok(runtime) => runtime,
        Err(error) => {
            cli::report_error(&CliError::failed(format!(
                "cannot start the async runtime: {error}"
            )));
            return ExitCode::from(ExitStatus::Failed.code());
        }
    };
    if runs_proxy {
        retain_freed_memory();
    }
    let result = runtime.block_on(async {
        if runs_proxy || runs_program {
            return cli::run(cli).await;
        }
        tokio::select! {
            biased;
            // Polled first, so that the handler is installed before a prompt hides typed text. The
            // prompt then ends in order.
            _ = tokio::signal::ctrl_c() => Err(CliError::quiet(ExitStatus::Failed)),
            result = cli::run(cli) => result,
        }
    });
    runtime.shutdown_timeout(EXIT_WAIT);
    let exit = result.unwrap_or_else(|error| {
        cli::report_error(&error);
        error.exit
    });
    ExitCode::from(exit.code())
}

/// Lets the C library retain some of the memory that bodies free, instead of returning it to the
/// system and requesting it again page by page. GNU's malloc adapts its threshold to the blocks
/// that are freed.
fn retain_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(RETAINED_BLOCK_BYTES)));
}

fn build_runtime(runs_proxy: bool) -> std::io::Result<Runtime> {
    let mut builder = if runs_proxy {
        let threads =
            std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKER_THREADS);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    } else {
        Builder::new_current_thread()
    };
    builder.enable_all().build()
}
