//! The format of a plan, version 1: what `workflow_config` says, in types.
//!
//! The JSON Schema (`workflow_config.schema.json`, [`SCHEMA`]) and these types say the same; a test holds them together.
//! Unknown fields are refused everywhere: a typo must not silently turn off a cap.

pub mod condition;
pub mod cron_expression;
pub mod key;
pub mod period;
pub mod reading;
pub mod rules;
mod schema;
pub mod step;
pub mod trigger;
pub mod window;

use std::collections::BTreeMap;

use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use self::condition::Condition;
use self::key::StepId;
use self::rules::{Approval, Audience, Caps, Late, Stop, Variable};
use self::step::Step;
use self::trigger::Trigger;
use self::window::SendWindow;
use crate::calendar::DEFAULT_ZONE;
use crate::canonical::canonical;
use crate::sop::finding::{Code, Finding};

/// The JSON Schema of the format, for the flow editor.
pub const SCHEMA: &str = include_str!("../workflow_config.schema.json");

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowConfig {
    /// The format. There is only 1.
    pub schema_version: SchemaVersion,
    /// The zone of the plan's times. The contact's own, if it is known, wins.
    #[serde(default = "default_zone", serialize_with = "write_zone", deserialize_with = "read_zone")]
    pub timezone: Tz,
    /// What begins it.
    pub trigger: Trigger,
    /// For whom it is.
    pub audience: Audience,
    /// When it may send.
    pub send_window: SendWindow,
    /// How much it may send.
    pub caps: Caps,
    /// What happens to steps that are late. Without a word, they are carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
    /// What stops it. Opting out, a deleted contact and a person who takes over always do.
    pub stop: Vec<Stop>,
    /// What it is for; checked on each event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Condition>,
    /// What its texts may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
    /// Who must approve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Where it begins.
    pub entry: StepId,
    /// Its steps.
    pub steps: Vec<Step>,
    /// Where the flow editor draws what. Nothing else looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ui: Option<Map<String, Value>>,
}

/// The format's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SchemaVersion;

impl TryFrom<u32> for SchemaVersion {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<SchemaVersion, &'static str> {
        if number == 1 { Ok(SchemaVersion) } else { Err("the only format is 1") }
    }
}

impl From<SchemaVersion> for u32 {
    fn from(_: SchemaVersion) -> u32 {
        1
    }
}

fn default_zone() -> Tz {
    DEFAULT_ZONE
}

fn write_zone<S: Serializer>(zone: &Tz, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(zone.name())
}

fn read_zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map_err(|_| serde::de::Error::custom("no such time zone"))
}

impl WorkflowConfig {
    /// Reads a plan, or says everything that is wrong with its form (`E01`) at once.
    ///
    /// Bytes are read by [`reading::read`] first. Whether a plan is sound is another question: [`crate::sop::validate`].
    pub fn parse(config: &Value) -> Result<WorkflowConfig, Vec<Finding>> {
        reading::fence(config).map_err(|finding| vec![finding])?;
        let findings = schema::check(config);
        if !findings.is_empty() {
            return Err(findings);
        }
        // What the schema takes, the types take; where they should ever differ, nothing is run.
        WorkflowConfig::deserialize(config)
            .map_err(|error| vec![Finding::new(Code::E01, "", format!("the plan cannot be read: {error}"))])
    }

    /// Returns the step of this name.
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id().as_str() == id)
    }
}

/// Returns the SHA-256 of a plan's canonical text, in hexadecimal digits.
///
/// The order of fields and the blanks between them make no difference; everything else does, the editor's `ui` too:
/// what was approved is exactly what was looked at.
pub fn sha256(config: &Value) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    canonical(config, &mut |piece| digest.update(piece.as_bytes()));
    digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
