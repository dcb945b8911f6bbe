//! `entropy admin`: things an operator does by hand.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use diesel_async::AsyncConnection;
use entropy_jobs::process::config::environment;
use entropy_jobs::secret::Secret;
use entropy_schema::users::{self, User};
use entropy_schema::{Db, Profile};
use uuid::Uuid;

/// What `entropy admin` can do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Create a person who can log in; also when registration is closed. The password is read from standard input.
    CreateUser(CreateUser),
}

/// What `entropy admin create-user` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateUser {
    /// Name to log in with: 3 to 64 characters, unique in this install.
    #[arg(long)]
    username: String,
    /// admin, manager, agent or viewer.
    #[arg(long, default_value = "admin", value_parser = ["admin", "manager", "agent", "viewer"])]
    role: String,
    /// Make a new organisation of this name.
    #[arg(long, required_unless_present = "organization_id", conflicts_with = "organization_id")]
    organization: Option<String>,
    /// Add the person to this organisation.
    #[arg(long)]
    organization_id: Option<Uuid>,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    let Command::CreateUser(args) = command;
    let url = environment("DATABASE_URL").context("DATABASE_URL is not set")?;
    if let Some(problem) = entropy_api::username_problem(&args.username) {
        bail!("--username: {problem}");
    }
    let password = tokio::task::spawn_blocking(read_password).await??;
    if let Some(problem) = entropy_api::password_problem(password.expose()) {
        bail!("password: {problem}");
    }
    let hashed_password =
        tokio::task::spawn_blocking(move || entropy_api::hash_password(&password)).await??;
    let organization_id = args.organization_id.unwrap_or_else(Uuid::now_v7);
    let user = User {
        id: Uuid::now_v7(),
        organization_id,
        username: args.username.clone(),
        hashed_password,
        role: args.role.clone(),
        is_active: true,
        created_at: chrono::Utc::now(),
    };
    let db = Db::new(&url, 1, Profile::Api)?;
    let mut conn = db.conn().await?;
    let created = conn
        .transaction(async |conn| {
            if let Some(name) = &args.organization {
                users::create_organization(conn, organization_id, name).await?;
            }
            users::insert(conn, &user).await
        })
        .await;
    match created {
        Ok(()) => {
            println!("created {} ({}) in organisation {organization_id}", args.username, args.role);
            Ok(())
        }
        Err(error) => match error.violated_constraint() {
            Some(users::USERNAME_KEY) => bail!("the username {} is taken", args.username),
            Some("users_organization_id_fkey") => bail!("there is no organisation {organization_id}"),
            _ => Err(error.into()),
        },
    }
}

fn read_password() -> anyhow::Result<Secret> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprint!("Password (shown as you type): ");
        std::io::stderr().flush()?;
    }
    let mut line = String::new();
    input.lock().read_line(&mut line).context("reading the password from standard input")?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}
