//! The port behind which messages are searched: Postgres, or Elasticsearch where there is one.
//!
//! An implementation answers with ids; the messages themselves are then read from Postgres, bound to the organisation. So
//! an index that is behind, or wrong, shows nobody what they may not see.

mod elastic;

use std::sync::Arc;

use entropy_jobs::process::config::Search;
use entropy_schema::Db;
use entropy_schema::search::{Filter, find};
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::problem::ApiError;

/// Finds messages by what they say.
pub(crate) trait MessageSearch: Send + Sync {
    /// Returns the ids of the newest messages that fit, newest first.
    fn find<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Vec<Uuid>, ApiError>>;
}

/// Returns the search of this install.
pub(crate) fn of(db: &Db, config: &Search) -> anyhow::Result<Arc<dyn MessageSearch>> {
    Ok(match &config.url {
        Some(url) => Arc::new(elastic::Elastic::new(url, &config.index)?),
        None => Arc::new(Postgres(db.clone())),
    })
}

/// `ILIKE` over the trigram index.
struct Postgres(Db);

impl MessageSearch for Postgres {
    fn find<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Vec<Uuid>, ApiError>> {
        Box::pin(async move {
            let mut conn = self.0.conn().await?;
            Ok(find(&mut conn, filter).await?)
        })
    }
}
