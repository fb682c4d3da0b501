//! The command line of Seedbank: parses what was typed, runs it, and ends with the right exit code.
//!
//! Standard output is data, standard error is talk. Exit codes: 0 done, 1 failed, 2 bad usage, 3 verification failed.

mod app;
mod args;
mod bar;
mod chain_config;
mod commands;
mod exit;
mod home;
mod keystore;
mod local;
mod local_chain;
mod logging;
mod output;
mod paying;
mod recovery;
mod registries;
mod scratch;
mod source;
mod stop;
mod target;

use app::App;
use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use output::Exit;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    leave_no_core_file();
    let cli = Cli::parse();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // Nobody may be listening; the exit code says it as well.
            let _unheard = exit::complain(&error);
            exit::of(&error).into()
        }
    }
}

/// Keys are in memory, and a core file would put them on a disk. Children inherit the limit.
fn leave_no_core_file() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    // Lowering a limit is everybody's right; where it is refused all the same, the limit was somebody's choice.
    let _refused = rustix::process::setrlimit(rustix::process::Resource::Core, none);
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let daemon = matches!(
        cli.command,
        Command::Provider(args::Provider::Run { .. })
            | Command::Steward(args::Steward::Run { .. })
            | Command::Chain(args::Chain::Run(_))
    );
    let default = if daemon { LevelFilter::INFO } else { LevelFilter::ERROR };
    logging::start(logging::level(cli.global.log.as_deref(), default)?, cli.global.log_format);
    let app = App::new(&cli.global)?;
    // Daemons end in order by themselves; everything else ends where it stands, and goes on when run again.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        if daemon {
            return dispatch(&app, cli.command).await.map(|()| Exit::Done);
        }
        let owns_signals =
            matches!(cli.command, Command::Up(_) | Command::Bench(args::Bench::Network { .. }));
        if owns_signals {
            return dispatch(&app, cli.command).await.map(|()| Exit::Done);
        }
        let stop = stop::stop_signal()?;
        tokio::select! {
            result = dispatch(&app, cli.command) => result.map(|()| Exit::Done),
            () = stop => {
                app.output.complain(format_args!("interrupted; run the same command again to go on"));
                Ok(Exit::Failed)
            }
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}

async fn dispatch(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(options) => commands::demo::run(app, &options).await,
        Command::Up(options) => commands::network::up(app, &options).await,
        Command::Down => commands::network::down(app),
        Command::Status => commands::network::status(app),
        Command::Dataset(command) => commands::dataset::run(app, command).await,
        Command::Provider(command) => commands::provider::run(app, command).await,
        Command::Steward(command) => commands::steward::run(app, command).await,
        Command::Chain(command) => commands::chain::run(app, command).await,
        Command::Key(command) => commands::key::run(app, command).await,
        Command::Wallet(command) => commands::wallet::run(app, command).await,
        Command::Agreement(command) => commands::agreement::run(app, command).await,
        Command::Bench(command) => commands::bench::run(app, command).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "seedbank", &mut std::io::stdout());
            Ok(())
        }
    }
}
