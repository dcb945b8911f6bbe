//! The four roles, each of which may do all that the ones below it may.

use std::str::FromStr;

use poem_openapi::Enum;

/// What a person may do in their organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enum)]
#[oai(rename_all = "snake_case")]
pub enum Role {
    /// Reads everything but what messages say.
    Viewer,
    /// Sends, cancels, resolves; keeps accounts.
    Agent,
    /// Also pauses and resumes lanes and queues, revives, and changes jobs by the thousand.
    Manager,
    /// Also keeps people, prices and limits, and reads the audit log.
    Admin,
}

impl Role {
    /// The role's name, as it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Agent => "agent",
            Role::Manager => "manager",
            Role::Admin => "admin",
        }
    }
}

/// The text is not a role.
#[derive(Debug, thiserror::Error)]
#[error("a role is admin, manager, agent or viewer")]
pub struct NotARole;

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Self, NotARole> {
        [Role::Viewer, Role::Agent, Role::Manager, Role::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(NotARole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_the_ones_below_it_may() {
        assert!(Role::Viewer < Role::Agent && Role::Agent < Role::Manager && Role::Manager < Role::Admin);
        for role in [Role::Viewer, Role::Agent, Role::Manager, Role::Admin] {
            assert_eq!(role.as_str().parse::<Role>().ok(), Some(role));
        }
        assert!("owner".parse::<Role>().is_err());
    }
}
