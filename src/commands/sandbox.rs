//! `entropy sandbox`.

use std::net::SocketAddr;

use anyhow::Context;
use entropy_jobs::process::config::environment;
use entropy_jobs::process::shutdown;

/// What `entropy sandbox` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on [default: BIND, or 127.0.0.1:8001].
    #[arg(long)]
    bind: Option<SocketAddr>,
    /// Accept only this token, instead of every one that does not start with "bad" or "expired". May be repeated.
    #[arg(long = "token")]
    tokens: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let bind = match (args.bind, environment("BIND")) {
        (Some(bind), _) => bind,
        (None, Some(bind)) => bind.parse().context("BIND must be an address such as 127.0.0.1:8001")?,
        (None, None) => SocketAddr::from(([127, 0, 0, 1], 8001)),
    };
    let listener =
        tokio::net::TcpListener::bind(bind).await.with_context(|| format!("cannot listen on {bind}"))?;
    let address = listener.local_addr()?;
    println!("GeWe stand-in:  GEWE_API_ENDPOINT=http://{address}/gewe/v2/api  GEWE_TOKEN_ID=sandbox-token");
    println!(
        "FastGPT stand-in: FASTGPT_API_ENDPOINT=http://{address}/fastgpt/api  FASTGPT_API_KEY=fastgpt-demo"
    );
    println!("The phone:      http://{address}/");
    let stop = shutdown::on_signal()?;
    let config = entropy_sandbox::Config { tokens: args.tokens };
    entropy_sandbox::serve(listener, config, async move { stop.cancelled().await }).await
}
