//! One file per subcommand, and what they share.

pub(crate) mod admin;
pub(crate) mod api;
pub(crate) mod bench;
pub(crate) mod costs;
mod demo_conversations;
pub(crate) mod dev;
pub(crate) mod migrate;
pub(crate) mod sandbox;
pub(crate) mod scheduler;
pub(crate) mod search;
pub(crate) mod worker;

use entropy_jobs::process::config::{LogFormat, environment};
use entropy_jobs::process::telemetry;

/// The variables, as `--help` lists them.
pub(crate) const ENVIRONMENT: &str = "\
Environment (an empty variable counts as not set; .env.example has them all with comments):
  DATABASE_URL             postgres://user:password@host:5432/entropy   (required)
  REDIS_URL                redis://host:6379                            (required)
  REDIS_NAMESPACE          start of every Redis key                     (default: entropy)
  DATABASE_POOL_SIZE       connections per process                      (default: 16)
  BIND                     address of the API or the sandbox            (default: 127.0.0.1:8000, sandbox :8001)
  JWT_SECRET_KEY           signs logins                                 (required by api)
  JWT_ALGORITHM            HS256, HS384 or HS512                        (default: HS256)
  JWT_EXPIRE_HOURS         how long a login lasts                       (default: 24)
  REGISTRATION             open or closed                               (default: open)
  PLATFORM_ORGANIZATION    id of the organisation that runs the install (default: the one that was made first)
  ENCRYPTION_KEY           32 bytes in base64; seals provider tokens    (default: derived from JWT_SECRET_KEY)
  GEWE_API_ENDPOINT        whole prefix, http://host/gewe/v2/api        (required by worker)
  GEWE_TOKEN_ID            token of accounts that have none of their own
  GEWE_CALLBACK_SECRET     end of /callbacks/gewe/{secret}; at least 8 characters; without it nobody may call back
  GEWE_CALLBACK_HEADER_SECRET  what callbacks carry in Authorization     (default: nothing)
  FASTGPT_API_ENDPOINT     https://cloud.fastgpt.cn/api; of workflows that have no address of their own
  FASTGPT_API_KEY          key of the workflow that entropy dev begins with
  ELASTICSEARCH_URL        searches messages, http://host:9200           (default: Postgres does)
  MAX_MESSAGES_PER_MINUTE  ceiling of one account                       (default: 40)
  MAX_API_CALLS_PER_HOUR   ceiling of one GeWe token                    (default: 1000)
  RUST_LOG                 what is logged                               (default: info,apalis_core=warn)
  LOG_FORMAT               json or text                                 (default: text)

A new install:  entropy migrate, then entropy api, entropy worker and entropy scheduler, each as often as you like.";

/// Does what every command needs before it starts.
pub(crate) fn prepare() -> anyhow::Result<()> {
    // reqwest is built without a TLS provider of its own; a second call in one process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    telemetry::init(LogFormat::load(&environment)?)
}
