//! Versions of plans, read once: what was approved never changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use entropy_schema::campaigns::facts;
use entropy_schema::{Conn, Result};
use serde::Deserialize;
use uuid::Uuid;

use super::material::Pinned;
use crate::sop::config::WorkflowConfig;

/// Versions that are kept; then all are forgotten and read again.
const KEPT: usize = 500;

/// A version of a plan.
#[derive(Debug)]
pub struct Plan {
    /// The tenant.
    pub organization_id: Uuid,
    /// What was approved.
    pub config: WorkflowConfig,
    /// What it sends beside texts, by key, in the revisions that were pinned.
    pub materials: HashMap<String, Pinned>,
}

/// The versions that this process has read.
#[derive(Debug, Default)]
pub struct Plans {
    known: Mutex<HashMap<(Uuid, i32), Arc<Plan>>>,
}

impl Plans {
    /// Returns a version. None: it was never approved, or this program cannot read it.
    pub async fn of(&self, conn: &mut Conn, sop: Uuid, version: i32) -> Result<Option<Arc<Plan>>> {
        let known = |plans: &Plans| {
            plans.known.lock().unwrap_or_else(PoisonError::into_inner).get(&(sop, version)).cloned()
        };
        if let Some(plan) = known(self) {
            return Ok(Some(plan));
        }
        let Some(plan) = read(conn, sop, version).await? else { return Ok(None) };
        let plan = Arc::new(plan);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert((sop, version), plan.clone());
        Ok(Some(plan))
    }
}

async fn read(conn: &mut Conn, sop: Uuid, version: i32) -> Result<Option<Plan>> {
    let Some(approved) = facts::approved(conn, sop, version).await? else { return Ok(None) };
    let config = match WorkflowConfig::deserialize(&approved.config) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(sop_id = %sop, version, %error, "an approved plan cannot be read");
            return Ok(None);
        }
    };
    let pinned = approved.materials.as_object().into_iter().flatten();
    let pins =
        pinned.filter_map(|(key, revision)| Some((key.clone(), i32::try_from(revision.as_i64()?).ok()?)));
    assemble(conn, approved.organization_id, config, pins).await.map(Some)
}

/// Puts a plan together with the revisions of the materials that it sends.
pub(super) async fn assemble(
    conn: &mut Conn,
    organization: Uuid,
    config: WorkflowConfig,
    pins: impl Iterator<Item = (String, i32)>,
) -> Result<Plan> {
    let (keys, revisions): (Vec<String>, Vec<i32>) = pins.unzip();
    let mut materials = HashMap::new();
    if !keys.is_empty() {
        for material in facts::materials(conn, organization, &keys, &revisions).await? {
            materials.insert(material.key.clone(), Pinned::of(material));
        }
    }
    Ok(Plan { organization_id: organization, config, materials })
}
